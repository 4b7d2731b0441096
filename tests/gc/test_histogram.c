/* SPDX-License-Identifier: MIT
 *
 * Quantiles against a sorted twin: at most an eighth too high, never too low, exact at the ends.
 */
#include "../test.h"

#include "gc/gc.h"

enum { VALUES = 5000 };

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void check_quantile(const struct crn_histogram *histogram, const uint64_t *sorted,
                           double quantile) {
    size_t rank = (size_t)((double)VALUES * quantile);
    uint64_t exact = sorted[rank < VALUES ? rank : VALUES - 1];
    uint64_t found = crn_histogram_quantile(histogram, quantile);
    assert_true(found >= exact);
    assert_true(found - exact <= exact / 8 + 1);
}

static void quantiles_are_an_eighth_off_at_most(void **state) {
    (void)state;
    static uint64_t values[VALUES];
    uint64_t random = 88172645463325252u;
    for (unsigned shift = 0; shift < 60; shift += 7) {
        static struct crn_histogram histogram;
        memset(&histogram, 0, sizeof(histogram));
        for (size_t i = 0; i < VALUES; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            values[i] = random >> (shift + random % 4);
            crn_histogram_add(&histogram, values[i]);
        }
        qsort(values, VALUES, sizeof(*values), by_value);
        for (double q = 0; q <= 1; q += 0.01) check_quantile(&histogram, values, q);
        check_quantile(&histogram, values, 0.999);
        assert_true(histogram.min == values[0] && histogram.max == values[VALUES - 1]);
        assert_true(crn_histogram_quantile(&histogram, 1) == histogram.max);
    }
}

static void small_values_are_exact(void **state) {
    (void)state;
    for (uint64_t value = 0; value < 16; value++) {
        struct crn_histogram histogram = {.total = 0};
        crn_histogram_add(&histogram, value);
        assert_int_equal(crn_histogram_quantile(&histogram, 0.5), value);
    }
}

static void empty_and_extreme_histograms_have_answers(void **state) {
    (void)state;
    struct crn_histogram histogram = {.total = 0};
    assert_int_equal(crn_histogram_quantile(&histogram, 0.5), 0);
    crn_histogram_add(&histogram, UINT64_MAX);
    assert_true(crn_histogram_quantile(&histogram, 0.5) == UINT64_MAX);
    crn_histogram_add(&histogram, 0);
    assert_true(crn_histogram_quantile(&histogram, 0) == 0);
    assert_true(crn_histogram_quantile(&histogram, 1) == UINT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_an_eighth_off_at_most),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(empty_and_extreme_histograms_have_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
