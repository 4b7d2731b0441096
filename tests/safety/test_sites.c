/* SPDX-License-Identifier: MIT
 *
 * Allocation sites: with CAIRN_SITES a report says where, in which function and by which thread the
 * object was allocated, for every allocation macro; files without it mix in and are never credited
 * with the site of an earlier object in the same slot.
 */
#define _GNU_SOURCE
#define CAIRN_SITES 1
#include "../test_report.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

void *plain_node(void); /* plain.c: no sites */

/* What a double delete of the object says of its allocation. */
static const char *allocated(void *object) {
    void *volatile first = object, *volatile second = object;
    cairn_delete(first);
    report[0] = 0;
    cairn_on_report(on_report, NULL);
    if (setjmp(caught) == 0) cairn_delete(second);
    cairn_on_report(NULL, NULL);
    const char *line = strstr(report, "allocated: ");
    if (!line) fail_msg("%s", report);
    return line;
}

static void assert_site(void *object, const char *function, int line, int thread_id) {
    char wanted[256];
    snprintf(wanted, sizeof(wanted), "test_sites.c:%d in %s, by thread %d", line, function,
             thread_id);
    const char *said = allocated(object);
    if (!strstr(said, wanted)) fail_msg("wanted %s, got %s", wanted, said);
}

typedef struct {
    long number;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));

static void every_macro_records_its_site(void **state) {
    (void)state;
    cairn_heap *heap = make_small_heap();
    cairn_type *type = NULL;
    assert_int_equal(cairn_type_create("made", 24, 8, NULL, 0, NULL, &type), CAIRN_OK);
#define CHECK(allocation) assert_site((allocation), __func__, __LINE__, (int)gettid())
    CHECK(cairn_new(Node));
    CHECK(cairn_new(Node)); /* two on neighbouring lines, by the inline path */
    CHECK(cairn_new_in(heap, Node));
    CHECK(cairn_make(Node, .value = 3));
    CHECK(cairn_make_in(heap, Node, .value = 3));
    CHECK(cairn_new_array(NodeRef, 7));
    CHECK(cairn_new_array(Node, 500000)); /* a large one */
    CHECK(cairn_new_array(Node, 2000));   /* blocks of its own */
    CHECK(cairn_new_flex(Family, kids, 3));
    CHECK(cairn_new_type(type));
    CHECK(cairn_alloc(40));
    CHECK(cairn_alloc_bytes(40));
    CHECK(cairn_alloc_aligned(40, 256));
    CHECK(cairn_alloc_bytes_aligned_in(heap, 40, 4096));
    CHECK(cairn_strdup("text"));
    CHECK(cairn_strndup("text", 2));
    CHECK(cairn_format("%d", 7));
    char *bytes = cairn_alloc_bytes(10);
    CHECK(cairn_resize_array(bytes, 20));
#undef CHECK
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
}

/* A call in an initialiser has its own site, and the outer object keeps the outer one's. */
static Node *make_inner(void) {
    return cairn_new(Node);
}
enum { INNER_LINE = __LINE__ - 2 };

static void nested_allocations_have_their_own_sites(void **state) {
    (void)state;
#define NESTED() cairn_make(Node, .next = {make_inner()}, .other = {cairn_new(Node)})
    Node *outer = NESTED();
    int line = __LINE__ - 1;
#undef NESTED
    Node *inner = outer->next.p, *other = outer->other.p;
    assert_site(outer, __func__, line, (int)gettid());
    assert_site(other, __func__, line, (int)gettid());
    assert_site(inner, "make_inner", INNER_LINE, (int)gettid());
}

static void *made;
static int made_by;
static void *make_elsewhere(void *unused) {
    made_by = (int)gettid();
    made = cairn_pin(cairn_new(Node));
    return unused;
}
enum { ELSEWHERE_LINE = __LINE__ - 3 };

static void site_names_the_allocating_thread(void **state) {
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, make_elsewhere, NULL), 0);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
    assert_int_not_equal(made_by, (int)gettid());
    assert_site(made, "make_elsewhere", ELSEWHERE_LINE, made_by);
}

/* Slots that had sites are handed out by code that records none, young and mature ones. */
static void fill_and_drop(void) {
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 20000; i++) (void)cairn_new(Node);
        cairn_collect(CAIRN_COUNT);
    }
}

static void plain_file_is_not_credited_with_old_sites(void **state) {
    (void)state;
    run_apart(fill_and_drop);
    live_after(CAIRN_TRACE);
    for (int i = 0; i < 20000; i++) {
        void *node = plain_node();
        if (i % 100) continue;
        const char *said = allocated(node);
        if (!strstr(said, "allocated: not recorded; compile with -DCAIRN_SITES")) {
            fail_msg("object %d: %s", i, said);
        }
    }
    assert_site(cairn_new(Node), __func__, __LINE__, (int)gettid());
}

/* No room for a word per granule of a region. */
static void report_says_that_sites_lack_room(void **state) {
    (void)state;
    if (CAIRN_TSAN_ || CAIRN_ASAN_) skip(); /* they need address space themselves */
    cairn_heap *heap = make_small_heap();
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    limit = before;
    limit.rlim_cur = address_space() + ((size_t)16 << 20);
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    size_t bytes = (size_t)32 << 20;
    void *space = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Node *node = space == MAP_FAILED ? cairn_new_in(heap, Node) : NULL;
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    if (space != MAP_FAILED) { /* an emulator keeps its own address space out of the limit */
        munmap(space, bytes);
        skip();
    }
    const char *said = allocated(node);
    if (!strstr(said, "allocated: not recorded; no address space for sites")) fail_msg("%s", said);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_macro_records_its_site),
        cmocka_unit_test(nested_allocations_have_their_own_sites),
        cmocka_unit_test(site_names_the_allocating_thread),
        cmocka_unit_test(plain_file_is_not_credited_with_old_sites),
        cmocka_unit_test(report_says_that_sites_lack_room), /* the last: from then on all say so */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
