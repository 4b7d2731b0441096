/* SPDX-License-Identifier: MIT
 *
 * Between the files of safety/: graves, and reports of what was deleted.
 */
#ifndef CRN_SAFETY_H
#define CRN_SAFETY_H

#include "base/report.h"
#include "object/births.h"
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
    uint32_t allocated_stack, deleted_stack; /* numbers in the depot */
    bool has_extra;                          /* when it was deleted: the deletion has told it */
};

/* graveyard.c */
bool crn_graveyard_open(void); /* false without address space or memory */
/* A grave for an object of so many bytes, of which `position` and `bytes` are filled in; NULL
 * without memory. It may be left as it is. In a section with no lock held. */
struct crn_grave *crn_graveyard_dig(struct crn_thread *self, size_t bytes);
/* The rest is filled in: the object's tombstone. */
char *crn_graveyard_bury(struct crn_thread *self, const struct crn_grave *grave);
size_t crn_graveyard_excess(void); /* chunks of records beyond the ring: for tests */
bool crn_graveyard_is_open(void);
bool crn_graveyard_has(const void *address);
char *crn_graveyard_of_field(char *tombstone); /* from a variable's to the same for fields */
/* The addresses that stand for the object of a grave, in each half. */
void crn_graveyard_stretches(const struct crn_grave *grave, struct crn_range stretches[2]);
/* Copies the record of the grave that an address lies in; false if it is too old. `offset` is into
 * the object. Takes no lock: may be called in a signal handler. */
bool crn_graveyard_find(const void *address, struct crn_grave *grave, size_t *offset);
/* The same for a deleted object whose slot waits, by a linear search of the newest first. */
bool crn_graveyard_find_object(const void *object, struct crn_grave *grave);

/* Where the program called, or touched memory. */
struct crn_call {
    const char *file, *function; /* NULL: only the code's address is known */
    int line;
    const void *returns_to; /* into the program */
    const char *frame;      /* where the program's part of the stack begins */
    const void *context;    /* of a fault, or NULL */
    bool was_in_section;    /* of the runtime, when the fault came */
};
/* In what the program calls, with these parameters. */
#define CRN_CALL_HERE()                                                                            \
    { file, function, line, __builtin_return_address(0), __builtin_dwarf_cfa(), NULL, false }

/* An access that is not allowed. */
struct crn_access {
    const char *verb; /* what is done to what follows: "read of", "a store into" */
    const void *address;
    size_t bytes; /* 0: not known */
};

/* Whether this place has been told of, and that is enough; a fault always is a report. */
CRN_INLINE bool crn_is_told(cairn_violation violation, const struct crn_call *call) {
    return !call->context &&
           crn_report_is_told(violation, call->file, call->line, call->returns_to);
}

/* describe.c: lines that many reports have. Those of one report stand in one scene. */
struct crn_scene;
struct crn_scene *crn_scene_open(struct crn_report *report, const struct crn_call *call);
void crn_scene_where(struct crn_scene *scene);
/* The object that starts here, alive or waiting: its line, and where it was allocated. */
void crn_scene_object(struct crn_scene *scene, const void *object, const struct crn_block *block);
void crn_scene_grave(struct crn_scene *scene, const struct crn_grave *grave);
/* Who refers to [low, low + bytes), and to its tombstones if `grave` is not NULL. */
void crn_scene_holders(struct crn_scene *scene, const void *low, size_t bytes,
                       const struct crn_grave *grave);
/* The stack, and what to do; the scene is over. */
void crn_scene_close(struct crn_scene *scene, const char *next_step);

/* report.c: each returns where the policy is to go on, by longjmp out of the handler, or not at
 * all. In no section and with no lock held. */
/* `access->address` is a tombstone or in a deleted object. */
void crn_report_use(const struct crn_access *access, const struct crn_call *call);
void crn_report_double_delete(const void *pointer, const char *type, const struct crn_call *call);
/* Of what is no object: `start`, if not NULL, is that of the object that it lies in. */
void crn_report_bad_delete(const void *pointer, const char *start, const struct crn_block *block,
                           const struct crn_call *call);
/* checked.c: a store past the barrier, into a range within one object; reports if it hits a
 * declared reference. */
void crn_check_plain_store(const void *low, size_t bytes, const struct crn_call *call);

#endif
