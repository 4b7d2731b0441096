/* SPDX-License-Identifier: MIT
 *
 * Checked builds: each way to touch what is not there is a report that names this file, and its
 * line; the same done right says nothing. Reports are left by longjmp: afterwards the thread must
 * be one that a collection can stop.
 */
#define CAIRN_CHECKED
#define CAIRN_SITES
#include "../test_report.h"

typedef struct Item Item;
typedef cairn_ref(Item) ItemRef;
typedef cairn_ref(void) AnyRef;
struct Item {
    ItemRef next, other;
    AnyRef any;
    ItemRef undeclared;
    long value;
};
CAIRN_TYPE(Item, next, other, any);
typedef struct {
    long length;
    ItemRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));
typedef struct {
    ItemRef ref;
} Plain;
CAIRN_LEAF(Plain);

/* The report has both texts, this file and this function. */
#define EXPECT_REPORT(statement, first, second)                                                    \
    do {                                                                                           \
        char here[300];                                                                            \
        CATCH_REPORT(statement);                                                                   \
        snprintf(here, sizeof(here), " in %s, thread", __func__);                                  \
        assert_names(here);                                                                        \
        assert_names("test_checked.c:");                                                           \
        assert_names(first);                                                                       \
        assert_names(second);                                                                      \
    } while (0)

static Item *kept;
static ItemRef *row;
static Family *family;
static cairn_heap *place;
static volatile size_t five = 5;

static int set_up(void **state) {
    (void)state;
    kept = cairn_make(Item, .value = 1);
    row = cairn_new_array(ItemRef, 5);
    family = cairn_new_flex(Family, kids, 3);
    for (size_t i = 0; i < 5; i++) cairn_set(&cairn_at(row, i), cairn_make(Item, .value = (long)i));
    return 0;
}

/* Apart from who calls setjmp. */
__attribute__((noinline)) static Item *make_item(cairn_heap *heap) {
    return cairn_new_in(heap, Item);
}
__attribute__((noinline)) static ItemRef *make_row(size_t count) {
    return cairn_new_array(ItemRef, count);
}
__attribute__((noinline)) static Plain *make_plain(void) {
    return cairn_new(Plain);
}
__attribute__((noinline)) static char *make_text(void) {
    return cairn_strdup("text");
}

__attribute__((noinline)) static Item *deleted_item(void) {
    Item *gone = cairn_make(Item, .value = 5), *copy = gone;
    cairn_set(&kept->next, gone);
    cairn_delete(gone);
    return copy;
}

/* ---- Reading ---- */

static void deleted_objects_are_not_read(void **state) {
    (void)state;
    deleted_item();
    for (int i = 0; i < 3; i++) {
        EXPECT_REPORT(kept->value = cairn_get(kept->next)->value, "use after delete",
                      "a reference to a deleted Item (40 bytes)");
        assert_names("in deleted_item");
        EXPECT_REPORT((void)cairn_load(&kept->next), "use after delete", "a deleted Item");
        /* As it was deleted, counted, and a tombstone. */
        cairn_collect(i ? CAIRN_TRACE : CAIRN_COUNT);
    }
}

static void what_is_no_object_is_not_read(void **state) {
    (void)state;
    static ItemRef wrong; /* in no object: a collection would report it */
    void *middle = &cairn_get(row[1])->value;
    memcpy((void *)&wrong, &middle, sizeof(middle));
    EXPECT_REPORT((void)cairn_get(wrong), "not an object", "32 bytes into the Item at");
    void *table = (void *)((uintptr_t)kept & ~(((uintptr_t)1 << 22) - 1));
    memcpy((void *)&wrong, &table, sizeof(table));
    EXPECT_REPORT((void)cairn_get(wrong), "not an object", "where no object lives");
}

/* ---- Storing ---- */

static void wrong_values_are_not_stored(void **state) {
    (void)state;
    Item *copy = deleted_item(), *tombstone = kept;
    EXPECT_REPORT(cairn_set(&kept->other, copy), "use after delete", "a deleted Item");
    tombstone = make_item(NULL);
    cairn_delete(tombstone);
    EXPECT_REPORT(cairn_set(&kept->other, tombstone), "use after delete",
                  "in wrong_values_are_not_stored");
    EXPECT_REPORT(cairn_set(&kept->any, &kept->value), "not an object", "bytes into the Item");
    EXPECT_REPORT((void)cairn_swap(&kept->other, tombstone), "use after delete", "a deleted Item");
    Item *expected = NULL;
    EXPECT_REPORT((void)cairn_cas(&kept->other, &expected, tombstone), "use after delete",
                  "deleted");
    EXPECT_REPORT(cairn_set_at(&kept->other.p, tombstone), "use after delete", "deleted");
    assert_null(cairn_get(kept->other));
}

static void wrong_fields_are_not_stored_into(void **state) {
    (void)state;
    Item *copy = deleted_item();
    EXPECT_REPORT(cairn_set(&copy->other, NULL), "use after delete", "a store into a deleted Item");
    EXPECT_REPORT(cairn_set(&kept->undeclared, kept), "undeclared field",
                  "at offset 24 of the Item at");
    Plain *plain = make_plain();
    EXPECT_REPORT(cairn_set(&plain->ref, kept), "undeclared field", "of the Plain at");
    EXPECT_REPORT(cairn_set(&row[five], kept), "out of bounds", "which has 40");
    Item *gone = kept;
    void **nowhere = (void **)((uintptr_t)gone & ~(((uintptr_t)1 << 22) - 1));
    EXPECT_REPORT(cairn_set((ItemRef *)(void *)nowhere, NULL), "not an object", "a store into");
}

static void heaps_are_not_crossed(void **state) {
    (void)state;
    place = make_small_heap();
    Item *there = make_item(place);
    EXPECT_REPORT(cairn_set(&kept->next, there), "a reference crosses heaps", "a Item of heap");
    EXPECT_REPORT(cairn_set(&there->next, kept), "a reference crosses heaps", "a Item of heap");
    cairn_set(&there->next, there);
    there = NULL;
    assert_int_equal(cairn_heap_destroy(place), CAIRN_OK);
}

/* ---- Arrays ---- */

static void bounds_are_kept(void **state) {
    (void)state;
    char *text = make_text();
    EXPECT_REPORT((void)cairn_get(cairn_at(row, five)), "out of bounds",
                  "element 5 of 5, of 8 bytes");
    EXPECT_REPORT((void)cairn_get(cairn_at(row, (long)five - 6)), "out of bounds",
                  "element -1 of 5");
    EXPECT_REPORT(cairn_at(text, five) = 'x', "out of bounds", "element 5 of 5, of 1 bytes");
    EXPECT_REPORT(cairn_set(&cairn_at(family->kids, five - 2), kept), "out of bounds",
                  "element 3 of 3");
    EXPECT_REPORT((void)cairn_at(row + 3, five - 3), "out of bounds", "element 2 of 2");
    ItemRef *gone = make_row(3), *copy = gone;
    cairn_delete(gone);
    EXPECT_REPORT((void)cairn_at(copy, 0), "use after delete", "an element of a deleted");
    EXPECT_REPORT((void)cairn_at(gone, 0), "use after delete", "an element of a deleted");
    gone = NULL;
    EXPECT_REPORT((void)cairn_at(gone, 0), "not an object", "an element of");
    EXPECT_REPORT(cairn_copy(row, row + 1, five), "out of bounds", "a copy from reaches 40 bytes");
    EXPECT_REPORT(cairn_copy(row + 1, row, five), "out of bounds", "a copy to reaches 40 bytes");
    EXPECT_REPORT(cairn_copy(row, row, SIZE_MAX / 4), "out of bounds", "a copy to");
    EXPECT_REPORT(cairn_copy(copy, row, 1), "use after delete", "a copy to");
}

/* ---- What is right ---- */

static Item fixed;
static int finalized;
typedef struct {
    ItemRef ref;
    AnyRef any;
} Closing;
static void finish(void *object) {
    Closing *closing = object;
    if (cairn_get(closing->ref)) finalized += (int)cairn_get(closing->ref)->value;
    cairn_set(&closing->any, closing);
}
CAIRN_TYPE_WITH(Closing, (.finalize = finish), ref, any);

static void what_is_right_says_nothing(void **state) {
    (void)state;
    ItemRef local[2] = {{NULL}, {NULL}};
    static ItemRef table[3];
    cairn_set(&local[1], kept);
    cairn_set(&table[2], cairn_get(local[1]));
    assert_ptr_equal(cairn_get(cairn_at(table, 2)), kept);
    assert_ptr_equal(cairn_get(cairn_at(local, 1)), kept);
    cairn_set(&kept->next, &fixed);
    assert_ptr_equal(cairn_load(&kept->next), &fixed);
    cairn_set(&kept->any, "a literal");
    cairn_set(&kept->other, NULL);
    assert_null(cairn_get(kept->other));
    for (size_t i = 0; i < 5; i++) assert_int_equal(cairn_get(cairn_at(row, i))->value, i);
    cairn_set(&cairn_at(family->kids, 2), kept);
    assert_ptr_equal(cairn_get(cairn_at(family->kids, 2)), kept);
    cairn_copy(row + 1, row, 4);
    assert_ptr_equal(cairn_get(row[1]), cairn_get(row[0]));
    cairn_copy(local, row, 2);
    cairn_copy(row, row + 5, 0);
    void **untyped = cairn_alloc(64);
    cairn_set((ItemRef *)(void *)&untyped[7], kept);
    Item *swapped = cairn_swap(&kept->other, kept);
    assert_null(swapped);
    Item *expected = kept;
    assert_true(cairn_cas(&kept->other, &expected, NULL));
    Closing *closing = cairn_new(Closing);
    cairn_set(&closing->ref, cairn_get(row[4]));
    cairn_delete(closing);
    assert_int_equal(finalized, 3);
    cairn_set(&table[2], NULL);
    cairn_set(&kept->next, NULL);
    cairn_set(&kept->any, NULL);
    cairn_collect(CAIRN_TRACE);
}

/* Reading plainly is fine, and so is writing where no reference is. */
static int compare_items(const void *left, const void *right) {
    return memcmp(left, right, sizeof(ItemRef));
}
static void plain_copies_are_refused(void **state) {
    (void)state;
    Item copy = {.value = 3};
    Item *gone = make_item(NULL), *stale = gone;
    cairn_delete(gone);
    EXPECT_REPORT(memcpy(kept, &copy, sizeof(copy)), "plain copy",
                  "over its reference at offset 0");
    EXPECT_REPORT(memmove((char *)kept + 10, &copy, 1), "plain copy", "at offset 8");
    EXPECT_REPORT(memset(row, 0, 5 * sizeof(*row)), "plain copy", "cairn_clear clears");
    EXPECT_REPORT(qsort(row, 5, sizeof(*row), compare_items), "plain copy", "cairn_sort");
    EXPECT_REPORT(memset(family->kids + 2, 0, 8), "plain copy", "at offset 24");
    EXPECT_REPORT(memcpy(&copy, stale, sizeof(copy)), "use after delete",
                  "a read of a deleted Item");
    EXPECT_REPORT(memset((char *)kept + sizeof(Item) - 4, 0, 8), "out of bounds",
                  "reaches 8 bytes");
    char *text = cairn_strdup("12345");
    EXPECT_REPORT(memset(text, '0', 7), "out of bounds", "a write to reaches 7 bytes");
    memcpy(&copy, kept, sizeof(copy));
    assert_int_equal(copy.value, 1);
    memset(&kept->value, 0, sizeof(kept->value));
    memset(&kept->undeclared, 0, sizeof(ItemRef));
    memmove(text, text + 1, 5);
    memset(text, 0, 0);
    memset(&copy, 0, sizeof(copy));
    kept->value = 1;
}

/* Each argument is evaluated once, as in builds that check nothing. */
static int calls;
static Item *count_calls(Item *item) {
    calls++;
    return item;
}
static size_t count_index(void) {
    return (size_t)calls++;
}

static void arguments_are_evaluated_once(void **state) {
    (void)state;
    calls = 0;
    cairn_set(&count_calls(kept)->next, count_calls(kept));
    assert_int_equal(calls, 2);
    assert_ptr_equal(cairn_get(count_calls(kept)->next), kept);
    assert_int_equal(calls, 3);
    (void)cairn_get(cairn_at(row, count_index()));
    assert_int_equal(calls, 4);
    cairn_set(&kept->next, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(deleted_objects_are_not_read, set_up),
        cmocka_unit_test_setup(what_is_no_object_is_not_read, set_up),
        cmocka_unit_test_setup(wrong_values_are_not_stored, set_up),
        cmocka_unit_test_setup(wrong_fields_are_not_stored_into, set_up),
        cmocka_unit_test_setup(heaps_are_not_crossed, set_up),
        cmocka_unit_test_setup(bounds_are_kept, set_up),
        cmocka_unit_test_setup(plain_copies_are_refused, set_up),
        cmocka_unit_test_setup(what_is_right_says_nothing, set_up),
        cmocka_unit_test_setup(arguments_are_evaluated_once, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
