/* SPDX-License-Identifier: MIT
 *
 * One object that stays in each of many blocks does not make the heap grow: the rest of such blocks
 * is used again, before blocks that nobody has used.
 * Method: rounds of two types, each of which leaves all its blocks but for some nodes that only a
 * trace would take; no trace may run, and what the heap has taken must stay.
 */
#include "../test.h"
#include <stdio.h>

enum { LENGTH = 16 * 1024, APART = 512, ROUNDS = 200 };

typedef struct Wide Wide;
typedef cairn_ref(Wide) WideRef;
struct Wide {
    WideRef next;
    long values[7];
};
CAIRN_TYPE(Wide, next);

static Node *narrow;
static Wide *wide;

static void make_narrow(void) {
    for (long i = 0; i < LENGTH; i++) {
        narrow = cairn_make(Node, .next = {narrow}, .value = i);
        if (i % APART) continue;
        Node *stays = cairn_new(Node);
        cairn_set(&stays->other, stays);
        cairn_set(&narrow->other, stays); /* so that an epoch counts it */
    }
}

static void make_wide(void) {
    for (long i = 0; i < LENGTH; i++) wide = cairn_make(Wide, .next = {wide}, .values = {i});
}

static void run_round(void) {
    make_narrow();
    cairn_collect(CAIRN_COUNT);
    narrow = NULL;
    cairn_collect(CAIRN_COUNT);
    make_wide();
    cairn_collect(CAIRN_COUNT);
    wide = NULL;
    cairn_collect(CAIRN_COUNT);
}

static void blocks_with_one_object_are_used_again(void **state) {
    (void)state;
    cairn_collect(CAIRN_TRACE);
    uint64_t traces = traces_so_far();
    for (int i = 0; i < 10; i++) run_apart(run_round);
    uint64_t before = stats_now().committed_bytes;
    for (int i = 0; i < ROUNDS; i++) run_apart(run_round);
    cairn_stats after = stats_now();
    assert_int_equal(after.traces, traces);
    assert_true(after.live_objects >= ROUNDS * LENGTH / APART);
    /* A stale word may keep a list or two. */
    assert_true(after.committed_bytes <= before + (8 << 20));
}

/* ---- Types that are not made any more ---------------------------------------------------------
 */

enum { TYPES = 32, COUNT = 128 * 1024 };

typedef struct Made {
    cairn_ref(void) next, self;
    long values[2];
} Made;

/* A list that is dropped, but for one object in each block, which refers to itself. */
static cairn_type *made;
static cairn_ref(void) kept_made;

static void fill_blocks(void) {
    Made *list = NULL;
    for (long i = 0; i < COUNT; i++) {
        Made *fresh = cairn_new_type(made);
        cairn_set(&fresh->next, list);
        list = fresh;
        if (i % APART) continue;
        Made *stays = cairn_new_type(made);
        cairn_set(&stays->self, stays);
        cairn_set(&fresh->self, stays);
    }
    cairn_set(&kept_made, list);
}

static void use_type_once(void) {
    fill_blocks();
    cairn_collect(CAIRN_COUNT);
    cairn_set(&kept_made, NULL);
    cairn_collect(CAIRN_COUNT);
}

static void blocks_of_types_that_are_not_made_any_more_go(void **state) {
    (void)state;
    cairn_collect(CAIRN_TRACE);
    const struct cairn_field fields[2] = {
        {.offset = offsetof(Made, next), .size = sizeof(void *), .kind = CAIRN_FIELD_REF},
        {.offset = offsetof(Made, self), .size = sizeof(void *), .kind = CAIRN_FIELD_REF},
    };
    for (int i = 0; i < TYPES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "made %d", i);
        assert_int_equal(cairn_type_create(name, sizeof(Made), 8, fields, 2, NULL, &made),
                         CAIRN_OK);
        run_apart(use_type_once);
        for (int j = 0; j < 64 * 1024; j++) (void)cairn_new(Node); /* epochs of its own */
    }
    cairn_stats after = stats_now();
    assert_true(after.live_bytes < 8 << 20);
    assert_true(after.committed_bytes < 80 << 20); /* of 128 MiB that had been filled */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_with_one_object_are_used_again),
        cmocka_unit_test(blocks_of_types_that_are_not_made_any_more_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
