/* SPDX-License-Identifier: MIT
 *
 * Cursors through fragmented blocks, blocks of their own, large objects; the heap's failure paths.
 * Method: a heap of its own, driven below the public calls where it can be; each slot is filled,
 * so that one handed out twice, or not zeroed, is seen.
 */
#include "../test.h"

#include "object/object.h"

#include <sys/mman.h>

enum { MANY = 20000 };
static NodeRef *kept;

/* Every second object dies: the next ones must come from the holes, zeroed, and from nowhere else.
 */
static void make_every_second_kept(void) {
    kept = cairn_new_array(NodeRef, MANY);
    for (long i = 0; i < MANY; i++) {
        Node *node = cairn_make(Node, .value = i);
        if (i % 2) cairn_set(&kept[i], node);
    }
    cairn_collect(CAIRN_COUNT);
}

static void fill_the_holes(void) {
    for (long i = 0; i < MANY; i += 2) {
        Node *node = cairn_new(Node);
        assert_true(!node->next.p && !node->other.p && node->value == 0);
        node->value = i;
        cairn_set(&kept[i], node);
    }
    for (long i = 0; i < MANY; i++) assert_int_equal(kept[i].p->value, i);
}

static void holes_of_fragmented_blocks_are_handed_out_once(void **state) {
    (void)state;
    run_apart(make_every_second_kept);
    for (int round = 0; round < 4; round++) {
        run_apart(fill_the_holes);
        cairn_collect(CAIRN_COUNT);
        for (long i = 0; i < MANY; i++) assert_int_equal(kept[i].p->value, i);
        for (long i = 0; i < MANY; i += 2) cairn_set(&kept[i], NULL);
        cairn_collect(CAIRN_COUNT);
    }
    kept = NULL;
}

static char *own_at[3];

static void make_own(void) {
    static const size_t sizes[3] = {20000, 200000, 5000000};
    for (size_t i = 0; i < 3; i++) {
        char *memory = cairn_alloc_bytes(sizes[i]);
        for (size_t k = 0; k < sizes[i]; k += 512) assert_int_equal(memory[k], 0);
        memset(memory, 0x55, sizes[i]);
        assert_ptr_equal(cairn_heap_of(memory + sizes[i] - 1), cairn_heap_of(memory));
        assert_int_equal(cairn_length(memory), sizes[i]);
        own_at[i] = (char *)HIDE(memory);
    }
}

static void own_blocks_are_given_back_and_zeroed(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    uint64_t before = stats_now().live_bytes;
    for (int round = 0; round < 5; round++) {
        run_apart(make_own);
        live_after(CAIRN_COUNT);
        assert_true(stats_now().live_bytes <= before + 4096);
    }
    assert_null(cairn_heap_of(SHOW(char, (uintptr_t)own_at[2])));
}

static struct crn_heap small;
static struct crn_cache cache;

static void full_heap_gives_null_from_every_path(void **state) {
    (void)state;
    static struct crn_type leaf = {.name = "leaf", .size = 64, .align = 16, .content = CRN_LEAF};
    assert_true(crn_heap_init(&small, CRN_MIB(32)));
    assert_true(crn_cache_init(&cache, &small));
    struct crn_bin *bin = crn_bin_fixed(&leaf);
    size_t count = 0;
    cairn_section_enter_();
    while (crn_cache_allocate(&cache, bin)) count++;
    cairn_section_leave_();
    size_t blocks = 8 * (CRN_SEGMENT_BLOCKS - CRN_FIRST_BLOCK);
    assert_int_equal(count, blocks * (CRN_BLOCK_BYTES / 64));
    assert_null(crn_cache_allocate(&cache, bin));
    assert_null(crn_cache_allocate_own(&cache, &leaf, 20000, 16, true));
    assert_null(crn_cache_allocate_own(&cache, &leaf, CRN_MIB(3), 16, true));
    assert_null(crn_cache_allocate_own(&cache, &leaf, SIZE_MAX / 2, 16, true));
    crn_heap_deinit(&small);
}

static size_t resident_pages(const char *begin, size_t bytes) {
    size_t page = crn_os_page_bytes(), count = 0;
    unsigned char resident[CRN_BLOCK_BYTES >> 12];
    assert_int_equal(mincore((void *)(uintptr_t)begin, bytes, resident), 0);
    for (size_t i = 0; i < bytes / page; i++) count += resident[i] & 1;
    return count;
}

static bool system_populates(void) {
    char *trial = crn_os_map(CRN_BLOCK_BYTES);
    assert_non_null(trial);
    assert_int_equal(resident_pages(trial, CRN_BLOCK_BYTES), 0);
    crn_os_populate(trial, CRN_BLOCK_BYTES);
    size_t resident = resident_pages(trial, CRN_BLOCK_BYTES);
    crn_os_release(trial, CRN_BLOCK_BYTES);
    return resident > 0;
}

/* The first block comes page by page, for it may be the only one of its type; the next at once. */
static void blocks_after_the_first_are_populated(void **state) {
    (void)state;
    if (!system_populates()) skip();
    static struct crn_type leaf = {.name = "leaf", .size = 1024, .align = 16, .content = CRN_LEAF};
    memset(&small, 0, sizeof(small));
    assert_true(crn_heap_init(&small, CRN_MIB(32)));
    assert_true(crn_cache_init(&cache, &small));
    struct crn_bin *bin = crn_bin_fixed(&leaf);
    cairn_section_enter_();
    char *first = crn_cache_allocate(&cache, bin);
    size_t of_first = resident_pages(first, CRN_BLOCK_BYTES);
    for (size_t i = 1; i < CRN_BLOCK_BYTES / 1024; i++) crn_cache_allocate(&cache, bin);
    size_t of_full = resident_pages(first, CRN_BLOCK_BYTES);
    char *second = crn_cache_allocate(&cache, bin);
    size_t of_second = resident_pages(second, CRN_BLOCK_BYTES);
    cairn_section_leave_();
    assert_int_equal(of_first, 0);
    assert_int_equal(of_full, 0); /* of fresh memory nothing is written here */
    assert_int_equal(of_second, CRN_BLOCK_BYTES / crn_os_page_bytes());
    crn_heap_deinit(&small);
}

static void fail_the_next_request(void) {
    crn_os_fail_at(1);
}

/* Last: from here on the count of requests runs. */
static void table_that_cannot_grow_gives_null_and_stays(void **state) {
    (void)state;
    static struct crn_type types[200];
    memset(&small, 0, sizeof(small));
    assert_true(crn_heap_init(&small, CRN_MIB(32)));
    assert_true(crn_cache_init(&cache, &small));
    struct crn_bin *bin = NULL;
    while (!bin || bin->id < cache.capacity) {
        struct crn_type *type = &types[bin ? bin->id % 200 : 0];
        *type = (struct crn_type){.name = "grown", .size = 32, .align = 16};
        bin = crn_bin_fixed(type);
    }
    uint32_t capacity = cache.capacity;
    fail_the_next_request();
    assert_null(crn_cache_allocate(&cache, bin));
    assert_int_equal(cache.capacity, capacity);
    assert_non_null(crn_cache_allocate(&cache, bin));
    assert_true(cache.capacity > capacity);
    crn_heap_deinit(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holes_of_fragmented_blocks_are_handed_out_once),
        cmocka_unit_test(own_blocks_are_given_back_and_zeroed),
        cmocka_unit_test(full_heap_gives_null_from_every_path),
        cmocka_unit_test(blocks_after_the_first_are_populated),
        cmocka_unit_test(table_that_cannot_grow_gives_null_and_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
