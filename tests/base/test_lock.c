/* SPDX-License-Identifier: MIT
 *
 * The lock under contention: what it guards is never torn, and every sleeper is woken.
 */
#include "../test.h"

#include "base/lock.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lock_excludes_and_wakes),
        cmocka_unit_test(held_lock_is_not_taken_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
