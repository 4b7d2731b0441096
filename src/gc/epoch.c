/* SPDX-License-Identifier: MIT
 *
 * The counting epoch: logged stores and roots become counts (deferred and coalesced, after LXR:
 * Zhao, Blackburn, McKinley, PLDI 2022; Levanoni and Petrank, TOPLAS 2006; conservative roots after
 * Shahriyar, Blackburn, McKinley, OOPSLA 2014).
 *
 * In order, with the world stopped:
 *  1. Roots. Each object that a root names gets one count and its bit of this epoch's parity; one
 * that had the bit of the last epoch keeps the count it already has.
 *  2. The log. Each field gives a count to what it holds now, queues a decrement for what it held
 * at the last epoch, and has its log bit set again.
 *  3. Promotion. Whoever goes from zero to one is checked to be the start of a handed-out slot,
 * becomes mature, has its log bits set and gives counts to what its fields hold; and so on.
 *  4. Objects rooted at the last epoch and not now queue a decrement.
 *  5. Young objects with extras that nobody counted are dead: they are told. Other dead young
 * objects are never touched: their slots' counts are zero and their blocks' records end here.
 *  6. Decrements. Who reaches zero gives up its fields in turn; its count is written last.
 * Increments come before decrements, so that no count falls to zero that should not.
 */
#include "gc/gc.h"

#include <string.h>

struct crn_gc crn_gc;

/* ---- Increments and promotion
 * ----------------------------------------------------------------------------- */

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

static void set_log_bits_of(char *object, uint64_t map) {
    uintptr_t a = (uintptr_t)object & crn_space.mask;
    uint8_t *byte = cairn_runtime.log_bits + (a >> 6);
    for (uint64_t bits = map << ((a >> 3) & 7); bits; bits >>= 8) *byte++ |= (uint8_t)bits;
}

static void set_log_bit(void **field) {
    uintptr_t a = (uintptr_t)field & crn_space.mask;
    cairn_runtime.log_bits[a >> 6] |= (uint8_t)(1u << ((a >> 3) & 7));
}

static bool is_foreign(const void *value) {
    return (uintptr_t)value - (uintptr_t)crn_space.low >=
           (uintptr_t)crn_space.high - (uintptr_t)crn_space.low;
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

static CRN_NOINLINE void promote(char *object, uint8_t *count, void **field) {
    struct crn_block *block = crn_block_of_start(object);
    /* The usual case, checked inline: a young slot of a block that a cursor is in or has left. */
    uint64_t offset = (uint64_t)(object - block->base);
    bool is_usual = (block->state == CRN_BLOCK_ACTIVE || block->state == CRN_BLOCK_SPENT) &&
                    ((offset * block->reciprocal) >> 32) * block->slot_size == offset &&
                    crn_is_young(block, object);
    if (CRN_UNLIKELY(!is_usual || crn_heaps->next || !block->slot_size)) {
        check_first_count(object, block, field);
    }
    *count = 1;
    block->live++;
    size_t bytes = crn_object_bytes(block);
    block->heap->live_objects++;
    block->heap->live_bytes += bytes;
    crn_gc.promoted_objects++;
    crn_gc.promoted_bytes += bytes;
    /* An exact object of its own was born logged: its stores are all in the log. */
    bool is_scanned =
        block->content == CRN_EXACT ? block->slot_size != 0 : block->content == CRN_UNTYPED;
    if (is_scanned) {
        CRN_PREFETCH(object);
        crn_push(&crn_gc.grey, object);
    }
}

CRN_INLINE void increment(void *value, void **field) {
    if (is_foreign(value)) return;
    if (CRN_UNLIKELY(!crn_is_slot_aligned(value) || crn_segment_kind(value) == CRN_SEGMENT_BODY ||
                     crn_segment_kind(value) == CRN_SEGMENT_NONE)) {
        report_bad_reference(value, field);
    }
    uint8_t *count = crn_count_of(value);
    if (*count == 0)
        promote(value, count, field);
    else if (*count != 255)
        ++*count;
}

static void root_object(char *object) {
    unsigned parity = crn_gc.parity;
    struct crn_bit bit = crn_root_bit(object, parity);
    if (crn_bit_get(bit)) return;
    *bit.byte |= bit.mask;
    crn_push(&crn_gc.roots[parity], object);
    if (!crn_bit_get(crn_root_bit(object, !parity))) increment(object, NULL);
}

static void root_word(void *word) {
    struct crn_block *block;
    char *object = crn_object_of(word, &block);
    if (object) root_object(object);
}

static void count_field(void **field, void *context) {
    set_log_bit(field);
    void *value = crn_field_value(context, *field);
    if (value) increment(value, field);
}

static void count_fields(char *object) {
    struct crn_block *block = crn_block_of_start(object);
    const struct crn_type *type = block->type;
    if (block->content == CRN_UNTYPED) {
        crn_scan_words(object, object + crn_object_used(block, object), root_word);
    } else if (CRN_LIKELY(type->is_mapped && !block->is_sized)) {
        set_log_bits_of(object, type->map);
        void **words = (void **)(void *)object;
        for (uint64_t map = type->map; map; map &= map - 1) {
            void **field = words + __builtin_ctzll(map);
            if (*field) increment(*field, field);
        }
    } else {
        crn_each_field(block, object, count_field, block);
    }
}

static void drain_grey(void) {
    while (crn_gc.grey.count) count_fields(crn_gc.grey.items[--crn_gc.grey.count]);
}

/* ---- The log
 * --------------------------------------------------------------------------------------------- */

static void count_logged(const struct crn_log_entry *entry) {
    void **field = entry->field;
    set_log_bit(field);
    void *value = *field, *old = entry->old;
    struct crn_block *owner = NULL;
    if (CRN_UNLIKELY(((uintptr_t)value | (uintptr_t)old) & (CRN_GRANULE - 1)) ||
        CRN_UNLIKELY(crn_any_tagged)) {
        owner = crn_block_of_interior(field);
        value = crn_field_value(owner, value);
        old = crn_field_value(owner, old);
    }
    if (value) increment(value, field);
    if (old && !is_foreign(old)) crn_push(&crn_gc.decrements, old);
}

static uint64_t count_log_of(struct crn_thread *thread) {
    uint64_t entries = 0;
    for (struct crn_log_chunk *chunk = thread->log, *next; chunk; chunk = next) {
        next = chunk->next;
        for (size_t i = 0; i < chunk->count; i++) {
            if (i + 8 < chunk->count) {
                CRN_PREFETCH(chunk->entries[i + 8].field);
                if (!is_foreign(chunk->entries[i + 8].old)) {
                    CRN_PREFETCH(crn_count_of(chunk->entries[i + 8].old));
                }
            }
            count_logged(&chunk->entries[i]);
            drain_grey();
        }
        entries += chunk->count;
        crn_log_chunk_give(chunk);
    }
    thread->log = NULL;
    if (!thread->spare) thread->spare = crn_log_chunk_take();
    return entries;
}

/* ---- Decrements
 * ------------------------------------------------------------------------------------------ */

void crn_object_free(struct crn_block *block, char *object) {
    size_t bytes = crn_object_bytes(block);
    block->heap->live_bytes -= bytes;
    block->heap->live_objects--;
    crn_gc.freed_objects++;
    crn_gc.freed_bytes += bytes;
    block->live--;
    __atomic_store_n(crn_count_of(object), 0, __ATOMIC_RELEASE);
    if (block->state != CRN_BLOCK_FULL && block->state != CRN_BLOCK_PARTIAL) return;
    if (block->live == 0)
        crn_block_free(block);
    else if (block->slot_count - block->live == crn_block_room(block))
        crn_block_has_room(block);
}

static void give_up_field(void **field, void *context) {
    void *value = crn_field_value(context, *field);
    if (value && !is_foreign(value)) crn_push(&crn_gc.decrements, value);
}

static void die(char *object, uint8_t *count) {
    struct crn_block *block = crn_block_of_start(object);
    if (CRN_UNLIKELY(block->has_extras) && crn_extra_died(object, block)) {
        *count = 1;
        return;
    }
    if (block->content == CRN_EXACT) crn_each_field(block, object, give_up_field, block);
    crn_object_free(block, object);
}

CRN_INLINE void decrement(char *object) {
    uint8_t *count = crn_count_of(object);
    CAIRN_REQUIRE(*count != 0, "internal error: a count below zero at %p", (void *)object);
    if (*count == 255) return;
    if (*count == 1)
        die(object, count);
    else
        --*count;
}

/* Objects wait in a short ring while their count and their memory come from memory. */
static void apply_decrements(uint64_t deadline_ns) {
    enum { AHEAD = 16 };
    char *ring[AHEAD];
    struct crn_stack *queue = &crn_gc.decrements;
    size_t head = 0, held = 0;
    for (unsigned steps = 1; queue->count || held; steps++) {
        if (held == AHEAD || !queue->count) {
            decrement(ring[head]);
            head = (head + 1) % AHEAD;
            held--;
        }
        if (deadline_ns && steps % 1024 == 0 && crn_os_now_ns() > deadline_ns) break;
        if (!queue->count) continue;
        char *object = queue->items[--queue->count];
        CRN_PREFETCH(crn_count_of(object));
        CRN_PREFETCH(object);
        ring[(head + held++) % AHEAD] = object;
    }
    while (held--) {
        crn_push(queue, ring[head]);
        head = (head + 1) % AHEAD;
    }
}

/* ---- Around them
 * ------------------------------------------------------------------------------------------ */

static void root_extra(struct crn_extra *extra, void *context) {
    (void)context;
    if (extra->pin_count) root_object(extra->object);
    if (extra->cell) root_object((char *)extra->cell);
}

static void give_back_held(void *object, void *context) {
    (void)context;
    crn_push(&crn_gc.decrements, object);
}

/* Young objects that have extras: those that nobody counted are dead now. */
static void judge_young(struct crn_extra *extra, void *context) {
    (void)context;
    if (!extra->is_young) return;
    extra->is_young = false;
    if (*crn_count_of(extra->object) == 0) crn_push(&crn_gc.grey, extra->object);
}

static void judge_young_extras(void) {
    crn_lock_acquire(&crn_extras_lock);
    crn_extras_each_locked(judge_young, NULL);
    crn_lock_release(&crn_extras_lock);
    size_t dead_count = crn_gc.grey.count;
    for (size_t i = 0; i < dead_count; i++) {
        char *object = crn_gc.grey.items[i];
        /* One that lived on to be finalized counts what it refers to, perhaps a later one of these.
         */
        if (*crn_count_of(object) == 0 && crn_extra_died(object, crn_block_of_start(object))) {
            increment(object, NULL);
        }
    }
    size_t added = crn_gc.grey.count - dead_count;
    memmove(crn_gc.grey.items, crn_gc.grey.items + dead_count, added * sizeof(void *));
    crn_gc.grey.count = added;
    drain_grey();
}

static void unroot_last(void) {
    struct crn_stack *last = &crn_gc.roots[!crn_gc.parity];
    for (size_t i = 0; i < last->count; i++) {
        struct crn_bit bit = crn_root_bit(last->items[i], !crn_gc.parity);
        *bit.byte &= (uint8_t)~bit.mask;
        if (!crn_bit_get(crn_root_bit(last->items[i], crn_gc.parity))) {
            crn_push(&crn_gc.decrements, last->items[i]);
        }
    }
    last->count = 0;
}

static void scan_untyped_block(struct crn_block *block, void *context) {
    (void)context;
    if (block->content != CRN_UNTYPED || block->live == 0) return;
    size_t step = crn_object_bytes(block);
    for (char *object = block->base; object < block->end; object += step) {
        if (*crn_count_of(object) == 0) continue;
        crn_scan_words(object, object + crn_object_used(block, object), root_word);
    }
}

/* The record of runs ends here: what a cursor hands out from now on is young. */
static void settle_cache(struct crn_cache *cache) {
    struct crn_block *block = cache->acquired, *active = NULL;
    while (block) {
        struct crn_block *next = block->next;
        if (block->cursor) {
            block->young_begin = block->cursor->next;
            block->next = active;
            active = block;
        } else {
            if (!block->slot_size && block->live == 0 && block->content == CRN_EXACT) {
                /* Born logged: its fields have been counted, so it gives them up like a mature one.
                 */
                crn_each_field(block, block->base, give_up_field, block);
            }
            crn_block_settle(block);
        }
        block = next;
    }
    cache->acquired = active;
}

static void settle_threads(void) {
    for (struct crn_thread **at = &crn_threads, *thread; (thread = *at) != NULL;) {
        for (struct crn_cache *cache = thread->caches; cache; cache = cache->next)
            settle_cache(cache);
        if (__atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) != CRN_THREAD_GONE) {
            at = &thread->next;
            continue;
        }
        *at = thread->next;
        for (struct crn_cache *cache = thread->caches, *next; cache; cache = next) {
            next = cache->next;
            crn_meta_free(cache->cursors, cache->capacity * sizeof(*cache->cursors));
            crn_meta_free(cache->runs, cache->capacity * sizeof(*cache->runs));
            crn_meta_free(cache, sizeof(*cache));
        }
        if (thread->spare) crn_log_chunk_give(thread->spare);
        crn_meta_free(thread, sizeof(*thread));
    }
}

void crn_epoch_run(bool is_bounded) {
    uint64_t started = crn_os_now_ns();
    uint64_t young_bytes = crn_young_bytes();
    crn_gc.promoted_objects = crn_gc.promoted_bytes = 0;
    crn_gc.freed_objects = crn_gc.freed_bytes = 0;
    crn_gc.parity = !crn_gc.parity;
    crn_scan_roots(root_word);
    crn_extras_each_locked(root_extra, NULL);
    uint64_t rooted = crn_os_now_ns();
    crn_gc.real_root_count = crn_gc.roots[crn_gc.parity].count;
    uint64_t entries = 0;
    drain_grey();
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        entries += count_log_of(thread);
    }
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        if (crn_any_untyped) crn_heap_each_block(&heap->core, scan_untyped_block, NULL);
    }
    drain_grey();
    crn_finalized_take(give_back_held, NULL);
    unroot_last();
    judge_young_extras();
    settle_threads();
    uint64_t deadline = is_bounded ? started + crn_settings.pause_goal_ns * 9 / 10 : 0;
    apply_decrements(deadline);
    crn_gc.epoch++;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        heap->core.epoch_allocated_bytes = heap->core.allocated_bytes;
    }
    crn_gc.logged_entries = 0;
    crn_pace_after_epoch(crn_os_now_ns() - started, rooted - started, entries, young_bytes);
}
