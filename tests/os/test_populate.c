/* SPDX-License-Identifier: MIT
 *
 * Pages that are to come at once: those of the range and no others, wherever it begins and ends.
 */
#define _GNU_SOURCE
#include "../test.h"

#include "os/os.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { PAGES = 8 };

static void range_comes_and_no_more(void **state) {
    (void)state;
    size_t page = crn_os_page_bytes();
    char *memory = crn_os_map(PAGES * page);
    assert_non_null(memory);
    if (madvise(memory, page, MADV_POPULATE_WRITE) != 0) skip(); /* a kernel before 5.14 */
    unsigned char there[PAGES];
    assert_int_equal(mincore(memory, PAGES * page, there), 0);
    if (!(there[0] & 1) || (there[1] & 1)) skip(); /* nobody tells here */
    errno = ERANGE;
    crn_os_populate(memory + 3 * page - 1, 2 * page + 2);
    assert_int_equal(errno, ERANGE);
    assert_int_equal(mincore(memory, PAGES * page, there), 0);
    for (size_t i = 1; i < PAGES; i++) assert_int_equal(there[i] & 1, i >= 2 && i <= 5);
    crn_os_release(memory, PAGES * page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_comes_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
