/* SPDX-License-Identifier: MIT
 *
 * Which loaded file an address lies in: for reports, from signal handlers too.
 */
#ifndef CRN_MODULE_H
#define CRN_MODULE_H

#include "base/base.h"

struct crn_module {
    char path[256];   /* cut at the front if it is longer */
    uintptr_t offset; /* what addr2line -e path takes */
};

/* False if the address lies in no file. Reads /proc/self/maps; takes no lock, needs no memory. */
bool crn_os_module_of(uintptr_t address, struct crn_module *module);

#endif
