/* SPDX-License-Identifier: MIT
 *
 * A part of a test in a process of its own: what it wrote to stderr, and how it ended.
 */
#ifndef CAIRN_TEST_CHILD_H
#define CAIRN_TEST_CHILD_H

#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static char child_output[1 << 16];

/* What another processor's tests do is emulated mostly, ten times slower. */
#if defined(__x86_64__)
enum { CHILD_SECONDS = 60 };
#else
enum { CHILD_SECONDS = 600 };
#endif

/* Runs body(argument) in a child, which ends with its result. A child that hangs is killed: the
 * alarm's default action ends it even where threads stand still. Returns the status of waitpid. */
__attribute__((unused)) static int run_child(int (*body)(long argument), long argument) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        for (int i = 0; i < 4; i++) signal((int[]){SIGSEGV, SIGBUS, SIGFPE, SIGILL}[i], SIG_DFL);
        alarm(CHILD_SECONDS);
        _exit(body(argument));
    }
    close(ends[1]);
    size_t length = 0;
    for (;;) {
        ssize_t got = read(ends[0], child_output + length, sizeof(child_output) - 1 - length);
        if (got <= 0) break;
        length += (size_t)got;
    }
    child_output[length] = 0;
    close(ends[0]);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Ended by abort after exactly one report. */
__attribute__((unused)) static bool is_one_report(int status) {
    const char *first = strstr(child_output, "cairn: ");
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && first &&
           !strstr(first + 1, "\ncairn: ");
}

#endif
