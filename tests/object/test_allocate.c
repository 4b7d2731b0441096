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

/* Alignments above a block: what lies before the object must not be taken for its start. */
static void aligned_objects_live_through_collections(void **state) {
    (void)state;
    static char *kept[24];
    size_t count = 0;
    for (size_t align = 16; align <= (size_t)2 << 20; align *= 2) {
        assert_non_null(cairn_alloc_bytes(40000));
        kept[count] = cairn_alloc_bytes_aligned(100, align);
        assert_int_equal((uintptr_t)kept[count] % align, 0);
        memset(kept[count], (int)count, 100);
        cairn_collect(CAIRN_TRACE);
        count++;
    }
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(cairn_length(kept[i]), 100);
        assert_int_equal(kept[i][99], i);
        kept[i] = NULL;
    }
    live_after(CAIRN_TRACE);
}

/* Overlapping copies of all lengths against memmove; references keep their counts. */
static void copies_overlap_and_count(void **state) {
    (void)state;
    enum { LENGTH = 3000 };
    NodeRef *array = cairn_new_array(NodeRef, LENGTH);
    for (long i = 0; i < LENGTH; i++) cairn_set(&array[i], cairn_make(Node, .value = i));
    cairn_collect(CAIRN_COUNT);
    static long twin[LENGTH];
    for (long i = 0; i < LENGTH; i++) twin[i] = i;
    const size_t cases[][3] = {{0, 1, 2999},   {1, 0, 2999},   {700, 3, 2000}, {3, 700, 2000},
                               {0, 1500, 512}, {1500, 0, 513}, {1, 600, 1025}, {5, 5, 100}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cairn_copy(array + cases[i][0], array + cases[i][1], cases[i][2]);
        memmove(twin + cases[i][0], twin + cases[i][1], cases[i][2] * sizeof(long));
        cairn_collect(CAIRN_COUNT);
        for (size_t k = 0; k < LENGTH; k++) assert_int_equal(array[k].p->value, twin[k]);
    }
    static size_t wanted[LENGTH];
    for (size_t k = 0; k < LENGTH; k++) wanted[twin[k]]++;
    for (size_t k = 0; k < LENGTH; k++) {
        assert_int_equal(cairn_count(array[k].p), wanted[twin[k]]);
    }
}

/* Epochs come while a long copy logs, not at its end. */
static void long_copy_lets_epochs_come(void **state) {
    (void)state;
    enum { LENGTH = 1 << 20 };
    NodeRef *array = cairn_new_array(NodeRef, LENGTH);
    Node *node = cairn_new(Node);
    for (size_t i = 0; i < LENGTH; i++) cairn_set(&array[i], node);
    cairn_collect(CAIRN_COUNT);
    uint64_t before = stats_now().epochs;
    cairn_copy(array, array + LENGTH / 2, LENGTH / 2);
    assert_true(stats_now().epochs > before);
}

/* ---- Flexible members -------------------------------------------------------------------------
 */

typedef struct Symbol Symbol;
typedef cairn_ref(Symbol) SymbolRef;
struct Symbol {
    SymbolRef next;
    uintptr_t text[];
};
CAIRN_TYPE(Symbol, next);
typedef struct {
    cairn_weak node;
} Watch;
CAIRN_TYPE(Watch, CAIRN_WEAK(node));
static Symbol *symbol;
static Watch *watch;
static volatile uintptr_t hidden; /* volatile: or a compiler keeps what it hides */

enum { WORDS = 40 };
static void make_symbol(void) {
    watch = cairn_new(Watch);
    symbol = cairn_new_flex(Symbol, text, WORDS);
    cairn_set(&symbol->next, cairn_new_flex(Symbol, text, 1));
    symbol->next.p->text[0] = 7;
    Node *node = cairn_make(Node, .value = 3);
    cairn_weak_set(&watch->node, node);
    for (size_t i = 0; i < WORDS; i++) symbol->text[i] = (uintptr_t)node;
    hidden = HIDE(node);
}

/* It holds what it likes: the address of an object there keeps nothing and is given back nowhere.
 */
static void flexible_data_behind_references_is_data(void **state) {
    (void)state;
    run_apart(make_symbol);
    assert_int_equal(cairn_length(symbol), WORDS);
    for (int i = 0; i < 3; i++) collect_and_clean(CAIRN_TRACE);
    assert_null(cairn_weak_get(&watch->node));
    for (size_t i = 0; i < WORDS; i++) assert_int_equal(HIDE(symbol->text[i]), hidden);
    assert_int_equal(symbol->next.p->text[0], 7);
    assert_int_equal(cairn_length(symbol->next.p), 1);
    Symbol *last = symbol->next.p;
    cairn_delete(symbol);
    assert_int_equal(cairn_count(last), 1); /* until the deletion's store is counted */
    symbol = NULL;
    collect_and_clean(CAIRN_TRACE);
    assert_int_equal(last->text[0], 7);
}

typedef struct {
} Empty;
CAIRN_LEAF(Empty);
static void arrays_of_nothing_have_no_length(void **state) {
    (void)state;
    assert_int_equal(cairn_length(cairn_new_array(Empty, 3)), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_types_share_no_slot),
        cmocka_unit_test(plain_data_in_reused_memory_is_not_logged),
        cmocka_unit_test(plain_array_in_reused_blocks_is_not_logged),
        cmocka_unit_test(aligned_objects_live_through_collections),
        cmocka_unit_test(copies_overlap_and_count),
        cmocka_unit_test(long_copy_lets_epochs_come),
        cmocka_unit_test(flexible_data_behind_references_is_data),
        cmocka_unit_test(arrays_of_nothing_have_no_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
