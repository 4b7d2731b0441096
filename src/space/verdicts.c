/* SPDX-License-Identifier: MIT
 *
 * Verdicts: what checked files have found out about addresses, so that a second look is one load.
 *
 * A byte for every 16 bytes of address space: an object starts here and lives, the first or the
 * second word is a declared reference field of a living object. A verdict is given by who has
 * looked (checked.c) or has just allocated (cairn_born_), and taken back when it may no longer
 * hold: at deletion, at death by count or trace, at an epoch from what was allocated since the one
 * before and has no count, and when a segment is freed. None is needed: whoever finds none looks.
 *
 * The argument. Who gives one by looking first gives it, then looks (again), with a full fence
 * between, and takes it back if it is not so; who ends an object first writes what a look sees
 * (deleted bit, count) and then forgets. If the look does not see the end, the verdict was there
 * before that was written and so is forgotten. Giving is in a section: no stop comes between. Who
 * allocated has the object on its stack, so it lives when the verdict comes, however late; only
 * another thread's cairn_delete of it in between would be missed, and that thread has the object
 * from nowhere.
 */
#include "base/lock.h"
#include "os/os.h"
#include "space/space.h"

#include <string.h>

static struct crn_lock verdicts_lock;
static bool
    are_none; /* atomic; there is not enough address space, and so there never will be any */

static void open_locked(void) {
    bool is_short = CAIRN_TSAN_ || CAIRN_ASAN_ || crn_os_address_limit() != SIZE_MAX;
    size_t bytes = (size_t)1 << (CRN_ADDRESS_BITS - CRN_GRANULE_SHIFT);
    uint8_t *verdicts = is_short ? NULL : crn_os_map_room(bytes);
    if (!verdicts) {
        __atomic_store_n(&are_none, true, __ATOMIC_RELAXED);
        return;
    }
    cairn_runtime.verdicts = verdicts;
    crn_space.notes_ends = true;
    /* Release: who finds addresses judged finds the verdicts. */
    uintptr_t unjudged = ~(((uintptr_t)1 << CRN_ADDRESS_BITS) - 1) | (CRN_GRANULE - 1);
    __atomic_store_n(&cairn_runtime.unjudged, unjudged, __ATOMIC_RELEASE);
}

void crn_verdicts_open(void) {
    crn_lock_acquire(&verdicts_lock);
    if (crn_verdicts_are_wanting()) open_locked();
    crn_lock_release(&verdicts_lock);
}

bool crn_verdicts_are_wanting(void) {
    return !crn_verdicts_are_kept() && !__atomic_load_n(&are_none, __ATOMIC_RELAXED);
}

void crn_verdicts_forget_slow(const void *low, size_t bytes) {
    CRN_FENCE();
    memset(crn_verdict_of(low), 0, bytes >> CRN_GRANULE_SHIFT);
}
