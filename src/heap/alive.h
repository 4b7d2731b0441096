/* SPDX-License-Identifier: MIT
 *
 * Whether a living object starts here: asked so often that it is inline, with no section and no
 * lock. Most objects are in a block of slots, and most of what is asked is in its descriptor's
 * first line. What is seen of a block that changes meanwhile may be wrong only where the caller
 * does not have the object; who finds none asks crn_object_of at leisure: a stop may have promoted
 * it between two looks.
 */
#ifndef CRN_ALIVE_H
#define CRN_ALIVE_H

#include "heap/heap.h"

/* ThreadSanitizer knows no fences: what goes on meanwhile is not for it to see. */
#if CAIRN_TSAN_
#define CRN_LOOKS_ON __attribute__((unused)) static CRN_NO_SANITIZE CRN_NOINLINE
#else
#define CRN_LOOKS_ON CRN_INLINE
#endif

/* A young object's count is zero, and its slot between the record's beginning and its end, which is
 * the cursor's as long as one is in the block (heap.c, is_young_now: here a cursor that moves
 * meanwhile makes no second try). */
CRN_LOOKS_ON bool crn_is_alive_in(const struct crn_block *block, const char *slot) {
    if (__atomic_load_n(crn_count_of(slot), __ATOMIC_RELAXED) != 0) return true;
    const struct cairn_cursor *cursor = __atomic_load_n(&block->cursor, __ATOMIC_RELAXED);
    CRN_FENCE();
    const char *end = cursor ? __atomic_load_n(&cursor->next, __ATOMIC_RELAXED)
                             : __atomic_load_n(&block->young_end, __ATOMIC_RELAXED);
    CRN_FENCE();
    return slot < end && slot >= __atomic_load_n(&block->young_begin, __ATOMIC_RELAXED) &&
           cursor == __atomic_load_n(&block->cursor, __ATOMIC_RELAXED);
}

/* The block in use that an address lies in, of slots or of one object of at most two megabytes;
 * else NULL. */
CRN_INLINE struct crn_block *crn_block_around(const void *address) {
    if (!crn_space_holds(address)) return NULL;
    if (crn_space.segment_kinds[(uintptr_t)address >> CRN_SEGMENT_SHIFT] != CRN_SEGMENT_BLOCKY) {
        return NULL;
    }
    struct crn_block *block = crn_block_in_table(address);
    if (CRN_LIKELY(block->slot_size)) return block;
    uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
    if (state == CRN_BLOCK_FREE) return NULL;
    return state == CRN_BLOCK_BODY ? block - block->body_of : block;
}

CRN_INLINE uint64_t crn_start_in(const struct crn_block *block, uint64_t offset) {
    return ((offset * block->reciprocal) >> 32) * block->slot_size;
}

/* Deleted ones live until their slot is free. */
CRN_INLINE bool crn_starts_here(const char *address, struct crn_block **out) {
    struct crn_block *block = *out = crn_block_around(address);
    if (!block) return false;
    uint64_t offset = (uint64_t)(address - block->base);
    return (block->slot_size ? crn_start_in(block, offset) == offset : offset == 0) &&
           crn_is_alive_in(block, address);
}

#endif
