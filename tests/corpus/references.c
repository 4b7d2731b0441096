/* SPDX-License-Identifier: MIT
 *
 * References: wrong values that are stored, stores that nobody is told of, and objects that die
 * because a reference to them was kept where Cairn does not look.
 *
 * A wrong value in a declared field is found by the next collection at the latest. What is stored
 * past cairn_set, CAIRN_VERIFY=1 finds; here it stands with what the other modes see of it.
 */
#include "dead.h"

#include <unistd.h>

typedef cairn_ref(void) AnyRef;
typedef cairn_ref(const char) TextRef;
typedef struct {
    AnyRef any;
    TextRef text;
    cairn_word word;
    NodeRef undeclared;
    Node *plain;
} Owner;
CAIRN_TYPE(Owner, any, text, CAIRN_WORD(word));

typedef struct {
    NodeRef reference;
    long value;
} Leaf;
CAIRN_LEAF(Leaf);

static void finish(void *object) {
    (void)object;
}
typedef struct {
    long value;
} Closing;
CAIRN_LEAF_WITH(Closing, (.finalize = finish));

static Node *kept, *kept_too;
static Owner *owner;
static NodeRef *row;

APART void set_up(void) {
    kept = cairn_make(Node, .value = 1);
    kept_too = cairn_make(Node, .value = 2);
    owner = cairn_new(Owner);
    row = cairn_new_array(NodeRef, 4);
    for (size_t i = 0; i < 4; i++) cairn_set(&row[i], cairn_make(Node, .value = 4 - (long)i));
}

/* ---- The middle of an object, or beside it ---- */

CASE(store_of_an_interior_pointer) {
    set_up();
    Node *middle = opaque(&kept_too->value);
    cairn_set(&kept->next, is_fixed ? kept_too : middle);
}

CASE(swap_of_an_interior_pointer) {
    set_up();
    Node *middle = opaque(&kept_too->value);
    (void)cairn_swap(&kept->next, is_fixed ? kept_too : middle);
}

CASE(exchange_of_an_interior_pointer) {
    set_up();
    Node *middle = opaque(&kept_too->value), *expected = NULL;
    (void)cairn_cas(&kept->next, &expected, is_fixed ? kept_too : middle);
}

CASE(make_with_an_interior_pointer) {
    set_up();
    Node *middle = opaque(&kept_too->value);
    kept = cairn_make(Node, .next = {is_fixed ? kept_too : middle});
}

CASE(store_of_a_second_element) {
    set_up();
    Block *blocks = cairn_new_array(Block, 3);
    cairn_set(&owner->any, &blocks[is_fixed ? 0 : 1]);
    cairn_collect(CAIRN_COUNT);
}

CASE(store_of_the_rest_of_a_string) {
    set_up();
    char *text = cairn_strdup("key=value");
    cairn_set(&owner->text, text + (is_fixed ? 0 : 4));
    cairn_collect(CAIRN_COUNT);
}

CASE(store_of_an_end) {
    set_up();
    Block *block = cairn_new(Block);
    cairn_set(&owner->any, opaque(block + (is_fixed ? 0 : 1)));
    cairn_collect(CAIRN_COUNT);
}

CASE(word_of_an_interior_pointer) {
    set_up();
    cairn_set_word(&owner->word, (uintptr_t)kept + (is_fixed ? 0 : 16));
    cairn_collect(CAIRN_COUNT);
}

/* ---- Tombstones ---- */

CASE(store_of_a_tombstone) {
    set_up();
    Node *node = cairn_new(Node);
    cairn_delete(node);
    cairn_set(&kept->next, is_fixed ? NULL : node);
}

CASE(make_with_a_tombstone) {
    set_up();
    Node *node = cairn_new(Node);
    cairn_delete(node);
    kept = cairn_make(Node, .next = {is_fixed ? NULL : node});
}

CASE(element_with_a_tombstone) {
    set_up();
    Node *node = cairn_new(Node);
    cairn_delete(node);
    cairn_set(&cairn_at(row, 1), is_fixed ? NULL : node);
}

/* ---- Members that the type does not declare ---- */

CASE(store_into_an_undeclared_member) {
    set_up();
    BAD(cairn_set(&owner->undeclared, kept));
    FIXED(cairn_set(&owner->any, kept));
}

CASE(store_into_a_leaf) {
    set_up();
    Leaf *leaf = cairn_new(Leaf);
    BAD(cairn_set(&leaf->reference, kept));
    FIXED(WRITE(leaf->value, kept->value));
}

APART void keep_in_an_undeclared_member(void) {
    cairn_set(&owner->undeclared, cairn_make(Node, .value = 3));
}

CASE(object_kept_by_an_undeclared_member) {
    set_up();
    BAD(keep_in_an_undeclared_member());
    FIXED(cairn_set(&owner->any, cairn_make(Node, .value = 3)));
    reclaim();
    READ(((Node *)(is_fixed ? owner->any.p : owner->undeclared.p))->value);
}

APART void keep_in_a_plain_pointer(void) {
    owner->plain = cairn_make(Node, .value = 3);
}

CASE(object_kept_by_a_plain_pointer) {
    set_up();
    keep_in_a_plain_pointer();
    FIXED(cairn_set(&owner->any, owner->plain));
    reclaim();
    READ(owner->plain->value);
}

/* ---- Where Cairn does not look ---- */

APART void fill(NodeRef *reference) {
    cairn_set(reference, cairn_make(Node, .value = 3));
}

CASE(object_kept_in_malloc_memory) {
    set_up();
    NodeRef *place = calloc(1, sizeof(NodeRef));
    if (!place) abort();
    if (is_fixed && cairn_root_add(place, sizeof(NodeRef)) != CAIRN_OK) abort();
    fill(place);
    reclaim();
    READ(cairn_get(*place)->value);
    FIXED(cairn_root_remove(place));
    free(place);
}

CASE(object_kept_by_a_hidden_pointer) {
    set_up();
    volatile uintptr_t hidden = hidden_node();
    FIXED(kept = SHOW(Node, hidden));
    reclaim();
    READ(SHOW(Node, hidden)->value);
}

APART void send(int file) {
    Node *node = cairn_make(Node, .value = 3);
    if (write(file, &node, sizeof(node)) != sizeof(node)) abort();
}

CASE(object_kept_in_a_pipe) {
    set_up();
    int ends[2];
    Node *node;
    if (pipe(ends) != 0) abort();
    BAD(send(ends[1]));
    FIXED(if (write(ends[1], &kept, sizeof(kept)) != sizeof(kept)) abort());
    reclaim();
    if (read(ends[0], &node, sizeof(node)) != sizeof(node)) abort();
    READ(node->value);
}

APART uintptr_t halves_of_node(void) {
    uintptr_t node = (uintptr_t)cairn_make(Node, .value = 3);
    return node << 32 | node >> 32;
}

CASE(object_kept_in_two_halves) {
    set_up();
    volatile uintptr_t halves = halves_of_node();
    FIXED(kept = (Node *)(halves << 32 | halves >> 32));
    reclaim();
    READ(((Node *)(halves << 32 | halves >> 32))->value);
}

/* ---- Plain writes over references: of what is there already, so that the counts stay right ----
 */

CASE(memset_of_references) {
    set_up();
    Node *node = cairn_new(Node);
    BAD(memset(node, 0, sizeof(*node)));
    FIXED(cairn_clear(node));
}

CASE(memcpy_of_an_object) {
    set_up();
    Node *from = cairn_make(Node, .value = 5), *to = cairn_new(Node);
    BAD(memcpy(to, from, sizeof(*to)));
    FIXED(cairn_copy(to, from, 1));
}

CASE(memmove_of_references) {
    set_up();
    NodeRef *empty = cairn_new_array(NodeRef, 4);
    BAD(memmove(empty + 1, empty, 3 * sizeof(*empty)));
    FIXED(cairn_copy(empty + 1, empty, 3));
}

CASE(memset_of_a_byte_of_a_reference) {
    set_up();
    Node *node = cairn_new(Node);
    memset(is_fixed ? (char *)&node->value : (char *)&node->other + 7, 0, 1);
}

static int compare_nodes(const void *left, const void *right) {
    const NodeRef *a = left, *b = right;
    return (a->p->value > b->p->value) - (a->p->value < b->p->value);
}

/* Every reference is still there, so no count is wrong. */
CASE(qsort_of_references) {
    set_up();
    BAD(qsort(row, 4, sizeof(*row), compare_nodes));
    FIXED(cairn_sort(row, 4, compare_nodes));
}

/* ---- Forgotten stores ---- */

#define PLAIN(reference) (*(void **)(uintptr_t) & (reference))

/* What is young is looked at as a whole, whoever stored there. */
CASE(plain_store_of_an_interior_pointer) {
    set_up();
    BAD(PLAIN(kept->next) = opaque(&kept_too->value));
    FIXED(cairn_set(&kept->next, kept_too));
}

CASE(plain_store_of_a_tombstone) {
    set_up();
    Node *node = cairn_new(Node);
    cairn_delete(node);
    BAD(PLAIN(kept->next) = node);
    FIXED(cairn_set(&kept->next, NULL));
}

APART void forget(bool is_fixed) {
    Node *node = cairn_make(Node, .value = 3);
    BAD(PLAIN(kept->next) = node);
    FIXED(cairn_set(&kept->next, node));
}

CASE(plain_store_of_the_only_reference) {
    set_up();
    reclaim();
    forget(is_fixed);
    clean_stack();
    cairn_collect(CAIRN_COUNT);
    clean_stack();
    cairn_collect(CAIRN_COUNT);
    READ(cairn_get(kept->next)->value);
    BAD(PLAIN(kept->next) = NULL);
}

/* ---- Wrong types ---- */

/* C has no way from the type of an expression to what was allocated: nobody sees it. */
CASE(object_read_as_another_type) {
    set_up();
    cairn_set(&owner->any, cairn_make(Block, .values = {1, 2, 3, 4}));
    BAD(READ(((Node *)cairn_get(owner->any))->value));
    FIXED(READ(((Block *)cairn_get(owner->any))->values[2]));
}

CASE(object_read_as_a_larger_type) {
    set_up();
    Block *block = cairn_new(Block);
    cairn_set(&owner->any, block);
    BAD(READ(((Node *)opaque(cairn_get(owner->any)))->text[23]));
    FIXED(READ(((Block *)cairn_get(owner->any))->values[2]));
    cairn_keep(block);
}

/* ---- Contracts of calls ---- */

CASE(length_of_an_interior_pointer) {
    set_up();
    READ(cairn_length(row + (is_fixed ? 0 : 1)));
}

CASE(clear_of_an_interior_pointer) {
    set_up();
    cairn_clear(is_fixed ? (void *)kept : (void *)&kept->value);
}

CASE(pin_of_a_local_variable) {
    set_up();
    Node node = {.value = 1};
    Node *pointer = opaque(is_fixed ? kept : &node);
    cairn_pin(pointer);
    cairn_unpin(pointer);
    READ(node.value);
}

CASE(unpin_once_too_often) {
    set_up();
    cairn_pin(kept);
    cairn_unpin(kept);
    BAD(cairn_unpin(kept));
}

CASE(weak_reference_to_the_middle) {
    static cairn_weak weak;
    set_up();
    if (!cairn_weak_set(&weak, is_fixed ? (void *)kept : (void *)&kept->value)) abort();
}

CASE(resize_of_what_is_no_array) {
    set_up();
    (void)opaque(is_fixed ? (void *)cairn_resize_array(row, 8)
                          : (void *)cairn_resize_array(kept, 8));
}

CASE(array_of_a_type_with_a_finalizer) {
    BAD((void)opaque(cairn_new_array(Closing, 3)));
    FIXED((void)opaque(cairn_new(Closing)));
}

CASE(cast_to_another_type) {
    set_up();
    cairn_set(&owner->any, is_fixed ? (void *)kept : (void *)cairn_new(Block));
    Node *node = cairn_cast(Node, cairn_get(owner->any));
    (void)opaque(node);
}

CASE(cast_of_an_array_of_another_type) {
    set_up();
    void *nodes = opaque(is_fixed ? (void *)cairn_new_array(Node, 3) : (void *)row);
    (void)opaque(cairn_cast(Node, nodes));
}

CASE(cast_of_the_middle_of_an_object) {
    set_up();
    void *middle = opaque(&kept->value), *start = opaque(kept);
    (void)opaque(cairn_cast(Node, is_fixed ? start : middle));
}

CASE(copy_of_no_text) {
    const char *text = opaque(is_fixed ? "" : NULL);
    (void)opaque(cairn_strdup(text));
}

CASE(removal_of_a_root_that_was_not_added) {
    static Node *place[2];
    if (cairn_root_add(&place[0], sizeof(place[0])) != CAIRN_OK) abort();
    cairn_root_remove(&place[is_fixed ? 0 : 1]);
}

const struct corpus_case corpus_references[] = {
    {"store_of_an_interior_pointer", store_of_an_interior_pointer, "RRRR", "not an object"},
    {"swap_of_an_interior_pointer", swap_of_an_interior_pointer, "RRRR", "not an object"},
    {"exchange_of_an_interior_pointer", exchange_of_an_interior_pointer, "RRRR", "not an object"},
    {"make_with_an_interior_pointer", make_with_an_interior_pointer, "RRRR", "not an object"},
    {"store_of_a_second_element", store_of_a_second_element, "RRRR", "not an object"},
    {"store_of_the_rest_of_a_string", store_of_the_rest_of_a_string, "RRRR", "not an object"},
    {"store_of_an_end", store_of_an_end, "RRRR", "not an object"},
    {"word_of_an_interior_pointer", word_of_an_interior_pointer, "RRRR", "not an object"},
    {"store_of_a_tombstone", store_of_a_tombstone, "RRRR", "not an object|use after delete"},
    {"make_with_a_tombstone", make_with_a_tombstone, "RRRR", "not an object"},
    {"element_with_a_tombstone", element_with_a_tombstone, "RRRR",
     "not an object|use after delete"},
    {"store_into_an_undeclared_member", store_into_an_undeclared_member, "-R--",
     "undeclared field"},
    {"store_into_a_leaf", store_into_a_leaf, "-R--", "undeclared field"},
    {"object_kept_by_an_undeclared_member", object_kept_by_an_undeclared_member, "-RRR",
     "undeclared field|use after death"},
    {"object_kept_by_a_plain_pointer", object_kept_by_a_plain_pointer, "--RR", "use after death"},
    {"object_kept_in_malloc_memory", object_kept_in_malloc_memory, "-RRR",
     "not an object|use after death"},
    {"object_kept_by_a_hidden_pointer", object_kept_by_a_hidden_pointer, "--RR", "use after death"},
    {"object_kept_in_a_pipe", object_kept_in_a_pipe, "--RR", "use after death"},
    {"object_kept_in_two_halves", object_kept_in_two_halves, "--RR", "use after death"},
    {"memset_of_references", memset_of_references, "-R-R", "plain copy"},
    {"memcpy_of_an_object", memcpy_of_an_object, "-R-R", "plain copy"},
    {"memmove_of_references", memmove_of_references, "-R-R", "plain copy"},
    {"memset_of_a_byte_of_a_reference", memset_of_a_byte_of_a_reference, "-R-R", "plain copy"},
    {"qsort_of_references", qsort_of_references, "-R--", "plain copy"},
    {"plain_store_of_an_interior_pointer", plain_store_of_an_interior_pointer, "RRRR",
     "not an object"},
    {"plain_store_of_a_tombstone", plain_store_of_a_tombstone, "RRRR", "not an object"},
    {"plain_store_of_the_only_reference", plain_store_of_the_only_reference, "-RRR",
     "not an object|use after death"},
    {"object_read_as_another_type", object_read_as_another_type, "----", ""},
    {"object_read_as_a_larger_type", object_read_as_a_larger_type, "--RR", "out of bounds"},
    {"length_of_an_interior_pointer", length_of_an_interior_pointer, "RRRR", "cairn_length: "},
    {"clear_of_an_interior_pointer", clear_of_an_interior_pointer, "RRRR", "cairn_clear: "},
    {"pin_of_a_local_variable", pin_of_a_local_variable, "RRRR", "cairn_pin: "},
    {"unpin_once_too_often", unpin_once_too_often, "RRRR", "cairn_unpin: "},
    {"weak_reference_to_the_middle", weak_reference_to_the_middle, "RRRR", "cairn_weak_set: "},
    {"resize_of_what_is_no_array", resize_of_what_is_no_array, "RRRR", "cairn_resize_array: "},
    {"array_of_a_type_with_a_finalizer", array_of_a_type_with_a_finalizer, "RRRR",
     "an array of Closing"},
    {"cast_to_another_type", cast_to_another_type, "-R--", "wrong type"},
    {"cast_of_an_array_of_another_type", cast_of_an_array_of_another_type, "-R--", "wrong type"},
    {"cast_of_the_middle_of_an_object", cast_of_the_middle_of_an_object, "-R--", "not an object"},
    {"copy_of_no_text", copy_of_no_text, "RRRR", "cairn_strdup: "},
    {"removal_of_a_root_that_was_not_added", removal_of_a_root_that_was_not_added, "RRRR",
     "cairn_root_remove: "},
    {NULL, NULL, NULL, NULL},
};
