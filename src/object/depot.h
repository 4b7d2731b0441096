/* SPDX-License-Identifier: MIT
 *
 * The depot: every stack that was ever taken, once, by number.
 */
#ifndef CRN_DEPOT_H
#define CRN_DEPOT_H

#include "base/base.h"

enum {
    CRN_STACK_NONE = 0, /* none was taken */
    CRN_STACK_LOST = 1, /* one was, or should have been: no memory */
};

/* The stack's number, the same for the same frames as long as the process lives; CRN_STACK_LOST
 * without memory. In a no-stop section. */
uint32_t crn_depot_put(const uintptr_t *frames, unsigned count);
/* Copies the frames of a stack; returns how many there are, 0 for the two above. Takes no lock. */
unsigned crn_depot_get(uint32_t number, uintptr_t *frames, unsigned most);
size_t crn_depot_count(void); /* of stacks */

#endif
