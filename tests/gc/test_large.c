/* SPDX-License-Identifier: MIT
 *
 * Large objects die in pieces while the program runs: without a collection that anybody asks for,
 * what they held is freed and their memory returns. Method: drop one, go on allocating small
 * objects, and look at the figures; the loop's bound is what one would allocate in a second.
 */
#include "../test.h"

enum { LENGTH = 1 << 20, HELD = 100000, ROUNDS = 4000000 };

static NodeRef *array_root;
static char *bytes_root;
static Node *scratch;

static void make_array(void) {
    array_root = cairn_new_array(NodeRef, LENGTH);
    for (size_t i = 0; i < HELD; i++) {
        cairn_set(&array_root[i * (LENGTH / HELD)], cairn_make(Node, .value = (long)i));
    }
}

/* Allocates until at most `most` objects live. Returns whether it came to that. */
static bool allocate_until(uint64_t most) {
    for (int i = 0; i < ROUNDS; i++) {
        scratch = cairn_make(Node, .value = i);
        if (i % 10000 == 0 && live_objects() <= most) return true;
    }
    return false;
}

static void old_array_is_dismantled(void **state) {
    (void)state;
    run_apart(make_array);
    uint64_t with_array = live_after(CAIRN_COUNT);
    assert_true(with_array >= HELD);
    uint64_t traces = traces_so_far();
    array_root = NULL;
    assert_true(allocate_until(with_array - HELD + 100));
    assert_int_equal(traces_so_far(), traces);
}

static void young_array_gives_up_what_it_held(void **state) {
    (void)state;
    uint64_t before = live_after(CAIRN_COUNT);
    for (int i = 0; i < 8; i++) {
        run_apart(make_array);
        array_root = NULL;
    }
    /* Stale words may keep some of the eight. */
    assert_true(allocate_until(before + 3 * HELD + 100));
}

static void make_bytes(void) {
    bytes_root = cairn_alloc_bytes((size_t)64 << 20);
    memset(bytes_root, 1, (size_t)64 << 20);
}

static void large_bytes_return_to_the_system(void **state) {
    (void)state;
    /* Two, for a stale word may keep one. */
    run_apart(make_bytes);
    uintptr_t first = HIDE(bytes_root);
    static cairn_ref(char) holder[1];
    cairn_set(&holder[0], SHOW(char, first));
    run_apart(make_bytes);
    live_after(CAIRN_COUNT);
    cairn_set(&holder[0], NULL);
    uint64_t wanted = stats_now().committed_bytes - ((uint64_t)64 << 20);
    bytes_root = NULL;
    bool is_back = false;
    for (int i = 0; i < ROUNDS && !is_back; i++) {
        scratch = cairn_make(Node, .value = i);
        is_back = i % 10000 == 0 && stats_now().committed_bytes <= wanted;
    }
    assert_true(is_back);
}

/* A root that names it again while it is taken apart keeps an empty object, not a freed one. */
static void dying_array_that_is_named_again_stays_whole(void **state) {
    (void)state;
    static uintptr_t hidden;
    run_apart(make_array);
    live_after(CAIRN_COUNT);
    hidden = HIDE(array_root);
    array_root = NULL;
    for (int i = 0; i < 20000; i++) scratch = cairn_make(Node, .value = i);
    cairn_weak *volatile named = (cairn_weak *)~hidden;
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 300000; k++) scratch = cairn_make(Node, .value = k);
        cairn_collect(CAIRN_COUNT);
    }
    cairn_keep(named);
    named = NULL;
    live_after(CAIRN_TRACE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_array_is_dismantled),
        cmocka_unit_test(young_array_gives_up_what_it_held),
        cmocka_unit_test(large_bytes_return_to_the_system),
        cmocka_unit_test(dying_array_that_is_named_again_stays_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
