/* SPDX-License-Identifier: MIT
 *
 * Durations in buckets of an eighth of a doubling: at most 12 % off.
 */
#include "gc/gc.h"

static size_t bucket_of(uint64_t value) {
    if (value < 8) return (size_t)value;
    uint32_t top = crn_log2(value);
    return top * 8 + ((value >> (top - 3)) & 7);
}

void crn_histogram_add(struct crn_histogram *histogram, uint64_t value) {
    histogram->buckets[bucket_of(value)]++;
    if (histogram->total == 0 || value < histogram->min) histogram->min = value;
    if (value > histogram->max) histogram->max = value;
    histogram->total++;
}

uint64_t crn_histogram_quantile(const struct crn_histogram *histogram, double quantile) {
    uint64_t rank = (uint64_t)((double)histogram->total * quantile), seen = 0;
    for (size_t i = 0; i < 64 * 8; i++) {
        seen += histogram->buckets[i];
        if (seen <= rank || !histogram->buckets[i]) continue;
        if (i < 24) return i;
        uint64_t high = ((8 + (uint64_t)(i & 7) + 1) << (i / 8 - 3)) - 1;
        return high < histogram->max ? high : histogram->max;
    }
    return histogram->max;
}
