/* SPDX-License-Identifier: MIT
 *
 * Internal to the public headers: everything that an inline path reads, in two versioned structs.
 *
 * `cairn_runtime` is written at the first call and when the collector starts or stops;
 * `cairn_thread` belongs to its thread. Neither is an interface: use the macros of object.h.
 */
#ifndef CAIRN_RUNTIME_H
#define CAIRN_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Under which sanitizer a file is compiled: GCC has macros for it, clang has features. */
#if defined(__SANITIZE_THREAD__)
#define CAIRN_TSAN_ 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CAIRN_TSAN_ 1
#endif
#endif
#ifndef CAIRN_TSAN_
#define CAIRN_TSAN_ 0
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CAIRN_ASAN_ 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CAIRN_ASAN_ 1
#endif
#endif
#ifndef CAIRN_ASAN_
#define CAIRN_ASAN_ 0
#endif

#if defined(__GNUC__)
#define CAIRN_API __attribute__((visibility("default")))
#define CAIRN_LIKELY_(x) __builtin_expect(!!(x), 1)
#define CAIRN_UNLIKELY_(x) __builtin_expect(!!(x), 0)
#define CAIRN_NODISCARD __attribute__((warn_unused_result))
#define CAIRN_UNUSED_ __attribute__((unused))
#define CAIRN_PRINTF_(a, b) __attribute__((format(printf, a, b)))
#define CAIRN_MALLOC_ __attribute__((malloc))
#else
#error "Cairn needs GCC or clang"
#endif

#ifdef __cplusplus
#define CAIRN_THREAD_LOCAL_ thread_local
#else
#define CAIRN_THREAD_LOCAL_ _Thread_local
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define CAIRN_RUNTIME_VERSION 1u

/* Grows from `next` to `limit` through zeroed free slots. Entry 0 is always empty. */
struct cairn_cursor {
    char *next;  /* the first byte not handed out; written by the owner only */
    char *limit; /* the end of the zeroed part of the run; written in slow paths only */
};

struct cairn_runtime {
    uint32_t version;   /* CAIRN_RUNTIME_VERSION */
    uint32_t stop;      /* atomic: a collection wants the threads to stop */
    uintptr_t log_mask; /* which address bits choose a log byte; all of them where space allows */
    unsigned char *log_bits; /* one bit per 8 bytes of address space; set: log the next store */
};

struct cairn_thread {
    struct cairn_cursor *cursors; /* of the default heap, indexed by bin */
    uint32_t cursor_count;        /* entries in cursors, at least 1 */
    volatile uint32_t no_stop;    /* depth; a stop signal that finds it nonzero sets `deferred` */
    volatile uint32_t deferred;   /* something waits for the end of the section: a stop, say */
    void *self;                   /* the thread's record, NULL before registration */
};

CAIRN_API extern struct cairn_runtime cairn_runtime;
CAIRN_API extern CAIRN_THREAD_LOCAL_ struct cairn_thread cairn_thread
    __attribute__((tls_model("initial-exec")));

CAIRN_API void cairn_stop_poll_(void);
CAIRN_API void cairn_store_slow_(void **field, void *value);
CAIRN_API void cairn_log_slow_(void **field);

/* Behind a section: a stop that came within it happens now. */
static inline void cairn_stop_check_(void) {
#if CAIRN_TSAN_
    bool is_wanted = __atomic_load_n(&cairn_runtime.stop, __ATOMIC_RELAXED);
    if (CAIRN_UNLIKELY_(is_wanted || cairn_thread.deferred)) cairn_stop_poll_();
#else
    if (CAIRN_UNLIKELY_(cairn_thread.deferred)) cairn_stop_poll_();
#endif
}

/* A section that no stop may enter: what it tests and what it stores belong together. */
static inline void cairn_section_enter_(void) {
    cairn_thread.no_stop = cairn_thread.no_stop + 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void cairn_section_leave_(void) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_thread.no_stop = cairn_thread.no_stop - 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_stop_check_();
}

static inline bool cairn_field_is_logged_(const void *field) {
    uintptr_t address = (uintptr_t)field;
    const unsigned char *byte = cairn_runtime.log_bits + ((address & cairn_runtime.log_mask) >> 6);
    return (__atomic_load_n(byte, __ATOMIC_RELAXED) >> ((address >> 3) & 7)) & 1;
}

/* The same around the barrier, called by the program alone and so never nested: two plain stores,
 * where adding and subtracting would make each barrier wait for the one before it. */
static inline void cairn_barrier_enter_(void) {
    cairn_thread.no_stop = 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void cairn_barrier_leave_(void) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_thread.no_stop = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_stop_check_();
}

/* The barrier. Test, log and store are one section: see docs/design.md, "The barrier". */
static inline void cairn_store_(void **field, void *value) {
    cairn_barrier_enter_();
    if (CAIRN_UNLIKELY_(cairn_field_is_logged_(field))) {
        cairn_store_slow_(field, value);
    } else {
        __atomic_store_n(field, value, __ATOMIC_RELEASE);
    }
    cairn_barrier_leave_();
}

static inline void *cairn_swap_(void **field, void *value) {
    cairn_barrier_enter_();
    if (CAIRN_UNLIKELY_(cairn_field_is_logged_(field))) cairn_log_slow_(field);
    void *old = __atomic_exchange_n(field, value, __ATOMIC_ACQ_REL);
    cairn_barrier_leave_();
    return old;
}

static inline bool cairn_cas_(void **field, void **expected, void *value) {
    cairn_barrier_enter_();
    if (CAIRN_UNLIKELY_(cairn_field_is_logged_(field))) cairn_log_slow_(field);
    bool done = __atomic_compare_exchange_n(field, expected, value, false, __ATOMIC_ACQ_REL,
                                            __ATOMIC_ACQUIRE);
    cairn_barrier_leave_();
    return done;
}

#ifdef __cplusplus
}
#endif

#endif
