/* SPDX-License-Identifier: MIT
 *
 * Binary trees in the form of the computer language benchmarks game: a stretch tree of depth N + 1,
 * a long-lived tree of depth N, and 2^(N-d+4) short-lived trees of each depth d = 4, 6 ... N.
 *
 * Usage: trees [N, default 20]. The figures are wall time and peak RSS, taken from outside.
 */
#include "layer.h"

#define DEPTH_MIN 4u
#define DEPTH_LIMIT 40u

typedef struct Tree Tree;
typedef bench_ref(Tree) TreeRef;
struct Tree {
    TreeRef left, right;
};
BENCH_TYPE(Tree, left, right);

/* Recursion is bounded by DEPTH_LIMIT, here and below. */
static Tree *tree_make(unsigned depth) {
    if (depth == 0) {
        Tree *leaf = bench_new(Tree);
#if defined(BENCH_BY_HAND)
        bench_set(&leaf->left, NULL);
        bench_set(&leaf->right, NULL);
#endif
        return leaf;
    }
    Tree *left = tree_make(depth - 1);
    Tree *right = tree_make(depth - 1);
    Tree *tree = bench_new(Tree);
    bench_set(&tree->left, left);
    bench_set(&tree->right, right);
    return tree;
}

static uint64_t tree_count(const Tree *tree) {
    if (bench_get(tree->left) == NULL) return 1;
    return 1 + tree_count(bench_get(tree->left)) + tree_count(bench_get(tree->right));
}

static void tree_drop(Tree *tree) {
#if defined(BENCH_BY_HAND)
    if (bench_get(tree->left) != NULL) {
        tree_drop(bench_get(tree->left));
        tree_drop(bench_get(tree->right));
    }
    free(tree);
#else
    (void)tree;
#endif
}

static uint64_t tree_round_trip(unsigned depth) {
    Tree *tree = tree_make(depth);
    uint64_t count = tree_count(tree);
    tree_drop(tree);
    return count;
}

int main(int argc, char **argv) {
    bench_start();
    size_t asked = bench_argument(argc, argv, 1, 20);
    if (asked < DEPTH_MIN + 2) asked = DEPTH_MIN + 2;
    if (asked > DEPTH_LIMIT) bench_die("the depth is too large");
    unsigned depth_max = (unsigned)asked;

    uint64_t check = tree_round_trip(depth_max + 1);
    Tree *long_lived = tree_make(depth_max);
    for (unsigned depth = DEPTH_MIN; depth <= depth_max; depth += 2) {
        uint64_t iterations = (uint64_t)1 << (depth_max - depth + DEPTH_MIN);
        for (uint64_t i = 0; i < iterations; i++) check += tree_round_trip(depth);
    }
    check += tree_count(long_lived);
    tree_drop(long_lived);

    printf("check=%llu\n", (unsigned long long)check);
    bench_print_pauses();
    return 0;
}
