/* SPDX-License-Identifier: MIT
 *
 * Where deletions are recorded: more of them between two epochs than the ring has room for, more
 * threads than it has chunks, threads that end, two records of one address, out of memory. Method:
 * below the public calls where it takes thousands of threads; else by what reports and figures say.
 */
#include "../test.h"

#include "safety/safety.h"

enum { MANY = 90000, OWNERS = 3000 };
static NodeRef *row;

static void make_row(void) {
    row = cairn_new_array(NodeRef, MANY);
    for (long i = 0; i < MANY; i++) cairn_set(&row[i], cairn_make(Node, .value = i));
    cairn_collect(CAIRN_COUNT);
}

/* No epoch is asked for meanwhile, so whoever needs a chunk has to settle the oldest. */
static void delete_row(void) {
    uint64_t epochs = stats_now().epochs;
    for (long i = 0; i < MANY; i++) {
        Node *node = row[i].p;
        cairn_delete(node);
        crn_self()->news_count = 0;
    }
    if (stats_now().epochs == epochs) assert_true(stats_now().waiting_objects >= MANY);
    assert_int_equal(crn_graveyard_excess(), 0);
}

static void more_deletions_than_records(void **state) {
    (void)state;
    run_apart(make_row);
    uint64_t deleted = stats_now().deleted_objects;
    run_apart(delete_row);
    assert_int_equal(stats_now().deleted_objects, deleted + MANY);
    cairn_collect(CAIRN_TRACE);
    for (long i = 0; i < MANY; i++) {
        assert_true(cairn_is_deleted(row[i].p));
        assert_true(crn_space_is_tombstone(row[i].p));
    }
    row = NULL;
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    assert_true(stats_now().waiting_objects <= 2); /* what a stale word holds */
    assert_int_equal(stats_now().deleted_objects, deleted + MANY);
}

/* A chunk is not given up because the next object is larger than those before. */
enum { RECORDS = 65536, MIXED = RECORDS + 5000 };
typedef char Byte;
CAIRN_LEAF(Byte);
static Byte *of_mixed[MIXED];
static size_t size_of(long i) {
    return i % 2 ? 40 : (size_t)(i % 977) * 7;
}

static void delete_mixed(void) {
    for (long i = 0; i < MIXED; i++) {
        Byte *bytes = cairn_new_array(Byte, size_of(i));
        cairn_delete(bytes);
        of_mixed[i] = bytes;
    }
}

static void sizes_may_change_from_one_to_the_next(void **state) {
    (void)state;
    run_apart(delete_mixed);
    for (long i = MIXED - RECORDS; i < MIXED; i += i < MIXED - RECORDS + 300 ? 1 : 301) {
        struct crn_grave grave;
        size_t offset, last = size_of(i) ? size_of(i) - 1 : 0;
        assert_true(crn_graveyard_find(of_mixed[i] + last, &grave, &offset));
        assert_int_equal(grave.bytes, size_of(i));
        assert_int_equal(offset, last);
    }
}

static void delete_many(void) {
    for (long i = 0; i < 4 * MANY; i++) {
        Node *node = cairn_new(Node);
        cairn_delete(node);
    }
}

/* A deletion is news like others: epochs come as the budget for news says, not as the ring would
 * have it, nor at the least budget that there is, of some 2,000. (A sanitizer's epochs may be so
 * slow that this is right.) */
static void deletions_do_not_crowd_epochs(void **state) {
    (void)state;
    uint64_t epochs = stats_now().epochs;
    run_apart(delete_many);
    epochs = stats_now().epochs - epochs;
    assert_true(epochs > 0);
    if (!CAIRN_TSAN_ && !CAIRN_ASAN_) assert_true(epochs < 4 * MANY / 2500);
    assert_int_equal(crn_graveyard_excess(), 0);
}

/* Owners keep their chunks; who comes late gets one all the same. */
static struct crn_thread *owners;
static Node *held[OWNERS];

static void more_owners_than_chunks(void **state) {
    (void)state;
    size_t bytes = OWNERS * sizeof(*owners);
    owners = crn_os_map(bytes);
    assert_non_null(owners);
    cairn_section_enter_();
    for (size_t i = 0; i < OWNERS; i++) {
        struct crn_grave *grave = crn_graveyard_dig(&owners[i], 24);
        assert_non_null(grave);
        grave->object = held[i] = cairn_new(Node);
        grave->type = "Node";
        grave->file = "somewhere.c";
        grave->line = (int)i + 1;
        crn_block_of_start(held[i])->has_extras = true;
        crn_deleted_bit_claim(held[i]);
        crn_graveyard_bury(&owners[i], grave);
    }
    /* No epoch comes, and all of the ring is owned: what is full is settled, and used again. */
    size_t excess = crn_graveyard_excess();
    assert_true(excess > 0);
    for (int i = 0; i < 1000; i++) {
        Node *node = cairn_new(Node);
        cairn_delete(node);
        crn_self()->news_count = 0;
    }
    assert_true(crn_graveyard_excess() <= excess + 2);
    for (size_t i = 0; i < OWNERS; i++) {
        struct crn_grave found;
        assert_true(crn_graveyard_find_object(held[i], &found));
        assert_int_equal(found.line, (int)i + 1);
        assert_ptr_equal(found.object, held[i]);
        owners[i].state = CRN_THREAD_GONE;
    }
    cairn_section_leave_();
    /* What they left is used up before anything is written over. */
    cairn_collect(CAIRN_COUNT);
    memset(held, 0, sizeof(held));
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_COUNT);
    crn_os_release(owners, bytes);
    excess = crn_graveyard_excess();
    for (long i = 0; i < 1000; i++) {
        Node *node = cairn_new(Node);
        cairn_delete(node);
        assert_true(cairn_is_deleted(node));
    }
    assert_int_equal(crn_graveyard_excess(), excess);
}

static void *delete_one(void *text) {
    Node *node = cairn_new(Node);
    cairn_delete(node);
    *(Node **)text = node;
    return NULL;
}

/* Each has a few deletions and ends: they share what they leave, and their records stay. */
static void threads_that_end_leave_their_chunks(void **state) {
    (void)state;
    static Node *tombstones[300];
    for (size_t i = 0; i < 300; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, delete_one, &tombstones[i]), 0);
        cairn_blocking_begin();
        pthread_join(thread, NULL);
        cairn_blocking_end();
        if (i % 10 == 0) cairn_collect(CAIRN_COUNT);
    }
    for (size_t i = 0; i < 300; i++) {
        struct crn_grave grave;
        size_t offset;
        assert_true(crn_graveyard_find(tombstones[i], &grave, &offset));
        assert_int_equal(offset, 0);
        assert_string_equal(grave.function, "delete_one");
    }
}

static uintptr_t gone[2];
static void delete_at_one_address(void) {
    Node *node = cairn_new(Node);
    gone[0] = HIDE(node);
    cairn_delete(node);
    gone[1] = HIDE(node);
}

/* The slot is used again, and its next object deleted: the last record is meant. */
static void the_last_deletion_of_an_address_is_found(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) {
        run_apart(delete_at_one_address);
        struct crn_grave by_object, by_tombstone;
        size_t offset;
        assert_true(crn_graveyard_find_object(SHOW(void, gone[0]), &by_object));
        assert_true(crn_graveyard_find(SHOW(void, gone[1]), &by_tombstone, &offset));
        assert_true(by_object.deleted_ns == by_tombstone.deleted_ns);
        cairn_collect(CAIRN_COUNT);
        cairn_collect(CAIRN_COUNT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_deletions_than_records),
        cmocka_unit_test(sizes_may_change_from_one_to_the_next),
        cmocka_unit_test(deletions_do_not_crowd_epochs),
        cmocka_unit_test(threads_that_end_leave_their_chunks),
        cmocka_unit_test(the_last_deletion_of_an_address_is_found),
        cmocka_unit_test(more_owners_than_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
