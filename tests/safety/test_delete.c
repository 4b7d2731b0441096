/* SPDX-License-Identifier: MIT
 *
 * cairn_delete: tombstones, waiting slots, and errors. Errors are caught by the report handler.
 */
#include "../test.h"

static jmp_buf caught;
static char report[4096];

static void on_report(const char *text, void *context) {
    (void)context;
    strncpy(report, text, sizeof(report) - 1);
    longjmp(caught, 1);
}

#define EXPECT_REPORT(statement, text)                                                             \
    do {                                                                                           \
        report[0] = 0;                                                                             \
        if (setjmp(caught) == 0) {                                                                 \
            statement;                                                                             \
            fail_msg("no report");                                                                 \
        }                                                                                          \
        assert_non_null(strstr(report, text));                                                     \
    } while (0)

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
    assert_int_not_equal(copy->value, 5);
    Node *null = NULL;
    cairn_delete(null);
    assert_null(null);
}

static void slot_waits_while_referred_to(void **state) {
    (void)state;
    Node *holder = cairn_new(Node);
    cairn_set(&holder->next, cairn_make(Node, .value = 1));
    cairn_collect(CAIRN_COUNT);
    Node *gone = holder->next.p;
    uintptr_t hidden = HIDE(gone);
    cairn_delete(gone);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    for (int i = 0; i < 10000; i++) assert_ptr_not_equal(cairn_new(Node), SHOW(Node, hidden));
    assert_true(cairn_is_deleted(holder->next.p));
    assert_int_equal(stats_now().waiting_objects >= 1, 1);
    cairn_set(&holder->next, NULL);
    cairn_keep(holder);
}

static void delete_ref_ends_what_a_field_names(void **state) {
    (void)state;
    Node *holder = cairn_make(Node, .next = {cairn_new(Node)});
    cairn_delete_ref(&holder->next);
    assert_true(cairn_is_deleted(holder->next.p));
    cairn_collect(CAIRN_TRACE);
}

static void errors_report(void **state) {
    (void)state;
    cairn_on_report(on_report, NULL);
    Node *node = cairn_new(Node);
    cairn_delete(node);
    EXPECT_REPORT(cairn_delete(node), "double delete");
    Node *other = cairn_new(Node);
    long *inside = &other->value;
    EXPECT_REPORT(cairn_delete(inside), "interior");
    int local = 0, *foreign = &local;
    EXPECT_REPORT(cairn_delete(foreign), "no object");
    cairn_on_report(NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delete_leaves_a_tombstone),
        cmocka_unit_test(slot_waits_while_referred_to),
        cmocka_unit_test(delete_ref_ends_what_a_field_names),
        cmocka_unit_test(errors_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
