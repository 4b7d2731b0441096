/* SPDX-License-Identifier: MIT
 *
 * Stacks of allocation and of deletion, in children that start Cairn anew with CAIRN_STACKS or
 * CAIRN_GUARD: every kind of report has both, with the functions that called, innermost first;
 * every allocation is seen, whatever file and thread it comes from; and what they take stays small
 * however long a program runs.
 */
#define _GNU_SOURCE
#define CAIRN_CHECKED
#include "../test_child.h"

#include "heap/guard.h"
#include "object/births.h"
#include "object/object.h"
#include "os/stack.h"

#include <fcntl.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) return __LINE__ % 250 + 1;                                               \
    } while (0)

void *plain_node(void); /* plain.c */

#define APART __attribute__((noinline))

static bool has_names(void) {
    return !CAIRN_TSAN_ && system("command -v addr2line >/dev/null 2>&1") == 0;
}

/* ---- Children ---- */

static const char *variable, *value;
static int (*body_to_run)(void);
static int start(long unused) {
    (void)unused;
    setenv(variable, value, 1);
    return body_to_run();
}

static int run_with(const char *name, const char *text, int (*body)(void)) {
    variable = name;
    value = text;
    body_to_run = body;
    return run_child(start, 0);
}

/* Status 0, and the line of the CHECK that failed otherwise. */
static void run_well(const char *name, const char *text, int (*body)(void)) {
    int status = run_with(name, text, body);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        fail_msg("%s=%s: status %x (line %d mod 250)\n%s", name, text, (unsigned)status,
                 WEXITSTATUS(status) - 1, child_output);
    }
}

static char json[1 << 16];
static void run_to_report(const char *name, const char *text, int (*body)(void)) {
    unlink("test_stacks.json");
    setenv("CAIRN_REPORT", "test_stacks.json", 1);
    int status = run_with(name, text, body);
    unsetenv("CAIRN_REPORT");
    if (!is_one_report(status))
        fail_msg("%s=%s: %x\n%s", name, text, (unsigned)status, child_output);
    FILE *file = fopen("test_stacks.json", "r");
    assert_non_null(file);
    json[fread(json, 1, sizeof(json) - 1, file)] = 0;
    fclose(file);
    unlink("test_stacks.json");
}

/* Below the line `key` come lines of two functions, and nothing between the key and them. */
static void assert_text_stack(const char *key, const char *inner, const char *outer) {
    char wanted[100];
    snprintf(wanted, sizeof(wanted), "\n  %s: ", key);
    const char *at = strstr(child_output, wanted);
    if (!at) fail_msg("no %s in:\n%s", key, child_output);
    const char *const names[] = {inner, outer};
    for (int i = 0; i < 2; i++) {
        at = strchr(at + 1, '\n');
        snprintf(wanted, sizeof(wanted), "\n    %s at ", has_names() ? names[i] : "/");
        if (!has_names()) wanted[6] = 0;
        bool is_right = at && strncmp(at, wanted, strlen(wanted)) == 0;
        if (!is_right) fail_msg("%s: no \"%s\" in:\n%s", key, names[i], child_output);
    }
}

static void assert_json_stack(const char *key, const char *inner, const char *outer) {
    char wanted[100];
    snprintf(wanted, sizeof(wanted), ",\"%s\":[\"%s", key, has_names() ? inner : "/");
    const char *at = strstr(json, wanted);
    if (!at) fail_msg("no %s in:\n%s", wanted, json);
    snprintf(wanted, sizeof(wanted), ",\"%s", has_names() ? outer : "/");
    const char *second = strstr(at + 1, "\",\"");
    if (!second || strncmp(second + 1, wanted, strlen(wanted)) != 0) {
        fail_msg("%s: no %s in:\n%s", key, wanted, json);
    }
}

static void assert_birth_told(void) {
    assert_text_stack("allocated", "make_inner", "make_outer");
    assert_json_stack("allocated_stack", "make_inner", "make_outer");
}
static void assert_both_told(void) {
    assert_birth_told();
    assert_text_stack("deleted", "end_inner", "end_outer");
    assert_json_stack("deleted_stack", "end_inner", "end_outer");
}

/* ---- Reports ---- */

static _Thread_local volatile int one = 1; /* what is behind a call keeps its frame */
APART static Node *make_inner(void) {
    Node *node = cairn_make(Node, .value = one);
    one = 1;
    return node;
}
APART static Node *make_outer(void) {
    Node *node = make_inner();
    one = 1;
    return node;
}
APART static void end_inner(Node *node) {
    cairn_delete(node);
    cairn_keep(node);
}
APART static void end_outer(Node *node) {
    end_inner(node);
    one = 1;
}

/* A copy of the pointer, whose object is deleted. */
static Node *make_deleted(void) {
    Node *node = make_outer();
    end_outer(node);
    return node;
}

static int read_of_the_variable(void) {
    Node *node = make_outer(), **variable_of_it = &node;
    NodeRef *field = cairn_new_array(NodeRef, 1);
    cairn_set(field, node);
    end_outer(*variable_of_it);
    cairn_collect(CAIRN_TRACE); /* from now on the field is a tombstone */
    return (int)field->p->value;
}
static int delete_twice(void) {
    Node *node = make_deleted();
    cairn_delete(node);
    return 0;
}
static int store_into_deleted(void) {
    Node *node = make_deleted();
    cairn_set(&node->next, NULL);
    return 0;
}
static int read_of_a_field(void) {
    NodeRef *field = cairn_new_array(NodeRef, 1);
    cairn_set(field, make_outer());
    end_outer(field->p);
    return (int)cairn_get(*field)->value;
}
static int read_of_a_copy(void) {
    return (int)((volatile Node *)make_deleted())->value;
}
static int copy_past_the_end(void) {
    memset(make_outer(), 0, sizeof(Node) + (size_t)one * 100);
    return 0;
}
static int delete_the_middle(void) {
    char *middle = (char *)make_outer() + 16;
    cairn_delete(middle);
    return 0;
}
static int write_past_the_end(void) {
    ((volatile char *)make_outer())[32] = 1;
    return 0;
}
static uintptr_t hidden;
static void make_hidden(void) {
    hidden = HIDE(make_outer());
}
static int read_of_the_dead(void) {
    run_apart(make_hidden);
    cairn_collect(CAIRN_TRACE);
    cairn_collect(CAIRN_TRACE);
    return (int)((volatile Node *)SHOW(Node, hidden))->value;
}
static int forgotten_store(void) {
    setenv("CAIRN_VERIFY", "1", 1);
    Node *holder = cairn_pin(make_outer());
    cairn_collect(CAIRN_COUNT);
    void *stray = cairn_new(Node);
    memcpy((char *)(void *)holder + offsetof(Node, next), &stray, sizeof(stray));
    stray = NULL;
    clean_stack();
    cairn_collect(CAIRN_COUNT);
    return 0;
}

static int forgotten_stray(void) {
    setenv("CAIRN_VERIFY", "1", 1);
    Node *holder = cairn_pin(make_outer());
    cairn_collect(CAIRN_COUNT);
    void *middle = (char *)(void *)holder + 8;
    memcpy((char *)(void *)holder + offsetof(Node, next), &middle, sizeof(middle));
    cairn_collect(CAIRN_COUNT);
    return 0;
}

static void reports_have_both_stacks(void **state) {
    (void)state;
    static int (*const bodies[])(void) = {read_of_the_variable, delete_twice, store_into_deleted,
                                          read_of_a_field};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(*bodies); i++) {
        run_to_report("CAIRN_STACKS", "1", bodies[i]);
        assert_both_told();
    }
}

static void reports_of_the_living_have_one(void **state) {
    (void)state;
    static int (*const bodies[])(void) = {copy_past_the_end, delete_the_middle, forgotten_store,
                                          forgotten_stray};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(*bodies); i++) {
        run_to_report("CAIRN_STACKS", "8", bodies[i]);
        assert_birth_told();
    }
}

static void guard_faults_have_stacks(void **state) {
    (void)state;
    static int (*const both[])(void) = {read_of_a_copy, delete_twice, read_of_the_variable};
    for (size_t i = 0; i < sizeof(both) / sizeof(*both); i++) {
        run_to_report("CAIRN_GUARD", "1", both[i]);
        assert_both_told();
    }
    run_to_report("CAIRN_GUARD", "1", write_past_the_end);
    assert_birth_told();
    run_to_report("CAIRN_GUARD", "1", read_of_the_dead);
    assert_birth_told();
}

/* One in some: those that are guarded have stacks, and only they. */
static int guarded_one_has_stacks(void) {
    for (int i = 0; i < 10000000; i++) {
        Node *node = make_outer();
        const struct crn_block *block = crn_block_of_start(node);
        uint32_t stack = crn_birth_of(block, node).stack;
        CHECK(block->is_guarded == (stack != CRN_STACK_NONE));
        CHECK(stack != CRN_STACK_LOST);
        if (!block->is_guarded) continue;
        end_outer(node);
        return (int)((volatile Node *)node)->value;
    }
    return 0;
}

static int unguarded_one_has_none(void) {
    for (int i = 0; i < 1000; i++) {
        Node *node = make_outer();
        if (crn_guard_block_of(node)) continue;
        end_outer(node);
        cairn_delete(node);
    }
    return 0;
}

static void one_guarded_in_some_has_stacks(void **state) {
    (void)state;
    run_to_report("CAIRN_GUARD", "100", guarded_one_has_stacks);
    assert_both_told();
    run_to_report("CAIRN_GUARD", "100", unguarded_one_has_none);
    assert_null(strstr(child_output, "\n    "));
    assert_null(strstr(json, "_stack\""));
}

static void *make_in_thread(void *place) {
    *(Node **)place = cairn_pin(make_outer());
    return NULL;
}
static void *end_in_thread(void *node) {
    end_outer(node);
    return NULL;
}
static int delete_between_threads(void) {
    pthread_t thread;
    Node *node = NULL;
    CHECK(pthread_create(&thread, NULL, make_in_thread, &node) == 0);
    pthread_join(thread, NULL);
    CHECK(pthread_create(&thread, NULL, end_in_thread, node) == 0);
    pthread_join(thread, NULL);
    cairn_delete(node);
    return 0;
}

static void stacks_are_those_of_their_threads(void **state) {
    (void)state;
    run_to_report("CAIRN_STACKS", "1", delete_between_threads);
    assert_both_told();
    if (has_names()) assert_non_null(strstr(child_output, "\n    make_in_thread at "));
    if (has_names()) assert_non_null(strstr(child_output, "\n    end_in_thread at "));
}

/* ---- Every allocation is seen ---- */

static uint32_t stack_of(void *object) {
    return crn_birth_of(crn_block_of_interior(object), object).stack;
}

/* Its stack begins in a function of this file, or below an inline function that is none here. */
static bool begins_in(void *object, int (*function)(void)) {
    uintptr_t frames[2] = {0, 0};
    enum { FUNCTION_BYTES = 1 << 15 };
    if (crn_depot_get(stack_of(object), frames, 2) != 2) return false;
    return frames[0] - (uintptr_t)function < FUNCTION_BYTES ||
           frames[1] - (uintptr_t)function < FUNCTION_BYTES;
}

typedef struct {
    long number;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));
static void finalize(void *object) {
    (void)object;
}
typedef struct {
    NodeRef other;
} Ended;
CAIRN_TYPE_WITH(Ended, (.finalize = finalize), other);

APART static int every_call_is_seen(void) {
    cairn_heap *heap = make_small_heap();
    cairn_type *type = NULL;
    CHECK(cairn_type_create("made", 24, 8, NULL, 0, NULL, &type) == CAIRN_OK);
#define SEEN(allocation) CHECK(begins_in((allocation), every_call_is_seen))
    SEEN(cairn_new(Node));
    SEEN(cairn_new(Ended));
    SEEN(cairn_new_in(heap, Node));
    SEEN(cairn_make(Node, .value = 3));
    SEEN(cairn_make_in(heap, Node, .value = 3));
    SEEN(cairn_new_array(NodeRef, 7));
    SEEN(cairn_new_array(Node, 500000)); /* a large one */
    SEEN(cairn_new_array(Node, 2000));   /* blocks of its own */
    SEEN(cairn_new_flex(Family, kids, 3));
    SEEN(cairn_new_type(type));
    SEEN(cairn_alloc(40));
    SEEN(cairn_alloc_bytes(40));
    SEEN(cairn_alloc_aligned(40, 256));
    SEEN(cairn_alloc_bytes_aligned_in(heap, 40, 4096));
    SEEN(cairn_strdup("text"));
    SEEN(cairn_strndup("text", 2));
    SEEN(cairn_format("%d", 7));
    SEEN(cairn_resize_array(cairn_alloc_bytes(10), 20));
#undef SEEN
    return 0;
}

/* Again and again, of one type, by a file with sites and by one without, as slots come back. */
static int every_slot_is_seen(void) {
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 20000; i++) {
            void *first = plain_node(), *second = make_inner();
            CHECK(stack_of(first) > CRN_STACK_LOST && stack_of(second) > CRN_STACK_LOST);
            CHECK(stack_of(first) != stack_of(second));
        }
        cairn_collect(CAIRN_COUNT);
    }
    return 0;
}

static int nothing_is_kept(void) {
    Node *node = make_outer();
    CHECK(stack_of(node) == CRN_STACK_NONE);
    end_outer(node);
    CHECK(crn_depot_count() == 0);
    CHECK(!((cairn_heap *)crn_block_of_start(node)->heap)->core.region.births);
    return 0;
}

static void every_allocation_is_seen(void **state) {
    (void)state;
    run_well("CAIRN_STACKS", "1", every_call_is_seen);
    run_well("CAIRN_GUARD", "1", every_call_is_seen);
    run_well("CAIRN_STACKS", "1", every_slot_is_seen);
    run_well("CAIRN_STACKS", "0", nothing_is_kept);
}

/* ---- Settings ---- */

APART static Node *make_deep(int depth) {
    Node *node = depth ? make_deep(depth - 1) : make_outer();
    one = 1;
    return node;
}
static unsigned count_of_deep(void) {
    uintptr_t frames[CRN_FRAMES_MAX + 1];
    return crn_depot_get(stack_of(make_deep(80)), frames, CRN_FRAMES_MAX + 1);
}
static int sixteen_frames(void) {
    CHECK(count_of_deep() == 16);
    return 0;
}
static int five_frames(void) {
    CHECK(count_of_deep() == 5);
    return 0;
}
static int all_frames(void) {
    CHECK(count_of_deep() == CRN_FRAMES_MAX);
    return 0;
}
static int start_only(void) {
    (void)cairn_new(Node);
    return 0;
}

static void depth_is_as_asked_for(void **state) {
    (void)state;
    run_well("CAIRN_STACKS", "1", sixteen_frames);
    run_well("CAIRN_STACKS", "5", five_frames);
    run_well("CAIRN_STACKS", "64", all_frames);
    run_well("CAIRN_GUARD", "1", sixteen_frames);
}

static void bad_values_are_errors(void **state) {
    (void)state;
    static const char *const values[] = {"x", "-1", "65", "1.5", ""};
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        assert_true(is_one_report(run_with("CAIRN_STACKS", values[i], start_only)));
        assert_non_null(strstr(child_output, "CAIRN_STACKS="));
    }
}

/* ---- How much they take ---- */

#if CAIRN_TSAN_ || CAIRN_ASAN_
enum { DELETIONS = 300000 };
#else
enum { DELETIONS = 3000000 };
#endif

static int many_deletions_take_no_more(void) {
    size_t stacks = 0, resident = 0;
    for (int i = 0; i < DELETIONS; i++) {
        end_outer(make_outer());
        if (i != DELETIONS / 4) continue;
        stacks = crn_depot_count();
        resident = crn_os_resident();
    }
    CHECK(stacks > 0 && stacks < 20 && crn_depot_count() == stacks);
    if (CAIRN_TSAN_ || CAIRN_ASAN_) return 0; /* they keep memory of their own */
    CHECK(crn_os_resident() < resident + (16 << 20));
    return 0;
}

static void deletions_keep_memory_bounded(void **state) {
    (void)state;
    run_well("CAIRN_STACKS", "1", many_deletions_take_no_more);
}

/* ---- Threads ---- */

/* A path to an allocation for each number: its bits choose who calls whom. */
enum { PATH_BITS = 9, PATHS = 1 << PATH_BITS, THREADS = 6, ROUNDS = 8 };
static Node *take_path(unsigned path, unsigned bits);
APART static Node *go_left(unsigned path, unsigned bits) {
    Node *node = take_path(path, bits);
    one = 1;
    return node;
}
APART static Node *go_right(unsigned path, unsigned bits) {
    Node *node = take_path(path, bits);
    one = 1;
    return node;
}
APART static Node *take_path(unsigned path, unsigned bits) {
    if (bits == 0) return make_inner();
    Node *node = path & 1 ? go_left(path >> 1, bits - 1) : go_right(path >> 1, bits - 1);
    one = 1;
    return node;
}

static uint32_t numbers[THREADS][PATHS];
static void *take_all_paths(void *argument) {
    uint32_t *own = argument;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned path = 0; path < PATHS; path++) {
            Node *node = take_path(path, PATH_BITS);
            uint32_t number = stack_of(node);
            if (number <= CRN_STACK_LOST || (round && number != own[path])) abort();
            own[path] = number;
            if (path % 3 == 0) end_outer(node);
        }
    }
    return NULL;
}

/* In each thread alike, from the frame on that starts it: one number for each path, and no two. */
static int threads_share_stacks(void) {
    pthread_t threads[THREADS];
    (void)cairn_new(Node); /* from now on threads are started through us */
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, take_all_paths, numbers[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    static uint32_t sorted[PATHS];
    for (unsigned path = 0; path < PATHS; path++) {
        for (size_t i = 1; i < THREADS; i++) CHECK(numbers[i][path] == numbers[0][path]);
        for (unsigned other = 0; other < path; other++) CHECK(sorted[other] != numbers[0][path]);
        sorted[path] = numbers[0][path];
    }
    return 0;
}

static void many_threads_share_the_depot(void **state) {
    (void)state;
    run_well("CAIRN_STACKS", "64", threads_share_stacks);
}

/* ---- fork ---- */

static int may_stop; /* atomic */
static void *take_new_paths(void *unused) {
    for (unsigned path = 0; !__atomic_load_n(&may_stop, __ATOMIC_RELAXED); path++) {
        (void)take_path(path, 20);
    }
    return unused;
}

/* The child knows its parent's stacks and takes new ones, whatever others did meanwhile. */
static int children_have_a_depot(void) {
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, take_new_paths, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, take_new_paths, NULL) == 0);
    int result = 0;
    for (unsigned round = 0; round < 20 && !result; round++) {
        Node *node = make_outer();
        uint32_t before = stack_of(node);
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            uint32_t fresh = stack_of(take_path(round, 21));
            _exit(stack_of(node) == before && fresh > CRN_STACK_LOST &&
                          stack_of(take_path(round, 21)) > CRN_STACK_LOST
                      ? 0
                      : 1);
        }
        int status = 0;
        if (waitpid(child, &status, 0) != child || status != 0) result = __LINE__ % 250 + 1;
    }
    __atomic_store_n(&may_stop, 1, __ATOMIC_RELAXED);
    for (size_t i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    return result;
}

static void forked_child_goes_on(void **state) {
    (void)state;
    if (CAIRN_TSAN_) skip(); /* a child of threads may not start new ones there, nor wait */
    run_well("CAIRN_STACKS", "64", children_have_a_depot);
}

/* ---- Out of memory ---- */

/* Whichever request of the runtime fails, the object is there, or NULL; its stack may be lost. */
static int lack_of_memory_is_survived(void) {
    unsigned lost = 0;
    CHECK(stack_of(make_outer()) > CRN_STACK_LOST);
    cairn_collect(CAIRN_TRACE); /* and has what it needs for collections */
    for (unsigned request = 1; request < 40; request++) {
        crn_os_fail_at(1 + request % 3);
        for (unsigned path = 0; path < 2000; path++) {
            Node *node = take_path(path * 40 + request, 18);
            lost += node && stack_of(node) == CRN_STACK_LOST;
        }
        crn_os_fail_at(0);
        Node *node = make_outer();
        CHECK(node && stack_of(node) > CRN_STACK_LOST);
    }
    CHECK(lost > 0 && lost < 40000);
    return 0;
}

static int lost_stack_is_told(void) {
    (void)cairn_new(Node);
    static Node *node;
    for (unsigned path = 0; !node || stack_of(node) != CRN_STACK_LOST; path++) {
        crn_os_fail_at(1);
        node = take_path(path, 30);
    }
    crn_os_fail_at(0);
    cairn_delete(node);
    return (int)node->value;
}

static void lack_of_memory_loses_stacks_only(void **state) {
    (void)state;
    run_well("CAIRN_STACKS", "64", lack_of_memory_is_survived);
    run_to_report("CAIRN_STACKS", "64", lost_stack_is_told);
    assert_non_null(strstr(child_output, "\n    not recorded, for want of memory"));
    assert_non_null(strstr(json, "\"allocated_stack\":[\"not recorded, for want of memory\"]"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reports_have_both_stacks),
        cmocka_unit_test(reports_of_the_living_have_one),
        cmocka_unit_test(guard_faults_have_stacks),
        cmocka_unit_test(one_guarded_in_some_has_stacks),
        cmocka_unit_test(stacks_are_those_of_their_threads),
        cmocka_unit_test(every_allocation_is_seen),
        cmocka_unit_test(depth_is_as_asked_for),
        cmocka_unit_test(bad_values_are_errors),
        cmocka_unit_test(deletions_keep_memory_bounded),
        cmocka_unit_test(many_threads_share_the_depot),
        cmocka_unit_test(forked_child_goes_on),
        cmocka_unit_test(lack_of_memory_loses_stacks_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
