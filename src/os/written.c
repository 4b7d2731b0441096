/* SPDX-License-Identifier: MIT
 *
 * Which pages were written since the last time one asked: userfaultfd in its asynchronous
 * write-protect mode marks, and PAGEMAP_SCAN reads and marks again, page by page at once. The first
 * write to a marked page takes a fault that the kernel resolves alone; system calls that write are
 * seen like stores.
 *
 * A watch lasts as long as its descriptor. A forked child begins anew, and a program may close what
 * it did not open: then asking fails, and the next crn_os_watch begins anew under a new generation.
 * Descriptors that failed are not closed: their numbers may be the program's by now. Callers have
 * the world stopped or nobody else about.
 */
#define _GNU_SOURCE
#include "os/checker.h"
#include "os/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the headers of the supported systems, or than what a C library of its own brings. */
enum { WATCH_USER_MODE_ONLY = 1, WATCH_UNPOPULATED = 1 << 13, WATCH_ASYNC = 1 << 15 };
enum { WATCH_API = 0xAA, WATCH_WRITES = 1 << 1 };
struct watch_api {
    uint64_t version, features, requests;
};
struct watch_range {
    uint64_t start, bytes, mode, requests;
};
#define WATCH_API_REQUEST _IOWR(0xAA, 0x3F, struct watch_api)
#define WATCH_RANGE_REQUEST _IOWR(0xAA, 0x00, struct watch_range)

static int watch_file = -1;
static uint32_t generation;

/* The descriptor watches the memory of who opened it. */
void crn_written_after_fork(void) {
    watch_file = -1;
    generation++;
}

/* Valgrind does not know these calls. */
static bool open_watch(void) {
    if (crn_checker_is_valgrind) return false;
    int file = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | WATCH_USER_MODE_ONLY);
    if (file < 0) return false;
    struct watch_api api = {.version = WATCH_API, .features = WATCH_ASYNC | WATCH_UNPOPULATED};
    if (syscall(SYS_ioctl, file, WATCH_API_REQUEST, &api) != 0) {
        syscall(SYS_close, file);
        return false;
    }
    watch_file = file;
    generation++;
    return true;
}

static bool try_watch(char *low, size_t bytes) {
    struct watch_range range = {
        .start = (uint64_t)(uintptr_t)low, .bytes = bytes, .mode = WATCH_WRITES};
    return watch_file >= 0 && syscall(SYS_ioctl, watch_file, WATCH_RANGE_REQUEST, &range) == 0;
}

uint32_t crn_os_watch(char *low, size_t bytes) {
    static bool is_hopeless;
    int saved = errno;
    bool is_watched = try_watch(low, bytes);
    if (!is_watched && !is_hopeless) {
        is_hopeless = !open_watch();
        is_watched = !is_hopeless && try_watch(low, bytes);
    }
    errno = saved;
    return is_watched ? generation : 0;
}

uint32_t crn_os_watch_generation(void) {
    return generation;
}

bool crn_os_written(char *low, char *high, crn_pages_visit *visit, void *context) {
    struct crn_page_scan scan = {.flags = CRN_SCAN_MARK | CRN_SCAN_MUST_BE_WATCHED,
                                 .mask = CRN_PAGE_WRITTEN,
                                 .return_mask = CRN_PAGE_WRITTEN};
    return crn_pages_scan(low, high, scan, visit, context);
}
