/* SPDX-License-Identifier: MIT
 *
 * Which pages of a range were ever written, from /proc/self/pagemap. Kernels without PAGEMAP_SCAN
 * give an entry per page; what cannot be told counts as written.
 *
 * The zero page holds no pointer. Nor does a page of a private file mapping that is still the
 * file's: no store reached it.
 *
 * A program may close what it did not open, and open something else under the same number. So a
 * request that fails is made once more through a fresh descriptor, and before reading entries the
 * descriptor must prove to be the file that was opened, and again behind it, for slices read while
 * the program runs. One that is lost is not closed.
 */
#define _GNU_SOURCE
#include "os/pagemap.h"

#include "base/lock.h"
#include "os/checker.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_SCAN_REQUEST _IOWR('f', 16, struct crn_page_scan)

/* Not through libc, whose calls are interposed and points of cancellation; and ioctl's second
 * parameter is an int in musl. */
static struct crn_lock pagemap_lock; /* whoever opens the file */
static int pagemap_file = -1;        /* atomic */
static dev_t pagemap_device;
static ino_t pagemap_node;

static bool open_pagemap(void) {
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct stat status;
    bool is_open = file >= 0 && fstat(file, &status) == 0;
    if (is_open) {
        pagemap_device = status.st_dev;
        pagemap_node = status.st_ino;
    }
    __atomic_store_n(&pagemap_file, file, __ATOMIC_RELEASE);
    return is_open;
}

static bool is_pagemap(void) {
    struct stat status;
    return pagemap_file >= 0 && fstat(pagemap_file, &status) == 0 &&
           status.st_dev == pagemap_device && status.st_ino == pagemap_node;
}

/* The file shows the memory of who opened it. */
void crn_os_pages_after_fork(void) {
    pagemap_file = -1;
    crn_written_after_fork();
}

/* Whether a request that failed through `file` is worth another: a descriptor that is another
 * file's by now is replaced, by one of those who find it so. */
static bool renew(int file) {
    crn_lock_acquire(&pagemap_lock);
    bool is_renewed = pagemap_file != file || (!is_pagemap() && open_pagemap());
    crn_lock_release(&pagemap_lock);
    return is_renewed;
}

static int request(struct crn_page_scan *scan) {
    int file = __atomic_load_n(&pagemap_file, __ATOMIC_ACQUIRE);
    long count = syscall(SYS_ioctl, file, PAGE_SCAN_REQUEST, scan);
    if (count < 0 && renew(file)) {
        file = __atomic_load_n(&pagemap_file, __ATOMIC_ACQUIRE);
        count = syscall(SYS_ioctl, file, PAGE_SCAN_REQUEST, scan);
    }
    return (int)count;
}

static bool scan_all(char *low, char *high, struct crn_page_scan *scan, crn_pages_visit *visit,
                     void *context) {
    struct crn_page_region regions[64];
    scan->size = sizeof(*scan);
    scan->start = (uint64_t)(uintptr_t)low;
    scan->end = (uint64_t)(uintptr_t)high;
    scan->regions = (uint64_t)(uintptr_t)regions;
    scan->region_count = sizeof(regions) / sizeof(*regions);
    while (scan->start < scan->end) {
        int count = request(scan);
        if (count < 0 || scan->walk_end <= scan->start) return false;
        for (int i = 0; i < count; i++) {
            visit((char *)(uintptr_t)regions[i].start, (char *)(uintptr_t)regions[i].end, context);
        }
        scan->start = scan->walk_end;
    }
    return true;
}

bool crn_pages_scan(char *low, char *high, struct crn_page_scan scan, crn_pages_visit *visit,
                    void *context) {
    if (crn_checker_is_valgrind) return false; /* it does not know the request */
    int saved = errno;
    bool is_done = scan_all(low, high, &scan, visit, context);
    errno = saved;
    return is_done;
}

/* Bits of an entry: 63 present, 62 swapped, 61 of a file or shared. */
static void touched_by_entries(char *low, char *high, size_t page_bytes, bool is_private_file,
                               crn_pages_visit *visit, void *context) {
    int saved = errno;
    uint64_t entries[256];
    crn_lock_acquire(&pagemap_lock);
    bool is_readable = is_pagemap() || open_pagemap();
    int file = pagemap_file;
    crn_lock_release(&pagemap_lock);
    for (char *at = low; at < high;) {
        size_t count = crn_min((size_t)(high - at) / page_bytes, 256);
        off_t offset = (off_t)((uintptr_t)at / page_bytes * 8);
        ssize_t got = -1;
        if (is_readable) got = syscall(SYS_pread64, file, entries, count * 8, offset);
        if (got > 0 && !is_pagemap()) got = -1;
        for (size_t i = 0; i < count; i++, at += page_bytes) {
            bool is_told = got >= (ssize_t)((i + 1) * 8);
            bool is_unwritten = is_told && (entries[i] >> 62 == 0 ||
                                            (is_private_file && (entries[i] >> 61 & 1) != 0));
            if (!is_unwritten) visit(at, at + page_bytes, context);
        }
    }
    errno = saved;
}

void crn_os_touched(char *low, char *high, bool is_private_file, crn_pages_visit *visit,
                    void *context) {
    if (low >= high) return;
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    low = (char *)((uintptr_t)low & ~(page_bytes - 1));
    high = (char *)crn_round_up((uintptr_t)high, page_bytes);
    uint64_t unwanted = CRN_PAGE_ZERO | (is_private_file ? CRN_PAGE_FILE : 0u);
    struct crn_page_scan scan = {.inverted = unwanted,
                                 .mask = unwanted,
                                 .any_of = CRN_PAGE_PRESENT | CRN_PAGE_SWAPPED,
                                 .return_mask = CRN_PAGE_PRESENT | CRN_PAGE_SWAPPED};
    if (!crn_pages_scan(low, high, scan, visit, context)) {
        touched_by_entries(low, high, page_bytes, is_private_file, visit, context);
    }
}
