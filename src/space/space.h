/* SPDX-License-Identifier: MIT
 *
 * Regions and segments: where the addresses of heaps come from.
 *
 * A segment is 4 MiB, aligned to its size. It begins with its count table: one byte per 16 bytes of
 * the segment, 256 KiB. The counts of the table's own addresses can never be used, and in those
 * first 16 KiB lie the segment's header (1 KiB) and one 128-byte descriptor per block, so that
 *     count of address a = segment + (a mod 4 MiB) / 16
 *     descriptor of block i = segment + 128 i,  8 <= i < 128
 * and a segment spends 1/16 of itself on tables and nothing else.
 *
 * Shadows are what a crash may lose: bits found from any address by arithmetic alone.
 *     log bit of a:    one per 8 bytes, at log_bits[(a & log_mask) >> 6]
 *     mark bit of a:   one per 16 bytes; root bits of a: two per 16 bytes; deleted bit: one per 16.
 * The log shadow answers for every user address; its pages outside heaps are the kernel's zero
 * page. Where so much address space is not to be had, log_mask folds addresses onto a smaller
 * shadow; a store outside the heaps may then find a bit that belongs to a heap, and the slow path
 * tells them apart.
 */
#ifndef CRN_SPACE_H
#define CRN_SPACE_H

#include "base/base.h"

#include <cairn/runtime.h>

enum { CRN_SEGMENT_SHIFT = 22, CRN_BLOCK_SHIFT = 15, CRN_GRANULE_SHIFT = 4 };
#define CRN_SEGMENT_BYTES ((size_t)1 << CRN_SEGMENT_SHIFT)
#define CRN_BLOCK_BYTES ((size_t)1 << CRN_BLOCK_SHIFT)
#define CRN_GRANULE ((size_t)1 << CRN_GRANULE_SHIFT)
#define CRN_TABLE_BYTES (CRN_SEGMENT_BYTES >> CRN_GRANULE_SHIFT)
#define CRN_FIRST_BLOCK (CRN_TABLE_BYTES >> CRN_BLOCK_SHIFT)
#define CRN_SEGMENT_BLOCKS (CRN_SEGMENT_BYTES >> CRN_BLOCK_SHIFT)
/* Bits of a user address that the kernel hands out unasked. One that a program asked for above them
 * (five-level tables, 52-bit aarch64) folds like a narrow mask: see the top. No heap lies there. */
#if defined(__aarch64__)
#define CRN_ADDRESS_BITS 48
#else
#define CRN_ADDRESS_BITS 47
#endif

_Static_assert(CRN_FIRST_BLOCK * 128 == 1024, "the header fills the space before descriptor 8");
_Static_assert(CRN_SEGMENT_BLOCKS * 128 == CRN_TABLE_BYTES >> CRN_GRANULE_SHIFT,
               "descriptors fill exactly the counts of the table's own addresses");

enum crn_segment_kind {
    CRN_SEGMENT_NONE = 0,
    CRN_SEGMENT_BLOCKY,  /* a header, descriptors, blocks */
    CRN_SEGMENT_LARGE,   /* a header, one descriptor, one object */
    CRN_SEGMENT_BODY,    /* the middle of a large object */
    CRN_SEGMENT_GUARDED, /* like a blocky one; its blocks are objects of guard mode */
};

/* Who made an object: for reports, see object/births.c. */
struct crn_birth {
    uint32_t stack; /* its number in the depot */
    int thread_id;
};

struct crn_region {
    char *base, *end;
    size_t segment_count;
    uint8_t *is_taken;      /* per segment */
    uint32_t *head_of;      /* per segment of a large object: index of its first */
    size_t search_from;     /* no free segment below */
    size_t committed_count; /* segments; atomic */
    uint32_t *sites; /* atomic; a word per granule, see object/sites.c; NULL until asked for */
    struct crn_birth *births; /* the same, see object/births.c */
};

/* The process-wide tables; written under the space lock, read anywhere. */
struct crn_space {
    uint8_t *segment_kinds; /* indexed by address >> 22; atomic */
    uint8_t *mark_bits, *root_bits, *deleted_bits;
    char *low, *high;   /* of all regions; the graveyard lies outside */
    char *graveyard;    /* never mapped; tombstones point here, see safety/; NULL: no room */
    size_t grave_bytes; /* of each of its halves */
    uintptr_t mask;     /* == cairn_runtime.log_mask */
    bool reuses_late;   /* addresses are not used again until there are no others */
    bool notes_ends;    /* verdicts are kept, or a checker watches: who ends an object says so */
};
extern struct crn_space crn_space;

CRN_INLINE size_t crn_region_committed(const struct crn_region *region) {
    return __atomic_load_n(&region->committed_count, __ATOMIC_RELAXED);
}

bool crn_space_init(void);
bool crn_region_init(struct crn_region *region, size_t bytes);
/* Its addresses stay reserved for a while, without access: who comes to them is told of `name`. */
void crn_region_deinit(struct crn_region *region, const char *name);
/* The name of the heap that the address was in until it ended; else NULL. Takes no lock. */
const char *crn_space_was_heap(const void *address);
/* Whether the address lies in a region, in use or not. O(regions); takes no lock: call it in a
 * stop.
 */
bool crn_space_is_reserved(const void *address);

/* `count` adjacent segments, writable and zero, their shadows writable and clear. */
char *crn_segments_acquire(struct crn_region *region, size_t count, enum crn_segment_kind kind,
                           bool is_huge);
void crn_segments_release(struct crn_region *region, char *segment, size_t count);

/* The site word of an address of the region; NULL if there are none, or, to make them, no address
 * space. */
uint32_t *crn_region_site(struct crn_region *region, const void *address, bool make);
/* The birth of an address, in the same way. */
struct crn_birth *crn_region_birth(struct crn_region *region, const void *address, bool make);
/* What is about to be handed out anew. */
void crn_region_sites_forget_slow(struct crn_region *region, const char *low, const char *high);
CRN_INLINE void crn_region_sites_forget(struct crn_region *region, const char *low,
                                        const char *high) {
    if (CRN_UNLIKELY(__atomic_load_n(&region->sites, __ATOMIC_RELAXED))) {
        crn_region_sites_forget_slow(region, low, high);
    }
}

/* Whether the address lies between the lowest and the highest region. Relaxed: the range only
 * grows, and who has an object of a new region has synchronised with who made it. */
CRN_INLINE bool crn_space_holds(const void *address) {
    uintptr_t low = (uintptr_t)__atomic_load_n(&crn_space.low, __ATOMIC_RELAXED);
    uintptr_t high = (uintptr_t)__atomic_load_n(&crn_space.high, __ATOMIC_RELAXED);
    return (uintptr_t)address - low < high - low;
}

/* A tombstone is an address in the lower half of the graveyard where the program has it in a
 * variable, and as far into the upper half where the runtime has put it into a field. Fields may be
 * copied; to store the variable is an error. */
CRN_INLINE bool crn_space_is_tombstone(const void *address) {
    uintptr_t offset = (uintptr_t)address - (uintptr_t)crn_space.graveyard;
    return offset < 2 * crn_space.grave_bytes;
}
CRN_INLINE bool crn_space_is_variable_tombstone(const void *address) {
    return (uintptr_t)address - (uintptr_t)crn_space.graveyard < crn_space.grave_bytes;
}

CRN_INLINE enum crn_segment_kind crn_segment_kind(const void *address) {
    uintptr_t index = (uintptr_t)address >> CRN_SEGMENT_SHIFT;
    if (CRN_UNLIKELY(index >> (CRN_ADDRESS_BITS - CRN_SEGMENT_SHIFT))) return CRN_SEGMENT_NONE;
    return (enum crn_segment_kind)crn_space.segment_kinds[index];
}

CRN_INLINE char *crn_segment_of(const void *address) {
    return (char *)((uintptr_t)address & ~(CRN_SEGMENT_BYTES - 1));
}

CRN_INLINE uint8_t *crn_count_of(const void *address) {
    uintptr_t within = (uintptr_t)address & (CRN_SEGMENT_BYTES - 1);
    return (uint8_t *)crn_segment_of(address) + (within >> CRN_GRANULE_SHIFT);
}

/* ---- Verdicts (verdicts.c) ----------------------------------------------------------------------
 */

/* From the first file that asks, where address space is plenty; else there are none. Takes a lock:
 * in a section behind the gate, where nobody has opened them or found that it cannot be done. */
void crn_verdicts_open(void);
bool crn_verdicts_are_wanting(void);
CRN_INLINE bool crn_verdicts_are_kept(void) {
    return __atomic_load_n(&cairn_runtime.unjudged, __ATOMIC_ACQUIRE) != UINTPTR_MAX;
}

/* Of an address in a heap, while they are kept. */
CRN_INLINE uint8_t *crn_verdict_of(const void *address) {
    return cairn_runtime.verdicts + ((uintptr_t)address >> CRN_GRANULE_SHIFT);
}

CRN_INLINE uint8_t crn_field_verdict(const void *field) {
    bool is_second = (uintptr_t)field & sizeof(void *);
    return is_second ? CAIRN_VERDICT_SECOND_FIELD_ : CAIRN_VERDICT_FIELD_;
}

/* What was there is dead: said where that cannot be undone. Whole granules. */
void crn_verdicts_forget_slow(const void *low, size_t bytes);
CRN_INLINE void crn_verdicts_forget(const void *low, size_t bytes) {
    if (CRN_UNLIKELY(crn_verdicts_are_kept())) crn_verdicts_forget_slow(low, bytes);
}

/* It is deleted: no look from before gives it a verdict. Whole granules, while they are kept. */
void crn_verdicts_end(const void *object, size_t bytes);

/* Who has looked gives one, in a section: what was read there before the look, look, give, and look
 * again; take it back if the second look finds otherwise. False, and none given, if it may not be.
 */
CRN_INLINE uint8_t crn_verdict_before_look(const void *address) {
    return __atomic_load_n(crn_verdict_of(address), __ATOMIC_ACQUIRE);
}
bool crn_verdict_give(const void *address, uint8_t before, uint8_t verdict);
void crn_verdict_take_back(const void *address, uint8_t verdict);

/* ---- Shadow bits ------------------------------------------------------------------------------
 */

struct crn_bit {
    uint8_t *byte;
    uint8_t mask;
};

CRN_INLINE struct crn_bit crn_granule_bit(uint8_t *shadow, const void *address) {
    uintptr_t a = (uintptr_t)address & crn_space.mask;
    return (struct crn_bit){shadow + (a >> 7), (uint8_t)(1u << ((a >> 4) & 7))};
}

CRN_INLINE bool crn_bit_get(struct crn_bit bit) {
    return (__atomic_load_n(bit.byte, __ATOMIC_RELAXED) & bit.mask) != 0;
}
CRN_INLINE void crn_bit_set(struct crn_bit bit) {
    __atomic_fetch_or(bit.byte, bit.mask, __ATOMIC_RELAXED);
}
CRN_INLINE void crn_bit_clear(struct crn_bit bit) {
    __atomic_fetch_and(bit.byte, (uint8_t)~bit.mask, __ATOMIC_RELAXED);
}

/* Two bits per granule: rooted in the even epochs, rooted in the odd ones. */
CRN_INLINE struct crn_bit crn_root_bit(const void *address, unsigned parity) {
    uintptr_t a = (uintptr_t)address & crn_space.mask;
    return (struct crn_bit){crn_space.root_bits + (a >> 6),
                            (uint8_t)(1u << (((a >> 4) & 3) * 2 + parity))};
}

CRN_INLINE struct crn_bit crn_mark_bit(const void *a) {
    return crn_granule_bit(crn_space.mark_bits, a);
}
CRN_INLINE struct crn_bit crn_deleted_bit(const void *a) {
    return crn_granule_bit(crn_space.deleted_bits, a);
}
/* Whether this call has set it. A full fence. In whole words: a compiler makes one instruction of
 * it where it makes a loop of a byte's. */
CRN_INLINE bool crn_deleted_bit_claim(const void *address) {
    uintptr_t a = (uintptr_t)address & crn_space.mask;
    uint32_t *word = (uint32_t *)(void *)crn_space.deleted_bits + (a >> 9);
    uint32_t mask = (uint32_t)1 << ((a >> 4) & 31);
    bool is_first = !(__atomic_fetch_or(word, mask, __ATOMIC_SEQ_CST) & mask);
#if !defined(__x86_64__)
    CRN_FULL_FENCE(); /* a store-exclusive lets later loads go first */
#endif
    return is_first;
}

#endif
