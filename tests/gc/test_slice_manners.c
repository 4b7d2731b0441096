/* SPDX-License-Identifier: MIT
 *
 * A slice is in nobody's way: it leaves what is queued when a stop is asked for, before each batch,
 * and lets go of its heap's lock amid one. Method: decrements are queued by hand, and a second
 * thread asks for a stop as soon as it sees a count fall; or takes the lock again and again and
 * looks whether some of a batch are dead and others not yet.
 */
#include "../test.h"
#include "gc/gc.h"

#include <sched.h>

/* Batches as death.c takes them; all of them are one slice. */
enum { BATCH = 64, BATCHES = 32, OBJECTS = BATCH * BATCHES, TRIES = 3000 };

typedef struct {
    long value;
} Leaf;
CAIRN_LEAF(Leaf);
typedef cairn_ref(Leaf) LeafRef;

static LeafRef *table;
static uint8_t *counts[OBJECTS]; /* in the order in which a slice comes to them */

/* The last ones lie in a block that is still open, where a slice frees nothing: they are not used.
 */
static void make_leaves(void) {
    table = cairn_new_array(LeafRef, 2 * CRN_BLOCK_BYTES / CRN_GRANULE + OBJECTS);
    size_t length = cairn_length(table);
    for (size_t i = 0; i < length; i++) cairn_set(&table[i], cairn_new(Leaf));
}

/* `by` more references than there are fields, which decrements wait to take. */
static void queue_decrements(uint8_t by) {
    struct crn_stack *queue = &crn_gc.workers[0].decrements;
    assert_int_equal(queue->count, 0);
    for (size_t i = 0; i < OBJECTS; i++) {
        char *object = (char *)table[i].p;
        uint8_t *count = crn_count_of(object);
        *count = (uint8_t)(*count + by);
        if (by == 0) *(void **)(void *)&table[i] = NULL; /* its count is the queue's */
        crn_push(queue, object);
        counts[OBJECTS - 1 - i] = count;
    }
    __atomic_store_n(&crn_gc.has_backlog, true, __ATOMIC_RELAXED);
}

static void prepare(void) {
    run_apart(make_leaves);
    collect_and_clean(CAIRN_COUNT);
    collect_and_clean(CAIRN_COUNT);
}

static void finish(void) {
    while (crn_gc.workers[0].decrements.count) crn_count_slice();
}

/* ---- Stops --------------------------------------------------------------------------------------
 */

static int turn; /* of the second thread; atomic */

static void *ask_for_stop(void *argument) {
    uint8_t *first = argument, before = __atomic_load_n(first, __ATOMIC_RELAXED);
    __atomic_store_n(&turn, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(first, __ATOMIC_RELAXED) == before) CRN_PAUSE();
    __atomic_store_n(&cairn_runtime.stop, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&turn, 2, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) != 3) sched_yield();
    return NULL;
}

static void wait_for_turn(int wanted) {
    while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) != wanted) sched_yield();
}

/* Returns how many decrements the slice has left. */
static size_t slice_with_stop(void) {
    __atomic_store_n(&turn, 0, __ATOMIC_SEQ_CST);
    queue_decrements(1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ask_for_stop, counts[0]), 0);
    wait_for_turn(1);
    crn_enter();
    crn_count_slice();
    size_t left = crn_gc.workers[0].decrements.count;
    wait_for_turn(2);
    /* Asked for before it begins, a stop waits for nothing. */
    crn_count_slice();
    size_t left_then = crn_gc.workers[0].decrements.count;
    __atomic_store_n(&cairn_runtime.stop, 0, __ATOMIC_SEQ_CST);
    finish();
    crn_leave();
    __atomic_store_n(&turn, 3, __ATOMIC_SEQ_CST);
    pthread_join(thread, NULL);
    assert_int_equal(left_then, left);
    return left;
}

static void slice_leaves_when_a_stop_is_asked_for(void **state) {
    (void)state;
    if (crn_gc.processor_count == 1) skip();
    prepare();
    for (int i = 0; i < TRIES; i++) {
        if (slice_with_stop() != 0) return;
    }
    fail_msg("no slice of %d was ended by a stop", TRIES);
}

/* ---- The heap's lock ----------------------------------------------------------------------------
 */

static bool seen_dead[OBJECTS];
static bool is_over, is_amid; /* atomic */

static unsigned deaths_in(size_t batch, const bool *is_dead) {
    unsigned deaths = 0;
    for (size_t i = 0; i < BATCH; i++) deaths += is_dead[batch * BATCH + i];
    return deaths;
}

static void look_at_counts(bool *is_dead) {
    for (size_t i = 0; i < OBJECTS; i++) {
        is_dead[i] = __atomic_load_n(counts[i], __ATOMIC_ACQUIRE) == 0;
    }
}

static bool is_any_batch_amid(void) {
    look_at_counts(seen_dead);
    for (size_t batch = 0; batch < BATCHES; batch++) {
        unsigned deaths = deaths_in(batch, seen_dead);
        if (deaths != 0 && deaths != BATCH) return true;
    }
    return false;
}

static void *want_the_lock(void *argument) {
    struct crn_lock *lock = argument;
    __atomic_store_n(&turn, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&is_over, __ATOMIC_SEQ_CST)) {
        crn_lock_acquire(lock);
        bool is_found = is_any_batch_amid();
        crn_lock_release(lock);
        if (!is_found) continue;
        __atomic_store_n(&is_amid, true, __ATOMIC_SEQ_CST);
        break;
    }
    __atomic_store_n(&turn, 2, __ATOMIC_SEQ_CST);
    return NULL;
}

/* Returns whether the other had the lock when some of a batch were dead whose others followed. */
static bool slice_with_a_rival(void) {
    static bool dead[OBJECTS];
    __atomic_store_n(&turn, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&is_over, false, __ATOMIC_SEQ_CST);
    __atomic_store_n(&is_amid, false, __ATOMIC_SEQ_CST);
    prepare();
    queue_decrements(0);
    pthread_t thread;
    struct crn_lock *lock = &crn_default_heap->core.lock;
    assert_int_equal(pthread_create(&thread, NULL, want_the_lock, lock), 0);
    wait_for_turn(1);
    crn_enter();
    finish();
    __atomic_store_n(&is_over, true, __ATOMIC_SEQ_CST);
    wait_for_turn(2);
    look_at_counts(dead);
    crn_leave();
    pthread_join(thread, NULL);
    if (!__atomic_load_n(&is_amid, __ATOMIC_SEQ_CST)) return false;
    for (size_t batch = 0; batch < BATCHES; batch++) {
        unsigned then = deaths_in(batch, seen_dead);
        if (then != 0 && then < deaths_in(batch, dead)) return true;
    }
    return false;
}

static void slice_gives_way_amid_a_batch(void **state) {
    (void)state;
    if (crn_gc.processor_count == 1) skip();
    for (int i = 0; i < TRIES; i++) {
        if (slice_with_a_rival()) return;
    }
    fail_msg("in %d slices nobody got the lock amid a batch", TRIES);
}

int main(void) {
    (void)cairn_new(Leaf);
    crn_settings.has_reclaimer = false; /* slices are this test's own */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slice_leaves_when_a_stop_is_asked_for),
        cmocka_unit_test(slice_gives_way_amid_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
