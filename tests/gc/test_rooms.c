/* SPDX-License-Identifier: MIT
 *
 * One object that stays in each of many blocks does not make the heap grow: the rest of such blocks
 * is used again, before blocks that nobody has used.
 * Method: rounds of two types, each of which leaves all its blocks but for some nodes that only a
 * trace would take; no trace may run, and what the heap has taken must stay.
 */
#include "../test.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_with_one_object_are_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
