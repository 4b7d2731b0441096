/* SPDX-License-Identifier: MIT
 *
 * Taking counts, and death. An epoch that was asked for takes all that is queued while the world is
 * stopped, by one worker or several; else slices take them while the program runs.
 *
 * The argument for several workers in a stop.
 *  - A count is lowered by compare-and-swap as long as it is above one. At one there is one
 *    decrement left to apply, since no count is below the decrements queued for it: so the worker
 *    that reads one is alone with the object, and may read its fields and write the zero last.
 *  - The live number of a block is atomic; whoever brings it past a threshold moves the block
 *    to its list under the heap's lock, and looks at the block's state there: of two thresholds
 *    that two workers pass, the later one may come first. What a worker has freed and not yet
 *    taken off the number keeps the block from being freed.
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

/* Who takes counts: a slice, under the lock of the heap; one worker or several in a stop. */
enum mode { IN_SLICE, ALONE, TOGETHER };

static void free_block_locked(struct crn_worker *worker, struct crn_block *block) {
    if (block->pages) crn_untyped_release(worker, block, 0, SIZE_MAX / 2);
    crn_block_free(block);
}

/* Whether a block moves to another list when so many instead of so many live in it. */
CRN_INLINE bool is_threshold_between(const struct crn_block *block, uint32_t before,
                                     uint32_t live) {
    if (!crn_block_is_settled(block)) return false;
    uint32_t roomy = crn_block_roomy(block), room = block->slot_count - crn_block_room(block);
    return live == 0 || (before > roomy && live <= roomy) || (before > room && live <= room);
}

/* So many objects of the block have died. */
CRN_INLINE void note_deaths(struct crn_worker *worker, struct crn_block *block, uint16_t count,
                            enum mode mode) {
    struct crn_heap *heap = block->heap;
    crn_figure_for(worker, heap);
    worker->freed_objects += count;
    worker->freed_bytes += count * crn_object_bytes(block);
    uint32_t live = mode == TOGETHER ? __atomic_sub_fetch(&block->live, count, __ATOMIC_ACQ_REL)
                                     : (block->live = (uint16_t)(block->live - count));
    if (CRN_LIKELY(!is_threshold_between(block, live + count, live))) return;
    if (mode != IN_SLICE) crn_lock_acquire(&heap->lock);
    if (live == 0)
        free_block_locked(worker, block);
    else
        crn_block_has_room(block);
    if (mode != IN_SLICE) crn_lock_release(&heap->lock);
}

/* What makes the slot free. */
CRN_INLINE void end_object(const struct crn_block *block, char *object) {
    if (CRN_UNLIKELY(block->content == CRN_UNTYPED)) crn_untyped_changed(block, object);
    __atomic_store_n(crn_count_of(object), 0, __ATOMIC_RELEASE);
    crn_object_ended(block, object);
}

void crn_object_free(struct crn_block *block, char *object) {
    end_object(block, object);
    note_deaths(&crn_gc.workers[0], block, 1, ALONE);
}

void crn_block_free_all(struct crn_block *block) {
    struct crn_worker *worker = &crn_gc.workers[0];
    crn_figure_for(worker, block->heap);
    worker->freed_objects += block->live;
    worker->freed_bytes += (uint64_t)block->live * block->slot_size;
    block->live = 0;
    memset(crn_count_of(block->base), 0, CRN_BLOCK_BYTES >> CRN_GRANULE_SHIFT);
    crn_verdicts_forget(block->base, CRN_BLOCK_BYTES);
    free_block_locked(worker, block);
}

CRN_INLINE void give_up_field(void **field, void *value, void *worker) {
    (void)field;
    if (value && !crn_is_foreign(value))
        crn_push(&((struct crn_worker *)worker)->decrements, value);
}

/* Queues a decrement for each object that this one refers to. */
static void give_up_fields(struct crn_worker *worker, const struct crn_block *block, char *object) {
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

/* ---- Where they die -----------------------------------------------------------------------------
 *
 * Neighbours often die together: what is asked of a block is asked once for all that die there in a
 * row, and its figures are settled when another one comes. A slice holds the heap's lock meanwhile,
 * and gives way between two deaths to a thread that needs a block: waking one that had gone to
 * sleep would take longer than the whole batch.
 */

/* Up to EMPTIED fields are given up at once. */
enum fate { FREED, ASKED, EMPTIED, POSTPONED, DEFERRED, DISMANTLED };
struct row {
    struct crn_block *block; /* NULL: none yet */
    struct crn_heap *heap;   /* of the block, which may be gone when it is left */
    enum fate fate;
    bool is_plain;
    uint64_t map; /* of the type's references, where is_plain */
    uint16_t freed;
};

CRN_INLINE enum fate fate_in(const struct crn_block *block, enum mode mode) {
    bool has_extras = __atomic_load_n(&block->has_extras, __ATOMIC_RELAXED);
    bool is_large = crn_large_is(block);
    if (mode == TOGETHER && CRN_UNLIKELY(has_extras || is_large)) return DEFERRED;
    if (CRN_UNLIKELY(has_extras)) return mode == IN_SLICE ? POSTPONED : ASKED;
    if (CRN_UNLIKELY(is_large)) return DISMANTLED;
    if (mode != IN_SLICE) return FREED;
    uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
    bool is_acquired = state == CRN_BLOCK_ACTIVE || state == CRN_BLOCK_SPENT;
    return is_acquired ? EMPTIED : FREED;
}

CRN_INLINE void end_row(struct crn_worker *worker, struct row *row, enum mode mode) {
    if (row->freed) note_deaths(worker, row->block, row->freed, mode);
    row->freed = 0;
}

CRN_INLINE void begin_row(struct crn_worker *worker, struct row *row, struct crn_block *block,
                          enum mode mode) {
    end_row(worker, row, mode);
    struct crn_heap *heap = block->heap;
    if (mode == IN_SLICE && CRN_UNLIKELY(heap != row->heap)) {
        if (row->heap) crn_lock_release(&row->heap->lock);
        crn_lock_acquire(&heap->lock);
    }
    const struct crn_type *type = block->type;
    bool is_exact = block->content == CRN_EXACT;
    *row = (struct row){
        .block = block,
        .heap = heap,
        .fate = fate_in(block, mode),
        .map = is_exact ? type->map : 0,
        .is_plain = block->content == CRN_LEAF || (is_exact && type->is_mapped && !block->is_sized),
    };
}

/* What is not plainly freed. */
static CRN_NOINLINE void let_die_otherwise(struct crn_worker *worker, struct row *row,
                                           char *object) {
    struct crn_block *block = row->block;
    switch (row->fate) {
    case POSTPONED:
        crn_push(&crn_gc.postponed, object);
        return;
    case DEFERRED:
        crn_defer(object);
        return;
    case DISMANTLED:
        crn_push(&crn_gc.dismantled, object);
        return;
    case EMPTIED:
        if (block->content == CRN_EXACT) {
            crn_each_field(block, object, crn_give_up_and_clear, worker);
        }
        crn_push(&crn_gc.husks, object);
        return;
    case ASKED:
        if (crn_extra_died(object, block)) return; /* lives on */
        if (crn_large_is(block)) {
            crn_push(&crn_gc.dismantled, object);
            return;
        }
        break;
    case FREED:
        break;
    }
    give_up_fields(worker, block, object);
    end_object(block, object);
    row->freed++;
}

/* Their last counts are this worker's to take; those behind a wide one keep theirs and are queued
 * again. Returns how many these were. */
CRN_INLINE unsigned let_die(struct crn_worker *worker, char *const *objects, unsigned count,
                            enum mode mode) {
    struct row row = {.block = NULL, .heap = NULL};
    unsigned all = count;
    for (unsigned i = 0; i < count; i++) {
        char *object = objects[i];
        if (mode == IN_SLICE && row.block && CRN_UNLIKELY(crn_lock_is_wanted(&row.heap->lock))) {
            end_row(worker, &row, mode);
            row.block = NULL; /* another thread may have acquired it since */
            crn_lock_give_way(&row.heap->lock);
        }
        struct crn_block *block = crn_block_of_start(object);
        if (block != row.block) begin_row(worker, &row, block, mode);
        if (CRN_UNLIKELY(row.fate != FREED || !row.is_plain)) {
            if (CRN_UNLIKELY(row.fate <= EMPTIED && crn_is_wide(block))) {
                crn_put_back(&worker->decrements, objects + i + 1, count - i - 1);
                count = i + 1;
            }
            let_die_otherwise(worker, &row, object);
            continue;
        }
        void **words = (void **)(void *)object;
        for (uint64_t map = row.map; map; map &= map - 1) {
            give_up_field(NULL, words[__builtin_ctzll(map)], worker);
        }
        __atomic_store_n(crn_count_of(object), 0, __ATOMIC_RELEASE);
        crn_object_ended(block, object);
        row.freed++;
    }
    end_row(worker, &row, mode);
    if (mode == IN_SLICE && row.heap) crn_lock_release(&row.heap->lock);
    return all - count;
}

static void let_die_alone(struct crn_worker *worker, char *object) {
    let_die(worker, &object, 1, ALONE);
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

/* Decrements are taken in batches, step by step, so that what each step reads has come from memory
 * since the step before: the counts; of those whose last count it was the blocks' descriptors;
 * their fields, if they have any. Each miss may be a walk of page tables too, so what is not read
 * is not fetched. */
enum { DEATH_BATCH = 64 };
struct dying {
    char *objects[DEATH_BATCH];
    unsigned count;
};

/* Takes a batch off the queue, and leaves in `dying` the objects whose last count it took. Returns
 * how many decrements the batch had. */
CRN_INLINE unsigned take_batch(struct crn_stack *queue, struct dying *dying, bool is_alone) {
    unsigned taken = (unsigned)crn_min(queue->count, DEATH_BATCH), count = 0;
    queue->count -= taken;
    char **batch = (char **)&queue->items[queue->count];
    for (unsigned i = 0; i < taken; i++) CRN_PREFETCH(crn_count_of(batch[i]));
    for (unsigned i = 0; i < taken; i++) {
        char *object = batch[i];
        if (!is_last_count(object, is_alone)) continue;
        CRN_PREFETCH(crn_block_in_table(object));
        dying->objects[count++] = object;
    }
    dying->count = count;
    for (unsigned i = 0; i < count; i++) {
        const char *object = dying->objects[i];
        if (crn_block_of_start(object)->content == CRN_EXACT) CRN_PREFETCH_READ(object);
    }
    return taken;
}

CRN_INLINE void apply_decrements(struct crn_worker *worker, bool is_alone) {
    struct dying dying;
    struct crn_stack *queue = &worker->decrements;
    uint64_t deadline_ns = crn_gc.deadline_ns;
    while (queue->count || crn_team_take(queue)) {
        take_batch(queue, &dying, is_alone);
        let_die(worker, dying.objects, dying.count, is_alone ? ALONE : TOGETHER);
        if (!is_alone && CRN_UNLIKELY(crn_team_is_hungry())) crn_team_share(queue);
        if (deadline_ns && crn_os_now_ns() > deadline_ns) break;
    }
}
static void apply_alone(struct crn_worker *worker) {
    apply_decrements(worker, true);
}
static void apply_together(struct crn_worker *worker) {
    apply_decrements(worker, false);
}

/* What others have queued: volunteers that counted logs, or that met the deadline. */
bool crn_count_gather(void) {
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
        if (is_last_count(object, true)) {
            end_object(block, object);
            note_deaths(worker, block, 1, IN_SLICE);
        }
        crn_lock_release(&heap->lock);
    }
}

static void apply_deferred(struct crn_worker *worker) {
    while (crn_gc.deferred.count) {
        let_die_alone(worker, crn_gc.deferred.items[--crn_gc.deferred.count]);
        apply_alone(worker);
    }
}

void crn_count_decrements(uint64_t deadline_ns) {
    struct crn_worker *first = &crn_gc.workers[0];
    crn_gc.deadline_ns = deadline_ns;
    do {
        crn_team_run(apply_alone, apply_together);
    } while (crn_count_gather() && (!deadline_ns || crn_os_now_ns() < deadline_ns));
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

static bool slices_rest(void) {
    return __atomic_load_n(&cairn_runtime.stop, __ATOMIC_RELAXED) ||
           __atomic_load_n(&crn_gc.is_stop_near, __ATOMIC_RELAXED);
}

/* Returns whether there is more to do. */
static bool slice(struct crn_worker *worker) {
    struct dying dying;
    struct crn_stack *queue = &worker->decrements;
    /* A stop waits for one batch: the fields of 64 objects that are not wide, or those of one that
     * is, up to what large.c takes apart. */
    for (unsigned steps = 0; queue->count && steps < SLICE_STEPS;) {
        if (CRN_UNLIKELY(slices_rest())) break;
        steps += take_batch(queue, &dying, true);
        steps -= let_die(worker, dying.objects, dying.count, IN_SLICE);
    }
    if (!queue->count && !slices_rest()) crn_large_step(worker);
    free_emptied(worker);
    crn_worker_flush(worker);
    crn_deaths_happened();
    return queue->count != 0 || crn_large_is_waiting();
}

static void slice_locked(void) {
    crn_checker_hush_begin();
    bool has_more = slice(&crn_gc.workers[0]);
    crn_checker_hush_end();
    if (!has_more) __atomic_store_n(&crn_gc.has_backlog, false, __ATOMIC_RELAXED);
}

void crn_count_slice(void) {
    if (!__atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED)) return;
    if (!crn_lock_try(&crn_gc.slice)) return;
    slice_locked();
    crn_lock_release(&crn_gc.slice);
}

void crn_count_help(uint64_t bytes) {
    uint64_t before = __atomic_load_n(&crn_gc.freed_bytes, __ATOMIC_RELAXED);
    while (__atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED) && !slices_rest() &&
           __atomic_load_n(&crn_gc.freed_bytes, __ATOMIC_RELAXED) - before < bytes) {
        crn_lock_acquire(&crn_gc.slice);
        slice_locked();
        crn_lock_release(&crn_gc.slice);
    }
}

void crn_count_resume(uint64_t deadline_ns) {
    crn_count_gather();
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
        if (is_last_count(object, true)) let_die_alone(first, object);
        bool may_stop = deadline_ns && postponed->count <= enough && steps % 64 == 0;
        if (may_stop && crn_os_now_ns() > deadline_ns) break;
    }
}
