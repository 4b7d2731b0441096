/* SPDX-License-Identifier: MIT
 *
 * A lock for short sections inside the runtime. Whoever holds one is in a no-stop section, so that
 * no stopped thread ever holds it and a collection may take it.
 *
 * Ranks, taken in ascending order: newcomers (threads that the registry does not know yet, and a
 * fork), world (a collection), threads (the registry), slice (decrements between epochs), heap
 * (blocks of one heap), graves (records of deletions), extras (weak cells, cleanups, pins; by
 * shard), calls (finalizers, cleanups), types, bins, team (what a collection's workers share), meta
 * (the runtime's own memory). Start, chunks, handovers, roots, sites, verdicts and depot guard a
 * list or a table each and take no other.
 */
#ifndef CRN_LOCK_H
#define CRN_LOCK_H

#include "base/base.h"

struct crn_lock {
    uint32_t state;    /* 0 free, 1 held, 2 held and awaited; atomic */
    uint32_t spinning; /* who waits and does not sleep yet; atomic */
};

/* Sleeps while *word == value; wakes `count` sleepers. Given by os/. */
void crn_futex_wait(uint32_t *word, uint32_t value);
void crn_futex_wake(uint32_t *word, int count);

/* Acquire pairs with the release in crn_lock_release and publishes what the lock guards. */
CRN_INLINE bool crn_lock_try(struct crn_lock *lock) {
    uint32_t expected = 0;
    return __atomic_compare_exchange_n(&lock->state, &expected, 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

void crn_lock_acquire_slow(struct crn_lock *lock);

CRN_INLINE void crn_lock_acquire(struct crn_lock *lock) {
    if (CRN_UNLIKELY(!crn_lock_try(lock))) crn_lock_acquire_slow(lock);
}

CRN_INLINE void crn_lock_release(struct crn_lock *lock) {
    if (__atomic_exchange_n(&lock->state, 0, __ATOMIC_RELEASE) == 2)
        crn_futex_wake(&lock->state, 1);
}

/* Who holds a lock for long lets those go first that need it for a moment: what it guards may be
 * another when this returns. */
void crn_lock_give_way(struct crn_lock *lock);
CRN_INLINE bool crn_lock_is_wanted(const struct crn_lock *lock) {
    return __atomic_load_n(&lock->spinning, __ATOMIC_RELAXED) ||
           __atomic_load_n(&lock->state, __ATOMIC_RELAXED) == 2;
}

#endif
