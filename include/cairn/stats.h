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

/* Bytes are slot sizes. Counters run from the heap's start and exclude each other: an object that
 * was deleted counts as freed by delete and by nothing else, once its slot is free.
 *     committed == live + young + free_in_blocks + free_blocks + slack + metadata
 *     allocated == live + young + freed_by_count + freed_young + freed_by_trace + freed_by_delete
 * The second holds right after a counting epoch, but for 4 KiB of each type that a thread was
 * allocating: those are taken in pieces. Of other threads' allocation since the last epoch up to
 * 16 KiB each is not yet in allocated and young. */
typedef struct cairn_stats {
    size_t size;                       /* sizeof(cairn_stats), set by CAIRN_STATS_INIT */
    uint64_t live_bytes, live_objects; /* mature: counted by an epoch and not yet dead */
    uint64_t young_bytes;              /* handed out since the last epoch */
    uint64_t allocated_bytes;          /* so far, young included */
    uint64_t freed_by_count_bytes,
        freed_by_count_objects; /* mature objects whose count reached 0 */
    uint64_t freed_young_bytes; /* died before their first epoch */
    uint64_t freed_by_trace_bytes, freed_by_trace_objects;
    uint64_t deleted_objects; /* so far */
    uint64_t waiting_objects; /* deleted, the slot still referred to */
    uint64_t freed_by_delete_bytes, freed_by_delete_objects; /* deleted, the slot free again */
    uint64_t epochs, traces;
    uint64_t pause_ns_min, pause_ns_median, pause_ns_p99, pause_ns_max; /* counting epochs */
    uint64_t pause_ns_total; /* of all epochs, without traces */
    uint64_t root_ns_total;  /* of it the scans of roots */
    uint64_t trace_ns_max;
    uint64_t free_in_blocks_bytes; /* slots for more of the same type */
    uint64_t free_blocks_bytes;
    uint64_t slack_bytes; /* of blocks and segments, behind their last slot or around a large one */
    uint64_t metadata_bytes;                  /* counts and descriptors, 1/16 of a segment */
    uint64_t reserved_bytes, committed_bytes; /* address space; of it writable */
    uint64_t shadow_bytes; /* beside committed: log, root, mark and deleted bits, if all touched */
    uint64_t resident_bytes; /* of the process, as the system counts */
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

/* Figures of a heap; NULL: the default heap. Epochs, traces and pauses are of the process, all
 * heaps in it. Any thread; walks the blocks, not the objects; does not collect.
 * CAIRN_ERROR_ARGUMENT: `stats` was not made by CAIRN_STATS_INIT. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_stats_get(cairn_heap *heap, cairn_stats *stats);

/* Collects (CAIRN_COUNT), then calls visit for every object of the heap that is alive, deleted ones
 * that wait included, in no set order. `bytes` are those in use, `count` is the count byte, roots
 * included. The world stands still: visit must not allocate, store references, leave by longjmp or
 * take a lock that another thread may hold (malloc does). Return false to stop. NULL: the default
 * heap. */
typedef bool (*cairn_visit)(void *object, const char *type_name, size_t bytes, size_t count,
                            void *context);
CAIRN_API void cairn_heap_walk(cairn_heap *heap, cairn_visit visit, void *context);

#ifdef __cplusplus
}
#endif

#endif
