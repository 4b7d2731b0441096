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
 * The argument. Who ends an object first writes what a look sees (deleted bit, count) and then the
 * verdicts: a mark where it is deleted, zero where it is dead. Who gives one reads the byte, looks,
 * changes the byte if it is as it was read, looks again with a full fence between, and takes the
 * verdict back if it is not so.
 *
 * Deletion: from when cairn_delete returns nobody passes, not for an instant. The mark stays until
 * a stop at least (an epoch may forget what is young as a whole) and until the object is dead at
 * most. So nothing takes it away within the giver's section, and behind a stop every look sees the
 * bit. If the byte was read before the mark was written, it has changed, or the verdict came first
 * and the mark is written over it; if it was read after, it has the mark: there is nothing to give.
 *
 * Death: zero may come between the reading and the change, so a verdict may be given to what is
 * dead. The second look sees the death: if it does not, the verdict was there before the death was
 * written, and so before the zero. For that instant a look passes what no exact or scanned
 * reference holds, as it would have before the object died.
 *
 * Who allocated has the object on its stack, so it lives when the verdict comes, however late; only
 * another thread's cairn_delete of it in between would be missed. That thread can have it from a
 * heap walk that an epoch's stop came before, and from nowhere else; checked looks then pass what
 * it deleted until a stop has made its references tombstones.
 *
 * Opening: a look from then on comes after the writing of `unjudged`, and who deletes reads that
 * after the deleted bit, with a locked instruction between: it marks, or the look sees the bit.
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
    CRN_FULL_FENCE();
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

void crn_verdicts_end(const void *object, size_t bytes) {
    CRN_FENCE();
    memset(crn_verdict_of(object), CAIRN_VERDICT_DELETED_, bytes >> CRN_GRANULE_SHIFT);
}

bool crn_verdict_give(const void *address, uint8_t before, uint8_t verdict) {
    if (before & CAIRN_VERDICT_DELETED_) return false;
    bool is_given =
        __atomic_compare_exchange_n(crn_verdict_of(address), &before, (uint8_t)(before | verdict),
                                    false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    CRN_FULL_FENCE();
    return is_given;
}

void crn_verdict_take_back(const void *address, uint8_t verdict) {
    __atomic_fetch_and(crn_verdict_of(address), (uint8_t)~verdict, __ATOMIC_SEQ_CST);
}
