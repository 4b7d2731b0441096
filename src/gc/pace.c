/* SPDX-License-Identifier: MIT
 *
 * When to run an epoch, when to trace.
 *
 * A pause costs its roots, so much per promoted byte and so much per logged store. Each epoch
 * measures what its work cost and how much of the young memory survived; the next budget is what
 * fits the aim,
 *     budget_bytes = (aim - roots) * young / counting, within floor and ceiling,
 * where counting is the pause without its roots. The aim is 0.47 of the goal, and at least 0.1 of
 * it is left for counting: what survives varies, and with this aim the longest of a hundred pauses
 * of bench/churn.c come out near the goal. A budget grows by half at most from epoch to epoch. The
 * floor keeps root scanning under 5 % of the time, by the rates of allocation and logging of the
 * last cycle; it may stretch the predicted pause to 1.5 times the goal and no further. The ceiling
 * bounds the young memory: 8 MiB, or an eighth of what is live up to 64 MiB.
 *
 * A trace is due when the mature memory has grown to twice what the last trace left, 32 MiB at
 * least. Or when the blocks that hold something have, to 64 MiB at least, and most of them is
 * free: a little that only a trace takes may keep many blocks of types that are not made any more.
 */
#include "gc/gc.h"

enum { FLOOR_BYTES = 256 << 10, CEILING_BYTES = 8 << 20, ENTRIES_MIN = 2 * CRN_LOG_ENTRIES };
#define TRACE_FLOOR CRN_MIB(32)

/* All of them in one mapping, which costs a program's start the least. */
static bool make_stacks(struct crn_stack *const *stacks, size_t count) {
    size_t limit = crn_os_address_limit();
    size_t bytes = limit == SIZE_MAX ? CRN_GIB(32) : limit / 32;
    if (crn_checker_is_valgrind) bytes = limit / 128; /* it looks through all of it for leaks */
    for (; bytes >= CRN_MIB(1); bytes /= 2) {
        bytes &= ~(crn_os_page_bytes() - 1);
        char *room = crn_os_map_room(bytes * count);
        if (!room) continue;
        for (size_t i = 0; i < count; i++) {
            stacks[i]->items = (void **)(void *)(room + i * bytes);
            stacks[i]->capacity = bytes / sizeof(void *);
        }
        return true;
    }
    return false;
}

bool crn_pace_init(void) {
    crn_os_populate(&crn_gc, sizeof(crn_gc));
    crn_gc.pause_goal_ns = crn_settings.pause_goal_ns;
    crn_gc.budget_bytes = CEILING_BYTES / 4;
    crn_gc.budget_entries = 16 * CRN_LOG_ENTRIES;
    crn_gc.trace_at_bytes = TRACE_FLOOR;
    crn_gc.trace_at_used = 2 * TRACE_FLOOR;
    crn_gc.trace_multiple = 2;
    crn_gc.started_ns = crn_gc.program_ns = crn_os_now_ns();
    /* Where address space is short one worker must do. */
    bool is_wide = crn_os_address_limit() == SIZE_MAX;
    crn_gc.processor_count = crn_os_processor_count();
    unsigned workers = is_wide ? (unsigned)crn_min(crn_gc.processor_count, CRN_WORKERS_MAX) : 1;
    crn_team.seat_count = workers - 1;
    struct crn_stack *stacks[3 * CRN_WORKERS_MAX + 8] = {
        &crn_gc.roots[0], &crn_gc.roots[1],   &crn_gc.deferred, &crn_gc.postponed,
        &crn_gc.husks,    &crn_gc.dismantled, &crn_gc.emptied,  &crn_team.pool,
    };
    size_t count = 8;
    for (unsigned i = 0; i < workers; i++) {
        struct crn_worker *worker = &crn_gc.workers[i];
        stacks[count++] = &worker->grey;
        stacks[count++] = &worker->decrements;
        stacks[count++] = &worker->found;
    }
    return make_stacks(stacks, count);
}

/* Asked by allocating threads too. Acquire: a heap that is made meanwhile is seen
 * complete; one that is destroyed leaves the list in a stop, which waits for who walks it. */
uint64_t crn_young_bytes(void) {
    uint64_t bytes = 0;
    for (cairn_heap *heap = __atomic_load_n(&crn_heaps, __ATOMIC_ACQUIRE); heap;
         heap = heap->next) {
        bytes += __atomic_load_n(&heap->core.allocated_bytes, __ATOMIC_RELAXED) -
                 heap->core.epoch_allocated_bytes;
    }
    return bytes;
}

uint64_t crn_live_bytes(void) {
    uint64_t bytes = 0;
    for (cairn_heap *heap = __atomic_load_n(&crn_heaps, __ATOMIC_ACQUIRE); heap;
         heap = heap->next) {
        bytes += __atomic_load_n(&heap->core.live_bytes, __ATOMIC_RELAXED);
    }
    return bytes;
}

uint64_t crn_committed_bytes(void) {
    uint64_t bytes = 0;
    for (cairn_heap *heap = __atomic_load_n(&crn_heaps, __ATOMIC_ACQUIRE); heap;
         heap = heap->next) {
        bytes += crn_region_committed(&heap->core.region) << CRN_SEGMENT_SHIFT;
    }
    return bytes;
}

/* Tables and blocks that hold something, most of it free perhaps. */
uint64_t crn_used_bytes(void) {
    uint64_t bytes = crn_committed_bytes();
    for (cairn_heap *heap = __atomic_load_n(&crn_heaps, __ATOMIC_ACQUIRE); heap;
         heap = heap->next) {
        uint64_t free = __atomic_load_n(&heap->core.free_block_count, __ATOMIC_RELAXED);
        bytes -= crn_min(free << CRN_BLOCK_SHIFT, bytes);
    }
    return bytes;
}

void crn_pace_after_trace(uint64_t freed_bytes) {
    uint64_t live = crn_live_bytes();
    bool was_worth_it = freed_bytes > (live + freed_bytes) / 16;
    bool was_due = live + freed_bytes > crn_gc.trace_at_bytes;
    if (was_worth_it)
        crn_gc.trace_multiple = 2;
    else if (was_due)
        crn_gc.trace_multiple = crn_min(crn_gc.trace_multiple * 2, 8);
    crn_gc.trace_at_bytes = crn_max(live, TRACE_FLOOR / 2) * crn_gc.trace_multiple;
    crn_gc.trace_at_used = crn_max(crn_used_bytes(), TRACE_FLOOR) * 2;
}

static uint64_t clamp(double value, uint64_t low, uint64_t high) {
    if (value < (double)low) return low;
    return value > (double)high ? high : (uint64_t)value;
}

void crn_pace_after_epoch(uint64_t pause_ns, uint64_t root_ns, uint64_t entries,
                          uint64_t young_bytes) {
    uint64_t now = crn_os_now_ns();
    uint64_t cycle_ns = now - crn_gc.program_ns - pause_ns;
    crn_gc.program_ns = now;
    crn_gc.root_total_ns += root_ns;
    crn_gc.last_root_ns = (double)root_ns;
    crn_gc.root_ns += ((double)root_ns - crn_gc.root_ns) / 4;
    double goal = (double)crn_gc.pause_goal_ns * 0.47 - crn_gc.root_ns;
    if (goal < (double)crn_gc.pause_goal_ns * 0.1) goal = (double)crn_gc.pause_goal_ns * 0.1;
    double counting = (double)(pause_ns - root_ns) + 1;
    crn_gc.last_counting_ns = counting;
    double share = goal / counting;
    /* Follow a worse figure at once and a better one by degrees: survival comes in bursts. */
    if (share > 1.5) share = 1.5;
    /* Decrements that wait hold dead memory: come back sooner until none is left. */
    if (crn_gc.is_swamped && share > 0.5) share = 0.5;
    double most = ((double)crn_gc.pause_goal_ns * 1.5 - crn_gc.root_ns) / counting;
    /* Little work in one epoch does not tell what much more would cost. */
    if (most > 2) most = 2;
    if (most < share || crn_gc.is_swamped) most = share;
    uint64_t ceiling = crn_max(CEILING_BYTES, crn_live_bytes() / 8);
    ceiling = crn_min(ceiling, CRN_MIB(64));
    double rate = (double)young_bytes / (double)(cycle_ns + 1);
    /* From one scan of the roots to the next: the scan, the counting and this, 22 scans in all. */
    double wanted_ns = crn_gc.root_ns * 21 - counting;
    if (wanted_ns < crn_gc.root_ns * 10) wanted_ns = crn_gc.root_ns * 10;
    uint64_t floor = clamp(rate * wanted_ns, FLOOR_BYTES, CRN_MIB(64));
    double entry_rate = (double)entries / (double)(cycle_ns + 1);
    uint64_t entry_floor = clamp(entry_rate * wanted_ns, ENTRIES_MIN, 1 << 20);
    double seen_bytes = (double)crn_max(young_bytes, crn_gc.budget_bytes / 2);
    double seen_entries = (double)crn_max(entries, crn_gc.budget_entries / 2);
    floor = clamp(seen_bytes * most, FLOOR_BYTES, floor);
    entry_floor = clamp(seen_entries * most, ENTRIES_MIN, entry_floor);
    ceiling = crn_max(ceiling, floor);
    crn_gc.budget_bytes = clamp(seen_bytes * share, floor, ceiling);
    crn_gc.budget_entries = clamp(seen_entries * share, entry_floor, 1 << 20);
}
