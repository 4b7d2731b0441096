/* SPDX-License-Identifier: MIT
 *
 * Each CASE must be refused; CASE 0 must compile.
 */
#include <cairn/cairn.h>

typedef struct Node Node;
typedef struct Other Other;
typedef cairn_ref(Node) NodeRef;
struct Node {
    NodeRef next;
    Node *raw;
    long number;
};
struct Other {
    int x;
};
#if CASE == 6
CAIRN_TYPE(Node, raw);
#elif CASE == 7
CAIRN_TYPE(Node, number);
#else
CAIRN_TYPE(Node, next);
#endif
CAIRN_LEAF(Other);

void run(Node *n, Node *m, Other *o, const Node *c);
void run(Node *n, Node *m, Other *o, const Node *c) {
    (void)m, (void)o, (void)c;
#if CASE == 0
    cairn_set(&n->next, m);
#elif CASE == 1
    n->next.p = m;
#elif CASE == 2
    *n = *m;
#elif CASE == 3
    cairn_set(&n->next, o);
#elif CASE == 4
    cairn_set(&n->next, 42);
#elif CASE == 5
    cairn_set(&n->next, c);
#elif CASE == 8
    typedef struct {
        int z;
    } Undeclared;
    (void)cairn_new_array(Undeclared, 3);
#elif CASE == 9
    n->next = m->next;
#else
    (void)n;
#endif
}
