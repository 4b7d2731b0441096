/* SPDX-License-Identifier: MIT
 *
 * What the process has mapped, and which loaded file an address lies in: for reports, from signal
 * handlers too. Takes no lock, needs no memory.
 */
#ifndef CRN_MAPS_H
#define CRN_MAPS_H

#include "base/base.h"

struct crn_mapping {
    uintptr_t low, high, offset; /* offset: in the file */
    bool is_readable, is_writable, is_shared;
    bool is_ours;   /* of the runtime itself; only if asked for */
    char path[256]; /* cut at the front if it is longer; empty, or "[heap]" and the like: no file */
};

/* In ascending order, until visit returns false. Whether a mapping is ours takes longer to tell.
 * False if the system does not say. */
bool crn_os_each_mapping(bool tells_ours,
                         bool (*visit)(const struct crn_mapping *mapping, void *context),
                         void *context);

/* Of an address; false if it is not mapped or the system does not say. */
bool crn_os_mapping_of(uintptr_t address, uintptr_t *low, uintptr_t *high);

struct crn_module {
    char path[256];   /* cut at the front if it is longer */
    uintptr_t offset; /* what addr2line -e path takes */
};

/* False if the address lies in no file. */
bool crn_os_module_of(uintptr_t address, struct crn_module *module);

#endif
