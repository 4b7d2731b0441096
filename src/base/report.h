/* SPDX-License-Identifier: MIT
 *
 * Reports: what a broken rule looks like, as text, as JSON and to the program's handler, and what
 * happens after it.
 *
 * A report is a row of lines, each with a key. The same lines make the text and the JSON; figures
 * and places are added to the JSON alone, for programs.
 */
#ifndef CRN_REPORT_H
#define CRN_REPORT_H

#include "base/base.h"

#include <cairn/safety.h>

struct crn_report;

/* Under the policy to log and go on a place is told of once: whether this one was. Ask first, for a
 * report costs milliseconds. By file and line, or (file NULL) by the code's address. */
bool crn_report_is_told(cairn_violation violation, const char *file, int line, const void *code);

/* The calling thread's; whatever it reported before is over. */
struct crn_report *crn_report_begin(cairn_violation violation);
/* "  key: text". A key may come several times: then the JSON has an array. */
void crn_report_line(struct crn_report *report, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "    text": below a line, one of several; an array in the JSON, whose key is not in the text. */
void crn_report_item(struct crn_report *report, const char *key, const char *text);
/* In the JSON only. */
void crn_report_number(struct crn_report *report, const char *key, uint64_t value);
void crn_report_string(struct crn_report *report, const char *key, const char *value);

/* Hands the report to the file and the handler, prints it, and aborts. In no section and with no
 * lock held, for the handler may leave with longjmp. */
_Noreturn void crn_report_abort(struct crn_report *report);
/* The same, but returns where the policy is to go on: the caller does as if nothing had been. */
void crn_report_end(struct crn_report *report);

/* A line on stderr that is no report: "cairn: note: ...". */
void crn_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* CAIRN_REPORT=file: where each report is added as a line of JSON. False if it cannot be opened. */
bool crn_report_to_file(const char *path);

#endif
