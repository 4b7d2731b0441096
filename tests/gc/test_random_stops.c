/* SPDX-License-Identifier: MIT
 *
 * The barrier and the inline allocator, stopped anywhere. Threads hammer cairn_set, cairn_swap and
 * cairn_cas on fields of the same old objects and allocate in between, while CAIRN_STRESS_STOP
 * stops them at random instants and CAIRN_VERIFY=1 recomputes every count at each stop: one store
 * that the log missed is a report. The work ends by the number of stops, not by time.
 */
#include "../test.h"

#include <stdio.h>

enum { THREADS = 3, FIELDS = 64, TARGETS = 16, STOPS = 600 };

static NodeRef *fields, *targets;
static uint32_t is_over;

static uint64_t draw(uint64_t *random, uint64_t below) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % below;
}

static void store_one(uint64_t *random) {
    NodeRef *field = &fields[draw(random, FIELDS)];
    Node *target = targets[draw(random, TARGETS)].p, *expected = cairn_load(field);
    switch (draw(random, 5)) {
    case 0:
    case 1:
        cairn_set(field, target);
        break;
    case 2:
        cairn_set(field, NULL);
        break;
    case 3:
        cairn_swap(field, target);
        break;
    default:
        cairn_cas(field, &expected, target);
    }
}

/* What the program made since the last stop is young: new objects with old ones in them, each held
 * by this stack alone until it is looked at again. */
static void allocate_one(uint64_t *random) {
    long value = (long)draw(random, 1 << 30);
    Node *first = cairn_new(Node);
    first->value = value;
    cairn_set(&first->next, targets[draw(random, TARGETS)].p);
    Node *second = cairn_make(Node, .next = {first}, .other = {first->next.p}, .value = ~value);
    free(malloc(draw(random, 2000) + 1));
    if (second->value != ~value || second->next.p->value != value) abort();
    if (second->next.p->next.p->value != 7 || second->other.p->value != 7) abort();
}

static void *hammer(void *argument) {
    /* Where pthread_create is not interposed a thread that stores first is not known yet. */
    if (cairn_thread_register() != CAIRN_OK) abort();
    uint64_t random = (uint64_t)(uintptr_t)argument * 0x9e3779b97f4a7c15u;
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        for (int i = 0; i < 100; i++) store_one(&random);
        for (int i = 0; i < 5; i++) allocate_one(&random);
    }
    return NULL;
}

static void stores_are_counted_wherever_threads_stop(void **state) {
    (void)state;
    fields = cairn_new_array(NodeRef, FIELDS);
    targets = cairn_new_array(NodeRef, TARGETS);
    for (size_t i = 0; i < TARGETS; i++) cairn_set(&targets[i], cairn_make(Node, .value = 7));
    cairn_collect(CAIRN_COUNT);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, (void *)(i + 1)), 0);
    }
    uint64_t begin = stats_now().epochs;
    while (stats_now().epochs < begin + STOPS) cairn_make(Node, .value = 1);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++) {
        cairn_blocking_begin();
        pthread_join(threads[i], NULL);
        cairn_blocking_end();
    }
    cairn_collect(CAIRN_COUNT);
    for (size_t i = 0; i < TARGETS; i++) {
        size_t expected = 1;
        for (size_t k = 0; k < FIELDS; k++) expected += fields[k].p == targets[i].p;
        assert_int_equal(cairn_count(targets[i].p), expected);
    }
}

int main(void) {
    setenv("CAIRN_STRESS_STOP", "60", 1);
    setenv("CAIRN_VERIFY", "1", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(stores_are_counted_wherever_threads_stop)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
