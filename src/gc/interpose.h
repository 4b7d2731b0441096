/* SPDX-License-Identifier: MIT
 *
 * Functions of libc that Cairn stands in front of, so that programs need not tell it what they do.
 *
 * Before Cairn's first call, and with CAIRN_INTERPOSE=0, each is a plain call. Sanitizers have
 * interceptors of their own, so there nothing is interposed: threads register at their first slow
 * path, and waiting ones get the signal. A dlopened Cairn is behind libc in the order of symbols
 * and interposes nothing.
 */
#ifndef CRN_INTERPOSE_H
#define CRN_INTERPOSE_H

#include "gc/gc.h"

#ifndef CRN_INTERPOSE
#define CRN_INTERPOSE (!CAIRN_TSAN_ && !CAIRN_ASAN_)
#endif

#if CRN_INTERPOSE
#include <dlfcn.h>

/* The next definition of a function after ours, found once and kept in *found, in the version that
 * programs are linked against today: on x86-64 pthread_cond_wait has an older one that takes
 * another kind of condition.
 *
 * Where a sanitizer's runtime is linked into the program as the archive of Cairn is, the function
 * of that name is ours, and the dynamic linker knows nothing of the sanitizer's. It has a second
 * name there, and may be NULL. */
void *crn_next_definition(void **found, const char *name, void *of_sanitizer);

#define NEXT(name)                                                                                 \
    extern __typeof__(name) __interceptor_##name __attribute__((weak));                            \
    static void *next_call;                                                                        \
    __typeof__(name) *const call = (__typeof__(name) *)(uintptr_t)crn_next_definition(             \
        &next_call, #name, (void *)(uintptr_t)__interceptor_##name);

/* Defines a function of libc anew; the declaration is for those that no included header has. */
#define INTERPOSE(type, name, parameters)                                                          \
    CAIRN_API type name parameters;                                                                \
    CAIRN_API type name parameters

CRN_INLINE bool crn_is_interposing(void) {
    return __atomic_load_n(&crn_default_heap, __ATOMIC_RELAXED) && !crn_settings.is_passive;
}
#endif
#endif
