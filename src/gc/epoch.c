/* SPDX-License-Identifier: MIT
 *
 * The counting epoch: logged stores and roots become counts (deferred and coalesced, after LXR:
 * Zhao, Blackburn, McKinley, PLDI 2022; Levanoni and Petrank, TOPLAS 2006; conservative roots after
 * Shahriyar, Blackburn, McKinley, OOPSLA 2014).
 *
 * In order, with the world stopped:
 *  1. Roots. Each object that a root names gets one count and its bit of this epoch's parity; one
 * that had the bit of the last epoch keeps the count it already has.
 *  2. The log. Each field gives a count to what it holds now, queues a decrement for what it held
 * at the last epoch, and has its log bit set again.
 *  3. Promotion. Whoever goes from zero to one is checked to be the start of a handed-out slot,
 * becomes mature, has its log bits set and gives counts to what its fields hold; and so on.
 *     Untyped pages that were written or are new are scanned, and hold what they name; untyped.c.
 *  4. Objects rooted at the last epoch and not now queue a decrement.
 *  5. Young objects with extras that nobody counted are dead: they are told. Other dead young
 * objects are never touched: their slots' counts are zero. Blocks are settled: what was promoted in
 * them counts as live, and their records end.
 *  6. Decrements. Who reaches zero gives up its fields in turn; its count is written last. An epoch
 * that was asked for applies all of them; else they are left to slices between the epochs
 * (death.c). Increments come before decrements, so that no count falls to zero that should not.
 */
#include "gc/gc.h"

#include "base/described.h"

#include <string.h>

struct crn_gc crn_gc;

enum { BACKLOG_MIN = 4096 };

/* ---- Roots --------------------------------------------------------------------------------------
 */

void crn_root_object(char *object) {
    unsigned parity = crn_gc.parity;
    struct crn_bit bit = crn_root_bit(object, parity);
    if (crn_bit_get(bit)) return;
    *bit.byte |= bit.mask;
    crn_push(&crn_gc.roots[parity], object);
    if (!crn_bit_get(crn_root_bit(object, !parity))) crn_count_increment(object);
}

/* What tells of a word's object comes from memory meanwhile: the objects of a thread lie in blocks
 * of its own. */
enum { WORDS_AHEAD = 16 };

static void look_ahead(const void *word) {
    CRN_PREFETCH_READ(crn_block_in_table(word));
    CRN_PREFETCH(crn_count_of(word));
    CRN_PREFETCH(crn_root_bit(word, 0).byte);
}

static void root_found(const struct crn_stack *found) {
    for (size_t i = 0; i < found->count + WORDS_AHEAD; i++) {
        if (i < found->count) look_ahead(found->items[i]);
        if (i < WORDS_AHEAD) continue;
        struct crn_block *block;
        char *object = crn_object_of(found->items[i - WORDS_AHEAD], &block);
        if (object) crn_root_object(object);
    }
}

/* ---- Around them
 * ------------------------------------------------------------------------------------------ */

static void give_back_held(void *object) {
    crn_push(&crn_gc.workers[0].decrements, object);
}

static void unroot_last(void) {
    struct crn_stack *last = &crn_gc.roots[!crn_gc.parity];
    for (size_t i = 0; i < last->count; i++) {
        struct crn_bit bit = crn_root_bit(last->items[i], !crn_gc.parity);
        *bit.byte &= (uint8_t)~bit.mask;
        if (!crn_bit_get(crn_root_bit(last->items[i], crn_gc.parity))) {
            crn_push(&crn_gc.workers[0].decrements, last->items[i]);
        }
    }
    last->count = 0;
}

/* Fields of single objects that were promoted: their bits are set for all slots of the record of
 * runs. Those of slots that stay free are cleared when a cursor opens them; those that a cursor has
 * opened and not yet handed out lie behind the record. */
static void set_log_bits(const struct crn_block *block, const char *low, const char *high) {
    uintptr_t memory = (uintptr_t)block->base & ~(CRN_BLOCK_BYTES - 1);
    uint64_t *bits =
        (uint64_t *)(void *)(cairn_runtime.log_bits + ((memory & crn_space.mask) >> 6));
    size_t from = ((uintptr_t)low - memory) >> 3, to = ((uintptr_t)high - memory) >> 3;
    if (from == to) return;
    uint64_t first_mask = UINT64_MAX << (from & 63);
    uint64_t last_mask = to & 63 ? ((uint64_t)1 << (to & 63)) - 1 : UINT64_MAX;
    size_t first = from >> 6, last = (to - 1) >> 6;
    for (size_t i = first; i <= last; i++) {
        uint64_t mask =
            (i == first ? first_mask : UINT64_MAX) & (i == last ? last_mask : UINT64_MAX);
        bits[i] |= block->type->log_bits[i] & mask;
    }
}

/* Young objects that nobody counted are dead from here on. What lies between them and is counted
 * loses its verdict where nothing was promoted, and needs none. */
static CRN_NOINLINE void end_dead_young(const struct crn_block *block, const char *young_end) {
    size_t step = crn_object_bytes(block);
    if (block->promoted == 0 && block->slot_size && !crn_checker_watches) {
        crn_verdicts_forget(block->young_begin, (size_t)(young_end - block->young_begin));
        return;
    }
    for (const char *slot = block->young_begin; slot < young_end; slot += step) {
        if (*crn_count_of(slot) == 0) crn_object_ended(block, slot);
    }
}

static void settle_promoted(struct crn_block *block, const char *young_end) {
    if (CRN_UNLIKELY(crn_space.notes_ends)) end_dead_young(block, young_end);
    if (!block->promoted) return;
    struct crn_heap *heap = block->heap;
    if (crn_has_log_bits(block)) {
        set_log_bits(block, block->young_begin, young_end);
    }
    uint64_t bytes = (uint64_t)block->promoted * crn_object_bytes(block);
    block->live += block->promoted;
    heap->live_objects += block->promoted;
    heap->live_bytes += bytes;
    heap->promoted_bytes += bytes;
    crn_gc.promoted_bytes += bytes;
    block->promoted = 0;
}

/* The record of runs ends here: what a cursor hands out from now on is young. */
static void settle_cache(struct crn_cache *cache) {
    struct crn_block *block = cache->acquired, *active = NULL;
    while (block) {
        struct crn_block *next = block->next;
        settle_promoted(block, block->cursor ? block->cursor->next : block->young_end);
        if (block->cursor) {
            block->young_begin = block->cursor->next;
            block->next = active;
            active = block;
        } else {
            bool is_dead_own = !block->slot_size && block->live == 0;
            /* Born logged: its fields have been counted, so it gives them up like a mature one. */
            if (is_dead_own && crn_large_is(block))
                crn_count_kill(block, block->base);
            else if (is_dead_own && block->content == CRN_EXACT)
                crn_count_give_up(block, block->base);
            crn_block_settle(block);
        }
        block = next;
    }
    cache->acquired = active;
}

static void settle_threads(void) {
    for (struct crn_thread **at = &crn_threads, *thread; (thread = *at) != NULL;) {
        for (struct crn_cache *cache = thread->caches; cache; cache = cache->next)
            settle_cache(cache);
        if (__atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) != CRN_THREAD_GONE) {
            at = &thread->next;
            continue;
        }
        *at = thread->next;
        crn_thread_free(thread);
    }
}

static void take_spare_chunks(void) {
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        bool is_gone = __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == CRN_THREAD_GONE;
        if (!is_gone && !thread->spare) thread->spare = crn_log_chunk_take();
    }
}

static void close_figures(cairn_heap *heap) {
    struct crn_heap *core = &heap->core;
    uint64_t young = core->allocated_bytes - core->epoch_allocated_bytes;
    if (young > core->promoted_bytes) core->freed_young_bytes += young - core->promoted_bytes;
    core->promoted_bytes = 0;
    core->epoch_allocated_bytes = core->allocated_bytes;
}

static void note_drained(void) {
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        __atomic_store_n(&heap->core.drained_bytes, heap->core.live_bytes, __ATOMIC_RELAXED);
    }
}

/* Decrements are the slices' work. Where those did not keep up, the rest of the pause helps. */
static void apply_queued(uint64_t deadline_ns, size_t left) {
    size_t queued = crn_gc.workers[0].decrements.count;
    crn_gc.is_behind = left > 0;
    crn_gc.is_swamped = left > BACKLOG_MIN && left > queued / 4;
    if (!deadline_ns || crn_gc.is_swamped) crn_count_decrements(deadline_ns);
    bool has_backlog = crn_gc.workers[0].decrements.count != 0 || crn_large_is_waiting();
    __atomic_store_n(&crn_gc.has_backlog, has_backlog, __ATOMIC_RELAXED);
}

void crn_epoch_run(bool is_bounded) {
    uint64_t started = crn_os_now_ns();
    uint64_t young_bytes = crn_young_bytes();
    size_t left = crn_gc.workers[0].decrements.count;
    if (left == 0 && !crn_large_is_waiting()) note_drained();
    crn_gc.promoted_bytes = 0;
    crn_gc.parity = !crn_gc.parity;
    crn_gc.workers[0].thread = crn_self();
    /* A helper comes too late for short work, and may lose its processor amid it. */
    double goal_ns = (double)crn_gc.pause_goal_ns;
    bool is_long = crn_gc.last_counting_ns > 0.7 * goal_ns || crn_gc.last_root_ns > 0.2 * goal_ns;
    if (is_long) crn_reclaim_help();
    crn_scan_roots();
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) root_found(&crn_gc.workers[i].found);
    uint64_t rooted = crn_os_now_ns();
    crn_extras_count();
    crn_count_logs();
    crn_untyped_ask();
    crn_untyped_renew();
    crn_finalized_take(give_back_held);
    unroot_last();
    crn_extras_judge_young();
    crn_gc.workers[0].entries += crn_deletions_settle(true);
    crn_untyped_renew();
    take_spare_chunks();
    crn_count_settle();
    settle_threads();
    uint64_t deadline_ns = is_bounded ? started + crn_gc.pause_goal_ns * 9 / 10 : 0;
    crn_count_resume(deadline_ns);
    apply_queued(deadline_ns, left);
    uint64_t entries = 0;
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) {
        entries += crn_gc.workers[i].entries;
        crn_gc.workers[i].entries = 0;
        crn_worker_flush(&crn_gc.workers[i]);
    }
    crn_gc.epoch++;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) close_figures(heap);
    crn_gc.logged_entries = 0;
    crn_gc.left_bytes = 0;
    crn_pace_after_epoch(crn_os_now_ns() - started, rooted - started, entries, young_bytes);
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_MEMBER(crn_gc, epoch),
    CRN_MEMBER(crn_gc, trace_number),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(crn_gc),
};
