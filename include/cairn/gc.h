/* SPDX-License-Identifier: MIT
 *
 * Collections and threads.
 */
#ifndef CAIRN_GC_H
#define CAIRN_GC_H

#include <cairn/object.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cairn_collection {
    CAIRN_COUNT =
        1,       /* an epoch: logged stores and roots become counts, and what reaches 0 is freed */
    CAIRN_TRACE, /* an epoch, then mark and sweep: cycles and stuck counts too */
    CAIRN_COMPACT, /* a trace; moving objects is not in this release */
} cairn_collection;

/* Collect now; blocks until done. Finalizers run afterwards, on their thread. */
#define cairn_collect(kind) cairn_collect_in(NULL, (kind))
CAIRN_API void cairn_collect_in(cairn_heap *heap, cairn_collection kind);

/* Make this thread known: its stack is scanned from now on. Threads made by pthread_create and
 * threads that allocate are known without it; but where Cairn was loaded by dlopen, and under
 * sanitizers, pthread_create is not interposed: there a thread must allocate or call this before it
 * stores its first reference, or no collection waits for that store. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_thread_register(void);

/* Around a call that may wait: the collector scans the thread where it stands and does not wake it.
 * Between the two, touch no object and call nothing of Cairn. They nest. */
CAIRN_API void cairn_blocking_begin(void);
CAIRN_API void cairn_blocking_end(void);

#ifdef __cplusplus
}
#endif

#endif
