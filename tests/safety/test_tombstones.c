/* SPDX-License-Identifier: MIT
 *
 * After a trace every reference to a deleted object is a tombstone, whatever it lies in, and the
 * slot is free; what no field is (words, untyped memory, stacks, pins) keeps the object as before.
 * Tombstones in fields may be copied; one in a variable may not be stored.
 */
#include "../test_report.h"
#include "../test_child.h"
#include "space/space.h"

static struct sigaction own_handler; /* Cairn's: cmocka listens for faults itself */
static volatile long sink;

static void expect_trap(const Node *node, const char *text) {
    sigaction(SIGSEGV, &own_handler, NULL);
    CATCH_REPORT(sink = node->value);
    assert_names(text);
}

static uint64_t waiting_at_start;
static uint64_t waiting_since_start(void) {
    return stats_now().waiting_objects - waiting_at_start;
}

/* ---- Every kind of field ---- */

typedef struct Pair {
    long number;
    NodeRef ref;
} Pair;
CAIRN_TYPE(Pair, ref);
typedef struct {
    NodeRef first;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, first, CAIRN_FLEX(kids));
typedef struct {
    cairn_word word;
} Word;
CAIRN_TYPE(Word, CAIRN_WORD(word));
typedef struct {
    NodeRef ref[70];
} Wide; /* too many words for a map */
CAIRN_TYPE(Wide, ref);

enum { MANY = 1000, LARGE = 3000000, BYSTANDERS = 3 };
static size_t many = MANY; /* with so many the count is stuck */

static struct {
    Node *node;
    Pair *pairs;
    Family *family;
    Wide *wide;
    NodeRef *many, *large;
    Word *word;
    void **untyped;
    Node *bystander;
} held;
static uintptr_t hidden;

static void refer_to(Node *gone) {
    held.node = cairn_make(Node, .next = {gone}, .other = {gone});
    held.pairs = cairn_new_array(Pair, 5);
    cairn_set(&held.pairs[4].ref, gone);
    held.family = cairn_new_flex(Family, kids, 9);
    cairn_set(&held.family->first, gone);
    cairn_set(&held.family->kids[8], gone);
    held.wide = cairn_new(Wide);
    cairn_set(&held.wide->ref[69], gone);
    held.many = cairn_new_array(NodeRef, MANY);
    for (size_t i = 0; i < many; i++) cairn_set(&held.many[i], gone);
    held.large = cairn_new_array(NodeRef, LARGE);
    cairn_set(&held.large[LARGE - 1], gone);
    held.bystander = cairn_make(Node, .value = 7);
    cairn_set(&held.large[0], held.bystander);
    cairn_set(&held.many[0], held.bystander);
    cairn_set(&held.node->next, held.bystander);
}

static void make(void) {
    Node *gone = cairn_make(Node, .value = 1);
    hidden = HIDE(gone);
    refer_to(gone);
}

static void delete_the_one(void) {
    Node *gone = SHOW(Node, hidden);
    cairn_delete(gone);
}

static void assert_not_buried(void) {
    assert_ptr_equal(held.node->other.p, SHOW(Node, hidden));
}

static void assert_buried(const void *reference) {
    assert_true(crn_space_is_tombstone(reference));
    assert_false(crn_space_is_variable_tombstone(reference));
    assert_true(cairn_is_deleted(reference));
}

static void assert_all_buried(void) {
    assert_buried(held.node->other.p);
    assert_buried(held.pairs[4].ref.p);
    assert_buried(held.family->first.p);
    assert_buried(held.family->kids[8].p);
    assert_buried(held.wide->ref[69].p);
    for (size_t i = 1; i < many; i++) assert_buried(held.many[i].p);
    assert_buried(held.large[LARGE - 1].p);
    assert_ptr_equal(held.large[0].p, held.bystander);
    assert_int_equal(held.bystander->value, 7);
    assert_int_equal(cairn_count(held.bystander), BYSTANDERS);
}

static void fields_become_tombstones(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) {
        many = round / 2 ? 100 : MANY;
        run_apart(make);
        if (round % 2) collect_and_clean(CAIRN_COUNT); /* all of it is mature */
        run_apart(delete_the_one);
        collect_and_clean(CAIRN_COUNT);
        assert_int_equal(waiting_since_start(), 1);
        run_apart(assert_not_buried);
        collect_and_clean(CAIRN_TRACE);
        run_apart(assert_all_buried);
        assert_int_equal(waiting_since_start(), 0);
        expect_trap(held.node->other.p, "read of a deleted Node (24 bytes) at offset 16");
        assert_non_null(strstr(report, "in delete_the_one"));
        assert_non_null(strstr(report, "the reference outlived the object"));
        collect_and_clean(CAIRN_TRACE);
        run_apart(assert_all_buried);
        memset(&held, 0, sizeof(held));
    }
}

/* What the trace itself frees is no hindrance. */
static void make_rings(void) {
    held.many = cairn_new_array(NodeRef, MANY);
    for (size_t i = 0; i < MANY; i++) {
        Node *one = cairn_new(Node), *two = cairn_make(Node, .next = {one});
        cairn_set(&one->next, two);
        Node *gone = cairn_make(Node, .other = {one});
        cairn_set(&one->other, gone);
        if (i == 0) cairn_set(&held.node->next, gone);
        cairn_set(&held.many[i], one);
    }
    collect_and_clean(CAIRN_COUNT); /* rings that died young would be gone */
    for (size_t i = 0; i < MANY; i++) {
        Node *gone = held.many[i].p->other.p;
        cairn_delete(gone);
    }
    held.many = NULL;
}

static void garbage_refers_to_them_too(void **state) {
    (void)state;
    held.node = cairn_new(Node);
    run_apart(make_rings);
    uint64_t before = live_after(CAIRN_COUNT);
    assert_in_range(waiting_since_start(), MANY, MANY + 5);
    uint64_t after = live_after(CAIRN_TRACE);
    assert_in_range(waiting_since_start(), 0, 5);
    assert_in_range(before - after, 3 * MANY - 20, 3 * MANY + 5);
    assert_buried(held.node->next.p);
    memset(&held, 0, sizeof(held));
}

/* ---- What keeps the slot ---- */

static void make_words(void) {
    Node *gone = cairn_make(Node, .value = 1);
    hidden = HIDE(gone);
    held.node = cairn_make(Node, .next = {gone});
    held.word = cairn_new(Word);
    cairn_set_word(&held.word->word, (uintptr_t)gone);
    held.untyped = cairn_alloc(64);
    held.untyped[3] = gone;
}

static void words_and_untyped_memory_keep_it(void **state) {
    (void)state;
    run_apart(make_words);
    collect_and_clean(CAIRN_COUNT);
    run_apart(delete_the_one);
    for (int i = 0; i < 3; i++) {
        collect_and_clean(CAIRN_TRACE);
        collect_and_clean(CAIRN_COUNT);
        assert_buried(held.node->next.p);
        if (i == 0) assert_int_equal(HIDE(held.word->word.w), hidden);
        assert_int_equal(HIDE(held.untyped[3]), hidden);
        assert_int_equal(waiting_since_start(), 1);
        assert_true(cairn_is_deleted(held.untyped[3]));
        if (i == 0) cairn_set_word(&held.word->word, 0);
    }
    held.untyped[3] = NULL;
    collect_and_clean(CAIRN_COUNT);
    collect_and_clean(CAIRN_COUNT);
    assert_int_equal(waiting_since_start(), 0);
    memset(&held, 0, sizeof(held));
}

/* ---- Copies and stores ---- */

static void make_and_delete(void) {
    Node *gone = cairn_new(Node);
    held.node = cairn_make(Node, .next = {gone}, .value = 3);
    collect_and_clean(CAIRN_COUNT);
    cairn_delete(gone);
}

static void tombstones_in_fields_are_copied(void **state) {
    (void)state;
    run_apart(make_and_delete);
    collect_and_clean(CAIRN_TRACE);
    assert_buried(held.node->next.p);
    Node *young = cairn_new(Node), *mature = cairn_new(Node);
    held.many = cairn_new_array(NodeRef, 2);
    cairn_set(&held.many[0], young);
    cairn_set(&held.many[1], mature);
    cairn_copy(young, held.node, 1);
    cairn_collect(CAIRN_COUNT);
    cairn_copy(mature, held.node, 1);
    for (int i = 0; i < 2; i++) {
        cairn_collect(i ? CAIRN_TRACE : CAIRN_COUNT);
        assert_ptr_equal(young->next.p, held.node->next.p);
        assert_ptr_equal(mature->next.p, held.node->next.p);
    }
    cairn_set(&held.node->next, mature);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(mature), 2);
    memset(&held, 0, sizeof(held));
}

static void delete_ref_leaves_a_field_that_may_be_copied(void **state) {
    (void)state;
    held.node = cairn_make(Node, .next = {cairn_new(Node)});
    cairn_delete_ref(&held.node->next);
    assert_buried(held.node->next.p);
    Node *copy = cairn_new(Node);
    cairn_copy(copy, held.node, 1);
    cairn_collect(CAIRN_TRACE);
    assert_ptr_equal(copy->next.p, held.node->next.p);
    memset(&held, 0, sizeof(held));
}

/* What takes an object takes a tombstone in its place, as it took the deleted object before. */
static void calls_know_tombstones(void **state) {
    (void)state;
    run_apart(make_and_delete);
    for (int i = 0; i < 2; i++) {
        cairn_weak weak = {NULL};
        Node *gone = held.node->next.p;
        assert_true(cairn_weak_set(&weak, gone));
        assert_null(cairn_weak_get(&weak));
        assert_int_equal(cairn_cleanup_add(gone, free, NULL), CAIRN_ERROR_ARGUMENT);
        assert_ptr_equal(cairn_pin(gone), gone);
        cairn_unpin(gone);
        gone = NULL;
        collect_and_clean(CAIRN_TRACE);
    }
    assert_buried(held.node->next.p);
    memset(&held, 0, sizeof(held));
}

/* ---- Deletions under way ---- */

typedef cairn_ref(void) AnyRef;
typedef struct Closing {
    NodeRef ref;
    AnyRef self;
} Closing;
static AnyRef *closing_field;
static void *seen_by_finalizer;
static void collect_amid(void *object) {
    cairn_collect(CAIRN_TRACE);
    seen_by_finalizer = closing_field->p == object ? object : NULL;
}
CAIRN_TYPE_WITH(Closing, (.finalize = collect_amid), ref, self);

static void make_closing(void) {
    Closing *closing = cairn_make(Closing, .ref = {held.node});
    closing_field = cairn_new_array(AnyRef, 1);
    cairn_set(closing_field, closing);
    cairn_delete(closing);
}

/* A trace amid the finalizer leaves the field alone: there is no tombstone yet. The next one does
 * not. */
static void deletion_under_way_is_left_alone(void **state) {
    (void)state;
    held.node = cairn_make(Node, .value = 3);
    run_apart(make_closing);
    assert_non_null(seen_by_finalizer);
    seen_by_finalizer = NULL;
    collect_and_clean(CAIRN_TRACE);
    assert_buried(closing_field->p);
    assert_int_equal(held.node->value, 3);
    closing_field = NULL;
    memset(&held, 0, sizeof(held));
}

static Node *shared_node;
static NodeRef *contested;
static void replace_contested(void *object) {
    (void)object;
    cairn_set(contested, shared_node);
}
typedef struct Replaced {
    long value;
} Replaced;
typedef cairn_ref(Replaced) ReplacedRef;
CAIRN_LEAF_WITH(Replaced, (.finalize = replace_contested));

/* What is stored into the field while cairn_delete_ref works on what it held stays. */
static void delete_ref_leaves_what_came_meanwhile(void **state) {
    (void)state;
    contested = cairn_new_array(NodeRef, 1);
    shared_node = cairn_make(Node, .value = 9);
    cairn_set((ReplacedRef *)(void *)contested, cairn_new(Replaced));
    cairn_delete_ref(contested);
    assert_ptr_equal(contested->p, shared_node);
    assert_int_equal(shared_node->value, 9);
    contested = NULL;
    shared_node = NULL;
}

/* The epoch that counts the field finds it and ends the program, in a child of its own. */
static int store_tombstone_and_collect(long unused) {
    (void)unused;
    Node *gone = cairn_new(Node);
    cairn_delete(gone);
    cairn_set(&held.node->next, gone);
    cairn_collect(CAIRN_COUNT);
    return 0;
}

static void stored_variable_is_an_error(void **state) {
    (void)state;
    held.node = cairn_new(Node);
    assert_true(is_one_report(run_child(store_tombstone_and_collect, 0)));
    assert_non_null(strstr(child_output, "deleted before it was stored"));
    memset(&held, 0, sizeof(held));
}

/* ---- Many ---- */

enum { OBJECTS = 300000 };

static void make_table(void) {
    held.large = cairn_new_array(NodeRef, OBJECTS);
    for (size_t i = 0; i < OBJECTS; i++) {
        cairn_set(&held.large[i], cairn_make(Node, .value = (long)i));
    }
}
static void delete_table(void) {
    for (size_t i = 0; i < OBJECTS; i++) {
        Node *gone = held.large[i].p;
        cairn_delete(gone);
    }
}

/* More than records are kept: the oldest are forgotten, and even then the touch traps. */
static void forgotten_ones_trap_as_well(void **state) {
    (void)state;
    run_apart(make_table);
    run_apart(delete_table);
    collect_and_clean(CAIRN_TRACE);
    for (size_t i = 0; i < OBJECTS; i++) {
        if (!crn_space_is_tombstone(held.large[i].p)) fail_msg("not %zu", i);
    }
    assert_in_range(waiting_since_start(), 0, 10);
    expect_trap(held.large[0].p, "an object that was deleted, record expired");
    expect_trap(held.large[OBJECTS - 1].p, "a deleted Node");
    memset(&held, 0, sizeof(held));
}

/* ---- While others work ---- */

static bool is_over;

static void *link_and_delete(void *argument) {
    uint64_t random = 88172645463325252u + (uintptr_t)argument;
    NodeRef *row = held.many;
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        /* Each thread deletes in its own quarter, and links its own to all others' places. */
        size_t own = (uintptr_t)argument * (MANY / 4) + random % (MANY / 4);
        size_t other = (random >> 20) % MANY;
        Node *node = cairn_new(Node);
        Node *there = cairn_load(&row[MANY + other]);
        if (there && !cairn_is_deleted(there)) cairn_set(&node->next, there);
        Node *victim = cairn_load(&row[own]);
        cairn_set(&row[own], node);
        cairn_set(&row[MANY + own], node);
        cairn_set(&row[2 * MANY + other], node);
        if (victim && random >> 62 == 0) cairn_delete(victim);
    }
    return NULL;
}

static void deleting_beside_traces(void **state) {
    (void)state;
    held.many = cairn_new_array(NodeRef, 3 * MANY);
    is_over = false;
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, link_and_delete, (void *)i), 0);
    }
    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < 2000; k++) sink = (long)cairn_make(Node, .value = k)->value;
        cairn_collect(CAIRN_TRACE);
    }
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 4; i++) {
        cairn_blocking_begin();
        pthread_join(threads[i], NULL);
        cairn_blocking_end();
    }
    collect_and_clean(CAIRN_TRACE);
    collect_and_clean(CAIRN_COUNT);
    for (size_t i = 0; i < 3 * MANY; i++) {
        const Node *node = held.many[i].p;
        if (!node || crn_space_is_tombstone(node)) continue;
        assert_false(cairn_is_deleted(node));
    }
    memset(&held, 0, sizeof(held));
}

static void delete_any(void) {
    Node *any = cairn_new(Node);
    cairn_delete(any);
}

int main(void) {
    /* The first deletion makes Cairn listen. */
    run_apart(delete_any);
    live_after(CAIRN_COUNT);
    sigaction(SIGSEGV, NULL, &own_handler);
    waiting_at_start = stats_now().waiting_objects;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_become_tombstones),
        cmocka_unit_test(garbage_refers_to_them_too),
        cmocka_unit_test(words_and_untyped_memory_keep_it),
        cmocka_unit_test(tombstones_in_fields_are_copied),
        cmocka_unit_test(delete_ref_leaves_a_field_that_may_be_copied),
        cmocka_unit_test(calls_know_tombstones),
        cmocka_unit_test(deletion_under_way_is_left_alone),
        cmocka_unit_test(delete_ref_leaves_what_came_meanwhile),
        cmocka_unit_test(stored_variable_is_an_error),
        cmocka_unit_test(forgotten_ones_trap_as_well),
        cmocka_unit_test(deleting_beside_traces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
