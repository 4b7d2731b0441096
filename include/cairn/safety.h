/* SPDX-License-Identifier: MIT
 *
 * What happens when a program breaks a rule.
 */
#ifndef CAIRN_SAFETY_H
#define CAIRN_SAFETY_H

#include <cairn/object.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Called with the text of a report before the process aborts. It runs with no lock of Cairn's held,
 * on the thread that broke the rule, and in the fault handler if that touched a tombstone; there
 * only what a signal handler may do is safe. It may exit, or leave by longjmp out of a report of
 * this header and object.h: the thread goes on as before. What a collection finds (a reference to
 * no object, a deleted variable that was stored, all of CAIRN_VERIFY) is different: it comes while
 * all threads stand still, on any of them, and the handler may write(2), end the process by _exit,
 * or return. */
typedef void (*cairn_report_handler)(const char *report, void *context);
/* NULL: none. Set it before threads run; the last one set counts, for all threads. */
CAIRN_API void cairn_on_report(cairn_report_handler handler, void *context);

#ifdef __cplusplus
}
#endif

#endif
