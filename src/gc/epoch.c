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
 *  4. Objects rooted at the last epoch and not now queue a decrement.
 *  5. Young objects with extras that nobody counted are dead: they are told. Other dead young
 * objects are never touched: their slots' counts are zero and their blocks' records end here.
 *  6. Decrements. Who reaches zero gives up its fields in turn; its count is written last.
 * Increments come before decrements, so that no count falls to zero that should not.
 */
#include "gc/gc.h"

#include <string.h>

struct crn_gc crn_gc;

/* ---- Roots --------------------------------------------------------------------------------------
 */

static void root_object(char *object) {
    unsigned parity = crn_gc.parity;
    struct crn_bit bit = crn_root_bit(object, parity);
    if (crn_bit_get(bit)) return;
    *bit.byte |= bit.mask;
    crn_push(&crn_gc.roots[parity], object);
    if (!crn_bit_get(crn_root_bit(object, !parity))) crn_count_increment(object);
}

static void root_word(void *word) {
    struct crn_block *block;
    char *object = crn_object_of(word, &block);
    if (object) root_object(object);
}

void crn_root_untyped(const struct crn_block *block, char *object) {
    crn_scan_words(object, object + crn_object_used(block, object), root_word);
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

static void scan_untyped_block(struct crn_block *block, void *context) {
    (void)context;
    if (block->content != CRN_UNTYPED || block->live == 0) return;
    size_t step = crn_object_bytes(block);
    for (char *object = block->base; object < block->end; object += step) {
        if (*crn_count_of(object) == 0) continue;
        crn_root_untyped(block, object);
    }
}

/* The record of runs ends here: what a cursor hands out from now on is young. */
static void settle_cache(struct crn_cache *cache) {
    struct crn_block *block = cache->acquired, *active = NULL;
    while (block) {
        struct crn_block *next = block->next;
        if (block->cursor) {
            block->young_begin = block->cursor->next;
            block->next = active;
            active = block;
        } else {
            if (!block->slot_size && block->live == 0 && block->content == CRN_EXACT) {
                /* Born logged: its fields have been counted, so it gives them up like a mature one.
                 */
                crn_count_give_up(block, block->base);
            }
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
        for (struct crn_cache *cache = thread->caches, *next; cache; cache = next) {
            next = cache->next;
            crn_meta_free(cache->cursors, cache->capacity * sizeof(*cache->cursors));
            crn_meta_free(cache->runs, cache->capacity * sizeof(*cache->runs));
            crn_meta_free(cache, sizeof(*cache));
        }
        if (thread->spare) crn_log_chunk_give(thread->spare);
        crn_meta_free(thread, sizeof(*thread));
    }
}

static void take_spare_chunks(void) {
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        if (!thread->spare) thread->spare = crn_log_chunk_take();
    }
}

static void close_figures(cairn_heap *heap) {
    struct crn_heap *core = &heap->core;
    uint64_t young = core->allocated_bytes - core->epoch_allocated_bytes;
    if (young > core->promoted_bytes) core->freed_young_bytes += young - core->promoted_bytes;
    core->promoted_bytes = 0;
    core->epoch_allocated_bytes = core->allocated_bytes;
}

void crn_epoch_run(bool is_bounded) {
    uint64_t started = crn_os_now_ns();
    uint64_t young_bytes = crn_young_bytes();
    crn_gc.promoted_bytes = crn_gc.freed_bytes = 0;
    crn_gc.parity = !crn_gc.parity;
    crn_gc.workers[0].thread = crn_self();
    crn_scan_roots(root_word);
    uint64_t rooted = crn_os_now_ns();
    crn_gc.real_root_count = crn_gc.roots[crn_gc.parity].count;
    crn_extras_count();
    crn_count_logs();
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        if (crn_any_untyped) crn_heap_each_block(&heap->core, scan_untyped_block, NULL);
    }
    crn_count_drain();
    crn_finalized_take(give_back_held);
    unroot_last();
    crn_extras_judge_young();
    take_spare_chunks();
    settle_threads();
    crn_count_decrements(is_bounded ? started + crn_settings.pause_goal_ns * 9 / 10 : 0);
    uint64_t entries = 0;
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) {
        entries += crn_gc.workers[i].entries;
        crn_gc.workers[i].entries = 0;
        crn_worker_flush(&crn_gc.workers[i]);
    }
    crn_gc.epoch++;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) close_figures(heap);
    crn_gc.logged_entries = 0;
    crn_pace_after_epoch(crn_os_now_ns() - started, rooted - started, entries, young_bytes);
}
