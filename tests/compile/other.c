/* SPDX-License-Identifier: MIT
 *
 * The second file of a program: the shared type, and a private one whose name main.c uses too.
 */
#include "shared.h"

typedef struct Private Private;
typedef cairn_ref(Private) PrivateRef;
struct Private { /* main.c has it otherwise */
    long number;
    PrivateRef link;
    double real;
};
CAIRN_TYPE(Private, link);

Node *other_make_list(long length) {
    Node *list = NULL;
    for (long i = 0; i < length; i++) list = cairn_make(Node, .next = {list}, .value = i);
    return list;
}

void other_check_private(void) {
    Private *first = cairn_new(Private);
    first->number = 0x0123456789abcdefL; /* no reference, though main.c's layout has one here */
    first->real = 2.5;
    cairn_set(&first->link, cairn_new(Private));
    cairn_collect(CAIRN_TRACE);
    cairn_collect(CAIRN_TRACE);
    CHECK(first->number == 0x0123456789abcdefL && first->real == 2.5);
    CHECK(cairn_count(first->link.p) == 1);
}
