/* SPDX-License-Identifier: MIT
 *
 * Worklists stay short where many objects with thousands of fields are traced, and die together:
 * one's fields are done before the next one's are queued. Method: a list fills from its
 * beginning and is never cleared, so its first empty place tells how long it has been.
 */
#include "../test.h"
#include "gc/gc.h"

enum { REFERENCES = 400000, MOST = 40000 };
typedef cairn_ref(NodeRef) ArrayRef;

static ArrayRef *table;
static size_t field_count, array_count;

static void make_arrays(void) {
    table = cairn_new_array(ArrayRef, array_count);
    for (size_t i = 0; i < array_count; i++) {
        NodeRef *array = cairn_new_array(NodeRef, field_count);
        cairn_set(&table[i], array);
        for (size_t k = 0; k < field_count; k++) {
            cairn_set(&array[k], cairn_make(Node, .value = (long)k));
        }
    }
}

static void expect_short(const struct crn_stack *list, const char *name) {
    size_t length = 0;
    while (length < list->capacity && list->items[length]) length++;
    if (length > MOST) fail_msg("%s of %zu entries, %d wanted", name, length, MOST);
}

static void expect_short_lists(void) {
    for (unsigned i = 0; i <= crn_team.seat_count; i++) {
        expect_short(&crn_gc.workers[i].grey, "objects to visit");
        expect_short(&crn_gc.workers[i].decrements, "decrements");
    }
}

/* In slots, the first of which are not wide; in blocks of their own. */
static const size_t field_counts[] = {500, 520, 1000, 2000, 2500, 30000};

static void wide_objects_are_done_one_by_one(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(field_counts) / sizeof(*field_counts); i++) {
        field_count = field_counts[i];
        array_count = REFERENCES / field_count;
        run_apart(make_arrays);
        uint64_t with_arrays = live_after(CAIRN_COUNT);
        collect_and_clean(CAIRN_TRACE);
        table = NULL;
        uint64_t without = live_after(CAIRN_COUNT);
        assert_true(with_arrays - without > REFERENCES / 2);
        expect_short_lists();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_objects_are_done_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
