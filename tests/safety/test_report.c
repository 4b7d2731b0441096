/* SPDX-License-Identifier: MIT
 *
 * Touching what was deleted: the report and what it names, tombstones of many deletions, and faults
 * that are none of ours. What must die does so in a forked child. cmocka listens for faults itself
 * during a test: each test puts Cairn's handler back.
 */
#define _GNU_SOURCE
#include "../test_report.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if CAIRN_ASAN_ || CAIRN_TSAN_
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

static struct sigaction own_handler; /* Cairn's, as a program has it */

static volatile long sink;

/* The handler left a signal handler by longjmp: nothing is masked. */
static void assert_unmasked(void) {
    sigset_t mask;
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    assert_false(sigismember(&mask, SIGURG));
    assert_false(sigismember(&mask, SIGSEGV));
}

#define EXPECT_REPORT(statement)                                                                   \
    do {                                                                                           \
        sigaction(SIGSEGV, &own_handler, NULL);                                                    \
        CATCH_REPORT(statement);                                                                   \
        assert_unmasked();                                                                         \
    } while (0)

typedef struct {
    long first, second;
    char name[200];
} Record;
CAIRN_LEAF(Record);

static void touch_reports_what_was_touched(void **state) {
    (void)state;
    Record *volatile record = cairn_new(Record);
    char text[64];
    snprintf(text, sizeof(text), "object: %p", (void *)record);
    cairn_delete(record);
    int line = __LINE__ - 1;
    EXPECT_REPORT(sink += record->second);
    assert_names("use after delete\n  what: read of a deleted Record (216 bytes) at offset 8");
    assert_names(text);
    assert_names("allocated: not recorded; compile with -DCAIRN_SITES");
    snprintf(text, sizeof(text), "test_report.c:%d in touch_reports_what_was_touched, by thread %d",
             line, (int)gettid());
    assert_names(text);
    assert_names("where: /");
    assert_names("test_report+0x");
#if defined(__x86_64__)
    EXPECT_REPORT(record->name[199] = 1);
    assert_names("what: write to a deleted Record (216 bytes) at offset 215");
#endif
}

/* addr2line finds the line from the file and the offset that the report prints. */
static void report_leads_to_the_faulting_line(void **state) {
    (void)state;
    if (system("command -v addr2line >/dev/null 2>&1") != 0) {
        skip();
        return;
    }
    Record *volatile record = cairn_new(Record);
    cairn_delete(record);
    EXPECT_REPORT(sink += record->first);
    int line = __LINE__ - 1;
    char command[1024], answer[1024] = "", wanted[64], path[512];
    unsigned long offset;
    const char *from = strstr(report, "where: ");
    assert_non_null(from);
    assert_int_equal(sscanf(from, "where: %500[^+]+0x%lx, thread", path, &offset), 2);
    snprintf(command, sizeof(command), "addr2line -e %s 0x%lx", path, offset);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(answer, sizeof(answer), pipe));
    pclose(pipe);
    snprintf(wanted, sizeof(wanted), "test_report.c:%d", line);
    if (!strstr(answer, wanted)) fail_msg("%s says %s", command, answer);
}

/* The copy is in a section when it faults: the handler leaves that too. */
static void touch_by_a_bulk_call_may_be_left(void **state) {
    (void)state;
    Node *volatile node = cairn_new(Node);
    NodeRef *array = cairn_new_array(NodeRef, 4);
    cairn_delete(node);
    EXPECT_REPORT(cairn_copy(array, (NodeRef *)(void *)node, 1));
    assert_names("read of a deleted Node");
    assert_null(array[0].p);
}

/* On an alternate stack too. */
static void touch_reports_from_an_alternate_stack(void **state) {
    (void)state;
    stack_t alternate = {.ss_size = 1 << 16}, before;
    alternate.ss_sp = malloc(alternate.ss_size);
    assert_int_equal(sigaltstack(&alternate, &before), 0);
    Record *volatile record = cairn_new(Record);
    cairn_delete(record);
    for (volatile int i = 0; i < 3; i++) {
        EXPECT_REPORT(sink += record->first);
        assert_names("read of a deleted Record");
    }
    assert_int_equal(sigaltstack(&before, NULL), 0);
    free(alternate.ss_sp);
}

/* Each tombstone tells of its own object; those of very old ones say that the record expired. */
enum { MANY = 70000 };
static void records_are_found_among_many(void **state) {
    (void)state;
    static Record *tombstones[MANY];
    for (int i = 0; i < MANY; i++) {
        Record *record = cairn_new(Record);
        if (i % 1000 == 999) {
            cairn_delete(record);
        } else {
            Node *node = cairn_new(Node);
            cairn_delete(node);
            record = (Record *)(void *)node;
        }
        tombstones[i] = record;
    }
    for (volatile int i = 999; i < MANY; i += 3000) {
        EXPECT_REPORT(sink += tombstones[i]->second);
        assert_names(i < MANY - 65536 ? "an object that was deleted, record expired"
                                      : "a deleted Record (216 bytes) at offset 8");
        EXPECT_REPORT(sink += ((Node *)(void *)tombstones[i - 1])->value);
        assert_names(i - 1 < MANY - 65536 ? "record expired"
                                          : "a deleted Node (24 bytes) at offset 16");
    }
    EXPECT_REPORT(sink += ((Node *)(void *)tombstones[MANY - 65536])->value);
    assert_names("a deleted Node (24 bytes) at offset 16");
    EXPECT_REPORT(sink += tombstones[0]->first);
    assert_names("record expired");
    EXPECT_REPORT(cairn_delete(tombstones[0]));
    assert_names("double delete");
    assert_names("the record expired");
    memset(tombstones, 0, sizeof(tombstones));
}

/* Threads delete while others look at tombstones: no report is mixed of two. */
typedef struct {
    char bytes[40];
} Small;
CAIRN_LEAF(Small);
static int is_over;
static void *delete_all_the_time(void *unused) {
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {
        for (int i = 0; i < 1000; i++) {
            Small *small = cairn_new(Small);
            cairn_delete(small);
        }
    }
    return unused;
}

static void records_are_whole_while_others_delete(void **state) {
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, delete_all_the_time, NULL), 0);
    for (volatile int i = 0; i < 300; i++) {
        Record *volatile record = cairn_new(Record);
        cairn_delete(record);
        report[0] = 0;
        sigaction(SIGSEGV, &own_handler, NULL);
        cairn_on_report(on_report, NULL);
        if (setjmp(caught) == 0) sink += record->second;
        cairn_on_report(NULL, NULL);
        bool is_right = strstr(report, "a deleted Record (216 bytes) at offset 8") ||
                        strstr(report, "record expired");
        if (!is_right) fail_msg("%s", report);
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
}

/* ---- Faults that are not ours ---- */

static int status_of(void (*run)(void)) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(60);
        if (!freopen("/dev/null", "w", stderr)) _exit(9);
        sigaction(SIGSEGV, &own_handler, NULL);
        run();
        _exit(0);
    }
    int status = 0;
    cairn_blocking_begin();
    waitpid(child, &status, 0);
    cairn_blocking_end();
    return status;
}

static void assert_dies_by_fault(void (*run)(void)) {
    int status = status_of(run);
    if (IS_SANITIZED) {
        assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
        return;
    }
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

enum { NOWHERE = 64 };
static volatile int depth_limit = 1 << 30;
__attribute__((noinline)) static int overflow(int depth) {
    volatile char space[1000];
    space[0] = (char)depth;
    return depth < depth_limit ? overflow(depth + 1) + space[0] : 0;
}
static void overflow_the_stack(void) {
    overflow(0);
}
static void overflow_with_alternate_stack(void) {
    stack_t alternate = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    sigaltstack(&alternate, NULL);
    overflow(0);
}
static void write_to_nowhere(void) {
    int *volatile nowhere = (int *)(uintptr_t)NOWHERE;
    *(volatile int *)nowhere = 1;
}
static void send_fault(void) {
    raise(SIGSEGV);
}

static void other_faults_end_the_program_as_before(void **state) {
    (void)state;
    assert_dies_by_fault(overflow_the_stack);
    assert_dies_by_fault(overflow_with_alternate_stack);
    assert_dies_by_fault(write_to_nowhere);
    assert_dies_by_fault(send_fault);
}

/* A handler that was there before is called, in either form. */
static void exit_three(int signal) {
    (void)signal;
    _exit(3);
}
static void exit_four(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    _exit(info->si_addr == (void *)(uintptr_t)NOWHERE ? 4 : 5);
}

static void delete_something(void) {
    Node *node = cairn_new(Node);
    cairn_delete(node);
}

static int status_with(const struct sigaction *action) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        sigaction(SIGSEGV, action, NULL);
        delete_something(); /* the first of this process: takes the signal now */
        write_to_nowhere();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void earlier_handlers_are_called(void **state) {
    (void)state;
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = exit_three;
    assert_int_equal(status_with(&action), 3);
    action.sa_sigaction = exit_four;
    action.sa_flags = SA_SIGINFO;
    assert_int_equal(status_with(&action), 4);
}

int main(void) {
    const struct CMUnitTest first[] = {cmocka_unit_test(earlier_handlers_are_called)};
    int failed = cmocka_run_group_tests(first, NULL, NULL);
    delete_something();
    sigaction(SIGSEGV, NULL, &own_handler);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(touch_reports_what_was_touched),
        cmocka_unit_test(report_leads_to_the_faulting_line),
        cmocka_unit_test(touch_by_a_bulk_call_may_be_left),
        cmocka_unit_test(touch_reports_from_an_alternate_stack),
        cmocka_unit_test(records_are_found_among_many),
        cmocka_unit_test(records_are_whole_while_others_delete),
        cmocka_unit_test(other_faults_end_the_program_as_before),
    };
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
