/* SPDX-License-Identifier: MIT
 *
 * Heaps: slots, blocks, cursors, large objects.
 *
 * A block holds slots of one bin. Each slot has one count byte, that of its first granule; the
 * bytes of its other granules are always zero. A zero count means that the slot is free or young:
 *     young == zero count, and at or above block.young_begin, and below the cursor
 *              (or young_end once the cursor has left the block).
 * That one interval is the block's record of runs: a cursor hands out every free slot it passes,
 * counts change only while the world is stopped, and a block is acquired at most once per epoch.
 *     live + young + free == slot_count
 * (promoted objects are still among the young until the epoch settles the block).
 *
 * The life of a block: free -> active (a cursor is in it) -> spent (until the next epoch has dealt
 * with it) -> partial (on its bin's list) or full -> active again; and free whenever nothing in it
 * lives.
 *
 * Lock: heap->lock guards the lists of blocks; while the world is stopped the collector alone uses
 * them.
 */
#ifndef CRN_HEAP_H
#define CRN_HEAP_H

#include "base/lock.h"
#include "heap/layout.h"
#include "os/checker.h"
#include "space/space.h"

#include <cairn/runtime.h>

#include <stddef.h>

enum crn_block_state {
    CRN_BLOCK_FREE = 0,
    CRN_BLOCK_ACTIVE,
    CRN_BLOCK_SPENT,
    CRN_BLOCK_ROOMY,   /* settled: at most half of its slots are in use, */
    CRN_BLOCK_PARTIAL, /* some are free, */
    CRN_BLOCK_FULL,    /* none, or too few to bother */
    CRN_BLOCK_BODY,    /* the middle of a run of blocks; body_of tells how far back its head is */
};

/* What the pages of an untyped block hold; see gc/untyped.c. One row per page. */
enum { CRN_PAGE_BYTES = 4096 };
struct crn_row {
    void **held;    /* one count each; NULL: it died in a trace */
    uint32_t count; /* of held */
    bool is_stale;  /* atomic while several work */
};
struct crn_pages {
    size_t row_count;
    bool has_stale; /* some row is stale, or was; atomic */
    struct crn_row rows[];
};

/* The first line is all that counting and death look at: one cache miss for each block that they
 * come to. (Not the segment's header: those of all segments fall into one set of the caches.) */
enum crn_seal { CRN_UNSEALED = 0, CRN_SEALED_BY_DELETION, CRN_SEALED_BY_DEATH };

struct crn_block {
    _Alignas(128) struct crn_type *type;
    struct crn_heap *heap;
    char *base; /* the first slot */
    char *young_begin, *young_end;
    struct cairn_cursor *cursor; /* of the thread that bumps through it, or NULL */
    uint32_t reciprocal;
    uint16_t slot_size; /* 0: one object of base..end, or no head of a block in use */
    uint16_t slot_count;
    uint16_t live;     /* mature objects */
    uint16_t promoted; /* young ones that this epoch has counted; atomic while several work */
    uint8_t state;
    uint8_t content; /* of type, for the hot paths */
    bool is_sized;
    bool has_extras; /* some object is deleted, or has a finalizer, a weak cell, cleanups, pins */
    struct crn_bin *bin;
    char *end; /* behind the last slot */
    struct crn_block *next, *prev;
    size_t used_bytes; /* of each object, where the block is not of sized slots */
    bool is_fresh;     /* zero since the kernel gave it */
    uint8_t body_of;
    bool is_guarded;
    uint8_t sealed;          /* enum crn_seal, of a guarded one; see guard.c */
    bool has_special;        /* of those extras, other than deletions */
    uint16_t run_blocks;     /* of a run's head */
    struct crn_pages *pages; /* of an untyped block in use, else NULL */
    struct crn_birth birth;  /* of the object, where the block is not of slots; see births.c */
};
_Static_assert(CRN_SMALL_MAX <= UINT16_MAX && CRN_BLOCK_BYTES / CRN_GRANULE <= UINT16_MAX,
               "slots are counted in 16 bits");
_Static_assert(sizeof(struct crn_block) == 128, "descriptors are 128 bytes, see space.h");
_Static_assert(offsetof(struct crn_block, bin) == 64, "the first line is full");

struct crn_segment {
    struct crn_heap *heap;
    struct crn_segment *next, *prev;
    uint64_t free_map[2]; /* bit per block */
    uint32_t free_count;
    uint32_t segment_count; /* of a large object */
    bool is_for_runs;       /* its blocks serve objects of several blocks only */
    uint32_t untyped_count; /* untyped blocks in use */
    uint32_t watch;         /* generation of the watch for writes, 0: none */
    struct crn_segment *next_untyped, *prev_untyped;
    struct crn_block large; /* its descriptor */
};
_Static_assert(sizeof(struct crn_segment) <= 1024, "the header lies before descriptor 8");

struct crn_block_list {
    struct crn_block *first, *last;
};

/* The settled blocks of a bin that have room, longest waiting first. Partial ones are taken when no
 * free block is left: until then more of what is in them dies, and what is free becomes longer
 * runs. Roomy ones go before free blocks. So one object in each of many blocks, as those whose
 * counts are stuck, does not make the heap grow: a bin takes a free block only when more than half
 * is in use of each that it has. */
struct crn_rooms {
    struct crn_block_list roomy, partial;
};

/* Guarded objects: where the next one goes, and what waits after death, oldest first. Under the
 * heap's lock. */
struct crn_guards {
    struct crn_segment *segment;
    size_t next_index; /* of its blocks */
    struct crn_block *first, *last;
    size_t waiting;
};

struct crn_heap {
    struct crn_region region;
    struct crn_lock lock;
    uint32_t index; /* in the process's table of heaps */
    char name[32];
    struct crn_segment *segments; /* blocky ones */
    struct crn_segment *larges;
    struct crn_segment *untyped; /* segments with untyped blocks in use */
    /* Free blocks of segments for single blocks, last freed first: still warm. */
    struct crn_block_list free_blocks;
    size_t free_block_count;
    struct crn_guards guards;
    struct crn_rooms *rooms; /* per bin */
    size_t rooms_capacity;
    /* Figures; atomic where threads allocate, plain where the world is stopped. */
    uint64_t allocated_bytes;          /* atomic; taken by cursors and objects of their own */
    uint64_t live_bytes, live_objects; /* atomic while several workers count */
    uint64_t promoted_bytes;           /* in this epoch */
    uint64_t freed_count_bytes, freed_count_objects, freed_trace_bytes, freed_trace_objects;
    uint64_t freed_young_bytes, deleted_objects;
    uint64_t epoch_allocated_bytes; /* allocated_bytes at the last epoch */
    uint64_t drained_bytes;         /* live when an epoch last began with nothing queued; atomic */
    struct crn_heap *next;
};

/* Objects were deleted or slots freed. */
CRN_INLINE void crn_deaths_happened(void) {
    __atomic_fetch_add(&cairn_runtime.deaths, 1, __ATOMIC_RELEASE);
}

/* Whether anybody goes by that number; atomic. Who starts to says so before it reads the number and
 * looks. A deletion has set the deleted bit, with a full fence, before it asks: if it finds nobody,
 * whoever starts then sees the bit. */
extern bool crn_deaths_are_watched;
CRN_INLINE void crn_deaths_watch(void) {
    if (CRN_LIKELY(__atomic_load_n(&crn_deaths_are_watched, __ATOMIC_ACQUIRE))) return;
    __atomic_store_n(&crn_deaths_are_watched, true, __ATOMIC_SEQ_CST);
    CRN_FULL_FENCE();
}

/* What a thread keeps for one heap. Only its thread touches it, or the collector while it is
 * stopped. */
struct crn_run {
    struct crn_block *block;
    char *end;       /* of the free run that the cursor is in; the cursor's limit is zeroed up to */
    bool has_filled; /* a block: so it will probably fill the next one */
};
struct crn_cache {
    struct crn_heap *heap;
    struct cairn_cursor *cursors; /* per bin */
    struct crn_run *runs;         /* per bin */
    uint32_t capacity;
    struct crn_block *acquired;                 /* active and spent ones, linked by next */
    uint64_t unreported_bytes;                  /* taken, and not yet in the heap's figure */
    uint64_t guard_random, guard_not_before_ns; /* guard mode: see guard.c */
    uint32_t guard_countdown;                   /* allocations before the next guarded one */
    struct crn_cache *next;
};

/* A cache tells its heap what it took in lumps: an atomic addition waits for every store before it,
 * and those before it are the zeroing of memory that is not in the cache. */
enum { CRN_REPORT_BYTES = 16 * 1024 };
CRN_INLINE void crn_cache_report(struct crn_cache *cache) {
    __atomic_fetch_add(&cache->heap->allocated_bytes, cache->unreported_bytes, __ATOMIC_RELAXED);
    cache->unreported_bytes = 0;
}

/* The runtime's own memory; zeroed; never from malloc, since threads are stopped inside malloc. */
void *crn_meta_alloc(size_t bytes);
void crn_meta_free(void *memory, size_t bytes);

bool crn_heap_init(struct crn_heap *heap, size_t region_bytes);
void crn_heap_deinit(struct crn_heap *heap);

struct crn_bin *crn_bin_of(uint32_t id); /* one that was made */
/* The bin of a type's single objects, or of its sized objects of one class; NULL without memory. */
struct crn_bin *crn_bin_fixed(struct crn_type *type);
struct crn_bin *crn_bin_sized(struct crn_type *type, uint32_t class_index);
uint32_t crn_bin_count(void);

bool crn_cache_init(struct crn_cache *cache, struct crn_heap *heap);
void crn_cache_free(struct crn_cache *cache); /* its blocks are somebody else's, or gone */
/* A zeroed slot; NULL if the heap has no room. The caller is in a no-stop section. */
void *crn_cache_allocate(struct crn_cache *cache, struct crn_bin *bin);
/* An object of its own blocks or segments. */
void *crn_cache_allocate_own(struct crn_cache *cache, struct crn_type *type, size_t bytes,
                             size_t align, bool is_sized);
/* The same on pages of its own; see guard.c. */
void *crn_cache_allocate_guarded(struct crn_cache *cache, struct crn_type *type, size_t bytes,
                                 size_t align, bool is_sized);
/* Leave every block; the cache's blocks stay listed as acquired for the next epoch. */
void crn_cache_leave(struct crn_cache *cache);

/* While the world is stopped. */
void crn_block_settle(struct crn_block *block);   /* after an epoch: to its list */
void crn_block_free(struct crn_block *block);     /* nothing in it lives */
void crn_block_has_room(struct crn_block *block); /* a slot of a settled one died */
/* Give back wholly free segments, all or but for some that are likely to be taken again. */
void crn_heap_trim(struct crn_heap *heap, bool wants_all);

/* Blocks with fewer free slots than this wait: acquiring them would cost more than it gives. */
CRN_INLINE uint32_t crn_block_room(const struct crn_block *block) {
    return block->slot_count > 8 ? block->slot_count / 8 : 1;
}

/* With so many live ones or fewer a block is roomy. */
CRN_INLINE uint32_t crn_block_roomy(const struct crn_block *block) {
    return block->slot_count / 2;
}

/* No thread's: an epoch has counted what is in it. */
CRN_INLINE bool crn_block_is_settled(const struct crn_block *block) {
    uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
    return state >= CRN_BLOCK_ROOMY && state <= CRN_BLOCK_FULL;
}

/* Visit every block head of a blocky segment that is not free. */
void crn_segment_each_block(struct crn_segment *segment,
                            void (*visit)(struct crn_block *block, void *context), void *context);
/* Visit every block head that is not free, large objects included. */
void crn_heap_each_block(struct crn_heap *heap,
                         void (*visit)(struct crn_block *block, void *context), void *context);

/* Visit the untyped blocks in use of one segment. */
void crn_segment_each_untyped(struct crn_segment *segment,
                              void (*visit)(struct crn_block *block, bool flag), bool flag);

/* Before the heap is destroyed: its untyped blocks, whose pages hold nothing any more. */
void crn_heap_close_pages(struct crn_heap *heap);

/* ---- From an address to its object
 * --------------------------------------------------------------- */

/* The block of an address in a blocky segment. */
CRN_INLINE struct crn_block *crn_block_in_table(const void *address) {
    uintptr_t index = ((uintptr_t)address & (CRN_SEGMENT_BYTES - 1)) >> CRN_BLOCK_SHIFT;
    return (struct crn_block *)(void *)(crn_segment_of(address) + index * sizeof(struct crn_block));
}

/* The block of an address in a blocky or large segment; NULL for tables and free blocks. */
CRN_INLINE struct crn_block *crn_block_of_start(const void *object) {
    if (CRN_UNLIKELY(crn_segment_kind(object) == CRN_SEGMENT_LARGE)) {
        return &((struct crn_segment *)(void *)crn_segment_of(object))->large;
    }
    return crn_block_in_table(object);
}

struct crn_block *crn_block_of_interior(const void *address);

/* The object that the address points into, or NULL: handed out and not dead. Any 64-bit word may be
 * asked. `block` is set where the result is not NULL. */
char *crn_object_of(const void *address, struct crn_block **block);

CRN_INLINE bool crn_is_young(const struct crn_block *block, const char *slot) {
    const char *end = block->cursor ? block->cursor->next : block->young_end;
    return slot >= block->young_begin && slot < end;
}

CRN_INLINE size_t crn_object_bytes(const struct crn_block *block) {
    return block->slot_size ? block->slot_size : (size_t)(block->end - block->base);
}

/* What has segments of its own has no verdicts. */
CRN_INLINE bool crn_object_has_verdicts(const char *object) {
    return CRN_UNLIKELY(crn_verdicts_are_kept()) && crn_segment_kind(object) != CRN_SEGMENT_LARGE;
}

/* It is dead, and its slot about to be free. */
void crn_object_ended_slow(const struct crn_block *block, const char *object);
CRN_INLINE void crn_object_ended(const struct crn_block *block, const char *object) {
    if (CRN_UNLIKELY(crn_space.notes_ends)) crn_object_ended_slow(block, object);
}

/* Bytes in use of an object: the whole element, or what a sized one was asked for. The object
 * lives, or a checker sees a read of what nobody may touch. */
CRN_INLINE size_t crn_object_used(const struct crn_block *block, const char *object) {
    if (!block->slot_size) return block->used_bytes;
    if (!block->is_sized) return block->type->size; /* used_bytes is on the second line */
    uint16_t unused;
    __builtin_memcpy(&unused, object + block->slot_size - 2, 2);
    /* A program that writes past the end of an array may write here: the slot stays the bound. */
    return unused <= block->slot_size ? (size_t)(block->slot_size - unused) : 0u;
}

/* Whether an address that counting met is the start of a slot of a heap: 16-aligned, outside
 * tables. */
CRN_INLINE bool crn_is_slot_aligned(const void *address) {
    uintptr_t a = (uintptr_t)address;
    return (a & (CRN_GRANULE - 1)) == 0 && (a & (CRN_SEGMENT_BYTES - CRN_TABLE_BYTES)) != 0;
}

#endif
