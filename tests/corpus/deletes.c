/* SPDX-License-Identifier: MIT
 *
 * Deletes of what was deleted before, and of what is no object: the middle of one, a stack, a
 * static, memory of malloc. cairn_delete itself looks, so every mode reports. Deleting NULL is
 * fine, and that is what most twins do.
 */
#include "dead.h"

#include <semaphore.h>

typedef struct {
    long length;
    long items[];
} Flexible;
CAIRN_LEAF(Flexible);

/* ---- Deleted before ---- */

CASE(delete_by_two_variables) {
    Node *node = cairn_new(Node), *copy = opaque(node);
    cairn_delete(node);
    FIXED(copy = NULL);
    cairn_delete(copy);
}

CASE(delete_of_one_variable_twice) {
    Node *node = cairn_new(Node);
    cairn_delete(node);
    FIXED(node = NULL);
    cairn_delete(node);
}

CASE(delete_by_two_variables_after_a_trace) {
    Node *node = cairn_new(Node), *copy = opaque(node);
    cairn_delete(node);
    FIXED(copy = NULL);
    cairn_collect(CAIRN_TRACE);
    cairn_delete(copy);
}

CASE(delete_ref_of_one_field_twice) {
    Node *owner = cairn_new(Node);
    cairn_set(&owner->next, cairn_new(Node));
    cairn_delete_ref(&owner->next);
    FIXED(cairn_set(&owner->next, NULL));
    cairn_delete_ref(&owner->next);
}

CASE(delete_ref_of_two_fields) {
    Node *owner = cairn_new(Node);
    cairn_set(&owner->next, cairn_new(Node));
    cairn_set(&owner->other, cairn_get(owner->next));
    cairn_delete_ref(&owner->next);
    FIXED(cairn_set(&owner->other, NULL));
    cairn_delete_ref(&owner->other);
}

CASE(delete_by_variable_then_by_field) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, node);
    cairn_delete(node);
    FIXED(cairn_set(&owner->next, NULL));
    cairn_delete_ref(&owner->next);
}

CASE(delete_by_variable_then_by_field_after_a_trace) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, node);
    cairn_delete(node);
    FIXED(cairn_set(&owner->next, NULL));
    cairn_collect(CAIRN_TRACE);
    cairn_delete_ref(&owner->next);
}

CASE(delete_by_field_then_by_variable) {
    Node *owner = cairn_new(Node), *node = cairn_new(Node);
    cairn_set(&owner->next, node);
    cairn_delete_ref(&owner->next);
    FIXED(node = NULL);
    cairn_delete(node);
}

CASE(delete_of_an_array_twice) {
    NodeRef *row = cairn_new_array(NodeRef, 6), *copy = opaque(row);
    cairn_delete(row);
    FIXED(copy = NULL);
    cairn_delete(copy);
}

CASE(delete_of_a_string_twice) {
    char *text = cairn_strdup("a text"), *copy = opaque(text);
    cairn_delete(text);
    FIXED(copy = NULL);
    cairn_delete(copy);
}

CASE(delete_of_a_large_object_twice) {
    char *memory = cairn_alloc_bytes(300000), *copy = opaque(memory);
    cairn_delete(memory);
    FIXED(copy = NULL);
    cairn_delete(copy);
}

CASE(delete_of_a_huge_object_twice) {
    char *memory = cairn_alloc(5000000), *copy = opaque(memory);
    cairn_delete(memory);
    FIXED(copy = NULL);
    cairn_delete(copy);
}

/* ---- In finalizers and cleanups ---- */

typedef struct {
    NodeRef child;
    bool *is_fixed;
} Closing;
static void delete_itself(void *object) {
    Closing *closing = object;
    if (!*closing->is_fixed) cairn_delete(closing);
}
CAIRN_TYPE_WITH(Closing, (.finalize = delete_itself), child);

CASE(delete_in_its_own_finalizer) {
    Closing *closing = cairn_make(Closing, .is_fixed = &is_fixed);
    cairn_delete(closing);
}

typedef struct {
    NodeRef child;
} Parent;
static void delete_child(void *object) {
    Parent *parent = object;
    cairn_delete_ref(&parent->child);
}
CAIRN_TYPE_WITH(Parent, (.finalize = delete_child), child);

CASE(delete_of_a_child_that_the_finalizer_deleted) {
    Parent *parent = cairn_new(Parent);
    Node *child = cairn_new(Node);
    cairn_set(&parent->child, child);
    cairn_delete(parent);
    FIXED(child = NULL);
    cairn_delete(child);
}

CASE(finalizer_of_a_parent_whose_child_was_deleted) {
    Parent *parent = cairn_new(Parent);
    Node *child = cairn_new(Node);
    cairn_set(&parent->child, child);
    FIXED(cairn_set(&parent->child, NULL));
    cairn_delete(child);
    cairn_delete(parent);
}

static Node *shared;
static sem_t cleaned;
static void clean_up(void *is_fixed) {
    if (!*(bool *)is_fixed) cairn_delete(shared);
    sem_post(&cleaned);
}

/* The cleanup runs on whichever thread comes first; the case waits for it. */
CASE(delete_in_a_cleanup) {
    Node *first = cairn_new(Node), *node = cairn_new(Node);
    sem_init(&cleaned, 0, 0);
    shared = opaque(node);
    if (cairn_cleanup_add(first, clean_up, &is_fixed) != CAIRN_OK) abort();
    cairn_delete(node);
    cairn_delete(first);
    cairn_finalize_pending();
    while (sem_wait(&cleaned) != 0) {}
    shared = NULL;
}

/* ---- The middle of an object ---- */

CASE(delete_of_a_member) {
    Node *node = cairn_new(Node);
    long *value = opaque(&node->value);
    FIXED(value = NULL);
    cairn_delete(value);
    cairn_keep(node);
}

CASE(delete_of_a_second_element) {
    Block *blocks = cairn_new_array(Block, 3), *second = opaque(&blocks[1]);
    FIXED(second = NULL);
    cairn_delete(second);
    cairn_keep(blocks);
}

CASE(delete_of_a_flexible_element) {
    Flexible *flexible = cairn_new_flex(Flexible, items, 5);
    long *item = opaque(&flexible->items[3]);
    FIXED(item = NULL);
    cairn_delete(item);
    cairn_keep(flexible);
}

CASE(delete_of_the_rest_of_a_string) {
    char *text = cairn_strdup("key=value"), *value = opaque(text + 4);
    FIXED(value = NULL);
    cairn_delete(value);
    cairn_keep(text);
}

CASE(delete_of_the_middle_of_a_large_object) {
    char *memory = cairn_alloc_bytes(300000), *middle = opaque(memory + 200000);
    FIXED(middle = NULL);
    cairn_delete(middle);
    cairn_keep(memory);
}

/* ---- Beside an object ---- */

/* Nothing lives behind it: the slot that comes next was not handed out yet. */
CASE(delete_past_the_end) {
    Block *block = cairn_new(Block), *end = opaque(block + 1);
    FIXED(end = NULL);
    cairn_delete(end);
    cairn_keep(block);
}

CASE(delete_before_the_start) {
    Block *block = cairn_new(Block);
    long *before = (long *)opaque(block) - 1;
    FIXED(before = NULL);
    cairn_delete(before);
    cairn_keep(block);
}

CASE(delete_of_what_was_reclaimed) {
    static Node *neighbour;
    neighbour = cairn_new(Node);
    volatile uintptr_t hidden = hidden_node();
    reclaim();
    Node *stale = is_fixed ? NULL : SHOW(Node, hidden);
    cairn_delete(stale);
    cairn_keep(neighbour);
}

/* ---- No object at all ---- */

CASE(delete_of_a_local_variable) {
    Node node = {.value = 1}, *pointer = opaque(&node);
    FIXED(pointer = NULL);
    cairn_delete(pointer);
    READ(node.value);
}

CASE(delete_of_a_static_variable) {
    static Node node;
    Node *pointer = opaque(&node);
    FIXED(pointer = NULL);
    cairn_delete(pointer);
}

CASE(delete_of_a_thread_local_variable) {
    static _Thread_local Node node;
    Node *pointer = opaque(&node);
    FIXED(pointer = NULL);
    cairn_delete(pointer);
}

CASE(delete_of_malloc_memory) {
    char *memory = malloc(64), *pointer = opaque(memory);
    FIXED(pointer = NULL);
    cairn_delete(pointer);
    free(memory);
}

CASE(delete_of_a_string_literal) {
    const char *text = opaque((void *)(uintptr_t) "a literal");
    FIXED(text = NULL);
    cairn_delete(text);
}

CASE(delete_ref_of_a_static_object) {
    static Node node;
    Node *owner = cairn_new(Node);
    cairn_set(&owner->next, &node);
    FIXED(cairn_set(&owner->next, NULL));
    cairn_delete_ref(&owner->next);
}

CASE(delete_of_a_number) {
    Node *pointer = opaque((void *)(uintptr_t)(is_fixed ? 0 : 4711));
    cairn_delete(pointer);
}

const struct corpus_case corpus_deletes[] = {
    {"delete_by_two_variables", delete_by_two_variables, "RRRR", "double delete"},
    {"delete_of_one_variable_twice", delete_of_one_variable_twice, "RRRR", "double delete"},
    {"delete_by_two_variables_after_a_trace", delete_by_two_variables_after_a_trace, "RRRR",
     "double delete"},
    {"delete_ref_of_one_field_twice", delete_ref_of_one_field_twice, "RRRR", "double delete"},
    {"delete_ref_of_two_fields", delete_ref_of_two_fields, "RRRR", "double delete"},
    {"delete_by_variable_then_by_field", delete_by_variable_then_by_field, "RRRR", "double delete"},
    {"delete_by_variable_then_by_field_after_a_trace",
     delete_by_variable_then_by_field_after_a_trace, "RRRR", "double delete"},
    {"delete_by_field_then_by_variable", delete_by_field_then_by_variable, "RRRR", "double delete"},
    {"delete_of_an_array_twice", delete_of_an_array_twice, "RRRR", "double delete"},
    {"delete_of_a_string_twice", delete_of_a_string_twice, "RRRR", "double delete"},
    {"delete_of_a_large_object_twice", delete_of_a_large_object_twice, "RRRR", "double delete"},
    {"delete_of_a_huge_object_twice", delete_of_a_huge_object_twice, "RRRR", "double delete"},
    {"delete_in_its_own_finalizer", delete_in_its_own_finalizer, "RRRR", "double delete"},
    {"delete_of_a_child_that_the_finalizer_deleted", delete_of_a_child_that_the_finalizer_deleted,
     "RRRR", "double delete"},
    {"finalizer_of_a_parent_whose_child_was_deleted", finalizer_of_a_parent_whose_child_was_deleted,
     "RRRR", "double delete"},
    {"delete_in_a_cleanup", delete_in_a_cleanup, "RRRR", "double delete"},
    {"delete_of_a_member", delete_of_a_member, "RRRR", "bad delete"},
    {"delete_of_a_second_element", delete_of_a_second_element, "RRRR", "bad delete"},
    {"delete_of_a_flexible_element", delete_of_a_flexible_element, "RRRR", "bad delete"},
    {"delete_of_the_rest_of_a_string", delete_of_the_rest_of_a_string, "RRRR", "bad delete"},
    {"delete_of_the_middle_of_a_large_object", delete_of_the_middle_of_a_large_object, "RRRR",
     "bad delete"},
    {"delete_past_the_end", delete_past_the_end, "RRRR", "bad delete"},
    {"delete_before_the_start", delete_before_the_start, "RRRR", "bad delete"},
    {"delete_of_what_was_reclaimed", delete_of_what_was_reclaimed, "RRRR", "bad delete"},
    {"delete_of_a_local_variable", delete_of_a_local_variable, "RRRR", "bad delete"},
    {"delete_of_a_static_variable", delete_of_a_static_variable, "RRRR", "bad delete"},
    {"delete_of_a_thread_local_variable", delete_of_a_thread_local_variable, "RRRR", "bad delete"},
    {"delete_of_malloc_memory", delete_of_malloc_memory, "RRRR", "bad delete"},
    {"delete_of_a_string_literal", delete_of_a_string_literal, "RRRR", "bad delete"},
    {"delete_ref_of_a_static_object", delete_ref_of_a_static_object, "RRRR", "bad delete"},
    {"delete_of_a_number", delete_of_a_number, "RRRR", "bad delete"},
    {NULL, NULL, NULL, NULL},
};
