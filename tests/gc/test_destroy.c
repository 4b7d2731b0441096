/* SPDX-License-Identifier: MIT
 *
 * What a destroyed heap leaves behind: nothing that names it.
 */
#include "../test.h"
#include "gc/gc.h"

#include <sched.h>
#include <unistd.h>

static int finalized;                    /* atomic */
static uint32_t is_destroyed, has_begun; /* atomic */

typedef struct {
    long value;
} Watched;
static void finalize(void *object) {
    if (((Watched *)object)->value != 5) abort();
    __atomic_fetch_add(&finalized, 1, __ATOMIC_RELAXED);
}
CAIRN_LEAF_WITH(Watched, (.finalize = finalize));

/* Runs while its heap is being destroyed, and sees its object whole to its end. */
static void run_long(void *object) {
    __atomic_store_n(&has_begun, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 2000; i++) sched_yield();
    if (__atomic_load_n(&is_destroyed, __ATOMIC_ACQUIRE)) abort();
    if (*(long *)object != 5) abort();
}
typedef struct {
    long value;
} Slow;
CAIRN_LEAF_WITH(Slow, (.finalize = run_long));

static cairn_heap *own_heap;
static uint32_t refusals; /* atomic */
static void destroy_own_heap(void *object) {
    (void)object;
    if (cairn_heap_destroy(own_heap) != CAIRN_ERROR_BUSY) abort();
    __atomic_fetch_add(&refusals, 1, __ATOMIC_RELEASE);
}
typedef struct {
    long value;
} Last;
CAIRN_LEAF_WITH(Last, (.finalize = destroy_own_heap));

static cairn_heap *make_heap(void) {
    cairn_heap *heap = NULL;
    assert_int_equal(cairn_heap_create(NULL, &heap), CAIRN_OK);
    return heap;
}

__attribute__((noinline)) static void make_watched(cairn_heap *heap, int count) {
    for (int i = 0; i < count; i++) {
        Watched *watched = cairn_new_in(heap, Watched);
        watched->value = 5;
    }
}

static void finalizers_of_a_destroyed_heap_are_not_called(void **state) {
    (void)state;
    __atomic_store_n(&finalized, 0, __ATOMIC_RELAXED);
    cairn_heap *other = make_heap(), *heap = make_heap();
    make_watched(heap, 100);
    clean_stack();
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    make_watched(other, 100);
    live_after(CAIRN_COUNT);
    cairn_finalize_pending();
    assert_true(__atomic_load_n(&finalized, __ATOMIC_RELAXED) <= 100);
    assert_int_equal(cairn_heap_destroy(other), CAIRN_OK);
    live_after(CAIRN_TRACE);
}

static void *destroy_meanwhile(void *heap) {
    while (!__atomic_load_n(&has_begun, __ATOMIC_ACQUIRE)) sched_yield();
    if (cairn_heap_destroy(heap) != CAIRN_OK) abort();
    __atomic_store_n(&is_destroyed, 1, __ATOMIC_RELEASE);
    return NULL;
}

__attribute__((noinline)) static void make_slow(cairn_heap *heap) {
    for (int i = 0; i < 3; i++) {
        Slow *slow = cairn_new_in(heap, Slow);
        slow->value = 5;
    }
}

static void heap_waits_for_a_finalizer_that_runs(void **state) {
    (void)state;
    cairn_heap *heap = make_heap();
    pthread_t thread;
    pthread_create(&thread, NULL, destroy_meanwhile, heap);
    make_slow(heap);
    live_after(CAIRN_COUNT);
    cairn_finalize_pending();
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
    live_after(CAIRN_TRACE);
}

__attribute__((noinline)) static void make_last(void) {
    own_heap = make_heap();
    for (int i = 0; i < 3; i++) cairn_new_in(own_heap, Last);
}

static void finalizer_cannot_destroy_its_heap(void **state) {
    (void)state;
    make_last();
    live_after(CAIRN_COUNT);
    while (!__atomic_load_n(&refusals, __ATOMIC_ACQUIRE)) cairn_finalize_pending();
    assert_int_equal(cairn_heap_destroy(own_heap), CAIRN_OK);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
}

/* Address sanitizers do not know the runtime's memory, so the worker is looked at itself. */
static void workers_forget_a_destroyed_heap(void **state) {
    (void)state;
    cairn_heap *heap = make_heap();
    static NodeRef *row;
    const void *core = &heap->core;
    row = cairn_new_array_in(heap, NodeRef, 100);
    for (int i = 0; i < 100; i++) cairn_set(&row[i], cairn_new_in(heap, Node));
    cairn_collect(CAIRN_COUNT);
    for (int i = 0; i < 100; i++) cairn_set(&row[i], NULL);
    cairn_collect(CAIRN_COUNT);
    row = NULL;
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    for (int i = 0; i < CRN_WORKERS_MAX; i++) assert_ptr_not_equal(crn_gc.workers[i].heap, core);
}

int main(void) {
    alarm(120);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finalizers_of_a_destroyed_heap_are_not_called),
        cmocka_unit_test(heap_waits_for_a_finalizer_that_runs),
        cmocka_unit_test(finalizer_cannot_destroy_its_heap),
        cmocka_unit_test(workers_forget_a_destroyed_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
