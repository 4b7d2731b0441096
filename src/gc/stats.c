/* SPDX-License-Identifier: MIT
 *
 * Figures and the walk.
 */
#include "gc/gc.h"

struct sums {
    uint64_t slots, used, taken, segments; /* bytes; of slots, of live ones, of blocks, of tables */
};

static void sum_block(struct crn_block *block, void *context) {
    struct sums *sums = context;
    sums->slots += (uint64_t)block->slot_count * crn_object_bytes(block);
    sums->used +=
        (uint64_t)__atomic_load_n(&block->live, __ATOMIC_RELAXED) * crn_object_bytes(block);
    if (crn_segment_kind(block) == CRN_SEGMENT_LARGE) {
        const struct crn_segment *segment =
            (const struct crn_segment *)(void *)crn_segment_of(block);
        sums->taken += ((uint64_t)segment->segment_count << CRN_SEGMENT_SHIFT) - CRN_TABLE_BYTES;
        sums->segments++;
    } else {
        sums->taken += (uint64_t)block->run_blocks << CRN_BLOCK_SHIFT;
    }
}

static uint64_t blocky_segments(const struct crn_heap *core) {
    uint64_t count = 0;
    for (const struct crn_segment *at = core->segments; at; at = at->next) count++;
    return count;
}

/* Deleted ones are told apart from what died otherwise. */
static void fill_deaths(const cairn_heap *heap, cairn_stats *stats) {
    const struct crn_heap *core = &heap->core;
    const struct crn_deleted *by_count = &heap->deleted[CRN_DEATH_BY_COUNT];
    const struct crn_deleted *young = &heap->deleted[CRN_DEATH_YOUNG];
    const struct crn_deleted *by_trace = &heap->deleted[CRN_DEATH_BY_TRACE];
    stats->freed_by_count_bytes =
        __atomic_load_n(&core->freed_count_bytes, __ATOMIC_RELAXED) - by_count->bytes;
    stats->freed_by_count_objects =
        __atomic_load_n(&core->freed_count_objects, __ATOMIC_RELAXED) - by_count->objects;
    stats->freed_young_bytes = core->freed_young_bytes - young->bytes;
    stats->freed_by_trace_bytes = core->freed_trace_bytes - by_trace->bytes;
    stats->freed_by_trace_objects = core->freed_trace_objects - by_trace->objects;
    stats->freed_by_delete_bytes = by_count->bytes + young->bytes + by_trace->bytes;
    stats->freed_by_delete_objects = by_count->objects + young->objects + by_trace->objects;
    crn_deletions_count(heap, &stats->deleted_objects, &stats->waiting_objects);
}

static void fill_parts(struct crn_heap *core, cairn_stats *stats) {
    struct sums sums = {0};
    crn_heap_each_block(core, sum_block, &sums);
    uint64_t segments = crn_region_committed(&core->region);
    /* What a cursor handed out is in slots that have no count: young, not free. */
    uint64_t empty = sums.slots - sums.used;
    stats->free_in_blocks_bytes = empty > stats->young_bytes ? empty - stats->young_bytes : 0;
    stats->free_blocks_bytes = core->free_block_count << CRN_BLOCK_SHIFT;
    stats->slack_bytes = sums.taken - sums.slots;
    stats->metadata_bytes = (sums.segments + blocky_segments(core)) * CRN_TABLE_BYTES;
    stats->reserved_bytes = core->region.segment_count << CRN_SEGMENT_SHIFT;
    stats->committed_bytes = segments << CRN_SEGMENT_SHIFT;
    stats->shadow_bytes = stats->committed_bytes / 128 * 6;
}

cairn_status cairn_stats_get(cairn_heap *heap, cairn_stats *stats) {
    if (!stats || stats->size != sizeof(*stats)) return CAIRN_ERROR_ARGUMENT;
    uint64_t resident = crn_os_resident();
    struct crn_thread *self = crn_enter();
    if (!heap) heap = crn_default_heap;
    struct crn_heap *core = &heap->core;
    for (struct crn_cache *cache = self->caches; cache; cache = cache->next)
        crn_cache_report(cache);
    crn_lock_acquire(&core->lock);
    uint64_t allocated = __atomic_load_n(&core->allocated_bytes, __ATOMIC_RELAXED);
    *stats = (cairn_stats){
        .size = sizeof(*stats),
        .live_bytes = __atomic_load_n(&core->live_bytes, __ATOMIC_RELAXED),
        .live_objects = __atomic_load_n(&core->live_objects, __ATOMIC_RELAXED),
        .young_bytes = allocated - core->epoch_allocated_bytes,
        .allocated_bytes = allocated,
        .epochs = crn_gc.epoch,
        .traces = crn_gc.trace_number,
        .pause_ns_min = crn_gc.pauses.min,
        .pause_ns_median = crn_histogram_quantile(&crn_gc.pauses, 0.5),
        .pause_ns_p99 = crn_histogram_quantile(&crn_gc.pauses, 0.99),
        .pause_ns_max = crn_gc.pauses.max,
        .pause_ns_total = crn_gc.pause_total_ns,
        .root_ns_total = crn_gc.root_total_ns,
        .trace_ns_max = crn_gc.trace_ns_max,
        .resident_bytes = resident,
    };
    fill_deaths(heap, stats);
    fill_parts(core, stats);
    crn_lock_release(&core->lock);
    crn_leave();
    return CAIRN_OK;
}

struct walk {
    cairn_visit visit;
    void *context;
    bool is_over;
};

static void walk_block(struct crn_block *block, void *context) {
    struct walk *walk = context;
    size_t step = crn_object_bytes(block);
    for (char *object = block->base; object < block->end && !walk->is_over; object += step) {
        size_t count = *crn_count_of(object);
        if (count == 0) continue;
        walk->is_over = !walk->visit(object, block->type->name, crn_object_used(block, object),
                                     count, walk->context);
    }
}

void cairn_heap_walk(cairn_heap *heap, cairn_visit visit, void *context) {
    CAIRN_REQUIRE(visit, "cairn_heap_walk: no function to call");
    crn_enter();
    if (!heap) heap = crn_default_heap;
    crn_collect(CAIRN_COUNT);
    crn_world_take();
    crn_world_stop();
    struct walk walk = {visit, context, false};
    crn_heap_each_block(&heap->core, walk_block, &walk);
    crn_world_start();
    crn_world_release();
    crn_leave();
}

size_t cairn_count(const void *object) {
    if (!object) return 0;
    crn_enter();
    struct crn_block *block;
    char *start = crn_object_of(object, &block);
    size_t count =
        start == (const char *)object ? __atomic_load_n(crn_count_of(start), __ATOMIC_RELAXED) : 0;
    if (count > 0 && count < 255) {
        count -= crn_bit_get(crn_root_bit(start, crn_gc.parity));
        if (block->has_extras) count -= crn_extra_counts(start);
    }
    crn_leave();
    return count;
}
