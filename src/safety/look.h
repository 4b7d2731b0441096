/* SPDX-License-Identifier: MIT
 *
 * What lies at an address: asked before each access of checked and instrumented files, so inline.
 * Takes no lock (heap.c has the argument for crn_object_of).
 *
 * A deleted object whose finalizer runs is still the finalizer's to read and to store into.
 */
#ifndef CRN_LOOK_H
#define CRN_LOOK_H

#include "heap/alive.h"
#include "safety/safety.h"

enum verdict { GOOD, OUTSIDE, DELETED, NO_OBJECT };

struct look {
    char *object; /* the start of what `address` lies in, or NULL */
    struct crn_block *block;
    enum verdict verdict;
};

/* In a section. The middle of an object is as good as its start here. */
CRN_INLINE struct look look_at(const void *address) {
    struct look look = {NULL, NULL, GOOD};
    look.object = crn_object_of(address, &look.block);
    if (CRN_LIKELY(look.object)) {
        bool is_deleted = crn_bit_get(crn_deleted_bit(look.object));
        if (CRN_UNLIKELY(is_deleted) && !crn_is_being_finalized(look.object))
            look.verdict = DELETED;
    } else if (crn_space_is_tombstone(address)) {
        look.verdict = DELETED;
    } else {
        bool is_ours = crn_space_is_reserved(address) || crn_space_was_heap(address);
        look.verdict = is_ours ? NO_OBJECT : OUTSIDE;
    }
    return look;
}

CRN_INLINE bool is_within(const struct look *look, const void *low, size_t bytes) {
    size_t offset = (size_t)((const char *)low - look->object);
    size_t used = crn_object_used(look->block, look->object);
    return offset <= used && bytes <= used - offset;
}

/* What is deleted and waits has an extra. */
CRN_INLINE bool may_be_deleted(const struct crn_block *block) {
    return __atomic_load_n(&block->has_extras, __ATOMIC_RELAXED);
}

struct extent {
    const struct crn_block *block;
    const char *object;
    size_t used;
};

/* An object of its own blocks. */
CRN_INLINE bool own_extent_with(const struct crn_block *block, const char *address, size_t bytes,
                                struct extent *extent) {
    uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
    if (state == CRN_BLOCK_FREE) return false;
    if (state == CRN_BLOCK_BODY) block -= block->body_of;
    size_t offset = (size_t)(address - block->base), used = block->used_bytes;
    bool is_inside = offset < used && bytes <= used - offset && crn_is_alive_in(block, block->base);
    *extent = (struct extent){block, block->base, used};
    return is_inside && !(may_be_deleted(block) && crn_bit_get(crn_deleted_bit(block->base)));
}

/* Whether it lies within a living object of at most two megabytes; the address is one of a heap's.
 * Nothing here needs a section: what is seen of a block that changes meanwhile is looked at again.
 * Behind a block's last slot counts are zero and nothing is young. */
CRN_INLINE bool extent_with(const char *address, size_t bytes, struct extent *extent) {
    if (crn_space.segment_kinds[(uintptr_t)address >> CRN_SEGMENT_SHIFT] != CRN_SEGMENT_BLOCKY) {
        return false;
    }
    const struct crn_block *block = crn_block_in_table(address);
    if (CRN_UNLIKELY(!block->slot_size)) return own_extent_with(block, address, bytes, extent);
    uint64_t offset = (uint64_t)(address - block->base), start = crn_start_in(block, offset);
    const char *object = block->base + start;
    if (!crn_is_alive_in(block, object)) return false;
    size_t within = offset - start, used = crn_object_used(block, object);
    if (within >= used || bytes > used - within) return false;
    *extent = (struct extent){block, object, used};
    return !(may_be_deleted(block) && crn_bit_get(crn_deleted_bit(object)));
}

/* Taken before the look. What dies afterwards changes it, so what is noted counts no more. */
CRN_INLINE uint64_t deaths_before_look(void) {
    crn_deaths_watch();
    return __atomic_load_n(&cairn_runtime.deaths, __ATOMIC_ACQUIRE);
}

/* A signal's handler may come in between: it finds no bytes. */
CRN_INLINE void note_seen(struct cairn_seen *seen, const struct extent *extent, uint64_t deaths) {
    seen->bytes = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    seen->inverted = ~(uintptr_t)extent->object;
    seen->deaths = deaths;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    seen->bytes = extent->used;
}

/* The block of such an object, else NULL. */
CRN_INLINE const struct crn_block *block_with(const char *address, size_t bytes) {
    struct extent extent;
    return crn_space_holds(address) && extent_with(address, bytes, &extent) ? extent.block : NULL;
}

/* A living object that starts here, and that block. */
CRN_INLINE bool is_plainly_good(const char *value, struct crn_block **out) {
    return crn_starts_here(value, out) &&
           !(may_be_deleted(*out) && crn_bit_get(crn_deleted_bit(value)));
}

#endif
