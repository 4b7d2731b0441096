/* SPDX-License-Identifier: MIT
 *
 * Calls by which threads hand things to each other, keep things for themselves, and choose their
 * signals.
 *
 * A thread is known before its first line runs. Its argument is a root until the thread has it, its
 * result from its last line until it is joined: object/handover.c. Values of pthread_setspecific
 * are copied where they are scanned: libc keeps most of them in memory from malloc. The copy is
 * made with stops held off, after libc has accepted the value and before the program goes on, so
 * the value is still on the caller's stack if a stop comes first. A destructor gets its value as an
 * argument; the copy goes with the thread or with the key.
 *
 * The stop signal stays out of masks, those of handlers included, and its action stays ours: the
 * program's is kept and gets what is not ours.
 */
#define _GNU_SOURCE
#include "gc/interpose.h"

#if CRN_INTERPOSE
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <threads.h>

/* Else the sanitizer's function has called ours, which must not call it again. */
static bool stands_first(const char *name) {
    Dl_info first, own;
    const void *found = dlsym(RTLD_DEFAULT, name);
    return found && dladdr(found, &first) && dladdr((void *)(uintptr_t)stands_first, &own) &&
           first.dli_fbase == own.dli_fbase;
}

static void *look_up(const char *name, void *of_sanitizer) {
    if (of_sanitizer && stands_first(name)) return of_sanitizer;
    void *call = NULL;
#if defined(__x86_64__) && defined(__GLIBC__)
    /* Not for others: a failure would be there for the program's dlerror, and it would allocate. */
    if (strncmp(name, "pthread_cond_", 13) == 0) call = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
#endif
    if (!call) call = dlsym(RTLD_NEXT, name);
    CAIRN_REQUIRE(call,
                  "no %s behind Cairn's own\n"
                  "  what: a program without a dynamic linker, or a libc that lacks it\n"
                  "  next step: link without -static, or to a Cairn configured with "
                  "-DCAIRN_INTERPOSE=OFF",
                  name);
    return call;
}

/* Racing look-ups find the same. */
CRN_NOINLINE void *crn_next_definition(void **found, const char *name, void *of_sanitizer) {
    void *call = __atomic_load_n(found, __ATOMIC_RELAXED);
    if (CRN_UNLIKELY(!call)) {
        call = look_up(name, of_sanitizer);
        __atomic_store_n(found, call, __ATOMIC_RELAXED);
    }
    return call;
}

/* ---- Making and ending ------------------------------------------------------------------------
 */

static struct crn_given begin(void *handover) {
    struct crn_thread **record = crn_handover_record(handover);
    cairn_section_enter_();
    if (crn_self()) {
        crn_thread_free(*record);
        *record = NULL;
    } else {
        CAIRN_REQUIRE(crn_thread_attach(record), "out of memory: cannot register a thread");
    }
    crn_thread_skip_descriptor();
    struct crn_given given = crn_handover_begin(handover, (uintptr_t)pthread_self());
    cairn_section_leave_();
    return given;
}

static void *begin_thread(void *handover) {
    struct crn_given given = begin(handover);
    void *result = given.run(given.argument);
    crn_handover_leave(result);
    return result;
}

/* The result of a C11 thread is a number. */
static int begin_c11_thread(void *handover) {
    struct crn_given given = begin(handover);
    return ((thrd_start_t)(void (*)(void))given.run)(given.argument);
}

static struct crn_handover *make(struct crn_given given, bool is_detached) {
    crn_enter();
    struct crn_handover *handover = crn_handover_make(given, is_detached);
    crn_leave();
    return handover;
}

static void made(struct crn_handover *handover, bool is_done, uintptr_t thread) {
    crn_enter();
    if (is_done)
        crn_handover_name(handover, thread);
    else
        crn_handover_drop(handover);
    crn_leave();
}

INTERPOSE(int, pthread_create,
          (pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
           void *(*run)(void *argument), void *restrict argument)) {
    NEXT(pthread_create)
    if (!crn_is_interposing()) return call(thread, attributes, run, argument);
    int state = PTHREAD_CREATE_JOINABLE;
    if (attributes) pthread_attr_getdetachstate(attributes, &state);
    struct crn_handover *handover =
        make((struct crn_given){run, argument}, state == PTHREAD_CREATE_DETACHED);
    if (!handover) return EAGAIN;
    int result = call(thread, attributes, begin_thread, handover);
    made(handover, result == 0, result == 0 ? (uintptr_t)*thread : 0);
    return result;
}

INTERPOSE(int, thrd_create, (thrd_t * thread, thrd_start_t run, void *argument)) {
    NEXT(thrd_create)
    if (!crn_is_interposing()) return call(thread, run, argument);
    struct crn_given given = {(void *(*)(void *))(void (*)(void))run, argument};
    struct crn_handover *handover = make(given, true);
    if (!handover) return thrd_nomem;
    int result = call(thread, begin_c11_thread, handover);
    made(handover, result == thrd_success, 0);
    return result;
}

INTERPOSE(void, pthread_exit, (void *result)) {
    NEXT(pthread_exit)
    crn_handover_leave(result);
    call(result);
    __builtin_unreachable();
}

INTERPOSE(int, pthread_detach, (pthread_t thread)) {
    NEXT(pthread_detach)
    if (crn_is_interposing()) {
        crn_enter();
        crn_handover_detach((uintptr_t)thread);
        crn_leave();
    }
    return call(thread);
}

/* ---- Joining ----------------------------------------------------------------------------------
 */

struct joining {
    struct crn_handover *handover;
    bool is_over;
};

static struct joining join_begins(pthread_t thread) {
    struct joining joining = {NULL, false};
    if (!crn_is_interposing()) return joining;
    crn_enter();
    joining.handover = crn_handover_join((uintptr_t)thread);
    crn_leave();
    cairn_blocking_begin();
    return joining;
}

/* The cleanup handler of a joiner that is cancelled, too. */
static void join_ends(void *argument) {
    struct joining *joining = argument;
    if (!crn_is_interposing()) return;
    cairn_blocking_end();
    crn_enter();
    crn_handover_joined(joining->handover, joining->is_over);
    crn_leave();
}

#define INTERPOSE_JOIN(type, success, name, parameters, arguments)                                 \
    INTERPOSE(int, name, parameters) {                                                             \
        NEXT(name)                                                                                 \
        int outcome;                                                                               \
        struct joining joining = join_begins(thread);                                              \
        pthread_cleanup_push(join_ends, &joining);                                                 \
        outcome = call arguments;                                                                  \
        joining.is_over = outcome == success;                                                      \
        pthread_cleanup_pop(1);                                                                    \
        return outcome;                                                                            \
    }
INTERPOSE_JOIN(int, 0, pthread_join, (pthread_t thread, void **result), (thread, result))
INTERPOSE_JOIN(int, thrd_success, thrd_join, (thrd_t thread, int *result), (thread, result))
#if defined(__GLIBC__)
INTERPOSE_JOIN(int, 0, pthread_tryjoin_np, (pthread_t thread, void **result), (thread, result))
INTERPOSE_JOIN(int, 0, pthread_timedjoin_np,
               (pthread_t thread, void **result, const struct timespec *until),
               (thread, result, until))
INTERPOSE_JOIN(int, 0, pthread_clockjoin_np,
               (pthread_t thread, void **result, clockid_t clock, const struct timespec *until),
               (thread, result, clock, until))
#endif

/* ---- Thread-specific values -------------------------------------------------------------------
 */

static void note_specific(size_t key, const void *value) {
    if (!crn_is_interposing() || (!crn_self() && crn_is_foreign(value))) return;
    crn_thread_note_specific(crn_enter(), key, value);
    crn_leave();
}

static void forget_specific(size_t key) {
    if (!crn_is_interposing()) return;
    crn_enter();
    crn_thread_forget_specific(key);
    crn_leave();
}

INTERPOSE(int, pthread_setspecific, (pthread_key_t key, const void *value)) {
    NEXT(pthread_setspecific)
    int result = call(key, value);
    if (result == 0) note_specific(key, value);
    return result;
}

INTERPOSE(int, tss_set, (tss_t key, void *value)) {
    NEXT(tss_set)
    int result = call(key, value);
    if (result == thrd_success) note_specific(key, value);
    return result;
}

INTERPOSE(int, pthread_key_delete, (pthread_key_t key)) {
    NEXT(pthread_key_delete)
    forget_specific(key);
    return call(key);
}

INTERPOSE(void, tss_delete, (tss_t key)) {
    NEXT(tss_delete)
    forget_specific(key);
    call(key);
}

/* ---- Signals ----------------------------------------------------------------------------------
 */

/* A copy without the stop signal, where the set would keep it out. */
static const sigset_t *admit(const sigset_t *set, sigset_t *copy) {
    if (!set || !crn_is_interposing() || sigismember(set, crn_os_stop_signal) != 1) return set;
    *copy = *set;
    sigdelset(copy, crn_os_stop_signal);
    return copy;
}

INTERPOSE(int, pthread_sigmask, (int how, const sigset_t *restrict set, sigset_t *restrict old)) {
    NEXT(pthread_sigmask)
    sigset_t copy;
    return call(how, how == SIG_UNBLOCK ? set : admit(set, &copy), old);
}

INTERPOSE(int, sigprocmask, (int how, const sigset_t *restrict set, sigset_t *restrict old)) {
    NEXT(sigprocmask)
    sigset_t copy;
    return call(how, how == SIG_UNBLOCK ? set : admit(set, &copy), old);
}

INTERPOSE(int, sigaction,
          (int signal, const struct sigaction *restrict action, struct sigaction *restrict old)) {
    NEXT(sigaction)
    if (!crn_is_interposing() || !crn_stop_is_installed) return call(signal, action, old);
    if (signal == crn_os_stop_signal) {
        crn_stop_exchange_action(action, old);
        return 0;
    }
    if (!action) return call(signal, NULL, old);
    struct sigaction copy = *action;
    sigdelset(&copy.sa_mask, crn_os_stop_signal);
    return call(signal, &copy, old);
}

INTERPOSE(sighandler_t, signal, (int number, sighandler_t handler)) {
    NEXT(signal)
    bool is_ours = crn_is_interposing() && crn_stop_is_installed && number == crn_os_stop_signal;
    if (!is_ours) return call(number, handler);
    struct sigaction action = {.sa_handler = handler}, old;
    crn_stop_exchange_action(&action, &old);
    return old.sa_flags & SA_SIGINFO ? SIG_DFL : old.sa_handler;
}
#endif
