/* SPDX-License-Identifier: MIT
 *
 * Heaps of one's own: references from one heap into another, and objects whose heap has ended.
 *
 * A collection finds a reference across heaps when it gives the object its first count, which a
 * pointer on a stack may have done before: so strangers are made and stored apart from the case.
 */
#include "dead.h"

typedef struct {
    long length;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));

static Node *kept;
static cairn_heap *place, *other_place;

APART cairn_heap *make_heap(void) {
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.name = "place";
    options.region_bytes = (size_t)64 << 20;
    cairn_heap *heap = NULL;
    if (cairn_heap_create(&options, &heap) != CAIRN_OK) abort();
    return heap;
}

APART void end_heap(cairn_heap *heap) {
    if (cairn_heap_destroy(heap) != CAIRN_OK) abort();
}

static void set_up(void) {
    place = make_heap();
    other_place = make_heap();
    kept = cairn_new(Node);
}

static void count(void) {
    clean_stack();
    cairn_collect(CAIRN_COUNT);
}

/* ---- References across heaps ---- */

APART void store_new(NodeRef *reference, cairn_heap *heap) {
    cairn_set(reference, cairn_new_in(heap, Node));
}

CASE(reference_into_another_heap) {
    set_up();
    store_new(&kept->next, is_fixed ? NULL : place);
    count();
}

CASE(reference_out_of_another_heap) {
    set_up();
    Node *owner = cairn_new_in(place, Node);
    store_new(&owner->next, is_fixed ? place : NULL);
    count();
    cairn_keep(owner);
}

CASE(reference_between_two_heaps) {
    set_up();
    Node *owner = cairn_new_in(place, Node);
    store_new(&owner->next, is_fixed ? place : other_place);
    count();
    cairn_keep(owner);
}

APART void swap_new(NodeRef *reference, cairn_heap *heap) {
    (void)cairn_swap(reference, cairn_new_in(heap, Node));
}

CASE(swap_across_heaps) {
    set_up();
    swap_new(&kept->next, is_fixed ? NULL : place);
    count();
}

APART void exchange_new(NodeRef *reference, cairn_heap *heap) {
    Node *expected = NULL;
    (void)cairn_cas(reference, &expected, cairn_new_in(heap, Node));
}

CASE(exchange_across_heaps) {
    set_up();
    exchange_new(&kept->next, is_fixed ? NULL : place);
    count();
}

APART void make_with_new(cairn_heap *heap) {
    kept = cairn_make(Node, .next = {cairn_new_in(heap, Node)});
}

CASE(make_across_heaps) {
    set_up();
    make_with_new(is_fixed ? NULL : place);
    count();
}

CASE(element_across_heaps) {
    set_up();
    NodeRef *row = cairn_new_array_in(place, NodeRef, 4);
    store_new(&row[2], is_fixed ? place : other_place);
    count();
    cairn_keep(row);
}

CASE(flexible_element_across_heaps) {
    set_up();
    Family *family = cairn_new_flex_in(place, Family, kids, 4);
    store_new(&family->kids[2], is_fixed ? place : NULL);
    count();
    cairn_keep(family);
}

/* ---- After the heap ---- */

CASE(delete_after_the_heap) {
    set_up();
    Node *node = cairn_new_in(place, Node);
    end_heap(place);
    FIXED(node = NULL);
    cairn_delete(node);
}

CASE(delete_ref_after_the_heap) {
    static NodeRef reference;
    set_up();
    cairn_set(&reference, cairn_new_in(place, Node));
    end_heap(place);
    FIXED(cairn_set(&reference, NULL));
    cairn_delete_ref(&reference);
}

CASE(length_after_the_heap) {
    set_up();
    NodeRef *row = cairn_new_array_in(place, NodeRef, 4);
    end_heap(place);
    FIXED(row = NULL);
    READ(cairn_length(row));
}

CASE(clear_after_the_heap) {
    set_up();
    Node *node = cairn_new_in(place, Node);
    end_heap(place);
    FIXED(node = NULL);
    cairn_clear(node);
}

CASE(unpin_after_the_heap) {
    set_up();
    Node *node = cairn_new_in(place, Node);
    cairn_pin(node);
    FIXED(cairn_unpin(node));
    end_heap(place);
    BAD(cairn_unpin(node));
}

CASE(weak_reference_after_the_heap) {
    static cairn_weak weak;
    set_up();
    Node *node = cairn_new_in(place, Node);
    end_heap(place);
    FIXED(node = NULL);
    if (!cairn_weak_set(&weak, node)) abort();
}

CASE(cleanup_after_the_heap) {
    set_up();
    Node *node = cairn_new_in(place, Node);
    end_heap(place);
    FIXED(node = kept);
    if (cairn_cleanup_add(node, free, NULL) != CAIRN_OK) abort();
}

CASE(resize_after_the_heap) {
    set_up();
    NodeRef *row = cairn_new_array_in(place, NodeRef, 4);
    end_heap(place);
    FIXED(row = cairn_new_array(NodeRef, 4));
    (void)opaque(cairn_resize_array(row, 8));
}

/* It lies in no heap any more, as a static object would. */
CASE(store_after_the_heap) {
    set_up();
    Node *node = cairn_new_in(place, Node);
    end_heap(place);
    FIXED(node = NULL);
    cairn_set(&kept->next, node);
    cairn_collect(CAIRN_TRACE);
}

/* The addresses stay reserved for a while: nothing else can lie there. */
CASE(read_after_the_heap) {
    set_up();
    Node *node = cairn_make_in(place, Node, .value = 1);
    FIXED(READ(node->value));
    end_heap(place);
    BAD(READ(node->value));
}

CASE(write_after_the_heap) {
    set_up();
    Node *node = cairn_new_in(place, Node);
    FIXED(WRITE(node->value, 1));
    end_heap(place);
    BAD(WRITE(node->value, 1));
}

CASE(get_after_the_heap) {
    set_up();
    NodeRef ref = {cairn_make_in(place, Node, .value = 1)};
    FIXED(READ(cairn_get(ref)->value));
    end_heap(place);
    BAD(READ(cairn_get(ref)->value));
}

CASE(store_into_after_the_heap) {
    set_up();
    Node *node = cairn_new_in(place, Node);
    FIXED(cairn_set(&node->next, NULL));
    end_heap(place);
    BAD(cairn_set(&node->next, NULL));
}

CASE(copy_after_the_heap) {
    set_up();
    char *text = cairn_strdup_in(place, "text"), copy[8];
    FIXED(memcpy(copy, opaque(text), 5); READ(copy[0]));
    end_heap(place);
    BAD(memcpy(copy, opaque(text), 5); READ(copy[0]));
}

CASE(allocate_after_the_heap) {
    set_up();
    FIXED(READ(cairn_new_in(place, Node)->value));
    end_heap(place);
    BAD(READ(cairn_new_in(place, Node)->value));
}

CASE(end_a_heap_twice) {
    set_up();
    end_heap(place);
    BAD(end_heap(place));
}

/* ---- Within one ---- */

CASE(read_of_the_variable_in_a_heap) {
    set_up();
    Node *node = cairn_make_in(place, Node, .value = 1);
    BAD(cairn_delete(node));
    READ(node->value);
    FIXED(cairn_delete(node));
}

CASE(read_of_a_copy_in_a_heap) {
    set_up();
    Node *node = cairn_make_in(place, Node, .value = 1), *copy = opaque(node);
    BAD(cairn_delete(node));
    READ(copy->value);
    FIXED(cairn_delete(node));
}

/* The record of the deletion outlives the heap. */
CASE(read_of_the_variable_after_the_heap) {
    set_up();
    Node *node = cairn_make_in(place, Node, .value = 1);
    cairn_delete(node);
    FIXED(node = kept);
    end_heap(place);
    READ(node->value);
}

CASE(write_past_a_block_in_a_heap) {
    set_up();
    Block *block = cairn_new_in(place, Block), *behind = cairn_new_in(place, Block);
    long *words = opaque(block->values);
    WRITE(words[is_fixed ? 3 : 4], 1);
    cairn_keep(behind);
}

const struct corpus_case corpus_heaps[] = {
    {"reference_into_another_heap", reference_into_another_heap, "RRRR",
     "a reference crosses heaps"},
    {"reference_out_of_another_heap", reference_out_of_another_heap, "RRRR",
     "a reference crosses heaps"},
    {"reference_between_two_heaps", reference_between_two_heaps, "RRRR",
     "a reference crosses heaps"},
    {"swap_across_heaps", swap_across_heaps, "RRRR", "a reference crosses heaps"},
    {"exchange_across_heaps", exchange_across_heaps, "RRRR", "a reference crosses heaps"},
    {"make_across_heaps", make_across_heaps, "RRRR", "a reference crosses heaps"},
    {"element_across_heaps", element_across_heaps, "RRRR", "a reference crosses heaps"},
    {"flexible_element_across_heaps", flexible_element_across_heaps, "RRRR",
     "a reference crosses heaps"},
    {"delete_after_the_heap", delete_after_the_heap, "RRRR", "bad delete"},
    {"delete_ref_after_the_heap", delete_ref_after_the_heap, "RRRR", "bad delete"},
    {"length_after_the_heap", length_after_the_heap, "RRRR", "cairn_length: "},
    {"clear_after_the_heap", clear_after_the_heap, "RRRR", "cairn_clear: "},
    {"unpin_after_the_heap", unpin_after_the_heap, "RRRR", "cairn_unpin: "},
    {"weak_reference_after_the_heap", weak_reference_after_the_heap, "RRRR", "cairn_weak_set: "},
    {"cleanup_after_the_heap", cleanup_after_the_heap, "RRRR", "cairn_cleanup_add: "},
    {"resize_after_the_heap", resize_after_the_heap, "RRRR", "cairn_resize_array: "},
    {"store_after_the_heap", store_after_the_heap, "-R--", "use after death"},
    {"read_after_the_heap", read_after_the_heap, "RRRR", "use after death"},
    {"write_after_the_heap", write_after_the_heap, "RRRR", "use after death"},
    {"get_after_the_heap", get_after_the_heap, "RRRR", "use after death"},
    {"store_into_after_the_heap", store_into_after_the_heap, "RRRR", "use after death"},
    {"copy_after_the_heap", copy_after_the_heap, "RRRR", "use after death"},
    {"allocate_after_the_heap", allocate_after_the_heap, "RRRR", "an allocation names a heap"},
    {"end_a_heap_twice", end_a_heap_twice, "RRRR", "cairn_heap_destroy: no heap"},
    {"read_of_the_variable_in_a_heap", read_of_the_variable_in_a_heap, "RRRR", "use after delete"},
    {"read_of_a_copy_in_a_heap", read_of_a_copy_in_a_heap, "--RR", "use after delete"},
    {"read_of_the_variable_after_the_heap", read_of_the_variable_after_the_heap, "RRRR",
     "use after delete"},
    {"write_past_a_block_in_a_heap", write_past_a_block_in_a_heap, "--RR", "out of bounds"},
    {NULL, NULL, NULL, NULL},
};
