/* SPDX-License-Identifier: MIT
 *
 * Use after delete: each way to come to an object that cairn_delete has ended; and use after death:
 * to one that was reclaimed, because the last pointer to it was where Cairn does not look.
 */
#include "dead.h"

typedef long Number;
CAIRN_LEAF(Number);

typedef struct {
    long length;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));

static Node *global;

/* ---- Reading and writing ---- */

CASE(read_of_the_variable) {
    Node *node = cairn_make(Node, .value = 1);
    BAD(cairn_delete(node));
    READ(node->value);
    FIXED(cairn_delete(node));
}

CASE(write_to_the_variable) {
    Node *node = cairn_new(Node);
    BAD(cairn_delete(node));
    WRITE(node->value, 2);
    FIXED(cairn_delete(node));
}

CASE(read_of_a_copy) {
    Node *node = cairn_make(Node, .value = 1), *copy = opaque(node);
    BAD(cairn_delete(node));
    READ(copy->value);
    FIXED(cairn_delete(node));
}

CASE(write_to_a_copy) {
    Node *node = cairn_new(Node), *copy = opaque(node);
    BAD(cairn_delete(node));
    WRITE(copy->value, 2);
    FIXED(cairn_delete(node));
}

CASE(read_of_a_copy_after_a_count) {
    Node *node = cairn_make(Node, .value = 1), *copy = opaque(node);
    BAD(cairn_delete(node));
    cairn_collect(CAIRN_COUNT);
    READ(copy->value);
    FIXED(cairn_delete(node));
}

/* The slot is nobody else's while the copy names it. */
CASE(read_of_a_copy_after_allocations) {
    Node *node = cairn_make(Node, .value = 1), *copy = opaque(node);
    BAD(cairn_delete(node));
    for (int i = 0; i < 1000; i++) (void)opaque(cairn_new(Node));
    cairn_collect(CAIRN_TRACE);
    for (int i = 0; i < 1000; i++) (void)opaque(cairn_new(Node));
    READ(copy->value);
    FIXED(cairn_delete(node));
}

CASE(read_of_a_copied_tombstone) {
    Node *node = cairn_make(Node, .value = 1), *copy;
    BAD(cairn_delete(node));
    copy = opaque(node);
    READ(copy->text[3]);
    FIXED(cairn_delete(node));
}

CASE(read_of_the_global) {
    global = cairn_make(Node, .value = 1);
    BAD(cairn_delete(global));
    READ(global->value);
    FIXED(cairn_delete(global));
}

CASE(read_of_a_copy_in_a_global) {
    Node *node = cairn_make(Node, .value = 1);
    global = opaque(node);
    BAD(cairn_delete(node));
    READ(global->value);
    global = NULL;
    FIXED(cairn_delete(node));
}

CASE(read_of_a_pointer_to_a_member) {
    Node *node = cairn_make(Node, .value = 1);
    long *value = opaque(&node->value);
    BAD(cairn_delete(node));
    READ(*value);
    FIXED(cairn_delete(node));
}

CASE(assignment_of_a_struct) {
    Block *block = cairn_new(Block), *copy = opaque(block);
    BAD(cairn_delete(block));
    Block taken = *copy;
    READ(taken.values[(size_t)corpus_sink % 4]);
    FIXED(cairn_delete(block));
}

/* The classic: the next pointer is read from what was just deleted. It reads NULL there. */
CASE(walk_that_deletes) {
    Node *list = NULL;
    for (int i = 0; i < 4; i++) list = cairn_make(Node, .next = {list}, .value = i);
    for (Node *at = list, *next; at; at = next) {
        Node *doomed = opaque(at);
        FIXED(next = at->next.p);
        cairn_delete(doomed);
        BAD(next = at->next.p);
    }
}

CASE(read_of_what_was_weakly_held) {
    static cairn_weak weak;
    Node *node = cairn_make(Node, .value = 1);
    if (!cairn_weak_set(&weak, node)) return;
    Node *found = cairn_weak_get(&weak);
    cairn_delete(node);
    FIXED(found = cairn_weak_get(&weak));
    if (found) READ(found->value);
}

/* ---- Through fields ---- */

CASE(read_through_a_field) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, node);
    BAD(cairn_delete(node));
    READ(cairn_get(owner->next)->value);
    FIXED(cairn_delete(node));
}

CASE(write_through_a_field) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, node);
    BAD(cairn_delete(node));
    WRITE(cairn_get(owner->next)->value, 3);
    FIXED(cairn_delete(node));
}

CASE(read_through_a_field_after_a_trace) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, node);
    BAD(cairn_delete(node));
    cairn_collect(CAIRN_TRACE);
    READ(cairn_get(owner->next)->value);
    FIXED(cairn_delete(node));
}

CASE(read_through_a_loaded_field) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, node);
    BAD(cairn_delete(node));
    READ(cairn_load(&owner->next)->value);
    FIXED(cairn_delete(node));
}

CASE(read_through_the_field_that_deleted) {
    Node *owner = cairn_new(Node);
    cairn_set(&owner->next, cairn_make(Node, .value = 1));
    BAD(cairn_delete_ref(&owner->next));
    READ(cairn_get(owner->next)->value);
    FIXED(cairn_delete_ref(&owner->next));
}

CASE(read_through_two_fields_after_a_trace) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, cairn_new(Node));
    cairn_set(&cairn_get(owner->next)->other, node);
    BAD(cairn_delete(node));
    cairn_collect(CAIRN_TRACE);
    READ(cairn_get(cairn_get(owner->next)->other)->value);
    FIXED(cairn_delete(node));
}

CASE(read_through_an_element_of_references) {
    NodeRef *row = cairn_new_array(NodeRef, 4);
    Node *node = cairn_new(Node);
    cairn_set(&row[2], node);
    BAD(cairn_delete(node));
    READ(cairn_get(cairn_at(row, 2))->value);
    FIXED(cairn_delete(node));
}

CASE(read_through_a_flexible_element_after_a_trace) {
    Family *family = cairn_new_flex(Family, kids, 3);
    Node *node = cairn_new(Node);
    cairn_set(&family->kids[2], node);
    BAD(cairn_delete(node));
    cairn_collect(CAIRN_TRACE);
    READ(cairn_get(family->kids[2])->value);
    FIXED(cairn_delete(node));
    cairn_keep(family);
}

/* ---- Stores ---- */

CASE(store_into_a_deleted_object) {
    Node *node = cairn_new(Node), *copy = opaque(node), *other = cairn_new(Node);
    BAD(cairn_delete(node));
    cairn_set(&copy->next, other);
    FIXED(cairn_delete(node));
}

CASE(store_of_a_deleted_object) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node), *copy = opaque(node);
    BAD(cairn_delete(node));
    cairn_set(&owner->next, copy);
    FIXED(cairn_delete(node));
}

CASE(swap_of_a_deleted_object) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node), *copy = opaque(node);
    BAD(cairn_delete(node));
    (void)cairn_swap(&owner->next, copy);
    FIXED(cairn_delete(node));
}

/* ---- Arrays, strings, plain memory ---- */

CASE(index_of_a_deleted_array) {
    Number *numbers = cairn_new_array(Number, 4), *copy = opaque(numbers);
    BAD(cairn_delete(numbers));
    READ(cairn_at(copy, 1));
    FIXED(cairn_delete(numbers));
}

CASE(element_of_a_deleted_array) {
    Number *numbers = cairn_new_array(Number, 4), *copy = opaque(numbers);
    BAD(cairn_delete(numbers));
    READ(copy[3]);
    FIXED(cairn_delete(numbers));
}

/* The longer array is another object; the old one is what was deleted. */
CASE(element_of_the_array_before_it_grew) {
    Number *numbers = cairn_new_array(Number, 4), *old = opaque(numbers);
    Number *grown = cairn_resize_array(numbers, 8);
    BAD(cairn_delete(numbers));
    WRITE(old[3], 5);
    FIXED(cairn_delete(numbers));
    READ(grown[7]);
}

CASE(memcpy_from_a_deleted_object) {
    Block *block = cairn_new(Block), *copy = opaque(block);
    long taken[4];
    BAD(cairn_delete(block));
    memcpy(taken, copy, sizeof(taken));
    READ(taken[(size_t)corpus_sink % 4]);
    FIXED(cairn_delete(block));
}

CASE(memset_of_a_deleted_object) {
    Block *block = cairn_new(Block), *copy = opaque(block);
    BAD(cairn_delete(block));
    memset(copy, 1, sizeof(*copy));
    FIXED(cairn_delete(block));
}

CASE(strcmp_of_a_deleted_string) {
    char *text = cairn_strdup("a text of some words"), *copy = opaque(text);
    BAD(cairn_delete(text));
    READ(strcmp(copy, "a text"));
    FIXED(cairn_delete(text));
}

/* libc's own code is compiled as it is: only what protects the pages sees it. */
CASE(snprintf_of_a_deleted_string) {
    char *text = cairn_strdup("a text of some words"), *copy = opaque(text), room[8];
    BAD(cairn_delete(text));
    READ(snprintf(room, sizeof(room), "%.3s", copy));
    FIXED(cairn_delete(text));
}

CASE(read_of_deleted_memory) {
    char *memory = cairn_alloc(100), *copy = opaque(memory);
    BAD(cairn_delete(memory));
    READ(copy[99]);
    FIXED(cairn_delete(memory));
}

CASE(read_of_a_deleted_aligned_object) {
    char *memory = cairn_alloc_bytes_aligned(512, 256), *copy = opaque(memory);
    BAD(cairn_delete(memory));
    READ(copy[256]);
    FIXED(cairn_delete(memory));
}

CASE(read_of_a_deleted_large_object) {
    char *memory = cairn_alloc_bytes(300000), *copy = opaque(memory);
    BAD(cairn_delete(memory));
    READ(copy[200000]);
    FIXED(cairn_delete(memory));
}

CASE(write_to_a_deleted_huge_object) {
    char *memory = cairn_alloc_bytes(5000000), *copy = opaque(memory);
    BAD(cairn_delete(memory));
    WRITE(copy[4900000], 1);
    FIXED(cairn_delete(memory));
}

/* ---- Use after death ---- */

CASE(read_of_a_reclaimed_object) {
    global = cairn_new(Node); /* the block has something alive in it */
    volatile uintptr_t hidden = hidden_node();
    FIXED(global = SHOW(Node, hidden));
    reclaim();
    READ(SHOW(Node, hidden)->value);
}

CASE(write_to_a_reclaimed_object) {
    static Block *neighbour;
    neighbour = cairn_new(Block);
    volatile uintptr_t hidden = hidden_block();
    FIXED(neighbour = SHOW(Block, hidden));
    reclaim();
    WRITE(SHOW(Block, hidden)->values[1], 0);
    READ(neighbour->values[0]);
}

CASE(memcpy_from_a_reclaimed_object) {
    static Block *neighbour;
    long taken[4];
    neighbour = cairn_new(Block);
    volatile uintptr_t hidden = hidden_block();
    FIXED(neighbour = SHOW(Block, hidden));
    reclaim();
    memcpy(taken, SHOW(Block, hidden), sizeof(taken));
    READ(taken[(size_t)corpus_sink % 4] + neighbour->values[0]);
}

CASE(index_of_a_reclaimed_array) {
    static Block *neighbour;
    neighbour = cairn_new(Block);
    volatile uintptr_t hidden = hidden_block();
    FIXED(neighbour = SHOW(Block, hidden));
    reclaim();
    READ(cairn_at(SHOW(Block, hidden)->values, 2) + neighbour->values[0]);
}

const struct corpus_case corpus_use_after_delete[] = {
    {"read_of_the_variable", read_of_the_variable, "RRRR", "use after delete"},
    {"write_to_the_variable", write_to_the_variable, "RRRR", "use after delete"},
    {"read_of_a_copy", read_of_a_copy, "--RR", "use after delete"},
    {"write_to_a_copy", write_to_a_copy, "--RR", "use after delete"},
    {"read_of_a_copy_after_a_count", read_of_a_copy_after_a_count, "--RR", "use after delete"},
    {"read_of_a_copy_after_allocations", read_of_a_copy_after_allocations, "--RR",
     "use after delete"},
    {"read_of_a_copied_tombstone", read_of_a_copied_tombstone, "RRRR", "use after delete"},
    {"read_of_the_global", read_of_the_global, "RRRR", "use after delete"},
    {"read_of_a_copy_in_a_global", read_of_a_copy_in_a_global, "--RR", "use after delete"},
    {"read_of_a_pointer_to_a_member", read_of_a_pointer_to_a_member, "--RR", "use after delete"},
    {"assignment_of_a_struct", assignment_of_a_struct, COPY_BY_COMPILER, "use after delete"},
    {"walk_that_deletes", walk_that_deletes, "--RR", "use after delete"},
    {"read_of_what_was_weakly_held", read_of_what_was_weakly_held, "--RR", "use after delete"},
    {"read_through_a_field", read_through_a_field, "-RRR", "use after delete"},
    {"write_through_a_field", write_through_a_field, "-RRR", "use after delete"},
    {"read_through_a_field_after_a_trace", read_through_a_field_after_a_trace, "RRRR",
     "use after delete"},
    {"read_through_a_loaded_field", read_through_a_loaded_field, "-RRR", "use after delete"},
    {"read_through_the_field_that_deleted", read_through_the_field_that_deleted, "RRRR",
     "use after delete"},
    {"read_through_two_fields_after_a_trace", read_through_two_fields_after_a_trace, "RRRR",
     "use after delete"},
    {"read_through_an_element_of_references", read_through_an_element_of_references, "-RRR",
     "use after delete"},
    {"read_through_a_flexible_element_after_a_trace", read_through_a_flexible_element_after_a_trace,
     "RRRR", "use after delete"},
    {"store_into_a_deleted_object", store_into_a_deleted_object, "-RRR", "use after delete"},
    {"store_of_a_deleted_object", store_of_a_deleted_object, "-R--", "use after delete"},
    {"swap_of_a_deleted_object", swap_of_a_deleted_object, "-R--", "use after delete"},
    {"index_of_a_deleted_array", index_of_a_deleted_array, "-RRR", "use after delete"},
    {"element_of_a_deleted_array", element_of_a_deleted_array, "--RR", "use after delete"},
    {"element_of_the_array_before_it_grew", element_of_the_array_before_it_grew, "--RR",
     "use after delete"},
    {"memcpy_from_a_deleted_object", memcpy_from_a_deleted_object, "-RRR", "use after delete"},
    {"memset_of_a_deleted_object", memset_of_a_deleted_object, "-RRR", "use after delete"},
    {"strcmp_of_a_deleted_string", strcmp_of_a_deleted_string, "--RR", "use after delete"},
    {"snprintf_of_a_deleted_string", snprintf_of_a_deleted_string, "--R-", "use after delete"},
    {"read_of_deleted_memory", read_of_deleted_memory, "--RR", "use after delete"},
    {"read_of_a_deleted_aligned_object", read_of_a_deleted_aligned_object, "--RR",
     "use after delete"},
    {"read_of_a_deleted_large_object", read_of_a_deleted_large_object, "--RR", "use after delete"},
    {"write_to_a_deleted_huge_object", write_to_a_deleted_huge_object, "--RR", "use after delete"},
    {"read_of_a_reclaimed_object", read_of_a_reclaimed_object, "--RR", "use after death"},
    {"write_to_a_reclaimed_object", write_to_a_reclaimed_object, "--RR", "use after death"},
    {"memcpy_from_a_reclaimed_object", memcpy_from_a_reclaimed_object, "-RRR",
     "not an object|use after death"},
    {"index_of_a_reclaimed_array", index_of_a_reclaimed_array, "-RRR",
     "not an object|use after death"},
    {NULL, NULL, NULL, NULL},
};
