/* SPDX-License-Identifier: MIT
 *
 * Regions and segments: aligned, zero, found from any address, given back, and NULL when the region
 * is full.
 */
#include "../test.h"

#include "space/space.h"

enum { REGION_SEGMENTS = 16 };
static struct crn_region region;

static int set_up(void **state) {
    (void)state;
    cairn_new(Node); /* makes the tables */
    return crn_region_init(&region, REGION_SEGMENTS * CRN_SEGMENT_BYTES) ? 0 : 1;
}
static int tear_down(void **state) {
    (void)state;
    crn_region_deinit(&region, "test");
    return 0;
}

static bool is_zero(const char *memory, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 512) {
        if (memory[i]) return false;
    }
    return true;
}

static void segments_are_aligned_zero_and_known(void **state) {
    (void)state;
    char *segment = crn_segments_acquire(&region, 1, CRN_SEGMENT_BLOCKY, false);
    assert_non_null(segment);
    assert_int_equal((uintptr_t)segment % CRN_SEGMENT_BYTES, 0);
    assert_true(is_zero(segment, CRN_SEGMENT_BYTES));
    assert_int_equal(crn_segment_kind(segment), CRN_SEGMENT_BLOCKY);
    assert_int_equal(crn_segment_kind(segment + CRN_SEGMENT_BYTES - 1), CRN_SEGMENT_BLOCKY);
    assert_ptr_equal(crn_segment_of(segment + 12345), segment);
    assert_true(crn_space_holds(segment));
    crn_segments_release(&region, segment, 1);
    assert_int_equal(crn_segment_kind(segment), CRN_SEGMENT_NONE);
}

static void segment_used_again_is_zero_with_clear_shadows(void **state) {
    (void)state;
    char *first = crn_segments_acquire(&region, 1, CRN_SEGMENT_BLOCKY, false);
    memset(first, 0xff, CRN_SEGMENT_BYTES);
    char *inside = first + CRN_TABLE_BYTES + 4096;
    crn_bit_set(crn_mark_bit(inside));
    crn_bit_set(crn_deleted_bit(inside));
    crn_bit_set(crn_root_bit(inside, 0));
    crn_segments_release(&region, first, 1);
    char *second = crn_segments_acquire(&region, 1, CRN_SEGMENT_BLOCKY, false);
    assert_ptr_equal(second, first);
    assert_true(is_zero(second, CRN_SEGMENT_BYTES));
    assert_false(crn_bit_get(crn_mark_bit(inside)));
    assert_false(crn_bit_get(crn_deleted_bit(inside)));
    assert_false(crn_bit_get(crn_root_bit(inside, 0)));
    crn_segments_release(&region, second, 1);
}

static void large_object_has_a_head_and_a_body(void **state) {
    (void)state;
    char *large = crn_segments_acquire(&region, 3, CRN_SEGMENT_LARGE, true);
    assert_non_null(large);
    assert_int_equal(crn_segment_kind(large), CRN_SEGMENT_LARGE);
    assert_int_equal(crn_segment_kind(large + CRN_SEGMENT_BYTES), CRN_SEGMENT_BODY);
    assert_int_equal(crn_segment_kind(large + 2 * CRN_SEGMENT_BYTES), CRN_SEGMENT_BODY);
    assert_int_equal(region.committed_count, 3);
    crn_segments_release(&region, large, 3);
    assert_int_equal(region.committed_count, 0);
    assert_int_equal(crn_segment_kind(large + CRN_SEGMENT_BYTES), CRN_SEGMENT_NONE);
}

static void full_region_gives_null_and_holes_are_found(void **state) {
    (void)state;
    char *segments[REGION_SEGMENTS];
    for (size_t i = 0; i < REGION_SEGMENTS; i++) {
        segments[i] = crn_segments_acquire(&region, 1, CRN_SEGMENT_BLOCKY, false);
        assert_non_null(segments[i]);
        for (size_t k = 0; k < i; k++) assert_ptr_not_equal(segments[i], segments[k]);
    }
    assert_null(crn_segments_acquire(&region, 1, CRN_SEGMENT_BLOCKY, false));
    crn_segments_release(&region, segments[4], 1);
    crn_segments_release(&region, segments[9], 1);
    crn_segments_release(&region, segments[10], 1);
    assert_null(crn_segments_acquire(&region, 3, CRN_SEGMENT_LARGE, false));
    assert_ptr_equal(crn_segments_acquire(&region, 2, CRN_SEGMENT_LARGE, false), segments[9]);
    assert_ptr_equal(crn_segments_acquire(&region, 1, CRN_SEGMENT_BLOCKY, false), segments[4]);
    assert_null(crn_segments_acquire(&region, 1, CRN_SEGMENT_BLOCKY, false));
    for (size_t i = 0; i < REGION_SEGMENTS; i++) crn_segments_release(&region, segments[i], 1);
    char *all = crn_segments_acquire(&region, REGION_SEGMENTS, CRN_SEGMENT_LARGE, false);
    assert_non_null(all);
    assert_null(crn_segments_acquire(&region, SIZE_MAX, CRN_SEGMENT_LARGE, false));
    crn_segments_release(&region, all, REGION_SEGMENTS);
}

static void addresses_outside_every_region_have_no_kind(void **state) {
    (void)state;
    assert_int_equal(crn_segment_kind(NULL), CRN_SEGMENT_NONE);
    assert_int_equal(crn_segment_kind(&region), CRN_SEGMENT_NONE);
    assert_int_equal(crn_segment_kind((void *)UINTPTR_MAX), CRN_SEGMENT_NONE);
    assert_false(crn_space_holds(NULL));
    assert_false(crn_space_holds((void *)UINTPTR_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_are_aligned_zero_and_known),
        cmocka_unit_test(segment_used_again_is_zero_with_clear_shadows),
        cmocka_unit_test(large_object_has_a_head_and_a_body),
        cmocka_unit_test(full_region_gives_null_and_holes_are_found),
        cmocka_unit_test(addresses_outside_every_region_have_no_kind),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
