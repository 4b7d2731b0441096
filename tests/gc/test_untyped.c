/* SPDX-License-Identifier: MIT
 *
 * Untyped memory: what its words name lives, what they name no more dies by count, however a page
 * came to change: a store, a system call, its neighbour's death. Method: hide the only pointers in
 * untyped memory, change some, collect, and look at counts and contents. Counts are exact, so a
 * page scanned once too often or too rarely shows.
 */
#include "../test.h"
#include "object/object.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS = 4096 };
static void **memory;

static void fill(void) {
    memory = cairn_alloc(WORDS * sizeof(void *));
    for (size_t i = 0; i < WORDS; i += 8) memory[i] = cairn_make(Node, .value = (long)i);
}

static void check(void) {
    for (size_t i = 0; i < WORDS; i += 8) {
        Node *node = memory[i];
        if (node) assert_int_equal(node->value, i);
    }
}

static void unchanged_pages_keep_what_they_name(void **state) {
    (void)state;
    run_apart(fill);
    for (int i = 0; i < 10; i++) {
        live_after(i % 3 ? CAIRN_COUNT : CAIRN_TRACE);
        check();
    }
}

static void stored_words_are_seen(void **state) {
    (void)state;
    uint64_t before = live_after(CAIRN_COUNT);
    for (size_t i = 0; i < WORDS / 2; i += 8) memory[i] = NULL;
    uint64_t after = live_after(CAIRN_COUNT);
    assert_true(after <= before - WORDS / 16 + 10);
    check();
    Node *node = memory[WORDS / 2];
    cairn_collect(CAIRN_COUNT);
    size_t count = cairn_count(node);
    for (size_t i = 0; i < 100; i++) memory[i * 8] = node;
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(node), count + 100);
    for (size_t i = 0; i < 100; i++) memory[i * 8] = NULL;
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_count(node), count);
}

/* The kernel writes the only pointer to an object into a page that nobody stores to. */
static void words_written_by_a_system_call_are_seen(void **state) {
    (void)state;
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    for (int i = 0; i < 20; i++) {
        static Node *node;
        node = cairn_make(Node, .value = 1000 + i);
        cairn_collect(CAIRN_COUNT);
        size_t at = 8 * (size_t)(i + 1) + 1;
        assert_int_equal(write(pipe_ends[1], &node, sizeof(node)), sizeof(node));
        assert_int_equal(read(pipe_ends[0], &memory[at], sizeof(node)), sizeof(node));
        node = NULL;
        for (int k = 0; k < 3; k++) live_after(CAIRN_COUNT);
        assert_int_equal(((Node *)memory[at])->value, 1000 + i);
    }
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

static void dropped_memory_gives_up_what_it_named(void **state) {
    (void)state;
    run_apart(fill);
    uint64_t before = live_after(CAIRN_COUNT);
    memory = NULL;
    assert_true(live_after(CAIRN_COUNT) <= before - WORDS / 8);
}

static void **small[64];
static void make_small(void) {
    for (size_t i = 0; i < 64; i++) {
        small[i] = cairn_alloc(100);
        small[i][3] = cairn_make(Node, .value = (long)i);
    }
}

/* Neighbours on one page: the death of one makes the page give up its words and no others. */
static void small_neighbours_die_alone(void **state) {
    (void)state;
    run_apart(make_small);
    uint64_t before = live_after(CAIRN_COUNT);
    for (size_t i = 0; i < 64; i += 2) small[i] = NULL;
    assert_true(live_after(CAIRN_COUNT) <= before - 64 + 10);
    live_after(CAIRN_COUNT);
    assert_true(live_after(CAIRN_COUNT) >= before - 64 - 2);
    for (size_t i = 1; i < 64; i += 2) assert_int_equal(((Node *)small[i][3])->value, i);
    memset(small, 0, sizeof(small));
    live_after(CAIRN_COUNT);
    assert_true(live_after(CAIRN_COUNT) <= before - 128 + 10);
}

static void make_cycle(void) {
    for (int i = 0; i < 100; i++) {
        void **cell = cairn_alloc(64);
        Node *node = cairn_new(Node);
        typedef cairn_ref(void) AnyRef;
        AnyRef *any = cairn_new_array(AnyRef, 1);
        cairn_set(&any[0], cell);
        cell[0] = any;
        cell[1] = node;
    }
}

static void cycle_through_untyped_memory_goes_with_the_trace(void **state) {
    (void)state;
    uint64_t before = live_after(CAIRN_TRACE);
    run_apart(make_cycle);
    live_after(CAIRN_COUNT);
    live_after(CAIRN_TRACE);
    assert_true(live_after(CAIRN_TRACE) <= before + 10);
}

static Node *popular;
static void make_popular(void) {
    popular = cairn_make(Node, .value = 77);
    for (size_t i = 0; i < WORDS; i++) memory[i] = popular;
}

/* A count that is stuck, held by words alone, is lowered to them by the trace. */
static void stuck_count_from_words_is_lowered(void **state) {
    (void)state;
    memory = cairn_alloc(WORDS * sizeof(void *));
    run_apart(make_popular);
    uintptr_t hidden = HIDE(popular);
    popular = NULL;
    live_after(CAIRN_COUNT);
    for (size_t i = 7; i < WORDS; i++) memory[i] = NULL;
    live_after(CAIRN_COUNT);
    live_after(CAIRN_TRACE);
    assert_int_equal(cairn_count(SHOW(Node, hidden)), 7);
    assert_int_equal(SHOW(Node, hidden)->value, 77);
    memory = NULL;
}

/* The program closes every descriptor, the watch's too: then all pages are scanned. */
static void closed_descriptors_lose_nothing(void **state) {
    (void)state;
    run_apart(fill);
    live_after(CAIRN_COUNT);
    for (int file = 3; file < 64; file++) close(file);
    for (int i = 0; i < 64; i++) assert_true(open("/dev/null", O_RDONLY) >= 0);
    for (size_t i = 0; i < WORDS / 2; i += 8) memory[i] = cairn_make(Node, .value = (long)i);
    for (int i = 0; i < 4; i++) {
        live_after(CAIRN_COUNT);
        check();
    }
    for (int file = 3; file < 67; file++) close(file);
    memory = NULL;
}

/* The child's stores are the child's: it must not ask which pages its parent wrote. */
static void child_sees_its_own_stores(void **state) {
    (void)state;
    run_apart(fill);
    for (int i = 0; i < 3; i++) live_after(CAIRN_COUNT);
    pid_t child = fork();
    if (child == 0) {
        /* It allows no new thread in the child of a process with threads. */
        if (CAIRN_TSAN_) crn_settings.has_reclaimer = false;
        for (int round = 0; round < 3; round++) {
            for (size_t i = 0; i < WORDS; i += 8) memory[i] = cairn_make(Node, .value = (long)i);
            for (int i = 0; i < 3; i++) live_after(CAIRN_COUNT);
            for (int i = 0; i < 100000; i++) cairn_new(Node);
            check();
        }
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    check();
    memory = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unchanged_pages_keep_what_they_name),
        cmocka_unit_test(stored_words_are_seen),
        cmocka_unit_test(words_written_by_a_system_call_are_seen),
        cmocka_unit_test(dropped_memory_gives_up_what_it_named),
        cmocka_unit_test(small_neighbours_die_alone),
        cmocka_unit_test(cycle_through_untyped_memory_goes_with_the_trace),
        cmocka_unit_test(stuck_count_from_words_is_lowered),
        cmocka_unit_test(child_sees_its_own_stores),
        cmocka_unit_test(closed_descriptors_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
