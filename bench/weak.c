/* SPDX-License-Identifier: MIT
 *
 * What living extras cost an epoch: weak targets, finalizable and pinned objects that do not
 * change, while the program allocates and drops.
 *
 * Usage: weak [objects of each kind, default 1 M] [epochs, default 200]. `plain_us` is the median
 * epoch with as many plain objects alive, `extra_us` how much longer one is with extras. The other
 * figures are what making one costs.
 */
#include "layer.h"

typedef struct {
    uint64_t payload[2];
} Plain;
CAIRN_LEAF(Plain);
typedef cairn_ref(Plain) PlainRef;

static uint64_t finalized;
static void finalize(void *object) {
    (void)object;
    __atomic_fetch_add(&finalized, 1, __ATOMIC_RELAXED);
}
typedef struct {
    uint64_t payload[2];
} Finalizable;
CAIRN_LEAF_WITH(Finalizable, (.finalize = finalize));
typedef cairn_ref(Finalizable) FinalizableRef;

typedef struct {
    cairn_weak weak;
} Weak;
CAIRN_TYPE(Weak, CAIRN_WEAK(weak));

static PlainRef *plain, *targets, *pinned;
static FinalizableRef *finalizable;
static Weak *weak;

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The median epoch of a program that makes 1000 objects between two of them. */
static double median_epoch_us(size_t epochs) {
    static uint64_t times[100000];
    if (epochs > sizeof(times) / sizeof(times[0])) bench_die("too many epochs");
    for (size_t i = 0; i < epochs; i++) {
        for (int k = 0; k < 1000; k++) cairn_keep(bench_new(Plain));
        uint64_t before = bench_now_ns();
        cairn_collect(CAIRN_COUNT);
        times[i] = bench_now_ns() - before;
    }
    qsort(times, epochs, sizeof(times[0]), compare);
    return (double)times[epochs / 2] / 1e3;
}

static double per_object(uint64_t since_ns, size_t count) {
    return (double)(bench_now_ns() - since_ns) / (double)count;
}

static void make_plain(PlainRef *array, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Plain *object = bench_new(Plain);
        object->payload[0] = i;
        cairn_set(&array[i], object);
    }
}

static void check(size_t count) {
    for (size_t i = 0; i < count; i++) {
        const Plain *target = cairn_weak_get(&weak[i].weak);
        if (target != targets[i].p || target->payload[0] != i) bench_die("a weak target is lost");
        if (pinned[i].p->payload[0] != i) bench_die("a pinned object is lost");
    }
    if (finalized) bench_die("a living object was finalized");
}

int main(int argc, char **argv) {
    size_t count = bench_argument(argc, argv, 1, 1000000);
    size_t epochs = bench_argument(argc, argv, 2, 200);
    plain = bench_new_array(PlainRef, count);
    targets = bench_new_array(PlainRef, count);
    pinned = bench_new_array(PlainRef, count);
    finalizable = bench_new_array(FinalizableRef, count);
    weak = cairn_new_array(Weak, count);
    if (!weak) bench_die("out of memory");
    make_plain(plain, count);
    make_plain(targets, count);
    make_plain(pinned, count);
    double plain_us = median_epoch_us(epochs);

    uint64_t start = bench_now_ns();
    for (size_t i = 0; i < count; i++) {
        if (!cairn_weak_set(&weak[i].weak, targets[i].p)) bench_die("out of memory");
    }
    double set_ns = per_object(start, count);
    start = bench_now_ns();
    for (size_t i = 0; i < count; i++) cairn_set(&finalizable[i], bench_new(Finalizable));
    double new_ns = per_object(start, count);
    start = bench_now_ns();
    for (size_t i = 0; i < count; i++) cairn_pin(pinned[i].p);
    double pin_ns = per_object(start, count);
    cairn_collect(CAIRN_COUNT);
    double extra_us = median_epoch_us(epochs) - plain_us;
    start = bench_now_ns();
    check(count);
    double get_ns = per_object(start, count);
    printf("plain_us=%.2f extra_us=%.2f set_ns=%.1f new_ns=%.1f pin_ns=%.1f get_ns=%.1f\n",
           plain_us, extra_us, set_ns, new_ns, pin_ns, get_ns);
    bench_print_pauses();
    return 0;
}
