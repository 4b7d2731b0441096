/* SPDX-License-Identifier: MIT
 *
 * The allocator layer: BENCH_CAIRN, BENCH_GC (libgc), or else malloc and free by hand.
 *
 * BENCH_BY_HAND is defined where the program itself has to free. A workload declares its reference
 * types with `typedef bench_ref(T) TRef`, its types with BENCH_TYPE and BENCH_LEAF, stores
 * with bench_set and reads with bench_get. libgc gets its best form too: leaves are allocated as
 * free of pointers.
 */
#ifndef BENCH_LAYER_H
#define BENCH_LAYER_H

#include "bench.h"

#if defined(BENCH_CAIRN)

#include <cairn/cairn.h>

#define bench_ref(T) cairn_ref(T)
#define BENCH_TYPE(T, ...) CAIRN_TYPE(T, __VA_ARGS__)
#define BENCH_LEAF(T) CAIRN_LEAF(T)
#define BENCH_NEW_RAW(T) cairn_new(T)
#define BENCH_NEW_LEAF_RAW(T) cairn_new(T)
#define BENCH_NEW_ARRAY_RAW(R, count) cairn_new_array(R, count)
#define bench_set(link, value) cairn_set(link, value)
#define bench_get(reference) cairn_get(reference)

static inline void bench_start(void) {}

/* The collector's own figures. */
BENCH_UNUSED static cairn_stats bench_stats(void) {
    cairn_stats stats = CAIRN_STATS_INIT;
    if (cairn_stats_get(NULL, &stats) != CAIRN_OK) bench_die("no statistics");
    return stats;
}

BENCH_UNUSED static void bench_print_pauses(void) {
    cairn_stats stats = bench_stats();
    printf("pause_p50_ms=%.3f pause_p99_ms=%.3f pause_max_ms=%.3f trace_max_ms=%.3f epochs=%llu "
           "traces=%llu\n",
           bench_ms(stats.pause_ns_median), bench_ms(stats.pause_ns_p99),
           bench_ms(stats.pause_ns_max), bench_ms(stats.trace_ns_max),
           (unsigned long long)stats.epochs, (unsigned long long)stats.traces);
}

#else

/* A reference is the same struct as Cairn's, so that all variants read alike. */
#define bench_ref(T)                                                                               \
    struct {                                                                                       \
        T *p;                                                                                      \
    }
#define BENCH_TYPE(T, ...) _Static_assert(sizeof(T) != 0, "a type")
#define BENCH_LEAF(T) _Static_assert(sizeof(T) != 0, "a type")
#define bench_set(link, value) ((void)((link)->p = (value)))
#define bench_get(reference) ((reference).p)

static inline void bench_print_pauses(void) {}

#if defined(BENCH_GC)

#ifndef GC_THREADS
#define GC_THREADS
#endif
#include <gc.h>

#define BENCH_NEW_RAW(T) ((T *)GC_MALLOC(sizeof(T)))
#define BENCH_NEW_LEAF_RAW(T) ((T *)GC_MALLOC_ATOMIC(sizeof(T)))
#define BENCH_NEW_ARRAY_RAW(R, count) ((R *)GC_MALLOC((count) * sizeof(R)))

static inline void bench_start(void) {
    GC_INIT();
}

#else

#define BENCH_BY_HAND 1
#define BENCH_NEW_RAW(T) ((T *)malloc(sizeof(T)))
#define BENCH_NEW_LEAF_RAW(T) ((T *)malloc(sizeof(T)))
#define BENCH_NEW_ARRAY_RAW(R, count) ((R *)calloc((count), sizeof(R)))

static inline void bench_start(void) {}

#endif
#endif

/* Every variant tests for NULL. Only an array is surely zeroed; by hand, the rest is not. */
#define BENCH_CHECKED(T, expression)                                                               \
    __extension__({                                                                                \
        T *bench_fresh = (expression);                                                             \
        if (__builtin_expect(bench_fresh == NULL, 0)) bench_die("out of memory");                  \
        bench_fresh;                                                                               \
    })
#define bench_new(T) BENCH_CHECKED(T, BENCH_NEW_RAW(T))
#define bench_new_leaf(T) BENCH_CHECKED(T, BENCH_NEW_LEAF_RAW(T))
#define bench_new_array(R, count) BENCH_CHECKED(R, BENCH_NEW_ARRAY_RAW(R, count))

#endif
