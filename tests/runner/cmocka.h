/* SPDX-License-Identifier: MIT
 *
 * The part of cmocka that the tests use, for targets that Debian has no cmocka for: a foreign
 * processor, musl. Found in cmocka's place where CAIRN_OWN_RUNNER is set.
 *
 * A failed assertion prints where and what, and ends the program at once: later tests do not run.
 */
#ifndef CAIRN_TEST_RUNNER_H
#define CAIRN_TEST_RUNNER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
    void *state;
    int (*setup)(void **state);
    int (*teardown)(void **state);
};
#define cmocka_unit_test(function) cmocka_unit_test_prestate(function, NULL)
#define cmocka_unit_test_prestate(function, state)                                                 \
    { #function, function, state, NULL, NULL }
#define cmocka_unit_test_setup(function, setup)                                                    \
    cmocka_unit_test_setup_teardown(function, setup, NULL)
#define cmocka_unit_test_setup_teardown(function, setup, teardown)                                 \
    { #function, function, NULL, setup, teardown }
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    runner_run((tests), sizeof(tests) / sizeof((tests)[0]), (setup), (teardown))

#define RUNNER_CHECK(condition, text)                                                              \
    ((condition) ? (void)0 : runner_fail(__FILE__, __LINE__, "%s", text))

#define assert_true(condition) RUNNER_CHECK((condition), #condition)
#define assert_false(condition) RUNNER_CHECK(!(condition), "not " #condition)
#define assert_null(pointer) RUNNER_CHECK((pointer) == NULL, #pointer " is NULL")
#define assert_non_null(pointer) RUNNER_CHECK((pointer) != NULL, #pointer " is not NULL")
#define assert_ptr_equal(a, b) RUNNER_CHECK((const void *)(a) == (const void *)(b), #a " == " #b)
#define assert_ptr_not_equal(a, b)                                                                 \
    RUNNER_CHECK((const void *)(a) != (const void *)(b), #a " != " #b)
#define assert_int_equal(a, b)                                                                     \
    runner_equal((uintmax_t)(a), (uintmax_t)(b), #a, #b, __FILE__, __LINE__)
#define assert_int_not_equal(a, b) RUNNER_CHECK((uintmax_t)(a) != (uintmax_t)(b), #a " != " #b)
#define assert_string_equal(a, b) runner_text((a), (b), __FILE__, __LINE__)
#define assert_memory_equal(a, b, bytes)                                                           \
    RUNNER_CHECK(memcmp((a), (b), (bytes)) == 0, #a " holds what " #b " does")
/* A function, so that the compiler does not mind a low end of 0. */
static inline bool runner_is_in_range(uintmax_t value, uintmax_t low, uintmax_t high) {
    return value >= low && value <= high;
}
#define assert_in_range(value, low, high)                                                          \
    RUNNER_CHECK(runner_is_in_range((uintmax_t)(value), (uintmax_t)(low), (uintmax_t)(high)),      \
                 #value " lies from " #low " to " #high)
#define fail_msg(...) runner_fail(__FILE__, __LINE__, __VA_ARGS__)
#define fail() runner_fail(__FILE__, __LINE__, "failed")
#define print_message(...) printf(__VA_ARGS__)
#define skip()                                                                                     \
    do {                                                                                           \
        printf("[  SKIPPED ] by the test\n");                                                      \
        return;                                                                                    \
    } while (0)

__attribute__((format(printf, 3, 4), noreturn, unused)) static void runner_fail(const char *file,
                                                                                int line,
                                                                                const char *format,
                                                                                ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    fflush(NULL);
    abort();
}

__attribute__((unused)) static void runner_equal(uintmax_t a, uintmax_t b, const char *text_a,
                                                 const char *text_b, const char *file, int line) {
    if (a == b) return;
    runner_fail(file, line, "%s == %s: %#jx is not %#jx", text_a, text_b, a, b);
}

__attribute__((unused)) static void runner_text(const char *a, const char *b, const char *file,
                                                int line) {
    if (strcmp(a, b) == 0) return;
    runner_fail(file, line, "\"%s\" is not \"%s\"", a, b);
}

/* What one test left on the stack would be a root in the next one's unused slots. */
__attribute__((noinline, unused)) static void runner_clean_stack(void) {
    volatile char space[65536];
    for (size_t i = 0; i < sizeof(space); i++) space[i] = 0;
}

static const char *runner_only; /* a test's whole name, or NULL */
__attribute__((unused)) static void cmocka_set_test_filter(const char *name) {
    runner_only = name;
}

__attribute__((unused)) static void runner_call(int (*function)(void **), void **state,
                                                const char *what) {
    if (function && function(state) != 0) runner_fail(__FILE__, __LINE__, "%s failed", what);
}

__attribute__((unused)) static int runner_run(const struct CMUnitTest *tests, size_t count,
                                              int (*setup)(void **), int (*teardown)(void **)) {
    void *group = NULL;
    runner_call(setup, &group, "the setup");
    for (size_t i = 0; i < count; i++) {
        if (runner_only && strcmp(runner_only, tests[i].name) != 0) continue;
        void *state = tests[i].state ? tests[i].state : group;
        runner_clean_stack();
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        runner_call(tests[i].setup, &state, "its setup");
        tests[i].run(&state);
        runner_call(tests[i].teardown, &state, "its teardown");
        printf("[       OK ] %s\n", tests[i].name);
    }
    runner_call(teardown, &group, "the teardown");
    printf("[  PASSED  ] %zu test(s)\n", count);
    return 0;
}

#endif
