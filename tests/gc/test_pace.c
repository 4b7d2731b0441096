/* SPDX-License-Identifier: MIT
 *
 * Pacing: what epochs cost, told to pace.c without running any, and the budgets that follow.
 */
#include "../test.h"
#include "gc/gc.h"

enum { ENTRIES = 40000 };
#define MS UINT64_C(1000000)

/* An epoch that is over now: so much program time before it, then a pause. */
static void tell(uint64_t cycle_ns, uint64_t pause_ns, uint64_t root_ns, uint64_t entries) {
    crn_gc.program_ns = crn_os_now_ns() - pause_ns - cycle_ns;
    crn_pace_after_epoch(pause_ns, root_ns, entries, 0);
}

static void settle(void) {
    for (int i = 0; i < 100; i++) {
        tell(2 * MS, MS / 2, MS / 25, crn_gc.budget_entries);
    }
}

static void budget_follows_the_goal(void **state) {
    (void)state;
    for (int i = 0; i < 100; i++) {
        uint64_t entries = crn_gc.budget_entries; /* 10 ns each */
        tell(100 * MS, MS / 25 + entries * 10, MS / 25, entries);
    }
    double predicted_ns = (double)crn_gc.budget_entries * 10;
    assert_true(predicted_ns > 0.3 * (double)crn_settings.pause_goal_ns);
    assert_true(predicted_ns < 0.8 * (double)crn_settings.pause_goal_ns);
}

/* A short epoch whose scan of the roots lost its processor, amid many stores: neither makes a large
 * budget of a small one. */
static void interrupted_scan_does_not_raise_the_budget_far(void **state) {
    (void)state;
    settle();
    crn_gc.budget_entries = ENTRIES;
    tell(MS / 50, 5 * MS + MS / 50, 5 * MS, 500);
    assert_true(crn_gc.budget_entries <= 2 * ENTRIES);
}

/* A program that logs a field every 100 ns, and a scan of the roots that takes 0.4 ms: budgets are
 * what makes it 1 in 22 where the goal would have them smaller, whatever the share of counting. */
static void expect_share_of_roots(uint64_t entry_ns) {
    settle();
    uint64_t root_ns = MS * 4 / 10, cycle_ns = 0, pause_ns = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t entries = crn_gc.budget_entries;
        cycle_ns = entries * 100;
        pause_ns = root_ns + entries * entry_ns;
        tell(cycle_ns, pause_ns, root_ns, entries);
    }
    double share = (double)root_ns / (double)(cycle_ns + pause_ns);
    if (share < 0.0445 || share > 0.0465) fail_msg("%f of the time, 1 in 22 wanted", share);
}

static void roots_keep_to_their_share_of_the_time(void **state) {
    (void)state;
    expect_share_of_roots(4);
    expect_share_of_roots(10);
}

static uint64_t goal_with(uint64_t goal_ns) {
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.region_bytes = (size_t)64 << 20;
    options.pause_goal_ns = goal_ns;
    cairn_heap *heap;
    assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_OK);
    cairn_collect(CAIRN_COUNT);
    uint64_t found_ns = crn_gc.pause_goal_ns;
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    return found_ns;
}

/* One epoch serves all heaps; the goal of one that has ended counts no more. */
static void shortest_goal_of_all_heaps_counts(void **state) {
    (void)state;
    uint64_t usual_ns = crn_settings.pause_goal_ns;
    assert_int_equal(goal_with(usual_ns / 2), usual_ns / 2);
    assert_int_equal(goal_with(usual_ns * 2), usual_ns);
    assert_int_equal(goal_with(0), usual_ns);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(crn_gc.pause_goal_ns, usual_ns);
}

int main(void) {
    assert_int_equal(cairn_thread_register(), CAIRN_OK);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budget_follows_the_goal),
        cmocka_unit_test(interrupted_scan_does_not_raise_the_budget_far),
        cmocka_unit_test(roots_keep_to_their_share_of_the_time),
        cmocka_unit_test(shortest_goal_of_all_heaps_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
