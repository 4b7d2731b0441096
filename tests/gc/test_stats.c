/* SPDX-License-Identifier: MIT
 *
 * Figures add up, and the walk meets every object once. In heaps of their own, so that nobody else
 * changes them.
 */
#include "../test.h"

static cairn_heap *heap;
static NodeRef *kept;

static int make_heap(void **state) {
    (void)state;
    return cairn_heap_create(NULL, &heap) != CAIRN_OK;
}
static int end_heap(void **state) {
    (void)state;
    kept = NULL;
    return cairn_heap_destroy(heap) != CAIRN_OK;
}

static cairn_stats now(void) {
    cairn_stats stats = CAIRN_STATS_INIT;
    assert_int_equal(cairn_stats_get(heap, &stats), CAIRN_OK);
    return stats;
}

static void assert_adds_up(void) {
    cairn_stats s = now();
    assert_int_equal(s.committed_bytes, s.live_bytes + s.young_bytes + s.free_in_blocks_bytes +
                                            s.free_blocks_bytes + s.slack_bytes + s.metadata_bytes);
    uint64_t freed = s.freed_by_count_bytes + s.freed_young_bytes + s.freed_by_trace_bytes +
                     s.freed_by_delete_bytes;
    uint64_t counted = s.live_bytes + s.young_bytes + freed;
    uint64_t apart =
        counted > s.allocated_bytes ? counted - s.allocated_bytes : s.allocated_bytes - counted;
    if (apart > 64 * 1024)
        fail_msg("allocated %zu, counted %zu", (size_t)s.allocated_bytes, (size_t)counted);
    assert_true(s.resident_bytes > 0 && s.shadow_bytes <= s.committed_bytes);
    assert_true(s.reserved_bytes >= s.committed_bytes);
    assert_true(s.pause_ns_min <= s.pause_ns_median && s.pause_ns_median <= s.pause_ns_p99);
    assert_true(s.epochs == 0 || (s.root_ns_total > 0 && s.root_ns_total < s.pause_ns_total));
}

/* Small, medium and large objects, rings, deletions, young ones that die. */
static void work(void) {
    kept = cairn_new_array_in(heap, NodeRef, 2000);
    for (int i = 0; i < 20000; i++) {
        Node *node = cairn_make_in(heap, Node, .value = i);
        if (i % 10 == 0) cairn_set(&kept[i / 10], node);
        if (i % 10 == 1) cairn_delete(node);
        if (i % 10 == 2) {
            cairn_set(&node->next, node);
            cairn_set(&kept[i / 10].p->other, node);
        }
        if (i % 100 == 3) { /* a deleted one that only a ring refers to, until the trace */
            cairn_set(&kept[i / 10].p->other.p->other, node);
            cairn_delete(node);
        }
        if (i % 5000 == 0) {
            cairn_collect(CAIRN_COUNT);
            assert_adds_up();
        }
    }
    void *large = cairn_alloc_bytes_in(heap, (size_t)9 << 20),
         *medium = cairn_alloc_bytes_in(heap, 100000);
    memset(large, 1, 100);
    assert_adds_up();
    cairn_collect(CAIRN_COUNT);
    assert_adds_up();
    cairn_keep(large);
    cairn_keep(medium);
}

static void drop_half(void) {
    for (int i = 0; i < 1000; i++) cairn_set(&kept[i], NULL);
}

static void figures_add_up(void **state) {
    (void)state;
    assert_adds_up();
    run_apart(work);
    live_after(CAIRN_COUNT);
    assert_adds_up();
    assert_int_equal(now().deleted_objects, 2200);
    assert_in_range(now().freed_by_delete_objects, 1990, 2000);
    assert_in_range(now().waiting_objects, 200, 210);
    live_after(CAIRN_TRACE);
    assert_adds_up();
    cairn_stats before = now();
    assert_in_range(before.live_objects, 4001, 4020);
    assert_in_range(before.freed_by_delete_objects, 2190, 2200);
    assert_in_range(before.waiting_objects, 0, 10);
    run_apart(drop_half);
    live_after(CAIRN_COUNT);
    assert_adds_up();
    cairn_stats counted = now();
    assert_in_range(counted.freed_by_count_objects - before.freed_by_count_objects, 990, 1010);
    live_after(CAIRN_TRACE);
    assert_adds_up();
    assert_in_range(now().freed_by_trace_objects - counted.freed_by_trace_objects, 990, 1010);
    assert_int_equal(now().freed_by_delete_objects + now().waiting_objects, 2200);
}

/* ---- The walk ---- */

struct walk {
    size_t objects, nodes, bytes;
    long sum;
    size_t limit;
};

static bool visit(void *object, const char *type_name, size_t bytes, size_t count, void *context) {
    struct walk *walk = context;
    walk->objects++;
    walk->bytes += bytes;
    if (count == 0) return false;
    if (strcmp(type_name, "Node") == 0) {
        walk->nodes++;
        walk->sum += ((Node *)object)->value;
    }
    return walk->objects < walk->limit;
}

static void walk_meets_every_object_once(void **state) {
    (void)state;
    NodeRef *array = cairn_new_array_in(heap, NodeRef, 1000);
    for (long i = 0; i < 1000; i++) cairn_set(&array[i], cairn_make_in(heap, Node, .value = i));
    char *large = cairn_alloc_bytes_in(heap, (size_t)5 << 20);
    struct walk walk = {.limit = SIZE_MAX};
    cairn_heap_walk(heap, visit, &walk);
    assert_int_equal(walk.objects, 1002);
    assert_int_equal(walk.nodes, 1000);
    assert_int_equal(walk.sum, 499500);
    assert_int_equal(walk.bytes, 1000 * sizeof(Node) + 8000 + ((size_t)5 << 20));
    assert_int_equal(now().live_objects, 1002);
    walk = (struct walk){.limit = 10};
    cairn_heap_walk(heap, visit, &walk);
    assert_int_equal(walk.objects, 10);
    cairn_keep(array);
    cairn_keep(large);
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    cairn_stats stats = {.size = 1};
    assert_int_equal(cairn_stats_get(heap, &stats), CAIRN_ERROR_ARGUMENT);
    assert_int_equal(cairn_stats_get(heap, NULL), CAIRN_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(figures_add_up, make_heap, end_heap),
        cmocka_unit_test_setup_teardown(walk_meets_every_object_once, make_heap, end_heap),
        cmocka_unit_test_setup_teardown(bad_arguments_are_refused, make_heap, end_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
