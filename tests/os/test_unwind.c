/* SPDX-License-Identifier: MIT
 *
 * The fast walk up the stack finds what the C library's unwinder finds: from code with and without
 * frame pointers, with frames of variable size, through libc, in threads, to the end; and it finds
 * the same again from the rules that it kept.
 */
#define _GNU_SOURCE
#include "../test.h"
#include "os/os.h"
#include "os/unwind.h"

extern int backtrace(void **frames, int count) __attribute__((weak));

enum { MOST = 64 };
static uintptr_t fast[MOST];
static unsigned fast_count;
static int slow_count;
static void *slow[MOST];
static char *stack_low, *stack_high;

__attribute__((noinline)) static void look(void) {
    if (backtrace) slow_count = backtrace(slow, MOST);
    fast_count = crn_os_unwind(fast, MOST, __builtin_return_address(0), stack_high);
}

/* From the frame that called look on; a sanitizer's own come before. */
static void assert_same(void) {
    assert_true(fast_count > 2);
    if (!backtrace || CAIRN_TSAN_) return; /* its interceptors are frames that only one sees */
    int first = 0;
    while (first < slow_count && slow[first] != (void *)fast[0]) first++;
    assert_int_equal(slow_count - first, fast_count);
    for (unsigned i = 0; i < fast_count; i++) assert_ptr_equal(slow[first + (int)i], fast[i]);
}

/* A static program has tables that nobody finds, unless its linker is told --eh-frame-hdr. */
static int skip_without_tables(void **state) {
    (void)state;
    if (crn_os_rule_kind((uintptr_t)skip_without_tables + 1) != CRN_RULE_SPECIAL) return 0;
    print_message("no unwind tables: skipped\n");
    exit(0);
}

static volatile int sink;

#define PLAIN __attribute__((noinline, optimize("no-omit-frame-pointer")))
#if defined(__clang__)
#undef PLAIN
#define PLAIN __attribute__((noinline))
#define BARE __attribute__((noinline))
#else
#define BARE __attribute__((noinline, optimize("omit-frame-pointer")))
#endif

PLAIN static void with_pointer(void) {
    look();
    sink++;
}
BARE static void without_pointer(int depth) {
    volatile char room[200];
    room[depth] = 1;
    if (depth > 0)
        without_pointer(depth - 1);
    else
        with_pointer();
    sink += room[depth];
}
/* On purpose: its size is known at run time only. */
__attribute__((noinline)) static void with_variable_frame(size_t bytes) {
    volatile char room[bytes];
    room[0] = 1;
    without_pointer(3);
    sink += room[0];
}

static void mixed_frames_are_found(void **state) {
    (void)state;
    assert_true(crn_os_stack_bounds(&stack_low, &stack_high));
    for (size_t bytes = 16; bytes < 2000; bytes += 333) {
        with_variable_frame(bytes);
        assert_same();
    }
}

static int compare(const void *a, const void *b) {
    with_pointer();
    return *(const int *)a - *(const int *)b;
}

static void frames_of_libc_are_found(void **state) {
    (void)state;
    int numbers[] = {3, 1, 2};
    assert_true(crn_os_stack_bounds(&stack_low, &stack_high));
    qsort(numbers, 3, sizeof(int), compare);
    assert_same();
}

static void in_thread(void) {
    assert_true(crn_os_stack_bounds(&stack_low, &stack_high));
    without_pointer(5);
    assert_same();
}

static void threads_end_where_they_began(void **state) {
    (void)state;
    run_apart(in_thread);
}

static void depth_is_bounded(void **state) {
    (void)state;
    assert_true(crn_os_stack_bounds(&stack_low, &stack_high));
    without_pointer(40);
    assert_true(fast_count > 40 && fast_count <= MOST);
    uintptr_t few[3] = {0};
    assert_int_equal(crn_os_unwind(few, 2, __builtin_return_address(0), stack_high), 2);
    assert_int_equal(few[2], 0);
}

/* A frame that is not there, and a stack that is another: no answer, and no fault. */
static void unknown_frame_is_not_found(void **state) {
    (void)state;
    uintptr_t frames[4];
    assert_true(crn_os_stack_bounds(&stack_low, &stack_high));
    assert_int_equal(crn_os_unwind(frames, 4, &stack_low, stack_high), 0);
    assert_int_equal(crn_os_unwind(frames, 4, __builtin_return_address(0), (char *)&stack_low), 0);
}

BARE static void met_late(void) {
    volatile char room[300];
    room[7] = 1;
    with_pointer();
    sink += room[7];
}

/* Rules of so many addresses do not fit: what is written over is found out again, and nobody has
 * another's. */
static void forgotten_rules_are_found_out_again(void **state) {
    (void)state;
    assert_true(crn_os_stack_bounds(&stack_low, &stack_high));
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    for (uintptr_t at = 1; at < 200000; at++) (void)crn_os_rule_kind(here + 0x100000000u + at);
    with_variable_frame(100);
    assert_same();
    met_late();
    assert_same();
    assert_int_not_equal(crn_os_rule_kind(here), CRN_RULE_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixed_frames_are_found),
        cmocka_unit_test(frames_of_libc_are_found),
        cmocka_unit_test(threads_end_where_they_began),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(unknown_frame_is_not_found),
        cmocka_unit_test(forgotten_rules_are_found_out_again),
    };
    return cmocka_run_group_tests(tests, skip_without_tables, NULL);
}
