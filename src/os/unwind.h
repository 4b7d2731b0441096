/* SPDX-License-Identifier: MIT
 *
 * Return addresses of the calling thread, fast enough to be taken at every allocation.
 */
#ifndef CRN_UNWIND_H
#define CRN_UNWIND_H

#include "base/base.h"

/* The calling thread's frames from the one that returns to `first` on, `most` of them at most;
 * returns how many there are. 0: no way from here to that frame, crn_os_trace may know one. The
 * thread's stack ends at `stack_high`; on another stack the answer is 0. May take the loader's lock
 * (at code that was not met before): call it in no section, with no lock held and not in a handler
 * of signals. Needs no malloc. */
unsigned crn_os_unwind(uintptr_t *frames, unsigned most, const void *first, const char *stack_high);

/* ---- For tests ----------------------------------------------------------------------------------
 */

/* What unwind tables say of the code before a return address. */
enum crn_rule_kind { CRN_RULE_NONE, CRN_RULE_FROM_SP, CRN_RULE_FROM_FP, CRN_RULE_SPECIAL };
enum crn_rule_kind crn_os_rule_kind(uintptr_t returns_to);

#endif
