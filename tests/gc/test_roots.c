/* SPDX-License-Identifier: MIT
 *
 * Every place outside the stacks where a pointer may hide is seen: thread-locals, specific values,
 * data of loaded libraries, what threads hand over. Method: hiding.h.
 */
#include "hiding.h"

#include "gc/gc.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Thread-locals, specific values, data -----------------------------------------------------
 */

static _Thread_local void *volatile local_slot;
static void hide_in_local(void) {
    local_slot = make_watched();
}
static void clear_local(void) {
    local_slot = NULL;
}
static void static_thread_local_is_seen(void **state) {
    (void)state;
    expect_hiding_place_is_seen(hide_in_local, clear_local);
}

static void static_thread_local_of_main_is_seen(void **state) {
    (void)state;
    call_and_clean(hide_in_local);
    assert_true(survives_collections());
    local_slot = NULL;
    assert_true(goes_in_time());
}

static void *plugin;
static void (*plugin_set)(void *value);

static void open_plugin(const char *setter) {
    plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(plugin);
    *(void **)&plugin_set = dlsym(plugin, setter);
    assert_non_null(plugin_set);
}

static void hide_in_plugin(void) {
    plugin_set(make_watched());
}
static void clear_plugin(void) {
    plugin_set(NULL);
}

static void dynamic_thread_local_is_seen(void **state) {
    (void)state;
    open_plugin("plugin_set_local");
    expect_hiding_place_is_seen(hide_in_plugin, clear_plugin);
    dlclose(plugin);
}

static void *touch_late(void *argument) {
    (void)argument;
    (void)cairn_new(Node); /* registers before the library is there */
    stand_at_gate();
    call_and_clean(hide_in_plugin);
    stand_at_gate();
    call_and_clean(clear_plugin);
    stand_at_gate();
    return NULL;
}

static void dynamic_thread_local_loaded_later_is_seen(void **state) {
    (void)state;
    gate_init();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, touch_late, NULL), 0);
    wait_at(&arrived);
    cairn_collect(CAIRN_COUNT); /* a list without the library exists */
    open_plugin("plugin_set_local");
    sem_post(&passed);
    wait_at(&arrived);
    assert_true(survives_collections());
    sem_post(&passed);
    wait_at(&arrived);
    assert_true(goes_in_time());
    sem_post(&passed);
    pthread_join(thread, NULL);
    dlclose(plugin);
}

static void data_of_loaded_library_is_seen(void **state) {
    (void)state;
    static const char *const setters[] = {"plugin_set_data", "plugin_set_bss"};
    for (int i = 0; i < 2; i++) {
        cairn_collect(CAIRN_COUNT);
        open_plugin(setters[i]);
        run_apart(hide_in_plugin);
        assert_true(survives_collections());
        clear_plugin();
        assert_true(goes_in_time());
        /* Unloaded with the object in it: the object goes, and nothing is read that is not there.
         */
        run_apart(hide_in_plugin);
        assert_true(survives_collections());
        dlclose(plugin);
        assert_true(goes_in_time());
    }
}

/* Loads and unloads while another thread collects, once at each of the loader's steps: collecting
 * without a pause would leave it hardly a moment to load in. */
static uint32_t is_over, step;
static void begin_step(void) {
    __atomic_fetch_add(&step, 1, __ATOMIC_RELEASE);
}

static void *load_and_unload(void *argument) {
    (void)argument;
    for (int i = 0; i < 200; i++) {
        begin_step();
        open_plugin("plugin_set_data");
        begin_step();
        Node *node = cairn_make(Node, .value = i);
        plugin_set(node);
        uintptr_t hidden = HIDE(node);
        node = NULL;
        for (int k = 0; k < 20; k++) (void)cairn_new(Node);
        void *(*get)(void);
        *(void **)&get = dlsym(plugin, "plugin_get_data");
        node = get();
        if (HIDE(node) != hidden || node->value != i) abort();
        begin_step();
        dlclose(plugin);
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void loading_goes_with_collecting(void **state) {
    (void)state;
    is_over = step = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, load_and_unload, NULL), 0);
    for (uint32_t seen = 0; !__atomic_load_n(&is_over, __ATOMIC_ACQUIRE);) {
        uint32_t now = __atomic_load_n(&step, __ATOMIC_ACQUIRE);
        if (now != seen) cairn_collect(CAIRN_TRACE);
        seen = now;
        sched_yield();
    }
    pthread_join(thread, NULL);
}

enum { KEY_COUNT = 200 };
static pthread_key_t keys[KEY_COUNT], key;
static void hide_in_specific(void) {
    assert_int_equal(pthread_setspecific(key, make_watched()), 0);
}
static void clear_specific(void) {
    assert_int_equal(pthread_setspecific(key, NULL), 0);
}

/* libc keeps the first values with the thread and the others in memory from malloc. */
static void specific_values_are_seen(void **state) {
    (void)state;
    for (int i = 0; i < KEY_COUNT; i++) {
        assert_int_equal(pthread_key_create(&keys[i], NULL), 0);
    }
    key = keys[0];
    expect_hiding_place_is_seen(hide_in_specific, clear_specific);
    for (int i = KEY_COUNT / 2; !IS_SANITIZED && i < KEY_COUNT; i += KEY_COUNT / 2 - 1) {
        key = keys[i];
        expect_hiding_place_is_seen(hide_in_specific, clear_specific);
        call_and_clean(hide_in_specific);
        assert_true(survives_collections());
        /* A deleted key's values are gone. */
        assert_int_equal(pthread_key_delete(key), 0);
        assert_true(goes_in_time());
        assert_int_equal(pthread_key_create(&keys[i], NULL), 0);
    }
    for (int i = 0; i < KEY_COUNT; i++) assert_int_equal(pthread_key_delete(keys[i]), 0);
}

static bool destructor_saw_it;
static void collect_in_destructor(void *value) {
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    destructor_saw_it = ((Node *)value)->value == MAGIC && is_watched_alive();
}
static void *set_and_end(void *argument) {
    (void)argument;
    call_and_clean(hide_in_specific);
    return NULL;
}
static void specific_value_lives_through_its_destructor(void **state) {
    (void)state;
    for (int i = 0; i < KEY_COUNT / 2; i++) {
        assert_int_equal(pthread_key_create(&keys[i], NULL), 0);
    }
    assert_int_equal(pthread_key_create(&key, collect_in_destructor), 0);
    destructor_saw_it = false;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, set_and_end, NULL), 0);
    pthread_join(thread, NULL);
    assert_true(destructor_saw_it);
    assert_true(goes_in_time());
    pthread_key_delete(key);
    for (int i = 0; i < KEY_COUNT / 2; i++) assert_int_equal(pthread_key_delete(keys[i]), 0);
}

static char large_bss[(size_t)512 << 20];
static void bss_never_touched_is_skipped(void **state) {
    (void)state;
    *(void *volatile *)(void *)(large_bss + sizeof(large_bss) / 2) = NULL; /* one page */
    cairn_collect(CAIRN_TRACE);
    assert_true(crn_scanned().bytes < sizeof(large_bss) / 8);
}

static void hide_in_bss(void) {
    *(void *volatile *)(void *)(large_bss + sizeof(large_bss) / 2 + 4096) = make_watched();
}
static void bss_touched_is_seen(void **state) {
    (void)state;
    call_and_clean(hide_in_bss);
    assert_true(survives_collections());
    *(void *volatile *)(void *)(large_bss + sizeof(large_bss) / 2 + 4096) = NULL;
    assert_true(goes_in_time());
}

/* A page that the parent never touched: whoever asks must ask about this process. */
static void hide_in_page_of_child(void) {
    *(void *volatile *)(void *)(large_bss + sizeof(large_bss) / 4) = make_watched();
}
static void page_touched_by_child_is_seen(void **state) {
    (void)state;
#if CAIRN_TSAN_
    skip(); /* does not allow threads in the child of a process with threads */
#endif
    cairn_collect(CAIRN_TRACE);
    pid_t child = fork();
    if (child == 0) {
        call_and_clean(hide_in_page_of_child);
        _exit(survives_collections() ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* ---- What threads hand over -------------------------------------------------------------------
 */

static void *hold_argument(void *argument) {
    stand_at_gate();
    if (((Node *)argument)->value != MAGIC) abort();
    return NULL;
}

__attribute__((noinline)) static void start_with_argument(pthread_t *thread) {
    assert_int_equal(pthread_create(thread, NULL, hold_argument, make_watched()), 0);
}

/* The thread never allocates: it is known because it was made. */
static void argument_of_thread_is_seen(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    gate_init();
    pthread_t thread;
    start_with_argument(&thread);
    wait_at(&arrived);
    assert_true(survives_collections());
    sem_post(&passed);
    pthread_join(thread, NULL);
    assert_true(goes_in_time());
}

/* Collections run while many threads are between pthread_create and their first line. */
static void *check_argument(void *argument) {
    return ((Node *)argument)->value == MAGIC ? NULL : argument;
}
static void *collect_until_over(void *argument) {
    (void)argument;
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) cairn_collect(CAIRN_TRACE);
    return NULL;
}
static void argument_not_taken_yet_is_seen(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    is_over = 0;
    pthread_t collector;
    assert_int_equal(pthread_create(&collector, NULL, collect_until_over, NULL), 0);
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        void *result = NULL;
        assert_int_equal(
            pthread_create(&thread, NULL, check_argument, cairn_make(Node, .value = MAGIC)), 0);
        clean_stack();
        pthread_join(thread, &result);
        assert_null(result);
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    pthread_join(collector, NULL);
}

static int ending_thread; /* its id, atomic */
static void tell_id(void) {
    __atomic_store_n(&ending_thread, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
}
static void *return_object(void *argument) {
    (void)argument;
    tell_id();
    return make_watched();
}
static void *exit_with_object(void *argument) {
    (void)argument;
    tell_id();
    pthread_exit(make_watched());
}

/* Until the kernel knows the thread no more: its stack may hold nothing that counts. */
static void wait_until_ended(void) {
    int id;
    while (!(id = __atomic_load_n(&ending_thread, __ATOMIC_ACQUIRE))) sched_yield();
    while (syscall(SYS_tgkill, getpid(), id, 0) == 0) sched_yield();
    ending_thread = 0;
}

__attribute__((noinline)) static void join_and_check(pthread_t thread) {
    void *result = NULL;
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_int_equal(((Node *)result)->value, MAGIC);
}

static void result_of_thread_is_seen_until_joined(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    void *(*const ways[])(void *) = {return_object, exit_with_object};
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, ways[i], NULL), 0);
        wait_until_ended();
        assert_true(survives_collections());
        join_and_check(thread);
        assert_true(goes_in_time());
    }
}

static void result_of_detached_thread_goes(void **state) {
    (void)state;
    if (IS_SANITIZED) skip();
    gate_init();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, return_object, NULL), 0);
    wait_until_ended();
    assert_true(survives_collections());
    assert_int_equal(pthread_detach(thread), 0);
    assert_true(goes_in_time());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(static_thread_local_is_seen),
        cmocka_unit_test(static_thread_local_of_main_is_seen),
        cmocka_unit_test(dynamic_thread_local_is_seen),
        cmocka_unit_test(dynamic_thread_local_loaded_later_is_seen),
        cmocka_unit_test(data_of_loaded_library_is_seen),
        cmocka_unit_test(loading_goes_with_collecting),
        cmocka_unit_test(specific_values_are_seen),
        cmocka_unit_test(specific_value_lives_through_its_destructor),
        cmocka_unit_test(bss_never_touched_is_skipped),
        cmocka_unit_test(bss_touched_is_seen),
        cmocka_unit_test(page_touched_by_child_is_seen),
        cmocka_unit_test(argument_of_thread_is_seen),
        cmocka_unit_test(argument_not_taken_yet_is_seen),
        cmocka_unit_test(result_of_thread_is_seen_until_joined),
        cmocka_unit_test(result_of_detached_thread_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
