/* SPDX-License-Identifier: MIT
 *
 * Giving and taking counts: what the log says, promotion, death. One worker does it alone, or
 * several side by side (team.c).
 *
 * The argument for several. All increments are over before the first decrement: two jobs, with all
 * workers gone in between.
 *  - A count is raised by compare-and-swap; exactly one worker sees it go from zero to one and
 *    promotes the object. What the others do to the count meanwhile does not matter to it.
 *  - A count is lowered by compare-and-swap as long as it is above one. At one there is one
 *    decrement left to apply, since no count is below the decrements queued for it: so the worker
 *    that reads one is alone with the object, and may read its fields and write the zero last.
 *  - Log bits share bytes: they are set by atomic or; those of promoted single objects are set
 *    block by block when the epoch settles it, by the coordinator alone.
 *  - The numbers of a block are atomic; whoever brings `live` to a threshold moves the block to its
 * list under the heap's lock, and looks at the block's state there: of two thresholds that two
 * workers pass, the later one may come first.
 *  - Root bits, root lists and extras are not made for two: untyped objects that were promoted, and
 *    objects with extras that ran out of counts, wait in `deferred` until one worker is alone.
 *
 * `is_alone` is a constant in each inlined copy: a worker that is alone pays for no locked
 * instruction.
 */
#include "gc/gc.h"

#include <string.h>

/* ---- Figures ------------------------------------------------------------------------------------
 */

void crn_worker_flush(struct crn_worker *worker) {
    struct crn_heap *heap = worker->heap;
    if (heap) {
        __atomic_fetch_sub(&heap->live_objects, worker->freed_objects, __ATOMIC_RELAXED);
        __atomic_fetch_sub(&heap->live_bytes, worker->freed_bytes, __ATOMIC_RELAXED);
        __atomic_fetch_add(&heap->freed_count_objects, worker->freed_objects, __ATOMIC_RELAXED);
        __atomic_fetch_add(&heap->freed_count_bytes, worker->freed_bytes, __ATOMIC_RELAXED);
        __atomic_fetch_add(&crn_gc.freed_bytes, worker->freed_bytes, __ATOMIC_RELAXED);
    }
    /* Nobody names a heap beyond its figures: it may be destroyed before this worker works again.
     */
    worker->heap = NULL;
    worker->freed_objects = worker->freed_bytes = 0;
}

CRN_INLINE void figure_for(struct crn_worker *worker, struct crn_heap *heap) {
    if (CRN_LIKELY(worker->heap == heap)) return;
    crn_worker_flush(worker);
    worker->heap = heap;
}

/* ---- Log bits -----------------------------------------------------------------------------------
 */

CRN_INLINE void or_byte(uint8_t *byte, uint8_t bits, bool is_alone) {
    if (is_alone)
        *byte |= bits;
    else
        __atomic_fetch_or(byte, bits, __ATOMIC_RELAXED);
}

CRN_INLINE void set_log_bit(void **field, bool is_alone) {
    uintptr_t a = (uintptr_t)field & crn_space.mask;
    or_byte(cairn_runtime.log_bits + (a >> 6), (uint8_t)(1u << ((a >> 3) & 7)), is_alone);
}

/* ---- Looking ahead ------------------------------------------------------------------------------
 */

/* Objects wait in a short ring while their memory comes. */
enum { RING_AHEAD = 16, GREY_AHEAD = 8 };
struct ring {
    char *objects[RING_AHEAD];
    unsigned head, held;
};

CRN_INLINE void ring_put(struct ring *ring, char *object) {
    CRN_PREFETCH(object);
    ring->objects[(ring->head + ring->held++) % RING_AHEAD] = object;
}

CRN_INLINE char *ring_take(struct ring *ring) {
    char *object = ring->objects[ring->head];
    ring->head = (ring->head + 1) % RING_AHEAD;
    ring->held--;
    return object;
}

/* ---- Increments and promotion -------------------------------------------------------------------
 */

static _Noreturn void report_bad_reference(const void *value, void **field) {
    struct crn_block *owner = field ? crn_block_of_interior(field) : NULL;
    struct crn_block *block = NULL;
    const char *target = crn_object_of(value, &block);
    crn_fail("not an object: the field at offset %zu of a %s at %p refers to %p, %s",
             owner && owner->slot_size ? (size_t)((char *)field - owner->base) % owner->slot_size
                                       : 0,
             owner ? owner->type->name : "root", (void *)field, value,
             target ? "the middle of an object" : "where no object is");
}

static CRN_NOINLINE void check_first_count(char *object, const struct crn_block *block,
                                           void **field) {
    enum crn_segment_kind kind = crn_segment_kind(object);
    bool is_object = (kind == CRN_SEGMENT_BLOCKY || kind == CRN_SEGMENT_LARGE) &&
                     block->state != CRN_BLOCK_FREE && block->state != CRN_BLOCK_BODY &&
                     object >= block->base && object < block->end;
    if (is_object && block->slot_size) {
        uint64_t offset = (uint64_t)(object - block->base);
        is_object = ((offset * block->reciprocal) >> 32) * block->slot_size == offset;
    } else if (is_object) {
        is_object = object == block->base;
    }
    if (!is_object || !crn_is_young(block, object)) report_bad_reference(object, field);
    if (CRN_UNLIKELY(crn_heaps->next) && field) {
        struct crn_block *owner = crn_block_of_interior(field);
        CAIRN_REQUIRE(
            !owner || owner->heap == block->heap,
            "a reference crosses heaps: the field at %p of a %s in heap %s refers to a %s in "
            "heap %s",
            (void *)field, owner->type->name, owner->heap->name, block->type->name,
            block->heap->name);
    }
}

CRN_INLINE void promote(struct crn_worker *worker, char *object, void **field, bool is_alone) {
    struct crn_block *block = crn_block_of_start(object);
    /* The usual case, checked inline: a young slot of a block that a cursor is in or has left. */
    uint64_t offset = (uint64_t)(object - block->base);
    bool is_usual = (block->state == CRN_BLOCK_ACTIVE || block->state == CRN_BLOCK_SPENT) &&
                    ((offset * block->reciprocal) >> 32) * block->slot_size == offset &&
                    crn_is_young(block, object);
    if (CRN_UNLIKELY(!is_usual || crn_heaps->next || !block->slot_size)) {
        check_first_count(object, block, field);
    }
    if (is_alone)
        block->promoted++;
    else
        __atomic_fetch_add(&block->promoted, 1, __ATOMIC_RELAXED);
    /* An exact object of its own was born logged: its stores are all in the log. */
    bool is_scanned =
        block->content == CRN_EXACT ? block->slot_size != 0 : block->content == CRN_UNTYPED;
    if (is_scanned) crn_push(&worker->grey, object);
}

/* Adds one below 255; returns what was there. */
CRN_INLINE uint8_t raise_count(uint8_t *count, bool is_alone) {
    uint8_t old = __atomic_load_n(count, __ATOMIC_RELAXED);
    if (is_alone) {
        if (CRN_LIKELY(old != 255)) *count = (uint8_t)(old + 1);
        return old;
    }
    while (old != 255 && !__atomic_compare_exchange_n(count, &old, (uint8_t)(old + 1), true,
                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}

CRN_INLINE void increment(struct crn_worker *worker, void *value, void **field, bool is_alone) {
    if (CRN_UNLIKELY(crn_is_foreign(value))) {
        if (crn_space_is_reserved(value)) report_bad_reference(value, field);
        return;
    }
    if (CRN_UNLIKELY(!crn_is_slot_aligned(value) || crn_segment_kind(value) == CRN_SEGMENT_BODY)) {
        report_bad_reference(value, field);
    }
    if (raise_count(crn_count_of(value), is_alone) == 0) promote(worker, value, field, is_alone);
}

void crn_count_increment(void *object) {
    increment(&crn_gc.workers[0], object, NULL, true);
}

struct field_context {
    struct crn_worker *worker;
    struct crn_block *block;
};

CRN_INLINE void count_field(void **field, const struct field_context *context, bool is_alone) {
    set_log_bit(field, is_alone);
    void *value = crn_field_value(context->block, *field);
    if (value) increment(context->worker, value, field, is_alone);
}
static void count_field_alone(void **field, void *context) {
    count_field(field, context, true);
}
static void count_field_together(void **field, void *context) {
    count_field(field, context, false);
}

static void defer(void *object) {
    crn_lock_acquire(&crn_team.lock);
    crn_push(&crn_gc.deferred, object);
    crn_lock_release(&crn_team.lock);
}

CRN_INLINE void count_fields(struct crn_worker *worker, char *object, bool is_alone) {
    struct crn_block *block = crn_block_of_start(object);
    const struct crn_type *type = block->type;
    if (CRN_UNLIKELY(block->content == CRN_UNTYPED)) {
        if (is_alone)
            crn_root_untyped(block, object);
        else
            defer(object);
    } else if (CRN_LIKELY(type->is_mapped && !block->is_sized)) {
        void **words = (void **)(void *)object;
        for (uint64_t map = type->map; map; map &= map - 1) {
            void **field = words + __builtin_ctzll(map);
            if (*field) increment(worker, *field, field, is_alone);
        }
    } else {
        struct field_context context = {worker, block};
        crn_each_field(block, object, is_alone ? count_field_alone : count_field_together,
                       &context);
    }
}

CRN_INLINE void drain_grey(struct crn_worker *worker, bool is_alone) {
    struct ring ring = {.head = 0};
    struct crn_stack *grey = &worker->grey;
    for (;;) {
        if (!is_alone && CRN_UNLIKELY(crn_team_is_hungry())) crn_team_share(grey);
        while (grey->count && ring.held < GREY_AHEAD) ring_put(&ring, grey->items[--grey->count]);
        if (!ring.held) return;
        count_fields(worker, ring_take(&ring), is_alone);
    }
}

void crn_count_drain(void) {
    drain_grey(&crn_gc.workers[0], true);
}

/* ---- The log ------------------------------------------------------------------------------------
 */

CRN_INLINE void count_logged(struct crn_worker *worker, const struct crn_log_entry *entry,
                             bool is_alone) {
    void **field = entry->field;
    set_log_bit(field, is_alone);
    void *value = *field, *old = entry->old;
    if (CRN_UNLIKELY(((uintptr_t)value | (uintptr_t)old) & (CRN_GRANULE - 1)) ||
        CRN_UNLIKELY(crn_any_tagged)) {
        const struct crn_block *owner = crn_block_of_interior(field);
        value = crn_field_value(owner, value);
        old = crn_field_value(owner, old);
    }
    if (value) increment(worker, value, field, is_alone);
    if (old && !crn_is_foreign(old)) crn_push(&worker->decrements, old);
}

/* The worker's own thread's entries first: their objects may still be in its cache. */
static struct crn_log_chunk *take_chunk(const struct crn_worker *worker) {
    struct crn_log_chunk *chunk = NULL;
    crn_lock_acquire(&crn_team.lock);
    struct crn_thread *thread = worker->thread;
    if (!thread || !thread->log) {
        thread = crn_threads;
        while (thread && !thread->log) thread = thread->next;
    }
    if (thread) {
        chunk = thread->log;
        thread->log = chunk->next;
    }
    if (!thread) __atomic_store_n(&crn_team.has_chunks, false, __ATOMIC_RELAXED);
    crn_lock_release(&crn_team.lock);
    return chunk;
}

/* Two steps ahead of the counting: the field comes from memory, then what it refers to. */
enum { FIELDS_AHEAD = 16, VALUES_AHEAD = 8 };
CRN_INLINE void look_ahead_in_log(const struct crn_log_chunk *chunk, size_t i) {
    if (i + FIELDS_AHEAD < chunk->count) CRN_PREFETCH(chunk->entries[i + FIELDS_AHEAD].field);
    if (i + VALUES_AHEAD >= chunk->count) return;
    char *value = __atomic_load_n(chunk->entries[i + VALUES_AHEAD].field, __ATOMIC_RELAXED);
    if (crn_is_foreign(value)) return;
    CRN_PREFETCH(crn_count_of(value));
    CRN_PREFETCH(value);
}

CRN_INLINE void count_chunk(struct crn_worker *worker, struct crn_log_chunk *chunk, bool is_alone) {
    for (size_t i = 0; i < chunk->count; i++) {
        look_ahead_in_log(chunk, i);
        count_logged(worker, &chunk->entries[i], is_alone);
        drain_grey(worker, is_alone);
    }
    worker->entries += chunk->count;
    crn_log_chunk_give(chunk);
}

CRN_INLINE void count_logs(struct crn_worker *worker, bool is_alone) {
    for (;;) {
        drain_grey(worker, is_alone);
        struct crn_log_chunk *chunk = take_chunk(worker);
        if (chunk)
            count_chunk(worker, chunk, is_alone);
        else if (!crn_team_take(&worker->grey))
            return;
    }
}
static void count_logs_alone(struct crn_worker *worker) {
    count_logs(worker, true);
}
static void count_logs_together(struct crn_worker *worker) {
    count_logs(worker, false);
}

void crn_count_logs(void) {
    __atomic_store_n(&crn_team.has_chunks, true, __ATOMIC_RELAXED);
    crn_team_run(count_logs_alone, count_logs_together);
    while (crn_gc.deferred.count) {
        char *object = crn_gc.deferred.items[--crn_gc.deferred.count];
        count_fields(&crn_gc.workers[0], object, true);
        crn_count_drain();
    }
}

/* ---- Death --------------------------------------------------------------------------------------
 */

/* After an object of the block has died: on a threshold the block moves to its list. */
static void note_death_locked(struct crn_block *block, uint32_t live) {
    if (live == 0)
        crn_block_free(block);
    else if (block->state == CRN_BLOCK_FULL)
        crn_block_has_room(block);
}

/* Whether a block that so many live in has just passed a threshold. */
CRN_INLINE bool is_threshold(const struct crn_block *block, uint32_t live) {
    uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
    if (state != CRN_BLOCK_FULL && state != CRN_BLOCK_PARTIAL) return false;
    return live == 0 || CRN_UNLIKELY(block->slot_count - live == crn_block_room(block));
}

CRN_INLINE void figure_death(struct crn_worker *worker, const struct crn_block *block) {
    figure_for(worker, block->heap);
    worker->freed_objects++;
    worker->freed_bytes += crn_object_bytes(block);
}

CRN_INLINE void free_object(struct crn_worker *worker, struct crn_block *block, char *object,
                            bool is_alone) {
    figure_death(worker, block);
    uint32_t live =
        is_alone ? --block->live : __atomic_sub_fetch(&block->live, 1, __ATOMIC_RELAXED);
    __atomic_store_n(crn_count_of(object), 0, __ATOMIC_RELEASE);
    if (CRN_LIKELY(!is_threshold(block, live))) return;
    struct crn_heap *heap = block->heap;
    crn_lock_acquire(&heap->lock);
    note_death_locked(block, live);
    crn_lock_release(&heap->lock);
}

void crn_object_free(struct crn_block *block, char *object) {
    free_object(&crn_gc.workers[0], block, object, true);
}

void crn_block_free_all(struct crn_block *block) {
    struct crn_worker *worker = &crn_gc.workers[0];
    figure_for(worker, block->heap);
    worker->freed_objects += block->live;
    worker->freed_bytes += (uint64_t)block->live * block->slot_size;
    block->live = 0;
    memset(crn_count_of(block->base), 0, CRN_BLOCK_BYTES >> CRN_GRANULE_SHIFT);
    crn_block_free(block);
}

static void give_up_field(void **field, void *context) {
    const struct field_context *of = context;
    void *value = crn_field_value(of->block, *field);
    if (value && !crn_is_foreign(value)) crn_push(&of->worker->decrements, value);
}

/* Queues a decrement for each object that this one refers to. */
CRN_INLINE void give_up_fields(struct crn_worker *worker, struct crn_block *block, char *object) {
    if (block->content != CRN_EXACT) return;
    const struct crn_type *type = block->type;
    if (CRN_LIKELY(type->is_mapped && !block->is_sized)) {
        void **words = (void **)(void *)object;
        for (uint64_t map = type->map; map; map &= map - 1) {
            void *value = words[__builtin_ctzll(map)];
            if (value && !crn_is_foreign(value)) crn_push(&worker->decrements, value);
        }
    } else {
        struct field_context context = {worker, block};
        crn_each_field(block, object, give_up_field, &context);
    }
}

void crn_count_give_up(struct crn_block *block, char *object) {
    give_up_fields(&crn_gc.workers[0], block, object);
}

/* The object's last count is this worker's to take. */
CRN_INLINE void die(struct crn_worker *worker, char *object, bool is_alone) {
    struct crn_block *block = crn_block_of_start(object);
    if (CRN_UNLIKELY(block->has_extras)) {
        if (!is_alone) {
            defer(object);
            return;
        }
        if (crn_extra_died(object, block)) return; /* keeps its count */
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

CRN_INLINE void look_ahead(struct ring *ring, struct crn_stack *queue) {
    char *object = queue->items[--queue->count];
    CRN_PREFETCH(crn_count_of(object));
    ring_put(ring, object);
}

CRN_INLINE void apply_decrements(struct crn_worker *worker, bool is_alone) {
    struct ring ring = {.head = 0};
    struct crn_stack *queue = &worker->decrements;
    uint64_t deadline_ns = crn_gc.deadline_ns;
    for (unsigned steps = 1;; steps++) {
        if (!queue->count && !ring.held && !crn_team_take(queue)) break;
        if (ring.held == RING_AHEAD || !queue->count) {
            char *object = ring_take(&ring);
            if (is_last_count(object, is_alone)) die(worker, object, is_alone);
        }
        if (deadline_ns && steps % 1024 == 0 && crn_os_now_ns() > deadline_ns) break;
        if (!is_alone && CRN_UNLIKELY(crn_team_is_hungry())) crn_team_share(queue);
        if (queue->count) look_ahead(&ring, queue);
    }
    while (ring.held) crn_push(queue, ring_take(&ring));
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

void crn_count_decrements(uint64_t deadline_ns) {
    struct crn_worker *first = &crn_gc.workers[0];
    crn_gc.deadline_ns = deadline_ns;
    do {
        crn_team_run(apply_alone, apply_together);
    } while (gather_decrements() && (!deadline_ns || crn_os_now_ns() < deadline_ns));
    while (crn_gc.deferred.count) {
        die(first, crn_gc.deferred.items[--crn_gc.deferred.count], true);
        apply_alone(first);
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
 *    in such a block is postponed to the next epoch, which settles the block first. A block is
 *    acquired under its heap's lock, and a slice looks at its state and frees under the same lock.
 *  - A weak reference can still be read: what has extras is postponed too.
 */

enum { SLICE_STEPS = 2048, GROUP = 32 };

struct group {
    char *objects[GROUP]; /* whose last count this slice takes */
    unsigned count;
};

static void bury(struct crn_worker *worker, struct group *group) {
    struct crn_heap *heap = NULL;
    for (unsigned i = 0; i < group->count; i++) {
        char *object = group->objects[i];
        struct crn_block *block = crn_block_of_start(object);
        if (block->heap != heap) {
            if (heap) crn_lock_release(&heap->lock);
            heap = block->heap;
            crn_lock_acquire(&heap->lock);
        }
        uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
        bool is_acquired = state == CRN_BLOCK_ACTIVE || state == CRN_BLOCK_SPENT;
        if (is_acquired || __atomic_load_n(&block->has_extras, __ATOMIC_RELAXED)) {
            crn_push(&crn_gc.postponed, object);
            continue;
        }
        give_up_fields(worker, block, object);
        figure_death(worker, block);
        uint32_t live = --block->live;
        __atomic_store_n(crn_count_of(object), 0, __ATOMIC_RELEASE);
        if (is_threshold(block, live)) note_death_locked(block, live);
    }
    if (heap) crn_lock_release(&heap->lock);
    group->count = 0;
}

static bool slice(struct crn_worker *worker) {
    struct ring ring = {.head = 0};
    struct group group = {.count = 0};
    struct crn_stack *queue = &worker->decrements;
    for (unsigned steps = 0; steps < SLICE_STEPS; steps++) {
        if (queue->count && ring.held < RING_AHEAD) {
            look_ahead(&ring, queue);
            continue;
        }
        if (ring.held) {
            char *object = ring_take(&ring);
            if (is_last_count(object, true)) group.objects[group.count++] = object;
        }
        if (group.count == GROUP || (!queue->count && !ring.held)) {
            if (!group.count) break;
            bury(worker, &group);
        }
        if (__atomic_load_n(&cairn_runtime.stop, __ATOMIC_RELAXED)) break;
    }
    bury(worker, &group);
    while (ring.held) crn_push(queue, ring_take(&ring));
    crn_worker_flush(worker);
    return queue->count != 0;
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

void crn_count_resume(void) {
    gather_decrements();
    struct crn_stack *postponed = &crn_gc.postponed;
    while (postponed->count) {
        crn_push(&crn_gc.workers[0].decrements, postponed->items[--postponed->count]);
    }
}
