/* SPDX-License-Identifier: MIT
 *
 * fork while other threads are anywhere: in malloc, in inline paths, in slow ones, becoming known,
 * ending. Each child collects with the auditors on, looks through what the threads share, and
 * allocates; the parent goes on. Figures come from a seed (TEST_SEED). A hang is a failure: an
 * alarm ends the program.
 */
#include "../test.h"
#include "gc/gc.h"

#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#if CAIRN_TSAN_ || CAIRN_ASAN_
#define FORKS 20
#else
#define FORKS 30
#endif
enum { THREADS = 3, ROW = 512 };

static uint64_t seed = 1;
static uint32_t is_over, ready_count;

static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- Children ------------------------------------------------------------------------------- */

static void expect_success(pid_t child) {
    int status = -1;
    assert_true(child > 0);
    while (waitpid(child, &status, 0) != child) {}
    assert_int_equal(status, 0);
}

/* A row of lists that threads change at random. A node knows its place in the row. */
static NodeRef *row;

static void check_row(void) {
    for (size_t i = 0; i < ROW; i++) {
        unsigned length = 0;
        for (Node *node = cairn_load(&row[i]); node; node = cairn_load(&node->next)) {
            if (node->value != (long)i || ++length > 1000) abort();
            if (node->other.p && node->other.p->value < 0) abort();
        }
    }
}

/* Mostly inside the runtime, under one of its locks or another. */
static void use_locks(void) {
    static Node *const no_node;
    Node *node = cairn_new(Node);
    cairn_unpin(cairn_pin(node));
    if (cairn_root_add(&no_node, (size_t)(node != NULL)) != CAIRN_OK) abort();
    cairn_root_remove(&no_node);
    if (!cairn_new_array(NodeRef, 4096)) abort();
}

static void begin_child(void) {
    alarm(30);
    signal(SIGSEGV, SIG_DFL); /* not the test runner's, which would run the other cases here */
    signal(SIGBUS, SIG_DFL);
#if CAIRN_TSAN_ || CAIRN_ASAN_
    /* They have no threads, or no malloc, in the child of a process with threads. */
    crn_settings.has_reclaimer = false;
#endif
}

static void live_on_in_child(void) {
    begin_child();
    crn_settings.is_verifying = true;
    if (!row) row = cairn_new_array(NodeRef, ROW);
    check_row();
    use_locks();
    for (int i = 0; i < 3000; i++) cairn_set(&row[i % ROW], cairn_make(Node, .value = i % ROW));
    cairn_collect(CAIRN_COUNT);
    check_row();
    cairn_collect(CAIRN_TRACE);
    check_row();
    for (int i = 0; i < 3000; i++) cairn_new_array(NodeRef, (size_t)i % 40);
    cairn_collect(CAIRN_TRACE);
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) crn_heap_check(heap);
    _exit(0);
}

/* ---- Threads -------------------------------------------------------------------------------- */

typedef void *work(void *argument);

static void start_threads(pthread_t *threads, work *run) {
    is_over = ready_count = 0;
    for (intptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run, (void *)(i + 1)), 0);
    }
    while (__atomic_load_n(&ready_count, __ATOMIC_ACQUIRE) < THREADS) usleep(100);
}

static bool is_going_on(void) {
    return !__atomic_load_n(&is_over, __ATOMIC_RELAXED);
}

static void end_threads(pthread_t *threads) {
    __atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++) {
        cairn_blocking_begin();
        pthread_join(threads[i], NULL);
        cairn_blocking_end();
    }
}

static void say_ready(void) {
    if (cairn_thread_register() != CAIRN_OK) abort();
    __atomic_fetch_add(&ready_count, 1, __ATOMIC_RELEASE);
}

/* A stop finds it outside of the runtime as often as inside. */
static void *hold_locks(void *argument) {
    volatile unsigned own = 0;
    for (say_ready(); is_going_on();) {
        for (int i = 0; i < 8; i++) use_locks();
        for (int i = 0; i < 100000; i++) own++;
    }
    return argument;
}

static void *churn_malloc(void *argument) {
    for (say_ready(); is_going_on();) {
        void *pieces[64];
        for (size_t i = 0; i < 64; i++) pieces[i] = malloc(16 + i * 40);
        for (size_t i = 0; i < 64; i++) free(pieces[i]);
    }
    return argument;
}

static void *mutate(void *argument) {
    uint64_t state = seed * 7919 + (uint64_t)(uintptr_t)argument;
    for (say_ready(); is_going_on();) {
        size_t i = random_next(&state) % ROW;
        Node *node = cairn_new(Node);
        node->value = (long)i;
        switch (random_next(&state) % 8) {
        case 0:
            cairn_set(&row[i], NULL);
            break;
        case 1:
            cairn_set(&node->other, cairn_load(&row[random_next(&state) % ROW]));
            cairn_swap(&row[i], node);
            break;
        case 2: {
            NodeRef *copy = cairn_new_array(NodeRef, random_next(&state) % 64 + 2);
            cairn_set(&copy[0], node);
            cairn_copy(copy + 1, copy, 1);
            free(malloc(random_next(&state) % 3000));
            break;
        }
        case 3:
            cairn_unpin(cairn_pin(node));
            break;
        default: {
            Node *head = cairn_load(&row[i]);
            if (head && cairn_load(&head->next)) head = NULL;
            cairn_set(&node->next, head);
            cairn_set(&row[i], node);
        }
        }
    }
    return argument;
}

static void *end_at_once(void *argument) {
    if (cairn_thread_register() != CAIRN_OK) abort();
    for (int i = 0; i < 100; i++) cairn_new(Node);
    return argument;
}

static void *make_threads(void *argument) {
    for (say_ready(); is_going_on();) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, end_at_once, NULL) != 0) abort();
        pthread_join(thread, NULL);
    }
    return argument;
}

/* ---- Cases ---------------------------------------------------------------------------------- */

static void fork_repeatedly(work *run, int count) {
    pthread_t threads[THREADS];
    row = cairn_new_array(NodeRef, ROW);
    start_threads(threads, run);
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child == 0) live_on_in_child();
        expect_success(child);
        if (i % 8 == 0) cairn_collect(i % 16 ? CAIRN_COUNT : CAIRN_TRACE);
    }
    end_threads(threads);
    check_row();
    row = NULL;
    cairn_collect(CAIRN_TRACE);
}

static void threads_in_malloc_do_not_block_a_fork(void **state) {
    (void)state;
    fork_repeatedly(churn_malloc, FORKS);
}

static void stores_and_allocations_are_whole_in_the_child(void **state) {
    (void)state;
    fork_repeatedly(mutate, FORKS);
}

static void locks_of_the_runtime_are_free_in_the_child(void **state) {
    (void)state;
    fork_repeatedly(hold_locks, FORKS);
}

static void threads_that_come_and_go_leave_no_lock(void **state) {
    (void)state;
    fork_repeatedly(make_threads, FORKS / 2);
}

static void *register_self(void *has_registered) {
    if (cairn_thread_register() != CAIRN_OK) abort();
    __atomic_store_n((int *)has_registered, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* The test is the fork that the newcomer has to wait for. Threads of pthread_create's interposed
 * form register before they run, so this one is told when it has got so far. */
static void newcomer_waits_for_a_fork(void **state) {
    (void)state;
    int has_registered = 0;
    pthread_t thread;
    crn_lock_acquire(&crn_newcomers_lock);
    pthread_create(&thread, NULL, register_self, &has_registered);
    while (__atomic_load_n(&crn_newcomers_lock.state, __ATOMIC_RELAXED) != 2) usleep(100);
    assert_int_equal(__atomic_load_n(&has_registered, __ATOMIC_ACQUIRE), 0);
    crn_lock_release(&crn_newcomers_lock);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
    assert_int_equal(has_registered, 1);
}

/* A stranger holds a lock of the runtime for a while, as one that becomes known does. */
static uint32_t stranger_may_hold, stranger_holds; /* atomic */

static void *hold_as_stranger(void *argument) {
    while (!__atomic_load_n(&stranger_may_hold, __ATOMIC_ACQUIRE)) sched_yield();
    crn_lock_acquire(&crn_newcomers_lock);
    struct crn_shard *shard = crn_extras_lock(&stranger_holds);
    __atomic_store_n(&stranger_holds, 1, __ATOMIC_RELEASE);
    usleep(20000); /* in which a fork that does not wait would be over */
    crn_extras_unlock(shard);
    crn_lock_release(&crn_newcomers_lock);
    return argument;
}

static void fork_waits_for_newcomers(void **state) {
    (void)state;
    __atomic_store_n(&stranger_may_hold, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&stranger_holds, __ATOMIC_ACQUIRE)) sched_yield();
    pid_t child = fork();
    if (child == 0) live_on_in_child();
    expect_success(child);
}

/* A thread made before Cairn's first call that never calls it: forks when told to. */
static uint32_t stranger_may_fork; /* atomic */
static pid_t child_of_stranger;

static void *fork_as_stranger(void *argument) {
    while (!__atomic_load_n(&stranger_may_fork, __ATOMIC_ACQUIRE)) sched_yield();
    if (crn_self()) abort();
    child_of_stranger = fork();
    if (child_of_stranger == 0) {
        begin_child();
        cairn_collect(CAIRN_COUNT);
        _exit(crn_threads == crn_self() && !crn_threads->next ? 0 : 1);
    }
    return argument;
}

static void thread_unknown_to_cairn_may_fork(void **state) {
    pthread_t threads[THREADS], *stranger = *state;
    start_threads(threads, churn_malloc);
    __atomic_store_n(&stranger_may_fork, 1, __ATOMIC_RELEASE);
    cairn_blocking_begin();
    pthread_join(*stranger, NULL);
    cairn_blocking_end();
    expect_success(child_of_stranger);
    end_threads(threads);
}

static void skip_without_threads_in_children(void) {
#if CAIRN_TSAN_
    skip();
#endif
}

static int finalized;
static void finalize(void *object) {
    (void)object;
    __atomic_fetch_add(&finalized, 1, __ATOMIC_RELAXED);
}
typedef struct {
    long value;
} Watched;
CAIRN_LEAF_WITH(Watched, (.finalize = finalize));

__attribute__((noinline)) static void make_dead(void) {
    for (int i = 0; i < 10; i++) cairn_new(Watched);
}

static void finalizers_run_in_the_child(void **state) {
    (void)state;
    skip_without_threads_in_children();
    for (int i = 0; i < 3; i++) {
        make_dead();
        clean_stack();
        cairn_collect(CAIRN_COUNT);
        while (!__atomic_load_n(&finalized, __ATOMIC_RELAXED)) usleep(1000);
        pid_t child = fork();
        if (child == 0) {
            begin_child();
            __atomic_store_n(&finalized, 0, __ATOMIC_RELAXED);
            make_dead();
            clean_stack();
            cairn_collect(CAIRN_COUNT);
            while (!__atomic_load_n(&finalized, __ATOMIC_RELAXED)) usleep(1000);
            _exit(0);
        }
        expect_success(child);
    }
}

static uint32_t has_begun, may_end; /* atomic */
static void take_long(void *object) {
    (void)object;
    __atomic_store_n(&has_begun, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&may_end, __ATOMIC_ACQUIRE)) usleep(100);
}
typedef struct {
    long value;
} Slow;
CAIRN_LEAF_WITH(Slow, (.finalize = take_long));

__attribute__((noinline)) static void make_slow(cairn_heap *heap) {
    for (int i = 0; i < 3; i++) cairn_new_in(heap, Slow);
}

/* The child has lost the thread that runs it: nobody waits for its end, and its object goes. */
static void finalizer_that_runs_is_over_in_the_child(void **state) {
    (void)state;
    skip_without_threads_in_children();
    cairn_heap *heap = NULL;
    assert_int_equal(cairn_heap_create(NULL, &heap), CAIRN_OK);
    make_slow(heap);
    clean_stack();
    cairn_collect(CAIRN_COUNT);
    while (!__atomic_load_n(&has_begun, __ATOMIC_ACQUIRE)) usleep(100);
    pid_t child = fork();
    if (child == 0) {
        begin_child();
        crn_settings.is_verifying = true;
        cairn_collect(CAIRN_TRACE);
        _exit(cairn_heap_destroy(heap) == CAIRN_OK ? 0 : 1);
    }
    expect_success(child);
    __atomic_store_n(&may_end, 1, __ATOMIC_RELEASE);
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
}

static void seats_of_volunteers_are_free_in_the_child(void **state) {
    (void)state;
    uint32_t taken = __atomic_fetch_or(&crn_team.seats_taken, 0x80, __ATOMIC_RELAXED);
    __atomic_fetch_add(&crn_team.hungry, 1, __ATOMIC_RELAXED);
    pid_t child = fork();
    if (child == 0) _exit(crn_team.seats_taken || crn_team.hungry || crn_team.working ? 1 : 0);
    __atomic_store_n(&crn_team.seats_taken, taken, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&crn_team.hungry, 1, __ATOMIC_RELAXED);
    expect_success(child);
}

/* ---- A handler of the program that takes a lock which others hold while they allocate -------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool has_handlers;

static void lock_mutex(void) {
    if (has_handlers) pthread_mutex_lock(&mutex);
}
static void unlock_mutex(void) {
    if (has_handlers) pthread_mutex_unlock(&mutex);
}

static void *allocate_locked(void *argument) {
    for (say_ready(); is_going_on();) {
        pthread_mutex_lock(&mutex);
        for (int i = 0; i < 200; i++) cairn_new(Node);
        pthread_mutex_unlock(&mutex);
    }
    return argument;
}

static void handler_with_a_lock_does_not_block_a_fork(void **state) {
    (void)state;
#if CAIRN_TSAN_
    skip(); /* it keeps signals from a thread that waits for a mutex: no collection would end */
#endif
    has_handlers = true;
    fork_repeatedly(allocate_locked, FORKS / 2);
    has_handlers = false;
}

/* ---- Inside the runtime --------------------------------------------------------------------- */

static void fork_in_report(const cairn_report *report, void *context) {
    (void)report;
    (void)context;
    pid_t child = fork();
    if (child == 0) _exit(7);
    int status = -1;
    while (waitpid(child, &status, 0) != child) {}
    _exit(WEXITSTATUS(status));
}

static void report_inside_the_runtime_may_fork(void **state) {
    (void)state;
    Node *node = cairn_new(Node);
    cairn_collect(CAIRN_COUNT);
    pid_t child = fork();
    if (child == 0) {
        begin_child();
        cairn_on_report(fork_in_report, NULL);
        crn_settings.is_verifying = true;
        *crn_count_of(node) = 77; /* found while the world is stopped */
        cairn_collect(CAIRN_COUNT);
        _exit(1);
    }
    int status = -1;
    while (waitpid(child, &status, 0) != child) {}
    assert_int_equal(WEXITSTATUS(status), 7);
}

int main(void) {
    /* Before Cairn's first call, as a library does that the program starts with. */
    if (pthread_atfork(lock_mutex, unlock_mutex, unlock_mutex) != 0) abort();
    if (getenv("TEST_SEED")) seed = strtoull(getenv("TEST_SEED"), NULL, 10);
    if (getenv("TEST_ONLY")) cmocka_set_test_filter(getenv("TEST_ONLY"));
    printf("TEST_SEED=%llu\n", (unsigned long long)seed);
    alarm(300);
    static pthread_t stranger;
    pthread_t other;
    if (pthread_create(&stranger, NULL, fork_as_stranger, NULL) != 0) abort();
    if (pthread_create(&other, NULL, hold_as_stranger, NULL) != 0) abort();
    pthread_detach(other);
    if (cairn_thread_register() != CAIRN_OK) abort();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(thread_unknown_to_cairn_may_fork, &stranger),
        cmocka_unit_test(fork_waits_for_newcomers),
        cmocka_unit_test(newcomer_waits_for_a_fork),
        cmocka_unit_test(threads_in_malloc_do_not_block_a_fork),
        cmocka_unit_test(stores_and_allocations_are_whole_in_the_child),
        cmocka_unit_test(locks_of_the_runtime_are_free_in_the_child),
        cmocka_unit_test(threads_that_come_and_go_leave_no_lock),
        cmocka_unit_test(finalizers_run_in_the_child),
        cmocka_unit_test(finalizer_that_runs_is_over_in_the_child),
        cmocka_unit_test(seats_of_volunteers_are_free_in_the_child),
        cmocka_unit_test(handler_with_a_lock_does_not_block_a_fork),
        cmocka_unit_test(report_inside_the_runtime_may_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
