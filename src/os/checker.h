/* SPDX-License-Identifier: MIT
 *
 * Memory checkers that watch the process from outside: AddressSanitizer, where the program was
 * compiled for it, and valgrind's memcheck. They know memory from malloc; of a heap that is cut out
 * of a mapping they know what is said here.
 *
 * What no object has is forbidden: who touches it is reported by the checker. An object that is
 * born is allowed, to the byte, and forbidden when it ends. The runtime itself goes to such memory
 * too: it is compiled without AddressSanitizer, and asks valgrind for quiet meanwhile.
 */
#ifndef CRN_CHECKER_H
#define CRN_CHECKER_H

#include "base/base.h"

/* Set at the start, before there is a heap: whether a checker wants to be told, and whether the
 * process runs under valgrind, whatever its tool. */
extern bool crn_checker_watches, crn_checker_is_valgrind;

/* Looks for checkers. `is_wanted`: what was found is to be told. */
void crn_checker_init(bool is_wanted);

/* Nothing where no checker watches. What is allowed counts as written. */
void crn_checker_allow(const void *address, size_t bytes);
void crn_checker_forbid(const void *address, size_t bytes);

/* Between the two valgrind reports nothing that this thread does. They nest. */
void crn_checker_hush_slow(bool is_beginning);
CRN_INLINE void crn_checker_hush_begin(void) {
    if (CRN_UNLIKELY(crn_checker_is_valgrind)) crn_checker_hush_slow(true);
}
CRN_INLINE void crn_checker_hush_end(void) {
    if (CRN_UNLIKELY(crn_checker_is_valgrind)) crn_checker_hush_slow(false);
}

/* Under valgrind: the same word, which now counts as written wherever it came from. */
void *crn_checker_written(void *word);

/* LeakSanitizer: what a heap refers to is no leak. */
void crn_checker_add_root(const void *address, size_t bytes);
void crn_checker_remove_root(const void *address, size_t bytes);

#endif
