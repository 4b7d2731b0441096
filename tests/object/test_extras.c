/* SPDX-License-Identifier: MIT
 *
 * Weak references, cleanups, finalizers, pins, roots.
 */
#include "../test.h"

static int finalized, cleaned;
static void finalize(void *object) {
    (void)object;
    __atomic_fetch_add(&finalized, 1, __ATOMIC_SEQ_CST);
}
static void clean(void *argument) {
    __atomic_fetch_add(&cleaned, (int)(intptr_t)argument, __ATOMIC_SEQ_CST);
}

typedef struct File File;
typedef cairn_ref(File) FileRef;
struct File {
    FileRef self;
    int descriptor;
};
CAIRN_TYPE_WITH(File, (.finalize = finalize), self);

/* Finalizers run on their own thread; asking runs what it has not taken yet. */
static void wait_for(int *figure, int wanted) {
    for (int i = 0; i < 1000000 && __atomic_load_n(figure, __ATOMIC_SEQ_CST) < wanted; i++) {
        cairn_finalize_pending();
    }
    assert_true(__atomic_load_n(figure, __ATOMIC_SEQ_CST) >= wanted);
}

__attribute__((noinline)) static void make_files(int count, bool is_cyclic) {
    for (int i = 0; i < count; i++) {
        File *file = cairn_new(File);
        if (is_cyclic) cairn_set(&file->self, file);
    }
}

static void finalizers_run_once_each(void **state) {
    (void)state;
    finalized = 0;
    make_files(100, false);
    live_after(CAIRN_COUNT);
    wait_for(&finalized, 98);
    make_files(100, true);
    live_after(CAIRN_TRACE);
    wait_for(&finalized, 196);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    cairn_finalize_pending();
    assert_true(finalized <= 200);
}

static cairn_weak weak_root;

__attribute__((noinline)) static void make_weak(void) {
    Node *node = cairn_make(Node, .value = 7);
    assert_true(cairn_weak_set(&weak_root, node));
    cairn_collect(CAIRN_COUNT);
    assert_ptr_equal(cairn_weak_get(&weak_root), node);
    assert_int_equal(cairn_count(node), 0);
}

static void weak_reads_null_once_gone(void **state) {
    (void)state;
    run_apart(make_weak);
    live_after(CAIRN_COUNT);
    live_after(CAIRN_COUNT);
    assert_null(cairn_weak_get(&weak_root));
}

__attribute__((noinline)) static void make_cleanups(void) {
    Node *node = cairn_new(Node);
    assert_int_equal(cairn_cleanup_add(node, clean, (void *)1), CAIRN_OK);
    assert_int_equal(cairn_cleanup_add(node, clean, (void *)10), CAIRN_OK);
    cairn_set(&node->next, node);
}

static void cleanups_run_for_a_dead_cycle(void **state) {
    (void)state;
    cleaned = 0;
    run_apart(make_cleanups);
    live_after(CAIRN_TRACE);
    wait_for(&cleaned, 11);
    assert_int_equal(cleaned, 11);
    assert_int_equal(cairn_cleanup_add(NULL, clean, NULL), CAIRN_ERROR_ARGUMENT);
}

__attribute__((noinline)) static uintptr_t make_pinned(void) {
    Node *node = cairn_make(Node, .value = 11);
    return HIDE(cairn_pin(node));
}

static void pin_keeps_until_unpinned(void **state) {
    (void)state;
    uintptr_t hidden = make_pinned();
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    assert_int_equal(SHOW(Node, hidden)->value, 11);
    cairn_unpin(SHOW(Node, hidden));
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finalizers_run_once_each),
        cmocka_unit_test(weak_reads_null_once_gone),
        cmocka_unit_test(cleanups_run_for_a_dead_cycle),
        cmocka_unit_test(pin_keeps_until_unpinned),
        cmocka_unit_test(added_root_is_scanned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
