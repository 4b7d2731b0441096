/* SPDX-License-Identifier: MIT
 *
 * What the barrier costs: a plain store against cairn_set into an old object whose field was
 * already logged this epoch. Nothing is allocated meanwhile, so no epoch comes between.
 *
 * Usage: store [stores per sample, default 20 M]. Samples alternate; the figures are medians.
 */
#include "layer.h"

#define OBJECT_COUNT 64u /* a power of two; all of them fit the first-level cache */
#define SAMPLE_COUNT 15u

typedef struct Box Box;
typedef cairn_ref(Box) BoxRef;
struct Box {
    BoxRef next;
    long value;
};
CAIRN_TYPE(Box, next);

typedef struct PlainBox PlainBox;
struct PlainBox {
    PlainBox *next;
    long value;
};

/* Each store must happen, and none may be merged with the next. */
#define STORE_FENCE() __asm__ volatile("" : : : "memory")

static double sample_plain(PlainBox **boxes, size_t count) {
    uint64_t before_ns = bench_now_ns();
    for (size_t i = 0; i < count; i++) {
        boxes[i % OBJECT_COUNT]->next = boxes[(i + 1) % OBJECT_COUNT];
        STORE_FENCE();
    }
    return (double)(bench_now_ns() - before_ns) / (double)count;
}

static double sample_barrier(Box **boxes, size_t count) {
    uint64_t before_ns = bench_now_ns();
    for (size_t i = 0; i < count; i++) {
        cairn_set(&boxes[i % OBJECT_COUNT]->next, boxes[(i + 1) % OBJECT_COUNT]);
        STORE_FENCE();
    }
    return (double)(bench_now_ns() - before_ns) / (double)count;
}

static int double_compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *samples) {
    qsort(samples, SAMPLE_COUNT, sizeof(samples[0]), double_compare);
    return samples[SAMPLE_COUNT / 2];
}

int main(int argc, char **argv) {
    size_t count = bench_argument(argc, argv, 1, 20000000);
    static PlainBox *plain[OBJECT_COUNT];
    static Box *boxes[OBJECT_COUNT];
    for (size_t i = 0; i < OBJECT_COUNT; i++) {
        plain[i] = calloc(1, sizeof(PlainBox));
        if (plain[i] == NULL) bench_die("out of memory");
        boxes[i] = bench_new(Box);
    }
    cairn_collect(CAIRN_COUNT);                    /* the objects are old now */
    (void)sample_barrier(boxes, OBJECT_COUNT * 4); /* and their fields are logged */
    uint64_t epochs = bench_stats().epochs;

    double plain_ns[SAMPLE_COUNT], barrier_ns[SAMPLE_COUNT], extra_ns[SAMPLE_COUNT];
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        plain_ns[i] = sample_plain(plain, count);
        barrier_ns[i] = sample_barrier(boxes, count);
        extra_ns[i] = barrier_ns[i] - plain_ns[i];
    }
    printf("plain_ns=%.3f set_ns=%.3f extra_ns=%.3f epochs_between=%llu\n", median(plain_ns),
           median(barrier_ns), median(extra_ns),
           (unsigned long long)(bench_stats().epochs - epochs));
    return 0;
}
