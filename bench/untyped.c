/* SPDX-License-Identifier: MIT
 *
 * Untyped memory: 100 MiB from cairn_alloc, full of numbers and pointers, stay as they are while
 * typed objects churn. Pages that do not change should cost next to nothing.
 *
 * Usage: untyped [MiB, default 100] [steps, default 5 M].
 *
 * The collector's figures run from the heap's start, filling included. pause_churn_ms is the lesser
 * of its longest pause and of the longest step: no pause of the churn is longer than either.
 */
#include "layer.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define PIECES_MAX 4096u
#define POOL_COUNT 1024u
#define SLOT_COUNT ((size_t)64 << 10)

typedef struct Leaf {
    uint64_t value[4];
} Leaf;
CAIRN_LEAF(Leaf);
typedef cairn_ref(Leaf) LeafRef;
typedef struct Node {
    LeafRef leaf;
    uint64_t payload[6];
} Node;
CAIRN_TYPE(Node, leaf);
typedef cairn_ref(Node) NodeRef;

static uintptr_t *pieces[PIECES_MAX];

/* One word in 64 is a pointer, the only one to some of the leaves. */
static void pieces_fill(size_t piece_count) {
    Leaf *leaf = NULL;
    for (size_t piece = 0; piece < piece_count; piece++) {
        pieces[piece] = cairn_alloc(PIECE_BYTES);
        if (pieces[piece] == NULL) bench_die("out of memory");
        for (size_t i = 0; i < PIECE_BYTES / sizeof(uintptr_t); i++) {
            if (i % 64 != 0) {
                pieces[piece][i] = i;
                continue;
            }
            if (i / 64 % POOL_COUNT == 0) leaf = bench_new(Leaf);
            leaf->value[0] = 7;
            pieces[piece][i] = (uintptr_t)leaf;
        }
    }
}

static void pieces_check(size_t piece_count) {
    for (size_t piece = 0; piece < piece_count; piece++) {
        for (size_t i = 0; i < PIECE_BYTES / sizeof(uintptr_t); i += 64) {
            const Leaf *leaf = (const Leaf *)pieces[piece][i];
            if (leaf->value[0] != 7) bench_die("untyped memory lost an object");
        }
    }
}

int main(int argc, char **argv) {
    size_t piece_count = bench_argument(argc, argv, 1, 100);
    size_t step_count = bench_argument(argc, argv, 2, 5000000);
    if (piece_count > PIECES_MAX) bench_die("too much untyped memory");
    pieces_fill(piece_count);
    for (unsigned i = 0; i < 3; i++) cairn_collect(CAIRN_COUNT); /* the filling is over */
    double setup_ms = bench_ms(bench_stats().pause_ns_max);

    NodeRef *table = bench_new_array(NodeRef, SLOT_COUNT);
    uint64_t random = 88172645463325252u, longest_ns = 0;
    uint64_t started_ns = bench_now_ns(), before_ns = started_ns;
    for (size_t step = 0; step < step_count; step++) {
        Leaf *leaf = bench_new(Leaf);
        Node *node = bench_new(Node);
        cairn_set(&node->leaf, leaf);
        cairn_set(&table[bench_random(&random, SLOT_COUNT)], node);
        uint64_t now_ns = bench_now_ns();
        if (now_ns - before_ns > longest_ns) longest_ns = now_ns - before_ns;
        before_ns = now_ns;
    }
    double longest_ms = bench_ms(longest_ns), pause_ms = bench_ms(bench_stats().pause_ns_max);
    pieces_check(piece_count);
    printf("steps_per_s=%.0f longest_ms=%.3f setup_max_ms=%.3f pause_churn_ms=%.3f\n",
           (double)step_count / bench_seconds(before_ns - started_ns), longest_ms, setup_ms,
           pause_ms < longest_ms ? pause_ms : longest_ms);
    bench_print_pauses();
    return 0;
}
