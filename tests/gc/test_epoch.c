/* SPDX-License-Identifier: MIT
 *
 * The counting epoch and the trace, seen from a program: what is reachable stays, what is not goes,
 * and counts are exact. Method: build, drop, collect, look at the figures and at the contents.
 */
#include "../test.h"

#include <sys/mman.h>

static Node *keep;

__attribute__((noinline)) static void make_list(long length) {
    for (long i = 0; i < length; i++) keep = cairn_make(Node, .next = {keep}, .value = i);
}

static void make_long_list(void) {
    make_list(10000);
}

static void walk_long_list(void) {
    make_list(10000);
    cairn_collect(CAIRN_COUNT);
    cairn_collect(CAIRN_TRACE);
    long expected = 9999;
    for (Node *at = keep; at; at = at->next.p) assert_int_equal(at->value, expected--);
    assert_int_equal(expected, -1);
}

/* Apart: what is left of the walk on the stack would hold the list through the next test. */
static void list_reachable_stays(void **state) {
    (void)state;
    run_apart(walk_long_list);
}

static void list_dropped_is_freed_by_count(void **state) {
    (void)state;
    run_apart(make_long_list);
    uint64_t with_list = live_after(CAIRN_COUNT);
    assert_true(with_list >= 10000);
    keep = NULL;
    assert_true(live_after(CAIRN_COUNT) + 10000 <= with_list + 20);
}

static void make_rings(void) {
    for (int i = 0; i < 1000; i++) {
        Node *first = cairn_new(Node), *last = first;
        for (int k = 0; k < 9; k++) {
            Node *node = cairn_new(Node);
            cairn_set(&last->next, node);
            last = node;
        }
        cairn_set(&last->next, first);
        cairn_set(&first->other, keep);
        keep = first;
    }
}

static void cycles_dropped_wait_for_the_trace(void **state) {
    (void)state;
    keep = NULL;
    live_after(CAIRN_TRACE);
    run_apart(make_rings);
    uint64_t with_rings = live_after(CAIRN_COUNT);
    assert_true(with_rings >= 10000);
    keep = NULL;
    assert_true(live_after(CAIRN_COUNT) + 1000 >= with_rings);
    assert_true(live_after(CAIRN_TRACE) + 10000 <= with_rings + 100);
}

static void counts_are_exact_after_an_epoch(void **state) {
    (void)state;
    Node *target = cairn_new(Node);
    NodeRef *array = cairn_new_array(NodeRef, 100);
    for (size_t i = 0; i < 100; i++) {
        cairn_set(&array[i], target);
        cairn_collect(CAIRN_COUNT);
        assert_int_equal(cairn_count(target), i + 1);
    }
    for (size_t i = 0; i < 40; i++) cairn_set(&array[i], NULL);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(target), 60);
    assert_int_equal(cairn_length(array), 100);
    cairn_keep(array);
}

static void stuck_count_is_lowered_by_the_trace(void **state) {
    (void)state;
    Node *target = cairn_new(Node);
    NodeRef *array = cairn_new_array(NodeRef, 1000);
    for (size_t i = 0; i < 1000; i++) cairn_set(&array[i], target);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(target), 255);
    for (size_t i = 3; i < 1000; i++) cairn_set(&array[i], NULL);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(target), 255);
    cairn_collect(CAIRN_TRACE);
    assert_int_equal(cairn_count(target), 3);
    cairn_keep(array);
}

static NodeRef *array_root;

__attribute__((noinline)) static void make_array(void) {
    array_root = cairn_new_array(NodeRef, 1000000);
    for (size_t i = 0; i < 1000000; i += 10) {
        cairn_set(&array_root[i], cairn_make(Node, .value = (long)i));
    }
    cairn_collect(CAIRN_COUNT);
    for (size_t i = 0; i < 1000000; i += 10) assert_int_equal(array_root[i].p->value, i);
}

static void big_array_of_references_keeps_and_gives_up(void **state) {
    (void)state;
    keep = NULL;
    uint64_t before = live_after(CAIRN_TRACE);
    run_apart(make_array);
    array_root = NULL;
    assert_true(live_after(CAIRN_COUNT) <= before + 20);
}

static void copy_counts_what_moves(void **state) {
    (void)state;
    NodeRef *array = cairn_new_array(NodeRef, 10);
    for (size_t i = 0; i < 5; i++) cairn_set(&array[i], cairn_make(Node, .value = (long)i));
    cairn_collect(CAIRN_COUNT);
    cairn_copy(array + 5, array, 5);
    cairn_collect(CAIRN_COUNT);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(cairn_count(array[i].p), 2);
        assert_ptr_equal(array[i].p, array[i + 5].p);
    }
    cairn_clear(array);
    assert_null(array[0].p);
    array = cairn_resize_array(array, 20);
    assert_int_equal(cairn_length(array), 20);
}

static void interior_pointer_keeps_its_object(void **state) {
    (void)state;
    char *text = cairn_alloc_bytes(100000);
    memset(text, 7, 100000);
    uintptr_t hidden = HIDE(text);
    char *volatile inside = text + 99999;
    text = NULL;
    for (int i = 0; i < 4; i++) {
        clean_stack();
        cairn_collect(CAIRN_TRACE);
        assert_non_null(cairn_alloc_bytes(100000));
    }
    assert_int_equal(SHOW(char, hidden)[500], 7);
    assert_int_equal(*inside, 7);
}

typedef struct {
    cairn_word word;
} Tagged;
CAIRN_TYPE(Tagged, CAIRN_WORD(word));

static void word_counts_references_and_not_bits(void **state) {
    (void)state;
    Tagged *tagged = cairn_new(Tagged);
    Node *node = cairn_new(Node);
    cairn_set_word(&tagged->word, (uintptr_t)node);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(node), 1);
    cairn_set_word(&tagged->word, 12345 | 1);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(node), 0);
    cairn_set_word(&tagged->word, (uintptr_t)node);
    cairn_collect(CAIRN_TRACE);
    assert_int_equal(cairn_count(node), 1);
    cairn_keep(tagged);
}

/* Here a reference within a word carries a tag, and one beside it carries none. */
typedef struct {
    NodeRef plain;
    cairn_word word;
    NodeRef more[];
} Mixed;
CAIRN_TYPE_WITH(Mixed, (.word_mask = 3, .word_tag = 1), plain, CAIRN_WORD(word), CAIRN_FLEX(more));
typedef struct {
    long number;
    cairn_word words[2];
    NodeRef plain;
} Cell;
CAIRN_TYPE_WITH(Cell, (.word_mask = 3, .word_tag = 1), CAIRN_WORD(words), plain);

static void assert_counts(Node *const *nodes, size_t count, unsigned expected) {
    cairn_collect(CAIRN_COUNT);
    for (size_t i = 0; i < count; i++) assert_int_equal(cairn_count(nodes[i]), expected);
}

static void word_with_a_tag_lies_beside_plain_references(void **state) {
    (void)state;
    enum { COUNT = 8 };
    Node *nodes[COUNT];
    for (int i = 0; i < COUNT; i++) nodes[i] = cairn_new(Node);
    Mixed *mixed = cairn_new_flex(Mixed, more, 2);
    Cell *cells = cairn_new_array(Cell, 2);
    /* Twice: counted with what is born, then from the log. */
    for (int round = 0; round < 2; round++) {
        cairn_set(&mixed->plain, nodes[0]);
        cairn_set_word(&mixed->word, (uintptr_t)nodes[1] | 1);
        cairn_set(&mixed->more[0], nodes[2]);
        cairn_set(&mixed->more[1], nodes[3]);
        for (int i = 0; i < 2; i++) {
            cairn_set_word(&cells[i].words[1], (uintptr_t)nodes[4 + 2 * i] | 1);
            cairn_set(&cells[i].plain, nodes[5 + 2 * i]);
        }
        assert_counts(nodes, COUNT, 1);
        /* Without its tag a word is bits. */
        cairn_set(&mixed->plain, NULL);
        cairn_set_word(&mixed->word, (uintptr_t)nodes[1]);
        cairn_set(&mixed->more[0], NULL);
        cairn_set(&mixed->more[1], NULL);
        for (int i = 0; i < 2; i++) {
            cairn_set_word(&cells[i].words[1], (uintptr_t)nodes[4 + 2 * i]);
            cairn_set(&cells[i].plain, NULL);
        }
        assert_counts(nodes, COUNT, 0);
    }
    cairn_keep(mixed);
    cairn_keep(cells);
}

static void untyped_memory_keeps_what_it_names(void **state) {
    (void)state;
    static void **memory;
    memory = cairn_alloc(64 * sizeof(void *));
    uintptr_t hidden[64];
    for (size_t i = 0; i < 64; i++) {
        memory[i] = cairn_make(Node, .value = (long)i);
        hidden[i] = HIDE(memory[i]);
    }
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    for (size_t i = 0; i < 64; i++) assert_int_equal(SHOW(Node, hidden[i])->value, i);
    memory = NULL;
}

static void heaps_are_apart_and_give_all_back(void **state) {
    (void)state;
    for (int round = 0; round < 20; round++) {
        cairn_heap *heap = NULL;
        cairn_options options = CAIRN_OPTIONS_INIT;
        options.region_bytes = (size_t)1 << 30;
        assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_OK);
        Node *first = NULL;
        for (int i = 0; i < 10000; i++) {
            Node *node = cairn_new_in(heap, Node);
            assert_non_null(node);
            cairn_set(&node->next, first);
            first = node;
        }
        assert_ptr_equal(cairn_heap_of(first), heap);
        cairn_collect(CAIRN_COUNT);
        assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    }
    assert_int_equal(cairn_heap_destroy(NULL), CAIRN_ERROR_ARGUMENT);
}

/* The last one lies between two regions. */
static void reference_outside_every_heap_is_stored_only(void **state) {
    (void)state;
    static Node fixed;
    size_t bytes = (size_t)64 << 20;
    Node *between = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(between != MAP_FAILED);
    cairn_heap *below;
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.region_bytes = (size_t)1 << 30;
    assert_int_equal(cairn_heap_create(&options, &below), CAIRN_OK);
    Node *node = cairn_make(Node, .next = {&fixed}, .other = {between});
    assert_non_null(cairn_new_in(below, Node));
    for (int i = 0; i < 2; i++) cairn_collect(CAIRN_TRACE);
    assert_ptr_equal(node->next.p, &fixed);
    assert_ptr_equal(node->other.p, between);
    assert_int_equal(cairn_count(between), 0);
    cairn_set(&node->other, NULL);
    cairn_collect(CAIRN_COUNT);
    cairn_keep(node);
    assert_int_equal(cairn_heap_destroy(below), CAIRN_OK);
    munmap(between, bytes);
}

static int by_value(const void *a, const void *b) {
    long x = ((const NodeRef *)a)->p->value, y = ((const NodeRef *)b)->p->value;
    return x < y ? -1 : x > y;
}

static void sort_orders_references(void **state) {
    (void)state;
    NodeRef *array = cairn_new_array(NodeRef, 100);
    for (long i = 0; i < 100; i++) cairn_set(&array[i], cairn_make(Node, .value = i * 37 % 100));
    cairn_sort(array, 100, by_value);
    cairn_collect(CAIRN_COUNT);
    for (long i = 0; i < 100; i++) {
        assert_int_equal(array[i].p->value, i);
        assert_int_equal(cairn_count(array[i].p), 1);
    }
}

static void sizes_that_overflow_give_null(void **state) {
    (void)state;
    assert_null(cairn_new_array(NodeRef, SIZE_MAX / 4));
    assert_null(cairn_new_array(Node, SIZE_MAX / 2));
    assert_null(cairn_alloc_bytes(SIZE_MAX - 1));
    assert_null(cairn_alloc_aligned(16, 3));
    NodeRef *none = cairn_new_array(NodeRef, 0);
    assert_non_null(none);
    assert_int_equal(cairn_length(none), 0);
}

static void alignment_is_kept(void **state) {
    (void)state;
    for (size_t align = 16; align <= (size_t)2 << 20; align *= 2) {
        char *memory = cairn_alloc_bytes_aligned(100, align);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % align, 0);
        memset(memory, 1, 100);
        assert_int_equal(cairn_length(memory), 100);
    }
}

static void strings_hold_their_text(void **state) {
    (void)state;
    char *text = cairn_format("%s-%d", "cairn", 42);
    assert_string_equal(text, "cairn-42");
    assert_int_equal(cairn_length(text), 9);
    assert_string_equal(cairn_strndup(text, 5), "cairn");
    assert_string_equal(cairn_strdup(text), text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_reachable_stays),
        cmocka_unit_test(list_dropped_is_freed_by_count),
        cmocka_unit_test(cycles_dropped_wait_for_the_trace),
        cmocka_unit_test(counts_are_exact_after_an_epoch),
        cmocka_unit_test(stuck_count_is_lowered_by_the_trace),
        cmocka_unit_test(big_array_of_references_keeps_and_gives_up),
        cmocka_unit_test(copy_counts_what_moves),
        cmocka_unit_test(interior_pointer_keeps_its_object),
        cmocka_unit_test(word_counts_references_and_not_bits),
        cmocka_unit_test(word_with_a_tag_lies_beside_plain_references),
        cmocka_unit_test(untyped_memory_keeps_what_it_names),
        cmocka_unit_test(heaps_are_apart_and_give_all_back),
        cmocka_unit_test(reference_outside_every_heap_is_stored_only),
        cmocka_unit_test(sort_orders_references),
        cmocka_unit_test(sizes_that_overflow_give_null),
        cmocka_unit_test(alignment_is_kept),
        cmocka_unit_test(strings_hold_their_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
