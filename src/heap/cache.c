/* SPDX-License-Identifier: MIT
 *
 * Cursors: how a thread walks through the free slots of its blocks.
 *
 * A cursor's limit is what has been zeroed; the run's end is what is free. The slow path zeroes the
 * next piece of the run, finds the next run of the block, or takes another block. A piece is small
 * enough to stay in the first-level cache until it is handed out. The collector never moves a
 * cursor: its thread may be stopped between loading and storing it.
 */
#include "heap/guard.h"

#include <cairn/runtime.h>
#include <string.h>

enum { PIECE_BYTES = 4096 };

struct crn_block *crn_heap_take_block(struct crn_heap *heap, struct crn_bin *bin);
struct crn_block *crn_heap_take_run(struct crn_heap *heap, struct crn_type *type, size_t bytes,
                                    size_t used, size_t align, bool is_sized);
struct crn_block *crn_heap_take_large(struct crn_heap *heap, struct crn_type *type, size_t bytes,
                                      size_t used, size_t align, bool is_sized);

static bool grow(struct crn_cache *cache, uint32_t id) {
    uint32_t capacity = (uint32_t)crn_max(crn_round_up(id + 1, 64), (size_t)cache->capacity * 2);
    struct cairn_cursor *cursors = crn_meta_alloc(capacity * sizeof(*cursors));
    struct crn_run *runs = crn_meta_alloc(capacity * sizeof(*runs));
    if (!cursors || !runs) {
        crn_meta_free(cursors, capacity * sizeof(*cursors));
        crn_meta_free(runs, capacity * sizeof(*runs));
        return false;
    }
    for (uint32_t i = 0; i < cache->capacity; i++) {
        cursors[i] = cache->cursors[i];
        runs[i] = cache->runs[i];
        if (runs[i].block) runs[i].block->cursor = &cursors[i];
    }
    /* The inline path of this thread must not see the old row again. */
    if (cairn_thread.cursors == cache->cursors && cache->cursors) {
        cairn_thread.cursors = cursors;
        cairn_thread.cursor_count = capacity;
    }
    crn_meta_free(cache->cursors, cache->capacity * sizeof(*cursors));
    crn_meta_free(cache->runs, cache->capacity * sizeof(*runs));
    cache->cursors = cursors;
    cache->runs = runs;
    cache->capacity = capacity;
    return true;
}

bool crn_cache_init(struct crn_cache *cache, struct crn_heap *heap) {
    memset(cache, 0, sizeof(*cache));
    cache->heap = heap;
    return grow(cache, 0);
}

void crn_cache_free(struct crn_cache *cache) {
    crn_meta_free(cache->cursors, cache->capacity * sizeof(*cache->cursors));
    crn_meta_free(cache->runs, cache->capacity * sizeof(*cache->runs));
    crn_meta_free(cache, sizeof(*cache));
}

/* Clears the log bits of [low, high). Bytes shared with neighbours change atomically. */
static void clear_log_bits(const char *low, const char *high) {
    uintptr_t a = (uintptr_t)low & crn_space.mask;
    uintptr_t b = a + (uintptr_t)(high - low);
    uint8_t *bits = cairn_runtime.log_bits;
    uint8_t first_kept = (uint8_t)((1u << ((a >> 3) & 7)) - 1);
    uint8_t last_cleared = (uint8_t)((1u << ((b >> 3) & 7)) - 1);
    if (a >> 6 == b >> 6) {
        uint8_t kept = (uint8_t)(first_kept | (uint8_t)~last_cleared);
        __atomic_fetch_and(bits + (a >> 6), kept, __ATOMIC_RELAXED);
        return;
    }
    if (first_kept) {
        __atomic_fetch_and(bits + (a >> 6), first_kept, __ATOMIC_RELAXED);
        a += 64;
    }
    memset(bits + (a >> 6), 0, (b >> 6) - (a >> 6));
    if (last_cleared) {
        __atomic_fetch_and(bits + (b >> 6), (uint8_t)~last_cleared, __ATOMIC_RELAXED);
    }
}

/* Where a checker watches a piece is one slot: each allocation comes by, and what it opens ends
 * with the object. The end of a sized one is known to who writes its trailer. */
static void open_piece(struct crn_cache *cache, struct cairn_cursor *cursor, struct crn_run *run) {
    struct crn_block *block = run->block;
    char *from = cursor->limit;
    size_t slot_size = block->slot_size, piece = PIECE_BYTES / slot_size * slot_size;
    if (piece == 0) piece = slot_size;
    char *to = (size_t)(run->end - from) <= piece ? run->end : from + piece;
    bool is_watched = crn_checker_watches;
    if (CRN_UNLIKELY(is_watched)) {
        to = from + slot_size;
        crn_checker_allow(from, slot_size);
    }
    if (CRN_UNLIKELY(crn_guard_period > 1)) to = crn_guard_shorten(cache, from, to, slot_size);
    if (!block->is_fresh) {
        memset(from, 0, (size_t)(to - from));
        if (block->content == CRN_EXACT) clear_log_bits(from, to);
        crn_region_sites_forget(&block->heap->region, from, to);
    }
    if (CRN_UNLIKELY(is_watched && !block->is_sized)) {
        crn_checker_forbid(from + block->type->size, slot_size - block->type->size);
    }
    cache->unreported_bytes += (uint64_t)(to - from);
    cursor->limit = to;
}

/* The first free slot at or after `from`, or NULL. */
static char *find_run(const struct crn_block *block, const char *from) {
    const uint8_t *counts = crn_count_of(block->base);
    size_t step = block->slot_size >> CRN_GRANULE_SHIFT;
    size_t index = (size_t)(from - block->base) >> CRN_GRANULE_SHIFT;
    size_t last = (size_t)(block->end - block->base) >> CRN_GRANULE_SHIFT;
    while (index < last && __atomic_load_n(&counts[index], __ATOMIC_RELAXED) != 0) index += step;
    return index < last ? block->base + (index << CRN_GRANULE_SHIFT) : NULL;
}

/* The end of the run of free slots that begins at `begin`. */
static char *end_of_run(const struct crn_block *block, const char *begin) {
    const uint8_t *counts = crn_count_of(block->base);
    size_t index = (size_t)(begin - block->base) >> CRN_GRANULE_SHIFT;
    size_t last = (size_t)(block->end - block->base) >> CRN_GRANULE_SHIFT;
    /* Counts of a slot's other granules are zero, so whole words may be skipped. Relaxed: a slice
     * of decrements may change a count here meanwhile, but neither from zero nor to it. */
    while (index < last && __atomic_load_n(&counts[index], __ATOMIC_RELAXED) == 0) {
        const uint64_t *word = (const uint64_t *)(const void *)(counts + index);
        bool is_zero_word =
            index % 8 == 0 && index + 8 <= last && __atomic_load_n(word, __ATOMIC_RELAXED) == 0;
        index += is_zero_word ? 8 : 1;
    }
    return block->base + (index << CRN_GRANULE_SHIFT);
}

/* In a fragmented block each run is a slot or two in memory that nobody has touched for long: ask
 * for the following one while the program fills this one. */
static void open_run(const struct crn_block *block, struct cairn_cursor *cursor,
                     struct crn_run *run, char *begin) {
    cursor->next = begin;
    cursor->limit = begin;
    run->end = end_of_run(block, begin);
    const char *following = find_run(block, run->end);
    if (!following) return;
    for (size_t line = 0; line < block->slot_size && line < 256; line += CRN_CACHE_LINE) {
        __builtin_prefetch(following + line, 1);
    }
}

static void leave(struct cairn_cursor *cursor, struct crn_run *run) {
    struct crn_block *block = run->block;
    block->young_end = cursor->next;
    __atomic_store_n(&block->cursor, NULL, __ATOMIC_RELEASE); /* see is_young_now */
    block->is_fresh = false;
    /* Relaxed: to who looks meanwhile, active and spent are the same. */
    __atomic_store_n(&block->state, CRN_BLOCK_SPENT, __ATOMIC_RELAXED);
    run->block = NULL;
    cursor->limit = NULL;
    __atomic_store_n(&cursor->next, NULL, __ATOMIC_RELEASE);
}

static bool next_run(struct crn_cache *cache, struct cairn_cursor *cursor, struct crn_run *run,
                     struct crn_bin *bin) {
    /* Asked anew, for an epoch may have freed slots since the look ahead; whatever the cursor
     * passes over must have a count, or it would pass for young. */
    char *begin = NULL;
    if (run->block) {
        begin = find_run(run->block, run->end);
        if (!begin) {
            leave(cursor, run);
            run->has_filled = true;
        }
    }
    while (!begin) {
        struct crn_block *block = crn_heap_take_block(cache->heap, bin);
        if (!block) return false;
        block->young_begin = block->base;
        block->next = cache->acquired;
        cache->acquired = block;
        run->block = block;
        /* Its counts' page is there before an epoch needs it: the fault is not the pause's. */
        if (block->is_fresh) __atomic_store_n(crn_count_of(block->base), 0, __ATOMIC_RELAXED);
        /* One page at a time costs up to twice as much, in a virtual machine above all. */
        if (block->is_fresh && run->has_filled) crn_os_populate(block->base, CRN_BLOCK_BYTES);
        cursor->next = cursor->limit = block->base;
        block->cursor = cursor;
        begin = find_run(block, block->base);
        if (!begin) leave(cursor, run);
    }
    open_run(run->block, cursor, run, begin);
    return true;
}

void *crn_cache_allocate(struct crn_cache *cache, struct crn_bin *bin) {
    if (bin->id >= cache->capacity && !grow(cache, bin->id)) return NULL;
    struct cairn_cursor *cursor = &cache->cursors[bin->id];
    struct crn_run *run = &cache->runs[bin->id];
    if ((size_t)(cursor->limit - cursor->next) < bin->slot_size) {
        if (!run->block || cursor->limit == run->end) {
            if (!next_run(cache, cursor, run, bin)) return NULL;
        }
        open_piece(cache, cursor, run);
    }
    char *slot = cursor->next;
    cursor->next = slot + bin->slot_size;
    return slot;
}

void *crn_cache_allocate_own(struct crn_cache *cache, struct crn_type *type, size_t bytes,
                             size_t align, bool is_sized) {
    size_t blocks_max = (CRN_SEGMENT_BLOCKS - CRN_FIRST_BLOCK) / 2 * CRN_BLOCK_BYTES;
    align = crn_max(align, CRN_GRANULE);
    size_t room = bytes + 1 + crn_redzone_bytes;
    struct crn_block *block =
        room + align <= blocks_max
            ? crn_heap_take_run(cache->heap, type, room, bytes, align, is_sized)
            : crn_heap_take_large(cache->heap, type, room, bytes, align, is_sized);
    if (!block) return NULL;
    block->next = cache->acquired;
    cache->acquired = block;
    cache->unreported_bytes += crn_object_bytes(block);
    crn_checker_allow(block->base, bytes);
    return block->base;
}

void *crn_cache_allocate_guarded(struct crn_cache *cache, struct crn_type *type, size_t bytes,
                                 size_t align, bool is_sized) {
    uint64_t began = crn_os_now_ns();
    struct crn_block *block = crn_heap_take_guarded(cache->heap, type, bytes, align, is_sized);
    if (!block) return NULL;
    block->next = cache->acquired;
    cache->acquired = block;
    cache->unreported_bytes += crn_object_bytes(block);
    crn_guard_note_cost(cache, began);
    crn_checker_allow(block->base, bytes);
    return block->base;
}

void crn_cache_leave(struct crn_cache *cache) {
    for (uint32_t i = 0; i < cache->capacity; i++) {
        if (cache->runs[i].block) leave(&cache->cursors[i], &cache->runs[i]);
    }
}
