/* SPDX-License-Identifier: MIT
 *
 * PAGEMAP_SCAN (Linux 6.7), which walks page tables: the kernel skips empty ones, so that a
 * gigabyte of untouched .bss costs microseconds. Declared here because the headers of the supported
 * systems predate it. For this room only.
 */
#ifndef CRN_OS_PAGEMAP_H
#define CRN_OS_PAGEMAP_H

#include "os/os.h"

struct crn_page_region {
    uint64_t start, end, categories;
};
struct crn_page_scan {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t inverted, mask, any_of, return_mask;
};
/* Flags, then categories. */
enum { CRN_SCAN_MARK = 1 << 0, CRN_SCAN_MUST_BE_WATCHED = 1 << 1 };
enum {
    CRN_PAGE_WRITTEN = 1 << 1,
    CRN_PAGE_FILE = 1 << 2,
    CRN_PAGE_PRESENT = 1 << 3,
    CRN_PAGE_SWAPPED = 1 << 4,
    CRN_PAGE_ZERO = 1 << 5
};

typedef void crn_pages_visit(char *low, char *high, void *context);

/* Visits the regions of [low, high) that match; errno stays. False: the kernel cannot, or not
 * here; some may have been visited. */
bool crn_pages_scan(char *low, char *high, struct crn_page_scan scan, crn_pages_visit *visit,
                    void *context);
void crn_written_after_fork(void);

#endif
