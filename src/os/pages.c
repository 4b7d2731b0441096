/* SPDX-License-Identifier: MIT
 *
 * Which pages of a range were ever written.
 *
 * PAGEMAP_SCAN (Linux 6.7) walks page tables: the kernel skips empty ones, so that a gigabyte of
 * untouched .bss costs microseconds. Declared here because the headers of the supported systems
 * predate it. Older kernels give an entry per page; without /proc everything counts as written.
 *
 * The zero page holds no pointer. Nor does a page of a private file mapping that is still the
 * file's: no store reached it.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct page_region {
    uint64_t start, end, categories;
};
struct page_scan {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t inverted, mask, any_of, return_mask;
};
enum { PAGE_FILE = 1 << 2, PAGE_PRESENT = 1 << 3, PAGE_SWAPPED = 1 << 4, PAGE_ZERO = 1 << 5 };
#define PAGE_SCAN_REQUEST _IOWR('f', 16, struct page_scan)

typedef void visit_pages(char *low, char *high, void *context);

/* Of this process: a forked child opens its own, for the file shows the memory of who opened it. */
static int pagemap_file = -1;
static size_t page_bytes;

static bool open_pagemap(void) {
    if (pagemap_file < 0) pagemap_file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return pagemap_file >= 0;
}

void crn_os_pages_after_fork(void) {
    if (pagemap_file >= 0) close(pagemap_file);
    pagemap_file = -1;
}

static bool touched_by_scan(char *low, char *high, bool is_private_file, visit_pages *visit,
                            void *context) {
    struct page_region regions[64];
    uint64_t unwanted = PAGE_ZERO | (is_private_file ? PAGE_FILE : 0u);
    uint64_t at = (uint64_t)(uintptr_t)low;
    while (at < (uint64_t)(uintptr_t)high) {
        struct page_scan scan = {.size = sizeof(scan),
                                 .start = at,
                                 .end = (uint64_t)(uintptr_t)high,
                                 .regions = (uint64_t)(uintptr_t)regions,
                                 .region_count = sizeof(regions) / sizeof(*regions),
                                 .inverted = unwanted,
                                 .mask = unwanted,
                                 .any_of = PAGE_PRESENT | PAGE_SWAPPED,
                                 .return_mask = PAGE_PRESENT | PAGE_SWAPPED};
        int count = ioctl(pagemap_file, PAGE_SCAN_REQUEST, &scan);
        if (count < 0) return false;
        for (int i = 0; i < count; i++) {
            visit((char *)(uintptr_t)regions[i].start, (char *)(uintptr_t)regions[i].end, context);
        }
        if (scan.walk_end <= at) return count == 0;
        at = scan.walk_end;
    }
    return true;
}

/* Bits of an entry: 63 present, 62 swapped, 61 of a file or shared. */
static void touched_by_entries(char *low, char *high, bool is_private_file, visit_pages *visit,
                               void *context) {
    uint64_t entries[256];
    for (char *at = low; at < high;) {
        size_t count = crn_min((size_t)(high - at) / page_bytes, 256);
        off_t offset = (off_t)((uintptr_t)at / page_bytes * 8);
        ssize_t got = pread(pagemap_file, entries, count * 8, offset);
        for (size_t i = 0; i < count; i++, at += page_bytes) {
            if (got < (ssize_t)((i + 1) * 8) || entries[i] >> 62 == 0) continue;
            if (is_private_file && entries[i] >> 61 & 1) continue;
            visit(at, at + page_bytes, context);
        }
    }
}

void crn_os_touched(char *low, char *high, bool is_private_file, visit_pages *visit,
                    void *context) {
    if (low >= high) return;
    if (!page_bytes) page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    low = (char *)((uintptr_t)low & ~(page_bytes - 1));
    high = (char *)crn_round_up((uintptr_t)high, page_bytes);
    if (!open_pagemap()) {
        visit(low, high, context);
    } else if (!touched_by_scan(low, high, is_private_file, visit, context)) {
        touched_by_entries(low, high, is_private_file, visit, context);
    }
}
