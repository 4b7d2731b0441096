/* SPDX-License-Identifier: MIT
 *
 * Types: from the descriptors that CAIRN_TYPE makes to the layouts that the collector reads.
 *
 * Descriptors of one name and one layout, from different files, become one type. Owns the types
 * lock.
 */
#include "object/object.h"

#include <string.h>

static struct crn_lock types_lock;
static struct crn_type *known_types;
bool crn_any_tagged;

struct crn_type crn_type_bytes = {.name = "bytes", .size = 1, .align = 16, .content = CRN_LEAF};
struct crn_type crn_type_untyped = {
    .name = "untyped", .size = 1, .align = 16, .content = CRN_UNTYPED};

static const struct cairn_field reference_field = {0, sizeof(void *), NULL, CAIRN_FIELD_REF};
cairn_type cairn_type_reference_[1] = {{.field_count = 1,
                                        .size = sizeof(void *),
                                        .align = sizeof(void *),
                                        .name = "reference",
                                        .fields = &reference_field}};

/* ---- Flattening
 * --------------------------------------------------------------------------------------- */

/* Appends the word indexes of a type's fields at `base` bytes; counts only where the arrays are
 * NULL. Nesting is as deep as the declarations are, which the compiler bounds. */
static bool flatten(struct crn_type *to, const cairn_type *from, size_t base, uint32_t *refs,
                    uint32_t *words) {
    for (uint32_t i = 0; i < (from->field_count & ~CAIRN_REDZONE_FLAG_); i++) {
        const struct cairn_field *field = &from->fields[i];
        size_t offset = base + field->offset;
        if (offset % sizeof(void *) != 0) return false;
        if (field->kind == CAIRN_FIELD_NESTED) {
            if (!field->nested || field->nested->size == 0) return false;
            for (size_t at = 0; at + field->nested->size <= field->size;
                 at += field->nested->size) {
                if (!flatten(to, field->nested, offset + at, refs, words)) return false;
            }
            continue;
        }
        if (field->kind == CAIRN_FIELD_FLEX) {
            to->has_flex = true;
            to->flex_offset = offset;
            to->flex_size = sizeof(void *);
            continue;
        }
        for (size_t at = 0; at < field->size; at += sizeof(void *)) {
            uint32_t word = (uint32_t)((offset + at) / sizeof(void *));
            to->has_weak |= field->kind == CAIRN_FIELD_WEAK;
            if (field->kind == CAIRN_FIELD_WORD) {
                if (words) words[to->tagged_count] = word;
                to->tagged_count++;
            } else {
                if (refs) refs[to->ref_count] = word;
                to->ref_count++;
            }
        }
    }
    return true;
}

static void make_map(struct crn_type *type) {
    type->is_mapped = type->tagged_count == 0 && !type->has_flex;
    for (size_t i = 0; i < type->ref_count; i++) {
        if (type->refs[i] >= 57) {
            type->is_mapped = false;
            return;
        }
        type->map |= (uint64_t)1 << type->refs[i];
    }
}

/* ---- Walking fields -----------------------------------------------------------------------------
 */

static void each_in_element(const struct crn_type *type, char *element, crn_field_visit *visit,
                            void *context) {
    void **words = (void **)(void *)element;
    for (size_t i = 0; i < type->ref_count; i++) {
        void **field = words + type->refs[i];
        visit(field, *field, context);
    }
    for (size_t i = 0; i < type->tagged_count; i++) {
        void **field = words + type->words[i];
        visit(field, crn_word_reference(type, (uintptr_t)*field), context);
    }
}

char *crn_each_field_from(const struct crn_block *block, char *object, char *from, size_t budget,
                          crn_field_visit *visit, void *context) {
    const struct crn_type *type = block->type;
    const char *end = object + crn_object_used(block, object);
    if (type->has_flex && from == object) {
        each_in_element(type, object, visit, context);
        from = object + type->flex_offset;
    }
    if (type->is_flex_data) return NULL;
    size_t step = type->has_flex ? sizeof(void *) : type->size;
    for (; from + step <= end && budget > 0; from += step, budget--) {
        void **field = (void **)(void *)from;
        if (type->has_flex)
            visit(field, *field, context);
        else
            each_in_element(type, from, visit, context);
    }
    return from + step <= end ? from : NULL;
}

char *crn_element_of(const struct crn_block *block, char *object, const char *address) {
    const struct crn_type *type = block->type;
    char *first = type->has_flex ? object + type->flex_offset : object;
    if (address < first) return object;
    size_t step = type->has_flex ? sizeof(void *) : type->size;
    return first + (size_t)(address - first) / step * step;
}

char *crn_element_from(const struct crn_block *block, char *object, const char *address) {
    const struct crn_type *type = block->type;
    if (address <= object) return object;
    if (type->has_flex && address <= object + type->flex_offset) return object + type->flex_offset;
    size_t step = type->has_flex ? sizeof(void *) : type->size;
    return crn_element_of(block, object, address + step - 1);
}

bool crn_is_tagged_word(const struct crn_type *type, size_t word) {
    for (size_t i = 0; i < type->tagged_count; i++) {
        if (type->words[i] == word) return true;
    }
    return false;
}

bool crn_is_reference_word(const struct crn_type *type, size_t word) {
    if (type->is_mapped) return word < 64 && ((type->map >> word) & 1);
    for (size_t i = 0; i < type->ref_count; i++) {
        if (type->refs[i] == word) return true;
    }
    return crn_is_tagged_word(type, word);
}

bool crn_is_tagged_field(const struct crn_block *owner, void **field) {
    const struct crn_type *type = owner->type;
    if (!type->tagged_count) return false;
    size_t offset = crn_offset_in_object(owner, field);
    if (type->has_flex && offset >= type->flex_offset) return false;
    return crn_is_tagged_word(type, offset % type->size / sizeof(void *));
}

bool crn_is_declared_field(const struct crn_block *owner, void **field) {
    const struct crn_type *type = owner->type;
    size_t offset = crn_offset_in_object(owner, field);
    if (owner->content != CRN_EXACT || offset % sizeof(void *) != 0) return false;
    if (type->has_flex && offset >= type->flex_offset) return !type->is_flex_data;
    return crn_is_reference_word(type, offset % type->size / sizeof(void *));
}

void *crn_tagged_value(const struct crn_block *owner, void **field, void *word) {
    bool is_tagged = crn_is_tagged_field(owner, field);
    return is_tagged ? crn_word_reference(owner->type, (uintptr_t)word) : word;
}

/* ---- Types --------------------------------------------------------------------------------------
 */

/* The log bits of a block in which every slot holds one object of the type. */
static bool make_log_bits(struct crn_type *type) {
    size_t slot_size = crn_slot_size(type);
    if (!type->is_mapped || type->content != CRN_EXACT || slot_size > CRN_SMALL_MAX) return true;
    uint8_t *bits = crn_meta_alloc(CRN_BLOCK_BYTES >> 6);
    if (!bits) return false;
    for (size_t at = 0; at + slot_size <= CRN_BLOCK_BYTES; at += slot_size) {
        for (size_t i = 0; i < type->ref_count; i++) {
            size_t word = at / sizeof(void *) + type->refs[i];
            bits[word / 8] |= (uint8_t)(1u << (word % 8));
        }
    }
    type->log_bits = (uint64_t *)(void *)bits;
    return true;
}

static struct crn_type *make_type(const cairn_type *from) {
    struct crn_type *type = crn_meta_alloc(sizeof(*type));
    if (!type) return NULL;
    type->name = from->name;
    type->size = from->size;
    type->align = from->align;
    type->word_count = (uint32_t)(from->size / sizeof(void *));
    type->finalize = from->options.finalize;
    type->is_pinned = from->options.pinned;
    type->word_mask = from->options.word_mask ? from->options.word_mask : 7;
    type->word_tag = from->options.word_tag;
    CAIRN_REQUIRE(flatten(type, from, 0, NULL, NULL), "type %s: a field is not aligned to a word",
                  from->name);
    if (type->ref_count) type->refs = crn_meta_alloc(type->ref_count * sizeof(uint32_t));
    if (type->tagged_count) type->words = crn_meta_alloc(type->tagged_count * sizeof(uint32_t));
    if ((type->ref_count && !type->refs) || (type->tagged_count && !type->words)) return NULL;
    type->ref_count = type->tagged_count = 0;
    flatten(type, from, 0, type->refs, type->words);
    bool has_any = type->ref_count || type->tagged_count || type->has_flex;
    type->content = has_any ? CRN_EXACT : CRN_LEAF;
    make_map(type);
    if (!make_log_bits(type)) return NULL;
    if (type->tagged_count) __atomic_store_n(&crn_any_tagged, true, __ATOMIC_RELAXED);
    return type;
}

static bool is_same(const struct crn_type *a, const struct crn_type *b) {
    return strcmp(a->name, b->name) == 0 && a->size == b->size && a->align == b->align &&
           a->content == b->content && a->ref_count == b->ref_count &&
           a->tagged_count == b->tagged_count && a->has_flex == b->has_flex &&
           a->has_weak == b->has_weak && a->flex_offset == b->flex_offset &&
           a->finalize == b->finalize && a->word_mask == b->word_mask &&
           a->word_tag == b->word_tag && a->is_pinned == b->is_pinned &&
           (!a->ref_count || memcmp(a->refs, b->refs, a->ref_count * sizeof(uint32_t)) == 0) &&
           (!a->tagged_count ||
            memcmp(a->words, b->words, a->tagged_count * sizeof(uint32_t)) == 0);
}

static void discard(struct crn_type *type) {
    crn_meta_free(type->refs, type->ref_count * sizeof(uint32_t));
    crn_meta_free(type->words, type->tagged_count * sizeof(uint32_t));
    crn_meta_free(type->log_bits, CRN_BLOCK_BYTES >> 6);
    crn_meta_free(type, sizeof(*type));
}

/* Those of the first eight words, two to a byte. */
static uint32_t first_verdicts(const struct crn_type *type) {
    uint8_t verdicts[sizeof(uint32_t)] = {CAIRN_VERDICT_START_};
    for (size_t word = 0; word < 2 * sizeof(verdicts) && word < type->word_count; word++) {
        uint8_t verdict = word % 2 ? CAIRN_VERDICT_SECOND_FIELD_ : CAIRN_VERDICT_FIELD_;
        if (crn_is_reference_word(type, word)) verdicts[word / 2] |= verdict;
    }
    uint32_t row;
    memcpy(&row, verdicts, sizeof(row));
    return row;
}

struct crn_type *crn_type_known(cairn_type *type) {
    struct crn_type *known = __atomic_load_n(&type->known, __ATOMIC_ACQUIRE);
    if (known) return known;
    crn_lock_acquire(&types_lock);
    known = type->known;
    if (!known) {
        known = make_type(type);
        struct crn_type *same = known_types;
        /* Types made at run time are their own: names there need not be unique. */
        while (known && same && !is_same(same, known)) same = same->next;
        if (known && same) {
            discard(known);
            known = same;
        } else if (known) {
            known->next = known_types;
            known_types = known;
        }
        if (known) type->first_verdicts = first_verdicts(known);
        __atomic_store_n(&type->known, known, __ATOMIC_RELEASE);
    }
    crn_lock_release(&types_lock);
    return known;
}

/* Its fields are those of the other. Not in the registry, where types are compared that programs
 * declare. */
static struct crn_type *make_with_data(const struct crn_type *type, size_t offset, size_t size) {
    struct crn_type *made = crn_meta_alloc(sizeof(*made));
    if (!made) return NULL;
    *made = *type;
    made->has_flex = made->is_flex_data = true;
    made->flex_offset = offset;
    made->flex_size = size;
    made->is_mapped = false;
    made->map = 0;
    made->log_bits = NULL;
    made->fixed_bin = 0;
    memset(made->sized_bins, 0, sizeof(made->sized_bins));
    made->next = NULL;
    return made;
}

struct crn_type *crn_type_with_flex(struct crn_type *type, size_t offset, size_t size) {
    if (type->content != CRN_EXACT || type->has_flex) return type;
    struct crn_type *with_data = __atomic_load_n(&type->with_data, __ATOMIC_ACQUIRE);
    if (with_data) return with_data;
    crn_lock_acquire(&types_lock);
    if (!type->with_data) {
        with_data = make_with_data(type, offset, size);
        __atomic_store_n(&type->with_data, with_data, __ATOMIC_RELEASE);
    }
    with_data = type->with_data;
    crn_lock_release(&types_lock);
    return with_data;
}

static bool fields_fit(size_t size, const struct cairn_field *fields, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct cairn_field *field = &fields[i];
        if (field->offset > size || field->size > size - field->offset) return false;
        if (field->offset % sizeof(void *) != 0) return false;
        if (field->kind < CAIRN_FIELD_REF || field->kind > CAIRN_FIELD_FLEX) return false;
        if (field->kind != CAIRN_FIELD_NESTED && field->size % sizeof(void *) != 0) return false;
        if (field->kind == CAIRN_FIELD_NESTED && !field->nested) return false;
    }
    return true;
}

cairn_status cairn_type_create(const char *name, size_t size, size_t align,
                               const struct cairn_field *fields, size_t field_count,
                               const cairn_type_options *options, cairn_type **out) {
    bool is_valid = name && out && size && align && (align & (align - 1)) == 0 && align <= 4096 &&
                    size <= CRN_SMALL_MAX && field_count < CAIRN_REDZONE_FLAG_ &&
                    (fields || !field_count) && fields_fit(size, fields, field_count);
    if (!is_valid) return CAIRN_ERROR_ARGUMENT;
    crn_enter();
    size_t name_bytes = strlen(name) + 1, field_bytes = field_count * sizeof(*fields);
    cairn_type *type = crn_meta_alloc(sizeof(*type));
    char *name_copy = crn_meta_alloc(name_bytes);
    struct cairn_field *copy = crn_meta_alloc(field_bytes + 1);
    bool is_made = type && name_copy && copy;
    if (is_made) {
        memcpy(name_copy, name, name_bytes);
        if (field_bytes) memcpy(copy, fields, field_bytes);
        *type = (cairn_type){.field_count = (uint32_t)field_count,
                             .size = size,
                             .align = align,
                             .name = name_copy,
                             .fields = copy};
        if (options) type->options = *options;
        *out = type;
    }
    crn_leave();
    return is_made ? CAIRN_OK : CAIRN_ERROR_NO_MEMORY;
}
