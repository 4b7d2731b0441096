/* SPDX-License-Identifier: MIT
 *
 * Between the files of safety/: graves, and reports of what was deleted.
 */
#ifndef CRN_SAFETY_H
#define CRN_SAFETY_H

#include "object/object.h"
#include "object/sites.h"

/* What is known of a deleted object. */
struct crn_grave {
    uint64_t position; /* of its stretch of the graveyard, bytes; never repeats */
    size_t bytes;      /* of the object */
    void *object;
    const char *type;
    struct crn_place allocated;
    const char *file, *function; /* of the deletion */
    int line, thread_id;
    uint64_t deleted_ns;
};

/* graveyard.c */
bool crn_graveyard_open(void); /* false without address space or memory */
/* The object's tombstone. `position` is filled in. The graveyard is open. */
char *crn_graveyard_bury(struct crn_grave *grave);
bool crn_graveyard_has(const void *address);
char *crn_graveyard_of_field(char *tombstone); /* from a variable's to the same for fields */
/* Copies the record of the grave that an address lies in; false if it is too old. `offset` is into
 * the object. Takes no lock: may be called in a signal handler. */
bool crn_graveyard_find(const void *address, struct crn_grave *grave, size_t *offset);
/* The same for a deleted object whose slot waits, by a linear search of the newest first. */
bool crn_graveyard_find_object(const void *object, struct crn_grave *grave);

/* report.c: each returns by longjmp out of the handler, or not at all. In no section and with no
 * lock held. */
struct crn_call { /* of the program */
    const char *file, *function;
    int line;
};
/* `pointer` is a tombstone or a deleted object; `access` is what was done: "a store into". */
_Noreturn void crn_report_use(const void *pointer, const char *access, const struct crn_call *call);
_Noreturn void crn_report_double_delete(const void *pointer, const char *type,
                                        const struct crn_call *site);
_Noreturn void crn_report_no_object(const void *pointer, const char *start, const char *type,
                                    const struct crn_call *site);
bool crn_report_init(void); /* listens for faults */

#endif
