/* SPDX-License-Identifier: MIT
 *
 * Large objects die in pieces, so that neither a pause nor a slow path pays for all of one.
 *
 * An object of its own blocks whose last count is to be taken goes on the list `dismantled` and
 * keeps that one count until it is done: first its fields are given up and cleared, some thousands
 * at a time, then its pages go back to the system, then its segments. A root that is none may name
 * it again meanwhile: then it outlives its fields, empty, until that root is gone. One worker does
 * it, under the slice's lock or alone in a stop.
 *
 * Their fields are read a window at a time, and pages that nobody has written are passed over, for
 * to read them would make them be there: a table made for the future costs little to trace and to
 * drop (one that a trace finds dead, or that is deleted, is still read as a whole). Only in a
 * heap's own memory, which is private and anonymous.
 */
#include "gc/count.h"

enum { FIELDS_BUDGET = 4096, ROWS_BUDGET = 64, DISMANTLE_BYTES = 256 * 1024 };
#define PURGE_BYTES CRN_MIB(4)
#define WINDOW_BYTES_MAX CRN_MIB(1)

bool crn_large_is(const struct crn_block *block) {
    return !block->slot_size && crn_object_bytes(block) >= DISMANTLE_BYTES;
}

void crn_give_up_and_clear(void **field, void *value, void *worker) {
    if (value && !crn_is_foreign(value))
        crn_push(&((struct crn_worker *)worker)->decrements, value);
    *field = NULL;
}

struct crn_window crn_window_open(struct crn_block *block, char *place, size_t bytes) {
    char *object = block->base, *object_end = object + crn_object_used(block, object);
    size_t left = (size_t)(object_end - place);
    char *end = place + crn_min(bytes, left);
    char *reach = end + crn_min(block->type->size, (size_t)(object_end - end));
    return (struct crn_window){block, crn_element_from(block, object, place), end, reach};
}

char *crn_window_cut(const struct crn_window *window, char *low, char **high) {
    char *from = window->next;
    if (low > from) from = crn_element_of(window->block, window->block->base, low);
    if (from < window->next) from = window->next;
    if (*high > window->end) *high = window->end;
    return from < *high ? from : NULL;
}

struct dismantled {
    struct crn_window window;
    struct crn_worker *worker;
};

static void give_up_touched(char *low, char *high, void *context) {
    struct dismantled *part = context;
    char *from = crn_window_cut(&part->window, low, &high);
    if (!from) return;
    struct crn_block *block = part->window.block;
    part->window.next =
        crn_each_field_between(block, block->base, from, high, crn_give_up_and_clear, part->worker);
}

/* Returns where to go on, NULL at the end. */
static char *give_up_window(struct crn_worker *worker, struct crn_block *block, char *place) {
    if (!crn_has_windows(block)) {
        crn_each_field(block, place, crn_give_up_and_clear, worker);
        return NULL;
    }
    size_t step = block->type->has_flex ? sizeof(void *) : block->type->size;
    size_t bytes = crn_min(crn_min(step, WINDOW_BYTES_MAX) * FIELDS_BUDGET, WINDOW_BYTES_MAX);
    struct dismantled part = {crn_window_open(block, place, bytes), worker};
    crn_os_touched(part.window.next, part.window.reach, false, give_up_touched, &part);
    return place + bytes < block->base + crn_object_used(block, block->base) ? place + bytes : NULL;
}

/* Gives back the last pages that are still there. Returns whether more are left. */
static bool purge_piece(const struct crn_block *block) {
    if (crn_segment_kind(block) != CRN_SEGMENT_LARGE) return false;
    char *low = (char *)crn_round_up((uintptr_t)block->base, CRN_BLOCK_BYTES);
    if (!crn_gc.purged_from) crn_gc.purged_from = block->end;
    size_t left = crn_gc.purged_from > low ? (size_t)(crn_gc.purged_from - low) : 0;
    size_t piece = crn_min(left, PURGE_BYTES);
    char *from = (char *)((uintptr_t)(crn_gc.purged_from - piece) & ~(CRN_BLOCK_BYTES - 1));
    if (from < low) from = low;
    if (piece) crn_os_purge(from, (size_t)(crn_gc.purged_from - from));
    crn_gc.purged_from = from;
    return from > low;
}

bool crn_large_step(struct crn_worker *worker) {
    if (!crn_gc.dismantling) {
        struct crn_stack *list = &crn_gc.dismantled;
        if (!list->count) return false;
        crn_gc.dismantling = crn_gc.dismantled_to = list->items[--list->count];
        crn_gc.purged_from = NULL;
        crn_gc.released_rows = 0;
    }
    char *object = crn_gc.dismantling;
    struct crn_block *block = crn_block_of_start(object);
    if (block->content == CRN_EXACT && crn_gc.dismantled_to) {
        crn_gc.dismantled_to = give_up_window(worker, block, crn_gc.dismantled_to);
        return true;
    }
    if (block->pages && crn_gc.dismantled_to) {
        size_t next = crn_untyped_release(worker, block, crn_gc.released_rows, ROWS_BUDGET);
        crn_gc.released_rows = next;
        if (!next) crn_gc.dismantled_to = NULL;
        return true;
    }
    if (purge_piece(block)) return true;
    /* Static memory is scanned: a position left behind would keep whatever comes to lie there. */
    crn_gc.dismantling = crn_gc.dismantled_to = crn_gc.purged_from = NULL;
    crn_push(&crn_gc.emptied, object);
    return true;
}

bool crn_large_is_waiting(void) {
    return crn_gc.dismantling || crn_gc.dismantled.count != 0;
}
