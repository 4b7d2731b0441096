/* SPDX-License-Identifier: MIT
 *
 * A large young object: an array of references, freshly made, is filled with small fresh objects.
 * No pause may scan it as a whole.
 *
 * Usage: bigarray [references, default 16 Mi].
 */
#include "layer.h"

typedef struct Pair {
    uint64_t first, second;
} Pair;
CAIRN_LEAF(Pair);
typedef cairn_ref(Pair) PairRef;

int main(int argc, char **argv) {
    size_t count = bench_argument(argc, argv, 1, (size_t)16 << 20);
    uint64_t started_ns = bench_now_ns(), before_ns = started_ns, longest_ns = 0;
    PairRef *array = bench_new_array(PairRef, count);
    for (size_t i = 0; i < count; i++) {
        Pair *pair = bench_new(Pair);
        pair->first = i;
        cairn_set(&array[i], pair);
        uint64_t now_ns = bench_now_ns();
        if (now_ns - before_ns > longest_ns) longest_ns = now_ns - before_ns;
        before_ns = now_ns;
    }
    for (size_t i = 0; i < count; i++) {
        if (bench_get(array[i])->first != i) bench_die("the array lost an object");
    }
    printf("fill_s=%.3f longest_ms=%.3f\n", bench_seconds(before_ns - started_ns),
           bench_ms(longest_ns));
    bench_print_pauses();
    return 0;
}
