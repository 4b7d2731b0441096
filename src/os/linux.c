/* SPDX-License-Identifier: MIT
 *
 * Linux, x86-64 and aarch64, glibc and musl: address space, time, threads, signals. pages.c knows
 * touched pages, loaded.c loaded objects.
 */
#define _GNU_SOURCE
#include "os/os.h"
#include "base/lock.h"
#include "os/checker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- Address space -------------------------------------------------------------------------- */

static uint64_t fail_at, requests; /* atomic */

void crn_os_fail_at(uint64_t request) {
    __atomic_store_n(&requests, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&fail_at, request, __ATOMIC_RELAXED);
}

bool crn_os_should_fail(void) {
    uint64_t at = __atomic_load_n(&fail_at, __ATOMIC_RELAXED);
    return CRN_UNLIKELY(at) && __atomic_add_fetch(&requests, 1, __ATOMIC_RELAXED) == at;
}

bool crn_os_has_failed(void) {
    uint64_t at = __atomic_load_n(&fail_at, __ATOMIC_RELAXED);
    return at && __atomic_load_n(&requests, __ATOMIC_RELAXED) >= at;
}

static void *map(size_t bytes, int protection) {
    if (crn_os_should_fail()) return NULL;
    void *at = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return NULL;
    madvise(at, bytes, MADV_NOHUGEPAGE);
    return at;
}

void *crn_os_reserve(size_t bytes, size_t align) {
    char *at = map(bytes + align, PROT_NONE);
    if (!at) return NULL;
    char *aligned = (char *)crn_round_up((uintptr_t)at, align);
    if (aligned > at) munmap(at, (size_t)(aligned - at));
    munmap(aligned + bytes, (size_t)(at + align - aligned));
    crn_os_set_dumped(aligned, bytes, false);
    return aligned;
}

void *crn_os_reserve_zero(size_t bytes) {
    void *at = map(bytes, PROT_READ);
    if (at) crn_os_set_dumped(at, bytes, false);
    return at;
}

void *crn_os_map(size_t bytes) {
    return map(bytes, PROT_READ | PROT_WRITE);
}

void *crn_os_map_room(size_t bytes) {
    void *at = crn_os_map(bytes);
    if (at) crn_os_set_dumped(at, bytes, false);
    return at;
}

void crn_os_set_dumped(void *address, size_t bytes, bool is_dumped) {
    madvise(address, bytes, is_dumped ? MADV_DODUMP : MADV_DONTDUMP);
}

bool crn_os_commit(void *address, size_t bytes) {
    return !crn_os_should_fail() && mprotect(address, bytes, PROT_READ | PROT_WRITE) == 0;
}

void crn_os_decommit(void *address, size_t bytes) {
    madvise(address, bytes, MADV_DONTNEED);
    mprotect(address, bytes, PROT_NONE);
}

void crn_os_protect(void *address, size_t bytes) {
    mprotect(address, bytes, PROT_NONE);
}

bool crn_os_is_privileged(void) {
    return getauxval(AT_SECURE) != 0;
}

size_t crn_os_page_bytes(void) {
    static size_t bytes; /* atomic */
    size_t known = __atomic_load_n(&bytes, __ATOMIC_RELAXED);
    if (known) return known;
    known = (size_t)sysconf(_SC_PAGESIZE);
    __atomic_store_n(&bytes, known, __ATOMIC_RELAXED);
    return known;
}

size_t crn_os_mappings_max(void) {
    char text[32] = "";
    size_t most = 65530; /* where the system does not say */
    int file = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    if (file < 0) return most;
    ssize_t length = read(file, text, sizeof(text) - 1);
    close(file);
    if (length > 0) sscanf(text, "%zu", &most);
    return most;
}

size_t crn_os_mappings_now(void) {
    char text[4096];
    size_t lines = 0;
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    for (long got; (got = syscall(SYS_read, file, text, sizeof(text))) > 0;) {
        for (long i = 0; i < got; i++) lines += text[i] == '\n';
    }
    syscall(SYS_close, file);
    return lines;
}

void crn_os_purge(void *address, size_t bytes) {
    madvise(address, bytes, MADV_DONTNEED);
}
void crn_os_release(void *address, size_t bytes) {
    munmap(address, bytes);
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Whatever goes wrong is told when the memory is written. */
void crn_os_populate(void *address, size_t bytes) {
    static bool is_unknown; /* atomic; to this kernel */
    if (__atomic_load_n(&is_unknown, __ATOMIC_RELAXED)) return;
    int saved = errno;
    size_t within = (uintptr_t)address & (crn_os_page_bytes() - 1);
    if (madvise((char *)address - within, bytes + within, MADV_POPULATE_WRITE) != 0 &&
        errno == EINVAL) {
        __atomic_store_n(&is_unknown, true, __ATOMIC_RELAXED);
    }
    errno = saved;
}

/* Small pages unless said otherwise, for the tables and worklists are touched here and there, and
 * blocks of rare types too: an empty program would take 5 MiB more where the system uses huge pages
 * always. */
enum huge_pages { NOT_SAID, UNWANTED, WANTED };
static enum huge_pages huge_pages; /* atomic */

/* An allocation asks, with a lock perhaps: no point of cancellation may be in here. Who cannot ask
 * for want of a descriptor may ask again. */
static enum huge_pages ask_system(void) {
    char text[64] = "";
    int saved = errno;
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/sys/kernel/mm/transparent_hugepage/enabled",
                            O_RDONLY | O_CLOEXEC);
    bool is_later = file < 0 && (errno == EMFILE || errno == ENFILE);
    if (file >= 0) syscall(SYS_read, file, text, sizeof(text) - 1);
    if (file >= 0) syscall(SYS_close, file);
    errno = saved;
    return is_later ? NOT_SAID : strstr(text, "[always]") ? WANTED : UNWANTED;
}

bool crn_os_huge_pages_are_usual(void) {
    return ask_system() == WANTED;
}

void crn_os_use_huge_pages(bool use) {
    __atomic_store_n(&huge_pages, use ? WANTED : UNWANTED, __ATOMIC_RELAXED);
}

void crn_os_huge(void *address, size_t bytes) {
    enum huge_pages wish = __atomic_load_n(&huge_pages, __ATOMIC_RELAXED);
    if (wish == NOT_SAID) {
        wish = ask_system();
        __atomic_store_n(&huge_pages, wish, __ATOMIC_RELAXED);
    }
    if (wish == WANTED) madvise(address, bytes, MADV_HUGEPAGE);
}

/* Every program that is compiled for it calls this. */
extern void __tsan_init(void) __attribute__((weak));
bool crn_os_has_thread_sanitizer(void) {
    return __tsan_init != NULL;
}

/* Valgrind has some terabytes for the program and itself, keeps notes of all that is mapped, and
 * looks through it for leaks at the end. */
#define VALGRIND_ADDRESS_LIMIT CRN_GIB(4)

size_t crn_os_address_limit(void) {
    if (crn_checker_is_valgrind) return VALGRIND_ADDRESS_LIMIT;
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

int crn_os_stop_signal = SIGURG;

/* Valgrind runs one thread at a time. */
unsigned crn_os_processor_count(void) {
    cpu_set_t set;
    if (crn_checker_is_valgrind) return 1;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? (unsigned)count : 1;
}

uint64_t crn_os_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t crn_os_now_coarse_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
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

/* Of <linux/futex.h>, which musl's compiler does not find. */
enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129 };

void crn_futex_wait(uint32_t *word, uint32_t value) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    errno = saved;
}

void crn_os_futex_wait_for(uint32_t *word, uint32_t value, uint64_t ns) {
    int saved = errno;
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &time, NULL, 0);
    errno = saved;
}

void crn_futex_wake(uint32_t *word, int count) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved;
}

/* musl names as much of the main stack as is mapped by now, and it grows; and it keeps a thread's
 * specific values above its stack, in the same mapping, whose end they share. The record that
 * pthread_self names lies below them, so the page that holds its address plus their size is mapped.
 */
#if defined(__GLIBC__)
static void adjust_stack_bounds(char **low, char **high) {
    (void)low, (void)high;
}
#else
static void adjust_stack_bounds(char **low, char **high) {
    struct rlimit limit;
    if (crn_os_thread_id() == crn_os_process_id()) {
        size_t most = CRN_GIB(1);
        if (getrlimit(RLIMIT_STACK, &limit) == 0) most = crn_min(most, limit.rlim_cur);
        *low = crn_min(most, (uintptr_t)*high) == most ? *high - most : *low;
        return;
    }
    size_t values = PTHREAD_KEYS_MAX * sizeof(void *);
    uintptr_t end = crn_round_up((uintptr_t)pthread_self() + values, (size_t)getpagesize());
    if (end > (uintptr_t)*high) *high = (char *)end;
}
#endif

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
    adjust_stack_bounds(low, high);
    return true;
}

bool crn_os_signal_thread(int thread_id, int signal) {
    int saved = errno;
    bool is_gone = syscall(SYS_tgkill, getpid(), thread_id, signal) != 0 && errno == ESRCH;
    errno = saved;
    return !is_gone;
}

bool crn_os_signal_is_from_us(const siginfo_t *info) {
    return info->si_code == SI_TKILL && info->si_pid == getpid();
}

/* Where the alternate signal stack that this code runs on ends; NULL if it runs on none. */
char *crn_os_alternate_stack_end(void) {
    stack_t stack;
    if (syscall(SYS_sigaltstack, NULL, &stack) != 0 || !(stack.ss_flags & SS_ONSTACK)) return NULL;
    return (char *)stack.ss_sp + stack.ss_size;
}

char *crn_os_context_alternate_stack_end(const void *context) {
    const stack_t *stack = &((const ucontext_t *)context)->uc_stack;
    return stack->ss_sp ? (char *)stack->ss_sp + stack->ss_size : NULL;
}

void crn_os_admit_stop_signal(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, crn_os_stop_signal);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
#if CAIRN_TSAN_
    /* ThreadSanitizer makes its record of a thread's signals at the thread's first call of this
     * kind or its first signal, and loses the signal that comes meanwhile (GCC 12). So make it now.
     */
    pthread_kill(pthread_self(), 0);
#endif
}

bool crn_os_signal_may_stop(int signal) {
    static const int taken[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL,
                                SIGFPE,  SIGTRAP, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof(taken) / sizeof(*taken); i++) {
        if (signal == taken[i]) return false;
    }
    /* libc keeps those between the last classic one and SIGRTMIN for itself. */
    return signal >= 1 && signal <= SIGRTMAX && !(signal > 31 && signal < SIGRTMIN);
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

#if defined(__x86_64__)
bool crn_os_context_is_write(const void *context) {
    return (((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
}
#elif defined(__aarch64__)
/* The kernel appends records to the context, each with its kind and size; one holds the exception
 * syndrome, whose bit 6 says "write" for a data abort. */
enum { RECORD_SYNDROME = 0x45535201, SYNDROME_WRITE = 1 << 6 };
struct record {
    uint32_t kind, bytes;
};

static bool find_syndrome(const ucontext_t *user, uint64_t *syndrome) {
    const unsigned char *records = user->uc_mcontext.__reserved;
    for (size_t at = 0; at + sizeof(struct record) <= sizeof(user->uc_mcontext.__reserved);) {
        struct record record;
        memcpy(&record, records + at, sizeof(record));
        if (record.kind == RECORD_SYNDROME) {
            memcpy(syndrome, records + at + sizeof(record), sizeof(*syndrome));
            return true;
        }
        if (record.kind == 0 || record.bytes < sizeof(record)) return false;
        at += record.bytes;
    }
    return false;
}

/* Emulators leave the record out; then the instruction tells. Among loads and stores bits 29 to 27
 * name the group, and bit 22, or bits 23 and 22, the direction. */
static bool is_store_instruction(uint32_t code) {
    bool is_vector = (code >> 26) & 1;
    uint32_t direction = (code >> 22) & 3;
    if ((code & 0xffffffe0u) == 0xd50b7420u) return true; /* dc zva clears a line */
    if ((code & 0x0a000000u) != 0x08000000u) return false;
    switch ((code >> 27) & 7) {
    case 1: /* exclusive, ordered, compare and swap; vector structures */
        if (!is_vector && (code & 0x00a00000u) == 0x00a00000u) return true;
        return (direction & 1) == 0;
    case 3: /* literals load; unscaled ordered ones have a direction */
        return (code >> 24 & 1) && direction == 0;
    case 5: /* pairs */
        return (direction & 1) == 0;
    default: /* one register; atomic ones have bit 21 and nothing in bits 11 and 10 */
        if (!is_vector && (code & 0x01200c00u) == 0x00200000u) return true;
        return direction == 0 || (is_vector && direction == 2 && code >> 30 == 0);
    }
}

bool crn_os_context_is_write(const void *context) {
    uint64_t syndrome;
    if (find_syndrome(context, &syndrome)) return (syndrome & SYNDROME_WRITE) != 0;
    uint32_t code;
    memcpy(&code, (const void *)crn_os_context_program_counter(context), sizeof(code));
    return is_store_instruction(code);
}
#endif

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
    sigdelset(&all, crn_os_stop_signal);
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
