/* SPDX-License-Identifier: MIT
 *
 * Reports of broken contracts. Formats into the stack and writes with write(2): a report may come
 * from a signal handler, from inside malloc or with any lock held.
 */
#include "base/base.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    /* Not cancelled at the write: locks may be held and the world stopped. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    static const char prefix[] = "cairn: ";
    ssize_t ignored = write(STDERR_FILENO, prefix, sizeof(prefix) - 1);
    text[length] = '\n';
    ignored += write(STDERR_FILENO, text, (size_t)length + 1);
    (void)ignored;
    abort();
}
