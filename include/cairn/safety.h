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

/* Called with the text of a report before the process aborts; may longjmp or exit instead. */
typedef void (*cairn_report_handler)(const char *report, void *context);
CAIRN_API void cairn_on_report(cairn_report_handler handler, void *context);

#ifdef __cplusplus
}
#endif

#endif
