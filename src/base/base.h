/* SPDX-License-Identifier: MIT
 *
 * What every room uses: compiler words, checks, bits, the status of a run.
 *
 * CAIRN_REQUIRE holds in every build and guards contracts with the caller. CRN_ASSERT guards our
 * own invariants and exists in debug builds. Neither has side effects.
 */
#ifndef CRN_BASE_H
#define CRN_BASE_H

#include <cairn/runtime.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRN_INLINE static inline __attribute__((always_inline))
#define CRN_NOINLINE __attribute__((noinline))
enum { CRN_CACHE_LINE = 64 }; /* bytes */
#define CRN_LIKELY(x) __builtin_expect(!!(x), 1)
#define CRN_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* In a loop that waits for another processor. */
#if defined(__x86_64__)
#define CRN_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define CRN_PAUSE() __asm__ volatile("yield")
#else
#define CRN_PAUSE() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#endif
/* The lowest address in use of the stack; with __builtin_unwind_init in the same function, all
 * callee-saved registers lie between it and __builtin_dwarf_cfa(), where the caller's frame begins.
 */
#if defined(__x86_64__)
#define CRN_STACK_POINTER()                                                                        \
    __extension__({                                                                                \
        char *crn_sp_;                                                                             \
        __asm__ volatile("mov %%rsp, %0" : "=r"(crn_sp_));                                         \
        crn_sp_;                                                                                   \
    })
#elif defined(__aarch64__)
#define CRN_STACK_POINTER()                                                                        \
    __extension__({                                                                                \
        char *crn_sp_;                                                                             \
        __asm__ volatile("mov %0, sp" : "=r"(crn_sp_));                                            \
        crn_sp_;                                                                                   \
    })
#endif
/* Loads stay in order with loads, stores with stores, across this. ThreadSanitizer knows no fences:
 * what is on both sides must not be instrumented. */
#if defined(__x86_64__)
#define CRN_FENCE() __asm__ volatile("" ::: "memory")
#elif defined(__aarch64__)
#define CRN_FENCE() __asm__ volatile("dmb ish" ::: "memory")
#else
#define CRN_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif
/* Stores stay in order with the loads behind it, too. */
#if !CAIRN_TSAN_
#define CRN_FULL_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#elif defined(__x86_64__)
#define CRN_FULL_FENCE() __asm__ volatile("mfence" ::: "memory")
#else
#define CRN_FULL_FENCE() __asm__ volatile("dmb ish" ::: "memory")
#endif
#define CRN_PREFETCH(address) __builtin_prefetch((address), 1, 3)
#define CRN_PREFETCH_READ(address) __builtin_prefetch((address), 0, 3)
/* Conservative scans read stacks and foreign memory on purpose: no sanitizer may object. */
#define CRN_NO_SANITIZE __attribute__((no_sanitize("address", "thread", "undefined")))

#define CRN_KIB(n) ((size_t)(n) << 10)
#define CRN_MIB(n) ((size_t)(n) << 20)
#define CRN_GIB(n) ((size_t)(n) << 30)

/* A report of a broken contract that has no kind of its own, see report.h: a sentence. */
_Noreturn void crn_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CAIRN_REQUIRE(condition, ...)                                                              \
    do {                                                                                           \
        if (CRN_UNLIKELY(!(condition))) crn_fail(__VA_ARGS__);                                     \
    } while (0)

#ifdef NDEBUG
#define CRN_ASSERT(condition) ((void)sizeof(condition))
#else
#define CRN_ASSERT(condition)                                                                      \
    CAIRN_REQUIRE(condition, "internal error: %s at %s:%d", #condition, __FILE__, __LINE__)
#endif

CRN_INLINE size_t crn_round_up(size_t value, size_t power_of_two) {
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

CRN_INLINE size_t crn_min(size_t a, size_t b) {
    return a < b ? a : b;
}
CRN_INLINE size_t crn_max(size_t a, size_t b) {
    return a > b ? a : b;
}

CRN_INLINE uint32_t crn_log2(size_t value) {
    return 63u - (uint32_t)__builtin_clzll(value);
}

#endif
