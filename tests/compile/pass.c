/* SPDX-License-Identifier: MIT
 *
 * Every idiom of the contract; must compile without a warning. Never run.
 */
#include <cairn/cairn.h>
#include <stdio.h>
typedef struct Node Node;
typedef cairn_ref(Node) NodeRef;
typedef cairn_ref(void) AnyRef;
typedef cairn_ref(const char) StrRef;
struct Node {
    NodeRef next;
    NodeRef child[2];
    NodeRef grid[2][3];
    AnyRef any;
    StrRef s;
    cairn_weak w;
    cairn_word v;
    long value;
};
CAIRN_TYPE(Node, next, child, grid, any, s, CAIRN_WEAK(w), CAIRN_WORD(v));
typedef struct {
    int x, y;
} Point;
CAIRN_LEAF(Point);
typedef struct {
    NodeRef a;
    long n;
} Slot;
CAIRN_TYPE(Slot, a);
typedef struct {
    Slot slots[4];
    size_t n;
    NodeRef kids[];
} Big;
static void fin(void *o) {
    (void)o;
}
CAIRN_TYPE_WITH(Big, (.finalize = fin, .pinned = true), CAIRN_NESTED(slots, Slot),
                CAIRN_FLEX(kids));
typedef struct {
    int fd;
} File;
CAIRN_LEAF_WITH(File, (.finalize = fin));
int use(void);
int use(void) {
    Node *n = cairn_new(Node), *m = cairn_new(Node);
    NodeRef *a = cairn_new_array(NodeRef, 100);
    Point *pp = cairn_new_array(Point, 3);
    cairn_set(&n->next, m);
    cairn_set(&n->next, NULL);
    cairn_set(&n->any, m);
    cairn_set(&n->s, "hello");
    char *t = cairn_strdup("x");
    cairn_set(&n->s, t);
    cairn_set(&a[3], n);
    cairn_set(&n->child[1], m);
    Node *const *link = &n->next.p;
    cairn_set_at(link, m);
    Node *x = cairn_get(n->next);
    Node *y = cairn_load(&n->next);
    y = cairn_swap(&n->next, m);
    bool b = cairn_cas(&n->next, &y, m);
    cairn_copy(a, a + 1, 3);
    cairn_set_word(&n->v, 5);
    cairn_delete(n);
    cairn_delete_ref(&m->next);
    m = cairn_pin(m);
    cairn_unpin(m);
    Big *bg = cairn_new_flex(Big, kids, 7);
    (void)bg;
    (void)pp;
    (void)x;
    (void)b;
    cairn_stats st = CAIRN_STATS_INIT;
    cairn_options o = CAIRN_OPTIONS_INIT;
    (void)o;
    return (int)cairn_stats_get(NULL, &st);
}
#ifndef __cplusplus
Node *mk(Node *n);
Node *mk(Node *n) {
    return cairn_make(Node, .next = {n}, .value = 3);
}
#endif
