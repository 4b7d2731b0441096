/* SPDX-License-Identifier: MIT
 *
 * What giving counts (count.c) and taking them (death.c) share: figures of a worker, looking ahead.
 */
#ifndef CRN_COUNT_H
#define CRN_COUNT_H

#include "gc/gc.h"

CRN_INLINE void crn_figure_for(struct crn_worker *worker, struct crn_heap *heap) {
    if (CRN_LIKELY(worker->heap == heap)) return;
    crn_worker_flush(worker);
    worker->heap = heap;
}

/* ---- Looking ahead ------------------------------------------------------------------------------
 */

/* Objects wait in a short ring while their memory comes. Sixteen misses under way are about what a
 * processor keeps up. */
enum { CRN_AHEAD = 16 };
struct crn_ring {
    char *objects[CRN_AHEAD];
    unsigned head, held;
};

/* Its objects stay as they are: a ring begins often, and with a handful. */
CRN_INLINE void crn_ring_init(struct crn_ring *ring) {
    ring->head = ring->held = 0;
}

CRN_INLINE void crn_ring_put(struct crn_ring *ring, char *object) {
    ring->objects[(ring->head + ring->held++) % CRN_AHEAD] = object;
}

CRN_INLINE char *crn_ring_take(struct crn_ring *ring) {
    char *object = ring->objects[ring->head];
    ring->head = (ring->head + 1) % CRN_AHEAD;
    ring->held--;
    return object;
}

/* For crn_each_field: queues a decrement and stores NULL. */
void crn_give_up_and_clear(void **field, void *value, void *worker);

#endif
