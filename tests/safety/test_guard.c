/* SPDX-License-Identifier: MIT
 *
 * Guard mode, in children that start Cairn anew with CAIRN_GUARD set: how many objects are guarded,
 * what happens at the kernel's limit on mappings, when addresses come back, and that the collector
 * never touches what it has taken away. tests/corpus has the accesses that must trap.
 */
#define _GNU_SOURCE
#include "../test_child.h"
#include "heap/guard.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) return __LINE__ % 250 + 1;                                               \
    } while (0)

static int (*body_to_run)(void);
static int start_guarded(long period) {
    char text[32];
    snprintf(text, sizeof(text), "%ld", period);
    setenv("CAIRN_GUARD", text, 1);
    return body_to_run();
}

/* Status 0, and the line of the CHECK that failed otherwise. */
static void run_guarded(long period, int (*body)(void)) {
    body_to_run = body;
    int status = run_child(start_guarded, period);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        fail_msg("status %x (line %d mod 250)\n%s", (unsigned)status, WEXITSTATUS(status) - 1,
                 child_output);
    }
}

static bool is_guarded(const void *object) {
    return crn_guard_block_of(object) != NULL;
}

typedef struct {
    char bytes[40];
} Leaf;
CAIRN_LEAF(Leaf);

/* ---- Where objects lie ---- */

static bool ends_with_its_page(const void *object, size_t bytes) {
    uintptr_t end = (uintptr_t)object + (bytes + 15) / 16 * 16;
    return is_guarded(object) && (uintptr_t)object % 16 == 0 && end % crn_os_page_bytes() == 0;
}

static int every_object_ends_with_its_page(void) {
    for (int i = 0; i < 100; i++) {
        CHECK(ends_with_its_page(cairn_new(Leaf), sizeof(Leaf)));
        CHECK(ends_with_its_page(cairn_make(Node, .value = i), sizeof(Node)));
    }
    for (size_t bytes = 0; bytes < 40000; bytes = bytes * 2 + 7) {
        char *text = cairn_alloc_bytes(bytes);
        CHECK(ends_with_its_page(text, bytes ? bytes : 1));
        memset(text, 1, bytes);
        CHECK(cairn_length(text) == bytes);
    }
    NodeRef *array = cairn_new_array(NodeRef, 5000);
    CHECK(ends_with_its_page(array, 5000 * sizeof(NodeRef)) && cairn_length(array) == 5000);
    void *aligned = cairn_alloc_aligned(100, 1024);
    CHECK(is_guarded(aligned) && (uintptr_t)aligned % 1024 == 0);
    return 0;
}

static void placing(void **state) {
    (void)state;
    run_guarded(1, every_object_ends_with_its_page);
}

/* ---- What the collector does with them ---- */

enum { ROUNDS = 60, NODES = 40 };
__attribute__((noinline)) static NodeRef *build(void) {
    NodeRef *array = cairn_new_array(NodeRef, NODES);
    for (int i = 0; i < NODES; i++) {
        Node *node = cairn_make(Node, .next = {i ? array[i - 1].p : NULL}, .value = i);
        cairn_set(&array[i], node);
    }
    return array;
}

/* Stored into, counted, stored into again, deleted at once: the log has fields of what was sealed.
 */
static int deletes_amid_logs(void) {
    NodeRef *array = build();
    for (int round = 0; round < ROUNDS; round++) {
        cairn_collect(round % 8 == 7 ? CAIRN_TRACE : CAIRN_COUNT);
        Node *node = array[round % NODES].p;
        if (!cairn_is_deleted(node)) {
            Node *other = cairn_make(Node, .value = round);
            cairn_set(&node->next, other);
            cairn_set(&node->other, array[(round + 1) % NODES].p);
            cairn_delete(node);
        }
        void **untyped = cairn_alloc(64);
        untyped[0] = array;
        if (round % 3 == 0) cairn_collect(CAIRN_COUNT);
        cairn_delete(untyped);
        cairn_set(&array[(round + 5) % NODES], cairn_make(Node, .value = 1));
    }
    cairn_collect(CAIRN_TRACE);
    cairn_collect(CAIRN_TRACE);
    return 0;
}

static void collector_keeps_off(void **state) {
    (void)state;
    setenv("CAIRN_VERIFY", "1", 1);
    run_guarded(1, deletes_amid_logs);
    run_guarded(3, deletes_amid_logs);
    unsetenv("CAIRN_VERIFY");
}

/* ---- When addresses come back ---- */

__attribute__((noinline)) static uintptr_t place_of_one(void) {
    return (uintptr_t)cairn_new(Leaf);
}

static int dead_addresses_are_not_used_again(void) {
    static uintptr_t places[3000];
    for (int i = 0; i < 3000; i++) {
        places[i] = ~place_of_one();
        if (i % 500 == 499) cairn_collect(CAIRN_COUNT);
    }
    for (int i = 0; i < 3000; i++) {
        for (int k = i + 1; k < 3000 && k < i + 200; k++) CHECK(places[i] != places[k]);
    }
    return 0;
}

/* In a heap with room for few, dead ones serve again, the longest dead first. */
static int addresses_come_back_when_there_are_no_others(void) {
    cairn_heap *heap = make_small_heap();
    uintptr_t first = 0;
    int again = 0;
    for (int i = 0; i < 20000 && !again; i++) {
        uintptr_t place = ~(uintptr_t)cairn_new_in(heap, Leaf);
        if (i == 0) first = place;
        again = i > 0 && place == first ? i : 0;
        if (i % 500 == 499) cairn_collect(CAIRN_COUNT);
    }
    /* 64 segments of 120 blocks. */
    CHECK(again > 5000);
    return 0;
}

static void addresses(void **state) {
    (void)state;
    run_guarded(1, dead_addresses_are_not_used_again);
    run_guarded(1, addresses_come_back_when_there_are_no_others);
}

/* ---- How many ---- */

enum { PERIOD = 50, WANTED = 60, ALLOCATIONS_MAX = 40000000 };

/* Allocates until so many were guarded; returns how many allocations that took. */
static size_t allocations_until(size_t wanted) {
    size_t guarded = 0, allocations = 0;
    while (guarded < wanted && allocations < ALLOCATIONS_MAX) {
        guarded += is_guarded(cairn_new(Leaf));
        guarded += is_guarded(cairn_strdup("text"));
        allocations += 2;
    }
    return allocations;
}

/* Not more often than one in so many, but for chance; how much rarer is a matter of time. */
static int one_in_some_is_guarded(void) {
    size_t allocations = allocations_until(WANTED);
    CHECK(allocations < ALLOCATIONS_MAX);
    CHECK(allocations > WANTED * PERIOD / 2);
    return 0;
}

static int none_is_guarded(void) {
    for (int i = 0; i < 100000; i++) CHECK(!is_guarded(cairn_new(Leaf)));
    return 0;
}

static void sampling(void **state) {
    (void)state;
    run_guarded(PERIOD, one_in_some_is_guarded);
    run_guarded(0, none_is_guarded);
}

/* ---- The limit of mappings ---- */

/* More than the kernel allows live at once: some are not guarded, one note says so, and nothing
 * else is different. */
static int limit_is_met_gracefully(void) {
    enum { MANY = 60000 };
    NodeRef *array = cairn_new_array(NodeRef, MANY);
    size_t guarded = 0;
    for (int i = 0; i < MANY; i++) {
        Node *node = cairn_make(Node, .value = i);
        CHECK(node);
        guarded += is_guarded(node);
        cairn_set(&array[i], node);
    }
    CHECK(guarded > 1000 && guarded < MANY);
    for (int i = 0; i < MANY; i++) CHECK(array[i].p->value == i);
    void *memory = malloc(10 << 20);
    CHECK(memory);
    free(memory);
    cairn_clear(array);
    cairn_collect(CAIRN_TRACE);
    cairn_collect(CAIRN_TRACE);
    CHECK(is_guarded(cairn_new(Node)));
    return 0;
}

static void limit(void **state) {
    (void)state;
    if (crn_os_mappings_max() > 100000) {
        skip();
        return;
    }
    run_guarded(1, limit_is_met_gracefully);
    const char *note = strstr(child_output, "cairn: note: guard mode: the kernel's limit");
    assert_non_null(note);
    assert_null(strstr(note + 1, "cairn: "));
}

/* ---- Settings ---- */

static int start_badly(long which) {
    static const char *const values[] = {"x", "-1", "4294967295"};
    setenv("CAIRN_GUARD", values[which], 1);
    (void)cairn_new(Leaf);
    return 0;
}

static void bad_values_are_errors(void **state) {
    (void)state;
    for (long which = 0; which < 3; which++) {
        assert_true(is_one_report(run_child(start_badly, which)));
        assert_non_null(strstr(child_output, "CAIRN_GUARD="));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placing),   cmocka_unit_test(collector_keeps_off),
        cmocka_unit_test(addresses), cmocka_unit_test(sampling),
        cmocka_unit_test(limit),     cmocka_unit_test(bad_values_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
