/* SPDX-License-Identifier: MIT
 *
 * Linux, x86-64 and aarch64, glibc and musl.
 */
#define _GNU_SOURCE
#include "os/os.h"
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- Address space -------------------------------------------------------------------------- */

static uint64_t fail_at, requests; /* requests: atomic */

void crn_os_fail_at(uint64_t request) {
    fail_at = request;
}

bool crn_os_should_fail(void) {
    return CRN_UNLIKELY(fail_at) && __atomic_add_fetch(&requests, 1, __ATOMIC_RELAXED) == fail_at;
}

bool crn_os_has_failed(void) {
    return fail_at && __atomic_load_n(&requests, __ATOMIC_RELAXED) >= fail_at;
}

static void *map(size_t bytes, int protection) {
    if (crn_os_should_fail()) return NULL;
    void *at = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

void *crn_os_reserve(size_t bytes, size_t align) {
    char *at = map(bytes + align, PROT_NONE);
    if (!at) return NULL;
    char *aligned = (char *)crn_round_up((uintptr_t)at, align);
    if (aligned > at) munmap(at, (size_t)(aligned - at));
    munmap(aligned + bytes, (size_t)(at + align - aligned));
    madvise(aligned, bytes, MADV_DONTDUMP);
    return aligned;
}

void *crn_os_reserve_zero(size_t bytes) {
    void *at = map(bytes, PROT_READ);
    if (at) madvise(at, bytes, MADV_DONTDUMP);
    return at;
}

void *crn_os_map(size_t bytes) {
    return map(bytes, PROT_READ | PROT_WRITE);
}

bool crn_os_commit(void *address, size_t bytes) {
    return !crn_os_should_fail() && mprotect(address, bytes, PROT_READ | PROT_WRITE) == 0;
}

void crn_os_decommit(void *address, size_t bytes) {
    madvise(address, bytes, MADV_DONTNEED);
    mprotect(address, bytes, PROT_NONE);
}

void crn_os_purge(void *address, size_t bytes) {
    madvise(address, bytes, MADV_DONTNEED);
}
void crn_os_release(void *address, size_t bytes) {
    munmap(address, bytes);
}
void crn_os_huge(void *address, size_t bytes) {
    madvise(address, bytes, MADV_HUGEPAGE);
}

size_t crn_os_address_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    return limit.rlim_cur;
}

size_t crn_os_resident(void) {
    char text[128];
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof(text) - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    unsigned long total = 0, resident = 0;
    if (sscanf(text, "%lu %lu", &total, &resident) != 2) return 0;
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- Time, threads, signals ------------------------------------------------------------------ */

unsigned crn_os_processor_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? (unsigned)count : 1;
}

uint64_t crn_os_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void crn_os_sleep_ns(uint64_t duration_ns) {
    const struct timespec duration = {.tv_sec = (time_t)(duration_ns / 1000000000u),
                                      .tv_nsec = (long)(duration_ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &duration, NULL);
}

int crn_os_thread_id(void) {
    return (int)syscall(SYS_gettid);
}
int crn_os_process_id(void) {
    return (int)getpid();
}

void crn_futex_wait(uint32_t *word, uint32_t value) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    errno = saved;
}

void crn_futex_wake(uint32_t *word, int count) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved;
}

bool crn_os_stack_bounds(char **low, char **high) {
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return false;
    void *base = NULL;
    size_t size = 0;
    int result = pthread_attr_getstack(&attributes, &base, &size);
    pthread_attr_destroy(&attributes);
    if (result != 0) return false;
    *low = base;
    *high = (char *)base + size;
    return true;
}

bool crn_os_signal_thread(int thread_id, int signal) {
    return syscall(SYS_tgkill, getpid(), thread_id, signal) == 0;
}

bool crn_os_on_signal(int signal, void (*handler)(int, siginfo_t *, void *),
                      struct sigaction *previous) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    sigdelset(&action.sa_mask, SIGSEGV);
    sigdelset(&action.sa_mask, SIGBUS);
    struct sigaction old;
    memset(&old, 0, sizeof(old));
    if (sigaction(signal, &action, &old) != 0) return false;
    /* The kernel's mask is shorter than libc's, and glibc fills the rest from its stack: stale
     * pointers to objects, in memory that is scanned. */
    memset(previous, 0, sizeof(*previous));
    previous->sa_flags = old.sa_flags;
    if (old.sa_flags & SA_SIGINFO)
        previous->sa_sigaction = old.sa_sigaction;
    else
        previous->sa_handler = old.sa_handler;
    for (int i = 1; i <= 64; i++) {
        if (sigismember(&old.sa_mask, i) == 1) sigaddset(&previous->sa_mask, i);
    }
    return true;
}

uintptr_t crn_os_context_stack_pointer(const void *context) {
    const ucontext_t *user = context;
#if defined(__x86_64__)
    return (uintptr_t)user->uc_mcontext.gregs[REG_RSP];
#else
    return (uintptr_t)user->uc_mcontext.sp;
#endif
}

uintptr_t crn_os_context_program_counter(const void *context) {
    const ucontext_t *user = context;
#if defined(__x86_64__)
    return (uintptr_t)user->uc_mcontext.gregs[REG_RIP];
#else
    return (uintptr_t)user->uc_mcontext.pc;
#endif
}

bool crn_os_context_is_write(const void *context) {
#if defined(__x86_64__)
    return (((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
    (void)context;
    return false;
#endif
}

struct start {
    void (*run)(void *argument);
    void *argument;
};

static void *start_thread(void *argument) {
    struct start start = *(struct start *)argument;
    crn_os_release(argument, sizeof(start));
    start.run(start.argument);
    return NULL;
}

bool crn_os_thread_start(void (*run)(void *argument), void *argument) {
    struct start *start = crn_os_map(sizeof(*start));
    if (!start) return false;
    *start = (struct start){run, argument};
    sigset_t all, saved;
    sigfillset(&all);
    sigdelset(&all, CRN_STOP_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pthread_t thread;
    int result = pthread_create(&thread, NULL, start_thread, start);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    if (result != 0) {
        crn_os_release(start, sizeof(*start));
        return false;
    }
    pthread_detach(thread);
    return true;
}

/* ---- Touched pages --------------------------------------------------------------------------- */

/* PAGEMAP_SCAN (Linux 6.7): the kernel skips empty page tables, so that a gigabyte of untouched
 * .bss costs microseconds. Declared here because the headers of the supported systems predate it.
 */
struct page_region {
    uint64_t start, end, categories;
};
struct page_scan {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t inverted, mask, any_of, return_mask;
};
enum { PAGE_PRESENT = 1 << 3, PAGE_SWAPPED = 1 << 4 };
#define PAGE_SCAN_REQUEST _IOWR('f', 16, struct page_scan)

static int pagemap_file = -1;
static int pagemap_owner;

static int pagemap(void) {
    if (pagemap_owner != getpid()) {
        pagemap_file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        pagemap_owner = getpid();
    }
    return pagemap_file;
}

static bool touched_by_scan(char *low, char *high,
                            void (*visit)(char *low, char *high, void *context), void *context) {
    struct page_region regions[32];
    uint64_t at = (uint64_t)(uintptr_t)low;
    while (at < (uint64_t)(uintptr_t)high) {
        struct page_scan scan = {.size = sizeof(scan),
                                 .start = at,
                                 .end = (uint64_t)(uintptr_t)high,
                                 .regions = (uint64_t)(uintptr_t)regions,
                                 .region_count = 32,
                                 .any_of = PAGE_PRESENT | PAGE_SWAPPED,
                                 .return_mask = PAGE_PRESENT | PAGE_SWAPPED};
        int count = ioctl(pagemap(), PAGE_SCAN_REQUEST, &scan);
        if (count < 0) return false;
        for (int i = 0; i < count; i++) {
            visit((char *)(uintptr_t)regions[i].start, (char *)(uintptr_t)regions[i].end, context);
        }
        if (scan.walk_end <= at) return count == 0;
        at = scan.walk_end;
    }
    return true;
}

static void touched_by_pagemap(char *low, char *high,
                               void (*visit)(char *low, char *high, void *context), void *context) {
    uint64_t entries[256];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (char *at = low; at < high;) {
        size_t count = crn_min((size_t)(high - at) / page, 256);
        ssize_t got = pread(pagemap(), entries, count * 8, (off_t)((uintptr_t)at / page * 8));
        for (size_t i = 0; i < count; i++, at += page) {
            bool is_known = got >= (ssize_t)((i + 1) * 8);
            if (is_known && (entries[i] >> 62) != 0) visit(at, at + page, context);
        }
    }
}

void crn_os_touched(char *low, char *high, void (*visit)(char *low, char *high, void *context),
                    void *context) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    low = (char *)((uintptr_t)low & ~(page - 1));
    high = (char *)crn_round_up((uintptr_t)high, page);
    if (pagemap() < 0) {
        visit(low, high, context);
    } else if (!touched_by_scan(low, high, visit, context)) {
        touched_by_pagemap(low, high, visit, context);
    }
}

/* ---- Loaded objects ---------------------------------------------------------------------------
 */

struct segment_visit {
    void (*visit)(char *low, char *high, void *context);
    void *context;
    bool is_thread_local;
};

static int visit_object(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    struct segment_visit *to = argument;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (to->is_thread_local) {
            if (header->p_type == PT_TLS && info->dlpi_tls_data) {
                char *low = info->dlpi_tls_data;
                to->visit(low, low + header->p_memsz, to->context);
            }
        } else if (header->p_type == PT_LOAD && (header->p_flags & PF_W)) {
            char *low = (char *)(uintptr_t)(info->dlpi_addr + header->p_vaddr);
            to->visit(low, low + header->p_memsz, to->context);
        }
    }
    return 0;
}

void crn_os_data_segments(void (*visit)(char *low, char *high, void *context), void *context) {
    struct segment_visit to = {visit, context, false};
    dl_iterate_phdr(visit_object, &to);
}

void crn_os_thread_locals(void (*visit)(char *low, char *high, void *context), void *context) {
    struct segment_visit to = {visit, context, true};
    dl_iterate_phdr(visit_object, &to);
}
