/* SPDX-License-Identifier: MIT
 *
 * A library with a copy of Cairn inside; test_copies.c loads two of them.
 */
#include <cairn/cairn.h>

typedef struct {
    int value;
} Thing;
CAIRN_LEAF(Thing);

CAIRN_API int use_cairn(void);
CAIRN_API int use_cairn(void) {
    Thing *thing = cairn_make(Thing, .value = 5);
    cairn_collect(CAIRN_COUNT);
    return thing ? thing->value : 0;
}
