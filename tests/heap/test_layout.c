/* SPDX-License-Identifier: MIT
 *
 * Size classes and bins: every size finds the smallest class that holds it, and every interior
 * offset of every slot size finds its slot by one multiplication.
 */
#include "../test.h"

#include "heap/heap.h"

static void class_is_the_smallest_that_holds_the_size(void **state) {
    (void)state;
    for (size_t bytes = 0; bytes <= CRN_SMALL_MAX; bytes++) {
        uint32_t index = crn_size_class(bytes);
        assert_true(index < CRN_CLASS_COUNT);
        assert_true(crn_class_size(index) >= bytes);
        if (index > 0) assert_true(crn_class_size(index - 1) < bytes);
    }
}

static void class_sizes_are_granules_and_lose_an_eighth_at_most(void **state) {
    (void)state;
    for (uint32_t index = 0; index < CRN_CLASS_COUNT; index++) {
        size_t size = crn_class_size(index);
        assert_int_equal(size % CRN_GRANULE, 0);
        assert_int_equal(crn_size_class(size), index);
        if (index >= 8) assert_true((size - crn_class_size(index - 1)) * 8 <= size);
    }
}

static void check_reciprocal(size_t slot_size) {
    struct crn_type type = {.name = "divided", .size = slot_size, .align = CRN_GRANULE};
    const struct crn_bin *bin = crn_bin_fixed(&type);
    assert_int_equal(bin->slot_size, slot_size);
    for (uint64_t offset = 0; offset < CRN_BLOCK_BYTES; offset++) {
        if ((offset * bin->reciprocal) >> 32 != offset / slot_size) {
            fail_msg("offset %u of slots of %zu bytes", (unsigned)offset, slot_size);
        }
    }
}

static void reciprocal_divides_every_offset_of_every_slot_size(void **state) {
    (void)state;
    for (size_t size = CRN_GRANULE; size <= CRN_SMALL_MAX; size += CRN_GRANULE) {
        check_reciprocal(size);
    }
}

static void bins_are_made_once_and_hold_their_figures(void **state) {
    (void)state;
    struct crn_type type = {.name = "test", .size = 40, .align = 8};
    struct crn_bin *fixed = crn_bin_fixed(&type);
    assert_ptr_equal(fixed, crn_bin_fixed(&type));
    assert_ptr_equal(fixed, crn_bin_of(fixed->id));
    assert_int_equal(fixed->slot_size, 48);
    assert_false(fixed->is_sized);
    struct crn_bin *sized = crn_bin_sized(&type, crn_size_class(1000));
    assert_ptr_not_equal(sized, fixed);
    assert_int_equal(sized->slot_size, 1024);
    assert_true(sized->is_sized);
    assert_true(crn_bin_count() > sized->id);
}

static void bin_of_an_aligned_type_keeps_the_alignment(void **state) {
    (void)state;
    for (size_t align = 1; align <= 4096; align *= 2) {
        struct crn_type type = {.name = "aligned", .size = align + 1, .align = align};
        assert_int_equal(crn_bin_fixed(&type)->slot_size % align, 0);
    }
}

static void more_bins_than_a_page_are_found_again(void **state) {
    (void)state;
    enum { MANY = 3000 };
    static struct crn_type types[MANY];
    for (size_t i = 0; i < MANY; i++) {
        types[i] = (struct crn_type){.name = "many", .size = 16 + i % 100 * 16, .align = 16};
        assert_non_null(crn_bin_fixed(&types[i]));
    }
    for (size_t i = 0; i < MANY; i++) {
        assert_ptr_equal(crn_bin_of(types[i].fixed_bin)->type, &types[i]);
        assert_int_equal(crn_bin_of(types[i].fixed_bin)->slot_size, 16 + i % 100 * 16);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(class_is_the_smallest_that_holds_the_size),
        cmocka_unit_test(class_sizes_are_granules_and_lose_an_eighth_at_most),
        cmocka_unit_test(reciprocal_divides_every_offset_of_every_slot_size),
        cmocka_unit_test(bins_are_made_once_and_hold_their_figures),
        cmocka_unit_test(bin_of_an_aligned_type_keeps_the_alignment),
        cmocka_unit_test(more_bins_than_a_page_are_found_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
