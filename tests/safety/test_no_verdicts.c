/* SPDX-License-Identifier: MIT
 *
 * Checked looks where there is no room for verdicts: address space is limited before the first
 * call. They find the same, take no lock, and stand in the way of nobody who stops the world or
 * forks.
 */
#define CAIRN_CHECKED
#include "../test_report.h"

#include "space/space.h"

#include <sys/resource.h>
#include <sys/wait.h>

static NodeRef shared;
static bool is_over;

static void *look(void *unused) {
    volatile long seen;
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) seen = cairn_get(shared)->value;
    (void)seen;
    return unused;
}

static bool visit(void *object, const char *type_name, size_t bytes, size_t count, void *context) {
    (void)object;
    (void)type_name;
    (void)bytes;
    (void)count;
    (void)context;
    return cairn_get(shared)->value == 5;
}

static void looks_hinder_nobody(void **state) {
    (void)state;
    pthread_t threads[2];
    cairn_set(&shared, cairn_make(Node, .value = 5));
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, look, NULL);
    for (int i = 0; i < 50; i++) cairn_heap_walk(NULL, visit, NULL);
    for (int i = 0; i < 10 && !CAIRN_TSAN_; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            _exit(cairn_get(shared)->value == 5 ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    __atomic_store_n(&is_over, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_false(crn_verdicts_are_kept());
}

static void looks_find_the_same(void **state) {
    (void)state;
    Node *node = cairn_new(Node), *copy = node;
    cairn_set(&node->next, node);
    cairn_delete(node);
    CATCH_REPORT(cairn_set(&copy->other, NULL));
    assert_names("use after delete");
}

int main(void) {
    struct rlimit limit = {address_space() + ((rlim_t)8 << 30), RLIM_INFINITY};
    /* Sanitizers need address space themselves, and have no verdicts anyhow. */
    bool is_limited = CAIRN_TSAN_ || CAIRN_ASAN_ || setrlimit(RLIMIT_AS, &limit) == 0;
    if (!is_limited) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looks_hinder_nobody),
        cmocka_unit_test(looks_find_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
