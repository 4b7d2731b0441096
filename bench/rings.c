/* SPDX-License-Identifier: MIT
 *
 * Cycles: rings of 10 objects wait in a first-in-first-out queue, long enough to see two
 * collections, and are dropped. Counts alone never free them.
 *
 * Usage: rings [rings, default 3 M] [queue length in rings, default 200,000]. Both collectors do
 * the same work over the same live set; `collections_seen` is how many a ring lives through on
 * average.
 */
#include "layer.h"

#define RING_LENGTH 10u

typedef struct Item Item;
typedef bench_ref(Item) ItemRef;
struct Item {
    ItemRef next;
    uint64_t ring, payload[2];
};
BENCH_TYPE(Item, next);

static Item *ring_make(uint64_t number) {
    Item *first = bench_new(Item);
    first->ring = number;
    Item *last = first;
    for (unsigned i = 1; i < RING_LENGTH; i++) {
        Item *item = bench_new(Item);
        item->ring = number;
        bench_set(&last->next, item);
        last = item;
    }
    bench_set(&last->next, first);
    return first;
}

static void ring_check(const Item *first) {
    const Item *item = first;
    for (unsigned i = 0; i < RING_LENGTH; i++) {
        if (item->ring != first->ring) bench_die("a ring is broken");
        item = bench_get(item->next);
    }
    if (item != first) bench_die("a ring is not closed");
}

static uint64_t collection_count(void) {
#if defined(BENCH_CAIRN)
    return bench_stats().epochs;
#else
    return (uint64_t)GC_get_gc_no();
#endif
}

int main(int argc, char **argv) {
    bench_start();
    size_t ring_count = bench_argument(argc, argv, 1, 3000000);
    size_t queue_length = bench_argument(argc, argv, 2, 200000);
    ItemRef *queue = bench_new_array(ItemRef, queue_length);

    uint64_t collections = collection_count(), before_ns = bench_now_ns();
    for (size_t i = 0; i < ring_count; i++) {
        Item *ring = ring_make(i);
        bench_set(&queue[i % queue_length], ring);
    }
    double seconds = bench_seconds(bench_now_ns() - before_ns);
    collections = collection_count() - collections;

    for (size_t i = 0; i < queue_length; i++) {
        if (bench_get(queue[i]) != NULL) ring_check(bench_get(queue[i]));
    }
    printf("rings_per_s=%.0f collections_seen=%.1f\n", (double)ring_count / seconds,
           (double)collections * (double)queue_length / (double)ring_count);
    bench_print_pauses();
    return 0;
}
