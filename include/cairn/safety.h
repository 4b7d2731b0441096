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

/* Which rule. */
typedef enum cairn_violation {
    CAIRN_VIOLATION_CONTRACT = 0,     /* of a call: a bad argument, no memory to go on with */
    CAIRN_VIOLATION_USE_AFTER_DELETE, /* an object was touched that cairn_delete had ended */
    CAIRN_VIOLATION_USE_AFTER_DEATH,  /* or that had been reclaimed: nothing that Cairn sees was
                                         left that referred to it */
    CAIRN_VIOLATION_DOUBLE_DELETE,
    CAIRN_VIOLATION_BAD_DELETE,       /* of what is no object, or of its middle */
    CAIRN_VIOLATION_OUT_OF_BOUNDS,    /* beyond the end of an object, or before its start */
    CAIRN_VIOLATION_NOT_AN_OBJECT,    /* a reference to what is no object */
    CAIRN_VIOLATION_UNDECLARED_FIELD, /* a reference stored where its type declares none */
    CAIRN_VIOLATION_CROSSES_HEAPS,    /* a reference from one heap into another */
    CAIRN_VIOLATION_FORGOTTEN_STORE,  /* a reference that was stored without cairn_set */
    CAIRN_VIOLATION_PLAIN_COPY,       /* memcpy and its like on memory that holds references */
    CAIRN_VIOLATION_WRONG_TYPE,       /* cairn_cast of an object of another type */
} cairn_violation;

/* What a handler is told; valid until it returns. */
typedef struct cairn_report {
    size_t size; /* of this struct */
    cairn_violation violation;
    const char *text; /* what is printed: a title, and lines "  key: text" */
    const char *json; /* the same as one object, with figures */
} cairn_report;

/* Called before the process aborts, or goes on. It runs with no lock of Cairn's held, on the thread
 * that broke the rule, and in the fault handler if that touched a tombstone; there only what a
 * signal handler may do is safe. It may exit, or leave by longjmp out of a report of this header
 * and object.h: the thread goes on as before. What a collection finds (a reference to no object, a
 * deleted variable that was stored, all of CAIRN_VERIFY) is different: it comes while all threads
 * stand still, on any of them, and the handler may write(2), end the process by _exit, or return.
 */
typedef void (*cairn_report_handler)(const cairn_report *report, void *context);
/* NULL: none. Set it before threads run; the last one set counts, for all threads. */
CAIRN_API void cairn_on_report(cairn_report_handler handler, void *context);

/* What follows a report; CAIRN_POLICY in the environment says the same. */
typedef enum cairn_report_policy {
    CAIRN_REPORT_ABORT = 0, /* it is printed on stderr and the process aborts */
    CAIRN_REPORT_LOG,       /* it is printed, once for each place, and the program goes on */
    CAIRN_REPORT_CALLBACK,  /* only the handler is told, and the program goes on if it returns */
} cairn_report_policy;
/* The program goes on from what was looked at before it happened: reports of checked and
 * instrumented builds and of cairn_delete, which then does nothing. From a fault there is no way
 * on, nor from what a collection finds or a call that could not do what it must: they abort under
 * every policy. What goes on may damage what lives where the dead object was. Any thread. */
CAIRN_API void cairn_report_set_policy(cairn_report_policy policy);

#ifdef __cplusplus
}
#endif

#endif
