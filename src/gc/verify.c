/* SPDX-License-Identifier: MIT
 *
 * Auditors, run after collections in audit builds and with CAIRN_VERIFY=1.
 *
 * Heap: in every block, live is the number of nonzero counts at slot starts, and no other granule
 * has one. Counts: for every mature object below 255, count == fields + rooted + owned by extras
 * (pinned, held, cells) + queued decrements; and no field refers to what has none. Verdicts: what
 * checked files were told of an object or a field is so. The world stands still since the epoch, so
 * nothing that died in it has been used again. What a disagreement means to the program is
 * forgotten.c's.
 */
#include "gc/gc.h"

#include <string.h>

/* What was found of the objects of one segment. */
struct tally {
    uint16_t counts[CRN_TABLE_BYTES];
    struct tally *next;
};
static struct tally **tallies; /* by address >> CRN_SEGMENT_SHIFT */
static struct tally *first_tally;

static void *map_or_end(size_t bytes) {
    void *mapped = crn_os_map(bytes);
    CAIRN_REQUIRE(mapped, "out of memory while verifying counts");
    return mapped;
}

static uint16_t *tally_of(const void *object) {
    struct tally **tally = &tallies[(uintptr_t)object >> CRN_SEGMENT_SHIFT];
    if (!*tally) {
        *tally = map_or_end(sizeof(**tally));
        (*tally)->next = first_tally;
        first_tally = *tally;
    }
    return (*tally)->counts + (((uintptr_t)object & (CRN_SEGMENT_BYTES - 1)) >> CRN_GRANULE_SHIFT);
}

/* Where objects start, and only there, the counts are not zero. */
static bool is_counted(const void *value) {
    enum crn_segment_kind kind = crn_segment_kind(value);
    return (kind == CRN_SEGMENT_BLOCKY || kind == CRN_SEGMENT_LARGE ||
            kind == CRN_SEGMENT_GUARDED) &&
           crn_is_slot_aligned(value) && *crn_count_of(value) != 0;
}

static void add_one(const void *value) {
    if (is_counted(value) && *tally_of(value) < UINT16_MAX) ++*tally_of(value);
}

/* What a field of a mature object refers to has a count, if the store was told. */
static void tally_field(void **field, void *value, void *context) {
    (void)context;
    if (!value) return;
    bool is_inside = !crn_is_foreign(value) || crn_space_is_reserved(value);
    if (is_inside && !is_counted(value)) crn_report_uncounted(field, value);
    add_one(value);
}

static void tally_object(struct crn_block *block, char *object) {
    crn_each_field(block, object, tally_field, NULL);
}

static void tally_block(struct crn_block *block, void *context) {
    (void)context;
    if (block->content == CRN_EXACT) crn_each_counted(block, tally_object);
    if (crn_gc.is_verifying) crn_note_undeclared(block);
}

static void compare_object(struct crn_block *block, char *object) {
    unsigned count = *crn_count_of(object), found = *tally_of(object);
    if (count != 255 && count != found) crn_report_miscounted(block, object, count, found);
}

static void compare_block(struct crn_block *block, void *context) {
    (void)context;
    crn_each_counted(block, compare_object);
}

static void add_owned(void *object) {
    add_one(object);
}

static void add_held_by_page(void *object) {
    add_one(object);
}

void crn_verify(void) {
    size_t bytes = ((size_t)1 << (CRN_ADDRESS_BITS - CRN_SEGMENT_SHIFT)) * sizeof(*tallies);
    tallies = map_or_end(bytes);
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        crn_heap_each_block(&heap->core, tally_block, NULL);
    }
    struct crn_stack *roots = &crn_gc.roots[crn_gc.parity];
    for (size_t i = 0; i < roots->count; i++) add_one(roots->items[i]);
    for (size_t i = 0; i < crn_gc.workers[0].decrements.count; i++)
        add_one(crn_gc.workers[0].decrements.items[i]);
    for (size_t i = 0; i < crn_gc.postponed.count; i++) add_one(crn_gc.postponed.items[i]);
    if (crn_gc.dismantling) add_one(crn_gc.dismantling);
    for (size_t i = 0; i < crn_gc.dismantled.count; i++) add_one(crn_gc.dismantled.items[i]);
    crn_extras_each_count(add_owned);
    crn_untyped_each_held(add_held_by_page);
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        crn_heap_each_block(&heap->core, compare_block, NULL);
    }
    for (struct tally *tally; (tally = first_tally) != NULL;) {
        first_tally = tally->next;
        crn_os_release(tally, sizeof(*tally));
    }
    crn_os_release(tallies, bytes);
}

static void check_block(struct crn_block *block, void *context) {
    size_t *live_bytes = context;
    size_t step = crn_object_bytes(block);
    uint32_t live = 0;
    const uint8_t *counts = crn_count_of(block->base);
    size_t granules =
        block->slot_size ? (size_t)(block->end - block->base) >> CRN_GRANULE_SHIFT : 1;
    for (size_t i = 0; i < granules; i++) {
        if (!counts[i]) continue;
        live++;
        CAIRN_REQUIRE((i << CRN_GRANULE_SHIFT) % step == 0,
                      "audit: a count in the middle of a slot of a %s block", block->type->name);
    }
    CAIRN_REQUIRE(live == block->live, "audit: a %s block says %u live, counts say %u",
                  block->type->name, block->live, live);
    *live_bytes += live * step;
}

/* What a verdict says must be so. */
static void check_verdicts(struct crn_block *block, void *context) {
    (void)context;
    size_t step = crn_object_bytes(block);
    if (crn_segment_kind(block) != CRN_SEGMENT_BLOCKY) return;
    for (char *word = block->base; word < block->end; word += sizeof(void *)) {
        bool is_start = cairn_is_known_start_(word), is_field = cairn_is_known_field_(word);
        if (!is_start && !is_field) continue;
        char *object = word - (size_t)(word - block->base) % step;
        bool is_alive = *crn_count_of(object) || crn_is_young(block, object);
        bool is_deleted = crn_bit_get(crn_deleted_bit(object));
        bool is_true = is_alive && !is_deleted && (word == object || !is_start) &&
                       (!is_field || block->content == CRN_UNTYPED ||
                        crn_is_declared_field(block, (void **)(void *)word));
        CAIRN_REQUIRE(is_true, "audit: a false verdict, %s, at offset %zu of a %s at %p",
                      is_start ? "start" : "field", (size_t)(word - object), block->type->name,
                      (void *)object);
    }
}

void crn_heap_check(cairn_heap *heap) {
    if (crn_verdicts_are_kept()) crn_heap_each_block(&heap->core, check_verdicts, NULL);
    size_t live_bytes = 0;
    crn_heap_each_block(&heap->core, check_block, &live_bytes);
    CAIRN_REQUIRE(live_bytes == heap->core.live_bytes, "audit: %zu bytes live, the figures say %zu",
                  live_bytes, (size_t)heap->core.live_bytes);
}
