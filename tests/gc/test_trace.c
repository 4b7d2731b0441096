/* SPDX-License-Identifier: MIT
 *
 * Traces with helpers: the reclaimer's thread, or other threads that stand still, mark with the
 * coordinator. What is reachable keeps its contents, cycles go, counts that were stuck come down to
 * what is there.
 */
#include "../test.h"

enum { RINGS = 8000, LENGTH = 10, TRACES = 12, THREADS = 3, WARM = 200000 };

typedef struct Item Item;
typedef cairn_ref(Item) ItemRef;
typedef struct {
    long value;
} Hub;
CAIRN_LEAF(Hub);
typedef cairn_ref(Hub) HubRef;
typedef cairn_ref(void) AnyRef;
struct Item {
    ItemRef next;
    HubRef hub;    /* one for all: its count is stuck */
    AnyRef hiding; /* untyped memory with the only pointer to another item */
    uint64_t ring;
};
CAIRN_TYPE(Item, next, hub, hiding);

static Hub *hub;

static Item *make_item(uint64_t ring) {
    Item *item = cairn_make(Item, .ring = ring);
    cairn_set(&item->hub, hub);
    return item;
}

static Item *make_ring(uint64_t number) {
    Item *first = make_item(number), *last = first;
    for (int i = 1; i < LENGTH; i++) {
        Item *item = make_item(number);
        cairn_set(&last->next, item);
        last = item;
    }
    cairn_set(&last->next, first);
    if (number % 16 == 0) {
        Item **hiding = cairn_alloc(sizeof(*hiding));
        *hiding = make_item(number);
        cairn_set(&first->hiding, (void *)hiding);
    }
    return first;
}

static void check_ring(const Item *first, uint64_t number) {
    const Item *item = first;
    for (int i = 0; i < LENGTH; i++, item = item->next.p) {
        if (item->ring != number || !item->hub.p || item->hub.p->value != 7) abort();
    }
    if (item != first) abort();
    if (number % 16 == 0 && (*(Item *const *)first->hiding.p)->ring != number) abort();
}

/* Dies by count, so much that the reclaimer is wanted: its thread starts with the first epoch that
 * leaves it much to do. */
static void warm_up(ItemRef *table) {
    for (uint64_t i = 0; i < WARM; i++) cairn_set(&table[i % RINGS], make_item(i));
}

/* Replaces rings; every one that is dropped is a cycle. */
static void *churn(void *unused) {
    (void)unused;
    if (cairn_thread_register() != CAIRN_OK) abort();
    ItemRef *table = cairn_new_array(ItemRef, RINGS);
    warm_up(table);
    uint64_t number = 0;
    for (int traces = 0; traces < TRACES; traces++) {
        for (int i = 0; i < RINGS / 4; i++, number++) {
            cairn_set(&table[number % RINGS], make_ring(number));
        }
        cairn_collect(CAIRN_TRACE);
    }
    for (uint64_t i = number < RINGS ? 0 : number - RINGS; i < number; i++) {
        check_ring(table[i % RINGS].p, i);
    }
    return NULL;
}

static void run_threads(int count) {
    pthread_t threads[THREADS];
    for (int i = 0; i < count; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn, NULL), 0);
    }
    cairn_blocking_begin();
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    cairn_blocking_end();
}

/* Words that a stack still holds may keep a ring or two with what hangs on it. */
enum { FEW = 4 * (LENGTH + 2) };

static void assert_all_gone(void) {
    for (int i = 0; i < 3; i++) collect_and_clean(CAIRN_TRACE);
    assert_in_range(live_objects(), 0, FEW);
    assert_in_range(cairn_count(hub), 0, FEW);
}

static void one_thread_traces_with_a_helper(void **state) {
    (void)state;
    run_threads(1);
    assert_all_gone();
}

static void threads_that_stand_still_trace(void **state) {
    (void)state;
    run_threads(THREADS);
    assert_all_gone();
}

/* ---- Memory for who asks ---- */

typedef struct Big Big;
typedef cairn_ref(Big) BigRef;
struct Big {
    BigRef next;
    char rest[2000];
};
CAIRN_TYPE(Big, next);

static cairn_heap *place;
static BigRef kept, dropped;
static void grow(BigRef *list, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(Big); i++) {
        Big *big = cairn_new_in(place, Big);
        assert_non_null(big);
        cairn_set(&big->next, list->p);
        cairn_set(list, big);
    }
}

static void grow_both(void) {
    grow(&kept, (size_t)100 << 20);
    grow(&dropped, (size_t)110 << 20);
    cairn_set(&dropped, NULL);
}

/* Segments that a trace keeps for small objects go to a large one that finds no other memory. */
static void free_segments_serve_large_objects(void **state) {
    (void)state;
    place = make_small_heap();
    run_apart(grow_both);
    for (int i = 0; i < 2; i++) collect_and_clean(CAIRN_TRACE);
    assert_non_null(cairn_alloc_bytes_in(place, (size_t)80 << 20));
    cairn_set(&kept, NULL);
    assert_int_equal(cairn_heap_destroy(place), CAIRN_OK);
}

static int make_hub(void **state) {
    (void)state;
    hub = cairn_make(Hub, .value = 7);
    return hub == NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_traces_with_a_helper),
        cmocka_unit_test(threads_that_stand_still_trace),
        cmocka_unit_test(free_segments_serve_large_objects),
    };
    return cmocka_run_group_tests(tests, make_hub, NULL);
}
