/* SPDX-License-Identifier: MIT
 *
 * Calls that may wait, each within cairn_blocking_begin and _end: the thread is scanned where it
 * stands and never sees EINTR from us (stop.c says why).
 *
 * Most are cancellation points. A thread that is cancelled in one runs the cleanup handlers of the
 * program, which may use objects; so the innermost handler is ours and ends the wait. It costs what
 * pthread_cleanup_push costs, which works without unwind tables and on every C library.
 *
 * A mutex that is free is taken without all that.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE /* would define some of these inline */
#include "gc/interpose.h"

#if CRN_INTERPOSE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static void end_wait(void *unused) {
    (void)unused;
    cairn_blocking_end();
}

/* A thread that Cairn does not know has nothing to be scanned. Within the runtime nothing is
 * bracketed: the coordinator itself must not wait for the end of its stop. */
static bool is_to_be_told(void) {
    return crn_self() && !cairn_thread.no_stop && !crn_settings.is_passive;
}

#define WAIT(type, outcome, call)                                                                  \
    type outcome;                                                                                  \
    if (!is_to_be_told()) {                                                                        \
        outcome = call;                                                                            \
    } else {                                                                                       \
        int saved_errno;                                                                           \
        cairn_blocking_begin();                                                                    \
        pthread_cleanup_push(end_wait, NULL);                                                      \
        outcome = call;                                                                            \
        saved_errno = errno;                                                                       \
        pthread_cleanup_pop(1);                                                                    \
        errno = saved_errno;                                                                       \
    }

#define INTERPOSE_WAIT(type, name, parameters, arguments)                                          \
    INTERPOSE(type, name, parameters) {                                                            \
        NEXT(name)                                                                                 \
        WAIT(type, outcome, call arguments)                                                        \
        return outcome;                                                                            \
    }

/* ---- Files and sockets ------------------------------------------------------------------------
 */

INTERPOSE_WAIT(ssize_t, read, (int file, void *buffer, size_t bytes), (file, buffer, bytes))
INTERPOSE_WAIT(ssize_t, write, (int file, const void *buffer, size_t bytes), (file, buffer, bytes))
INTERPOSE_WAIT(ssize_t, readv, (int file, const struct iovec *parts, int count),
               (file, parts, count))
INTERPOSE_WAIT(ssize_t, writev, (int file, const struct iovec *parts, int count),
               (file, parts, count))
INTERPOSE_WAIT(ssize_t, pread, (int file, void *buffer, size_t bytes, off_t offset),
               (file, buffer, bytes, offset))
INTERPOSE_WAIT(ssize_t, pwrite, (int file, const void *buffer, size_t bytes, off_t offset),
               (file, buffer, bytes, offset))
INTERPOSE_WAIT(ssize_t, recv, (int file, void *buffer, size_t bytes, int flags),
               (file, buffer, bytes, flags))
INTERPOSE_WAIT(ssize_t, recvfrom,
               (int file, void *restrict buffer, size_t bytes, int flags,
                struct sockaddr *restrict from, socklen_t *restrict length),
               (file, buffer, bytes, flags, from, length))
INTERPOSE_WAIT(ssize_t, recvmsg, (int file, struct msghdr *message, int flags),
               (file, message, flags))
INTERPOSE_WAIT(ssize_t, send, (int file, const void *buffer, size_t bytes, int flags),
               (file, buffer, bytes, flags))
INTERPOSE_WAIT(ssize_t, sendto,
               (int file, const void *buffer, size_t bytes, int flags, const struct sockaddr *to,
                socklen_t length),
               (file, buffer, bytes, flags, to, length))
INTERPOSE_WAIT(ssize_t, sendmsg, (int file, const struct msghdr *message, int flags),
               (file, message, flags))
INTERPOSE_WAIT(int, accept, (int file, struct sockaddr *restrict from, socklen_t *restrict length),
               (file, from, length))
INTERPOSE_WAIT(int, accept4,
               (int file, struct sockaddr *restrict from, socklen_t *restrict length, int flags),
               (file, from, length, flags))
INTERPOSE_WAIT(int, connect, (int file, const struct sockaddr *to, socklen_t length),
               (file, to, length))
INTERPOSE_WAIT(int, flock, (int file, int operation), (file, operation))

/* Only the locks wait; the third argument is a pointer or a number that fits one. */
#define INTERPOSE_FCNTL(name)                                                                      \
    INTERPOSE(int, name, (int file, int command, ...)) {                                           \
        NEXT(name)                                                                                 \
        va_list arguments;                                                                         \
        va_start(arguments, command);                                                              \
        void *third = va_arg(arguments, void *);                                                   \
        va_end(arguments);                                                                         \
        if (command != F_SETLKW && command != F_OFD_SETLKW) return call(file, command, third);     \
        WAIT(int, outcome, call(file, command, third))                                             \
        return outcome;                                                                            \
    }
INTERPOSE_FCNTL(fcntl)
#if defined(__GLIBC__)
INTERPOSE_FCNTL(fcntl64)
INTERPOSE_WAIT(ssize_t, pread64, (int file, void *buffer, size_t bytes, off64_t offset),
               (file, buffer, bytes, offset))
INTERPOSE_WAIT(ssize_t, pwrite64, (int file, const void *buffer, size_t bytes, off64_t offset),
               (file, buffer, bytes, offset))
#endif

#if defined(__GLIBC__)
/* What programs built with _FORTIFY_SOURCE call. */
INTERPOSE_WAIT(ssize_t, __read_chk, (int file, void *buffer, size_t bytes, size_t room),
               (file, buffer, bytes, room))
INTERPOSE_WAIT(ssize_t, __recv_chk, (int file, void *buffer, size_t bytes, size_t room, int flags),
               (file, buffer, bytes, room, flags))
INTERPOSE_WAIT(int, __poll_chk, (struct pollfd * fds, nfds_t count, int timeout, size_t room),
               (fds, count, timeout, room))
INTERPOSE_WAIT(int, __ppoll_chk,
               (struct pollfd * fds, nfds_t count, const struct timespec *timeout,
                const sigset_t *mask, size_t room),
               (fds, count, timeout, mask, room))
#endif
INTERPOSE_WAIT(int, poll, (struct pollfd * fds, nfds_t count, int timeout), (fds, count, timeout))
INTERPOSE_WAIT(int, ppoll,
               (struct pollfd * fds, nfds_t count, const struct timespec *timeout,
                const sigset_t *mask),
               (fds, count, timeout, mask))
INTERPOSE_WAIT(int, select,
               (int n, fd_set *restrict r, fd_set *restrict w, fd_set *restrict e,
                struct timeval *restrict timeout),
               (n, r, w, e, timeout))
INTERPOSE_WAIT(int, pselect,
               (int n, fd_set *restrict r, fd_set *restrict w, fd_set *restrict e,
                const struct timespec *restrict timeout, const sigset_t *restrict mask),
               (n, r, w, e, timeout, mask))
INTERPOSE_WAIT(int, epoll_wait, (int file, struct epoll_event *events, int count, int timeout),
               (file, events, count, timeout))
INTERPOSE_WAIT(int, epoll_pwait,
               (int file, struct epoll_event *events, int count, int timeout, const sigset_t *mask),
               (file, events, count, timeout, mask))

/* ---- Time, signals, processes -----------------------------------------------------------------
 */

INTERPOSE_WAIT(int, nanosleep, (const struct timespec *wanted, struct timespec *left),
               (wanted, left))
INTERPOSE_WAIT(int, clock_nanosleep,
               (clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left),
               (clock, flags, wanted, left))
INTERPOSE_WAIT(int, thrd_sleep, (const struct timespec *wanted, struct timespec *left),
               (wanted, left))
INTERPOSE_WAIT(int, usleep, (useconds_t time), (time))
INTERPOSE_WAIT(unsigned, sleep, (unsigned time), (time))
INTERPOSE_WAIT(int, pause, (void), ())
INTERPOSE_WAIT(int, sigsuspend, (const sigset_t *mask), (mask))
INTERPOSE_WAIT(int, sigwait, (const sigset_t *restrict set, int *restrict signal), (set, signal))
INTERPOSE_WAIT(int, sigwaitinfo, (const sigset_t *restrict set, siginfo_t *restrict info),
               (set, info))
INTERPOSE_WAIT(int, sigtimedwait,
               (const sigset_t *restrict set, siginfo_t *restrict info,
                const struct timespec *restrict timeout),
               (set, info, timeout))
INTERPOSE_WAIT(pid_t, wait, (int *status), (status))
INTERPOSE_WAIT(pid_t, waitpid, (pid_t child, int *status, int options), (child, status, options))
INTERPOSE_WAIT(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options),
               (type, id, info, options))
INTERPOSE_WAIT(pid_t, wait3, (int *status, int options, struct rusage *usage),
               (status, options, usage))
INTERPOSE_WAIT(pid_t, wait4, (pid_t child, int *status, int options, struct rusage *usage),
               (child, status, options, usage))

/* ---- Messages and semaphores ------------------------------------------------------------------
 */

INTERPOSE_WAIT(ssize_t, msgrcv, (int id, void *message, size_t bytes, long type, int flags),
               (id, message, bytes, type, flags))
INTERPOSE_WAIT(int, msgsnd, (int id, const void *message, size_t bytes, int flags),
               (id, message, bytes, flags))
INTERPOSE_WAIT(int, semop, (int id, struct sembuf *operations, size_t count),
               (id, operations, count))
#if defined(__GLIBC__)
INTERPOSE_WAIT(int, semtimedop,
               (int id, struct sembuf *operations, size_t count, const struct timespec *timeout),
               (id, operations, count, timeout))
#endif
INTERPOSE_WAIT(ssize_t, mq_receive, (mqd_t queue, char *message, size_t bytes, unsigned *priority),
               (queue, message, bytes, priority))
INTERPOSE_WAIT(ssize_t, mq_timedreceive,
               (mqd_t queue, char *restrict message, size_t bytes, unsigned *restrict priority,
                const struct timespec *restrict until),
               (queue, message, bytes, priority, until))
INTERPOSE_WAIT(int, mq_send, (mqd_t queue, const char *message, size_t bytes, unsigned priority),
               (queue, message, bytes, priority))
INTERPOSE_WAIT(int, mq_timedsend,
               (mqd_t queue, const char *message, size_t bytes, unsigned priority,
                const struct timespec *until),
               (queue, message, bytes, priority, until))
INTERPOSE_WAIT(int, sem_wait, (sem_t * semaphore), (semaphore))
INTERPOSE_WAIT(int, sem_timedwait,
               (sem_t *restrict semaphore, const struct timespec *restrict until),
               (semaphore, until))

/* ---- Threads ----------------------------------------------------------------------------------
 */

INTERPOSE_WAIT(int, pthread_cond_wait,
               (pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex),
               (condition, mutex))
INTERPOSE_WAIT(int, pthread_cond_timedwait,
               (pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                const struct timespec *restrict until),
               (condition, mutex, until))
INTERPOSE_WAIT(int, pthread_barrier_wait, (pthread_barrier_t * barrier), (barrier))
INTERPOSE_WAIT(int, cnd_wait, (cnd_t * condition, mtx_t *mutex), (condition, mutex))
INTERPOSE_WAIT(int, cnd_timedwait,
               (cnd_t *restrict condition, mtx_t *restrict mutex,
                const struct timespec *restrict until),
               (condition, mutex, until))
#if defined(__GLIBC__)
INTERPOSE_WAIT(int, sem_clockwait,
               (sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until),
               (semaphore, clock, until))
INTERPOSE_WAIT(int, pthread_cond_clockwait,
               (pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                clockid_t clock, const struct timespec *restrict until),
               (condition, mutex, clock, until))
#endif

/* Tries first: whatever is not "busy" is what the call itself would say. */
#define INTERPOSE_LOCK(name, try, parameters, first, arguments)                                    \
    INTERPOSE(int, name, parameters) {                                                             \
        if (is_to_be_told()) {                                                                     \
            int tried = try(first);                                                                \
            if (tried != EBUSY) return tried;                                                      \
        }                                                                                          \
        NEXT(name)                                                                                 \
        WAIT(int, outcome, call arguments)                                                         \
        return outcome;                                                                            \
    }
INTERPOSE_LOCK(pthread_mutex_lock, pthread_mutex_trylock, (pthread_mutex_t * mutex), mutex, (mutex))
INTERPOSE_LOCK(pthread_mutex_timedlock, pthread_mutex_trylock,
               (pthread_mutex_t *restrict mutex, const struct timespec *restrict until), mutex,
               (mutex, until))
INTERPOSE_LOCK(pthread_rwlock_rdlock, pthread_rwlock_tryrdlock, (pthread_rwlock_t * lock), lock,
               (lock))
INTERPOSE_LOCK(pthread_rwlock_wrlock, pthread_rwlock_trywrlock, (pthread_rwlock_t * lock), lock,
               (lock))
#endif
