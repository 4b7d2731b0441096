/* SPDX-License-Identifier: MIT
 *
 * What a program or its surroundings do wrong has a clear outcome: NULL, a status, or one report
 * that says what was wrong. Reports are looked at from outside, in a child's stderr.
 */
#include "../test_child.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

#if CAIRN_TSAN_ || CAIRN_ASAN_
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif

typedef struct {
    long id;
    NodeRef kids[];
} Bush;
CAIRN_TYPE(Bush, CAIRN_FLEX(kids));

/* ---- Sizes
 * ---------------------------------------------------------------------------------------
 */

static void sizes_that_overflow_give_null(void **state) {
    (void)state;
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, SIZE_MAX / 2 + 1,
                                   (size_t)1 << 48};
    NodeRef *array = cairn_new_array(NodeRef, 3);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        size_t size = sizes[i];
        assert_null(cairn_new_array(NodeRef, size));
        assert_null(cairn_new_array(Node, size));
        assert_null(cairn_new_flex(Bush, kids, size));
        assert_null(cairn_resize_array(array, size));
        assert_null(cairn_alloc(size));
        assert_null(cairn_alloc_bytes(size));
        assert_null(cairn_alloc_aligned(size, 16));
        assert_null(cairn_alloc_bytes_aligned(size, (size_t)2 << 20));
    }
    char wide[] = "%99999999999d"; /* not a literal: the compiler would object */
    const char *volatile format = wide;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    assert_null(cairn_format(format, 1));
#pragma GCC diagnostic pop
    assert_int_equal(cairn_length(array), 3);
}

static void alignments_that_are_none_give_null(void **state) {
    (void)state;
    static const size_t bad[] = {0, 3, 24, (size_t)4 << 20, SIZE_MAX};
    for (size_t i = 0; i < 5; i++) {
        assert_null(cairn_alloc_aligned(10, bad[i]));
        assert_null(cairn_alloc_bytes_aligned(10, bad[i]));
    }
}

static void nothing_is_an_object_of_its_own(void **state) {
    (void)state;
    NodeRef *array = cairn_new_array(NodeRef, 0), *other = cairn_new_array(NodeRef, 0);
    assert_non_null(array);
    assert_ptr_not_equal(array, other);
    assert_int_equal(cairn_length(array), 0);
    assert_int_equal(cairn_length(cairn_alloc_bytes(0)), 0);
    assert_non_null(cairn_alloc(0));
    Bush *bush = cairn_new_flex(Bush, kids, 0);
    assert_int_equal(cairn_length(bush), 0);
    NodeRef *grown = cairn_resize_array(array, 4);
    assert_int_equal(cairn_length(grown), 4);
    assert_int_equal(cairn_length(cairn_resize_array(grown, 0)), 0);
    assert_int_equal(cairn_length(NULL), 0);
    assert_string_equal(cairn_strndup("text", 0), "");
    cairn_collect(CAIRN_TRACE);
    cairn_keep(array);
}

/* ---- Arguments
 * -----------------------------------------------------------------------------------
 */

static void statuses_say_what_was_wrong(void **state) {
    (void)state;
    cairn_heap *heap = NULL;
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.size--;
    assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_ERROR_ARGUMENT);
    options = (cairn_options)CAIRN_OPTIONS_INIT;
    assert_int_equal(cairn_heap_create(&options, NULL), CAIRN_ERROR_ARGUMENT);
    options.plan = (cairn_plan_kind)17;
    assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_ERROR_ARGUMENT);
    options.plan = CAIRN_PLAN_TRACED;
    assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_ERROR_NOT_SUPPORTED);
    options.plan = CAIRN_PLAN_DEFAULT;
    options.region_bytes = SIZE_MAX;
    /* Where the address space is small anyway it is what can be had, else nothing. */
    cairn_status most = cairn_heap_create(&options, &heap);
    assert_true(most == CAIRN_ERROR_NO_MEMORY ? heap == NULL : most == CAIRN_OK);
    if (heap) assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    options.region_bytes = 1; /* too small for a segment: as small as can be */
    assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_OK);
    assert_non_null(cairn_new_in(heap, Node));
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    assert_int_equal(cairn_heap_destroy(NULL), CAIRN_ERROR_ARGUMENT);
    cairn_stats stats = CAIRN_STATS_INIT;
    stats.size = 3;
    assert_int_equal(cairn_stats_get(NULL, &stats), CAIRN_ERROR_ARGUMENT);
    assert_int_equal(cairn_stats_get(NULL, NULL), CAIRN_ERROR_ARGUMENT);
    assert_int_equal(cairn_root_add(NULL, 8), CAIRN_ERROR_ARGUMENT);
    assert_int_equal(cairn_root_add(&stats, SIZE_MAX), CAIRN_ERROR_ARGUMENT);
    const char *low = (const char *)&stats;
    assert_int_equal(cairn_stack_add(low + 1, low), CAIRN_ERROR_ARGUMENT);
}

static void null_heap_is_the_default_one(void **state) {
    (void)state;
    Node *node = cairn_new_in(NULL, Node);
    assert_ptr_equal(cairn_heap_of(node), cairn_heap_of(cairn_new(Node)));
    assert_non_null(cairn_alloc_bytes_in(NULL, 5));
    cairn_collect_in(NULL, CAIRN_COUNT);
}

/* ---- What is no object
 * ---------------------------------------------------------------------------
 */

enum { CALLS = 10, FOREIGN = 6 };

static void *foreign(long kind) {
    static Node local;
    Node *node = cairn_new(Node);
    switch (kind) {
    case 0:
        return &local;
    case 1:
        return &node->value;
    case 2:
        return (void *)((uintptr_t)node & ~(((uintptr_t)4 << 20) - 1)); /* a segment's header */
    case 3:
        return (void *)16;
    case 4:
        return (void *)(UINTPTR_MAX - 7);
    default:
        return (char *)node + ((size_t)8 << 20); /* of the region, not in use */
    }
}

static int give_foreign(long number) {
    void *pointer = foreign(number % FOREIGN);
    static cairn_weak weak;
    switch (number / FOREIGN) {
    case 0:
        cairn_length(pointer);
        break;
    case 1:
        cairn_resize_array((NodeRef *)pointer, 3);
        break;
    case 2:
        cairn_clear(pointer);
        break;
    case 3:
        cairn_pin((Node *)pointer);
        break;
    case 4:
        cairn_unpin(pointer);
        break;
    case 5:
        (void)!cairn_cleanup_add(pointer, free, NULL);
        break;
    case 6:
        cairn_weak_set(&weak, pointer);
        break;
    case 7:
        cairn_delete(pointer);
        break;
    case 8:
        cairn_root_remove(pointer);
        break;
    default:
        cairn_stack_remove(pointer);
    }
    return 0;
}

static void what_is_no_object_is_reported(void **state) {
    (void)state;
    for (long number = 0; number < CALLS * FOREIGN; number++) {
        int status = run_child(give_foreign, number);
        if (is_one_report(status)) continue;
        fail_msg("call %ld with kind %ld: status %#x\n%s", number / FOREIGN, number % FOREIGN,
                 (unsigned)status, child_output);
    }
}

static int ask_about_foreign(long number) {
    if (cairn_heap_of(&number)) return 1; /* may be the first call of all */
    void *pointer = foreign(number);
    bool is_fine = cairn_count(pointer) == 0 && !cairn_is_deleted(pointer);
    return is_fine && (number == 1 || !cairn_heap_of(pointer)) ? 0 : 1;
}

static void questions_about_what_is_no_object_have_answers(void **state) {
    (void)state;
    for (long number = 0; number < FOREIGN; number++) {
        assert_int_equal(run_child(ask_about_foreign, number), 0);
    }
}

static int store_interior(long is_young) {
    static Node *holder;
    holder = cairn_new(Node);
    if (!is_young) cairn_collect(CAIRN_COUNT);
    Node *inside = (Node *)(void *)((char *)cairn_new_array(Node, 10) + 16);
    cairn_set(&holder->next, inside);
    cairn_collect(CAIRN_COUNT);
    return 0;
}

static void interior_reference_is_reported_at_the_count(void **state) {
    (void)state;
    for (long is_young = 0; is_young < 2; is_young++) {
        assert_true(is_one_report(run_child(store_interior, is_young)));
        assert_non_null(strstr(child_output, "not an object"));
    }
}

/* Two objects of one block: the second is counted after the collector has come to know the block by
 * the first, which its own heap refers to. */
static NodeRef *own_row, *other_row;

static void make_crossing(void) {
    Node *first = cairn_new_in(cairn_heap_of(other_row), Node);
    Node *second = cairn_new_in(cairn_heap_of(other_row), Node);
    cairn_set(&other_row[0], first);
    cairn_set(&own_row[0], second);
}

static int cross_heaps(long is_allowed) {
    cairn_heap *other = is_allowed ? cairn_heap_of(cairn_new(Node)) : make_small_heap();
    own_row = cairn_new_array(NodeRef, 1);
    other_row = cairn_new_array_in(other, NodeRef, 1);
    cairn_collect(CAIRN_COUNT);
    run_apart(make_crossing);
    cairn_collect(CAIRN_COUNT);
    return 0;
}

static void reference_to_another_heap_is_reported_at_the_count(void **state) {
    (void)state;
    assert_int_equal(run_child(cross_heaps, true), 0);
    assert_true(is_one_report(run_child(cross_heaps, false)));
    assert_non_null(strstr(child_output, "crosses heaps"));
}

/* ---- The environment
 * -----------------------------------------------------------------------------
 */

static const struct {
    const char *name, *value;
} settings[] = {
    {"CAIRN_LIMIT", "much"},
    {"CAIRN_LIMIT", "5X"},
    {"CAIRN_LIMIT", ""},
    {"CAIRN_LIMIT", "99999999999999999999"},
    {"CAIRN_LIMIT", "-1"},
    {"CAIRN_LIMIT", "99999999999G"},
    {"CAIRN_PAUSE", "1"},
    {"CAIRN_PAUSE", "0ms"},
    {"CAIRN_PAUSE", "fast"},
    {"CAIRN_TRACE", "yes"},
    {"CAIRN_TRACE", ""},
    {"CAIRN_VERIFY", "2"},
    {"CAIRN_PLAN", "generous"},
    {"CAIRN_STRESS", "0"},
    {"CAIRN_STRESS", "4294967296"},
    {"CAIRN_FAIL", "first"},
    {"CAIRN_FAIL", "4294967297"},
    {"CAIRN_FAIL_META", "1.5"},
    {"CAIRN_STRESS_STOP", "2000000"},
    {"CAIRN_STRESS_STOP", "1s"},
    {"CAIRN_RECLAIMER", "x"},
    {"CAIRN_HUGE_PAGES", "2M"},
};

static int start_with_setting(long number) {
    setenv(settings[number].name, settings[number].value, 1);
    return cairn_new(Node) != NULL;
}

static void bad_setting_is_named_with_an_example(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
        int status = run_child(start_with_setting, (long)i);
        const char *name = strstr(child_output, settings[i].name);
        const char *say = strstr(child_output, "say ");
        bool is_clear =
            is_one_report(status) && name && say && strstr(child_output, settings[i].value);
        if (!is_clear) {
            fail_msg("%s=%s: status %#x\n%s", settings[i].name, settings[i].value, (unsigned)status,
                     child_output);
        }
    }
}

/* ---- Little memory
 * -------------------------------------------------------------------------------
 */

static Node *list;

static size_t fill_list(cairn_heap *heap, size_t most) {
    size_t count = 0;
    while (count < most) {
        Node *node = cairn_new_in(heap, Node);
        if (!node) break;
        cairn_set(&node->next, list);
        list = node;
        count++;
    }
    return count;
}

static size_t drop_list(void) {
    size_t count = 0;
    for (Node *at = list; at; at = at->next.p) count++;
    list = NULL;
    return count;
}

static int start_under_limit(long mebibytes) {
    struct rlimit limit = {(rlim_t)mebibytes << 20, (rlim_t)mebibytes << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
    setenv("CAIRN_VERIFY", "0", 1);
    for (int i = 0; i < 3; i++) {
        size_t count = fill_list(NULL, 100000);
        cairn_collect(CAIRN_TRACE);
        if (drop_list() != count || count < 50000) return 3;
    }
    return 0;
}

static void limit_on_address_space_works_or_says_why_not(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    for (long mebibytes = 64; mebibytes <= 8192; mebibytes *= 2) {
        int status = run_child(start_under_limit, mebibytes);
        printf("%ld MiB: %s", mebibytes, status == 0 ? "works\n" : child_output);
        assert_true(status == 0 || is_one_report(status));
#if !defined(CRN_AUDIT)
        if (mebibytes >= 1024) assert_int_equal(status, 0);
#endif
    }
}

static int handler_calls;
static bool on_out_of_memory(cairn_heap *heap, size_t bytes, void *context) {
    (void)bytes;
    if (heap == NULL || context != &handler_calls) abort();
    handler_calls++;
    if (handler_calls != 2) return false;
    drop_list();
    return true;
}

/* Each part on a stack of its own, so that no stale word keeps the list. */
static cairn_heap *small_heap;
static size_t most, again;
static void fill_once(void) {
    most = fill_list(small_heap, SIZE_MAX);
}
static void fill_again(void) {
    again = fill_list(small_heap, 1000);
}

static int fill_small_heap(long unused) {
    (void)unused;
    cairn_on_out_of_memory(on_out_of_memory, &handler_calls);
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.region_bytes = (size_t)32 << 20;
    if (cairn_heap_create(&options, &small_heap) != CAIRN_OK) return 1;
    run_apart(fill_once);
    if (handler_calls != 1 || most < 500000) return 2;
    run_apart(fill_again); /* the handler drops the list, then there is room */
    if (handler_calls != 2 || again != 1000) return 3;
    if (drop_list() != 1000) return 4;
    if (cairn_new_array_in(small_heap, NodeRef, (size_t)8 << 20)) return 5;
    if (!cairn_new_array_in(small_heap, NodeRef, (size_t)1 << 20)) return 6;
    return cairn_heap_destroy(small_heap) == CAIRN_OK ? 0 : 7;
}

static void full_heap_gives_null_and_goes_on(void **state) {
    (void)state;
    int status = run_child(fill_small_heap, 0);
    if (status != 0) fail_msg("status %#x: %s", (unsigned)status, child_output);
}

/* From here on no mapping succeeds: what an epoch needs it must have, or do without. */
static int lose_address_space(long is_stressed) {
    if (is_stressed) setenv("CAIRN_STRESS", "50", 1);
    fill_list(NULL, 1000);
    cairn_collect(CAIRN_TRACE);
    struct rlimit limit = {address_space(), RLIM_INFINITY};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 1;
    size_t count = fill_list(NULL, is_stressed ? 20000 : 300000);
    NodeRef *array = cairn_new_array(NodeRef, 100000);
    for (size_t i = 0; array && i < 100000; i++) cairn_set(&array[i], list);
    cairn_collect(CAIRN_TRACE);
    if (drop_list() != 1000 + count) return 2;
    cairn_collect(CAIRN_TRACE);
    return fill_list(NULL, 1000) == 1000 ? 0 : 3;
}

static void lost_address_space_is_survived_or_reported(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    for (long is_stressed = 0; is_stressed < 2; is_stressed++) {
        int status = run_child(lose_address_space, is_stressed);
        if (status == 0 || is_one_report(status)) continue;
        fail_msg("status %#x: %s", (unsigned)status, child_output);
    }
}

/* ---- Stacks and signals
 * --------------------------------------------------------------------------
 */

enum { STACK_BYTES = 256 << 10, PATTERN = 0xa5, HANDLER_MAX = 16 << 10 };
static char *small_stack, *volatile spinning_at;
static volatile int is_over;

static void *spin(void *argument) {
    char *here = __builtin_frame_address(0);
    cairn_new(Node);
    memset(small_stack, PATTERN, (size_t)(here - small_stack) - 4096);
    spinning_at = here;
    while (!is_over) {}
    return argument;
}

static int measure_handler(long unused) {
    (void)unused;
    cairn_new(Node);
    small_stack =
        mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, small_stack, STACK_BYTES);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, spin, NULL) != 0) return 1;
    while (!spinning_at) {}
    for (int i = 0; i < 100; i++) {
        fill_list(NULL, 5000);
        for (Node *at = list; at; at = at->next.p) cairn_set(&at->other, list);
        cairn_collect(i % 10 ? CAIRN_COUNT : CAIRN_TRACE);
        drop_list();
    }
    is_over = 1;
    pthread_join(thread, NULL);
    size_t used = 0;
    while ((unsigned char)small_stack[used] == PATTERN) used++;
    used = (size_t)(spinning_at - (small_stack + used));
    fprintf(stderr, "%zu", used);
    return used <= HANDLER_MAX ? 0 : 2;
}

static void stop_needs_little_stack(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    int status = run_child(measure_handler, 0);
    printf("a stopped thread used %s bytes of its stack\n", child_output);
    assert_int_equal(status, 0);
}

static volatile long alarms;
static Node *volatile watched;

/* A handler may look at objects; as with malloc, it may not allocate, nor store references. */
static void on_alarm(int signal) {
    (void)signal;
    Node *node = watched;
    for (int i = 0; i < 10 && node; i++, node = cairn_load(&node->next)) {
        if (node->value != 5) abort();
    }
    alarms++;
}

/* ThreadSanitizer's runtime keeps the mask from before it delivers what is pending in one place per
 * thread. A signal that comes just before makes it do so again from within a handler, and all
 * signals stay blocked, in a program without Cairn too. */
static void undo_lost_mask(void) {
#if CAIRN_TSAN_
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_UNBLOCK, &all, NULL);
#endif
}

static int storm(long unused) {
    (void)unused;
    setenv("CAIRN_STRESS_STOP", "100", 1);
    setenv("CAIRN_VERIFY", "1", 1);
    struct sigaction action = {.sa_handler = on_alarm};
    const struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    cairn_new(Node);
    if (sigaction(SIGALRM, &action, NULL) != 0 || setitimer(ITIMER_REAL, &often, NULL) != 0) {
        return 1;
    }
    while (alarms < 1000) {
        undo_lost_mask();
        Node *chain = NULL;
        for (int i = 0; i < 20; i++) chain = cairn_make(Node, .next = {chain}, .value = 5);
        watched = chain;
        for (Node *at = chain; at; at = at->next.p) cairn_set(&at->other, chain);
        if (alarms % 100 == 0) cairn_collect(CAIRN_TRACE);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    return 0;
}

static void signals_during_pauses_are_no_harm(void **state) {
    (void)state;
    int status = run_child(storm, 0);
    if (status != 0) fail_msg("status %#x: %s", (unsigned)status, child_output);
}

/* Children first: they start the runtime anew, in settings of their own. */
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_object_is_reported),
        cmocka_unit_test(questions_about_what_is_no_object_have_answers),
        cmocka_unit_test(interior_reference_is_reported_at_the_count),
        cmocka_unit_test(reference_to_another_heap_is_reported_at_the_count),
        cmocka_unit_test(bad_setting_is_named_with_an_example),
        cmocka_unit_test(limit_on_address_space_works_or_says_why_not),
        cmocka_unit_test(full_heap_gives_null_and_goes_on),
        cmocka_unit_test(lost_address_space_is_survived_or_reported),
        cmocka_unit_test(stop_needs_little_stack),
        cmocka_unit_test(signals_during_pauses_are_no_harm),
        cmocka_unit_test(sizes_that_overflow_give_null),
        cmocka_unit_test(alignments_that_are_none_give_null),
        cmocka_unit_test(nothing_is_an_object_of_its_own),
        cmocka_unit_test(statuses_say_what_was_wrong),
        cmocka_unit_test(null_heap_is_the_default_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
