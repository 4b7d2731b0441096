/* SPDX-License-Identifier: MIT
 *
 * What the machine itself takes away: threads that do nothing but read the clock, and the longest
 * time between two readings. A pause in which a thread of ours has lost its processor for as long
 * is no doing of ours, and no bar can be met where this is longer.
 *
 * Usage: gap [milliseconds, default 20,000] [threads, default 2].
 */
#include "bench.h"

#include <pthread.h>

#define THREADS_MAX 64u
#define LONG_NS UINT64_C(1000000)

struct reader {
    pthread_t thread;
    uint64_t duration_ns;
    uint64_t longest_ns, long_count;
};

static void *read_clock(void *argument) {
    struct reader *reader = argument;
    uint64_t started_ns = bench_now_ns(), before_ns = started_ns;
    while (before_ns - started_ns < reader->duration_ns) {
        uint64_t now_ns = bench_now_ns(), gap_ns = now_ns - before_ns;
        if (gap_ns > reader->longest_ns) reader->longest_ns = gap_ns;
        reader->long_count += gap_ns > LONG_NS;
        before_ns = now_ns;
    }
    return NULL;
}

int main(int argc, char **argv) {
    static struct reader readers[THREADS_MAX];
    uint64_t duration_ns = bench_argument(argc, argv, 1, 20000) * UINT64_C(1000000);
    size_t count = bench_argument(argc, argv, 2, 2);
    if (count > THREADS_MAX) bench_die("too many threads");
    for (size_t i = 0; i < count; i++) {
        readers[i].duration_ns = duration_ns;
        if (pthread_create(&readers[i].thread, NULL, read_clock, &readers[i]) != 0) {
            bench_die("no thread");
        }
    }
    uint64_t longest_ns = 0, long_count = 0;
    for (size_t i = 0; i < count; i++) {
        (void)pthread_join(readers[i].thread, NULL);
        if (readers[i].longest_ns > longest_ns) longest_ns = readers[i].longest_ns;
        long_count += readers[i].long_count;
    }
    printf("longest_gap_ms=%.3f gaps_above_1ms=%llu\n", bench_ms(longest_ns),
           (unsigned long long)long_count);
    return 0;
}
