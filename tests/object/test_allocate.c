/* SPDX-License-Identifier: MIT
 *
 * Allocation: no slot is handed out twice, and memory that changes its type forgets what it was.
 * Method: give each object a number of its own and look whether all numbers are still there.
 */
#include "../test.h"

#include <stdio.h>

enum { TYPES = 300, PER_TYPE = 40 };

/* The row of cursors grows while the inline path of another type is in use. */
static void many_types_share_no_slot(void **state) {
    (void)state;
    NodeRef *nodes = cairn_new_array(NodeRef, TYPES * PER_TYPE);
    typedef cairn_ref(long) LongRef;
    LongRef *others = cairn_new_array(LongRef, TYPES * PER_TYPE);
    long serial = 0;
    for (size_t i = 0; i < TYPES; i++) {
        char name[32];
        snprintf(name, sizeof(name), "type %zu", i);
        cairn_type *type;
        assert_int_equal(cairn_type_create(name, 32, 16, NULL, 0, NULL, &type), CAIRN_OK);
        for (size_t k = 0; k < PER_TYPE; k++) {
            Node *node = cairn_new(Node);
            node->value = ++serial;
            cairn_set(&nodes[i * PER_TYPE + k], node);
            long *other = cairn_new_type(type);
            *other = -serial;
            cairn_set(&others[i * PER_TYPE + k], other);
        }
    }
    for (long i = 0; i < serial; i++) {
        assert_int_equal(nodes[i].p->value, i + 1);
        assert_int_equal(*others[i].p, -i - 1);
    }
}

typedef struct {
    uintptr_t words[3];
} Plain;
CAIRN_LEAF(Plain);
typedef cairn_ref(Plain) PlainRef;
static NodeRef *nodes_root;

enum { REUSED = 20000 };

static void make_old_nodes(void) {
    nodes_root = cairn_new_array(NodeRef, REUSED);
    for (size_t i = 0; i < REUSED; i++) {
        cairn_set(&nodes_root[i], cairn_make(Node, .next = {nodes_root[0].p}, .value = 1));
    }
    cairn_collect(CAIRN_COUNT);
}

/* Log bits of the nodes must not be left to the numbers that follow them. */
static void plain_data_in_reused_memory_is_not_logged(void **state) {
    (void)state;
    run_apart(make_old_nodes);
    nodes_root = NULL;
    live_after(CAIRN_COUNT);
    PlainRef *plain = cairn_new_array(PlainRef, REUSED);
    /* A number that would be an error as a reference. */
    uintptr_t odd = (uintptr_t)plain + 1;
    Plain numbers = {{odd, odd, 99}};
    for (size_t i = 0; i < REUSED; i++) {
        Plain *one = cairn_new(Plain);
        *one = numbers;
        cairn_copy(one, &numbers, 1);
        cairn_set(&plain[i], one);
    }
    cairn_collect(CAIRN_COUNT);
    for (size_t i = 0; i < REUSED; i++) assert_int_equal(plain[i].p->words[2], 99);
}

static void make_old_arrays(void) {
    nodes_root = NULL;
    NodeRef *first = cairn_new_array(NodeRef, 5000);
    for (size_t k = 0; k < 5000; k++) cairn_set(&first[k], cairn_new(Node));
    cairn_collect(CAIRN_COUNT);
    cairn_keep(first);
}

/* The same for objects of their own blocks. */
static void plain_array_in_reused_blocks_is_not_logged(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) run_apart(make_old_arrays);
    live_after(CAIRN_COUNT);
    for (int i = 0; i < 20; i++) {
        Plain *array = cairn_new_array(Plain, 1600);
        uintptr_t odd = (uintptr_t)array + 1;
        Plain number = {{odd, odd, odd}};
        for (size_t k = 0; k < 1600; k++) array[k] = number;
        cairn_copy(array, array + 800, 800);
        cairn_collect(CAIRN_COUNT);
        cairn_keep(array);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_types_share_no_slot),
        cmocka_unit_test(plain_data_in_reused_memory_is_not_logged),
        cmocka_unit_test(plain_array_in_reused_blocks_is_not_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
