/* SPDX-License-Identifier: MIT
 *
 * Untyped memory: any word may be a pointer and no barrier tells of stores. Each page of an untyped
 * block holds one count for every pointer that its last scan found, and remembers them:
 *     held counts of a page == pointers into live objects in the words of its live untyped objects
 * An epoch scans the pages that were written since the last one, where the system can tell
 * (os/written.c), and else all; what a page held before becomes decrements. An object's death and
 * its promotion make its pages stale, so that they are scanned though nobody wrote to them.
 *
 * A page is asked for and marked again before it is scanned: what a system call of a waiting thread
 * writes meanwhile is seen by the next epoch. A page without memory for its list stays stale, and
 * what it names is rooted for the one epoch.
 *
 * Pages are flagged stale by workers side by side and by slices under the heap's lock; everything
 * else happens in a stop, by the coordinator.
 */
#include "gc/count.h"

#include <string.h>

static size_t page_bytes(void) {
    return CRN_PAGE_BYTES;
}

static char *first_page(const struct crn_block *block) {
    return (char *)((uintptr_t)block->base & ~(page_bytes() - 1));
}

static void make_stale(const struct crn_block *block, size_t first, size_t last) {
    for (size_t i = first; i <= last; i++) {
        __atomic_store_n(&block->pages->rows[i].is_stale, true, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&block->pages->has_stale, true, __ATOMIC_RELAXED);
    __atomic_store_n(&crn_gc.has_stale_pages, true, __ATOMIC_RELAXED);
}

void crn_untyped_changed(const struct crn_block *block, const char *object) {
    const char *pages = first_page(block);
    size_t used = crn_max(crn_object_used(block, object), 1);
    make_stale(block, (size_t)(object - pages) / page_bytes(),
               (size_t)(object + used - 1 - pages) / page_bytes());
}

static void note_written(char *low, char *high, void *context) {
    const struct crn_block *block = context;
    char *pages = first_page(block);
    size_t first = low > pages ? (size_t)(low - pages) / page_bytes() : 0;
    size_t last = (size_t)(high - pages + (ptrdiff_t)page_bytes() - 1) / page_bytes();
    if (last > block->pages->row_count) last = block->pages->row_count;
    if (last > first) make_stale(block, first, last - 1);
}

/* ---- Which pages --------------------------------------------------------------------------------
 */

static void ask_block(struct crn_block *block, bool is_watched) {
    char *low = first_page(block);
    size_t rows = block->pages->row_count;
    if (!is_watched || !crn_os_written(low, low + rows * page_bytes(), note_written, block)) {
        make_stale(block, 0, rows - 1);
    }
}

static void ask_segment(struct crn_segment *segment) {
    if (!segment->watch || segment->watch != crn_os_watch_generation()) {
        size_t bytes = crn_max(segment->segment_count, 1) << CRN_SEGMENT_SHIFT;
        segment->watch = crn_os_watch((char *)segment, bytes);
    }
    crn_segment_each_untyped(segment, ask_block, segment->watch != 0);
}

/* ---- Scanning -----------------------------------------------------------------------------------
 */

static void find_word(void *word, struct crn_worker *worker) {
    struct crn_block *block;
    char *object = crn_object_of(word, &block);
    if (object) crn_push(&worker->found, object);
}

/* Visits the words of the page that belong to live objects. */
static void scan_page(const struct crn_block *block, char *low, char *high, crn_word_visit *visit) {
    if (low < block->base) low = block->base;
    if (high > block->end) high = block->end;
    size_t step = crn_object_bytes(block);
    for (char *object = block->base + (size_t)(low - block->base) / step * step; object < high;
         object += step) {
        if (*crn_count_of(object) == 0) continue;
        char *end = object + crn_object_used(block, object);
        crn_scan_every_word(object > low ? object : low, end < high ? end : high, visit,
                            &crn_gc.workers[0]);
    }
}

static void give_back(struct crn_worker *worker, struct crn_row *row) {
    for (size_t i = 0; i < row->count; i++) {
        if (row->held[i]) crn_push(&worker->decrements, row->held[i]);
    }
    crn_meta_free(row->held, row->count * sizeof(*row->held));
    row->held = NULL;
    row->count = 0;
}

static void renew_page(const struct crn_block *block, size_t index) {
    struct crn_row *row = &block->pages->rows[index];
    char *low = first_page(block) + index * page_bytes();
    row->is_stale = false;
    give_back(&crn_gc.workers[0], row);
    struct crn_stack *found = &crn_gc.workers[0].found;
    found->count = 0;
    if (block->sealed) return;
    scan_page(block, low, low + page_bytes(), find_word);
    size_t count = found->count;
    if (count == 0) return;
    row->held = crn_meta_alloc(count * sizeof(*row->held));
    if (!row->held) {
        row->is_stale = block->pages->has_stale = crn_gc.has_unheld_pages = true;
        for (size_t i = 0; i < count; i++) crn_root_object(found->items[i]);
        return;
    }
    row->count = (uint32_t)count;
    memcpy(row->held, found->items, count * sizeof(*row->held));
    for (size_t i = 0; i < count; i++) crn_count_increment(row->held[i]);
}

static void renew_block(struct crn_block *block, bool unused) {
    (void)unused;
    if (!block->pages->has_stale) return;
    block->pages->has_stale = false;
    for (size_t i = 0; i < block->pages->row_count; i++) {
        if (block->pages->rows[i].is_stale) renew_page(block, i);
    }
}

static void each_segment(void (*visit)(struct crn_segment *segment)) {
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        for (struct crn_segment *at = heap->core.untyped; at; at = at->next_untyped) visit(at);
    }
}

static void renew_segment(struct crn_segment *segment) {
    crn_segment_each_untyped(segment, renew_block, false);
}

void crn_untyped_ask(void) {
    each_segment(ask_segment);
}

/* Counting what a page holds may promote untyped objects, whose pages are stale then. */
void crn_untyped_renew(void) {
    while (crn_gc.has_stale_pages) {
        crn_gc.has_stale_pages = false;
        each_segment(renew_segment);
        crn_count_drain();
    }
    crn_gc.has_stale_pages = crn_gc.has_unheld_pages;
    crn_gc.has_unheld_pages = false;
}

/* ---- Death --------------------------------------------------------------------------------------
 */

size_t crn_untyped_release(struct crn_worker *worker, struct crn_block *block, size_t from,
                           size_t budget) {
    struct crn_pages *pages = block->pages;
    size_t to = crn_min(pages->row_count, from + budget);
    for (size_t i = from; i < to; i++) give_back(worker, &pages->rows[i]);
    return to < pages->row_count ? to : 0;
}

/* ---- For the trace and the auditors -------------------------------------------------------------
 */

static void (*held_visit)(void *object);

static void visit_held(struct crn_block *block, bool unused) {
    (void)unused;
    for (size_t i = 0; i < block->pages->row_count; i++) {
        const struct crn_row *row = &block->pages->rows[i];
        for (size_t k = 0; k < row->count; k++) {
            if (row->held[k]) held_visit(row->held[k]);
        }
    }
}

static void visit_segment(struct crn_segment *segment) {
    crn_segment_each_untyped(segment, visit_held, false);
}

void crn_untyped_each_held(void (*visit)(void *object)) {
    held_visit = visit;
    each_segment(visit_segment);
}

static bool (*is_kept)(const char *object);

static void forget_in_block(struct crn_block *block, bool unused) {
    (void)unused;
    for (size_t i = 0; i < block->pages->row_count; i++) {
        struct crn_row *row = &block->pages->rows[i];
        for (size_t k = 0; k < row->count; k++) {
            if (row->held[k] && !is_kept(row->held[k])) row->held[k] = NULL;
        }
    }
}

static void forget_in_segment(struct crn_segment *segment) {
    crn_segment_each_untyped(segment, forget_in_block, false);
}

void crn_untyped_forget(bool (*is_live)(const char *object)) {
    is_kept = is_live;
    each_segment(forget_in_segment);
}
