/* SPDX-License-Identifier: MIT
 *
 * Functions of libc that Cairn stands in front of, so that programs need not tell it what they do.
 *
 * pthread_create: a thread is known before its first line runs, its argument is a root until then,
 * so a thread that never allocates may still hold the only pointer to an object. Calls that may
 * wait are bracketed by cairn_blocking_begin and _end: the thread is scanned where it stands and
 * never sees EINTR from us.
 *
 * Before Cairn's first call each is a plain call. Sanitizers have interceptors of their own, so
 * there nothing is interposed: threads register at their first slow path, and waiting ones get the
 * signal.
 */
#define _GNU_SOURCE
#include "object/object.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CRN_INTERPOSE 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define CRN_INTERPOSE 0
#endif
#endif
#ifndef CRN_INTERPOSE
#define CRN_INTERPOSE 1
#endif

#if CRN_INTERPOSE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if CRN_WRAP
#include "wrap.h" /* generated: each NAME below becomes __wrap_NAME */
#define REAL(name) REAL2(name)
#define REAL2(name) CRN_REAL_##name
#define NEXT(name)                                                                                 \
    extern __typeof__(name) REAL(name);                                                            \
    __typeof__(name) *call = REAL(name);
#else
/* The next definition of a name, looked up once; racing look-ups find the same. */
#define NEXT(name)                                                                                 \
    static __typeof__(name) *next_call;                                                            \
    __typeof__(name) *call = __atomic_load_n(&next_call, __ATOMIC_RELAXED);                        \
    if (CRN_UNLIKELY(!call)) {                                                                     \
        *(void **)&call = dlsym(RTLD_NEXT, #name);                                                 \
        CAIRN_REQUIRE(call, "libc has no %s", #name);                                              \
        __atomic_store_n(&next_call, call, __ATOMIC_RELAXED);                                      \
    }
#endif

#define INTERPOSE_WAIT(type, name, parameters, arguments)                                          \
    CAIRN_API type name parameters;                                                                \
    CAIRN_API type name parameters {                                                               \
        NEXT(name)                                                                                 \
        cairn_blocking_begin();                                                                    \
        type outcome = call arguments;                                                             \
        int saved_errno = errno;                                                                   \
        cairn_blocking_end();                                                                      \
        errno = saved_errno;                                                                       \
        return outcome;                                                                            \
    }

INTERPOSE_WAIT(int, poll, (struct pollfd * fds, nfds_t count, int timeout), (fds, count, timeout))
INTERPOSE_WAIT(int, ppoll,
               (struct pollfd * fds, nfds_t count, const struct timespec *timeout,
                const sigset_t *mask),
               (fds, count, timeout, mask))
INTERPOSE_WAIT(int, select, (int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout),
               (n, r, w, e, timeout))
INTERPOSE_WAIT(int, epoll_wait, (int file, struct epoll_event *events, int count, int timeout),
               (file, events, count, timeout))
INTERPOSE_WAIT(int, nanosleep, (const struct timespec *wanted, struct timespec *left),
               (wanted, left))
INTERPOSE_WAIT(int, clock_nanosleep,
               (clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left),
               (clock, flags, wanted, left))
INTERPOSE_WAIT(int, usleep, (useconds_t time), (time))
INTERPOSE_WAIT(unsigned, sleep, (unsigned time), (time))
INTERPOSE_WAIT(int, pause, (void), ())
INTERPOSE_WAIT(ssize_t, read, (int file, void *buffer, size_t bytes), (file, buffer, bytes))
INTERPOSE_WAIT(pid_t, waitpid, (pid_t child, int *status, int options), (child, status, options))
INTERPOSE_WAIT(int, pthread_cond_wait, (pthread_cond_t * condition, pthread_mutex_t *mutex),
               (condition, mutex))
INTERPOSE_WAIT(int, pthread_cond_timedwait,
               (pthread_cond_t * condition, pthread_mutex_t *mutex, const struct timespec *until),
               (condition, mutex, until))
INTERPOSE_WAIT(int, pthread_join, (pthread_t thread, void **result), (thread, result))
INTERPOSE_WAIT(int, sem_wait, (sem_t * semaphore), (semaphore))

struct begin {
    void *(*run)(void *argument);
    void *argument;
};

/* In a section like every use of the runtime's locks: nobody is stopped with one. */
static void discard(struct begin *record) {
    crn_enter();
    crn_meta_free(record, sizeof(*record));
    crn_leave();
}

static void *begin_thread(void *record) {
    struct begin begin = *(struct begin *)record;
    cairn_status status = cairn_thread_register();
    CAIRN_REQUIRE(status == CAIRN_OK, "out of memory: cannot register a thread");
    cairn_root_remove(record);
    discard(record);
    return begin.run(begin.argument);
}

CAIRN_API int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                             void *(*run)(void *argument), void *argument) {
    NEXT(pthread_create)
    if (!crn_default_heap) return call(thread, attributes, run, argument);
    crn_enter();
    struct begin *record = crn_meta_alloc(sizeof(*record));
    if (record) *record = (struct begin){run, argument};
    crn_leave();
    if (!record) return EAGAIN;
    if (cairn_root_add(record, sizeof(*record)) != CAIRN_OK) {
        discard(record);
        return EAGAIN;
    }
    int result = call(thread, attributes, begin_thread, record);
    if (result != 0) {
        cairn_root_remove(record);
        discard(record);
    }
    return result;
}
#endif
