/* SPDX-License-Identifier: MIT
 *
 * Pins, added roots, and the table of extras: many entries, several threads, and epochs that look
 * only at what changed.
 */
#include "../test_report.h"

static uintptr_t hidden;

static void make_pinned(void) {
    Node *node = cairn_make(Node, .value = 11);
    hidden = HIDE(cairn_pin(cairn_pin(node)));
}
static void unpin(void) {
    cairn_unpin(SHOW(Node, hidden));
}
static void unpin_and_pin(void) {
    Node *node = SHOW(Node, hidden);
    cairn_unpin(node);
    cairn_pin(node);
}

static cairn_weak weak;
static void watch(void) {
    assert_true(cairn_weak_set(&weak, SHOW(Node, hidden)));
}
static void look_at_pinned(void) {
    Node *node = cairn_weak_get(&weak);
    assert_ptr_equal(node, SHOW(Node, hidden));
    assert_int_equal(node->value, 11);
    assert_int_equal(cairn_count(node), 0);
}

static void pins_keep_until_the_last_unpin(void **state) {
    (void)state;
    run_apart(make_pinned);
    run_apart(watch);
    for (int i = 0; i < 3; i++) live_after(i ? CAIRN_COUNT : CAIRN_TRACE);
    run_apart(look_at_pinned);
    run_apart(unpin);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    run_apart(look_at_pinned);
    run_apart(unpin_and_pin); /* no epoch in between: nothing changed */
    for (int i = 0; i < 3; i++) live_after(CAIRN_COUNT);
    run_apart(look_at_pinned);
    run_apart(unpin);
    live_after(CAIRN_COUNT);
    assert_null(cairn_weak_get(&weak));
}

static void misuse_reports_and_may_be_left(void **state) {
    (void)state;
    Node *volatile node = cairn_new(Node);
    cairn_on_report(on_report, NULL);
    for (volatile int i = 0; i < 5; i++) {
        report[0] = 0;
        if (setjmp(caught) == 0) {
            int local = 0;
            if (i == 0) cairn_unpin(node);
            if (i == 1) cairn_pin(&node->value);
            if (i == 2) cairn_pin(&local);
            if (i == 3) assert_int_equal(cairn_cleanup_add(&local, free, NULL), CAIRN_OK);
            if (i == 4) cairn_clear(&node->value);
            fail_msg("no report");
        }
        assert_non_null(strstr(report, i ? "is not the start of an object" : "is not pinned"));
        assert_stoppable();
    }
    cairn_on_report(NULL, NULL);
    assert_null(cairn_pin((Node *)NULL));
    cairn_unpin(NULL);
}

static void added_root_is_scanned(void **state) {
    (void)state;
    Node **place = calloc(1, sizeof(*place));
    assert_int_equal(cairn_root_add(place, sizeof(*place)), CAIRN_OK);
    *place = cairn_make(Node, .value = 13);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    assert_int_equal((*place)->value, 13);
    cairn_root_remove(place);
    free(place);
}

/* Several threads fill the table at once, through many splits of its buckets, and empty it. */
typedef struct {
    long number;
} Counted;
static int ended;
static void end(void *object) {
    (void)object;
    __atomic_fetch_add(&ended, 1, __ATOMIC_SEQ_CST);
}
CAIRN_LEAF_WITH(Counted, (.finalize = end));
typedef cairn_ref(Counted) CountedRef;

enum { THREADS = 4, EACH = 20000 };
static CountedRef *kept[THREADS];

static void *fill(void *argument) {
    size_t index = (size_t)(uintptr_t)argument;
    for (int i = 0; i < EACH; i++) {
        Counted *counted = cairn_new(Counted);
        counted->number = i;
        cairn_set(&kept[index][i], counted);
    }
    return NULL;
}

static void check_and_drop(void) {
    for (int i = 0; i < THREADS; i++) {
        for (int k = 0; k < EACH; k++) assert_int_equal(kept[i][k].p->number, k);
        cairn_clear(kept[i]);
        kept[i] = NULL;
    }
}

static void table_holds_what_threads_put_in(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        kept[i] = cairn_new_array(CountedRef, EACH);
        assert_int_equal(pthread_create(&threads[i], NULL, fill, (void *)i), 0);
    }
    cairn_blocking_begin();
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    cairn_blocking_end();
    live_after(CAIRN_TRACE);
    assert_int_equal(ended, 0);
    run_apart(check_and_drop);
    for (int i = 0; i < 5000 && __atomic_load_n(&ended, __ATOMIC_SEQ_CST) < THREADS * EACH; i++) {
        live_after(CAIRN_COUNT);
        cairn_finalize_pending();
    }
    assert_int_equal(ended, THREADS * EACH);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pins_keep_until_the_last_unpin),
        cmocka_unit_test(misuse_reports_and_may_be_left),
        cmocka_unit_test(added_root_is_scanned),
        cmocka_unit_test(table_holds_what_threads_put_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
