/* SPDX-License-Identifier: MIT
 *
 * What giving counts (count.c) and taking them (death.c) share.
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

#endif
