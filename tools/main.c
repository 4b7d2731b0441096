/* SPDX-License-Identifier: MIT
 *
 * cairn: tools that look at programs which use Cairn.
 */
#include "tools.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: cairn check-types FILE...\n"
    "  check-types  reads the debug information of programs and libraries (build them with -g) "
    "and\n"
    "               lists each cairn_ref, cairn_word and cairn_weak member that its CAIRN_TYPE "
    "does\n"
    "               not name, and each plain pointer to a Cairn type in a Cairn type\n"
    "exit status: 0 all is well, 1 something was found, 2 it could not be done\n";

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc > 2 && strcmp(argv[1], "check-types") == 0)
        return tool_check_types(argc - 2, argv + 2);
    fputs(usage, stderr);
    return 2;
}
