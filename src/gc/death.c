/* SPDX-License-Identifier: MIT
 *
 * Taking counts, and death. An epoch that was asked for takes all that is queued while the world is
 * stopped, by one worker or several; else slices take them while the program runs.
 *
 * The argument for several workers in a stop.
 *  - A count is lowered by compare-and-swap as long as it is above one. At one there is one
 *    decrement left to apply, since no count is below the decrements queued for it: so the worker
 *    that reads one is alone with the object, and may read its fields and write the zero last.
 *  - The live number of a block is atomic; whoever brings it to a threshold moves the block to its
 *    list under the heap's lock, and looks at the block's state there: of two thresholds that two
 *    workers pass, the later one may come first.
 *  - Objects with extras that ran out of counts, and large ones, wait in `deferred` until one
 *    worker is alone.
 */
#include "gc/count.h"

#include <string.h>

void crn_defer(void *object) {
    crn_lock_acquire(&crn_team.lock);
    crn_push(&crn_gc.deferred, object);
    crn_lock_release(&crn_team.lock);
}

/* ---- Death --------------------------------------------------------------------------------------
 */

static void free_block_locked(struct crn_worker *worker, struct crn_block *block) {
    if (block->pages) crn_untyped_release(worker, block, 0, SIZE_MAX / 2);
    crn_block_free(block);
}

/* After an object of the block has died: on a threshold the block moves to its list. */
static void note_death_locked(struct crn_worker *worker, struct crn_block *block, uint32_t live) {
    if (live == 0)
        free_block_locked(worker, block);
    else
        crn_block_has_room(block);
}

/* Whether a block that so many live in has just passed a threshold. */
CRN_INLINE bool is_threshold(const struct crn_block *block, uint32_t live) {
    if (!crn_block_is_settled(block)) return false;
    return live == 0 || CRN_UNLIKELY(live == crn_block_roomy(block)) ||
           CRN_UNLIKELY(block->slot_count - live == crn_block_room(block));
}

/* Before the object's count is zero. */
CRN_INLINE void figure_death(struct crn_worker *worker, const struct crn_block *block,
                             const char *object) {
    if (CRN_UNLIKELY(block->content == CRN_UNTYPED)) crn_untyped_changed(block, object);
    crn_figure_for(worker, block->heap);
    worker->freed_objects++;
    worker->freed_bytes += crn_object_bytes(block);
}

CRN_INLINE void free_object(struct crn_worker *worker, struct crn_block *block, char *object,
                            bool is_alone) {
    figure_death(worker, block, object);
    uint32_t live =
        is_alone ? --block->live : __atomic_sub_fetch(&block->live, 1, __ATOMIC_RELAXED);
    __atomic_store_n(crn_count_of(object), 0, __ATOMIC_RELEASE);
    if (CRN_LIKELY(!is_threshold(block, live))) return;
    struct crn_heap *heap = block->heap;
    crn_lock_acquire(&heap->lock);
    note_death_locked(worker, block, live);
    crn_lock_release(&heap->lock);
}

/* The same while the program runs, under the heap's lock. */
static void free_locked(struct crn_worker *worker, struct crn_block *block, char *object) {
    figure_death(worker, block, object);
    uint32_t live = --block->live;
    __atomic_store_n(crn_count_of(object), 0, __ATOMIC_RELEASE);
    if (is_threshold(block, live)) note_death_locked(worker, block, live);
}

void crn_object_free(struct crn_block *block, char *object) {
    free_object(&crn_gc.workers[0], block, object, true);
}

void crn_block_free_all(struct crn_block *block) {
    struct crn_worker *worker = &crn_gc.workers[0];
    crn_figure_for(worker, block->heap);
    worker->freed_objects += block->live;
    worker->freed_bytes += (uint64_t)block->live * block->slot_size;
    block->live = 0;
    memset(crn_count_of(block->base), 0, CRN_BLOCK_BYTES >> CRN_GRANULE_SHIFT);
    free_block_locked(worker, block);
}

CRN_INLINE void give_up_field(void **field, void *value, void *worker) {
    (void)field;
    if (value && !crn_is_foreign(value))
        crn_push(&((struct crn_worker *)worker)->decrements, value);
}

/* Queues a decrement for each object that this one refers to. */
CRN_INLINE void give_up_fields(struct crn_worker *worker, struct crn_block *block, char *object) {
    if (block->content == CRN_EXACT) crn_each_field(block, object, give_up_field, worker);
}

void crn_count_give_up(struct crn_block *block, char *object) {
    give_up_fields(&crn_gc.workers[0], block, object);
}

/* A large young object that died becomes a mature one whose last count is queued. */
void crn_count_kill(struct crn_block *block, char *object) {
    *crn_count_of(object) = 1;
    block->live = 1;
    block->heap->live_objects++;
    block->heap->live_bytes += crn_object_bytes(block);
    crn_push(&crn_gc.workers[0].decrements, object);
}

/* The object's last count is this worker's to take. */
CRN_INLINE void die(struct crn_worker *worker, char *object, bool is_alone) {
    struct crn_block *block = crn_block_of_start(object);
    bool is_large = crn_large_is(block);
    if (CRN_UNLIKELY(!is_alone && (is_large || block->has_extras))) {
        crn_defer(object);
        return;
    }
    if (CRN_UNLIKELY(block->has_extras) && crn_extra_died(object, block)) return; /* lives on */
    if (CRN_UNLIKELY(is_large)) {
        crn_push(&crn_gc.dismantled, object);
        return;
    }
    give_up_fields(worker, block, object);
    free_object(worker, block, object, is_alone);
}

/* ---- Decrements ---------------------------------------------------------------------------------
 */

/* Takes one count, but not the last. Returns whether it is the last. */
CRN_INLINE bool is_last_count(char *object, bool is_alone) {
    uint8_t *count = crn_count_of(object);
    uint8_t old = __atomic_load_n(count, __ATOMIC_RELAXED);
    if (is_alone) {
        if (old > 1 && old != 255) __atomic_store_n(count, (uint8_t)(old - 1), __ATOMIC_RELAXED);
    } else {
        while (old > 1 && old != 255 &&
               !__atomic_compare_exchange_n(count, &old, (uint8_t)(old - 1), true, __ATOMIC_RELAXED,
                                            __ATOMIC_RELAXED)) {}
    }
    CAIRN_REQUIRE(old != 0, "internal error: a count below zero at %p", (void *)object);
    return old == 1;
}

/* Objects whose last count was taken wait in a row of two halves: in the later one for their
 * blocks' descriptors, in the earlier one, if they have any, for their fields. Each miss may be a
 * walk of page tables too, so what is not read is not fetched. */
enum { HALF = 32 };
struct dying {
    char *objects[2 * HALF];
    unsigned count;
};

CRN_INLINE void dying_put(struct dying *dying, char *object) {
    CRN_PREFETCH(crn_block_in_table(object));
    dying->objects[dying->count++] = object;
}

/* When a half is full; returns how many of the earliest must go. */
CRN_INLINE unsigned dying_due(const struct dying *dying) {
    if (CRN_LIKELY(dying->count % HALF)) return 0;
    for (unsigned i = dying->count - HALF; i < dying->count; i++) {
        const char *object = dying->objects[i];
        if (crn_block_of_start(object)->content == CRN_EXACT) CRN_PREFETCH_READ(object);
    }
    return dying->count - HALF;
}

CRN_INLINE void dying_drop(struct dying *dying, unsigned count) {
    dying->count -= count;
    memmove(dying->objects, dying->objects + count, dying->count * sizeof(char *));
}

CRN_INLINE void look_ahead(struct crn_ring *ring, struct crn_stack *queue) {
    char *object = queue->items[--queue->count];
    CRN_PREFETCH(crn_count_of(object));
    crn_ring_put(ring, object);
}

CRN_INLINE void die_first(struct crn_worker *worker, struct dying *dying, unsigned count,
                          bool is_alone) {
    for (unsigned i = 0; i < count; i++) die(worker, dying->objects[i], is_alone);
    dying_drop(dying, count);
}

CRN_INLINE void apply_decrements(struct crn_worker *worker, bool is_alone) {
    struct crn_ring ring;
    crn_ring_init(&ring);
    struct dying dying;
    dying.count = 0;
    struct crn_stack *queue = &worker->decrements;
    uint64_t deadline_ns = crn_gc.deadline_ns;
    for (unsigned steps = 1;; steps++) {
        if (!queue->count && !ring.held) {
            die_first(worker, &dying, dying.count, is_alone);
            if (!queue->count && !crn_team_take(queue)) break;
        }
        if (ring.held == CRN_AHEAD || !queue->count) {
            char *object = crn_ring_take(&ring);
            if (is_last_count(object, is_alone)) {
                dying_put(&dying, object);
                unsigned due = dying_due(&dying);
                if (due) die_first(worker, &dying, due, is_alone);
            }
        }
        if (deadline_ns && steps % 64 == 0 && crn_os_now_ns() > deadline_ns) break;
        if (!is_alone && CRN_UNLIKELY(crn_team_is_hungry())) crn_team_share(queue);
        if (queue->count) look_ahead(&ring, queue);
    }
    /* Behind the deadline nothing more dies. */
    while (dying.count) crn_push(queue, dying.objects[--dying.count]);
    while (ring.held) crn_push(queue, crn_ring_take(&ring));
}
static void apply_alone(struct crn_worker *worker) {
    apply_decrements(worker, true);
}
static void apply_together(struct crn_worker *worker) {
    apply_decrements(worker, false);
}

/* What others have queued: volunteers that counted logs, or that met the deadline. */
static bool gather_decrements(void) {
    struct crn_stack *first = &crn_gc.workers[0].decrements;
    bool found = false;
    while (crn_team_take(first)) found = true;
    for (unsigned i = 1; i < CRN_WORKERS_MAX; i++) {
        struct crn_stack *left = &crn_gc.workers[i].decrements;
        found |= left->count != 0;
        while (left->count) crn_push(first, left->items[--left->count]);
    }
    return found;
}

/* Large objects that are empty now give their last count, unless a root has named one meanwhile. */
static void free_emptied(struct crn_worker *worker) {
    struct crn_stack *emptied = &crn_gc.emptied;
    while (emptied->count) {
        char *object = emptied->items[--emptied->count];
        struct crn_block *block = crn_block_of_start(object);
        struct crn_heap *heap = block->heap;
        crn_lock_acquire(&heap->lock);
        if (is_last_count(object, true)) free_locked(worker, block, object);
        crn_lock_release(&heap->lock);
    }
}

static void apply_deferred(struct crn_worker *worker) {
    while (crn_gc.deferred.count) {
        die(worker, crn_gc.deferred.items[--crn_gc.deferred.count], true);
        apply_alone(worker);
    }
}

void crn_count_decrements(uint64_t deadline_ns) {
    struct crn_worker *first = &crn_gc.workers[0];
    crn_gc.deadline_ns = deadline_ns;
    do {
        crn_team_run(apply_alone, apply_together);
    } while (gather_decrements() && (!deadline_ns || crn_os_now_ns() < deadline_ns));
    apply_deferred(first);
    if (deadline_ns) return;
    while (crn_large_is_waiting()) {
        while (crn_large_step(first)) apply_alone(first);
        apply_deferred(first);
        free_emptied(first);
    }
}

/* ---- Decrements between epochs ------------------------------------------------------------------
 *
 * What an epoch queued is applied while the program runs, a slice at each slow path of allocation
 * or of the log, by one thread at a time (LXR's lazy decrements). The argument:
 *  - An epoch counts everything that the program can reach, and roots besides, before it queues or
 *    leaves a decrement; so an object whose last count a slice takes was out of the program's reach
 *    at that epoch, and stays so: nobody reads or stores its fields but the slice. Counts rise in
 *    stops only, and no slice runs in a stop: it is a no-stop section without a safepoint.
 *  - In a block that a thread has acquired since the epoch a zero count means young, or free and
 *    still ahead of the cursor. A slot freed behind the cursor would pass for young. So what dies
 *    in such a block gives up its fields, clears them, and keeps its last count as a husk until the
 *    next epoch, which settles the block. A block is acquired under its heap's lock, and a slice
 *    looks at its state and frees under the same lock.
 *  - A weak reference can still be read: what has extras waits, whole, for the next stop.
 */

enum { SLICE_STEPS = 2048 };

static void bury_first(struct crn_worker *worker, struct dying *dying, unsigned count) {
    struct crn_heap *heap = NULL;
    for (unsigned i = 0; i < count; i++) {
        char *object = dying->objects[i];
        struct crn_block *block = crn_block_of_start(object);
        if (block->heap != heap) {
            if (heap) crn_lock_release(&heap->lock);
            heap = block->heap;
            crn_lock_acquire(&heap->lock);
        }
        uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
        bool is_acquired = state == CRN_BLOCK_ACTIVE || state == CRN_BLOCK_SPENT;
        if (CRN_UNLIKELY(__atomic_load_n(&block->has_extras, __ATOMIC_RELAXED))) {
            crn_push(&crn_gc.postponed, object);
            continue;
        }
        if (CRN_UNLIKELY(crn_large_is(block))) {
            crn_push(&crn_gc.dismantled, object);
            continue;
        }
        if (is_acquired) {
            if (block->content == CRN_EXACT) {
                crn_each_field(block, object, crn_give_up_and_clear, worker);
            }
            crn_push(&crn_gc.husks, object);
            continue;
        }
        give_up_fields(worker, block, object);
        free_locked(worker, block, object);
    }
    if (heap) crn_lock_release(&heap->lock);
    dying_drop(dying, count);
}

/* Returns whether there is more to do. */
static bool slice(struct crn_worker *worker) {
    struct crn_ring ring;
    crn_ring_init(&ring);
    struct dying dying;
    dying.count = 0;
    struct crn_stack *queue = &worker->decrements;
    for (unsigned steps = 0; steps < SLICE_STEPS; steps++) {
        if (queue->count && ring.held < CRN_AHEAD) {
            look_ahead(&ring, queue);
            continue;
        }
        if (ring.held) {
            char *object = crn_ring_take(&ring);
            if (is_last_count(object, true)) {
                dying_put(&dying, object);
                unsigned due = dying_due(&dying);
                if (due) bury_first(worker, &dying, due);
            }
        }
        if (!queue->count && !ring.held) {
            if (!dying.count) break;
            bury_first(worker, &dying, dying.count);
        }
        if (CRN_UNLIKELY(__atomic_load_n(&cairn_runtime.stop, __ATOMIC_RELAXED))) {
            while (dying.count) crn_push(queue, dying.objects[--dying.count]);
            break;
        }
    }
    bury_first(worker, &dying, dying.count);
    while (ring.held) crn_push(queue, crn_ring_take(&ring));
    if (!queue->count) crn_large_step(worker);
    free_emptied(worker);
    crn_worker_flush(worker);
    return queue->count != 0 || crn_large_is_waiting();
}

static void slice_locked(void) {
    if (!slice(&crn_gc.workers[0])) {
        __atomic_store_n(&crn_gc.has_backlog, false, __ATOMIC_RELAXED);
    }
}

void crn_count_slice(void) {
    if (!__atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED)) return;
    if (!crn_lock_try(&crn_gc.slice)) return;
    slice_locked();
    crn_lock_release(&crn_gc.slice);
}

void crn_count_help(uint64_t bytes) {
    uint64_t before = __atomic_load_n(&crn_gc.freed_bytes, __ATOMIC_RELAXED);
    while (__atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&cairn_runtime.stop, __ATOMIC_RELAXED) &&
           __atomic_load_n(&crn_gc.freed_bytes, __ATOMIC_RELAXED) - before < bytes) {
        crn_lock_acquire(&crn_gc.slice);
        slice_locked();
        crn_lock_release(&crn_gc.slice);
    }
}

void crn_count_resume(uint64_t deadline_ns) {
    gather_decrements();
    struct crn_worker *first = &crn_gc.workers[0];
    while (crn_gc.husks.count) {
        crn_push(&first->decrements, crn_gc.husks.items[--crn_gc.husks.count]);
    }
    /* Half of what waits whatever the time: so no more can gather than two epochs bring. */
    struct crn_stack *postponed = &crn_gc.postponed;
    size_t enough = postponed->count / 2;
    for (unsigned steps = 1; postponed->count; steps++) {
        /* A root may have named it since: then it lives on, and this count goes. */
        char *object = postponed->items[--postponed->count];
        if (is_last_count(object, true)) die(first, object, true);
        bool may_stop = deadline_ns && postponed->count <= enough && steps % 64 == 0;
        if (may_stop && crn_os_now_ns() > deadline_ns) break;
    }
}
