/* SPDX-License-Identifier: MIT
 *
 * The slow path of crn_lock: spin a little, then sleep in the kernel (Drepper, "Futexes are
 * tricky").
 */
#include "base/lock.h"

enum { SPINS = 200 };

void crn_lock_acquire_slow(struct crn_lock *lock) {
    bool is_mine = false;
    __atomic_fetch_add(&lock->spinning, 1, __ATOMIC_RELAXED);
    for (int spin = 0; spin < SPINS && !is_mine; spin++) {
        is_mine = __atomic_load_n(&lock->state, __ATOMIC_RELAXED) == 0 && crn_lock_try(lock);
        if (!is_mine) CRN_PAUSE();
    }
    __atomic_fetch_sub(&lock->spinning, 1, __ATOMIC_RELAXED);
    while (!is_mine && __atomic_exchange_n(&lock->state, 2, __ATOMIC_ACQUIRE) != 0) {
        crn_futex_wait(&lock->state, 2);
    }
}

/* No promise: who spins may lose its processor, so this one does not wait for long. */
void crn_lock_give_way(struct crn_lock *lock) {
    crn_lock_release(lock);
    for (int spin = 0; spin < SPINS && __atomic_load_n(&lock->spinning, __ATOMIC_RELAXED); spin++) {
        CRN_PAUSE();
    }
    crn_lock_acquire(lock);
}
