/* SPDX-License-Identifier: MIT
 *
 * The bounds of a stack: they hold for as deep as it may grow, not for what is mapped by now, and
 * what libc keeps with a thread's stack is seen.
 */
#include "../test.h"
#include "os/os.h"

/* The main stack grows by a MiB; a thread's has 128 KiB in musl. */
enum { STEP = 16384, MAIN_DEPTH = 1 << 20, THREAD_DEPTH = 1 << 16 };
static char *low, *high, *deepest;

__attribute__((noinline)) static void go_down(size_t bytes) {
    volatile char frame[STEP];
    frame[0] = 1;
    deepest = (char *)__builtin_frame_address(0);
    if (bytes > STEP) go_down(bytes - STEP);
    frame[STEP - 1] = frame[0];
}

static void check_bounds(size_t depth) {
    assert_true(crn_os_stack_bounds(&low, &high));
    go_down(depth);
    char *here = __builtin_frame_address(0);
    assert_true(here >= low && here < high);
    assert_true(deepest >= low && deepest < high);
}

static void check_thread(void) {
    check_bounds(THREAD_DEPTH);
}

static void deep_frame_lies_within_the_bounds(void **state) {
    (void)state;
    check_bounds(MAIN_DEPTH);
    run_apart(check_thread);
}

static pthread_key_t key;
static cairn_weak weak; /* tells whether the object lives */

__attribute__((noinline)) static void set_value(void) {
    Node *node = cairn_make(Node, .value = 31);
    assert_true(cairn_weak_set(&weak, node));
    assert_int_equal(pthread_setspecific(key, node), 0);
}

static void check_value(void) {
    set_value();
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    assert_non_null(cairn_weak_get(&weak));
    assert_int_equal(((Node *)pthread_getspecific(key))->value, 31);
}

/* Of a thread that pthread_create made; the main thread's values lie apart from its stack. */
static void thread_specific_value_is_a_root(void **state) {
    (void)state;
    assert_int_equal(pthread_key_create(&key, NULL), 0);
    run_apart(check_value);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deep_frame_lies_within_the_bounds),
        cmocka_unit_test(thread_specific_value_is_a_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
