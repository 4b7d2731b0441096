/* SPDX-License-Identifier: MIT
 *
 * Stopping, threads that end, fork, thread-locals.
 */
#include "../test.h"

#include <pthread.h>
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
#if defined(__SANITIZE_THREAD__)
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

static void forked_child_goes_on(void **state) {
    (void)state;
    static Node *kept;
    kept = cairn_make(Node, .value = 21);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 100000; i++) cairn_new(Node);
        cairn_collect(CAIRN_TRACE);
        _exit(kept->value == 21 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(kept->value, 21);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_locals_are_roots),
        cmocka_unit_test(computing_thread_is_stopped_by_signal),
        cmocka_unit_test(forked_child_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
