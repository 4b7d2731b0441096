/* SPDX-License-Identifier: MIT
 *
 * A slice is in nobody's way: it leaves what is queued when a stop is asked for, before each batch,
 * and lets go of its heap's lock amid one. Method: decrements are queued by hand, and a page that a
 * batch reads is closed, so that the fault's handler runs right there: it asks for the stop, or
 * waits until a second thread wants the lock, which then looks whether some of a batch are dead and
 * others not yet.
 */
#include "../test.h"
#include "gc/gc.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

/* Batches as death.c takes them; all of them are one slice. */
enum { BATCH = 64, BATCHES = 32, OBJECTS = BATCH * BATCHES, TRIES = 3000, PAGE = CRN_PAGE_BYTES };

typedef struct Link Link;
typedef cairn_ref(Link) LinkRef;
struct Link {
    LinkRef next; /* NULL: read when its object dies */
};
CAIRN_TYPE(Link, next);

static LinkRef *table;
static uint8_t *counts[OBJECTS]; /* in the order in which a slice comes to them */
static char *first_object;       /* of counts[0] */

/* The last ones lie in a block that is still open, where a slice frees nothing: they are not used.
 */
static void make_links(void) {
    table = cairn_new_array(LinkRef, 2 * CRN_BLOCK_BYTES / CRN_GRANULE + OBJECTS);
    size_t length = cairn_length(table);
    for (size_t i = 0; i < length; i++) cairn_set(&table[i], cairn_new(Link));
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
        first_object = object;
    }
    __atomic_store_n(&crn_gc.has_backlog, true, __ATOMIC_RELAXED);
}

static void prepare(void) {
    run_apart(make_links);
    collect_and_clean(CAIRN_COUNT);
    collect_and_clean(CAIRN_COUNT);
}

static void finish(void) {
    while (crn_gc.workers[0].decrements.count) crn_count_slice();
}

/* ---- Faults -------------------------------------------------------------------------------------
 */

static char *closed_page; /* NULL: none */
static void (*at_fault)(void);

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    char *page = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));
    if (!closed_page || page != closed_page) {
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigaction(signal, &plain, NULL); /* any other fault ends the program where it is */
        return;
    }
    closed_page = NULL;
    if (mprotect(page, PAGE, PROT_READ | PROT_WRITE) != 0) abort();
    at_fault();
}

/* The first access to the page of `address` calls `then`. */
static void close_page(void *address, void (*then)(void)) {
    at_fault = then;
    closed_page = (char *)((uintptr_t)address & ~(uintptr_t)(PAGE - 1));
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    assert_int_equal(sigaction(SIGSEGV, &action, NULL), 0);
    assert_int_equal(mprotect(closed_page, PAGE, PROT_NONE), 0);
}

/* ---- Stops --------------------------------------------------------------------------------------
 */

static void ask_for_stop(void) {
    __atomic_store_n(&cairn_runtime.stop, 1, __ATOMIC_SEQ_CST);
}

/* Asked for amid the first batch, a stop waits for that one only; before it begins, for nothing. */
static void slice_leaves_when_a_stop_is_asked_for(void **state) {
    (void)state;
    prepare();
    queue_decrements(1);
    const struct crn_stack *queue = &crn_gc.workers[0].decrements;
    crn_enter();
    close_page(counts[0], ask_for_stop);
    crn_count_slice();
    size_t left = queue->count;
    crn_count_slice();
    size_t left_then = queue->count;
    __atomic_store_n(&cairn_runtime.stop, 0, __ATOMIC_SEQ_CST);
    finish();
    crn_leave();
    assert_null(closed_page);
    assert_int_equal(left, OBJECTS - BATCH);
    assert_int_equal(left_then, left);
}

/* ---- The heap's lock ----------------------------------------------------------------------------
 */

static bool seen_dead[OBJECTS];
static int turn; /* of the second thread; atomic */
static struct crn_lock *wanted;
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

static void wait_for_turn(int awaited) {
    while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) != awaited) sched_yield();
}

/* The slice has the lock, and its first object's fields before it. */
static void wait_until_wanted(void) {
    __atomic_store_n(&turn, 1, __ATOMIC_SEQ_CST);
    while (!crn_lock_is_wanted(wanted)) sched_yield();
}

static void *want_the_lock(void *argument) {
    struct crn_lock *lock = argument;
    wait_for_turn(1);
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
    wanted = &crn_default_heap->core.lock;
    assert_int_equal(pthread_create(&thread, NULL, want_the_lock, wanted), 0);
    crn_enter();
    close_page(first_object, wait_until_wanted);
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
    (void)cairn_new(Link);
    crn_settings.has_reclaimer = false; /* slices are this test's own */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slice_leaves_when_a_stop_is_asked_for),
        cmocka_unit_test(slice_gives_way_amid_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
