/* SPDX-License-Identifier: MIT
 *
 * What a program forgot to tell, as CAIRN_VERIFY=1 finds it: a reference that was stored without
 * cairn_set, or in a member that the type does not declare.
 *
 * The first ends the program: what the field refers to may be reclaimed although it is in use, or
 * never. The second is a note: the word may be a number that looks like an address.
 */
#include "base/report.h"
#include "gc/gc.h"
#include "object/births.h"
#include "object/sites.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PLACE_BYTES = 300, FIELDS_NAMED = 4 };

void crn_each_counted(struct crn_block *block,
                      void (*visit)(struct crn_block *block, char *object)) {
    size_t step = crn_object_bytes(block);
    for (char *object = block->base; object < block->end; object += step) {
        if (*crn_count_of(object)) visit(block, object);
    }
}

/* ---- Fields -------------------------------------------------------------------------------------
 */

struct holder {
    const char *type, *object;
    size_t offset; /* of the field in the object */
};

static struct holder holder_of(void **field) {
    const struct crn_block *block = crn_block_of_interior(field);
    size_t offset = crn_offset_in_object(block, field);
    return (struct holder){block->type->name, (char *)field - offset, offset};
}

static struct crn_birth birth_of(const void *object) {
    const struct crn_block *block = crn_block_of_interior(object);
    return block ? crn_birth_of(block, object) : (struct crn_birth){CRN_STACK_NONE, 0};
}

static void describe_site(const void *object, char *text) {
    struct crn_place place = crn_site_of(object);
    crn_place_add_birth(&place, birth_of(object));
    crn_place_describe(&place, text, PLACE_BYTES);
}

static const char *const told =
    "cairn_set, cairn_copy, cairn_sort and cairn_clear tell of a store; memcpy, memmove, qsort and "
    "plain stores do not";

static void describe_target(const char *value, char *text) {
    struct crn_block *block;
    const char *start = crn_object_of(value, &block);
    if (start && start != value) {
        snprintf(text, PLACE_BYTES, "the middle of the %.60s at %p", block->type->name,
                 (const void *)start);
        return;
    }
    const struct crn_block *last = crn_block_of_interior(value);
    snprintf(text, PLACE_BYTES, "where no object lives%s%.60s", last ? ", the last was a " : "",
             last ? last->type->name : "");
}

void crn_report_uncounted(void **field, const void *value) {
    struct holder holder = holder_of(field);
    char allocated[PLACE_BYTES], target[PLACE_BYTES];
    describe_site(holder.object, allocated);
    describe_target(value, target);
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_FORGOTTEN_STORE);
    crn_report_line(report, "what", "the field at offset %zu of the %s at %p refers to %p, %s",
                    holder.offset, holder.type, (const void *)holder.object, value, target);
    crn_report_line(report, "allocated", "the %s: %s", holder.type, allocated);
    crn_stack_tell(report, "allocated_stack", birth_of(holder.object).stack);
    crn_report_line(report, "next step", "%s", told);
    crn_report_string(report, "type", holder.type);
    crn_report_number(report, "object_address", (uintptr_t)holder.object);
    crn_report_number(report, "offset", holder.offset);
    crn_report_abort(report);
}

/* ---- Counts -------------------------------------------------------------------------------------
 */

static struct {
    const char *object;
    unsigned found;
    size_t length;
    char text[FIELDS_NAMED * 100];
} search; /* in a stop */

static void note_field(void **field, void *value, void *context) {
    (void)context;
    if (value != search.object || search.found++ >= FIELDS_NAMED) return;
    struct holder holder = holder_of(field);
    int added = snprintf(search.text + search.length, sizeof(search.text) - search.length,
                         "%sthe field at offset %zu of the %.24s at %p", search.length ? ", " : "",
                         holder.offset, holder.type, (const void *)holder.object);
    search.length = crn_min(search.length + (size_t)added, sizeof(search.text) - 1);
}

static void search_object(struct crn_block *block, char *object) {
    crn_each_field(block, object, note_field, NULL);
}

static void search_block(struct crn_block *block, void *context) {
    (void)context;
    if (block->content == CRN_EXACT) crn_each_counted(block, search_object);
}

void crn_report_miscounted(const struct crn_block *block, const char *object, unsigned count,
                           unsigned found) {
    char allocated[PLACE_BYTES];
    describe_site(object, allocated);
    search.object = object;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        crn_heap_each_block(&heap->core, search_block, NULL);
    }
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_FORGOTTEN_STORE);
    crn_report_line(report, "what", "a reference to the %s at %p was %s without cairn_set",
                    block->type->name, (const void *)object,
                    count < found ? "stored" : "overwritten or cleared");
    crn_report_line(report, "object",
                    "count %u, but %u references, roots and queued decrements "
                    "name it",
                    count, found);
    crn_report_line(report, "allocated", "%s", allocated);
    crn_stack_tell(report, "allocated_stack", birth_of(object).stack);
    crn_report_line(report, "held by", "%u fields%s%s", search.found, search.found ? ": " : "",
                    search.text);
    crn_report_line(report, "next step", "%s", told);
    crn_report_string(report, "type", block->type->name);
    crn_report_number(report, "object_address", (uintptr_t)object);
    crn_report_number(report, "count", count);
    crn_report_abort(report);
}

/* ---- Undeclared references ----------------------------------------------------------------------
 */

/* Words that have been told of, the latest first. A text is made in the stop and written behind it:
 * who reads the other end may be one of the threads that stand still. */
static struct told_word {
    struct told_word *next;
    const struct crn_type *type;
    size_t word;
    char text[400];
} * told_words, *written_words; /* under the world lock */

static bool is_told(const struct crn_type *type, size_t word) {
    for (const struct told_word *at = told_words; at; at = at->next) {
        if (at->type == type && at->word == word) return true;
    }
    return false;
}

/* Without memory the next collection tells. */
static void note_word(const struct crn_block *owner, const char *object, size_t word,
                      const void *value) {
    struct told_word *fresh = is_told(owner->type, word) ? NULL : crn_meta_alloc(sizeof(*fresh));
    if (!fresh) return;
    *fresh = (struct told_word){.next = told_words, .type = owner->type, .word = word};
    told_words = fresh;
    struct crn_block *block = NULL;
    const char *target = crn_object_of(value, &block);
    bool is_live = target && *crn_count_of(target) != 0;
    snprintf(fresh->text, sizeof(fresh->text),
             "cairn: note: %.60s has an undeclared reference at offset %zu: the one at %p has %p "
             "there, %s%.60s%s; declare the member in its CAIRN_TYPE, or keep no pointer there\n",
             owner->type->name, word * sizeof(void *), (const void *)object, value,
             is_live ? "in a " : "where no object lives any more", is_live ? block->type->name : "",
             is_live && target != (const char *)value ? ", not at its start" : "");
}

void crn_print_undeclared(void) {
    for (struct told_word *at = told_words; at != written_words; at = at->next) {
        ssize_t ignored = write(STDERR_FILENO, at->text, strlen(at->text));
        (void)ignored;
    }
    written_words = told_words;
}

static void note_element(const struct crn_block *block, const char *object, const char *element,
                         size_t bytes) {
    for (size_t word = 0; (word + 1) * sizeof(void *) <= bytes; word++) {
        void *value = ((void *const *)(const void *)element)[word];
        if (!value || crn_is_foreign(value)) continue;
        if (!crn_is_reference_word(block->type, word)) note_word(block, object, word, value);
    }
}

static void note_object(struct crn_block *block, char *object) {
    const struct crn_type *type = block->type;
    if (type->has_flex) {
        note_element(block, object, object, type->flex_offset);
        return;
    }
    size_t used = crn_object_used(block, object);
    for (size_t at = 0; at + type->size <= used; at += type->size) {
        note_element(block, object, object + at, type->size);
    }
}

void crn_note_undeclared(struct crn_block *block) {
    const struct crn_type *type = block->type;
    if (block->sealed) return;
    bool is_typed =
        block->content == CRN_EXACT ||
        (block->content == CRN_LEAF && type != &crn_type_bytes && !crn_is_cell_type(type));
    if (is_typed && type->align >= sizeof(void *)) crn_each_counted(block, note_object);
}
