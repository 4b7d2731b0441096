/* SPDX-License-Identifier: MIT
 *
 * Giving counts: what the log says, and promotion. One worker does it alone, or several side by
 * side (team.c). death.c takes counts.
 *
 * The argument for several. All increments are over before the first decrement: two jobs, with all
 * workers gone in between.
 *  - A count is raised by compare-and-swap; exactly one worker sees it go from zero to one and
 *    promotes the object. What the others do to the count meanwhile does not matter to it.
 *  - A block's number of promoted objects is added to by atomics, and read behind crn_count_settle;
 *    until then workers keep some of it to themselves.
 *  - Log bits share bytes: they are set by atomic or; those of promoted single objects are set
 *    block by block when the epoch settles it, by the coordinator alone.
 *  - Untyped objects that were promoted only make their pages stale; see untyped.c.
 *
 * `is_alone` is a constant in each inlined copy: a worker that is alone pays for no locked
 * instruction.
 */
#include "base/report.h"
#include "gc/count.h"
#include "heap/guard.h"

/* ---- Shared with death.c ------------------------------------------------------------------------
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

/* ---- Increments and promotion -------------------------------------------------------------------
 */

static _Noreturn void report_bad_reference(const void *value, void **field) {
    struct crn_block *owner = field ? crn_block_of_interior(field) : NULL;
    struct crn_block *block = NULL;
    const char *target = crn_object_of(value, &block);
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_NOT_AN_OBJECT);
    crn_report_line(report, "what", "the field at offset %zu of a %s at %p refers to %p, %s",
                    owner ? crn_offset_in_object(owner, field) : 0,
                    owner ? owner->type->name : "root", (void *)field, value,
                    crn_space_is_tombstone(value)
                        ? "an object that was deleted before it was stored"
                    : target ? "the middle of an object"
                             : "where no object is");
    crn_report_line(report, "next step", "compile with -DCAIRN_CHECKED: that names the store");
    crn_report_number(report, "address", (uintptr_t)value);
    crn_report_number(report, "field", (uintptr_t)field);
    crn_report_abort(report);
}

static _Noreturn void report_crossing(void **field, const struct crn_block *owner,
                                      const struct crn_block *target) {
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_CROSSES_HEAPS);
    crn_report_line(report, "what", "the field at %p of a %s in heap %s refers to a %s in heap %s",
                    (void *)field, owner->type->name, owner->heap->name, target->type->name,
                    target->heap->name);
    crn_report_line(report, "next step", "compile with -DCAIRN_CHECKED: that names the store");
    crn_report_number(report, "field", (uintptr_t)field);
    crn_report_abort(report);
}

static CRN_NOINLINE void check_first_count(char *object, const struct crn_block *block,
                                           void **field) {
    enum crn_segment_kind kind = crn_segment_kind(object);
    bool is_object =
        (kind == CRN_SEGMENT_BLOCKY || kind == CRN_SEGMENT_LARGE || kind == CRN_SEGMENT_GUARDED) &&
        block->state != CRN_BLOCK_FREE && block->state != CRN_BLOCK_BODY && object >= block->base &&
        object < block->end;
    if (is_object && block->slot_size) {
        uint64_t offset = (uint64_t)(object - block->base);
        is_object = ((offset * block->reciprocal) >> 32) * block->slot_size == offset;
    } else if (is_object) {
        is_object = object == block->base;
    }
    if (!is_object || !crn_is_young(block, object)) report_bad_reference(object, field);
    if (CRN_UNLIKELY(crn_heaps->next) && field) {
        struct crn_block *owner = crn_block_of_interior(field);
        if (owner && owner->heap != block->heap) report_crossing(field, owner, block);
    }
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

/* What is promoted lies close together: it was allocated since the last epoch. So a worker keeps
 * what it needs to know of a few blocks: one that has promoted an object there finds the next one's
 * count, checks and fields without a look at kind, descriptor and type. Young slots stay as they
 * are from the stop until crn_count_settle. No reference may lead from one heap to another: where
 * there are several, fields outside the block's own region are looked at one by one. */
CRN_INLINE struct crn_near *near_of(struct crn_worker *worker, const char *address) {
    return &worker->near[((uintptr_t)address >> CRN_BLOCK_SHIFT) % CRN_NEAR];
}

CRN_INLINE bool is_near(const struct crn_near *near, const char *address) {
    return (uintptr_t)address - (uintptr_t)near->low < near->bytes;
}

/* NULL, the field of a root, is one only where there is one heap. */
CRN_INLINE bool is_field_of_heap(const struct crn_near *near, void **field) {
    return (uintptr_t)field - near->fields_low < near->fields_bytes;
}

/* The number of a block is a line that two workers would pull to and fro, so each adds what it has
 * promoted there when it turns to another. */
CRN_INLINE void leave_near(struct crn_near *near, bool is_alone) {
    if (!near->promoted) return;
    if (is_alone)
        near->block->promoted += (uint16_t)near->promoted;
    else
        __atomic_fetch_add(&near->block->promoted, (uint16_t)near->promoted, __ATOMIC_RELAXED);
    near->promoted = 0;
}

static void come_near(struct crn_near *near, struct crn_block *block, bool is_alone) {
    leave_near(near, is_alone);
    const struct crn_type *type = block->type;
    const char *end = block->cursor ? block->cursor->next : block->young_end;
    const struct crn_region *region = &block->heap->region;
    bool is_only_heap = !crn_heaps->next;
    *near = (struct crn_near){
        .low = block->young_begin,
        .bytes = (size_t)(end - block->young_begin),
        .fields_low = is_only_heap ? 0 : (uintptr_t)region->base,
        .fields_bytes = is_only_heap ? SIZE_MAX : (size_t)(region->end - region->base),
        .map = type->map,
        .block = block,
        .reciprocal = block->reciprocal,
        .slot_size = block->slot_size,
        .is_scanned = block->content != CRN_LEAF,
        .is_plain = block->content == CRN_EXACT && type->is_mapped && crn_has_log_bits(block),
    };
}

/* Where a block's young slots begin is the address of an object: the next scan of the roots must
 * not find it here. */
void crn_count_settle(void) {
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) {
        struct crn_near *near = crn_gc.workers[i].near;
        for (unsigned j = 0; j < CRN_NEAR; j++) {
            leave_near(&near[j], true);
            near[j] = (struct crn_near){.bytes = 0};
        }
    }
}

static void promote(struct crn_worker *worker, char *object, struct crn_block *block, void **field,
                    bool is_alone) {
    uint64_t offset = (uint64_t)(object - block->base);
    /* A young slot of a block that a cursor is in or has left. */
    bool is_usual = (block->state == CRN_BLOCK_ACTIVE || block->state == CRN_BLOCK_SPENT) &&
                    block->slot_size &&
                    ((offset * block->reciprocal) >> 32) * block->slot_size == offset &&
                    crn_is_young(block, object);
    if (CRN_UNLIKELY(!is_usual || crn_heaps->next)) check_first_count(object, block, field);
    struct crn_near *near = near_of(worker, object);
    if (is_usual) {
        come_near(near, block, is_alone);
        near->promoted++;
    } else if (is_alone) {
        block->promoted++;
    } else {
        __atomic_fetch_add(&block->promoted, 1, __ATOMIC_RELAXED);
    }
    /* An exact object of its own was born logged: its stores are all in the log. */
    bool is_scanned =
        block->content == CRN_EXACT ? block->slot_size != 0 : block->content == CRN_UNTYPED;
    if (is_scanned) crn_push(&worker->grey, object);
}

/* What lies in no block that the worker is near. */
CRN_INLINE void increment_far(struct crn_worker *worker, char *value, void **field, bool is_alone) {
    enum crn_segment_kind kind = crn_segment_kind(value);
    if (CRN_UNLIKELY(kind != CRN_SEGMENT_BLOCKY)) {
        if (crn_is_foreign(value)) {
            bool is_bad = crn_space_is_reserved(value) || crn_space_is_variable_tombstone(value);
            if (is_bad) report_bad_reference(value, field);
            return;
        }
        if (kind == CRN_SEGMENT_BODY) report_bad_reference(value, field);
    }
    if (CRN_UNLIKELY(!crn_is_slot_aligned(value))) report_bad_reference(value, field);
    if (raise_count(crn_count_of(value), is_alone)) return;
    promote(worker, value, crn_block_of_start(value), field, is_alone);
}
static CRN_NOINLINE void increment_far_alone(struct crn_worker *worker, char *value, void **field) {
    increment_far(worker, value, field, true);
}
static CRN_NOINLINE void increment_far_together(struct crn_worker *worker, char *value,
                                                void **field) {
    increment_far(worker, value, field, false);
}

CRN_INLINE void increment(struct crn_worker *worker, char *value, void **field, bool is_alone) {
    struct crn_near *near = near_of(worker, value);
    uint64_t offset = (uintptr_t)value - (uintptr_t)near->low;
    bool is_usual =
        offset < near->bytes && ((offset * near->reciprocal) >> 32) * near->slot_size == offset;
    if (CRN_UNLIKELY(!is_usual)) {
        if (is_alone)
            increment_far_alone(worker, value, field);
        else
            increment_far_together(worker, value, field);
        return;
    }
    if (raise_count(crn_count_of(value), is_alone)) return;
    if (CRN_UNLIKELY(!is_field_of_heap(near, field))) check_first_count(value, near->block, field);
    near->promoted++;
    if (near->is_scanned) crn_push(&worker->grey, value);
}

void crn_count_increment(void *object) {
    increment(&crn_gc.workers[0], object, NULL, true);
}

CRN_INLINE void count_field_alone(void **field, void *value, void *worker) {
    if (value) increment(worker, value, field, true);
}
CRN_INLINE void count_field_together(void **field, void *value, void *worker) {
    if (value) increment(worker, value, field, false);
}
static void log_field_alone(void **field, void *value, void *worker) {
    set_log_bit(field, true);
    count_field_alone(field, value, worker);
}
static void log_field_together(void **field, void *value, void *worker) {
    set_log_bit(field, false);
    count_field_together(field, value, worker);
}

enum { GREY_BATCH = 32 };

CRN_INLINE void count_fields(struct crn_worker *worker, char *object, bool is_alone) {
    const struct crn_near *near = near_of(worker, object);
    if (CRN_LIKELY(is_near(near, object) && near->is_plain)) {
        void **words = (void **)(void *)object;
        for (uint64_t map = near->map; map; map &= map - 1) {
            void **field = words + __builtin_ctzll(map);
            if (*field) increment(worker, *field, field, is_alone);
        }
        return;
    }
    struct crn_block *block = crn_block_of_start(object);
    if (CRN_UNLIKELY(block->content == CRN_UNTYPED))
        crn_untyped_changed(block, object);
    else if (CRN_LIKELY(crn_has_log_bits(block)))
        crn_each_field(block, object, is_alone ? count_field_alone : count_field_together, worker);
    else
        crn_each_field(block, object, is_alone ? log_field_alone : log_field_together, worker);
}

/* In batches, so that objects come from memory side by side. Exact ones are slots: the fields
 * of those too large for one were all logged. */
CRN_INLINE void drain_grey(struct crn_worker *worker, bool is_alone) {
    char *batch[GREY_BATCH];
    struct crn_stack *grey = &worker->grey;
    while (grey->count) {
        if (!is_alone && CRN_UNLIKELY(crn_team_is_hungry())) crn_team_share(grey);
        unsigned taken = (unsigned)crn_min(grey->count, GREY_BATCH);
        grey->count -= taken;
        for (unsigned i = 0; i < taken; i++) {
            batch[i] = grey->items[grey->count + i];
            CRN_PREFETCH_READ(batch[i]);
        }
        for (unsigned i = 0; i < taken; i++) count_fields(worker, batch[i], is_alone);
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
        value = crn_tagged_value(owner, field, value);
        old = crn_tagged_value(owner, field, old);
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
    if (!thread) __atomic_store_n(&crn_team.has_source, false, __ATOMIC_RELAXED);
    crn_lock_release(&crn_team.lock);
    return chunk;
}

/* Fields of guarded objects that were deleted since: they hold NULL, and nobody may look. */
static CRN_NOINLINE void leave_out_sealed(struct crn_worker *worker, struct crn_log_chunk *chunk) {
    size_t kept = 0;
    for (size_t i = 0; i < chunk->count; i++) {
        const struct crn_log_entry *entry = &chunk->entries[i];
        if (!crn_guard_is_sealed(entry->field)) {
            chunk->entries[kept++] = *entry;
            continue;
        }
        void *old = crn_tagged_value(crn_block_of_interior(entry->field), entry->field, entry->old);
        if (old && !crn_is_foreign(old)) crn_push(&worker->decrements, old);
    }
    chunk->count = kept;
}

/* Two steps ahead of the counting: the field comes from memory, then what it refers to. */
enum { FIELDS_AHEAD = 16, VALUES_AHEAD = 8, LOG_BATCH = 16 };
CRN_INLINE void look_ahead_in_log(const struct crn_log_chunk *chunk, size_t i) {
    if (i + FIELDS_AHEAD < chunk->count) CRN_PREFETCH(chunk->entries[i + FIELDS_AHEAD].field);
    if (i + VALUES_AHEAD >= chunk->count) return;
    char *value = __atomic_load_n(chunk->entries[i + VALUES_AHEAD].field, __ATOMIC_RELAXED);
    if (crn_is_foreign(value)) return;
    CRN_PREFETCH(crn_count_of(value));
    CRN_PREFETCH(value);
}

CRN_INLINE void count_chunk(struct crn_worker *worker, struct crn_log_chunk *chunk, bool is_alone) {
    /* Several entries before what they promote is drained: a list is followed one object at a
     * time, several of them side by side. */
    if (CRN_UNLIKELY(__atomic_load_n(&crn_guard_has_sealed, __ATOMIC_RELAXED))) {
        leave_out_sealed(worker, chunk);
    }
    for (size_t i = 0; i < chunk->count;) {
        size_t end = crn_min(i + LOG_BATCH, chunk->count);
        for (; i < end; i++) {
            look_ahead_in_log(chunk, i);
            count_logged(worker, &chunk->entries[i], is_alone);
        }
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
    __atomic_store_n(&crn_team.has_source, true, __ATOMIC_RELAXED);
    crn_team_run(count_logs_alone, count_logs_together);
}
