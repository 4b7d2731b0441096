/* SPDX-License-Identifier: MIT
 *
 * The trace: mark from the roots, then sweep. It finds cycles and stuck counts, nothing else; it
 * runs in the stop of an unbounded epoch, so every object that is reachable is mature and no
 * decrement waits.
 *
 * Marking is exact through types and conservative through untyped memory. The sweep takes two
 * passes: dead objects give back the counts that they hold on marked ones, then they are freed; in
 * one pass an object freed early could lose the fields that a later one still needs. Counts that
 * reached 255 are lowered to what marking met. Fields that refer to deleted objects become
 * tombstones.
 */
#include "gc/count.h"

#include <string.h>

/* References met on objects whose count is stuck; open addressing, rebuilt by each trace. */
struct tally {
    char *object;
    size_t count;
};
static struct tally *tallies;
static size_t tally_capacity, tally_count;

static struct tally *tally_of(char *object) {
    if ((tally_count + 1) * 2 > tally_capacity) {
        size_t grown = tally_capacity ? tally_capacity * 2 : 1024;
        struct tally *old = tallies;
        struct tally *fresh = crn_meta_alloc(grown * sizeof(*fresh));
        if (!fresh) return NULL;
        size_t old_capacity = tally_capacity;
        tallies = fresh;
        tally_capacity = grown;
        tally_count = 0;
        for (size_t i = 0; i < old_capacity; i++) {
            if (old[i].object) tally_of(old[i].object)->count = old[i].count;
        }
        crn_meta_free(old, old_capacity * sizeof(*old));
    }
    size_t i = ((uintptr_t)object >> CRN_GRANULE_SHIFT) * 0x9e3779b97f4a7c15u >> 20;
    while (tallies[i & (tally_capacity - 1)].object &&
           tallies[i & (tally_capacity - 1)].object != object) {
        i++;
    }
    struct tally *at = &tallies[i & (tally_capacity - 1)];
    if (!at->object) {
        at->object = object;
        tally_count++;
    }
    return at;
}

/* Without memory for a tally the object stays stuck until a later trace: `is_tally_lost`. */
static bool is_tally_lost;

static void note_stuck(char *object, size_t references) {
    crn_lock_acquire(&crn_team.lock);
    struct tally *tally = tally_of(object);
    if (tally)
        tally->count += references;
    else
        is_tally_lost = true;
    crn_lock_release(&crn_team.lock);
}

/* What a worker met of late is added up here first: a few objects have most of the references. */
enum { RECENT = 16 };
static struct tally recent[CRN_WORKERS_MAX][RECENT];

static void note_stuck_field(const struct crn_worker *worker, char *object) {
    struct tally *row = recent[worker - crn_gc.workers];
    struct tally *tally = &row[((uintptr_t)object >> CRN_GRANULE_SHIFT) % RECENT];
    if (tally->object != object) {
        if (tally->object) note_stuck(tally->object, tally->count);
        *tally = (struct tally){object, 0};
    }
    tally->count++;
}

static void flush_recent(const struct crn_worker *worker) {
    struct tally *row = recent[worker - crn_gc.workers];
    for (size_t i = 0; i < RECENT; i++) {
        if (row[i].object) note_stuck(row[i].object, row[i].count);
        row[i].object = NULL;
    }
}

/* ---- Marking
 * --------------------------------------------------------------------------------------------
 *
 * By one worker, or several side by side: a mark is set by atomic or, and who set it has the
 * object; fields and counts are only read. Untyped objects that another meets wait for the
 * coordinator. */

/* The worklist holds marked objects; the lowest bit tells those that a field led to, whose stuck
 * count has yet to be looked at: by then it has come from memory. The next one tells places in
 * large objects from which on fields are yet to be read. */
enum { MET_BY_FIELD = 1, IS_PLACE = 2, MARK_BATCH = 64 };

/* Who works alone looks every so many batches whether a helper has come meanwhile, and stops there:
 * the rest is done together. */
enum { ALONE_STEPS = 8 };

/* Returns whether it was not marked before. */
CRN_INLINE bool set_mark(const char *object, bool is_alone) {
    struct crn_bit bit = crn_mark_bit(object);
    if (crn_bit_get(bit)) return false;
    if (is_alone) {
        *bit.byte |= bit.mask;
        return true;
    }
    return !(__atomic_fetch_or(bit.byte, bit.mask, __ATOMIC_RELAXED) & bit.mask);
}

static void mark(char *object) {
    if (set_mark(object, true)) crn_push(&crn_gc.workers[0].grey, object);
}

/* Whether there is any deleted object whose slot waits. */
static bool has_deleted;

/* A field that refers to a deleted object becomes a tombstone, so that whoever follows it is told.
 * Its count is a queued decrement from now on, which for this trace is as good as the field: the
 * object stays marked, and goes by its counts when the sweep is over. Where the count is stuck the
 * field is as if it had never been. Deleted a moment ago and not yet buried, an object is left to
 * the next trace; words with tags are left for good, they are the program's. Returns whether the
 * field names nothing any more. */
static CRN_NOINLINE bool bury_reference(struct crn_worker *worker, void **field, char *value) {
    if (!crn_bit_get(crn_deleted_bit(value))) return false;
    bool is_word = crn_any_tagged && crn_is_tagged_field(crn_block_of_interior(field), field);
    void *tombstone = is_word ? NULL : crn_extra_tombstone(value);
    if (!tombstone) return false;
    *field = tombstone;
    if (*crn_count_of(value) == 255) return true;
    crn_push(&worker->decrements, value);
    return false;
}

/* What a field of a mature object refers to in a heap has a count: the epoch saw to that. */
CRN_INLINE void mark_value(struct crn_worker *worker, void **field, char *value, bool is_alone) {
    if (!value || crn_is_foreign(value)) return;
    if (CRN_UNLIKELY(has_deleted) && bury_reference(worker, field, value)) return;
    if (set_mark(value, is_alone)) {
        crn_push(&worker->grey, value + MET_BY_FIELD);
    } else if (CRN_UNLIKELY(*crn_count_of(value) == 255)) {
        note_stuck_field(worker, value);
    }
}

CRN_INLINE void mark_field_alone(void **field, void *value, void *worker) {
    mark_value(worker, field, value, true);
}
CRN_INLINE void mark_field_together(void **field, void *value, void *worker) {
    mark_value(worker, field, value, false);
}

/* A stuck count may have nothing behind it any more but the root. */
static void mark_root(char *object) {
    if (*crn_count_of(object) == 255) note_stuck(object, 0);
    mark(object);
}

/* By the coordinator, with nobody else at work. */
static void mark_word(void *word, struct crn_worker *worker) {
    (void)worker;
    struct crn_block *block;
    char *object = crn_object_of(word, &block);
    if (object && *crn_count_of(object)) mark(object);
}

static void mark_untyped(char *object) {
    struct crn_block *block = crn_block_of_start(object);
    crn_scan_words(object, object + crn_object_used(block, object), mark_word, &crn_gc.workers[0]);
}

CRN_INLINE void mark_from(struct crn_worker *worker, const struct crn_block *block, char *object,
                          bool is_alone) {
    if (block->content == CRN_EXACT)
        crn_each_field(block, object, is_alone ? mark_field_alone : mark_field_together, worker);
    else if (block->content == CRN_UNTYPED && is_alone)
        mark_untyped(object);
    else if (block->content == CRN_UNTYPED)
        crn_defer(object);
}

/* A large object is read a window at a time (large.c): the place of the next one waits below what
 * this one led to, so the list stays short, and another worker may take it. */
enum { WINDOW_BYTES = 1 << 20 };
struct marked {
    struct crn_window window;
    struct crn_worker *worker;
};

CRN_INLINE void mark_touched(char *low, char *high, struct marked *part, bool is_alone) {
    struct crn_block *block = part->window.block;
    char *from = crn_window_cut(&part->window, low, &high);
    if (!from) return;
    part->window.next =
        crn_each_field_between(block, block->base, from, high,
                               is_alone ? mark_field_alone : mark_field_together, part->worker);
}
static void mark_touched_alone(char *low, char *high, void *part) {
    mark_touched(low, high, part, true);
}
static void mark_touched_together(char *low, char *high, void *part) {
    mark_touched(low, high, part, false);
}

static CRN_NOINLINE void mark_window(struct crn_worker *worker, struct crn_block *block,
                                     char *place, bool is_alone) {
    struct marked part = {crn_window_open(block, place, WINDOW_BYTES), worker};
    char *object_end = block->base + crn_object_used(block, block->base);
    if (part.window.end < object_end) crn_push(&worker->grey, part.window.end + IS_PLACE);
    crn_os_touched(part.window.next, part.window.reach, false,
                   is_alone ? mark_touched_alone : mark_touched_together, &part);
}

CRN_INLINE void mark_grey(struct crn_worker *worker, bool is_alone) {
    char *batch[MARK_BATCH];
    struct crn_stack *grey = &worker->grey;
    for (unsigned steps = 1; grey->count || crn_team_take(grey); steps++) {
        if (is_alone && steps % ALONE_STEPS == 0 && crn_team_has_others()) break;
        if (!is_alone && CRN_UNLIKELY(crn_team_is_hungry())) crn_team_share(grey);
        unsigned taken = (unsigned)crn_min(grey->count, MARK_BATCH);
        grey->count -= taken;
        for (unsigned i = 0; i < taken; i++) {
            batch[i] = grey->items[grey->count + i];
            CRN_PREFETCH_READ(crn_count_of(batch[i]));
            CRN_PREFETCH_READ(batch[i]);
        }
        for (unsigned i = 0; i < taken; i++) {
            bool is_met = (uintptr_t)batch[i] & MET_BY_FIELD;
            char *object = batch[i] - is_met;
            if (is_met && CRN_UNLIKELY(*crn_count_of(object) == 255)) {
                note_stuck_field(worker, object);
            }
            bool is_place = (uintptr_t)object & IS_PLACE;
            struct crn_block *block =
                is_place ? crn_block_of_interior(object - IS_PLACE) : crn_block_of_start(object);
            if (CRN_UNLIKELY(crn_is_wide(block))) {
                crn_put_back(grey, batch + i + 1, taken - i - 1);
                taken = i + 1;
                if (crn_has_windows(block) && crn_object_bytes(block) > WINDOW_BYTES) {
                    mark_window(worker, block, object - is_place * IS_PLACE, is_alone);
                    break;
                }
            }
            mark_from(worker, block, object, is_alone);
        }
    }
    flush_recent(worker);
}
static void mark_alone(struct crn_worker *worker) {
    mark_grey(worker, true);
}
static void mark_together(struct crn_worker *worker) {
    mark_grey(worker, false);
}

static void drain_marks(void) {
    struct crn_stack *untyped = &crn_gc.deferred;
    do {
        crn_team_run(mark_alone, mark_together);
        /* A list of untyped objects would be a job for each: alone for a while. */
        while (untyped->count) {
            mark_untyped(untyped->items[--untyped->count]);
            mark_alone(&crn_gc.workers[0]);
        }
    } while (crn_gc.workers[0].grey.count);
}

static bool is_marked(const char *object) {
    return crn_bit_get(crn_mark_bit(object));
}

/* What an extra owns a count on lives. Cells of dead targets too, until the next epoch has taken
 * that count: the sweep then never frees what is queued. */
static void mark_counted(void *object) {
    if (*crn_count_of(object) == 255) note_stuck(object, 1);
    mark(object);
}

/* A dead object that wants its finalizer lives until that has run, and all that it refers to. The
 * counting is over, so its stack of what waits is free. */
static void judge_finalizable(struct crn_extra *extra, void *context) {
    (void)context;
    bool is_due = extra->finalizer == CRN_FINALIZER_WANTED && !is_marked(extra->object);
    if (is_due) crn_push(&crn_gc.deferred, extra->object);
}

static void mark_finalizable(void) {
    crn_extras_each(judge_finalizable, NULL);
    struct crn_stack *due = &crn_gc.deferred;
    while (due->count) {
        char *object = due->items[--due->count];
        crn_extra_dies(object, crn_block_of_start(object), CRN_DEATH_BY_TRACE);
        /* The held count. If it makes the count stuck it is the first of the tally: no marked
         * object refers to this one yet. */
        uint8_t *count = crn_count_of(object);
        if (*count != 255) ++*count;
        if (*count == 255) note_stuck(object, 1);
        mark(object);
    }
    drain_marks();
}

/* ---- Sweeping
 * ------------------------------------------------------------------------------------------- */

/* A count of a marked object is above the dead references to it, so none falls to zero here. */
CRN_INLINE void give_back_value(char *value, bool is_alone) {
    if (!value || crn_is_foreign(value) || !is_marked(value)) return;
    uint8_t *count = crn_count_of(value);
    uint8_t old = __atomic_load_n(count, __ATOMIC_RELAXED);
    if (old == 255) return;
    if (is_alone)
        *count = (uint8_t)(old - 1);
    else
        __atomic_fetch_sub(count, 1, __ATOMIC_RELAXED);
}

CRN_INLINE void give_back_field_alone(void **field, void *value, void *context) {
    (void)field;
    (void)context;
    give_back_value(value, true);
}
CRN_INLINE void give_back_field_together(void **field, void *value, void *context) {
    (void)field;
    (void)context;
    give_back_value(value, false);
}

typedef void visit_dead(struct crn_block *block, char *object);

/* Marks lie on live objects only, so as many marks as live ones means that none is dead. */
static size_t mark_count(const struct crn_block *block) {
    if (!block->slot_size) return is_marked(block->base);
    uintptr_t memory = (uintptr_t)block->base & ~(CRN_BLOCK_BYTES - 1) & crn_space.mask;
    const uint64_t *words = (const uint64_t *)(const void *)(crn_space.mark_bits + (memory >> 7));
    size_t marked = 0;
    for (size_t i = 0; i < CRN_BLOCK_BYTES >> 10; i++) {
        marked += (size_t)__builtin_popcountll(words[i]);
    }
    return marked;
}

static void each_dead(struct crn_block *block, visit_dead *visit) {
    size_t step = crn_object_bytes(block);
    uint32_t left = block->live - (uint32_t)mark_count(block);
    for (char *object = block->base; left > 0 && object < block->end; object += step) {
        /* Others may give back counts of marked objects here meanwhile. */
        uint8_t count = __atomic_load_n(crn_count_of(object), __ATOMIC_RELAXED);
        if (count == 0 || is_marked(object)) continue;
        left--;
        visit(block, object);
    }
}

static void give_back_alone(struct crn_block *block, char *object) {
    crn_each_field(block, object, give_back_field_alone, NULL);
}
static void give_back_together(struct crn_block *block, char *object) {
    crn_each_field(block, object, give_back_field_together, NULL);
}

static void give_back_block(struct crn_block *block, void *visit) {
    if (block->content == CRN_EXACT) each_dead(block, *(visit_dead **)visit);
}

/* Whose segment is the next to be looked at; under the team's lock. */
static struct {
    cairn_heap *heap;
    struct crn_segment *segment;
} unswept;

static struct crn_segment *take_segment(void) {
    crn_lock_acquire(&crn_team.lock);
    while (!unswept.segment && unswept.heap) {
        unswept.heap = unswept.heap->next;
        unswept.segment = unswept.heap ? unswept.heap->core.segments : NULL;
    }
    struct crn_segment *segment = unswept.segment;
    if (segment)
        unswept.segment = segment->next;
    else
        __atomic_store_n(&crn_team.has_source, false, __ATOMIC_RELAXED);
    crn_lock_release(&crn_team.lock);
    return segment;
}

static void give_back_segments_alone(struct crn_worker *worker) {
    (void)worker;
    visit_dead *visit = give_back_alone;
    struct crn_segment *segment;
    while (!crn_team_has_others() && (segment = take_segment()) != NULL) {
        crn_segment_each_block(segment, give_back_block, &visit);
    }
}
static void give_back_segments_together(struct crn_worker *worker) {
    (void)worker;
    visit_dead *visit = give_back_together;
    struct crn_segment *segment;
    while ((segment = take_segment()) != NULL) {
        crn_segment_each_block(segment, give_back_block, &visit);
    }
}

static void give_back_all(void) {
    visit_dead *visit = give_back_alone;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        for (struct crn_segment *at = heap->core.larges; at; at = at->next) {
            give_back_block(&at->large, &visit);
        }
    }
    unswept.heap = crn_heaps;
    unswept.segment = crn_heaps->core.segments;
    __atomic_store_n(&crn_team.has_source, true, __ATOMIC_RELAXED);
    do crn_team_run(give_back_segments_alone, give_back_segments_together);
    while (__atomic_load_n(&crn_team.has_source, __ATOMIC_RELAXED));
}

static void free_dead(struct crn_block *block, char *object) {
    if (block->has_extras && crn_extra_dies(object, block, CRN_DEATH_BY_TRACE)) return;
    crn_object_free(block, object);
}

static void free_block(struct crn_block *block, void *context) {
    (void)context;
    bool is_all_dead = block->slot_size && !block->has_extras && mark_count(block) == 0 &&
                       crn_block_is_settled(block);
    if (is_all_dead)
        crn_block_free_all(block);
    else
        each_dead(block, free_dead);
}

static void note_held(void *object) {
    if (*crn_count_of(object) == 255) note_stuck(object, 1);
}

static void lower_stuck(void) {
    for (size_t i = 0; i < tally_capacity; i++) {
        char *object = tallies[i].object;
        if (!object) continue;
        size_t count = tallies[i].count + crn_bit_get(crn_root_bit(object, crn_gc.parity));
        if (count > 0 && count < 255) *crn_count_of(object) = (uint8_t)count;
    }
    crn_meta_free(tallies, tally_capacity * sizeof(*tallies));
    tallies = NULL;
    tally_capacity = tally_count = 0;
}

static void clear_marks(cairn_heap *heap) {
    const struct crn_region *region = &heap->core.region;
    for (size_t i = 0; i < region->segment_count; i++) {
        if (!region->is_taken[i]) continue;
        uintptr_t a = (uintptr_t)(region->base + (i << CRN_SEGMENT_SHIFT)) & crn_space.mask;
        memset(crn_space.mark_bits + (a >> 7), 0, CRN_SEGMENT_BYTES >> 7);
    }
}

void crn_trace_run(void) {
    CRN_ASSERT(crn_gc.workers[0].decrements.count == 0 && crn_gc.postponed.count == 0 &&
               crn_gc.husks.count == 0);
    CRN_ASSERT(!crn_large_is_waiting() && crn_gc.emptied.count == 0);
    uint64_t started = crn_os_now_ns();
    uint64_t freed_by_count = crn_gc.freed_bytes;
    is_tally_lost = has_deleted = false;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        has_deleted |= __atomic_load_n(&heap->waiting_objects, __ATOMIC_RELAXED) != 0;
    }
    bool is_short = __atomic_load_n(&crn_gc.is_short, __ATOMIC_RELAXED);
    __atomic_store_n(&crn_team.is_tracing, true, __ATOMIC_RELAXED);
    crn_reclaim_help();
    struct crn_stack *roots = &crn_gc.roots[crn_gc.parity];
    for (size_t i = 0; i < roots->count; i++) mark_root(roots->items[i]);
    crn_extras_each_count(mark_counted);
    drain_marks();
    mark_finalizable();
    crn_count_gather();
    crn_untyped_forget(is_marked);
    crn_untyped_each_held(note_held);
    give_back_all();
    __atomic_store_n(&crn_team.is_tracing, false, __ATOMIC_RELAXED);
    if (!is_tally_lost) lower_stuck();
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        struct crn_heap *core = &heap->core;
        uint64_t bytes = core->freed_count_bytes, objects = core->freed_count_objects;
        crn_heap_each_block(core, free_block, NULL);
        crn_worker_flush(&crn_gc.workers[0]);
        core->freed_trace_bytes += core->freed_count_bytes - bytes;
        core->freed_trace_objects += core->freed_count_objects - objects;
        core->freed_count_bytes = bytes;
        core->freed_count_objects = objects;
        clear_marks(heap);
    }
    crn_gc.freed_bytes = freed_by_count;
    /* Those of buried references and of cells: nothing is queued behind a trace, and the objects
     * are free before anybody asks how much is. */
    if (crn_gc.workers[0].decrements.count) {
        crn_count_decrements(0);
        crn_worker_flush(&crn_gc.workers[0]);
    }
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        crn_heap_trim(&heap->core, heap->limit_bytes != 0 || is_short);
    }
    crn_gc.trace_number++;
    uint64_t took = crn_os_now_ns() - started;
    if (took > crn_gc.trace_ns_max) crn_gc.trace_ns_max = took;
}
