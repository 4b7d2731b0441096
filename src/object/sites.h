/* SPDX-License-Identifier: MIT
 *
 * Where objects were allocated, as far as the program was compiled with CAIRN_SITES.
 */
#ifndef CRN_SITES_H
#define CRN_SITES_H

#include "heap/heap.h"

struct crn_place {
    const char *file; /* NULL: not recorded */
    const char *function;
    int line, thread_id; /* thread 0: not recorded */
};

/* Of the object that starts here. */
struct crn_place crn_site_of(const void *object);

/* Of what started there last, dead or alive. */
struct crn_place crn_site_noted(struct crn_region *region, const void *object);

/* Without a site the thread may be known from the object's birth (births.h). */
CRN_INLINE void crn_place_add_birth(struct crn_place *place, struct crn_birth birth) {
    if (!place->file) place->thread_id = birth.thread_id;
}

/* "file:line in function, by thread 3", or why that is not known. */
void crn_place_describe(const struct crn_place *place, char *text, size_t bytes);

/* Some site was not recorded, for its heap's shadow found no address space; atomic. */
extern bool crn_sites_lack_room;

#endif
