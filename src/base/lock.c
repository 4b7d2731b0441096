/* SPDX-License-Identifier: MIT
 *
 * The slow path of crn_lock: spin a little, then sleep in the kernel (Drepper, "Futexes are
 * tricky").
 */
#include "base/lock.h"

void crn_lock_acquire_slow(struct crn_lock *lock) {
    for (int spin = 0; spin < 200; spin++) {
        if (__atomic_load_n(&lock->state, __ATOMIC_RELAXED) == 0 && crn_lock_try(lock)) return;
        CRN_PAUSE();
    }
    while (__atomic_exchange_n(&lock->state, 2, __ATOMIC_ACQUIRE) != 0) {
        crn_futex_wait(&lock->state, 2);
    }
}
