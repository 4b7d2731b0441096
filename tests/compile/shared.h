/* SPDX-License-Identifier: MIT
 *
 * A type that several files declare by including this header, in C and in C++.
 */
#ifndef SHARED_H
#define SHARED_H

#include <cairn/cairn.h>

#include <stdio.h>
#include <stdlib.h>

typedef struct Node Node;
typedef cairn_ref(
    Node) NodeRef; /* name it: a bare cairn_ref(Node) is a new struct type each time */
struct Node {
    NodeRef next; /* reads as n->next.p; assigning to it does not compile */
    NodeRef child[2];
    long value;
};
CAIRN_TYPE(Node, next, child); /* every reference field; fine in a header that many files include */

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

#ifdef __cplusplus
extern "C" {
#endif
/* Of other.c: makes, fills and checks a private type with a layout that this program's main file
 * has not; returns a list of the shared type. */
Node *other_make_list(long length);
void other_check_private(void);
#ifdef __cplusplus
}
#endif

#endif
