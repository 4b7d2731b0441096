/* SPDX-License-Identifier: MIT
 *
 * Linux, x86-64 and aarch64, glibc and musl: address space, time, threads, signals. pages.c knows
 * touched pages, loaded.c loaded objects.
 */
#define _GNU_SOURCE
#include "os/os.h"
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- Address space -------------------------------------------------------------------------- */

static void *map(size_t bytes, int protection) {
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
    return mprotect(address, bytes, PROT_READ | PROT_WRITE) == 0;
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

int crn_os_stop_signal = SIGURG;

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
    return sigaction(signal, &action, previous) == 0;
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
