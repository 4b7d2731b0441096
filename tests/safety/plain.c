/* SPDX-License-Identifier: MIT
 *
 * A file of test_sites and test_stacks that is compiled without CAIRN_SITES.
 */
#undef CAIRN_SITES
#include "../test.h"

void *plain_node(void);
void *plain_node(void) {
    return cairn_new(Node);
}
