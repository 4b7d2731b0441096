/* SPDX-License-Identifier: MIT
 *
 * The only room that knows the operating system: address space, time, threads, signals.
 */
#ifndef CRN_OS_H
#define CRN_OS_H

#include "base/base.h"

#include <cairn/runtime.h>
#include <signal.h>

/* Reserve address space without access, aligned; NULL when there is none. */
void *crn_os_reserve(size_t bytes, size_t align);
/* Reserve address space that reads as zero and costs nothing until it is made writable. */
void *crn_os_reserve_zero(size_t bytes);
/* Memory for the runtime itself, zeroed and writable, committed as touched. NULL on failure. */
void *crn_os_map(size_t bytes);
/* The same, much larger than what is ever touched: left out of core files. */
void *crn_os_map_room(size_t bytes);
/* Whether core files have it. What is reserved they have not, until this is called: a core of
 * hundreds of gigabytes, be they holes, is none that can be piped or written by a debugger. */
void crn_os_set_dumped(void *address, size_t bytes, bool is_dumped);
bool crn_os_commit(void *address, size_t bytes);   /* make writable */
void crn_os_decommit(void *address, size_t bytes); /* give the pages back; reads no more */
void crn_os_protect(void *address, size_t bytes);  /* no access; the contents stay */
size_t crn_os_page_bytes(void);
bool crn_os_is_privileged(void);  /* more than who started the process */
size_t crn_os_mappings_now(void); /* that this process has; 0: the system does not say */
size_t crn_os_mappings_max(void); /* that a process may have */
void crn_os_purge(void *address, size_t bytes);   /* give the pages back; stays writable, zero */
void crn_os_release(void *address, size_t bytes); /* unmap */
/* Pages that will be written soon come now, at once and not fault by fault, where the system knows
 * how to (Linux from 5.14). */
void crn_os_populate(void *address, size_t bytes);
/* Where it pays: asks for huge pages, if they are to be used at all; where nobody has said, if they
 * are usual. Usual are they where the system gives them to who does not ask: elsewhere clearing
 * them may cost more than they save. */
void crn_os_huge(void *address, size_t bytes);
void crn_os_use_huge_pages(bool use);
bool crn_os_huge_pages_are_usual(void);
size_t crn_os_address_limit(void); /* of RLIMIT_AS in bytes, or valgrind's; SIZE_MAX if none */
size_t crn_os_resident(void);      /* of the process in bytes */

/* Whether the process runs under ThreadSanitizer, whatever this library was built with. */
bool crn_os_has_thread_sanitizer(void);

/* copies.c: says that this copy of Cairn starts; whether another in this process did before, and
 * the objects that the two are linked into. */
bool crn_os_other_copy(const char **own, const char **other);

/* CAIRN_FAIL_META=N: the Nth time from now that the runtime asks for memory of its own or for
 * address space, it gets none. 0: never. Whoever hands out such memory asks crn_os_should_fail. */
void crn_os_fail_at(uint64_t request);
bool crn_os_should_fail(void);
bool crn_os_has_failed(void); /* the Nth request has come */

/* The signal that stops a thread. SIGURG: ignored where nobody listens. Set before the first stop.
 */
extern int crn_os_stop_signal;
bool crn_os_signal_may_stop(int signal); /* whether a program may choose it */
void crn_os_admit_stop_signal(void);     /* out of this thread's mask */

uint64_t crn_os_now_ns(void);
uint64_t crn_os_now_coarse_ns(void);        /* the same clock some milliseconds ago, much cheaper */
unsigned crn_os_processor_count(void);      /* that this process may run on; at least 1 */
void crn_os_sleep_ns(uint64_t duration_ns); /* or shorter, if a signal comes */
int crn_os_thread_id(void);
int crn_os_process_id(void);

/* Sleeps while *word == value, at most so long. */
void crn_os_futex_wait_for(uint32_t *word, uint32_t value, uint64_t ns);

/* Bounds of the calling thread's stack, its static thread-locals included where they lie there. */
bool crn_os_stack_bounds(char **low, char **high);

/* Send the stop signal to a thread of this process; false if it is gone. */
bool crn_os_signal_thread(int thread_id, int signal);
bool crn_os_signal_is_from_us(const siginfo_t *info); /* sent by crn_os_signal_thread */
bool crn_os_on_signal(int signal, void (*handler)(int, siginfo_t *, void *),
                      struct sigaction *previous);
uintptr_t crn_os_context_stack_pointer(const void *context);
uintptr_t crn_os_context_program_counter(const void *context);
bool crn_os_context_is_write(const void *context); /* of a page fault */

/* Where the alternate signal stack ends that this code, or that of a context's handler, runs on;
 * NULL if there is none. */
char *crn_os_alternate_stack_end(void);
char *crn_os_context_alternate_stack_end(const void *context);

/* Start a detached thread with every signal blocked but the stop signal. */
bool crn_os_thread_start(void (*run)(void *argument), void *argument);

/* ---- pages.c ----------------------------------------------------------------------------------
 */

/* Watch whole pages for writes; returns the generation of the watch, 0 where the system cannot.
 * crn_os_written visits what was written since the watch began or the last call, and marks it anew;
 * false: nobody can tell. */
uint32_t crn_os_watch(char *low, size_t bytes);
uint32_t crn_os_watch_generation(void);
bool crn_os_written(char *low, char *high, void (*visit)(char *low, char *high, void *context),
                    void *context);

/* Calls visit for each run of pages of [low, high) that may hold what the program stored: present
 * or swapped, not the zero page, and with `is_private_file` not as the file has them. Never faults,
 * takes no lock. */
void crn_os_touched(char *low, char *high, bool is_private_file,
                    void (*visit)(char *low, char *high, void *context), void *context);
void crn_os_pages_after_fork(void);

/* ---- loaded.c ---------------------------------------------------------------------------------
 */

struct crn_os_images_visit {
    /* A writable segment, without what is read-only after relocation. */
    void (*segment)(char *low, char *high, void *context);
    /* The thread-locals of an object; `here` is the calling thread's copy, NULL if it has none. */
    void (*locals)(size_t module, size_t bytes, char *here, void *context);
    /* An entry of the loader's list. */
    void (*link)(const void *link, void *context);
    void *context;
};
/* What is loaded now. Takes the loader's lock: never call it while the world is stopped. */
void crn_os_images(const struct crn_os_images_visit *visit);
/* Whether the loader's list is still the one whose entries were visited. While the world is
 * stopped; takes no lock. */
bool crn_os_images_are(const void *const *links, size_t count);

/* ThreadSanitizer's own thread-locals, of the thread with that anchor; empty in other builds and
 * before crn_os_images. */
void crn_os_sanitizer_locals(const void *anchor, const char **low, const char **high);

/* What names a thread's thread-locals, and its copy of a module's: NULL if it has none yet. */
void *crn_os_thread_anchor(void);
char *crn_os_thread_locals(const void *anchor, size_t module);
/* The C library's descriptor of the calling thread where it lies above the stack and the
 * thread-locals and reaches to the end of their mapping, else NULL. */
char *crn_os_thread_descriptor(void);
/* Where the calling thread's static thread-locals lie outside [stack_low, stack_high), spare room
 * of the loader included; false if they lie within. */
bool crn_os_static_locals(const char *stack_low, const char *stack_high, char **low, char **high);

#endif
