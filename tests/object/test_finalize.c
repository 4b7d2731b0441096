/* SPDX-License-Identifier: MIT
 *
 * Finalizers and cleanups: when they run, how often, in which order, what they may do. Objects are
 * made on a thread that has ended, so that no stack names them.
 */
#include "../test.h"

typedef struct File File;
typedef cairn_ref(File) FileRef;
typedef cairn_ref(FileRef) FilesRef;
struct File {
    FileRef other;
    FilesRef all;
    NodeRef data;
    cairn_weak weak;
    long number;
};
static void finalize(void *object);
CAIRN_TYPE_WITH(File, (.finalize = finalize), other, all, data, CAIRN_WEAK(weak));

static int finalized, cleaned;
static void (*on_finalize)(File *file);

static void finalize(void *object) {
    if (on_finalize) on_finalize(object);
    __atomic_fetch_add(&finalized, 1, __ATOMIC_SEQ_CST);
}

/* The thread of finalizers may take a call first: then this waits for it, as long as there is
 * hope. */
static void trace(void) {
    cairn_collect(CAIRN_TRACE);
}
static void wait_for(int *figure, int wanted) {
    for (int i = 0; i < 5000 && __atomic_load_n(figure, __ATOMIC_SEQ_CST) < wanted; i++) {
        cairn_finalize_pending();
        run_apart(trace);
    }
    assert_int_equal(__atomic_load_n(figure, __ATOMIC_SEQ_CST), wanted);
}

static int setup(void **state) {
    (void)state;
    finalized = cleaned = 0;
    on_finalize = NULL;
    return 0;
}

static FileRef *files; /* what the programs below leave behind; an array of two */

static void make_alone(void) {
    for (int i = 0; i < 100; i++) cairn_new(File);
}
static void make_ring(void) {
    for (int i = 0; i < 50; i++) {
        File *a = cairn_new(File), *b = cairn_make(File, .other = {a});
        cairn_set(&a->other, b);
    }
}
static void make_reachable(void) {
    files = cairn_new_array(FileRef, 2);
    cairn_set(&files[0], cairn_make(File, .number = 1));
    cairn_set(&files[0].p->data, cairn_make(Node, .value = 11));
}

static void drop_first(void) {
    cairn_set(&files[0], NULL);
}

static void finalizer_runs_once_for_the_young(void **state) {
    (void)state;
    run_apart(make_alone);
    live_after(CAIRN_COUNT);
    wait_for(&finalized, 100);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    wait_for(&finalized, 100);
}

static void finalizer_runs_once_for_the_mature(void **state) {
    (void)state;
    run_apart(make_reachable);
    live_after(CAIRN_TRACE);
    assert_int_equal(finalized, 0);
    run_apart(drop_first);
    live_after(CAIRN_COUNT);
    wait_for(&finalized, 1);
    uint64_t live = live_after(CAIRN_TRACE);
    assert_int_equal(live_after(CAIRN_TRACE), live);
    assert_int_equal(finalized, 1);
}

static void finalizers_run_in_cycles(void **state) {
    (void)state;
    run_apart(make_ring);
    live_after(CAIRN_COUNT);
    live_after(CAIRN_TRACE);
    wait_for(&finalized, 100);
    uint64_t live = live_after(CAIRN_TRACE);
    assert_int_equal(live_after(CAIRN_TRACE), live);
    assert_int_equal(finalized, 100);
}

/* What a finalized object refers to is whole while its finalizer runs, and goes with it. */
static long seen_value;
static void look_at_data(File *file) {
    cairn_collect(CAIRN_TRACE);
    seen_value = file->data.p->value;
}
static void make_with_data(void) {
    File *file = cairn_new(File);
    cairn_set(&file->data, cairn_make(Node, .value = 77));
}

static void finalizer_sees_what_the_object_holds(void **state) {
    (void)state;
    on_finalize = look_at_data;
    for (int is_mature = 0; is_mature < 2; is_mature++) {
        seen_value = 0;
        finalized = 0;
        if (is_mature) {
            run_apart(make_reachable);
            live_after(CAIRN_COUNT);
            run_apart(drop_first);
        } else {
            run_apart(make_with_data);
        }
        live_after(CAIRN_COUNT);
        wait_for(&finalized, 1);
        assert_int_equal(seen_value, is_mature ? 11 : 77);
    }
}

/* Stored before it returns, the object lives on, without a finalizer and weakly dead. */
static cairn_weak weak;
static void store_itself(File *file) {
    cairn_set(&files[1], file);
    cairn_collect(CAIRN_COUNT);
}
static void make_weak(void) {
    assert_true(cairn_weak_set(&weak, files[0].p));
}

static void look_at_the_stored(void) {
    assert_int_equal(files[1].p->number, 1);
    assert_int_equal(files[1].p->data.p->value, 11);
    assert_int_equal(cairn_count(files[1].p), 1);
    assert_null(cairn_weak_get(&weak));
    assert_true(cairn_weak_set(&files[1].p->weak, files[1].p));
    assert_ptr_equal(cairn_weak_get(&files[1].p->weak), files[1].p);
    assert_null(cairn_weak_get(&weak));
    cairn_set(&files[1], NULL);
}

/* Its count and the one that the finalizer holds meet the largest that a count can be. */
enum { REFERENCES_MOST = 257 };
static FileRef *named; /* an array of references to one file, which its finalizer stored */
static int reference_count;
static void store_all(File *file) {
    named = cairn_load(&file->all);
}
static void make_named_often(void) {
    files = cairn_new_array(FileRef, REFERENCES_MOST);
    File *file = cairn_new(File);
    cairn_set(&file->all, files);
    for (int i = 0; i < reference_count; i++) cairn_set(&files[i], file);
}
static void leave_one(void) {
    for (int i = 1; i < REFERENCES_MOST; i++) cairn_set(&named[i], NULL);
}

static void stored_object_keeps_its_count(void **state) {
    (void)state;
    on_finalize = store_all;
    for (reference_count = 250; reference_count <= REFERENCES_MOST; reference_count++) {
        finalized = 0;
        run_apart(make_named_often);
        live_after(CAIRN_COUNT);
        files = NULL;
        wait_for(&finalized, 1);
        live_after(CAIRN_COUNT);
        run_apart(leave_one);
        live_after(CAIRN_COUNT);
        if (cairn_count(named[0].p) == 0) fail_msg("gone with %d references", reference_count);
        named = NULL;
    }
}

static void finalizer_may_store_the_object(void **state) {
    (void)state;
    on_finalize = store_itself;
    run_apart(make_reachable);
    run_apart(make_weak);
    live_after(CAIRN_COUNT);
    run_apart(drop_first);
    live_after(CAIRN_COUNT);
    wait_for(&finalized, 1);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    run_apart(look_at_the_stored);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    wait_for(&finalized, 1);
}

/* A finalizer allocates, stores, collects and deletes. */
static void do_everything(File *file) {
    Node *list = NULL;
    for (int i = 0; i < 1000; i++) list = cairn_make(Node, .next = {list}, .value = i);
    cairn_set(&file->data, list);
    cairn_collect(CAIRN_TRACE);
    assert_int_equal(file->data.p->value, 999);
    Node *gone = cairn_new(Node);
    cairn_delete(gone);
    cairn_delete_ref(&file->data);
    assert_true(cairn_is_deleted(gone));
    assert_int_equal(cairn_finalize_pending(), 0);
}

static void finalizer_may_use_the_heap(void **state) {
    (void)state;
    on_finalize = do_everything;
    run_apart(make_with_data);
    live_after(CAIRN_COUNT);
    wait_for(&finalized, 1);
    live_after(CAIRN_TRACE);
    assert_int_equal(finalized, 1);
}

static void delete_own(File *file) {
    cairn_delete(file);
}

static void finalizer_may_delete_its_object(void **state) {
    (void)state;
    on_finalize = delete_own;
    run_apart(make_alone);
    live_after(CAIRN_COUNT);
    wait_for(&finalized, 100);
    for (int i = 0; i < 3; i++) live_after(CAIRN_COUNT);
    assert_int_equal(finalized, 100);
    assert_true(stats_now().waiting_objects <= 2);
}

/* A deletion runs the finalizer at once, and nobody else does. */
static void make_and_delete(void) {
    File *file = cairn_new(File);
    cairn_delete(file);
    assert_int_equal(__atomic_load_n(&finalized, __ATOMIC_SEQ_CST), 1);
}

static void delete_runs_the_finalizer(void **state) {
    (void)state;
    run_apart(make_and_delete);
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    wait_for(&finalized, 1);
}

/* ---- Cleanups ---- */

static char order[64];
static void note(void *letter) {
    size_t length = strlen(order);
    order[length] = (char)(intptr_t)letter;
    __atomic_fetch_add(&cleaned, 1, __ATOMIC_SEQ_CST);
}

static void add_letters(void *object, const char *letters) {
    for (; *letters; letters++) {
        assert_int_equal(cairn_cleanup_add(object, note, (void *)(intptr_t)*letters), CAIRN_OK);
    }
}

static void make_cleaned_ring(void) {
    Node *node = cairn_new(Node);
    add_letters(node, "abcdef");
    cairn_set(&node->next, node);
}
static void make_cleaned_young(void) {
    add_letters(cairn_new(Node), "abcdef");
}

static void cleanups_run_in_order(void **state) {
    (void)state;
    void (*const makers[])(void) = {make_cleaned_young, make_cleaned_ring};
    for (int i = 0; i < 2; i++) {
        cleaned = 0;
        memset(order, 0, sizeof(order));
        run_apart(makers[i]);
        live_after(CAIRN_TRACE);
        wait_for(&cleaned, 6);
        assert_string_equal(order, "abcdef");
    }
    assert_int_equal(cairn_cleanup_add(NULL, note, NULL), CAIRN_ERROR_ARGUMENT);
    assert_int_equal(cairn_cleanup_add(files, NULL, NULL), CAIRN_ERROR_ARGUMENT);
}

/* A finalizable object that is dead holds one with a cleanup: the cleanup waits for the finalizer,
 * in whatever order they were made. */
static int cleaned_at_finalizer;
static void remember_cleaned(File *file) {
    (void)file;
    cairn_finalize_pending();
    cleaned_at_finalizer = __atomic_load_n(&cleaned, __ATOMIC_SEQ_CST);
}
static void make_held(void) {
    Node *node = cairn_new(Node);
    add_letters(node, "x");
    File *file = cairn_new(File);
    cairn_set(&file->data, node);
    add_letters(file, "y");
}
static void make_held_later(void) {
    File *file = cairn_new(File);
    add_letters(file, "y");
    cairn_set(&file->data, cairn_new(Node));
    add_letters(file->data.p, "x");
}

static void cleanups_wait_for_finalizers(void **state) {
    (void)state;
    on_finalize = remember_cleaned;
    void (*const makers[])(void) = {make_held, make_held_later};
    for (int i = 0; i < 2; i++) {
        finalized = cleaned = 0;
        memset(order, 0, sizeof(order));
        cleaned_at_finalizer = -1;
        run_apart(makers[i]);
        live_after(CAIRN_COUNT);
        wait_for(&finalized, 1);
        assert_int_equal(cleaned_at_finalizer, 0);
        live_after(CAIRN_COUNT);
        wait_for(&cleaned, 2);
    }
}

static void delete_with_cleanups(void) {
    Node *node = cairn_new(Node), *copy = node;
    add_letters(node, "pq");
    cairn_delete(node);
    assert_int_equal(cairn_cleanup_add(copy, note, NULL), CAIRN_ERROR_ARGUMENT);
}

static void cleanups_run_at_delete(void **state) {
    (void)state;
    memset(order, 0, sizeof(order));
    run_apart(delete_with_cleanups);
    wait_for(&cleaned, 2);
    assert_string_equal(order, "pq");
    live_after(CAIRN_TRACE);
    wait_for(&cleaned, 2);
}

/* ---- Heaps that end ---- */

static cairn_heap *heap;
static int is_inside, may_leave;
static void linger(File *file) {
    __atomic_store_n(&is_inside, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&may_leave, __ATOMIC_SEQ_CST)) cairn_collect(CAIRN_COUNT);
    assert_int_equal(file->number, 4);
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_ERROR_BUSY);
}
static void make_in_heap(void) {
    for (int i = 0; i < 10; i++) {
        File *file = cairn_new_in(heap, File);
        file->number = 4;
        assert_int_equal(cairn_cleanup_add(file, note, NULL), CAIRN_OK);
    }
}
static void *leave_soon(void *unused) {
    while (!__atomic_load_n(&is_inside, __ATOMIC_SEQ_CST)) cairn_collect(CAIRN_COUNT);
    for (int i = 0; i < 100; i++) cairn_collect(CAIRN_COUNT); /* the heap is ending now */
    __atomic_store_n(&may_leave, 1, __ATOMIC_SEQ_CST);
    return unused;
}

/* A heap ends while its finalizers are queued and one of them runs: that one is waited for. */
static void heap_end_waits_for_a_running_finalizer(void **state) {
    (void)state;
    on_finalize = linger;
    assert_int_equal(cairn_heap_create(NULL, &heap), CAIRN_OK);
    run_apart(make_in_heap);
    pthread_t thread;
    live_after(CAIRN_COUNT);
    assert_int_equal(pthread_create(&thread, NULL, leave_soon, NULL), 0);
    while (!__atomic_load_n(&is_inside, __ATOMIC_SEQ_CST)) cairn_collect(CAIRN_COUNT);
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    int before = __atomic_load_n(&finalized, __ATOMIC_SEQ_CST);
    assert_true(before >= 1);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
    on_finalize = NULL;
    cairn_finalize_pending(); /* cleanups of those that were finalized and died */
    live_after(CAIRN_TRACE);
    assert_int_equal(__atomic_load_n(&finalized, __ATOMIC_SEQ_CST), before);
    assert_true(__atomic_load_n(&cleaned, __ATOMIC_SEQ_CST) <= before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(finalizer_runs_once_for_the_young, setup),
        cmocka_unit_test_setup(finalizer_runs_once_for_the_mature, setup),
        cmocka_unit_test_setup(finalizers_run_in_cycles, setup),
        cmocka_unit_test_setup(finalizer_sees_what_the_object_holds, setup),
        cmocka_unit_test_setup(finalizer_may_store_the_object, setup),
        cmocka_unit_test_setup(stored_object_keeps_its_count, setup),
        cmocka_unit_test_setup(finalizer_may_use_the_heap, setup),
        cmocka_unit_test_setup(finalizer_may_delete_its_object, setup),
        cmocka_unit_test_setup(delete_runs_the_finalizer, setup),
        cmocka_unit_test_setup(cleanups_run_in_order, setup),
        cmocka_unit_test_setup(cleanups_wait_for_finalizers, setup),
        cmocka_unit_test_setup(cleanups_run_at_delete, setup),
        cmocka_unit_test_setup(heap_end_waits_for_a_running_finalizer, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
