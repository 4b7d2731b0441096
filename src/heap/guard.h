/* SPDX-License-Identifier: MIT
 *
 * Guard mode; see guard.c.
 */
#ifndef CRN_GUARD_H
#define CRN_GUARD_H

#include "heap/heap.h"
#include "os/os.h"

extern uint32_t crn_guard_period; /* one allocation in so many is guarded; 0: none */
extern bool crn_guard_has_sealed; /* atomic; some guarded object was ever deleted */
void crn_guard_init(uint32_t period);

/* Whether this allocation, of a slot or (bin NULL) of an object of its own, is to be guarded. */
CRN_INLINE bool crn_guard_may_be_due(const struct crn_cache *cache) {
    return crn_guard_period == 1 || cache->guard_countdown == 0;
}
bool crn_guard_is_due(struct crn_cache *cache, const struct crn_bin *bin);
void crn_guard_note_cost(struct crn_cache *cache, uint64_t began_ns);
/* Where a piece ends that would reach beyond the next one. */
char *crn_guard_shorten(struct crn_cache *cache, char *from, char *to, size_t slot_size);
/* The limit of mappings is near: a collection might help. */
bool crn_guard_is_crowded(void);

/* A young object of its own, zeroed; NULL if it is too large or there is no room. */
struct crn_block *crn_heap_take_guarded(struct crn_heap *heap, struct crn_type *type, size_t used,
                                        size_t align, bool is_sized);
/* For it, in heap.c: false without memory. */
bool crn_block_open_guarded(struct crn_block *head, struct crn_type *type, char *base, size_t bytes,
                            size_t used, bool is_sized);
/* A deleted object: nobody touches its memory any more. In a section. */
void crn_guard_seal(struct crn_block *block);
/* A dead one, under its heap's lock or in a stop. */
void crn_guard_retire(struct crn_block *block);

/* The descriptor of the guarded object whose place the address lies in, dead or alive; else NULL.
 * A dead one's is true until its place is used again. */
const struct crn_block *crn_guard_block_of(const void *address);

/* Whether a field's memory may not be touched any more. */
CRN_INLINE bool crn_guard_is_sealed(const void *field) {
    if (crn_segment_kind(field) == CRN_SEGMENT_BLOCKY) return false;
    const struct crn_block *block = crn_guard_block_of(field);
    return block && block->sealed;
}

#endif
