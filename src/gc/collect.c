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

/* A thread that collects in a loop would have the world again before one has woken that waits to
 * collect or to become known, or that stood still for it: who had it last lets those go first. Not
 * for ever, for one of them may be below a signal's handler that waits itself. Those that stood
 * still have had the time that waking takes; that is all, for they may be many, or have no
 * processor. */
enum { LETS_PASS = 1000, WAKING_NS = 200 * 1000 };

static bool others_come_first(unsigned tries) {
    if (__atomic_load_n(&crn_gc.last_holder, __ATOMIC_RELAXED) != &cairn_thread) return false;
    /* This one waits, too. */
    if (tries < LETS_PASS && __atomic_load_n(&crn_waiters, __ATOMIC_RELAXED) > 1) return true;
    return __atomic_load_n(&crn_gc.standing, __ATOMIC_RELAXED) > 0 &&
           crn_os_now_ns() - __atomic_load_n(&crn_gc.released_ns, __ATOMIC_RELAXED) < WAKING_NS;
}

/* Whoever holds the world is not cancelled: a thread that ended at the write of a line or at the
 * reading of a page map would leave all others standing still. */
void crn_world_take(void) {
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    __atomic_fetch_add(&crn_waiters, 1, __ATOMIC_RELAXED);
    for (unsigned tries = 0; others_come_first(tries) || !crn_lock_try(&crn_gc.world); tries++) {
        crn_stop_if_asked();
        sched_yield();
    }
    __atomic_fetch_sub(&crn_waiters, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&crn_gc.last_holder, &cairn_thread, __ATOMIC_RELAXED);
    crn_gc.cancel_state = cancel_state;
    if (crn_self()) crn_self()->holds_world = true; /* a stranger may fork */
}

void crn_world_release(void) {
    int cancel_state = crn_gc.cancel_state;
    if (crn_self()) crn_self()->holds_world = false;
    __atomic_store_n(&crn_gc.released_ns, crn_os_now_ns(), __ATOMIC_RELAXED);
    crn_lock_release(&crn_gc.world);
    pthread_setcancelstate(cancel_state, NULL);
    /* Valgrind goes on with this thread, and one that collects in a loop would let nobody else in.
     */
    if (CRN_UNLIKELY(crn_checker_is_valgrind)) sched_yield();
}

/* "cairn: epoch 12 at 0.345 s: pause 0.412 ms (stop 0.004, roots 0.031 for 0.21 MB and 3 threads,
 * counting 0.377), young 8.00 -> 0.20 MB, live 41.3 MB, freed 7.10 MB, queued 0, committed 68 MB,
 * next 2.10 MB" and for a trace ", trace 25.100 ms". Documented in docs/tracing.md. */
static void print_line(uint64_t pause_ns, uint64_t stopping_ns, uint64_t young_bytes,
                       uint64_t traced_ns, struct crn_scanned scanned) {
    char line[400];
    int length = snprintf(
        line, sizeof(line),
        "cairn: epoch %llu at %.3f s: pause %.3f ms (stop %.3f, roots %.3f for %.2f MB and "
        "%u threads, counting %.3f), young %.2f -> %.2f MB, live %.1f MB, freed %.2f MB, queued "
        "%zu, committed %.0f MB, next %.2f MB",
        (unsigned long long)crn_gc.epoch, (double)(crn_os_now_ns() - crn_gc.started_ns) / 1e9,
        (double)pause_ns / 1e6, (double)stopping_ns / 1e6, crn_gc.last_root_ns / 1e6,
        (double)scanned.bytes / 1e6, scanned.threads,
        ((double)(pause_ns - stopping_ns) - crn_gc.last_root_ns) / 1e6, (double)young_bytes / 1e6,
        (double)crn_gc.promoted_bytes / 1e6, (double)crn_live_bytes() / 1e6,
        (double)crn_gc.freed_bytes / 1e6, crn_gc.workers[0].decrements.count,
        (double)crn_committed_bytes() / 1e6, (double)crn_gc.budget_bytes / 1e6);
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
    if (crn_gc.is_verifying) crn_verify();
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
        running += !thread->is_rootless &&
                   __atomic_load_n(&thread->state, __ATOMIC_RELAXED) == CRN_THREAD_STOPPED;
    }
    return running < crn_gc.processor_count;
}

/* Holding the world lock, which it may give up for a while. Returns when the last stop was asked
 * for. */
static uint64_t stop_knowing_images(void) {
    for (;;) {
        uint64_t started = crn_os_now_ns();
        crn_world_stop();
        if (crn_images_are_current()) return started;
        crn_world_start();
        crn_world_release();
        struct crn_images *fresh = crn_images_gather();
        crn_world_take();
        crn_images_install(fresh);
    }
}

void crn_world_stop_knowing_images(void) {
    crn_world_take();
    (void)stop_knowing_images();
}

static void adopt_options(void) {
    crn_gc.pause_goal_ns = crn_settings.pause_goal_ns;
    crn_gc.is_tracing = crn_settings.is_tracing;
    crn_gc.is_verifying = crn_settings.is_verifying;
    for (const cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        bool is_shorter = heap->pause_goal_ns && heap->pause_goal_ns < crn_gc.pause_goal_ns;
        if (is_shorter) crn_gc.pause_goal_ns = heap->pause_goal_ns;
        crn_gc.is_tracing |= heap->is_tracing;
        crn_gc.is_verifying |= heap->is_verifying;
    }
}

static void run_locked(cairn_collection kind, bool is_bounded) {
    uint64_t started = stop_knowing_images();
    adopt_options();
    uint64_t stopping_ns = crn_os_now_ns() - started;
    report_caches();
    uint64_t young_bytes = crn_young_bytes();
    crn_epoch_run(is_bounded && kind == CAIRN_COUNT);
    struct crn_scanned scanned = crn_scanned(); /* with the untyped memory */
    uint64_t counted = crn_os_now_ns();
    if (kind != CAIRN_COUNT) {
        /* A trace would reclaim what tells of a count too many. */
        if (crn_gc.is_verifying) crn_verify();
        uint64_t live = crn_live_bytes();
        crn_trace_run();
        crn_pace_after_trace(live - crn_live_bytes());
    }
    uint64_t traced_ns = kind == CAIRN_COUNT ? 0 : crn_os_now_ns() - counted;
    audit();
    crn_gc.has_spare_processor = has_spare_processor();
    __atomic_store_n(&crn_gc.is_stop_near, false, __ATOMIC_RELAXED);
    if (is_bounded) crn_histogram_add(&crn_gc.pauses, counted - started);
    crn_gc.pause_total_ns += counted - started;
    crn_world_start();
    crn_print_undeclared();
    if (crn_gc.is_tracing) {
        print_line(counted - started, stopping_ns, young_bytes, traced_ns, scanned);
    }
    __atomic_store_n(&crn_gc.freed_bytes, 0, __ATOMIC_RELAXED);
}

static void collect(cairn_collection kind, bool is_bounded) {
    uint64_t before = __atomic_load_n(&crn_gc.epoch, __ATOMIC_RELAXED);
    crn_world_take();
    /* Somebody else's epoch while this thread waited is as good. */
    bool is_done = is_bounded && kind == CAIRN_COUNT && crn_gc.epoch != before;
    if (!is_done) run_locked(kind, is_bounded);
    bool has_helper = crn_gc.has_spare_processor;
    crn_world_release();
    if (is_done) return;
    if (has_helper && __atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED)) crn_reclaim_wake();
    crn_finalizers_signal();
}

void crn_collect(cairn_collection kind) {
    collect(kind, false);
}

/* The coordinator's own frames below this one are passed over: what the allocator left there, the
 * address of a block say, would keep the block's first object for as long as the program collects
 * from the same depth. This one holds the caller's registers. Where a collection begins inside an
 * allocation or a store all frames are scanned: the arguments lie there. */
void cairn_collect_in(cairn_heap *heap, cairn_collection kind) {
    (void)heap; /* one epoch serves all heaps */
    CAIRN_REQUIRE(kind >= CAIRN_COUNT && kind <= CAIRN_COMPACT,
                  "cairn_collect: %d is no collection", (int)kind);
    __builtin_unwind_init();
    crn_enter();
    struct crn_thread *self = crn_self();
    self->entered_at = CRN_STACK_POINTER();
    crn_collect(kind);
    self->entered_at = NULL;
    crn_leave();
}

/* ---- Hooks
 * -------------------------------------------------------------------------------------------- */

static bool is_trace_due(void) {
    uint64_t live = crn_live_bytes();
    if (live > crn_gc.trace_at_bytes) return true;
    /* What is queued is no garbage that a trace would find. */
    uint64_t used = crn_used_bytes();
    bool is_queued = __atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED) || crn_gc.is_behind;
    if (!is_queued && used > crn_gc.trace_at_used && live < used / 2) return true;
    cairn_heap *heap = crn_default_heap;
    return heap->limit_bytes && live > heap->limit_bytes / 2 && live > crn_gc.trace_at_bytes / 2 &&
           (crn_region_committed(&heap->core.region) << CRN_SEGMENT_SHIFT) > heap->limit_bytes;
}

/* Room for what waits to be freed, so that a burst of death does not stop who allocates: as much as
 * lives, and no more than so many bytes. */
enum { ROOM_FOR_DEAD = 64 << 20 };

/* What ended threads may leave before an epoch takes it. */
enum { LEFT_MAX = 8 << 20 };

static bool may_grow(const cairn_heap *heap) {
    uint64_t live = __atomic_load_n(&heap->core.drained_bytes, __ATOMIC_RELAXED);
    uint64_t committed = crn_region_committed(&heap->core.region) << CRN_SEGMENT_SHIFT;
    return !heap->limit_bytes && committed < live + crn_min(live, ROOM_FOR_DEAD);
}

/* A heap that would grow while dead memory is queued frees twice what it takes. */
static void reclaim(const cairn_heap *heap) {
    bool would_grow = __atomic_load_n(&heap->core.free_block_count, __ATOMIC_RELAXED) == 0;
    if (would_grow && crn_gc.is_behind && !may_grow(heap))
        crn_count_help(2 * CRN_REPORT_BYTES);
    else
        crn_count_slice();
}

static void collect_what_is_due(void) {
    if (is_trace_due())
        collect(CAIRN_TRACE, false);
    else
        collect(CAIRN_COUNT, true);
}

/* Whether it is time, which is a little later where the reclaimer is still at work; not where what
 * waits to be freed is short already. */
static bool is_epoch_due(uint64_t used, uint64_t budget) {
    if (CRN_LIKELY(used < budget)) return false;
    if (crn_gc.is_swamped || crn_default_heap->limit_bytes) return true;
    return used >= budget + budget / 2 || crn_reclaim_rests();
}

static void allocated(const cairn_heap *heap) {
    static unsigned calls;
    bool is_forced =
        crn_settings.stress_collect &&
        __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) % crn_settings.stress_collect == 0;
    if (is_forced) {
        crn_collect(CAIRN_COUNT);
    } else if (is_epoch_due(crn_young_bytes(),
                            __atomic_load_n(&crn_gc.budget_bytes, __ATOMIC_RELAXED))) {
        collect_what_is_due();
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
    uint64_t budget = __atomic_load_n(&crn_gc.budget_entries, __ATOMIC_RELAXED);
    if (!self->spare || is_epoch_due(entries, budget)) {
        collect(CAIRN_COUNT, true);
    } else {
        crn_count_slice();
        crn_stop_if_asked();
    }
}

/* Threads that end young may each allocate too little to ask for anything, and yet leave records
 * and blocks that only an epoch takes. */
static void ending(uint64_t left_bytes) {
    uint64_t left = __atomic_add_fetch(&crn_gc.left_bytes, left_bytes, __ATOMIC_RELAXED);
    bool is_young_due =
        crn_young_bytes() >= __atomic_load_n(&crn_gc.budget_bytes, __ATOMIC_RELAXED);
    if (is_young_due || left >= LEFT_MAX) collect_what_is_due();
}

static void emergency(void) {
    __atomic_store_n(&crn_gc.is_short, true, __ATOMIC_RELAXED);
    crn_collect(CAIRN_TRACE);
    __atomic_store_n(&crn_gc.is_short, false, __ATOMIC_RELAXED);
}

/* Guarded objects die in stops like all others; but they are so few before there are too many that
 * the usual budgets would never ask for one. Once in a while, lest a program that keeps so many
 * spends its life here. */
static void crowded(void) {
    static uint64_t next_ns; /* atomic */
    uint64_t now = crn_os_now_ns();
    if (now < __atomic_load_n(&next_ns, __ATOMIC_RELAXED)) return;
    crn_collect(CAIRN_TRACE);
    uint64_t took = crn_os_now_ns() - now;
    __atomic_store_n(&next_ns, now + took * 8, __ATOMIC_RELAXED);
}

static bool start(void) {
    return crn_pace_init() && crn_stop_init();
}

static void give_back(void *object) {
    crn_push(&crn_gc.workers[0].decrements, object);
}

const struct crn_hooks crn_hooks = {
    .allocated = allocated,
    .logged = logged,
    .ending = ending,
    .emergency = emergency,
    .crowded = crowded,
    .poll = crn_stop_if_asked,
    .gate = crn_gate_wait,
    .start = start,
    .started = crn_stress_start,
    .give_back = give_back,
    .search = crn_search_holders,
};

/* ---- Destroying a heap
 * -------------------------------------------------------------------------------------- */

static bool is_in(const void *context, const void *address) {
    const cairn_heap *heap = context;
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

static cairn_heap *dying_heap; /* under the world lock */
static bool is_elsewhere(const char *object) {
    return !is_in(dying_heap, object);
}

static void release_pages(struct crn_block *block, bool unused) {
    (void)unused;
    crn_untyped_release(&crn_gc.workers[0], block, 0, SIZE_MAX / 2);
}

/* What its untyped pages hold elsewhere is given back; what others hold of it is forgotten. */
static void purge_pages(cairn_heap *heap) {
    struct crn_segment *segment = heap->core.untyped;
    for (; segment; segment = segment->next_untyped) {
        crn_segment_each_untyped(segment, release_pages, false);
    }
    dying_heap = heap;
    crn_untyped_forget(is_elsewhere);
    crn_heap_close_pages(&heap->core);
}

static void purge_thread(const cairn_heap *heap, struct crn_thread *thread) {
    for (struct crn_cache **at = &thread->caches, *cache; (cache = *at) != NULL;) {
        if (cache->heap != &heap->core) {
            at = &cache->next;
            continue;
        }
        *at = cache->next;
        crn_cache_free(cache);
    }
}

/* Stops the world with no log entry left, so that only queues, roots and extras can name the heap,
 * and with no finalizer of the heap running; takes the world lock. */
static void stop_without_finalizers(cairn_heap *heap) {
    for (;;) {
        uint32_t *returned = crn_finalizers_returned();
        uint32_t seen = __atomic_load_n(returned, __ATOMIC_ACQUIRE);
        crn_world_take();
        run_locked(CAIRN_COUNT, false);
        crn_world_stop();
        if (crn_finalizers_purge(heap)) return;
        crn_world_start();
        crn_world_release();
        crn_wait_begin();
        crn_futex_wait(returned, seen);
        crn_wait_end();
    }
}

/* Weak fields hold counts on cells, which lie in the default heap. */
static void give_back_cell(void **field, void *value, void *heap) {
    (void)field;
    if (value && !crn_is_foreign(value) && !is_in(heap, value)) {
        crn_push(&crn_gc.workers[0].decrements, value);
    }
}

static void give_back_cells(struct crn_block *block, void *context) {
    (void)context;
    if (block->content != CRN_EXACT || !block->type->has_weak) return;
    size_t step = crn_object_bytes(block);
    for (char *object = block->base; object < block->end; object += step) {
        if (*crn_count_of(object)) crn_each_field(block, object, give_back_cell, block->heap);
    }
}

cairn_status cairn_heap_destroy(cairn_heap *heap) {
    if (!heap || heap == crn_default_heap) return CAIRN_ERROR_ARGUMENT;
    CAIRN_REQUIRE(crn_heap_is_alive(heap), "cairn_heap_destroy: no heap lives at %p", (void *)heap);
    if (crn_is_finalizing(heap)) return CAIRN_ERROR_BUSY;
    crn_listen_for_faults();
    crn_enter();
    stop_without_finalizers(heap);
    purge_pages(heap);
    purge_stack(heap, &crn_gc.workers[0].decrements);
    purge_stack(heap, &crn_gc.postponed);
    purge_stack(heap, &crn_gc.husks);
    purge_stack(heap, &crn_gc.roots[0]);
    purge_stack(heap, &crn_gc.roots[1]);
    crn_heap_each_block(&heap->core, give_back_cells, NULL);
    (void)crn_deletions_settle(false);
    crn_extras_drop(heap);
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        purge_thread(heap, thread);
    }
    crn_heap_unlink(heap);
    crn_world_start();
    crn_heap_deinit(&heap->core);
    crn_meta_free(heap, sizeof(*heap));
    crn_world_release();
    crn_leave();
    return CAIRN_OK;
}
