/* SPDX-License-Identifier: MIT
 *
 * The corpus: small programs that break one rule each, and their twins that do not. A case is a
 * function; what stands in BAD is done by the broken program only, what stands in FIXED by its twin
 * only. tests/corpus/run.sh runs every case, both ways, in every mode, and compares what happened
 * with what the case says.
 */
#ifndef CAIRN_CORPUS_H
#define CAIRN_CORPUS_H

#include <cairn/cairn.h>

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Node Node;
typedef cairn_ref(Node) NodeRef;
struct Node {
    NodeRef next, other;
    long value;
    char text[24];
};
CAIRN_TYPE(Node, next, other);

/* No reference in it, and no room behind its last byte within 16. */
typedef struct {
    long values[4];
} Block;
CAIRN_LEAF(Block);

struct corpus_case {
    const char *name;
    void (*run)(bool is_fixed);
    /* Who reports the broken program: 'R' or, where nobody does and nothing is damaged, '-', in the
     * order default, checked, guard, instrumented. */
    const char *caught;
    const char *titles; /* what the report begins with; several are separated by '|' */
};

/* clang copies a struct by a memcpy that nobody is asked about. */
#if defined(__clang__)
#define COPY_BY_COMPILER "--R-"
#else
#define COPY_BY_COMPILER "--RR"
#endif

#define CASE(name) static void name(bool is_fixed)
#define BAD(...)                                                                                   \
    do {                                                                                           \
        if (!is_fixed) {                                                                           \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)
#define FIXED(...)                                                                                 \
    do {                                                                                           \
        if (is_fixed) {                                                                            \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

/* Accesses that no compiler leaves out. */
extern volatile long corpus_sink;
#define READ(lvalue) (corpus_sink += (long)(lvalue))
#define WRITE(lvalue, value) (*(volatile __typeof__(lvalue) *)&(lvalue) = (value))

/* Pointers that the compiler knows nothing of. */
static inline void *opaque(void *pointer) {
    __asm__ volatile("" : "+r"(pointer));
    return pointer;
}

/* What a scan of roots does not take for a pointer. */
#define HIDE(pointer) (~(uintptr_t)(pointer))
#define SHOW(T, hidden) ((T *)~(hidden))

/* Each family's cases; ends with a NULL name. */
extern const struct corpus_case corpus_use_after_delete[], corpus_deletes[], corpus_bounds[],
    corpus_references[], corpus_heaps[], corpus_threads[];

#endif
