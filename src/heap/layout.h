/* SPDX-License-Identifier: MIT
 *
 * What the collector knows of a type: where its references are, word by word.
 *
 * An object is one element, or, in a sized block, a row of elements; a flexible type is one element
 * followed by references up to its used size.
 */
#ifndef CRN_LAYOUT_H
#define CRN_LAYOUT_H

#include "base/base.h"

enum crn_content {
    CRN_LEAF,    /* no references */
    CRN_EXACT,   /* references where the layout says */
    CRN_UNTYPED, /* any word may be a pointer */
};

enum { CRN_CLASS_COUNT = 96 }; /* of crn_size_class */

struct crn_type {
    const char *name;
    size_t size, align; /* bytes of one element */
    enum crn_content content;
    uint32_t word_count; /* of one element; at most 64 when `map` is used */
    uint64_t map;        /* bit i: word i is a reference; only if is_mapped */
    bool is_mapped;      /* every reference is plain and lies in the first 57 words */
    uint64_t *log_bits;  /* the log bits of a whole block of single objects, or NULL: not mapped */
    bool has_flex;
    bool is_flex_data; /* the flexible member holds no references */
    bool has_weak;     /* some reference is a weak one, to a cell */
    bool is_pinned;
    size_t flex_offset, flex_size; /* bytes; of one element */
    uint32_t *refs;                /* word indexes of plain references */
    size_t ref_count;
    uint32_t *words; /* word indexes of tagged words */
    size_t tagged_count;
    uintptr_t word_mask, word_tag;
    void (*finalize)(void *object);
    uint32_t fixed_bin; /* atomic; 0 until made */
    uint32_t
        sized_bins[CRN_CLASS_COUNT]; /* atomic; of arrays and flexible objects, per size class */
    struct crn_type *next;           /* in the registry */
    struct crn_type *with_data;      /* atomic; see crn_type_with_flex */
};

/* Slots of one type and one size come from the blocks of one bin. Bins are process-wide. */
struct crn_bin {
    uint32_t id;
    uint32_t slot_size;  /* bytes; 0: the object has blocks or segments of its own */
    uint32_t reciprocal; /* offset / slot_size == offset * reciprocal >> 32 below 32 KiB */
    bool is_sized;       /* the slot's last two bytes hold the unused bytes before them */
    struct crn_type *type;
};

/* The smallest class whose slots hold `bytes`, and the slot size of a class. Sixteen-byte steps to
 * 128, then eight steps per doubling: at most 1/8 is lost. */
enum { CRN_SMALL_MAX = 16 * 1024 };
extern size_t crn_redzone_bytes; /* behind each object; set before the first allocation */
CRN_INLINE size_t crn_slot_size_for(size_t bytes, size_t align) { /* of single objects */
    return crn_round_up(crn_max(bytes + crn_redzone_bytes, 1), crn_max(align, 16));
}
CRN_INLINE size_t crn_slot_size(const struct crn_type *type) {
    return crn_slot_size_for(type->size, type->align);
}
CRN_INLINE uint32_t crn_size_class(size_t bytes) {
    if (bytes <= 128) return bytes ? (uint32_t)((bytes + 15) / 16) - 1 : 0;
    uint32_t top = crn_log2(bytes - 1);
    uint32_t step = (uint32_t)((bytes - 1) >> (top - 3)) & 7;
    return 8 + (top - 7) * 8 + step;
}
CRN_INLINE size_t crn_class_size(uint32_t class_index) {
    if (class_index < 8) return (class_index + 1) * 16u;
    uint32_t top = (class_index - 8) / 8 + 7;
    size_t step = (size_t)1 << (top - 3);
    return ((size_t)1 << top) + ((class_index - 8) % 8 + 1) * step;
}

#endif
