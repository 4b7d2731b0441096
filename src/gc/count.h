/* SPDX-License-Identifier: MIT
 *
 * What giving counts (count.c), taking them (death.c, large.c) and marking (trace.c) share.
 */
#ifndef CRN_COUNT_H
#define CRN_COUNT_H

#include "gc/gc.h"

CRN_INLINE void crn_figure_for(struct crn_worker *worker, struct crn_heap *heap) {
    if (CRN_LIKELY(worker->heap == heap)) return;
    crn_worker_flush(worker);
    worker->heap = heap;
}

/* For crn_each_field: queues a decrement and stores NULL. */
void crn_give_up_and_clear(void **field, void *value, void *worker);

/* Part of a large object: the elements that begin in [next, end). They may end behind it; what has
 * never been written in [next, reach) is zero and need not be read. */
struct crn_window {
    struct crn_block *block;
    char *next, *end, *reach;
};
CRN_INLINE bool crn_has_windows(const struct crn_block *block) {
    return !block->slot_size && !block->type->is_flex_data; /* else the few in front are all */
}
struct crn_window crn_window_open(struct crn_block *block, char *place, size_t bytes);

/* Of the touched pages [low, *high): returns where the first element begins, NULL if none does, and
 * lowers the end to that of the window. */
char *crn_window_cut(const struct crn_window *window, char *low, char **high);

#endif
