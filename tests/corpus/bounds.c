/* SPDX-License-Identifier: MIT
 *
 * Bounds: past the end and before the start of objects, arrays, strings and flexible members, by a
 * byte, a word and a page. What a broken program overwrites is room that nobody uses or a neighbour
 * that the case does not use, so that where nobody reports it ends well: behind an array or a
 * string there is room up to the last two bytes of its slot, which are Cairn's; a Block has none,
 * but other Blocks around it.
 *
 * Guarded objects end at the end of a page, rounded up to 16 bytes: sizes here are multiples of 16
 * but where the case is about the bytes that are lost to that.
 */
#include "dead.h"

enum { PAGE = 4096, BLOCKS = 256, MIDDLE = 100, LARGE = 20000, HUGE_BYTES = 5000000 };

typedef long Number;
CAIRN_LEAF(Number);

typedef struct {
    long length;
    long items[];
} Flexible;
CAIRN_LEAF(Flexible);

typedef struct {
    long length;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));

/* One of many that lie side by side: a page before it and behind it there are others. */
static Block *blocks[BLOCKS];
APART Block *middle_block(void) {
    for (int i = 0; i < BLOCKS; i++) blocks[i] = cairn_new(Block);
    return opaque(blocks[MIDDLE]);
}

/* ---- Past the end of an object ---- */

CASE(read_a_byte_past_an_object) {
    char *bytes = (char *)middle_block();
    READ(bytes[is_fixed ? sizeof(Block) - 1 : sizeof(Block)]);
}

CASE(write_a_byte_past_an_object) {
    char *bytes = (char *)middle_block();
    WRITE(bytes[is_fixed ? sizeof(Block) - 1 : sizeof(Block)], 1);
}

CASE(read_a_word_past_an_object) {
    long *words = middle_block()->values;
    READ(words[is_fixed ? 3 : 4]);
}

CASE(write_a_word_past_an_object) {
    long *words = middle_block()->values;
    WRITE(words[is_fixed ? 3 : 4], 1);
}

CASE(index_a_word_past_an_object) {
    long *words = middle_block()->values;
    WRITE(cairn_at(words, is_fixed ? 3 : 4), 1);
}

CASE(read_a_page_past_an_object) {
    char *bytes = (char *)middle_block();
    READ(bytes[sizeof(Block) - 1 + (is_fixed ? 0 : PAGE)]);
}

CASE(write_a_page_past_an_object) {
    char *bytes = (char *)middle_block();
    WRITE(bytes[sizeof(Block) - 1 + (is_fixed ? 0 : PAGE)], 1);
}

CASE(memcpy_from_past_an_object) {
    long taken[5];
    memcpy(taken, middle_block(), is_fixed ? 32 : 40);
    READ(taken[(size_t)corpus_sink % 4]);
}

CASE(memcpy_to_past_an_object) {
    long given[5] = {1, 2, 3, 4, 5};
    memcpy(middle_block(), opaque(given), is_fixed ? 32 : 40);
}

CASE(memmove_within_an_object) {
    long *words = middle_block()->values;
    memmove(words + 1, words, is_fixed ? 24 : 32);
}

CASE(memset_past_an_object) {
    memset(middle_block(), 1, is_fixed ? 32 : 33);
}

/* ---- Before the start of an object ---- */

CASE(read_a_byte_before_an_object) {
    char *bytes = (char *)middle_block();
    READ(bytes[is_fixed ? 0 : -1]);
}

CASE(write_a_word_before_an_object) {
    long *words = middle_block()->values;
    WRITE(words[is_fixed ? 0 : -1], 1);
}

CASE(index_a_word_before_an_object) {
    long *words = middle_block()->values;
    READ(cairn_at(words, is_fixed ? 0 : -1));
}

CASE(read_a_page_before_an_object) {
    char *bytes = (char *)middle_block();
    READ(bytes[is_fixed ? 0 : -PAGE]);
}

CASE(write_a_page_before_an_object) {
    char *bytes = (char *)middle_block();
    WRITE(bytes[is_fixed ? 0 : -PAGE], 1);
}

/* Copies of the neighbour alone would be copies of a living object: these reach into both. */
CASE(memcpy_from_before_an_object) {
    long taken[2], *words = middle_block()->values;
    memcpy(taken, is_fixed ? words : words - 1, sizeof(taken));
    READ(taken[(size_t)corpus_sink % 2]);
}

CASE(memset_before_an_object) {
    long *words = middle_block()->values;
    memset(is_fixed ? words : words - 1, 1, 16);
}

/* ---- Arrays ---- */

CASE(index_past_an_array) {
    Number *numbers = cairn_new_array(Number, 4);
    READ(cairn_at(numbers, is_fixed ? 3 : 4));
}

CASE(write_by_index_past_an_array) {
    Number *numbers = cairn_new_array(Number, 4);
    WRITE(cairn_at(numbers, is_fixed ? 3 : 4), 1);
}

CASE(loop_past_an_array) {
    Number *numbers = opaque(cairn_new_array(Number, 4));
    for (size_t i = 0; is_fixed ? i < 4 : i <= 4; i++) WRITE(numbers[i], (long)i);
}

CASE(index_before_an_array) {
    Number *before = cairn_new_array(Number, 4), *numbers = cairn_new_array(Number, 4);
    READ(cairn_at(numbers, is_fixed ? 0 : -1));
    cairn_keep(before);
}

/* Inside the sixteen bytes that a guarded object is rounded up to. */
CASE(read_past_an_array_of_five) {
    Number *numbers = opaque(cairn_new_array(Number, 5));
    READ(((char *)numbers)[is_fixed ? 39 : 40]);
}

CASE(element_past_an_array_of_references) {
    NodeRef *row = opaque(cairn_new_array(NodeRef, 4));
    READ((uintptr_t)row[is_fixed ? 3 : 4].p);
}

CASE(store_past_an_array_of_references) {
    NodeRef *row = opaque(cairn_new_array(NodeRef, 4));
    Node *node = cairn_new(Node);
    cairn_set(&row[is_fixed ? 3 : 4], node);
    cairn_keep(node);
    FIXED(cairn_set(&row[3], NULL));
}

/* The library copies, and nobody asks the library. */
CASE(copy_from_past_an_array) {
    Number *from = cairn_new_array(Number, 4), *to = cairn_new_array(Number, 8);
    cairn_copy(to, from, is_fixed ? 4 : 5);
}

CASE(copy_to_past_an_array) {
    Number *from = cairn_new_array(Number, 8), *to = cairn_new_array(Number, 4);
    cairn_copy(to, from, is_fixed ? 4 : 5);
}

CASE(memset_past_an_array) {
    Number *numbers = cairn_new_array(Number, 4);
    memset(numbers, 0, is_fixed ? 32 : 40);
}

CASE(length_of_the_wrong_array) {
    Number *few = opaque(cairn_new_array(Number, 4)), *more = cairn_new_array(Number, 5);
    size_t length = cairn_length(is_fixed ? few : more);
    for (size_t i = 0; i < length; i++) READ(few[i]);
}

CASE(read_a_page_past_a_large_array) {
    char *bytes = opaque(cairn_alloc_bytes(LARGE));
    READ(bytes[LARGE - 1 + (is_fixed ? 0 : PAGE)]);
}

CASE(write_a_byte_past_a_large_array) {
    char *bytes = opaque(cairn_alloc_bytes(LARGE));
    WRITE(bytes[is_fixed ? LARGE - 1 : LARGE], 1);
}

CASE(memset_a_page_past_a_large_array) {
    char *bytes = cairn_alloc_bytes(LARGE);
    memset(bytes, 1, LARGE + (is_fixed ? 0 : PAGE));
}

CASE(write_a_word_past_a_huge_array) {
    char *bytes = opaque(cairn_alloc_bytes(HUGE_BYTES));
    WRITE(*(long *)(void *)(bytes + HUGE_BYTES - (is_fixed ? 8 : 0)), 1);
}

/* ---- Flexible members ---- */

CASE(write_past_a_flexible_member) {
    Flexible *flexible = opaque(cairn_new_flex(Flexible, items, 3));
    WRITE(flexible->items[is_fixed ? 2 : 3], 1);
}

CASE(index_past_a_flexible_member) {
    Flexible *flexible = cairn_new_flex(Flexible, items, 3);
    READ(cairn_at(flexible->items, is_fixed ? 2 : 3));
}

CASE(store_past_a_flexible_member) {
    Family *family = opaque(cairn_new_flex(Family, kids, 3));
    Node *node = cairn_new(Node);
    cairn_set(&family->kids[is_fixed ? 2 : 3], node);
    cairn_keep(node);
    FIXED(cairn_set(&family->kids[2], NULL));
}

/* ---- Strings: fifteen letters and their end, in sixteen bytes ---- */

CASE(read_a_byte_past_a_string) {
    char *text = opaque(cairn_strdup("fifteen letters"));
    READ(text[is_fixed ? 15 : 16]);
}

CASE(index_past_a_string) {
    char *text = cairn_strdup("fifteen letters");
    WRITE(cairn_at(text, is_fixed ? 15 : 16), 0);
}

/* The same room as in read_past_an_array_of_five. */
CASE(write_a_byte_past_a_short_string) {
    char *text = opaque(cairn_strdup("four"));
    WRITE(text[is_fixed ? 4 : 5], 0);
}

CASE(strcpy_of_a_longer_text) {
    char *text = opaque(cairn_strdup("fifteen letters"));
    strcpy(text, opaque(is_fixed ? "fifteen letters" : "fourteen letters"));
}

CASE(strcat_behind_a_full_text) {
    char *text = opaque(cairn_strdup("fifteen letters"));
    strcat(text, opaque(is_fixed ? "" : "!"));
}

CASE(strlen_without_an_end) {
    char *text = opaque(cairn_strdup("fifteen letters"));
    BAD(WRITE(text[15], 'x'));
    READ(strlen(text));
}

/* Nobody asks libc but the page behind the string. */
CASE(snprintf_past_a_string) {
    char *text = opaque(cairn_strdup("fifteen letters"));
    READ(snprintf(text, is_fixed ? 16 : 20, "%s", (char *)opaque("eighteen letters .")));
}

/* The room for the end was forgotten. */
CASE(copy_of_a_text_without_room_for_its_end) {
    const char *from = opaque("sixteen letters.");
    size_t length = strlen(from);
    char *to = cairn_alloc_bytes(is_fixed ? length + 1 : length);
    memcpy(to, from, length + 1);
}

const struct corpus_case corpus_bounds[] = {
    {"read_a_byte_past_an_object", read_a_byte_past_an_object, "--RR", "out of bounds"},
    {"write_a_byte_past_an_object", write_a_byte_past_an_object, "--RR", "out of bounds"},
    {"read_a_word_past_an_object", read_a_word_past_an_object, "--RR", "out of bounds"},
    {"write_a_word_past_an_object", write_a_word_past_an_object, "--RR", "out of bounds"},
    {"index_a_word_past_an_object", index_a_word_past_an_object, "-RRR", "out of bounds"},
    {"read_a_page_past_an_object", read_a_page_past_an_object, "--RR", "out of bounds"},
    {"write_a_page_past_an_object", write_a_page_past_an_object, "--RR", "out of bounds"},
    {"memcpy_from_past_an_object", memcpy_from_past_an_object, "-RRR", "out of bounds"},
    {"memcpy_to_past_an_object", memcpy_to_past_an_object, "-RRR", "out of bounds"},
    {"memmove_within_an_object", memmove_within_an_object, "-RRR", "out of bounds"},
    {"memset_past_an_object", memset_past_an_object, "-RRR", "out of bounds"},
    {"read_a_byte_before_an_object", read_a_byte_before_an_object, "---R", "out of bounds"},
    {"write_a_word_before_an_object", write_a_word_before_an_object, "---R", "out of bounds"},
    {"index_a_word_before_an_object", index_a_word_before_an_object, "-R-R", "out of bounds"},
    {"read_a_page_before_an_object", read_a_page_before_an_object, "--RR", "out of bounds"},
    {"write_a_page_before_an_object", write_a_page_before_an_object, "--RR", "out of bounds"},
    {"memcpy_from_before_an_object", memcpy_from_before_an_object, "-R-R", "out of bounds"},
    {"memset_before_an_object", memset_before_an_object, "-R-R", "out of bounds"},
    {"index_past_an_array", index_past_an_array, "-RRR", "out of bounds"},
    {"write_by_index_past_an_array", write_by_index_past_an_array, "-RRR", "out of bounds"},
    {"loop_past_an_array", loop_past_an_array, "--RR", "out of bounds"},
    {"index_before_an_array", index_before_an_array, "-R-R", "out of bounds"},
    {"read_past_an_array_of_five", read_past_an_array_of_five, "---R", "out of bounds"},
    {"element_past_an_array_of_references", element_past_an_array_of_references, "--RR",
     "out of bounds"},
    {"store_past_an_array_of_references", store_past_an_array_of_references, "-RRR",
     "out of bounds"},
    {"copy_from_past_an_array", copy_from_past_an_array, "-RR-", "out of bounds"},
    {"copy_to_past_an_array", copy_to_past_an_array, "-RR-", "out of bounds"},
    {"memset_past_an_array", memset_past_an_array, "-RRR", "out of bounds"},
    {"length_of_the_wrong_array", length_of_the_wrong_array, "--RR", "out of bounds"},
    {"read_a_page_past_a_large_array", read_a_page_past_a_large_array, "--RR",
     "out of bounds|use after death"},
    {"write_a_byte_past_a_large_array", write_a_byte_past_a_large_array, "--RR", "out of bounds"},
    {"memset_a_page_past_a_large_array", memset_a_page_past_a_large_array, "-RRR", "out of bounds"},
    {"write_a_word_past_a_huge_array", write_a_word_past_a_huge_array, "--RR", "out of bounds"},
    {"write_past_a_flexible_member", write_past_a_flexible_member, "--RR", "out of bounds"},
    {"index_past_a_flexible_member", index_past_a_flexible_member, "-RRR", "out of bounds"},
    {"store_past_a_flexible_member", store_past_a_flexible_member, "-RRR", "out of bounds"},
    {"read_a_byte_past_a_string", read_a_byte_past_a_string, "--RR", "out of bounds"},
    {"index_past_a_string", index_past_a_string, "-RRR", "out of bounds"},
    {"write_a_byte_past_a_short_string", write_a_byte_past_a_short_string, "---R", "out of bounds"},
    {"strcpy_of_a_longer_text", strcpy_of_a_longer_text, "--RR", "out of bounds"},
    {"strcat_behind_a_full_text", strcat_behind_a_full_text, "--RR", "out of bounds"},
    {"strlen_without_an_end", strlen_without_an_end, "--RR", "out of bounds"},
    {"snprintf_past_a_string", snprintf_past_a_string, "--R-", "out of bounds"},
    {"copy_of_a_text_without_room_for_its_end", copy_of_a_text_without_room_for_its_end, "-RRR",
     "out of bounds"},
    {NULL, NULL, NULL, NULL},
};
