/* SPDX-License-Identifier: MIT
 *
 * Reports of broken contracts. Formats into the stack and writes by one system call: a report may
 * come from a signal handler, from inside malloc or with any lock held, and the function of libc is
 * one that Cairn stands in front of.
 */
#define _GNU_SOURCE
#include "base/base.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void (*fail_handler)(const char *report, void *context);
static void *fail_context;

void crn_set_fail_handler(void (*handler)(const char *report, void *context), void *context) {
    fail_context = context;
    fail_handler = handler;
}

_Noreturn void crn_fail(const char *format, ...) {
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof(text) - 1, format, arguments);
    va_end(arguments);
    if (length < 0) length = 0;
    if ((size_t)length > sizeof(text) - 2) length = (int)sizeof(text) - 2;
    if (fail_handler) fail_handler(text, fail_context);
    /* Not cancelled meanwhile: locks may be held and the world stopped. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    static char prefix[] = "cairn: ";
    text[length] = '\n';
    struct iovec parts[] = {{prefix, sizeof(prefix) - 1}, {text, (size_t)length + 1}};
    syscall(SYS_writev, STDERR_FILENO, parts, 2);
    abort();
}
