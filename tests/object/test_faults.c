/* SPDX-License-Identifier: MIT
 *
 * Memory that fails once, at every place where the runtime asks for it: a small program runs for
 * N = 1, 2, 3 ... with the Nth request failing (CAIRN_FAIL_META: mappings, commits, the runtime's
 * own memory; CAIRN_FAIL: allocations) until none fails any more. Each run ends in NULL, in a
 * status, or in one report; CAIRN_VERIFY=1 finds a heap that was left in disorder.
 */
#include "../test_child.h"

#include "os/os.h"

/* Every request of the start; of the rest one in a few, or all with CAIRN_TEST_STEPS set. A
 * sanitizer's child takes half a second to start. */
#if CAIRN_TSAN_ || CAIRN_ASAN_
enum { FIRST = 8, STRIDE = 43 };
#else
enum { FIRST = 40, STRIDE = 11 };
#endif
static long next_request(long request) {
    if (getenv("CAIRN_TEST_STEPS")) return request + 1;
    return request + (request < FIRST ? 1 : STRIDE);
}

static int null_count, cleaned;
static cairn_weak weak;
static Node *kept;
static NodeRef *kept_array;

static void clean(void *argument) {
    (void)argument;
    cleaned++;
}

/* Failures are expected; what must not be is a wrong object. */
static void *seen(void *object) {
    if (!object) null_count++;
    return object;
}
static void noted(cairn_status status) {
    if (status == CAIRN_ERROR_NO_MEMORY) null_count++;
    if (status != CAIRN_OK && status != CAIRN_ERROR_NO_MEMORY) abort();
}

static void make_list(void) {
    kept = NULL;
    for (long i = 0; i < 3000; i++) {
        Node *node = seen(cairn_make(Node, .next = {kept}, .value = i));
        if (node) kept = node;
    }
    cairn_collect(CAIRN_COUNT);
    for (Node *at = kept; at; at = at->next.p) cairn_set(&at->other, kept);
}

static void make_arrays(void) {
    static const size_t lengths[] = {3, 500, 5000, 300000};
    for (size_t i = 0; i < 4; i++) {
        NodeRef *array = seen(cairn_new_array(NodeRef, lengths[i]));
        if (!array) continue;
        if (cairn_length(array) != lengths[i]) abort();
        cairn_set(&array[lengths[i] - 1], kept);
        kept_array = array;
    }
    seen(cairn_resize_array(kept_array ? kept_array : seen(cairn_new_array(NodeRef, 1)), 10));
    seen(cairn_format("%d", 42));
    void **untyped = seen(cairn_alloc(100));
    if (untyped) untyped[3] = kept;
}

static void make_types(void) {
    const struct cairn_field field = {.offset = 8, .size = 8, .kind = CAIRN_FIELD_REF};
    for (int i = 0; i < 80; i++) {
        cairn_type *type = NULL;
        noted(cairn_type_create("made", 16 + 16 * (size_t)i, 8, &field, 1, NULL, &type));
        if (type) seen(cairn_new_type(type));
    }
}

static void make_extras(void) {
    Node *node = seen(cairn_new(Node));
    if (!node) return;
    if (!cairn_weak_set(&weak, node)) null_count++;
    for (int i = 0; i < 3; i++) noted(cairn_cleanup_add(node, clean, NULL));
    cairn_unpin(cairn_pin(node));
    void *place = NULL;
    cairn_status status = cairn_root_add(&place, sizeof(place));
    noted(status);
    if (status == CAIRN_OK) cairn_root_remove(&place);
    Node *victim = seen(cairn_new(Node));
    cairn_delete(victim);
}

static void make_heap(void) {
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.region_bytes = (size_t)64 << 20;
    cairn_heap *heap = NULL;
    cairn_status status = cairn_heap_create(&options, &heap);
    noted(status);
    if (status != CAIRN_OK) return;
    for (int i = 0; i < 100; i++) seen(cairn_new_in(heap, Node));
    noted(cairn_heap_destroy(heap));
}

static void *work_beside(void *argument) {
    for (int i = 0; i < 1000; i++) seen(cairn_make(Node, .value = i));
    return argument;
}

static int small_program(void) {
    make_list();
    make_arrays();
    make_types();
    make_extras();
    make_heap();
    pthread_t thread;
    if (pthread_create(&thread, NULL, work_beside, NULL) == 0) {
        cairn_blocking_begin();
        pthread_join(thread, NULL);
        cairn_blocking_end();
    }
    cairn_collect(CAIRN_TRACE);
    cairn_finalize_pending();
    for (Node *at = kept; at; at = at->next.p) {
        if (at->next.p && at->next.p->value >= at->value) return 3;
        if (at->other.p != kept) return 4;
    }
    kept = NULL;
    kept_array = NULL;
    cairn_collect(CAIRN_TRACE);
    return 0;
}

static int fail_meta(long request) {
    char text[32];
    snprintf(text, sizeof(text), "%ld", request);
    setenv("CAIRN_FAIL_META", text, 1);
    setenv("CAIRN_VERIFY", "1", 1);
    int result = small_program();
    return result ? result : crn_os_has_failed();
}

static int fail_allocation(long request) {
    char text[32];
    snprintf(text, sizeof(text), "%ld", request);
    setenv("CAIRN_FAIL", text, 1);
    int result = small_program();
    if (result) return result;
    return null_count ? 1 : 0;
}

static void check_end(long request, int status) {
    bool is_fine = (WIFEXITED(status) && WEXITSTATUS(status) <= 1) || is_one_report(status);
    if (is_fine) return;
    fail_msg("request %ld: status %#x\n%s", request, (unsigned)status, child_output);
}

static void runtime_memory_that_fails_is_survived_or_reported(void **state) {
    (void)state;
    long survived = 0, reported = 0, request = 1;
    for (;; request = next_request(request)) {
        int status = run_child(fail_meta, request);
        check_end(request, status);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
        *(WIFEXITED(status) ? &survived : &reported) += 1;
        if (!WIFEXITED(status)) printf("%ld: %s", request, child_output);
    }
    printf("%ld requests: %ld failures survived, %ld reported\n", request, survived, reported);
    assert_true(survived > reported);
}

static void allocation_that_fails_gives_null_once(void **state) {
    (void)state;
    for (long request = 1; request <= 200; request = next_request(request)) {
        int status = run_child(fail_allocation, request);
        check_end(request, status);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
    }
    int status = run_child(fail_allocation, 1000000);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runtime_memory_that_fails_is_survived_or_reported),
        cmocka_unit_test(allocation_that_fails_gives_null_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
