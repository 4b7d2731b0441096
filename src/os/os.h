/* SPDX-License-Identifier: MIT
 *
 * The only room that knows the operating system: address space, time, threads, signals.
 */
#ifndef CRN_OS_H
#define CRN_OS_H

#include "base/base.h"

#include <signal.h>

/* Reserve address space without access, aligned; NULL when there is none. */
void *crn_os_reserve(size_t bytes, size_t align);
/* Reserve address space that reads as zero and costs nothing until it is made writable. */
void *crn_os_reserve_zero(size_t bytes);
/* Memory for the runtime itself, zeroed and writable, committed as touched. NULL on failure. */
void *crn_os_map(size_t bytes);
bool crn_os_commit(void *address, size_t bytes);   /* make writable */
void crn_os_decommit(void *address, size_t bytes); /* give the pages back; reads no more */
void crn_os_purge(void *address, size_t bytes);    /* give the pages back; stays writable, zero */
void crn_os_release(void *address, size_t bytes);  /* unmap */
void crn_os_huge(void *address, size_t bytes);     /* ask for huge pages */
size_t crn_os_address_limit(void);                 /* of RLIMIT_AS in bytes, SIZE_MAX if none */
size_t crn_os_resident(void);                      /* of the process in bytes */

/* copies.c: says that this copy of Cairn starts; whether another in this process did before, and
 * the objects that the two are linked into. */
bool crn_os_other_copy(const char **own, const char **other);

/* CAIRN_FAIL_META=N: the Nth time from now that the runtime asks for memory of its own or for
 * address space, it gets none. 0: never. Whoever hands out such memory asks crn_os_should_fail. */
void crn_os_fail_at(uint64_t request);
bool crn_os_should_fail(void);
bool crn_os_has_failed(void); /* the Nth request has come */

/* The signal that stops a thread: ignored by default where nobody listens. */
enum { CRN_STOP_SIGNAL = SIGURG };

uint64_t crn_os_now_ns(void);
unsigned crn_os_processor_count(void);      /* that this process may run on; at least 1 */
void crn_os_sleep_ns(uint64_t duration_ns); /* or shorter, if a signal comes */
int crn_os_thread_id(void);
int crn_os_process_id(void);

/* Bounds of the calling thread's stack, its static thread-locals included where they lie there. */
bool crn_os_stack_bounds(char **low, char **high);

/* Send the stop signal to a thread of this process; false if it is gone. */
bool crn_os_signal_thread(int thread_id, int signal);
bool crn_os_on_signal(int signal, void (*handler)(int, siginfo_t *, void *),
                      struct sigaction *previous);
uintptr_t crn_os_context_stack_pointer(const void *context);
uintptr_t crn_os_context_program_counter(const void *context);
bool crn_os_context_is_write(const void *context); /* of a page fault */

/* Start a detached thread with every signal blocked but the stop signal. */
bool crn_os_thread_start(void (*run)(void *argument), void *argument);

/* Calls visit for each touched, readable page run of [low, high); never faults, takes no lock. */
void crn_os_touched(char *low, char *high, void (*visit)(char *low, char *high, void *context),
                    void *context);

/* The writable segments of the loaded objects, and the calling thread's thread-locals. Takes the
 * loader's lock: never call it while the world is stopped. */
void crn_os_data_segments(void (*visit)(char *low, char *high, void *context), void *context);
void crn_os_thread_locals(void (*visit)(char *low, char *high, void *context), void *context);

#endif
