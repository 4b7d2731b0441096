/* SPDX-License-Identifier: MIT
 *
 * Which pages were written since the last time one asked: userfaultfd in its asynchronous
 * write-protect mode marks, and PAGEMAP_SCAN reads and marks again, page by page at once (Linux
 * 6.7). The first write to a marked page takes a fault that the kernel resolves alone; system calls
 * that write are seen like stores.
 *
 * A watch lasts as long as its descriptor. A forked child begins anew, and a program may close what
 * it did not open: then asking fails, and the next crn_os_watch begins anew under a new generation.
 * Descriptors that failed are not closed: their numbers may be the program's by now. Callers have
 * the world stopped or nobody else about.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the headers of the supported systems. */
enum { WATCH_USER_MODE_ONLY = 1, WATCH_UNPOPULATED = 1 << 13, WATCH_ASYNC = 1 << 15 };
enum { SCAN_MARK = 1 << 0, SCAN_MUST_BE_WATCHED = 1 << 1, PAGE_WRITTEN = 1 << 1 };
struct scan_region {
    uint64_t start, end, categories;
};
struct scan_request {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t inverted, mask, any_of, return_mask;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan_request)

static int watch_file = -1, scan_file = -1;
static uint32_t generation;

/* Both descriptors tell of the process that opened them: a child must not ask its parent's. */
static void forget_parent(void) {
    static int owner;
    int self = crn_os_process_id();
    if (owner == self) return;
    owner = self;
    watch_file = scan_file = -1;
    generation++;
}

static bool open_files(void) {
    int file = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | WATCH_USER_MODE_ONLY);
    if (file < 0) return false;
    struct uffdio_api api = {.api = UFFD_API, .features = WATCH_ASYNC | WATCH_UNPOPULATED};
    int pages = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pages < 0 || ioctl(file, UFFDIO_API, &api) != 0) {
        syscall(SYS_close, file);
        if (pages >= 0) syscall(SYS_close, pages);
        return false;
    }
    watch_file = file;
    scan_file = pages;
    generation++;
    return true;
}

static bool try_watch(char *low, size_t bytes) {
    struct uffdio_register range = {.range = {.start = (uint64_t)(uintptr_t)low, .len = bytes},
                                    .mode = UFFDIO_REGISTER_MODE_WP};
    return watch_file >= 0 && ioctl(watch_file, UFFDIO_REGISTER, &range) == 0;
}

uint32_t crn_os_watch(char *low, size_t bytes) {
    static bool is_hopeless;
    int saved = errno;
    forget_parent();
    bool is_watched = try_watch(low, bytes);
    if (!is_watched && !is_hopeless) {
        is_hopeless = !open_files();
        is_watched = !is_hopeless && try_watch(low, bytes);
    }
    errno = saved;
    return is_watched ? generation : 0;
}

uint32_t crn_os_watch_generation(void) {
    forget_parent();
    return generation;
}

bool crn_os_written(char *low, char *high, void (*visit)(char *low, char *high, void *context),
                    void *context) {
    struct scan_region regions[32];
    int saved = errno;
    uint64_t at = (uint64_t)(uintptr_t)low, end = (uint64_t)(uintptr_t)high;
    while (at < end) {
        struct scan_request scan = {.size = sizeof(scan),
                                    .flags = SCAN_MARK | SCAN_MUST_BE_WATCHED,
                                    .start = at,
                                    .end = end,
                                    .regions = (uint64_t)(uintptr_t)regions,
                                    .region_count = 32,
                                    .mask = PAGE_WRITTEN,
                                    .return_mask = PAGE_WRITTEN};
        int count = ioctl(scan_file, SCAN_REQUEST, &scan);
        if (count < 0 || scan.walk_end <= at) {
            errno = saved;
            return false;
        }
        for (int i = 0; i < count; i++) {
            visit((char *)(uintptr_t)regions[i].start, (char *)(uintptr_t)regions[i].end, context);
        }
        at = scan.walk_end;
    }
    errno = saved;
    return true;
}
