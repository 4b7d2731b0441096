/* SPDX-License-Identifier: MIT
 *
 * The subcommands of the cairn command. Each returns its exit status: 0 all is well, 1 something
 * was found, 2 it could not be done.
 */
#ifndef CAIRN_TOOLS_H
#define CAIRN_TOOLS_H

int tool_check_types(int count, char **paths);

#endif
