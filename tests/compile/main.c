/* SPDX-License-Identifier: MIT
 *
 * The contract, idiom by idiom, as docs and users write it; compiled as C11 to C2x and as C++17 and
 * C++20 by both compilers without a warning, linked with other.c, and run.
 */
#include "shared.h"

#include <string.h>

typedef struct {
    int x, y;
} Point;
CAIRN_LEAF(Point); /* no references inside */

typedef struct Private Private;
typedef cairn_ref(Private) PrivateRef;
struct Private { /* other.c has it otherwise */
    PrivateRef link;
    PrivateRef second;
};
CAIRN_TYPE(Private, link, second);

typedef cairn_ref(void) AnyRef;
typedef cairn_ref(const char) TextRef;
typedef cairn_ref(const Point) PointRef;

typedef struct Slot Slot;
struct Slot {
    NodeRef key;
    long hash;
};
CAIRN_TYPE(Slot, key);

typedef struct Table Table;
struct Table {
    NodeRef grid[2][3];
    NodeRef next;
    Slot slots[4];
    cairn_weak w;
    cairn_word v;
    AnyRef any;
    TextRef text;
    PointRef point;
};

#ifdef __cplusplus /* ISO C++ has no flexible array members, only the extension of both compilers  \
                    */
#define FLEXIBLE __extension__
#else
#define FLEXIBLE
#endif
typedef struct Family Family;
FLEXIBLE struct Family {
    NodeRef next;
    Slot slots[2];
    cairn_weak w;
    cairn_word v;
    size_t kid_count;
    NodeRef kids[];
};

static void f(void *object) {
    (void)object;
}
CAIRN_TYPE(Table, grid, next, CAIRN_NESTED(slots, Slot), CAIRN_WEAK(w), CAIRN_WORD(v), any, text,
           point);
CAIRN_TYPE_WITH(Family, (.finalize = f, .pinned = true), next, CAIRN_NESTED(slots, Slot),
                CAIRN_WEAK(w), CAIRN_WORD(v), CAIRN_FLEX(kids));

typedef struct {
    int descriptor;
} File;
typedef struct Row Row;
FLEXIBLE struct Row {
    long count;
    NodeRef kids[];
};
CAIRN_TYPE(Row, CAIRN_FLEX(kids));

static unsigned closed; /* a bit per descriptor; finalizers have a thread of their own */
static void close_file(void *object) {
    __atomic_fetch_or(&closed, 1u << ((File *)object)->descriptor, __ATOMIC_RELAXED);
}
CAIRN_LEAF_WITH(File, (.finalize = close_file));

static void allocate(void) {
    Node *n = cairn_new(Node); /* zeroed; T is one identifier */
    CHECK(n && !n->next.p && !n->child[1].p && n->value == 0);
    Node *m = cairn_make(Node, .next = {n}, .value = 3); /* new, with an initialiser */
    CHECK(m->next.p == n && m->value == 3 && !m->child[0].p);
    NodeRef *a = cairn_new_array(NodeRef, 100); /* any declared type, or a reference */
    CHECK(cairn_length(a) == 100 && !a[99].p);
    Point *points = cairn_new_array(Point, 3);
    CHECK(cairn_length(points) == 3);
    Slot *slots = cairn_new_array(Slot, 5);
    CHECK(cairn_length(slots) == 5);
    void *u = cairn_alloc(64);
    char *s = cairn_strdup("text");
    CHECK(u && cairn_alloc_bytes(64) && strcmp(s, "text") == 0);
    CHECK(strcmp(cairn_strndup("text", 2), "te") == 0);
    CHECK(strcmp(cairn_format("%s %d", s, 7), "text 7") == 0);
    cairn_set(&a[7], m);
    a = cairn_resize_array(a, 200);
    CHECK(cairn_length(a) == 200 && a[7].p == m && !a[199].p);
    Family *family = cairn_new_flex(Family, kids, 9);
    cairn_set(&family->kids[8], n);
    cairn_set(&family->slots[1].key, m);
    CHECK(family->kids[8].p == n && family->slots[1].key.p == m);
    const struct cairn_field fields[] = {{0, sizeof(void *), NULL, CAIRN_FIELD_REF}};
    cairn_type *type = NULL;
    CHECK(cairn_type_create("Pair", 16, 8, fields, 1, NULL, &type) == CAIRN_OK);
    CHECK(cairn_new_type(type) && cairn_new_type_in(NULL, type));
    File *file = cairn_make(File, .descriptor = 4);
    CHECK(file->descriptor == 4);
}

static void store(void) {
    Node *n = cairn_new(Node), *m = cairn_new(Node);
    cairn_set(&n->next, m); /* the store */
    CHECK(n->next.p == m);
    cairn_set(&n->next, NULL); /* NULL is fine */
    CHECK(!n->next.p);
    cairn_set(&n->next, m);
    Node *x = cairn_get(n->next); /* the read */
    CHECK(x == m && cairn_load(&n->next) == m);
    Node *old = cairn_swap(&n->next, n);
    CHECK(old == m && n->next.p == n);
    Node *expected = m;
    CHECK(!cairn_cas(&n->next, &expected, m) && expected == n && n->next.p == n);
    CHECK(cairn_cas(&n->next, &expected, m) && n->next.p == m);
    Node *const *link = &n->next.p;
    cairn_set_at(link, n); /* the pointer-to-pointer idiom */
    CHECK(n->next.p == n);
    cairn_set_at(&n->child[1].p, NULL);
    NodeRef *a = cairn_new_array(NodeRef, 10);
    for (int i = 0; i < 5; i++) cairn_set(&a[i], cairn_make(Node, .value = 9 - i));
    cairn_copy(a + 5, a, 5);
    CHECK(a[9].p == a[4].p);
    cairn_clear(n);
    CHECK(!n->next.p && n->value == 0);
    NodeRef outside[2] = {{NULL}, {NULL}}; /* outside every heap: a plain store */
    cairn_set(&outside[1], m);
    CHECK(outside[1].p == m);
}

static int by_value(const void *left, const void *right) {
    const NodeRef *l = (const NodeRef *)left, *r = (const NodeRef *)right;
    return l->p->value < r->p->value ? -1 : l->p->value > r->p->value;
}

static void sort(void) {
    NodeRef *a = cairn_new_array(NodeRef, 10);
    for (int i = 0; i < 10; i++) cairn_set(&a[i], cairn_make(Node, .value = i * 7 % 10));
    cairn_sort(a, cairn_length(a), by_value);
    for (int i = 0; i < 10; i++) CHECK(a[i].p->value == i);
}

static void kinds(void) {
    Table *t = cairn_new(Table);
    Node *n = cairn_new(Node);
    cairn_set(&t->grid[1][2], n);
    cairn_set(&t->any, n); /* cairn_ref(void): any object */
    cairn_set(&t->any, t);
    cairn_set(&t->text, "a literal"); /* outside every heap: stored, not counted */
    cairn_set(&t->text, cairn_strdup("text"));
    static const Point sentinel = {1, 2};
    cairn_set(&t->point, &sentinel);
    Point *own = cairn_new(Point);
    cairn_set(&t->point, own);
    CHECK(t->point.p == own && strcmp(t->text.p, "text") == 0);
    cairn_set_word(&t->v, 6 * 8 + 1);
    CHECK(t->v.w == 49);
    cairn_set_word(&t->v, n);
    CHECK(t->v.w == (uintptr_t)n);
    CHECK(cairn_weak_set(&t->w, n) && cairn_weak_get(&t->w) == n);
    cairn_set(&t->slots[3].key, n);
    cairn_collect(CAIRN_COUNT);
    CHECK(cairn_count(n) == 3 && cairn_count(own) == 1 && cairn_count(t->text.p) == 1);
}

/* Each argument once; macros in arguments of macros; volatile objects. */
static void macros(void) {
    NodeRef *a = cairn_new_array(NodeRef, 4);
    Node *nodes[4] = {cairn_new(Node), cairn_new(Node), cairn_new(Node), cairn_new(Node)};
    int i = 0, k = 0;
    cairn_set(&a[i++], nodes[k++]);
    CHECK(i == 1 && k == 1 && a[0].p == nodes[0]);
    cairn_set_at(&a[i++].p, nodes[k++]);
    CHECK(i == 2 && k == 2 && a[1].p == nodes[1]);
    i = k = 0;
    CHECK(cairn_load(&a[i++]) == nodes[0] && i == 1);
    CHECK(cairn_swap(&a[i++], nodes[k++]) == nodes[1] && i == 2 && k == 1);
    Node *wanted[2] = {nodes[0], NULL};
    int w = 0;
    i = 1, k = 2;
    CHECK(cairn_cas(&a[i++], &wanted[w++], nodes[k++]) && i == 2 && w == 1 && k == 3);
    size_t count = 1;
    NodeRef *to = a + 2, *from = a;
    cairn_copy(to++, from++, count++);
    CHECK(to == a + 3 && from == a + 1 && count == 2 && a[2].p == a[0].p);
    count = 2;
    cairn_sort(to - 3, count++, by_value);
    CHECK(count == 3);
    NodeRef *array = cairn_new_array(NodeRef, count++);
    CHECK(cairn_length(array) == 3 && count == 4);
    long value = 5;
    Node *made = cairn_make(Node, .value = value++);
    CHECK(made->value == 5 && value == 6);
    Node **at = nodes;
    Node *pinned = cairn_pin(*at++);
    CHECK(at == nodes + 1 && pinned == nodes[0]);
    cairn_unpin(pinned);
    cairn_delete(*at++);
    CHECK(at == nodes + 2 && cairn_is_deleted(nodes[1]));
    cairn_word words[2] = {{0}, {0}};
    uintptr_t bits = 1;
    i = 0;
    cairn_set_word(&words[i++], bits++);
    CHECK(i == 1 && bits == 2 && words[0].w == 1);

    Node *n = nodes[2], *m = nodes[3];
    cairn_set(&n->next, (cairn_set(&m->next, (cairn_set(&n->child[0], n), m)), m));
    CHECK(n->next.p == m && m->next.p == m && n->child[0].p == n);
    cairn_set(&n->next, cairn_swap(&m->next, cairn_swap(&n->child[0], cairn_load(&n->next))));
    CHECK(n->next.p == m && m->next.p == n && n->child[0].p == m);
    cairn_set(&n->next, cairn_make(Node, .next = {cairn_make(Node, .value = 8)}, .value = 9));
    CHECK(n->next.p->next.p->value == 8);
    cairn_set(cairn_cas(&n->next, &m, m) ? &n->child[0] : &n->child[1], cairn_get(n->next));
    CHECK(n->child[1].p == n->next.p);

    volatile Node *unsteady = n;
    cairn_set(&unsteady->next, nodes[0]);
    CHECK(unsteady->next.p == nodes[0] && cairn_load(&unsteady->next) == nodes[0]);
    const Node *fixed = n;
    CHECK(cairn_load(&fixed->next) == nodes[0] && cairn_get(fixed->next) == nodes[0]);
    CHECK(cairn_count(fixed) <= 255 && cairn_length(fixed) == 1);
}

static void end(void) {
    Node *n = cairn_new(Node), *copy = n;
    cairn_delete(n); /* ends *n now; the variable n becomes a tombstone */
    CHECK(cairn_is_deleted(n) && cairn_is_deleted(copy) && n != copy);
    Node *nothing = NULL;
    cairn_delete(nothing); /* a no-op */
    CHECK(!nothing && !cairn_is_deleted(nothing));
    Node *m = cairn_make(Node, .next = {cairn_new(Node)});
    cairn_delete_ref(&m->next);
    CHECK(cairn_is_deleted(m->next.p));
    m = cairn_pin(m);
    cairn_unpin(m);
    cairn_keep(m);
    File *file = cairn_make(File, .descriptor = 5);
    cairn_delete(file);
    CHECK(__atomic_load_n(&closed, __ATOMIC_RELAXED) >> 5 & 1);
}

static void nothing_to_do(void *argument) {
    (void)argument;
}

static void heaps(void) {
    cairn_stats st = CAIRN_STATS_INIT;
    CHECK(cairn_stats_get(NULL, &st) == CAIRN_OK && st.allocated_bytes > 0);
    cairn_options o = CAIRN_OPTIONS_INIT;
    o.region_bytes = (size_t)1 << 30;
    cairn_heap *h;
    cairn_status e = cairn_heap_create(&o, &h);
    CHECK(e == CAIRN_OK && cairn_status_text(e)[0]);
    Node *n = cairn_new_in(h, Node);
    Node *m = cairn_make_in(h, Node, .next = {n}, .value = 3);
    NodeRef *a = cairn_new_array_in(h, NodeRef, 5);
    cairn_set(&a[4], m);
    a = cairn_resize_array_in(h, a, 6);
    CHECK(a[4].p->next.p == n && cairn_heap_of(a) == h && cairn_heap_of(m) == h);
    Row *row = cairn_new_flex_in(h, Row, kids, 3);
    CHECK(cairn_heap_of(row) == h && cairn_heap_of(cairn_alloc_in(h, 9)) == h);
    CHECK(cairn_heap_of(cairn_alloc_bytes_in(h, 9)) == h);
    CHECK(cairn_heap_of(cairn_alloc_aligned_in(h, 9, 64)) == h);
    CHECK(cairn_heap_of(cairn_alloc_bytes_aligned_in(h, 9, 64)) == h);
    CHECK(cairn_heap_of(cairn_strdup_in(h, "t")) == h);
    CHECK(cairn_heap_of(cairn_strndup_in(h, "t", 1)) == h);
    CHECK(cairn_heap_of(cairn_format_in(h, "%d", 1)) == h);
    cairn_collect_in(h, CAIRN_COUNT);
    cairn_collect_in(h, CAIRN_TRACE);
    CHECK(cairn_stats_get(h, &st) == CAIRN_OK);
    CHECK(cairn_heap_destroy(h) == CAIRN_OK);
    static Node *root[1];
    CHECK(cairn_root_add(root, sizeof(root)) == CAIRN_OK);
    cairn_root_remove(root);
    CHECK(cairn_stack_add(root, root + 1) == CAIRN_OK);
    cairn_stack_remove(root);
    Node *cleaned = cairn_new(Node);
    CHECK(cairn_cleanup_add(cleaned, nothing_to_do, NULL) == CAIRN_OK);
    CHECK(cairn_thread_register() == CAIRN_OK);
    cairn_blocking_begin();
    cairn_blocking_end();
    cairn_on_out_of_memory(NULL, NULL);
    cairn_on_report(NULL, NULL);
    (void)cairn_finalize_pending();
}

static void private_types_of_one_name(void) {
    Private *mine = cairn_new(Private);
    cairn_set(&mine->link, cairn_new(Private));
    cairn_set(&mine->second, cairn_new(Private));
    other_check_private();
    cairn_collect(CAIRN_TRACE);
    CHECK(cairn_count(mine->link.p) == 1 && cairn_count(mine->second.p) == 1);
    long count = 0;
    for (Node *at = other_make_list(1000); at; at = at->next.p) count++;
    CHECK(count == 1000);
}

int main(void) {
    allocate();
    store();
    sort();
    kinds();
    macros();
    end();
    heaps();
    private_types_of_one_name();
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    return 0;
}
