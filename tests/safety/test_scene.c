/* SPDX-License-Identifier: MIT
 *
 * What reports say besides what happened: who still refers to the object, the stack, the same as
 * JSON; and what follows a report under each policy.
 */
#define _GNU_SOURCE
#include "../test_child.h"
#include "../test_report.h"

#include "base/report.h"
#include "os/stack.h"

#include <fcntl.h>
#include <sys/stat.h>

/* Where the system does not list the process's memory, or it takes too long, the heaps only are
 * looked through. */
#if CAIRN_TSAN_ || defined(IS_EMULATED)
#define HEAPS_ONLY 1
#else
#define HEAPS_ONLY 0
#endif

/* ---- Who refers to it ---- */

static NodeRef *held;       /* a pin keeps the array */
static Node *global_holder; /* data */
static void **mallocs, **rooted, **untyped;

/* The object is found through its field only; whatever this leaves on the stack is cleaned. */
__attribute__((noinline)) static void hide_references(void) {
    Node *node = cairn_new(Node);
    held = cairn_pin(cairn_new_array(NodeRef, 8));
    untyped = cairn_pin(cairn_alloc(64));
    mallocs = malloc(64);
    rooted = calloc(1, 64);
    assert_int_equal(cairn_root_add(rooted, 64), CAIRN_OK);
    cairn_set(&held[5], node);
    untyped[2] = node;
    mallocs[3] = node;
    rooted[4] = node;
    global_holder = node;
}

__attribute__((noinline)) static void delete_held(void) {
    Node *node = held[5].p;
    cairn_delete(node);
}

/* A second deletion, so that what is held by is asked for the waiting object. */
static void holders_are_named(void **state) {
    (void)state;
    char line[100];
    hide_references();
    delete_held();
    clean_stack();
    CATCH_REPORT(delete_held());
    assert_names("double delete");
    snprintf(line, sizeof(line), "still held by: the field at offset 40 of the reference at %p",
             (void *)held);
    assert_names(line);
    snprintf(line, sizeof(line), "still held by: offset 16 of the untyped memory at %p",
             (void *)untyped);
    assert_names(line);
#if !HEAPS_ONLY
    snprintf(line, sizeof(line), "still held by: global data, at %p", (void *)&global_holder);
    assert_names(line);
    snprintf(line, sizeof(line), "still held by: memory given to cairn_root_add, at %p",
             (void *)&rooted[4]);
    assert_names(line);
    snprintf(line, sizeof(line), "where Cairn does not look, at %p", (void *)&mallocs[3]);
    assert_names(line);
#endif
    cairn_root_remove(rooted);
    cairn_unpin(held);
    cairn_unpin(untyped);
    free(mallocs);
    free(rooted);
    global_holder = NULL;
}

static Node *of_thread;
static int is_ready, may_end, holder_id;
static void *hold_on_stack(void *unused) {
    Node *volatile node = of_thread;
    of_thread = NULL;
    holder_id = (int)gettid();
    if (cairn_thread_register() != CAIRN_OK) abort();
    __atomic_store_n(&is_ready, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&may_end, __ATOMIC_ACQUIRE)) {}
    cairn_keep(node);
    return unused;
}

__attribute__((noinline)) static uintptr_t start_holder(pthread_t *thread) {
    of_thread = cairn_new(Node);
    uintptr_t hidden = HIDE(of_thread);
    assert_int_equal(pthread_create(thread, NULL, hold_on_stack, NULL), 0);
    while (!__atomic_load_n(&is_ready, __ATOMIC_ACQUIRE)) {}
    return hidden;
}

__attribute__((noinline)) static void delete_hidden(uintptr_t hidden) {
    Node *node = SHOW(Node, hidden);
    cairn_delete(node);
}

static void other_stacks_are_named(void **state) {
    (void)state;
#if HEAPS_ONLY
    skip();
#endif
    pthread_t thread;
    char line[100];
    uintptr_t hidden = start_holder(&thread);
    delete_hidden(hidden);
    clean_stack();
    CATCH_REPORT(delete_hidden(hidden));
    snprintf(line, sizeof(line), "still held by: the stack of thread %d,", holder_id);
    assert_names(line);
    __atomic_store_n(&may_end, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
}

/* ---- The stack ---- */

__attribute__((noinline)) static void inner_culprit(Node *node) {
    cairn_delete(node);
    cairn_keep(node);
}
__attribute__((noinline)) static void outer_culprit(Node *node) {
    inner_culprit(node);
    cairn_keep(node);
}

/* Apart from who calls setjmp. */
__attribute__((noinline)) static Node *make_deleted(void) {
    Node *node = cairn_new(Node), *copy = node;
    cairn_delete(node);
    return copy;
}

static void stack_is_named(void **state) {
    (void)state;
    if (CAIRN_TSAN_ || system("command -v addr2line >/dev/null 2>&1") != 0) {
        skip();
        return;
    }
    Node *volatile copy = make_deleted();
    crn_os_use_symbolizer("addr2line");
    CATCH_REPORT(outer_culprit(copy));
    crn_os_use_symbolizer("0");
    const char *inner = strstr(report, "  stack: inner_culprit at ");
    assert_non_null(inner);
    const char *outer = strstr(inner, "  stack: outer_culprit at ");
    assert_non_null(outer);
    assert_non_null(strstr(outer, "  stack: stack_is_named at "));
    assert_non_null(strstr(inner, "test_scene.c:"));
}

/* No helper, or one that is not there, or that says nothing: files and offsets. */
static void stack_without_names_has_offsets(void **state) {
    (void)state;
    static const char *const helpers[] = {"0", "/nowhere/addr2line", "/bin/true"};
    Node *volatile copy = make_deleted();
    for (volatile size_t i = 0; i < 3; i++) {
        crn_os_use_symbolizer(helpers[i]);
        CATCH_REPORT(outer_culprit(copy));
        assert_names("  stack: /");
        assert_names("test_scene+0x");
        assert_null(strstr(report, "outer_culprit"));
    }
    crn_os_use_symbolizer("0");
}

/* ---- JSON ---- */

/* Whether it is one JSON value; moves on behind it. */
static bool skip_json(const char **at);
static bool skip_json_string(const char **at) {
    if (*(*at)++ != '"') return false;
    for (; **at != '"'; (*at)++) {
        if ((unsigned char)**at < 0x20) return false;
        if (**at == '\\') (*at)++;
    }
    (*at)++;
    return true;
}
static bool skip_json_row(const char **at, char end, bool has_keys) {
    for ((*at)++;; (*at)++) {
        if (has_keys && (!skip_json_string(at) || *(*at)++ != ':')) return false;
        if (!skip_json(at)) return false;
        if (**at == end) break;
        if (**at != ',') return false;
    }
    (*at)++;
    return true;
}
static bool skip_json(const char **at) {
    if (**at == '"') return skip_json_string(at);
    if (**at == '{') return skip_json_row(at, '}', true);
    if (**at == '[') return skip_json_row(at, ']', false);
    size_t digits = strspn(*at, "0123456789");
    *at += digits;
    return digits > 0;
}

static int report_to_file(long unused) {
    (void)unused;
    Node *node = cairn_new(Node), *copy = node;
    cairn_delete(node);
    if (crn_report_to_file("/nowhere/report.json") || crn_report_to_file("")) return 1;
    unlink("test_scene.pipe");
    bool is_taken = mkfifo("test_scene.pipe", 0600) != 0 || crn_report_to_file("test_scene.pipe");
    unlink("test_scene.pipe");
    if (is_taken) return 3;
    if (!crn_report_to_file("test_scene.json")) return 2;
    cairn_delete(copy);
    return 0;
}

static void json_says_the_same(void **state) {
    (void)state;
    static char json[1 << 16];
    unlink("test_scene.json");
    assert_true(is_one_report(run_child(report_to_file, 0)));
    assert_true(is_one_report(run_child(report_to_file, 0)));
    FILE *file = fopen("test_scene.json", "r");
    assert_non_null(file);
    for (int lines = 0; lines < 2; lines++) {
        assert_non_null(fgets(json, sizeof(json), file));
        const char *at = json;
        assert_true(skip_json(&at));
        assert_string_equal(at, "\n");
        assert_non_null(
            strstr(json, "{\"violation\":\"double delete\",\"what\":\"a Node (24 bytes)"));
        assert_non_null(strstr(json, ",\"type\":\"Node\""));
        assert_non_null(strstr(json, ",\"object_bytes\":24,"));
        assert_non_null(strstr(json, ",\"deleted_line\":"));
    }
    assert_null(fgets(json, sizeof(json), file));
    fclose(file);
    unlink("test_scene.json");
}

/* ---- Policies ---- */

static int told;
static void count_reports(const cairn_report *about, void *context) {
    bool is_right = about->size == sizeof(*about) && context == &told &&
                    about->violation == CAIRN_VIOLATION_DOUBLE_DELETE &&
                    strstr(about->text, "double delete") == about->text && about->json[0] == '{';
    told += is_right ? 1 : 1000;
}

enum { TIMES = 3 };
static int delete_again_and_again(long policy) {
    cairn_report_set_policy((cairn_report_policy)policy);
    cairn_on_report(count_reports, &told);
    Node *node = cairn_new(Node), *copy = node;
    cairn_delete(node);
    for (int i = 0; i < TIMES; i++) cairn_delete(copy);
    if (!cairn_is_deleted(copy)) return 99;
    return told;
}

static void policy_decides_what_follows(void **state) {
    (void)state;
    assert_true(is_one_report(run_child(delete_again_and_again, CAIRN_REPORT_ABORT)));
    int status = run_child(delete_again_and_again, CAIRN_REPORT_LOG);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1); /* one place */
    const char *first = strstr(child_output, "cairn: double delete");
    assert_non_null(first);
    assert_null(strstr(first + 1, "cairn: "));
    status = run_child(delete_again_and_again, CAIRN_REPORT_CALLBACK);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), TIMES);
    assert_null(strstr(child_output, "cairn: "));
}

static struct sigaction own_handler; /* Cairn's: a child of the tests listens for no faults */
static int touch_under_policy(long policy) {
    sigaction(SIGSEGV, &own_handler, NULL);
    cairn_report_set_policy((cairn_report_policy)policy);
    Node *volatile node = cairn_new(Node);
    cairn_delete(node);
    return (int)node->value;
}

static void faults_end_under_every_policy(void **state) {
    (void)state;
    for (long policy = CAIRN_REPORT_ABORT; policy <= CAIRN_REPORT_CALLBACK; policy++) {
        assert_true(is_one_report(run_child(touch_under_policy, policy)));
        assert_non_null(strstr(child_output, "use after delete"));
    }
}

int main(void) {
    (void)make_deleted();
    sigaction(SIGSEGV, NULL, &own_handler);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holders_are_named),
        cmocka_unit_test(other_stacks_are_named),
        cmocka_unit_test(stack_is_named),
        cmocka_unit_test(stack_without_names_has_offsets),
        cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(policy_decides_what_follows),
        cmocka_unit_test(faults_end_under_every_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
