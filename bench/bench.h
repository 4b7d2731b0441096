/* SPDX-License-Identifier: MIT
 *
 * What every benchmark needs: clock, random numbers, arguments. Include it first.
 *
 * A program prints its results as `key=value` words; run.sh reads those.
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BENCH_UNUSED __attribute__((unused))

_Noreturn BENCH_UNUSED static void bench_die(const char *what) {
    fprintf(stderr, "bench: %s\n", what);
    exit(EXIT_FAILURE);
}

/* The same clock, at the same cost, in every variant; Go's time.Since reads it too. */
static inline uint64_t bench_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline double bench_ms(uint64_t ns) {
    return (double)ns / 1e6;
}
static inline double bench_seconds(uint64_t ns) {
    return (double)ns / 1e9;
}

/* A number below `limit`, which is below 2^32. xorshift64; the state is never 0. */
static inline size_t bench_random(uint64_t *state, size_t limit) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return (size_t)(((x >> 32) * limit) >> 32);
}

/* argv[index] as a number of at least 1; `fallback` where it is absent. */
BENCH_UNUSED static size_t bench_argument(int argc, char **argv, int index, size_t fallback) {
    if (index >= argc) return fallback;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(argv[index], &end, 10);
    if (errno != 0 || end == argv[index] || *end != '\0' || value == 0 || value >> 32 != 0) {
        bench_die("an argument is no number between 1 and 2^32");
    }
    return (size_t)value;
}

#endif
