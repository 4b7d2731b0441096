/* SPDX-License-Identifier: MIT
 *
 * cairn_delete: what it does to the object, when the slot is free again, and what it refuses.
 * Reports are caught by a handler that leaves with longjmp; after each the thread must still be
 * one that a collection can stop.
 */
#define _GNU_SOURCE
#include "../test_report.h"

#include <sys/mman.h>

#define EXPECT_REPORT(statement, text)                                                             \
    do {                                                                                           \
        CATCH_REPORT(statement);                                                                   \
        assert_names(text);                                                                        \
    } while (0)

/* ---- The object ---- */

static void delete_leaves_a_tombstone(void **state) {
    (void)state;
    Node *node = cairn_make(Node, .value = 5);
    Node *holder = cairn_make(Node, .next = {node});
    Node *copy = node;
    cairn_delete(node);
    assert_true(cairn_is_deleted(node));
    assert_true(cairn_is_deleted(copy));
    assert_ptr_not_equal(node, copy);
    assert_true(cairn_is_deleted(holder->next.p));
    assert_false(cairn_is_deleted(holder));
    Node *null = NULL;
    cairn_delete(null);
    assert_null(null);
    assert_false(cairn_is_deleted(NULL));
    int local;
    assert_false(cairn_is_deleted(&local));
}

static Node *list[4];
static size_t evaluated;
static void delete_evaluates_its_argument_once(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) list[i] = cairn_new(Node);
    cairn_delete(list[evaluated++]);
    assert_int_equal(evaluated, 1);
    assert_true(cairn_is_deleted(list[0]));
    assert_false(cairn_is_deleted(list[1]));
    memset(list, 0, sizeof(list));
}

static void delete_ref_ends_what_a_field_names(void **state) {
    (void)state;
    Node *holder = cairn_make(Node, .next = {cairn_new(Node)});
    cairn_collect(CAIRN_COUNT);
    Node *copy = holder->next.p;
    cairn_delete_ref(&holder->next);
    assert_true(cairn_is_deleted(holder->next.p));
    assert_ptr_not_equal(holder->next.p, copy);
    cairn_collect(CAIRN_TRACE);
    cairn_delete_ref(&holder->other);
    assert_null(holder->other.p);
    EXPECT_REPORT(cairn_delete_ref(&holder->next), "double delete");
}

/* References are given up, the other words poisoned; what it held lives on if others hold it. */
typedef struct Mixed {
    long a;
    NodeRef ref;
    int b;
    cairn_word word;
    NodeRef many[80];
    char tail[5];
} Mixed;
CAIRN_TYPE(Mixed, ref, CAIRN_WORD(word), many);

static void delete_clears_references_and_poisons_the_rest(void **state) {
    (void)state;
    for (int is_mature = 0; is_mature < 2; is_mature++) {
        Node *other = cairn_make(Node, .value = 3);
        Mixed *mixed = cairn_make(Mixed, .a = 1, .ref = {other}, .b = 2, .many = {[79] = {other}});
        cairn_set_word(&mixed->word, (uintptr_t)other);
        memset(mixed->tail, 7, sizeof(mixed->tail));
        if (is_mature) {
            cairn_collect(CAIRN_COUNT);
            assert_int_equal(cairn_count(other), 3);
        }
        Mixed *copy = mixed;
        cairn_delete(mixed);
        assert_null(copy->ref.p);
        assert_null(copy->many[79].p);
        assert_int_equal(copy->word.w, 0);
        assert_int_equal((unsigned long)copy->a, 0xddddddddddddddddul);
        assert_int_equal((unsigned)copy->b, 0xddddddddu);
        assert_int_equal((unsigned char)copy->tail[4], 0xdd);
        cairn_collect(CAIRN_COUNT);
        assert_int_equal(cairn_count(other), 0);
        assert_int_equal(other->value, 3);
    }
}

typedef struct {
    NodeRef a;
    long number;
} Slot;
CAIRN_TYPE(Slot, a);
typedef struct {
    long number;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));

/* Every kind of object: arrays, flexible and large ones, untyped memory, strings. */
static void delete_ends_every_kind_of_object(void **state) {
    (void)state;
    Node *other = cairn_make(Node, .value = 4);
    Slot *slots = cairn_new_array(Slot, 10), *slots_copy = slots;
    Family *family = cairn_new_flex(Family, kids, 9), *family_copy = family;
    NodeRef *large = cairn_new_array(NodeRef, 3000000), *large_copy = large;
    void **untyped = cairn_alloc(100), **untyped_copy = untyped;
    char *text = cairn_strdup("text"), *text_copy = text;
    cairn_set(&slots[9].a, other);
    slots[9].number = 1;
    cairn_set(&family->kids[8], other);
    cairn_set(&large[2999999], other);
    untyped[5] = other;
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(other), 4);
    cairn_delete(slots);
    cairn_delete(family);
    cairn_delete(large);
    cairn_delete(untyped);
    cairn_delete(text);
    assert_null(slots_copy[9].a.p);
    assert_int_equal((unsigned long)slots_copy[9].number, 0xddddddddddddddddul);
    assert_null(family_copy->kids[8].p);
    assert_int_equal((unsigned long)family_copy->number, 0xddddddddddddddddul);
    assert_null(large_copy[2999999].p);
    assert_ptr_not_equal(untyped_copy[5], other);
    assert_int_equal((unsigned char)text_copy[1], 0xdd);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(other), 0);
    assert_int_equal(stats_now().waiting_objects >= 5, 1);
}

/* ---- The slot ----
 * In a heap of its own, so that the figures are of one object. */

static cairn_heap *place;
static NodeRef *holders; /* an array of one */
static int make_place(void **state) {
    (void)state;
    place = make_small_heap();
    return 0;
}
static int end_place(void **state) {
    (void)state;
    holders = NULL; /* the next heap may lie where this one did */
    return cairn_heap_destroy(place) != CAIRN_OK;
}
static cairn_stats place_stats(void) {
    cairn_stats stats = CAIRN_STATS_INIT;
    assert_int_equal(cairn_stats_get(place, &stats), CAIRN_OK);
    return stats;
}

static uintptr_t hidden;

static void make_held(void) {
    holders = cairn_new_array_in(place, NodeRef, 1);
    cairn_set(holders, cairn_make_in(place, Node, .value = 1));
}
static void delete_held(void) {
    Node *gone = holders->p;
    hidden = HIDE(gone);
    cairn_delete(gone);
}
static bool is_handed_out(void) {
    bool found = false;
    for (int i = 0; i < 10000; i++) found |= cairn_new_in(place, Node) == SHOW(Node, hidden);
    return found;
}
static void assert_waits(void) {
    for (int i = 0; i < 3; i++) {
        assert_false(is_handed_out());
        cairn_collect(i ? CAIRN_COUNT : CAIRN_TRACE);
    }
}
static void assert_waits_for_a_trace(void) {
    for (int i = 0; i < 3; i++) {
        assert_false(is_handed_out());
        cairn_collect(CAIRN_COUNT);
    }
}
static void assert_is_free_again(void) {
    for (int i = 0; i < 20; i++) {
        if (is_handed_out()) {
            assert_false(cairn_is_deleted(SHOW(Node, hidden)));
            return;
        }
        cairn_collect(CAIRN_COUNT);
    }
    fail_msg("the slot never came back");
}
static void drop_holders(void) {
    cairn_set(holders, NULL);
}

static void slot_waits_while_a_field_refers_to_it(void **state) {
    (void)state;
    run_apart(make_held);
    live_after(CAIRN_COUNT);
    run_apart(delete_held);
    run_apart(assert_waits_for_a_trace);
    assert_int_equal(place_stats().waiting_objects, 1);
    assert_int_equal(place_stats().deleted_objects, 1);
    assert_int_equal(place_stats().freed_by_delete_objects, 0);
    run_apart(drop_holders);
    run_apart(assert_is_free_again);
    assert_int_equal(place_stats().waiting_objects, 0);
    assert_int_equal(place_stats().freed_by_delete_objects, 1);
    assert_int_equal(place_stats().freed_by_delete_bytes, 32);
}

/* A raw pointer on a stack keeps the slot from being anything else, for as long as it is there. */
static void hold_on_the_stack(void) {
    Node *node = cairn_new_in(place, Node), *volatile stale = node;
    hidden = HIDE(node);
    cairn_delete(node);
    run_apart(assert_waits);
    assert_true(cairn_is_deleted(stale));
    assert_false(is_handed_out());
}

static void slot_waits_while_a_stack_refers_to_it(void **state) {
    (void)state;
    run_apart(hold_on_the_stack);
    run_apart(assert_is_free_again);
}

/* Nothing refers to it: not before an epoch has passed, then free. */
static void delete_unreferenced(void) {
    Node *node = cairn_new_in(place, Node);
    hidden = HIDE(node);
    cairn_delete(node);
    uint64_t epochs = stats_now().epochs;
    bool found = false;
    for (int i = 0; i < 5000; i++) {
        Node *fresh = cairn_new_in(place, Node);
        if (stats_now().epochs == epochs) found |= fresh == SHOW(Node, hidden);
    }
    assert_false(found);
}

static void slot_of_the_unreferenced_waits_for_an_epoch(void **state) {
    (void)state;
    run_apart(delete_unreferenced);
    live_after(CAIRN_COUNT);
    assert_int_equal(place_stats().waiting_objects, 0);
    run_apart(assert_is_free_again);
}

static void make_pinned(void) {
    Node *node = cairn_pin(cairn_new_in(place, Node));
    hidden = HIDE(node);
    cairn_delete(node);
}
static void unpin(void) {
    cairn_unpin(SHOW(Node, hidden));
}

static void slot_waits_while_it_is_pinned(void **state) {
    (void)state;
    run_apart(make_pinned);
    run_apart(assert_waits);
    run_apart(unpin);
    run_apart(assert_is_free_again);
}

static void delete_works_in_another_heap(void **state) {
    (void)state;
    assert_int_equal(make_place(NULL), 0);
    Node *node = cairn_new_in(place, Node), *copy = node;
    cairn_delete(node);
    assert_true(cairn_is_deleted(copy));
    assert_int_equal(place_stats().waiting_objects, 1);
    assert_int_equal(end_place(NULL), 0);
    assert_true(cairn_is_deleted(node));
    assert_false(cairn_is_deleted(copy));
}

/* A field that holds a tombstone is not counted, wherever heaps lie. */
static void tombstones_in_fields_are_no_references(void **state) {
    (void)state;
    Node *holder = cairn_new(Node);
    cairn_set(&holder->next, cairn_new(Node));
    cairn_set(&holder->other, cairn_new(Node));
    cairn_collect(CAIRN_COUNT);
    cairn_delete_ref(&holder->next);
    cairn_delete_ref(&holder->other);
    cairn_heap *heaps[6];
    for (int i = 0; i < 6; i++) {
        heaps[i] = make_small_heap();
        assert_non_null(cairn_new_in(heaps[i], Node));
        cairn_collect(i % 2 ? CAIRN_TRACE : CAIRN_COUNT);
    }
    cairn_set(&holder->next, NULL);
    cairn_collect(CAIRN_COUNT);
    cairn_delete(holder); /* gives the other one up */
    for (int i = 0; i < 6; i++) assert_int_equal(cairn_heap_destroy(heaps[i]), CAIRN_OK);
    cairn_collect(CAIRN_TRACE);
}

/* ---- Errors ---- */

static void wrong_deletes_report(void **state) {
    (void)state;
    Node *volatile node = cairn_new(Node);
    Node *volatile copy = node;
    cairn_delete(node);
    EXPECT_REPORT(cairn_delete(node), "double delete\n  what: a Node (24 bytes), deleted before");
    assert_non_null(strstr(report, "test_delete.c:"));
    assert_non_null(strstr(report, "deleted: "));
    assert_non_null(strstr(report, "in wrong_deletes_report"));
    EXPECT_REPORT(cairn_delete(copy), "double delete\n  what: a Node (24 bytes), deleted before");
    Node *volatile other = cairn_new(Node);
    long *volatile inside = &other->value;
    EXPECT_REPORT(cairn_delete(inside), "interior pointer");
    assert_non_null(strstr(report, "is 16 bytes into the Node at"));
    int local = 0, *volatile foreign = &local;
    EXPECT_REPORT(cairn_delete(foreign), "no object");
    int *volatile array = cairn_alloc_bytes(48);
    int *volatile end = array + 12;
    EXPECT_REPORT(cairn_delete(end), "interior pointer");
    assert_non_null(strstr(report, "is 48 bytes into the bytes at"));
    int *volatile wild = (int *)(uintptr_t)0x10;
    EXPECT_REPORT(cairn_delete(wild), "no object");
    cairn_keep(array);
}

/* Two threads delete one object at once: one does, the other is told. */
static pthread_barrier_t barrier;
static Node *contested;
static int won, told;
static _Thread_local jmp_buf thread_caught;
static void on_thread_report(const cairn_report *told_of, void *context) {
    (void)context;
    if (strstr(told_of->text, "double delete")) __atomic_fetch_add(&told, 1, __ATOMIC_SEQ_CST);
    longjmp(thread_caught, 1);
}

enum { RACES = 300 };
static void *delete_contested(void *unused) {
    for (volatile int i = 0; i < RACES; i++) {
        cairn_blocking_begin();
        pthread_barrier_wait(&barrier);
        cairn_blocking_end();
        Node *volatile mine = contested;
        if (setjmp(thread_caught) == 0) {
            cairn_delete(mine);
            __atomic_fetch_add(&won, 1, __ATOMIC_SEQ_CST);
        }
        cairn_blocking_begin();
        pthread_barrier_wait(&barrier);
        cairn_blocking_end();
    }
    return unused;
}

static void racing_deletes_have_one_winner(void **state) {
    (void)state;
    pthread_barrier_init(&barrier, NULL, 3);
    cairn_on_report(on_thread_report, NULL);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, delete_contested, NULL), 0);
    }
    for (int i = 0; i < RACES; i++) {
        contested = cairn_new(Node);
        cairn_blocking_begin();
        pthread_barrier_wait(&barrier);
        cairn_blocking_end();
        cairn_collect(CAIRN_COUNT);
        cairn_blocking_begin();
        pthread_barrier_wait(&barrier);
        cairn_blocking_end();
    }
    cairn_blocking_begin();
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    cairn_blocking_end();
    cairn_on_report(NULL, NULL);
    pthread_barrier_destroy(&barrier);
    assert_int_equal(won, RACES);
    assert_int_equal(told, RACES);
}

/* Leaves a hole above all that Cairn reserves at first, which later heaps would take: then the
 * graveyard would lie between two heaps. */
static void start_below_a_hole(void) {
    size_t bytes = (size_t)600 << 30;
    void *hole = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_non_null(cairn_new(Node));
    if (hole != MAP_FAILED) munmap(hole, bytes);
}

int main(void) {
    start_below_a_hole();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delete_leaves_a_tombstone),
        cmocka_unit_test(delete_evaluates_its_argument_once),
        cmocka_unit_test(delete_ref_ends_what_a_field_names),
        cmocka_unit_test(delete_clears_references_and_poisons_the_rest),
        cmocka_unit_test(delete_ends_every_kind_of_object),
        cmocka_unit_test_setup_teardown(slot_waits_while_a_field_refers_to_it, make_place,
                                        end_place),
        cmocka_unit_test_setup_teardown(slot_waits_while_a_stack_refers_to_it, make_place,
                                        end_place),
        cmocka_unit_test_setup_teardown(slot_of_the_unreferenced_waits_for_an_epoch, make_place,
                                        end_place),
        cmocka_unit_test_setup_teardown(slot_waits_while_it_is_pinned, make_place, end_place),
        cmocka_unit_test(delete_works_in_another_heap),
        cmocka_unit_test(tombstones_in_fields_are_no_references),
        cmocka_unit_test(wrong_deletes_report),
        cmocka_unit_test(racing_deletes_have_one_winner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
