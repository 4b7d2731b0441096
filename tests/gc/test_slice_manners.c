/* SPDX-License-Identifier: MIT
 *
 * A slice is in nobody's way: it leaves what is queued when a stop is asked for, before each batch,
 * and lets go of its heap's lock amid one; and an epoch that is due waits a while for the
 * reclaimer's batch while the program goes on. Method: decrements are queued by hand, and a page
 * that a batch reads is closed, so that the fault's handler runs right there: it asks for the stop,
 * or waits until a second thread wants the lock, which then looks whether some of a batch are dead
 * and others not yet.
 */
#include "../test.h"
#include "gc/gc.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* ---- A stop that is near ------------------------------------------------------------------------
 *
 * A second thread keeps the lock that the reclaimer's batch needs. The program allocates in a heap
 * of its own meanwhile.
 */

enum { BUDGET = 1 << 20, SLACK = 4 * CRN_REPORT_BYTES };
static cairn_heap *other;
static pthread_t holder;
static bool is_let_go, has_stop_come; /* atomic */

static void *hold_the_lock(void *argument) {
    crn_enter();
    crn_lock_acquire(argument);
    __atomic_store_n(&turn, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&is_let_go, __ATOMIC_SEQ_CST) && !has_stop_come) {
        has_stop_come = __atomic_load_n(&cairn_runtime.stop, __ATOMIC_SEQ_CST);
        sched_yield();
    }
    crn_lock_release(argument);
    crn_leave();
    return NULL;
}

static void hold_the_reclaimer(void) {
    prepare();
    if (!other) assert_int_equal(cairn_heap_create(NULL, &other), CAIRN_OK);
    __atomic_store_n(&crn_gc.budget_bytes, BUDGET, __ATOMIC_RELAXED);
    queue_decrements(0);
    turn = 0;
    is_let_go = has_stop_come = false;
    struct crn_lock *lock = &crn_default_heap->core.lock;
    alarm(120);
    assert_int_equal(pthread_create(&holder, NULL, hold_the_lock, lock), 0);
    wait_for_turn(1);
    crn_settings.has_reclaimer = true;
    crn_reclaim_wake();
    crn_reclaim_start_thread();
    while (!crn_lock_is_wanted(lock)) sched_yield();
}

static void wait_for_the_rest(void) {
    while (__atomic_load_n(&crn_gc.has_backlog, __ATOMIC_ACQUIRE)) sched_yield();
    while (!crn_reclaim_rests()) sched_yield();
    alarm(0);
    crn_settings.has_reclaimer = false;
}

static uint64_t epochs(void) {
    return __atomic_load_n(&crn_gc.epoch, __ATOMIC_ACQUIRE);
}

static void program_goes_on_while_the_reclaimer_is_held(void **state) {
    (void)state;
    if (crn_gc.processor_count == 1) skip();
    hold_the_reclaimer();
    uint64_t epoch = epochs();
    while (crn_young_bytes() < BUDGET + BUDGET / 2 - SLACK) cairn_new_in(other, Link);
    assert_true(epochs() == epoch);
    assert_true(__atomic_load_n(&crn_gc.is_stop_near, __ATOMIC_RELAXED));
    __atomic_store_n(&is_let_go, true, __ATOMIC_SEQ_CST);
    pthread_join(holder, NULL);
    while (!crn_reclaim_rests()) sched_yield();
    for (size_t i = 0; i < SLACK / CRN_GRANULE && epochs() == epoch; i++) cairn_new_in(other, Link);
    assert_true(epochs() == epoch + 1);
    assert_false(has_stop_come);
    wait_for_the_rest();
}

static void program_waits_in_the_end(void **state) {
    (void)state;
    if (crn_gc.processor_count == 1) skip();
    hold_the_reclaimer();
    uint64_t epoch = epochs(), most = 0;
    while (epochs() == epoch) {
        most = crn_max(most, crn_young_bytes());
        cairn_new_in(other, Link);
    }
    pthread_join(holder, NULL);
    assert_true(has_stop_come);
    assert_true(most >= BUDGET + BUDGET / 2 - SLACK && most <= BUDGET + BUDGET / 2 + SLACK);
    wait_for_the_rest();
}

/* And goes on by itself if none comes. */
static void slices_rest_before_a_stop(void **state) {
    (void)state;
    prepare();
    queue_decrements(1);
    __atomic_store_n(&crn_gc.is_stop_near, true, __ATOMIC_RELAXED);
    crn_enter();
    crn_count_slice();
    crn_count_help(1); /* returns */
    crn_leave();
    assert_int_equal(crn_gc.workers[0].decrements.count, OBJECTS);
    if (crn_gc.processor_count == 1) {
        __atomic_store_n(&crn_gc.is_stop_near, false, __ATOMIC_RELAXED);
        finish();
        return;
    }
    alarm(120);
    crn_settings.has_reclaimer = true;
    crn_reclaim_wake();
    crn_reclaim_start_thread();
    while (__atomic_load_n(&crn_gc.is_stop_near, __ATOMIC_RELAXED)) sched_yield();
    wait_for_the_rest();
}

int main(void) {
    (void)cairn_new(Link);
    crn_settings.has_reclaimer = false; /* slices are this test's own */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slice_leaves_when_a_stop_is_asked_for),
        cmocka_unit_test(slice_gives_way_amid_a_batch),
        cmocka_unit_test(slices_rest_before_a_stop),
        cmocka_unit_test(program_goes_on_while_the_reclaimer_is_held),
        cmocka_unit_test(program_waits_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
