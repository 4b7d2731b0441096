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

#define CAIRN_RUNTIME_VERSION 4u

/* Bytes behind each object that belong to nobody, in programs with instrumented files; and what the
 * descriptors of those files say in their number of fields: they allocate with that room. */
#define CAIRN_REDZONE_ 16u
#define CAIRN_REDZONE_FLAG_ 0x80000000u
#if defined(CAIRN_INSTRUMENTED)
#define CAIRN_REDZONED_ CAIRN_REDZONE_FLAG_
#else
#define CAIRN_REDZONED_ 0u
#endif

/* What is inlined into the program is ours, and nobody is asked about it: an instrumented file
 * calls it instead. Its stores into fields ask once. */
#if defined(CAIRN_INSTRUMENTED)
#define CAIRN_INLINE_ static inline __attribute__((no_sanitize("kernel-address")))
#define CAIRN_ASK_STORE_(field) CAIRN_ASK_((field), sizeof(void *), true)
#else
#define CAIRN_INLINE_ static inline
#define CAIRN_ASK_STORE_(field) ((void)0)
#endif

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
    uintptr_t heap_low, heap_high; /* atomic; of all heaps */
    /* What checked files have found out, a byte for every 16 bytes of address space: see
     * cairn_verdict_. `unjudged` are the address bits that what has a verdict has not set; all of
     * them until there are verdicts. Atomic, and written after `verdicts`. */
    unsigned char *verdicts;
    uintptr_t unjudged;
    /* Atomic; address bits in which two addresses of one heap are alike: none where there is but
     * one heap. */
    uintptr_t heap_bits;
    /* Atomic; changes whenever objects were deleted or slots freed, and so may be another object's:
     * what a thread saw alive under the same number it has neither deleted nor freed. On a line of
     * its own: the barrier reads the others. */
    uint64_t deaths __attribute__((aligned(64)));
};

/* An object that a thread was found to touch rightly, and cairn_runtime.deaths before it was looked
 * at. The address is inverted, for a thread-local is a root. */
struct cairn_seen {
    uintptr_t inverted;
    size_t bytes;
    uint64_t deaths;
};

struct cairn_thread {
    struct cairn_cursor *cursors; /* of the default heap, indexed by bin */
    uint32_t cursor_count;        /* entries in cursors, at least 1 */
    volatile uint32_t no_stop;    /* depth; a stop signal that finds it nonzero sets `deferred` */
    volatile uint32_t deferred;   /* something waits for the end of the section: a stop, say */
    void *self;                   /* the thread's record, NULL before registration */
    /* Last: by an instrumented file; by plain copies of checked files. */
    struct cairn_seen touched, written, read;
};

CAIRN_API extern struct cairn_runtime cairn_runtime;
CAIRN_API extern CAIRN_THREAD_LOCAL_ struct cairn_thread cairn_thread
    __attribute__((tls_model("initial-exec")));

CAIRN_API void cairn_stop_poll_(void);
CAIRN_API void cairn_store_slow_(void **field, void *value);
CAIRN_API void cairn_log_slow_(void **field);

/* Before each load and store of an instrumented file. Whether it lies within a living object of at
 * most two megabytes; the address is one of a heap's. If not, the other reports, unless it lies in
 * a larger object or in none of a heap; `frame` is where the stack frame of the code that asks
 * begins.
 */
CAIRN_API bool cairn_is_accessible_(const void *address, size_t bytes);
CAIRN_API void cairn_access_(const void *address, size_t bytes, bool is_store, const void *code,
                             const char *frame);
/* Of what a function of libc writes: it may not hit a declared reference either. */
CAIRN_API void cairn_write_range_(const void *address, size_t bytes, const void *code,
                                  const char *frame);

/* Verdicts on 16 bytes: that an object starts here and lives, and that the first or the second word
 * is a declared reference field of a living object. No verdict, zero, means nothing. What was
 * deleted is marked until the next stop at least, so that no late verdict comes to it. */
enum {
    CAIRN_VERDICT_START_ = 1,
    CAIRN_VERDICT_FIELD_ = 2,
    CAIRN_VERDICT_SECOND_FIELD_ = 4,
    CAIRN_VERDICT_DELETED_ = 8
};
CAIRN_INLINE_ unsigned cairn_verdict_(uintptr_t place) {
    if (CAIRN_UNLIKELY_(place & __atomic_load_n(&cairn_runtime.unjudged, __ATOMIC_ACQUIRE)))
        return 0;
    return __atomic_load_n(cairn_runtime.verdicts + (place >> 4), __ATOMIC_RELAXED);
}
CAIRN_INLINE_ bool cairn_is_known_start_(const void *address) {
    return (cairn_verdict_((uintptr_t)address) & CAIRN_VERDICT_START_) != 0;
}
CAIRN_INLINE_ bool cairn_is_known_field_(const void *address) {
    uintptr_t a = (uintptr_t)address;
    return (cairn_verdict_(a & ~(uintptr_t)8) >> (a >> 3 & 1) & CAIRN_VERDICT_FIELD_) != 0;
}

/* Behind a section: a stop that came within it happens now. */
CAIRN_INLINE_ void cairn_stop_check_(void) {
#if CAIRN_TSAN_
    bool is_wanted = __atomic_load_n(&cairn_runtime.stop, __ATOMIC_RELAXED);
    if (CAIRN_UNLIKELY_(is_wanted || cairn_thread.deferred)) cairn_stop_poll_();
#else
    if (CAIRN_UNLIKELY_(cairn_thread.deferred)) cairn_stop_poll_();
#endif
}

/* A section that no stop may enter: what it tests and what it stores belong together. */
CAIRN_INLINE_ void cairn_section_enter_(void) {
    cairn_thread.no_stop = cairn_thread.no_stop + 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

CAIRN_INLINE_ void cairn_section_leave_(void) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_thread.no_stop = cairn_thread.no_stop - 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_stop_check_();
}

CAIRN_INLINE_ bool cairn_is_in_seen_(const struct cairn_seen *seen, const void *address,
                                     size_t bytes) {
    uintptr_t offset = (uintptr_t)address - ~seen->inverted;
    return offset < seen->bytes && bytes <= seen->bytes - offset &&
           seen->deaths == __atomic_load_n(&cairn_runtime.deaths, __ATOMIC_RELAXED);
}

#define CAIRN_ASK_(address, bytes, is_store)                                                       \
    do {                                                                                           \
        if (CAIRN_UNLIKELY_(!cairn_is_known_(&cairn_thread.touched, address, bytes)) &&            \
            CAIRN_UNLIKELY_(!cairn_is_accessible_(address, bytes))) {                              \
            cairn_access_((address), (bytes), (is_store), __builtin_return_address(0),             \
                          (const char *)__builtin_dwarf_cfa());                                    \
        }                                                                                          \
    } while (0)
/* Most addresses lie in no heap, and most others in the object that was touched last. */
CAIRN_INLINE_ bool cairn_is_known_(const struct cairn_seen *seen, const void *address,
                                   size_t bytes) {
    uintptr_t low = __atomic_load_n(&cairn_runtime.heap_low, __ATOMIC_RELAXED);
    uintptr_t high = __atomic_load_n(&cairn_runtime.heap_high, __ATOMIC_RELAXED);
    if (CAIRN_LIKELY_((uintptr_t)address - low >= high - low)) return true;
    return cairn_is_in_seen_(seen, address, bytes);
}

CAIRN_INLINE_ bool cairn_field_is_logged_(const void *field) {
    uintptr_t address = (uintptr_t)field;
    const unsigned char *byte = cairn_runtime.log_bits + ((address & cairn_runtime.log_mask) >> 6);
    return (__atomic_load_n(byte, __ATOMIC_RELAXED) >> ((address >> 3) & 7)) & 1;
}

/* The same around the barrier, called by the program alone and so never nested: two plain stores,
 * where adding and subtracting would make each barrier wait for the one before it. */
CAIRN_INLINE_ void cairn_barrier_enter_(void) {
    cairn_thread.no_stop = 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

CAIRN_INLINE_ void cairn_barrier_leave_(void) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_thread.no_stop = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_stop_check_();
}

/* The barrier. Test, log and store are one section: see docs/design.md, "The barrier". */
CAIRN_INLINE_ void cairn_store_(void **field, void *value) {
    cairn_barrier_enter_();
    if (CAIRN_UNLIKELY_(cairn_field_is_logged_(field))) {
        cairn_store_slow_(field, value);
    } else {
        __atomic_store_n(field, value, __ATOMIC_RELEASE);
    }
    cairn_barrier_leave_();
}

CAIRN_INLINE_ void *cairn_swap_(void **field, void *value) {
    cairn_barrier_enter_();
    if (CAIRN_UNLIKELY_(cairn_field_is_logged_(field))) cairn_log_slow_(field);
    void *old = __atomic_exchange_n(field, value, __ATOMIC_ACQ_REL);
    cairn_barrier_leave_();
    return old;
}

CAIRN_INLINE_ bool cairn_cas_(void **field, void **expected, void *value) {
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
