/* SPDX-License-Identifier: MIT
 *
 * Roots scanned side by side: what only a long stack, much static data, added memory or one of many
 * threads names is found whoever looks at it, while threads that stand still help.
 */
#include "../test.h"

#include "gc/gc.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { NAMES = 4096, STRIDE = 64, LEVELS = 64, PER_LEVEL = 512, THREADS = 4, WAITING = 40 };
enum { STACK_BYTES = 8 << 20 };
enum { ROUNDS = 300, ROUNDS_MAX = 300 * ROUNDS };

/* One pointer in every 512 bytes, so that whoever misses a stretch misses some. */
static void *volatile in_data[NAMES * STRIDE];
static void **added;
static bool is_over; /* atomic */

/* All that somebody names, so that the test sees what died though its memory is still as it was. */
enum { MADE_MAX = 2 * NAMES + (THREADS + 1) * (LEVELS + 1) * PER_LEVEL * 2 / STRIDE + WAITING };
static uintptr_t made[MADE_MAX];
static size_t made_count; /* atomic */

static Node *make(long value) {
    Node *node = cairn_make(Node, .value = value);
    size_t index = __atomic_fetch_add(&made_count, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&made[index], HIDE(node), __ATOMIC_RELEASE);
    return node;
}

static void check_all_made(void) {
    for (size_t i = 0; i < MADE_MAX; i++) {
        uintptr_t hidden = __atomic_load_n(&made[i], __ATOMIC_ACQUIRE);
        if (!hidden) continue;
        uint8_t count = __atomic_load_n(crn_count_of(SHOW(void, hidden)), __ATOMIC_RELAXED);
        if (count == 0) abort();
    }
}

static void check(void *const volatile *row, size_t count, long first) {
    for (size_t i = 0; i < count; i++) {
        if (((Node *)row[i * STRIDE])->value != first + (long)i) abort();
    }
}

/* Half a megabyte of frames under whatever is called; recursion is bounded by LEVELS. */
__attribute__((noinline)) static void descend(int levels, void (*run)(void)) {
    void *volatile frame[PER_LEVEL * 2];
    for (size_t i = 0; i < PER_LEVEL * 2; i++) frame[i] = NULL;
    for (size_t i = 0; i < PER_LEVEL * 2 / STRIDE; i++) frame[i * STRIDE] = make((long)i + levels);
    if (levels == 0)
        run();
    else
        descend(levels - 1, run);
    check(frame, PER_LEVEL * 2 / STRIDE, levels);
}

static void churn(void) {
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) (void)cairn_new(Node);
}

static void *run_deep(void *unused) {
    (void)unused;
    if (cairn_thread_register() != CAIRN_OK) abort();
    descend(LEVELS, churn);
    return NULL;
}

static void *wait_with_one(void *mutex) {
    if (cairn_thread_register() != CAIRN_OK) abort();
    Node *volatile mine = make(11);
    cairn_blocking_begin();
    pthread_mutex_lock(mutex);
    pthread_mutex_unlock(mutex);
    cairn_blocking_end();
    if (mine->value != 11) abort();
    return NULL;
}

static uint64_t scanned_by_others(void) {
    uint64_t bytes = 0;
    crn_enter();
    crn_world_take();
    for (unsigned i = 1; i < CRN_WORKERS_MAX; i++) bytes += crn_gc.workers[i].scanned.bytes;
    crn_world_release();
    crn_leave();
    return bytes;
}

static void wait_until_all_are_there(void) {
    while (__atomic_load_n(&made_count, __ATOMIC_RELAXED) < MADE_MAX) sched_yield();
    cairn_collect(CAIRN_COUNT);
}

/* Others help when a processor comes free for them, which may take long where much else runs. */
static uint64_t helped;
static void collect_often(void) {
    bool wants_help = crn_team.seat_count > 0; /* none under a limit of address space either */
    for (int round = 0; round < ROUNDS || (wants_help && !helped && round < ROUNDS_MAX); round++) {
        cairn_collect(round % 8 ? CAIRN_COUNT : CAIRN_TRACE);
        helped += scanned_by_others();
        if (round == 0) wait_until_all_are_there();
        if (round > 0) check_all_made();
    }
}

static void roots_are_found_by_whoever_looks(void **state) {
    (void)state;
    added = calloc(NAMES * STRIDE, sizeof(*added));
    assert_non_null(added);
    assert_int_equal(cairn_root_add(added, NAMES * STRIDE * sizeof(*added)), CAIRN_OK);
    for (size_t i = 0; i < NAMES; i++) {
        in_data[i * STRIDE] = make((long)i);
        added[i * STRIDE] = make((long)i + 1);
    }
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    pthread_t threads[THREADS], waiting[WAITING];
    for (int i = 0; i < WAITING; i++) {
        assert_int_equal(pthread_create(&waiting[i], NULL, wait_with_one, &mutex), 0);
    }
    pthread_attr_t attributes; /* musl gives 128 KiB of stack, less than the frames take */
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, STACK_BYTES), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], &attributes, run_deep, NULL), 0);
    }
    pthread_attr_destroy(&attributes);
    descend(LEVELS, collect_often);
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < WAITING; i++) pthread_join(waiting[i], NULL);
    check(in_data, NAMES, 0);
    check(added, NAMES, 1);
    if (crn_team.seat_count > 0) assert_true(helped > 0);
    cairn_root_remove(added);
    free(added);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roots_are_found_by_whoever_looks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
