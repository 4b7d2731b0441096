/* SPDX-License-Identifier: MIT
 *
 * Collections from start to end: the world lock, the stop, the epoch, perhaps a trace, the
 * auditors, the line of CAIRN_TRACE=1; and the hooks that allocation and the barrier call.
 *
 * Lock order: world, threads, then what object.h and heap.h name. A thread that waits for the world
 * lock stands still for whoever holds it.
 */
#include "gc/gc.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

void crn_heap_unlink(cairn_heap *heap);
void crn_finalizers_forget_thread(void);

static void take_world(void) {
    while (!crn_lock_try(&crn_gc.world)) {
        crn_stop_if_asked();
        sched_yield();
    }
}

/* "cairn: epoch 12 at 0.345 s: pause 0.41 ms (stop 0.01, roots 0.03), young 8.0 -> 0.2 MB,
 * live 41.3 MB, freed 7.1 MB, committed 68 MB" and for a trace " trace 25.1 ms, freed 3.0 MB".
 * Documented in docs/tracing.md. */
static void print_line(uint64_t pause_ns, uint64_t stopping_ns, uint64_t young_bytes,
                       uint64_t traced_ns) {
    char line[320];
    size_t committed = 0;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        committed += heap->core.region.committed_count << CRN_SEGMENT_SHIFT;
    }
    int length = snprintf(
        line, sizeof(line),
        "cairn: epoch %llu at %.3f s: pause %.3f ms (stop %.3f, roots %.3f), young %.2f -> "
        "%.2f MB, live %.1f MB, "
        "freed %.2f MB, queued %zu, committed %.0f MB, next %.2f MB",
        (unsigned long long)crn_gc.epoch, (double)(crn_os_now_ns() - crn_gc.started_ns) / 1e9,
        (double)pause_ns / 1e6, (double)stopping_ns / 1e6, crn_gc.last_root_ns / 1e6,
        (double)young_bytes / 1e6, (double)crn_gc.promoted_bytes / 1e6,
        (double)crn_live_bytes() / 1e6, (double)crn_gc.freed_bytes / 1e6,
        crn_gc.workers[0].decrements.count, (double)committed / 1e6,
        (double)crn_gc.budget_bytes / 1e6);
    if (traced_ns) {
        length += snprintf(line + length, sizeof(line) - (size_t)length, ", trace %.3f ms",
                           (double)traced_ns / 1e6);
    }
    line[length++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)length);
    (void)ignored;
}

static void audit(void) {
#if defined(CRN_AUDIT)
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) crn_heap_check(heap);
    crn_verify();
#else
    if (crn_settings.is_verifying) crn_verify();
#endif
}

static void report_caches(void) {
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        for (struct crn_cache *cache = thread->caches; cache; cache = cache->next) {
            crn_cache_report(cache);
        }
    }
}

static bool has_spare_processor(void) {
    unsigned running = 1;
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        running += __atomic_load_n(&thread->state, __ATOMIC_RELAXED) == CRN_THREAD_STOPPED;
    }
    return running < crn_gc.processor_count;
}

static void run_locked(cairn_collection kind, bool is_bounded) {
    crn_scan_prepare();
    uint64_t started = crn_os_now_ns();
    if (CRN_UNLIKELY(crn_settings.stress_stop_ns)) crn_stress_signal();
    crn_world_stop();
    uint64_t stopping_ns = crn_os_now_ns() - started;
    report_caches();
    uint64_t young_bytes = crn_young_bytes();
    crn_epoch_run(is_bounded && kind == CAIRN_COUNT);
    uint64_t counted = crn_os_now_ns();
    if (kind != CAIRN_COUNT) {
        uint64_t live = crn_live_bytes();
        crn_trace_run();
        crn_pace_after_trace(live - crn_live_bytes());
    }
    uint64_t traced_ns = kind == CAIRN_COUNT ? 0 : crn_os_now_ns() - counted;
    audit();
    crn_gc.has_spare_processor = has_spare_processor();
    if (is_bounded) crn_histogram_add(&crn_gc.pauses, counted - started);
    crn_gc.pause_total_ns += counted - started;
    crn_world_start();
    if (crn_settings.is_tracing) {
        print_line(counted - started, stopping_ns, young_bytes, traced_ns);
    }
}

static void collect(cairn_collection kind, bool is_bounded) {
    uint64_t before = __atomic_load_n(&crn_gc.epoch, __ATOMIC_RELAXED);
    take_world();
    /* Somebody else's epoch while this thread waited is as good. */
    bool is_done = is_bounded && kind == CAIRN_COUNT && crn_gc.epoch != before;
    if (!is_done) run_locked(kind, is_bounded);
    bool has_helper = crn_gc.has_spare_processor;
    crn_lock_release(&crn_gc.world);
    if (is_done) return;
    if (has_helper && __atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED)) crn_reclaim_wake();
    crn_finalizers_signal();
}

void crn_collect(cairn_collection kind) {
    collect(kind, false);
}

void cairn_collect_in(cairn_heap *heap, cairn_collection kind) {
    (void)heap; /* one epoch serves all heaps */
    CAIRN_REQUIRE(kind >= CAIRN_COUNT && kind <= CAIRN_COMPACT,
                  "cairn_collect: %d is no collection", (int)kind);
    crn_enter();
    crn_collect(kind);
    crn_leave();
}

/* ---- Hooks
 * -------------------------------------------------------------------------------------------- */

static bool is_trace_due(void) {
    uint64_t live = crn_live_bytes();
    if (live > crn_gc.trace_at_bytes) return true;
    cairn_heap *heap = crn_default_heap;
    return heap->limit_bytes && live > heap->limit_bytes / 2 && live > crn_gc.trace_at_bytes / 2 &&
           (heap->core.region.committed_count << CRN_SEGMENT_SHIFT) > heap->limit_bytes;
}

/* A heap that would grow while dead memory is queued frees twice what it takes. */
static void reclaim(const cairn_heap *heap) {
    bool would_grow = __atomic_load_n(&heap->core.free_block_count, __ATOMIC_RELAXED) == 0;
    if (would_grow && crn_gc.is_behind)
        crn_count_help(2 * CRN_REPORT_BYTES);
    else
        crn_count_slice();
}

static void allocated(const cairn_heap *heap) {
    static unsigned calls;
    bool is_forced =
        crn_settings.stress_collect &&
        __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) % crn_settings.stress_collect == 0;
    if (is_forced) {
        crn_collect(CAIRN_COUNT);
    } else if (crn_young_bytes() >= __atomic_load_n(&crn_gc.budget_bytes, __ATOMIC_RELAXED)) {
        if (is_trace_due())
            collect(CAIRN_TRACE, false);
        else
            collect(CAIRN_COUNT, true);
    } else {
        reclaim(heap);
        crn_stop_if_asked();
    }
}

static void logged(void) {
    struct crn_thread *self = crn_self();
    uint64_t fresh = (uint64_t)self->full_chunks * CRN_LOG_ENTRIES;
    self->full_chunks = 0;
    uint64_t entries = __atomic_add_fetch(&crn_gc.logged_entries, fresh, __ATOMIC_RELAXED);
    if (entries >= __atomic_load_n(&crn_gc.budget_entries, __ATOMIC_RELAXED) || !self->spare) {
        collect(CAIRN_COUNT, true);
    } else {
        crn_count_slice();
        crn_stop_if_asked();
    }
}

static void emergency(void) {
    crn_collect(CAIRN_TRACE);
}

/* The world stands still across a fork: no thread that the child loses is inside the runtime. */
static void before_fork(void) {
    if (!crn_self()) return;
    cairn_section_enter_();
    take_world();
    crn_world_stop();
}
static void after_fork(void) {
    if (!crn_self()) return;
    crn_world_start();
    crn_lock_release(&crn_gc.world);
    cairn_section_leave_();
}
static void after_fork_in_child(void) {
    if (!crn_self()) return;
    crn_thread_forget_others();
    crn_finalizers_forget_thread();
    crn_reclaim_forget_thread();
    after_fork();
}

static bool start(void) {
    if (pthread_atfork(before_fork, after_fork, after_fork_in_child) != 0) return false;
    return crn_pace_init() && crn_stop_init();
}

const struct crn_hooks crn_hooks = {allocated,         logged, emergency,
                                    crn_stop_if_asked, start,  crn_stress_start};

/* ---- Destroying a heap
 * -------------------------------------------------------------------------------------- */

static bool is_in(const cairn_heap *heap, const void *address) {
    const char *a = address;
    return a >= heap->core.region.base && a < heap->core.region.end;
}

static void purge_stack(const cairn_heap *heap, struct crn_stack *stack) {
    size_t kept = 0;
    for (size_t i = 0; i < stack->count; i++) {
        if (!is_in(heap, stack->items[i])) stack->items[kept++] = stack->items[i];
    }
    stack->count = kept;
}

static void drop_extra(struct crn_extra *extra, void *context) {
    const cairn_heap *heap = context;
    if (extra->cell && is_in(heap, extra->object)) extra->cell->target = NULL;
    if (is_in(heap, extra->object)) crn_extra_remove_locked(extra);
}

static void purge_thread(const cairn_heap *heap, struct crn_thread *thread) {
    for (struct crn_cache **at = &thread->caches, *cache; (cache = *at) != NULL;) {
        if (cache->heap != &heap->core) {
            at = &cache->next;
            continue;
        }
        *at = cache->next;
        crn_meta_free(cache->cursors, cache->capacity * sizeof(*cache->cursors));
        crn_meta_free(cache->runs, cache->capacity * sizeof(*cache->runs));
        crn_meta_free(cache, sizeof(*cache));
    }
}

cairn_status cairn_heap_destroy(cairn_heap *heap) {
    if (!heap || heap == crn_default_heap) return CAIRN_ERROR_ARGUMENT;
    crn_enter();
    take_world();
    /* An epoch settles every log entry, so that only queues and roots can name the heap. */
    run_locked(CAIRN_COUNT, false);
    crn_world_stop();
    purge_stack(heap, &crn_gc.workers[0].decrements);
    purge_stack(heap, &crn_gc.postponed);
    purge_stack(heap, &crn_gc.roots[0]);
    purge_stack(heap, &crn_gc.roots[1]);
    crn_extras_each_locked(drop_extra, heap);
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        purge_thread(heap, thread);
    }
    crn_heap_unlink(heap);
    crn_world_start();
    crn_heap_deinit(&heap->core);
    crn_meta_free(heap, sizeof(*heap));
    crn_lock_release(&crn_gc.world);
    crn_leave();
    return CAIRN_OK;
}
