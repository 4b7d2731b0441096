/* SPDX-License-Identifier: MIT
 *
 * What Cairn costs a program that hardly uses it: one object and out.
 *
 * Usage: empty [rss]. With `rss` it prints its own peak: what /usr/bin/time says of so small a
 * program is the peak of time itself.
 */
#include "layer.h"

typedef struct Point {
    int x, y;
} Point;
BENCH_LEAF(Point);

static void print_peak_rss(void) {
    FILE *status = fopen("/proc/self/status", "r");
    if (status == NULL) bench_die("no /proc/self/status");
    char line[256];
    unsigned long long peak_kib;
    while (fgets(line, sizeof(line), status) != NULL) {
        if (sscanf(line, "VmHWM: %llu", &peak_kib) == 1) printf("peak_kib=%llu\n", peak_kib);
    }
    (void)fclose(status);
}

int main(int argc, char **argv) {
    bench_start();
    Point *volatile point = bench_new_leaf(Point);
    point->x = 1;
    if (argc > 1 && strcmp(argv[1], "rss") == 0) print_peak_rss();
    return 0;
}
