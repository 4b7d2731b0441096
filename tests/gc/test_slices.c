/* SPDX-License-Identifier: MIT
 *
 * What dies while the program runs is freed without a collection that anybody asks for: long lists,
 * lists spread over the blocks that the program is allocating from, objects with finalizers.
 * Method: drop, go on allocating, look at the figures; no trace may run meanwhile.
 */
#include "../test.h"

enum { LENGTH = 30000, ROUNDS = 6000000 };

static Node *list, *scratch;
static NodeRef *holes;
static int finalized;

static void make_list(void) {
    for (long i = 0; i < LENGTH; i++) list = cairn_make(Node, .next = {list}, .value = i);
}

/* Every other node lives on, so that the list's blocks have room and are taken again. */
static void make_list_between(void) {
    holes = cairn_new_array(NodeRef, LENGTH);
    for (size_t i = 0; i < LENGTH; i++) {
        list = cairn_make(Node, .next = {list}, .value = (long)i);
        cairn_set(&holes[i], cairn_new(Node));
    }
}

static bool allocate_until(uint64_t most) {
    for (int i = 0; i < ROUNDS; i++) {
        scratch = cairn_make(Node, .value = i);
        if (i % 10000 == 0 && live_objects() <= most) return true;
    }
    return false;
}

static void expect_list_to_go(void (*make)(void)) {
    run_apart(make);
    uint64_t with_list = live_after(CAIRN_COUNT);
    uint64_t traces = traces_so_far();
    list = NULL;
    assert_true(allocate_until(with_list - LENGTH + 100));
    assert_int_equal(traces_so_far(), traces);
}

static void dropped_list_goes(void **state) {
    (void)state;
    expect_list_to_go(make_list);
}

static void dropped_list_in_blocks_in_use_goes(void **state) {
    (void)state;
    expect_list_to_go(make_list_between);
    for (size_t i = 0; i < LENGTH; i += 2) cairn_set(&holes[i], NULL);
    expect_list_to_go(make_list);
    holes = NULL;
}

static void finalize(void *object) {
    (void)object;
    __atomic_fetch_add(&finalized, 1, __ATOMIC_SEQ_CST);
}
typedef struct {
    long value;
} File;
typedef cairn_ref(File) FileRef;
CAIRN_LEAF_WITH(File, (.finalize = finalize));
static FileRef *files;

static void make_files(void) {
    files = cairn_new_array(FileRef, 1000);
    for (size_t i = 0; i < 1000; i++) cairn_set(&files[i], cairn_new(File));
}

static void old_finalizable_objects_are_finalized(void **state) {
    (void)state;
    run_apart(make_files);
    live_after(CAIRN_COUNT);
    files = NULL;
    for (int i = 0; i < ROUNDS && __atomic_load_n(&finalized, __ATOMIC_SEQ_CST) < 990; i++) {
        scratch = cairn_make(Node, .value = i);
        if (i % 1000 == 0) cairn_finalize_pending();
    }
    assert_true(__atomic_load_n(&finalized, __ATOMIC_SEQ_CST) >= 990);
}

static NodeRef *row;
static bool is_over;

static void *pin_and_store(void *argument) {
    uint64_t random = 88172645463325252u + (uintptr_t)argument;
    for (long i = 0; !__atomic_load_n(&is_over, __ATOMIC_RELAXED); i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t at = random % 256;
        Node *node = cairn_make(Node, .value = i);
        if (random >> 62 == 0) cairn_unpin(cairn_pin(node));
        Node *head = random >> 61 & 1 ? cairn_load(&row[at]) : NULL;
        if (head && cairn_load(&head->next)) head = NULL;
        cairn_set(&node->next, head);
        cairn_set(&row[at], node);
    }
    return NULL;
}

/* An object with extras that ran out of counts waits for the stop; a stale word may root it first.
 */
static void rooted_while_it_waits_lives_on(void **state) {
    (void)state;
    row = cairn_new_array(NodeRef, 256);
    is_over = false;
    pthread_t threads[3];
    for (uintptr_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pin_and_store, (void *)i), 0);
    }
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 2000; k++) scratch = cairn_make(Node, .value = k);
        cairn_collect(i % 16 ? CAIRN_COUNT : CAIRN_TRACE);
    }
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++) {
        cairn_blocking_begin();
        pthread_join(threads[i], NULL);
        cairn_blocking_end();
    }
    row = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropped_list_goes),
        cmocka_unit_test(dropped_list_in_blocks_in_use_goes),
        cmocka_unit_test(old_finalizable_objects_are_finalized),
        cmocka_unit_test(rooted_while_it_waits_lives_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
