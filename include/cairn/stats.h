/* SPDX-License-Identifier: MIT
 *
 * Figures, and a walk over all objects.
 */
#ifndef CAIRN_STATS_H
#define CAIRN_STATS_H

#include <cairn/heap.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes are slot sizes. Counters run from the heap's start; `waiting` was deleted, its slot is
 * still referred to. resident = live + young + free_in_blocks + free_blocks + metadata, as
 * committed. */
typedef struct cairn_stats {
    size_t size;                       /* sizeof(cairn_stats), set by CAIRN_STATS_INIT */
    uint64_t live_bytes, live_objects; /* mature: counted by an epoch and not yet dead */
    uint64_t young_bytes;              /* handed out since the last epoch */
    uint64_t allocated_bytes;          /* so far, young included */
    uint64_t freed_by_count_bytes,
        freed_by_count_objects; /* mature objects whose count reached 0 */
    uint64_t freed_young_bytes; /* died before their first epoch */
    uint64_t freed_by_trace_bytes, freed_by_trace_objects;
    uint64_t deleted_objects;
    uint64_t waiting_objects;
    uint64_t epochs, traces;
    uint64_t pause_ns_min, pause_ns_median, pause_ns_p99, pause_ns_max; /* counting epochs */
    uint64_t trace_ns_max;
    uint64_t free_in_blocks_bytes, free_blocks_bytes, metadata_bytes;
    uint64_t reserved_bytes, committed_bytes;
} cairn_stats;
#ifdef __cplusplus /* designators need C++20 */
static inline cairn_stats cairn_stats_init_() {
    cairn_stats stats = cairn_stats();
    stats.size = sizeof(cairn_stats);
    return stats;
}
#define CAIRN_STATS_INIT cairn_stats_init_()
#else
#define CAIRN_STATS_INIT                                                                           \
    { .size = sizeof(cairn_stats) }
#endif

/* Figures of a heap; NULL: the default heap. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_stats_get(cairn_heap *heap, cairn_stats *stats);

/* Call visit for every object alive after a counting epoch; the world stands still: the callback
 * must not allocate, store references or lock. Return false to stop. */
typedef bool (*cairn_visit)(void *object, const char *type_name, size_t bytes, size_t count,
                            void *context);
CAIRN_API void cairn_heap_walk(cairn_heap *heap, cairn_visit visit, void *context);

#ifdef __cplusplus
}
#endif

#endif
