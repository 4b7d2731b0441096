/* SPDX-License-Identifier: MIT
 *
 * The lock under contention: what it guards is never torn, every sleeper is woken, and a holder
 * that gives way lets others have it.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "../test.h"

#include "base/lock.h"

#include <sched.h>

enum { THREADS = 4, TURNS = 50000 };

static struct crn_lock lock;
static long first, second; /* equal whenever the lock is free */

static void *take_turns(void *argument) {
    for (int i = 0; i < TURNS; i++) {
        crn_lock_acquire(&lock);
        if (first != second) abort();
        first++;
        /* Longer than the spins now and then, so that others sleep. */
        for (volatile int k = 0; i % 64 == 0 && k < 5000; k++) {}
        second++;
        crn_lock_release(&lock);
    }
    return argument;
}

static void lock_excludes_and_wakes(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_turns, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(first, (long)THREADS * TURNS);
    assert_int_equal(lock.state, 0);
}

static void held_lock_is_not_taken_twice(void **state) {
    (void)state;
    assert_true(crn_lock_try(&lock));
    assert_false(crn_lock_try(&lock));
    crn_lock_release(&lock);
    assert_true(crn_lock_try(&lock));
    crn_lock_release(&lock);
}

static bool had_it;

static void *want(void *argument) {
    crn_lock_acquire(&lock);
    had_it = true;
    crn_lock_release(&lock);
    return argument;
}

/* Waits for the other, which spins or sleeps by then, and for that alone. */
static void holder_gives_way(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++) {
        had_it = false;
        crn_lock_acquire(&lock);
        assert_false(crn_lock_is_wanted(&lock));
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, want, NULL), 0);
        while (!crn_lock_is_wanted(&lock)) sched_yield();
        while (!had_it) crn_lock_give_way(&lock);
        crn_lock_release(&lock);
        pthread_join(thread, NULL);
        assert_false(crn_lock_is_wanted(&lock));
    }
}

/* Who spins tells so, and is seen before it sleeps: in one of many tries. */
static void spinning_is_wanting(void **state) {
    (void)state;
    cpu_set_t processors;
    if (sched_getaffinity(0, sizeof(processors), &processors) != 0) skip();
    if (CPU_COUNT(&processors) == 1) skip();
    bool has_spun = false;
    for (int i = 0; i < 10000 && !has_spun; i++) {
        crn_lock_acquire(&lock);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, want, NULL), 0);
        while (!crn_lock_is_wanted(&lock)) CRN_PAUSE();
        has_spun = __atomic_load_n(&lock.state, __ATOMIC_RELAXED) == 1;
        crn_lock_release(&lock);
        pthread_join(thread, NULL);
    }
    assert_true(has_spun);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lock_excludes_and_wakes),
        cmocka_unit_test(held_lock_is_not_taken_twice),
        cmocka_unit_test(holder_gives_way),
        cmocka_unit_test(spinning_is_wanting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
