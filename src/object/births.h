/* SPDX-License-Identifier: MIT
 *
 * By what stacks objects were allocated, and by which thread; and the stacks of deletions.
 */
#ifndef CRN_BIRTHS_H
#define CRN_BIRTHS_H

#include "base/report.h"
#include "heap/heap.h"
#include "object/depot.h"

/* Of which objects stacks are taken. Set before the first object. */
enum crn_births { CRN_BIRTHS_NONE, CRN_BIRTHS_OF_GUARDED, CRN_BIRTHS_OF_ALL };
extern enum crn_births crn_births_kept;

enum { CRN_STACK_DEPTH = 16 }; /* if nothing else is said */
void crn_births_init(enum crn_births kept, uint32_t depth);

/* Of an object that this thread has just been given: `returns_to` is where the program goes on. In
 * no section, with no lock held. */
void crn_birth_note(const void *object, const void *returns_to);

/* The object that starts there, dead or alive. */
struct crn_birth crn_birth_of_slow(const struct crn_block *block, const void *object);
CRN_INLINE struct crn_birth crn_birth_of(const struct crn_block *block, const void *object) {
    struct crn_birth none = {CRN_STACK_NONE, 0};
    return CRN_UNLIKELY(crn_births_kept) ? crn_birth_of_slow(block, object) : none;
}

/* The number of the stack of who deletes this, CRN_STACK_NONE if it is not to be taken. In no
 * section, with no lock held. */
uint32_t crn_deletion_stack(const void *object, const void *returns_to);

/* The frames of a stack as items of the report, with names: nothing for CRN_STACK_NONE. */
void crn_stack_tell(struct crn_report *report, const char *key, uint32_t number);

#endif
