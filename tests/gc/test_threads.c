/* SPDX-License-Identifier: MIT
 *
 * Stopping, threads that end or are cancelled, fork, thread-locals. A hang is a failure: an alarm
 * ends the program.
 */
#include "../test.h"
#include "gc/gc.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Thread_local Node *local;

static void *use_local(void *argument) {
    local = cairn_make(Node, .value = (long)(intptr_t)argument);
    for (int i = 0; i < 3000; i++) {
        Node *node = cairn_make(Node, .next = {local}, .value = i);
        if (i % 1000 == 0) cairn_collect(CAIRN_TRACE);
        if (node->next.p->value != (long)(intptr_t)argument) abort();
    }
    if (local->value != (long)(intptr_t)argument) abort();
    return NULL;
}

static void thread_locals_are_roots(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        pthread_t threads[4];
        for (intptr_t i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, use_local, (void *)(i + 1));
        for (int i = 0; i < 4; i++) {
            cairn_blocking_begin();
            pthread_join(threads[i], NULL);
            cairn_blocking_end();
        }
    }
}

static uint32_t is_over;

/* Computes without a call: only a signal can stop it. */
static void *spin(void *argument) {
    (void)argument;
    Node *node = cairn_make(Node, .value = 99);
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
#if CAIRN_TSAN_
        cairn_set(&node->next, NULL);
#endif
    }
    if (node->value != 99) abort();
    return NULL;
}

static void computing_thread_is_stopped_by_signal(void **state) {
    (void)state;
    is_over = 0;
    pthread_t thread;
    pthread_create(&thread, NULL, spin, NULL);
    for (int i = 0; i < 50; i++) cairn_collect(CAIRN_COUNT);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}

static void *make_one(void *argument) {
    cairn_set((NodeRef *)argument, cairn_make(Node, .value = 5));
    return NULL;
}

static size_t known_threads(void) {
    size_t count = 0;
    crn_lock_acquire(&crn_threads_lock);
    for (const struct crn_thread *thread = crn_threads; thread; thread = thread->next) count++;
    crn_lock_release(&crn_threads_lock);
    return count;
}

static uint64_t committed_bytes(void) {
    cairn_stats stats = CAIRN_STATS_INIT;
    assert_int_equal(cairn_stats_get(NULL, &stats), CAIRN_OK);
    return stats.committed_bytes;
}

/* None of them allocates enough to ask for an epoch, and nothing else does. */
static void threads_that_end_young_leave_little(void **state) {
    (void)state;
    enum { MIB = 1 << 20 };
    static Node *holder;
    holder = cairn_new(Node);
    cairn_collect(CAIRN_TRACE);
    size_t most = 0;
    uint64_t committed = committed_bytes();
    for (int i = 0; i < 2000; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, make_one, &holder->next), 0);
        pthread_join(thread, NULL);
        size_t count = known_threads();
        if (count > most) most = count;
    }
    assert_true(most > 2);                              /* an epoch for each would be dear */
    assert_true(most <= 8 * MIB / CRN_BLOCK_BYTES + 8); /* a block each, 8 MiB in all */
    assert_true(committed_bytes() - committed <= 16 * MIB);
    assert_int_equal(holder->next.p->value, 5);
    holder = NULL;
}

static void *just_end(void *argument) {
    return argument;
}

/* As where pthread_create is interposed. */
static void *note_known(void *is_known) {
    *(bool *)is_known = crn_self() != NULL;
    return NULL;
}

/* What a thread needs its creator has asked for: it is made, or pthread_create says so. */
static void thread_without_memory_is_not_made(void **state) {
    (void)state;
    unsigned refused = 0;
    bool is_known = false;
    pthread_t first;
    assert_int_equal(pthread_create(&first, NULL, note_known, &is_known), 0);
    assert_int_equal(pthread_join(first, NULL), 0);
    if (!is_known) skip();
    for (uint64_t request = 1; request < 200; request++) {
        /* In the first of them, or in one of the next. */
        crn_os_fail_at(1 + request % 24);
        pthread_t threads[64];
        int count = 0, result = 0;
        for (; count < 64 && result == 0; count += result == 0) {
            result = pthread_create(&threads[count], NULL, just_end, NULL);
        }
        crn_os_fail_at(0);
        assert_true(result == 0 || result == EAGAIN);
        refused += result == EAGAIN;
        for (int i = 0; i < count; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(refused > 0);
}

/* Who waits for the world gets it before one that had it last and wants it again. */
static uint32_t rounds_of_another;
static void *collect_in_a_loop(void *argument) {
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {
        cairn_collect(CAIRN_COUNT);
        __atomic_fetch_add(&rounds_of_another, 1, __ATOMIC_RELEASE);
    }
    return argument;
}

static void collections_take_turns(void **state) {
    (void)state;
    is_over = rounds_of_another = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, collect_in_a_loop, NULL), 0);
    while (__atomic_load_n(&rounds_of_another, __ATOMIC_ACQUIRE) < 10) cairn_collect(CAIRN_COUNT);
    uint32_t before = __atomic_load_n(&rounds_of_another, __ATOMIC_ACQUIRE);
    for (int i = 0; i < 200; i++) cairn_collect(CAIRN_COUNT);
    uint32_t meanwhile = __atomic_load_n(&rounds_of_another, __ATOMIC_ACQUIRE) - before;
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    printf("200 collections, %u of another thread meanwhile\n", meanwhile);
    assert_true(meanwhile < 2000);
}

/* Counted instead of libc's: how often a processor was offered to others. */
static _Thread_local uint64_t yields;
int sched_yield(void) {
    yields++;
    return (int)syscall(SYS_sched_yield);
}

static uint64_t yields_to_collect(void) {
    uint64_t before = yields;
    cairn_collect(CAIRN_COUNT);
    return yields - before;
}

static void *collect_for_the_first_time(void *yielded) {
    if (cairn_thread_register() != CAIRN_OK) abort();
    *(uint64_t *)yielded = yields_to_collect();
    return NULL;
}

/* Who had the world last offers it to those that wait for it, and a while to those that wake from
 * its last stop. What makes them wait is made up here: others would have no processor at times. */
static void who_collects_again_lets_others_come_first(void **state) {
    (void)state;
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(yields_to_collect(), 0);
    __atomic_fetch_add(&crn_waiters, 1, __ATOMIC_RELAXED);
    assert_true(yields_to_collect() >= 100);
    uint64_t of_another = UINT64_MAX;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, collect_for_the_first_time, &of_another), 0);
    pthread_join(thread, NULL);
    __atomic_fetch_sub(&crn_waiters, 1, __ATOMIC_RELAXED);
    assert_int_equal(of_another, 0);
    cairn_collect(CAIRN_COUNT);
    __atomic_fetch_add(&crn_gc.standing, 1, __ATOMIC_RELAXED);
    cairn_collect(CAIRN_COUNT);
    uint64_t released_ns = __atomic_load_n(&crn_gc.released_ns, __ATOMIC_RELAXED);
    cairn_collect(CAIRN_COUNT);
    uint64_t took_ns = __atomic_load_n(&crn_gc.released_ns, __ATOMIC_RELAXED) - released_ns;
    __atomic_fetch_sub(&crn_gc.standing, 1, __ATOMIC_RELAXED);
    assert_true(took_ns >= 100 * 1000);
}

static void *become_known(void *argument) {
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) sched_yield();
    if (cairn_thread_register() != CAIRN_OK) abort();
    return argument;
}

/* So that those that collect see it. */
static void who_begins_in_a_stop_is_one_that_waits(void **state) {
    (void)state;
    bool was_passive = crn_settings.is_passive;
    pthread_t thread;
    is_over = 0;
    crn_settings.is_passive = true; /* the thread becomes known by itself */
    assert_int_equal(pthread_create(&thread, NULL, become_known, NULL), 0);
    crn_settings.is_passive = was_passive;
    alarm(120);
    crn_enter();
    crn_world_take();
    crn_world_stop();
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&crn_waiters, __ATOMIC_RELAXED) == 0) sched_yield();
    crn_world_start();
    crn_world_release();
    crn_leave();
    pthread_join(thread, NULL);
    alarm(0);
    assert_int_equal(__atomic_load_n(&crn_waiters, __ATOMIC_RELAXED), 0);
}

/* What deletes a key looks through all threads, and a stop that has them waits for it. */
static void keys_are_deleted_while_another_collects(void **state) {
    (void)state;
    is_over = rounds_of_another = 0;
    pthread_t collector;
    (void)cairn_new(Node);
    assert_int_equal(pthread_create(&collector, NULL, collect_in_a_loop, NULL), 0);
    while (__atomic_load_n(&rounds_of_another, __ATOMIC_ACQUIRE) < 10) sched_yield();
    alarm(120);
    for (int i = 0; i < 20000; i++) {
        pthread_key_t key;
        assert_int_equal(pthread_key_create(&key, NULL), 0);
        assert_int_equal(pthread_key_delete(key), 0);
    }
    alarm(0);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    pthread_join(collector, NULL);
}

static void forked_child_goes_on(void **state) {
    (void)state;
    static Node *kept;
    kept = cairn_make(Node, .value = 21);
    pid_t child = fork();
    if (child == 0) {
        /* It allows no new thread in the child of a process with threads. */
        if (CAIRN_TSAN_) crn_settings.has_reclaimer = false;
        for (int i = 0; i < 100000; i++) cairn_new(Node);
        cairn_collect(CAIRN_TRACE);
        _exit(kept->value == 21 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(kept->value, 21);
}

/* Cancelled before it collects: the collection comes first, the end at the next point after it. */
static void *collect_cancelled(void *argument) {
    int *is_past = argument;
    if (cairn_thread_register() != CAIRN_OK) abort();
    pthread_cancel(pthread_self());
    cairn_collect(CAIRN_COUNT);
    *is_past = 1;
    pthread_testcancel();
    *is_past = 2;
    return NULL;
}

static void cancelled_thread_ends_behind_its_collection(void **state) {
    (void)state;
    int is_past = 0;
    pthread_t thread;
    void *result = NULL;
    crn_settings.is_tracing = true; /* its write is such a point */
    pthread_create(&thread, NULL, collect_cancelled, &is_past);
    cairn_blocking_begin();
    pthread_join(thread, &result);
    cairn_blocking_end();
    crn_settings.is_tracing = false;
    assert_ptr_equal(result, PTHREAD_CANCELED);
    assert_int_equal(is_past, 1);
    cairn_collect(CAIRN_COUNT);
}

static pthread_key_t early_key, late_key;
static uint32_t last_round_count;

/* Sets itself until the last round and uses Cairn there. */
static void end_of_key(pthread_key_t key, intptr_t round) {
    if (round < PTHREAD_DESTRUCTOR_ITERATIONS) {
        pthread_setspecific(key, (void *)(round + 1));
        return;
    }
    for (int i = 0; i < 1000; i++) cairn_new(Node);
    __atomic_fetch_add(&last_round_count, 1, __ATOMIC_RELAXED);
}

static void end_early_key(void *round) {
    end_of_key(early_key, (intptr_t)round);
}
static void end_late_key(void *round) {
    end_of_key(late_key, (intptr_t)round);
}

static void *end_late(void *argument) {
    cairn_new(Node);
    pthread_setspecific(early_key, argument);
    pthread_setspecific(late_key, argument);
    return NULL;
}

static void thread_that_ends_late_is_not_waited_for(void **state) {
    (void)state;
#if CAIRN_TSAN_
    skip(); /* its own record of the thread is gone by the last round */
#endif
    assert_int_equal(pthread_key_create(&late_key, end_late_key), 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, end_late, (void *)1);
        if (i % 2) cairn_collect(CAIRN_COUNT);
        pthread_join(thread, NULL);
        cairn_collect(CAIRN_TRACE);
    }
    assert_int_equal(last_round_count, 40);
    cairn_collect(CAIRN_TRACE);
    assert_true(live_after(CAIRN_TRACE) < 100);
}

int main(void) {
    /* Cairn's key comes between the two. */
    if (pthread_key_create(&early_key, end_early_key) != 0) abort();
    alarm(120);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_locals_are_roots),
        cmocka_unit_test(computing_thread_is_stopped_by_signal),
        cmocka_unit_test(threads_that_end_young_leave_little),
        cmocka_unit_test(thread_without_memory_is_not_made),
        cmocka_unit_test(collections_take_turns),
        cmocka_unit_test(who_collects_again_lets_others_come_first),
        cmocka_unit_test(who_begins_in_a_stop_is_one_that_waits),
        cmocka_unit_test(keys_are_deleted_while_another_collects),
        cmocka_unit_test(forked_child_goes_on),
        cmocka_unit_test(thread_that_ends_late_is_not_waited_for),
        cmocka_unit_test(cancelled_thread_ends_behind_its_collection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
