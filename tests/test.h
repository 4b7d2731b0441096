/* SPDX-License-Identifier: MIT
 *
 * What the tests share: cmocka, a node type, and hiding pointers from conservative scans.
 */
#ifndef CAIRN_TEST_H
#define CAIRN_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include <cairn/cairn.h>

typedef struct Node Node;
typedef cairn_ref(Node) NodeRef;
struct Node {
    NodeRef next, other;
    long value;
};
CAIRN_TYPE(Node, next, other);

/* An address that no scan takes for a pointer. */
#define HIDE(pointer) (~(uintptr_t)(pointer))
#define SHOW(T, hidden) ((T *)~(hidden))

/* Runs a function on a stack of its own, which is gone afterwards with all that was left on it. */
__attribute__((unused)) static void *apart_start(void *function) {
#if CAIRN_TSAN_ || CAIRN_ASAN_
    /* Nothing is interposed there: known at its first allocation, it might store before. */
    if (cairn_thread_register() != CAIRN_OK) abort();
#endif
    (*(void (**)(void))function)();
    return NULL;
}
__attribute__((unused)) static void run_apart(void (*function)(void)) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, apart_start, &function), 0);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
}

/* A heap with a small region: several fit where address space is short, as under an emulator. */
__attribute__((unused)) static cairn_heap *make_small_heap(void) {
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.region_bytes = (size_t)256 << 20;
    cairn_heap *heap = NULL;
    assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_OK);
    return heap;
}

/* In bytes, for limits a little above it. */
__attribute__((unused)) static size_t address_space(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    if (!file || fscanf(file, "%lu", &pages) != 1) abort();
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Overwrites what earlier calls left on the stack. */
__attribute__((noinline, unused)) static void clean_stack(void) {
    volatile char space[16384];
    for (size_t i = 0; i < sizeof(space); i++) space[i] = 0;
}

__attribute__((unused)) static cairn_stats stats_now(void) {
    cairn_stats stats = CAIRN_STATS_INIT;
    assert_int_equal(cairn_stats_get(NULL, &stats), CAIRN_OK);
    return stats;
}

/* Not inlined: in a frame that stands while much is allocated, figures are holes that keep what
 * earlier calls left there. */
__attribute__((noinline, unused)) static uint64_t live_objects(void) {
    return stats_now().live_objects;
}
__attribute__((noinline, unused)) static uint64_t traces_so_far(void) {
    return stats_now().traces;
}

/* Its frame stands while it collects, so it is small: a large one has holes, and in them what
 * earlier calls left, which no cleaning from within can reach. */
__attribute__((noinline, unused)) static void collect_and_clean(cairn_collection kind) {
    clean_stack();
    cairn_collect(kind);
}

__attribute__((noinline, unused)) static uint64_t live_after(cairn_collection kind) {
    collect_and_clean(kind);
    collect_and_clean(kind);
    clean_stack();
    return live_objects();
}

#endif
