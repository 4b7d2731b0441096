/* SPDX-License-Identifier: MIT
 *
 * Weak references: they never keep their target, read as NULL from the moment it dies, and never
 * bring it back; wherever they lie and whichever heap their target is in. What looks at targets
 * that are to die runs on a thread of its own, so that no stack keeps them.
 */
#include "../test.h"

#include <sched.h>

typedef struct Holder {
    NodeRef strong;
    cairn_weak weak, more[2];
} Holder;
CAIRN_TYPE(Holder, strong, CAIRN_WEAK(weak), CAIRN_WEAK(more));
typedef cairn_ref(Holder) HolderRef;

static cairn_weak in_static;
static Holder *holder;

__attribute__((noinline)) static void set_both(void) {
    Node *node = cairn_make(Node, .value = 7);
    holder = cairn_new(Holder);
    assert_true(cairn_weak_set(&in_static, node));
    assert_true(cairn_weak_set(&holder->weak, node));
    assert_true(cairn_weak_set(&holder->more[1], node));
    cairn_set(&holder->strong, node);
}

static void look_at_both(void) {
    assert_ptr_equal(cairn_weak_get(&in_static), holder->strong.p);
    assert_ptr_equal(cairn_weak_get(&holder->weak), holder->strong.p);
    assert_ptr_equal(cairn_weak_get(&holder->more[1]), holder->strong.p);
    assert_null(cairn_weak_get(&holder->more[0]));
    assert_int_equal(cairn_count(holder->strong.p), 1);
}
static void drop_strong(void) {
    cairn_set(&holder->strong, NULL);
}
static void look_at_static(void) {
    assert_non_null(cairn_weak_get(&in_static));
}

/* Static and field, through counts, traces and the target's end. */
static void weak_reads_the_target_until_it_dies(void **state) {
    (void)state;
    assert_null(cairn_weak_get(&in_static));
    run_apart(set_both);
    for (int i = 0; i < 3; i++) {
        live_after(i == 1 ? CAIRN_TRACE : CAIRN_COUNT);
        run_apart(look_at_both);
    }
    run_apart(drop_strong);
    live_after(CAIRN_COUNT);
    assert_null(cairn_weak_get(&in_static));
    assert_null(cairn_weak_get(&holder->weak));
    assert_null(cairn_weak_get(&holder->more[1]));
    holder = NULL;
}

__attribute__((noinline)) static void set_young(void) {
    assert_true(cairn_weak_set(&in_static, cairn_make(Node, .value = 8)));
    assert_non_null(cairn_weak_get(&in_static));
}

static void weak_to_a_young_target_is_cleared(void **state) {
    (void)state;
    run_apart(set_young);
    live_after(CAIRN_COUNT);
    assert_null(cairn_weak_get(&in_static));
}

__attribute__((noinline)) static void set_ring(void) {
    Node *a = cairn_new(Node), *b = cairn_make(Node, .next = {a});
    cairn_set(&a->next, b);
    assert_true(cairn_weak_set(&in_static, a));
    cairn_collect(CAIRN_COUNT); /* mature: from now on only a trace finds it dead */
}

static void weak_to_a_ring_is_cleared_by_the_trace(void **state) {
    (void)state;
    run_apart(set_ring);
    live_after(CAIRN_COUNT);
    run_apart(look_at_static);
    live_after(CAIRN_TRACE);
    assert_null(cairn_weak_get(&in_static));
}

/* The pointer that a weak reference gave keeps the object although its last count is queued. */
static void weak_result_outlives_the_last_count(void **state) {
    (void)state;
    Holder *own = cairn_new(Holder);
    cairn_set(&own->strong, cairn_make(Node, .value = 9));
    assert_true(cairn_weak_set(&own->weak, own->strong.p));
    live_after(CAIRN_COUNT);
    cairn_set(&own->strong, NULL);
    Node *node = cairn_weak_get(&own->weak);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    assert_int_equal(node->value, 9);
    assert_ptr_equal(cairn_weak_get(&own->weak), node);
}

static void weak_to_a_deleted_object_reads_null(void **state) {
    (void)state;
    Node *node = cairn_new(Node), *copy = node;
    cairn_weak weak = {NULL};
    assert_true(cairn_weak_set(&weak, node));
    cairn_delete(node);
    assert_null(cairn_weak_get(&weak));
    assert_true(cairn_weak_set(&weak, copy));
    assert_null(cairn_weak_get(&weak));
    assert_true(cairn_weak_set(&weak, NULL));
    assert_null(cairn_weak_get(&weak));
}

/* Cells come and go: what a million targets needed is free again. */
__attribute__((noinline)) static void make_many(void) {
    Holder *own = cairn_new(Holder);
    for (int i = 0; i < 20000; i++) {
        assert_true(cairn_weak_set(&own->weak, cairn_make(Node, .value = i)));
    }
}

static void cells_die_with_targets_and_weak_fields(void **state) {
    (void)state;
    uint64_t before = live_after(CAIRN_COUNT);
    run_apart(make_many);
    live_after(CAIRN_COUNT);
    assert_true(live_after(CAIRN_COUNT) <= before + 20);
}

/* Targets and weak fields in heaps that end; in either order. */
__attribute__((noinline)) static cairn_heap *heap_with(bool is_target_inside) {
    cairn_heap *heap = NULL;
    assert_int_equal(cairn_heap_create(NULL, &heap), CAIRN_OK);
    if (is_target_inside) {
        Node *node = cairn_new_in(heap, Node);
        holder = cairn_new(Holder);
        assert_true(cairn_weak_set(&holder->weak, cairn_pin(node)));
    } else {
        holder = cairn_new(Holder);
        cairn_set(&holder->strong, cairn_new(Node));
        Holder *inside = cairn_pin(cairn_new_in(heap, Holder));
        for (int i = 0; i < 3; i++) {
            cairn_weak *weak = i ? &inside->more[i - 1] : &inside->weak;
            assert_true(cairn_weak_set(weak, holder->strong.p));
        }
    }
    return heap;
}

static void weak_crosses_heaps(void **state) {
    (void)state;
    cairn_heap *heap = heap_with(true);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    assert_non_null(cairn_weak_get(&holder->weak));
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    assert_null(cairn_weak_get(&holder->weak));
    live_after(CAIRN_TRACE);
    holder = NULL;
    uint64_t before = live_after(CAIRN_COUNT);
    heap = heap_with(false);
    live_after(CAIRN_TRACE);
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    holder = NULL;
    live_after(CAIRN_COUNT); /* verified in audit builds: no cell has a count too many */
    assert_true(live_after(CAIRN_COUNT) <= before + 4);
}

/* Threads set weak references to shared objects while those are replaced and collections run. */
enum { SHARED = 16, THREADS = 3, ROUNDS = 4000 };
static NodeRef *shared;
static int is_over, steps;

static void *set_and_get(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument * 0x9e3779b97f4a7c15u + 1;
    Holder *own = cairn_new(Holder);
    long found = 0;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t at = (random >> 33) % SHARED;
        __atomic_fetch_add(&steps, 1, __ATOMIC_RELAXED);
        Node *node = cairn_load(&shared[at]);
        if (node && !cairn_weak_set(&own->weak, node)) abort();
        if (i % 3 == 0) cairn_set(&shared[at], cairn_make(Node, .value = 1000 + i));
        node = NULL;
        if (i % 64 == 0) cairn_collect(i % 1024 ? CAIRN_COUNT : CAIRN_TRACE);
        Node *again = cairn_weak_get(&own->weak);
        if (!again) continue;
        found++;
        if (again->value < 1000 || again->value >= 1000 + ROUNDS) abort();
    }
    return (void *)(intptr_t)found;
}

/* As often as the others get anything done: the world lock is not fair. */
static void *collect_all_the_time(void *unused) {
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {
        int seen = __atomic_load_n(&steps, __ATOMIC_RELAXED);
        cairn_collect(CAIRN_COUNT);
        while (__atomic_load_n(&steps, __ATOMIC_RELAXED) < seen + 20 &&
               !__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {
            sched_yield();
        }
    }
    return unused;
}

static void weak_set_and_get_race_with_collections(void **state) {
    (void)state;
    shared = cairn_new_array(NodeRef, SHARED);
    pthread_t threads[THREADS], collector;
    assert_int_equal(pthread_create(&collector, NULL, collect_all_the_time, NULL), 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, set_and_get, (void *)i), 0);
    }
    intptr_t found = 0;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        cairn_blocking_begin();
        pthread_join(threads[i], &result);
        cairn_blocking_end();
        found += (intptr_t)result;
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    cairn_blocking_begin();
    pthread_join(collector, NULL);
    cairn_blocking_end();
    assert_true(found > THREADS);
    shared = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weak_reads_the_target_until_it_dies),
        cmocka_unit_test(weak_to_a_young_target_is_cleared),
        cmocka_unit_test(weak_to_a_ring_is_cleared_by_the_trace),
        cmocka_unit_test(weak_result_outlives_the_last_count),
        cmocka_unit_test(weak_to_a_deleted_object_reads_null),
        cmocka_unit_test(cells_die_with_targets_and_weak_fields),
        cmocka_unit_test(weak_crosses_heaps),
        cmocka_unit_test(weak_set_and_get_race_with_collections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
