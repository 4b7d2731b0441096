/* SPDX-License-Identifier: MIT
 *
 * Two threads give one object its first weak reference. CAIRN_STRESS makes each of them collect
 * while it allocates its cell, so that both are between the look for a cell and the making of one.
 */
#include "../test.h"

#include <sched.h>

typedef struct Holder {
    cairn_weak weak;
} Holder;
CAIRN_TYPE(Holder, CAIRN_WEAK(weak));

/* Two threads make the first weak reference to one object at once, again and again: it has one
 * cell, so that its end clears both. */
enum { RACES = 300 };
static Node *target;
static Holder *holders[2];
static int round_number, done;

static void *set_first(void *own) {
    for (int i = 1; i <= RACES; i++) {
        while (__atomic_load_n(&round_number, __ATOMIC_ACQUIRE) < i) sched_yield();
        if (!cairn_weak_set(&((Holder *)own)->weak, target)) abort();
        __atomic_fetch_add(&done, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void racing_first_sets_share_a_cell(void **state) {
    (void)state;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        holders[i] = cairn_new(Holder);
        assert_int_equal(pthread_create(&threads[i], NULL, set_first, holders[i]), 0);
    }
    int differ = 0;
    for (int i = 1; i <= RACES; i++) {
        target = cairn_make(Node, .value = 5);
        __atomic_store_n(&round_number, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < 2 * i) sched_yield();
        differ += holders[0]->weak.cell != holders[1]->weak.cell;
        if (i % 50 == 0) cairn_collect(CAIRN_COUNT);
    }
    cairn_blocking_begin();
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    cairn_blocking_end();
    assert_int_equal(differ, 0);
    assert_ptr_equal(cairn_weak_get(&holders[0]->weak), target);
    cairn_delete(target);
    assert_null(cairn_weak_get(&holders[0]->weak));
    assert_null(cairn_weak_get(&holders[1]->weak));
}

int main(void) {
    setenv("CAIRN_STRESS", "1", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(racing_first_sets_share_a_cell)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
