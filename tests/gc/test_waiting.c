/* SPDX-License-Identifier: MIT
 *
 * Threads that wait, that block signals, that are cancelled, that end badly, and processes that
 * fork. No wait ever sees EINTR from us: while one thread waits and wakes as often as it can,
 * another collects without pause, so that stops come at every point of entering and leaving.
 */
#include "hiding.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint32_t is_over;
static char on_failure; /* what a thread returns then */

static bool over(void) {
    return __atomic_load_n(&is_over, __ATOMIC_ACQUIRE) != 0;
}

static void join_waiting(pthread_t thread, void **result) {
    cairn_blocking_begin();
    pthread_join(thread, result);
    cairn_blocking_end();
}

/* ---- No EINTR ---------------------------------------------------------------------------------
 */

static int nap_poll(void) {
    return poll(NULL, 0, 1);
}
static int nap_ppoll(void) {
    struct timespec time = {0, 100000};
    return ppoll(NULL, 0, &time, NULL);
}
static int nap_select(void) {
    struct timeval time = {0, 100};
    return select(0, NULL, NULL, NULL, &time);
}
static int nap_pselect(void) {
    struct timespec time = {0, 100000};
    return pselect(0, NULL, NULL, NULL, &time, NULL);
}
static int nap_nanosleep(void) {
    struct timespec time = {0, 100000};
    return nanosleep(&time, NULL);
}
static int nap_usleep(void) {
    return usleep(100);
}
static int nap_epoll(void) {
    static int file = -1;
    if (file < 0) file = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event;
    return epoll_wait(file, &event, 1, 1);
}
static int nap_sigtimedwait(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    struct timespec time = {0, 100000};
    return sigtimedwait(&set, NULL, &time) == -1 && errno == EAGAIN ? 0 : -1;
}
static int nap_sem(void) {
    static sem_t semaphore;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += until.tv_nsec < 999000000 ? 100000 : 0;
    return sem_timedwait(&semaphore, &until) == -1 && errno == ETIMEDOUT ? 0 : -1;
}

struct nap {
    const char *name;
    int (*take)(void);
};
static const struct nap naps[] = {
    {"poll", nap_poll},           {"ppoll", nap_ppoll},
    {"select", nap_select},       {"pselect", nap_pselect},
    {"nanosleep", nap_nanosleep}, {"usleep", nap_usleep},
    {"epoll_wait", nap_epoll},    {"sigtimedwait", nap_sigtimedwait},
    {"sem_timedwait", nap_sem},
};

static void *nap_until_over(void *argument) {
    const struct nap *nap = argument;
    while (!over()) {
        Node *node = cairn_make(Node, .value = 3);
        if (nap->take() != 0) return argument;
        if (node->value != 3) return argument;
        /* Some work, so that stops find the thread running on its way in. */
        for (int i = 0; i < 50; i++) (void)cairn_new(Node);
    }
    return NULL;
}

static void waiting_calls_see_no_eintr(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    for (size_t i = 0; i < sizeof(naps) / sizeof(*naps); i++) {
        is_over = 0;
        pthread_t thread;
        void *result = NULL;
        struct nap nap = naps[i];
        assert_int_equal(pthread_create(&thread, NULL, nap_until_over, &nap), 0);
        for (int k = 0; k < 2000; k++) cairn_collect(CAIRN_COUNT);
        __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
        join_waiting(thread, &result);
        if (result) print_message("interrupted: %s\n", nap.name);
        assert_null(result);
    }
}

static int pipe_ends[2];
static void *read_pipe(void *argument) {
    char byte;
    sem_post(&arrived);
    return read(pipe_ends[0], &byte, 1) == 1 ? NULL : argument;
}
/* A thread that waits for long is scanned where it stands: stops need no answer from it. */
static void long_read_holds_up_nobody(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    gate_init();
    assert_int_equal(pipe(pipe_ends), 0);
    pthread_t thread;
    void *result = NULL;
    assert_int_equal(pthread_create(&thread, NULL, read_pipe, &on_failure), 0);
    wait_at(&arrived);
    for (int i = 0; i < 500; i++) cairn_collect(CAIRN_COUNT);
    assert_int_equal(write(pipe_ends[1], "x", 1), 1);
    join_waiting(thread, &result);
    assert_null(result);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

/* ---- Mutexes and conditions -------------------------------------------------------------------
 */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int turn;

/* Wakes come from a signal call that is not interposed: both must take the condition for the same
 * kind of thing. */
static void *play_ping_pong(void *argument) {
    int mine = (int)(intptr_t)argument;
    for (int i = 0; i < 2000; i++) {
        Node *node = cairn_make(Node, .value = i);
        pthread_mutex_lock(&mutex);
        while (turn != mine) pthread_cond_wait(&condition, &mutex);
        turn = !mine;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
        if (node->value != i) abort();
    }
    return NULL;
}
static void condition_and_mutex_waits_go_with_collections(void **state) {
    (void)state;
    pthread_t threads[2];
    for (intptr_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, play_ping_pong, (void *)i), 0);
    }
    for (int k = 0; k < 200; k++) cairn_collect(CAIRN_COUNT);
    for (int i = 0; i < 2; i++) join_waiting(threads[i], NULL);
}

static void *own_and_relock(void *argument) {
    pthread_mutex_t *checked = argument;
    if (pthread_mutex_lock(checked) != 0) return argument;
    if (pthread_mutex_lock(checked) != EDEADLK) return argument;
    return pthread_mutex_unlock(checked) == 0 ? NULL : argument;
}
static void error_checking_mutex_says_what_it_says(void **state) {
    (void)state;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_t checked;
    pthread_mutex_init(&checked, &kind);
    pthread_t thread;
    void *result = &checked;
    assert_int_equal(pthread_create(&thread, NULL, own_and_relock, &checked), 0);
    join_waiting(thread, &result);
    assert_null(result);
}

/* ---- Cancellation -----------------------------------------------------------------------------
 */

static bool cleanup_is_done;
static void allocate_in_cleanup(void *argument) {
    (void)argument;
    Node *node = cairn_make(Node, .value = 4);
    stand_at_gate(); /* others collect: a thread that still said BLOCKED would be scanned too high
                      */
    for (int i = 0; i < 20000; i++) {
        Node *next = cairn_make(Node, .next = {node}, .value = 4);
        cairn_set(&node->other, next);
        node = next;
        if (node->next.p->value != 4) abort();
    }
    cleanup_is_done = true;
}
static void *wait_to_be_cancelled(void *argument) {
    (void)argument;
    (void)cairn_new(Node);
    pthread_cleanup_push(allocate_in_cleanup, NULL);
    sem_post(&arrived);
    for (;;) poll(NULL, 0, -1);
    pthread_cleanup_pop(0);
    return NULL;
}
static void cancelled_wait_ends_before_cleanup(void **state) {
    (void)state;
    if (IS_SANITIZED)
        skip(); /* their interceptors are not left when a thread is cancelled in one */
    gate_init();
    cleanup_is_done = false;
    pthread_t thread;
    void *result = NULL;
    assert_int_equal(pthread_create(&thread, NULL, wait_to_be_cancelled, NULL), 0);
    wait_at(&arrived);
    assert_int_equal(pthread_cancel(thread), 0);
    wait_at(&arrived);
    for (int i = 0; i < 5; i++) cairn_collect(CAIRN_TRACE);
    sem_post(&passed);
    for (int i = 0; i < 300; i++) cairn_collect(CAIRN_COUNT);
    join_waiting(thread, &result);
    assert_ptr_equal(result, PTHREAD_CANCELED);
    assert_true(cleanup_is_done);
}

/* ---- Signals ----------------------------------------------------------------------------------
 */

static uint32_t is_computing;
static void *compute_with_signals_blocked(void *argument) {
    (void)argument;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    sigprocmask(SIG_BLOCK, &all, NULL);
    Node *volatile node = cairn_make(Node, .value = 8);
    __atomic_store_n(&is_computing, 1, __ATOMIC_RELEASE);
    while (!over()) {}
    return node->value == 8 ? NULL : &on_failure;
}
static void thread_that_blocks_all_signals_is_stopped(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    is_over = is_computing = 0;
    pthread_t thread;
    void *result = NULL;
    assert_int_equal(pthread_create(&thread, NULL, compute_with_signals_blocked, NULL), 0);
    while (!__atomic_load_n(&is_computing, __ATOMIC_ACQUIRE)) sched_yield();
    for (int i = 0; i < 20; i++) cairn_collect(CAIRN_COUNT);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    join_waiting(thread, &result);
    assert_null(result);
}

/* One made while its creator blocks everything inherits the mask. */
static void *compute_with_inherited_mask(void *argument) {
    (void)argument;
    __atomic_store_n(&is_computing, 1, __ATOMIC_RELEASE);
    while (!over()) {}
    return NULL;
}
static void thread_that_inherits_a_full_mask_is_stopped(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    is_over = is_computing = 0;
    uint64_t all[2] = {UINT64_MAX, UINT64_MAX}, saved[2];
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, all, saved, 8);
    pthread_t thread;
    int made = pthread_create(&thread, NULL, compute_with_inherited_mask, NULL);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, saved, NULL, 8);
    assert_int_equal(made, 0);
    while (!__atomic_load_n(&is_computing, __ATOMIC_ACQUIRE)) sched_yield();
    for (int i = 0; i < 20; i++) cairn_collect(CAIRN_COUNT);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    join_waiting(thread, NULL);
}

static volatile sig_atomic_t handled;
static void count_signal(int signal) {
    (void)signal;
    handled++;
}
/* The program may use the stop signal for itself, whenever it says so. */
static void handler_of_stop_signal_gets_what_is_not_ours(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    (void)cairn_new(Node);
    handled = 0;
    struct sigaction action = {.sa_handler = count_signal}, old;
    assert_int_equal(sigaction(SIGURG, &action, NULL), 0);
    raise(SIGURG);
    assert_int_equal(handled, 1);
    assert_int_equal(kill(getpid(), SIGURG), 0);
    assert_int_equal(handled, 2);
    is_over = is_computing = 0;
    pthread_t thread; /* still stopped by it */
    assert_int_equal(pthread_create(&thread, NULL, compute_with_inherited_mask, NULL), 0);
    while (!__atomic_load_n(&is_computing, __ATOMIC_ACQUIRE)) sched_yield();
    for (int i = 0; i < 20; i++) cairn_collect(CAIRN_COUNT);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    join_waiting(thread, NULL);
    assert_int_equal(handled, 2);
    assert_ptr_equal(signal(SIGURG, SIG_DFL), count_signal);
    assert_int_equal(sigaction(SIGURG, NULL, &old), 0);
    assert_ptr_equal(old.sa_handler, SIG_DFL);
}

/* ---- Bad ends, forks, exits -------------------------------------------------------------------
 */

static void *end_without_destructors(void *argument) {
    (void)argument;
    (void)cairn_new(Node);
    sem_post(&arrived);
    syscall(SYS_exit, 0);
    return NULL;
}
static void thread_that_just_vanishes_holds_up_nobody(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    pid_t child = fork(); /* the thread's stack is never given back: not here */
    if (child == 0) {
        alarm(20);
        gate_init();
        pthread_t thread;
        pthread_create(&thread, NULL, end_without_destructors, NULL);
        wait_at(&arrived);
        for (int i = 0; i < 20; i++) {
            cairn_collect(CAIRN_TRACE);
            for (int k = 0; k < 100; k++) (void)cairn_new(Node);
        }
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void *allocate_until_over(void *argument) {
    (void)argument;
    Node *list = NULL;
    for (long i = 0; !over(); i++) {
        list = cairn_make(Node, .next = {i % 1000 ? list : NULL}, .value = i);
        cairn_set(&list->other, list->next.p);
    }
    return NULL;
}
static void *allocate_some(void *argument) {
    for (int i = 0; i < 2000; i++) (void)cairn_make(Node, .value = i);
    return argument;
}
static void run_in_child(Node *kept) {
    alarm(60);
    for (int i = 0; i < 20000; i++) (void)cairn_new(Node);
    cairn_collect(CAIRN_TRACE);
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, allocate_some, kept);
    join_waiting(thread, &result);
    cairn_collect(CAIRN_COUNT);
    _exit(kept->value == 21 && result == kept ? 0 : 1);
}
static void children_of_a_busy_process_go_on(void **state) {
    (void)state;
#if defined(IS_EMULATED)
    skip(); /* qemu-user has no threads in the child of a process with threads */
#endif
    /* Nor has ThreadSanitizer; and AddressSanitizer's allocator keeps a lock in the child that
     * another thread held. */
    if (IS_SANITIZED) skip();
    is_over = 0;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_until_over, NULL), 0);
    }
    Node *volatile kept = cairn_make(Node, .value = 21);
    for (int i = 0; i < 40; i++) {
        pid_t child = fork();
        if (child == 0) run_in_child(kept);
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 3; i++) join_waiting(threads[i], NULL);
    assert_int_equal(kept->value, 21);
}

static Node *volatile at_exit;
static void allocate_at_exit(void) {
    for (int i = 0; i < 20000; i++) (void)cairn_new(Node);
    cairn_collect(CAIRN_TRACE);
    if (at_exit->value != 9) _exit(3);
}
static void exit_handlers_may_allocate(void **state) {
    (void)state;
#if defined(IS_EMULATED)
    skip(); /* the same: a helper of the parent's is thread enough for an assertion in qemu to fail
             */
#endif
    if (IS_SANITIZED) skip();
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        is_over = 0;
        pthread_t thread;
        pthread_create(&thread, NULL, allocate_until_over, NULL);
        at_exit = cairn_make(Node, .value = 9);
        atexit(allocate_at_exit);
        freopen("/dev/null", "w", stdout);
        exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_calls_see_no_eintr),
        cmocka_unit_test(long_read_holds_up_nobody),
        cmocka_unit_test(condition_and_mutex_waits_go_with_collections),
        cmocka_unit_test(error_checking_mutex_says_what_it_says),
        cmocka_unit_test(cancelled_wait_ends_before_cleanup),
        cmocka_unit_test(thread_that_blocks_all_signals_is_stopped),
        cmocka_unit_test(thread_that_inherits_a_full_mask_is_stopped),
        cmocka_unit_test(handler_of_stop_signal_gets_what_is_not_ours),
        cmocka_unit_test(thread_that_just_vanishes_holds_up_nobody),
        cmocka_unit_test(children_of_a_busy_process_go_on),
        cmocka_unit_test(exit_handlers_may_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
