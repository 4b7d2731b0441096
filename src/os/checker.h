/* SPDX-License-Identifier: MIT
 *
 * Memory checkers that watch the process from outside: AddressSanitizer, where the program was
 * compiled for it, and valgrind's memcheck. They know memory from malloc; of a heap that is cut out
 * of a mapping they know what is said here.
 *
 * What no object has is forbidden: who touches it is reported by the checker. An object that is
 * born is allowed, to the byte, and forbidden when it ends. The runtime itself is compiled without
 * AddressSanitizer, and goes to such memory in quiet under valgrind.
 */
#ifndef CRN_CHECKER_H
#define CRN_CHECKER_H

#include "base/base.h"

/* Whether a checker wants to be told. Set at the start, before there is a heap. */
extern bool crn_checker_watches;

/* Looks for checkers. `is_wanted`: what was found is to be told. */
void crn_checker_init(bool is_wanted);

/* Nothing where no checker watches. Allowed memory counts as written. Of what is forbidden a word
 * of 8 bytes that is allowed in part stays allowed up to where it was. */
void crn_checker_allow(const void *address, size_t bytes);
void crn_checker_forbid(const void *address, size_t bytes);

/* LeakSanitizer: what a heap refers to is no leak. */
void crn_checker_add_root(const void *address, size_t bytes);
void crn_checker_remove_root(const void *address, size_t bytes);

#endif
