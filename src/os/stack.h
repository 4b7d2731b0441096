/* SPDX-License-Identifier: MIT
 *
 * Where in the program something happened: return addresses, and what they are called.
 */
#ifndef CRN_STACK_H
#define CRN_STACK_H

#include "os/maps.h"

#include <stddef.h>

enum { CRN_FRAMES_MAX = 64 };
struct crn_trace {
    unsigned count;
    bool is_exact; /* the first one is the instruction itself, not where a call returns to */
    uintptr_t frames[CRN_FRAMES_MAX];
};

/* The calling thread's frames from the one that returns to `first` on; of a signal handler's
 * context from where the signal came. By the C library's unwinder where there is one, which may
 * allocate and load a library at its first use; else by frame pointers within
 * [stack_low, stack_high). Takes no lock of ours; call it in no section and not in a stop. */
void crn_os_trace(struct crn_trace *trace, const void *first, const void *context,
                  const char *stack_low, const char *stack_high);

/* What the unwinder needs is loaded now and not in a report, which may come from inside malloc. In
 * no section, with no lock held. */
void crn_os_trace_prepare(void);

/* A helper that names places in the program, addr2line if nothing else is said: "0" for none. */
void crn_os_use_symbolizer(const char *path);

/* "main at point.c:22 (/tmp/point+0x263b)", or without the helper "/tmp/point+0x263b"; one row of
 * `bytes` for each frame. Starts a process for each file that frames lie in. */
void crn_os_name_frames(const struct crn_trace *trace, char *texts, size_t bytes);
bool crn_os_frame_is_own(const char *name);  /* of Cairn's headers: of interest is who called it */
bool crn_os_frame_is_main(const char *name); /* what calls it is the same in every program */

#endif
