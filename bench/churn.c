/* SPDX-License-Identifier: MIT
 *
 * Churn: a table of slots; each step allocates a 56-byte node with its 32-byte leaf and puts it
 * into a random slot, in place of what was there. The table starts empty.
 *
 * Usage: churn [slots, default 4 Mi] [steps per thread, default 30 M] [threads, default 1]. Each
 * thread has a table of its own. The longest step is what the program sees: pauses, page faults and
 * the scheduler.
 */
#include "layer.h"

#include <pthread.h>

#define THREADS_MAX 64u

typedef struct Leaf {
    uint64_t value[4];
} Leaf;
BENCH_LEAF(Leaf);
typedef bench_ref(Leaf) LeafRef;

typedef struct Node {
    LeafRef leaf;
    uint64_t payload[6];
} Node;
BENCH_TYPE(Node, leaf);
typedef bench_ref(Node) NodeRef;

_Static_assert(sizeof(Leaf) == 32 && sizeof(Node) == 56, "the sizes are part of the workload");

struct worker {
    size_t slot_count, step_count;
    uint64_t random;
    uint64_t started_ns, ended_ns, longest_ns;
    pthread_t thread;
};

static pthread_barrier_t start_line;

static Node *node_make(uint64_t step) {
    Leaf *leaf = bench_new_leaf(Leaf);
    leaf->value[0] = step;
    Node *node = bench_new(Node);
    node->payload[0] = step;
    bench_set(&node->leaf, leaf);
    return node;
}

static void table_check(const NodeRef *table, size_t slot_count) {
    for (size_t i = 0; i < slot_count; i++) {
        const Node *node = bench_get(table[i]);
        if (node != NULL && bench_get(node->leaf)->value[0] != node->payload[0]) {
            bench_die("a node lost its leaf");
        }
    }
}

static void *worker_run(void *argument) {
    struct worker *worker = argument;
    NodeRef *table = bench_new_array(NodeRef, worker->slot_count);
    (void)pthread_barrier_wait(&start_line);

    uint64_t random = worker->random, longest_ns = 0;
    uint64_t before_ns = worker->started_ns = bench_now_ns();
    for (size_t step = 0; step < worker->step_count; step++) {
        size_t index = bench_random(&random, worker->slot_count);
        Node *node = node_make(step);
#if defined(BENCH_BY_HAND)
        Node *old = bench_get(table[index]);
        if (old != NULL) {
            free(bench_get(old->leaf));
            free(old);
        }
#endif
        bench_set(&table[index], node);
        uint64_t now_ns = bench_now_ns();
        if (now_ns - before_ns > longest_ns) longest_ns = now_ns - before_ns;
        before_ns = now_ns;
    }
    worker->ended_ns = before_ns;
    worker->longest_ns = longest_ns;
    table_check(table, worker->slot_count);
    return NULL;
}

int main(int argc, char **argv) {
    bench_start();
    size_t slot_count = bench_argument(argc, argv, 1, (size_t)4 << 20);
    size_t step_count = bench_argument(argc, argv, 2, 30000000);
    size_t thread_count = bench_argument(argc, argv, 3, 1);
    if (thread_count > THREADS_MAX) bench_die("too many threads");

    static struct worker workers[THREADS_MAX];
    (void)pthread_barrier_init(&start_line, NULL, (unsigned)thread_count);
    for (size_t i = 0; i < thread_count; i++) {
        workers[i].slot_count = slot_count;
        workers[i].step_count = step_count;
        workers[i].random = UINT64_C(0x9e3779b97f4a7c15) * (i + 1);
        if (i > 0 && pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]) != 0) {
            bench_die("no thread");
        }
    }
    (void)worker_run(&workers[0]);
    uint64_t started_ns = workers[0].started_ns, ended_ns = workers[0].ended_ns;
    uint64_t longest_ns = workers[0].longest_ns;
    for (size_t i = 1; i < thread_count; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        if (workers[i].started_ns < started_ns) started_ns = workers[i].started_ns;
        if (workers[i].ended_ns > ended_ns) ended_ns = workers[i].ended_ns;
        if (workers[i].longest_ns > longest_ns) longest_ns = workers[i].longest_ns;
    }

    double seconds = bench_seconds(ended_ns - started_ns);
    printf("steps_per_s=%.0f longest_ms=%.3f\n", (double)(step_count * thread_count) / seconds,
           bench_ms(longest_ns));
    bench_print_pauses();
    return 0;
}
