/* SPDX-License-Identifier: MIT
 *
 * Many roots: 1 GiB of .bss of which 1 MiB was touched, a stack 1 MiB deep, and 256 threads that
 * mostly wait, half in poll and half for a condition, while the main thread churns.
 *
 * Usage: roots [steps, default 5 M] [threads, default 256].
 *
 * root_ms is what an epoch's scan of the roots takes on average; root_share and pause_share are the
 * parts of the run that roots and whole pauses take.
 */
#include "layer.h"

#include <poll.h>
#include <pthread.h>

#define BSS_BYTES ((size_t)1 << 30)
#define TOUCHED_BYTES ((size_t)1 << 20)
#define STACK_LEVELS 256u /* of 4 KiB */
#define SLOT_COUNT ((size_t)64 << 10)
#define THREADS_MAX 1024u

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

struct churn {
    size_t step_count;
    uint64_t elapsed_ns, longest_ns;
    uint64_t epochs, pause_ns, root_ns;
};

static unsigned char large_bss[BSS_BYTES];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static bool is_over; /* mutex */

static bool read_is_over(void) {
    (void)pthread_mutex_lock(&mutex);
    bool result = is_over;
    (void)pthread_mutex_unlock(&mutex);
    return result;
}

/* Wakes ten times a second and replaces its one object. */
static void *wait_in_poll(void *argument) {
    (void)argument;
    uint64_t turn = 0;
    while (!read_is_over()) {
        Leaf *mine = bench_new(Leaf);
        mine->value[0] = ++turn;
        (void)poll(NULL, 0, 100);
        if (mine->value[0] != turn) bench_die("a waiting thread lost its object");
    }
    return NULL;
}

static void *wait_for_condition(void *argument) {
    (void)argument;
    Leaf *mine = bench_new(Leaf);
    mine->value[0] = 1;
    (void)pthread_mutex_lock(&mutex);
    while (!is_over) (void)pthread_cond_wait(&condition, &mutex);
    (void)pthread_mutex_unlock(&mutex);
    if (mine->value[0] != 1) bench_die("a waiting thread lost its object");
    return NULL;
}

static void churn(struct churn *run) {
    NodeRef *table = bench_new_array(NodeRef, SLOT_COUNT);
    uint64_t random = 88172645463325252u;
    cairn_stats before = bench_stats();
    uint64_t started_ns = bench_now_ns(), before_ns = started_ns;
    for (size_t step = 0; step < run->step_count; step++) {
        Leaf *leaf = bench_new(Leaf);
        Node *node = bench_new(Node);
        cairn_set(&node->leaf, leaf);
        cairn_set(&table[bench_random(&random, SLOT_COUNT)], node);
        uint64_t now_ns = bench_now_ns();
        if (now_ns - before_ns > run->longest_ns) run->longest_ns = now_ns - before_ns;
        before_ns = now_ns;
    }
    run->elapsed_ns = before_ns - started_ns;
    cairn_stats after = bench_stats();
    run->epochs = after.epochs - before.epochs;
    run->pause_ns = after.pause_ns_total - before.pause_ns_total;
    run->root_ns = after.root_ns_total - before.root_ns_total;
    cairn_keep(table);
}

/* Recursion is bounded by STACK_LEVELS. */
__attribute__((noinline)) static void descend(unsigned levels, struct churn *run) {
    volatile uint64_t frame[512];
    for (size_t i = 0; i < 512; i++) frame[i] = i * UINT64_C(0x9e3779b97f4a7c15);
    if (levels == 0) {
        churn(run);
    } else {
        descend(levels - 1, run);
    }
    if (frame[1] == 0) bench_die("the stack was overwritten"); /* keeps the frame in use */
}

static void report(const struct churn *run) {
    double elapsed = (double)run->elapsed_ns;
    double root_ns = run->epochs ? (double)run->root_ns / (double)run->epochs : 0;
    printf("steps_per_s=%.0f longest_ms=%.3f root_ms=%.3f root_share=%.4f pause_share=%.4f\n",
           (double)run->step_count / bench_seconds(run->elapsed_ns), bench_ms(run->longest_ns),
           root_ns / 1e6, (double)run->root_ns / elapsed, (double)run->pause_ns / elapsed);
    bench_print_pauses();
}

int main(int argc, char **argv) {
    static struct churn run;
    run.step_count = bench_argument(argc, argv, 1, 5000000);
    size_t thread_count = bench_argument(argc, argv, 2, 256);
    if (thread_count > THREADS_MAX) bench_die("too many threads");
    memset(large_bss + BSS_BYTES / 2, 0x11, TOUCHED_BYTES);

    static pthread_t threads[THREADS_MAX];
    pthread_attr_t attributes;
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, (size_t)256 << 10);
    for (size_t i = 0; i < thread_count; i++) {
        void *(*body)(void *) = i % 2 == 0 ? wait_in_poll : wait_for_condition;
        if (pthread_create(&threads[i], &attributes, body, NULL) != 0) bench_die("no thread");
    }
    descend(STACK_LEVELS, &run);
    report(&run);

    (void)pthread_mutex_lock(&mutex);
    is_over = true;
    (void)pthread_cond_broadcast(&condition);
    (void)pthread_mutex_unlock(&mutex);
    for (size_t i = 0; i < thread_count; i++) (void)pthread_join(threads[i], NULL);
    return 0;
}
