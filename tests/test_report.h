/* SPDX-License-Identifier: MIT
 *
 * Reports that a test expects: a handler that leaves by longjmp, and what must hold afterwards.
 */
#ifndef CAIRN_TEST_REPORT_H
#define CAIRN_TEST_REPORT_H

#include "test.h"

/* Hundreds of reports need no names of functions: no helper is asked. */
__attribute__((constructor)) static void ask_no_helper(void) {
    setenv("CAIRN_SYMBOLIZER", "0", 0);
}

static jmp_buf caught;
static char report[8192];

static void on_report(const cairn_report *told, void *context) {
    (void)context;
    strncpy(report, told->text, sizeof(report) - 1);
    longjmp(caught, 1);
}

__attribute__((unused)) static void assert_names(const char *text) {
    if (!strstr(report, text)) fail_msg("\"%s\" is not in:\n%s", text, report);
}

__attribute__((unused)) static void *collect_once(void *unused) {
    cairn_collect(CAIRN_COUNT);
    return unused;
}

/* In no section, and not in a call that waits: the other thread has to stop this one. */
__attribute__((unused)) static void assert_stoppable(void) {
    pthread_t thread;
    uint64_t epochs = stats_now().epochs;
    assert_int_equal(cairn_thread.no_stop, 0);
    assert_int_equal(pthread_create(&thread, NULL, collect_once, NULL), 0);
    while (stats_now().epochs == epochs) {}
    pthread_join(thread, NULL);
}

/* The statement reports, and leaves the thread as it was. */
#define CATCH_REPORT(statement)                                                                    \
    do {                                                                                           \
        report[0] = 0;                                                                             \
        cairn_on_report(on_report, NULL);                                                          \
        if (setjmp(caught) == 0) {                                                                 \
            statement;                                                                             \
            fail_msg("no report");                                                                 \
        }                                                                                          \
        cairn_on_report(NULL, NULL);                                                               \
        assert_stoppable();                                                                        \
    } while (0)

#endif
