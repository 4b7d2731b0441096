/* SPDX-License-Identifier: MIT
 *
 * The threads that Cairn starts for itself, finalizers' and reclaimer, while others are stopped
 * inside malloc. Each run is a process of its own, since each starts its threads once; the parent
 * never calls Cairn. One arena, so that all threads want one lock. A hang is a failure: an alarm
 * ends the process.
 */
#include "../test.h"
#include "object/object.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

enum { RUNS = 5, CHURNERS = 3 };

static int finalized;
static void finalize(void *object) {
    (void)object;
    __atomic_fetch_add(&finalized, 1, __ATOMIC_RELAXED);
}
typedef struct {
    long value;
} Watched;
CAIRN_LEAF_WITH(Watched, (.finalize = finalize));

static void *churn(void *argument) {
    if (cairn_thread_register() != CAIRN_OK) abort();
    for (;;) {
        void *pieces[64];
        for (size_t i = 0; i < 64; i++) pieces[i] = malloc(2000 + i * 40);
        for (size_t i = 0; i < 64; i++) free(pieces[i]);
    }
    return argument;
}

static void *collect(void *argument) {
    for (;;) {
        cairn_collect(CAIRN_COUNT);
        usleep(1000);
    }
    return argument;
}

__attribute__((noinline)) static void make_dead(void) {
    for (int i = 0; i < 10; i++) cairn_new(Watched);
}

static void fill(NodeRef *row) {
    for (size_t i = 0; i < 4000; i++) cairn_set(&row[i], cairn_new(Node));
}

/* The child's life: both threads are first wanted while three others are in malloc. */
static void want_threads(void) {
    alarm(40);
#if defined(__GLIBC__)
    mallopt(M_ARENA_MAX, 1);
#endif
    if (cairn_thread_register() != CAIRN_OK) abort();
    pthread_t thread;
    for (int i = 0; i < CHURNERS; i++) pthread_create(&thread, NULL, churn, NULL);
    pthread_create(&thread, NULL, collect, NULL);
    NodeRef *row = cairn_new_array(NodeRef, 4000);
    for (int i = 0; i < 2; i++) {
        make_dead();
        fill(row);
        clean_stack();
        cairn_collect(CAIRN_COUNT);
    }
    while (!__atomic_load_n(&finalized, __ATOMIC_RELAXED)) usleep(1000);
    _exit(0);
}

static void helper_starts_while_others_are_in_malloc(void **state) {
    (void)state;
    for (int i = 0; i < RUNS; i++) {
        pid_t child = fork();
        if (child == 0) want_threads();
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(helper_starts_while_others_are_in_malloc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
