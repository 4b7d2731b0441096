/* SPDX-License-Identifier: MIT
 *
 * The runtime's own memory: zeroed, aligned, apart, used again, and NULL when there is none.
 */
#include "../test.h"

#include "heap/heap.h"
#include "os/os.h"

static void memory_is_zero_aligned_and_apart(void **state) {
    (void)state;
    enum { PIECES = 200 };
    unsigned char *pieces[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        size_t bytes = 1 + i * i * 3;
        pieces[i] = crn_meta_alloc(bytes);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        for (size_t k = 0; k < bytes; k++) assert_int_equal(pieces[i][k], 0);
        memset(pieces[i], (int)(i % 255) + 1, bytes);
    }
    for (size_t i = 0; i < PIECES; i++) {
        size_t bytes = 1 + i * i * 3;
        for (size_t k = 0; k < bytes; k++) assert_int_equal(pieces[i][k], i % 255 + 1);
        crn_meta_free(pieces[i], bytes);
    }
}

static void freed_memory_is_used_again_and_zero(void **state) {
    (void)state;
    for (size_t bytes = 1; bytes <= (size_t)1 << 20; bytes = bytes * 3 + 1) {
        unsigned char *first = crn_meta_alloc(bytes);
        memset(first, 0xff, bytes);
        crn_meta_free(first, bytes);
        unsigned char *second = crn_meta_alloc(bytes);
        assert_ptr_equal(second, first);
        for (size_t k = 0; k < bytes; k++) assert_int_equal(second[k], 0);
        crn_meta_free(second, bytes);
    }
    crn_meta_free(NULL, 100);
}

static void pieces_above_a_chunk_are_mappings(void **state) {
    (void)state;
    size_t bytes = ((size_t)1 << 20) + 1;
    unsigned char *memory = crn_meta_alloc(bytes);
    assert_non_null(memory);
    memory[bytes - 1] = 1;
    crn_meta_free(memory, bytes);
    assert_null(crn_meta_alloc((size_t)1 << 50));
}

/* Last: from here on the count of requests runs. */
static void request_that_fails_gives_null_and_the_next_succeeds(void **state) {
    (void)state;
    crn_os_fail_at(2);
    void *first = crn_meta_alloc(64);
    assert_non_null(first);
    assert_false(crn_os_has_failed());
    assert_null(crn_meta_alloc(64));
    assert_true(crn_os_has_failed());
    void *third = crn_meta_alloc(64);
    assert_non_null(third);
    crn_meta_free(first, 64);
    crn_meta_free(third, 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zero_aligned_and_apart),
        cmocka_unit_test(freed_memory_is_used_again_and_zero),
        cmocka_unit_test(pieces_above_a_chunk_are_mappings),
        cmocka_unit_test(request_that_fails_gives_null_and_the_next_succeeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
