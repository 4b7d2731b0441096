/* SPDX-License-Identifier: MIT
 *
 * The program that test_gdb.sh looks into: objects of every kind, at known places. Its lines'
 * numbers are looked for in the answers: the script finds them by the marks in the comments.
 */
#include <cairn/cairn.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct Node Node;
typedef cairn_ref(Node) NodeRef;
struct Node {
    NodeRef next;
    NodeRef child[2];
    long value;
};
CAIRN_TYPE(Node, next, child);

typedef struct {
    int x, y;
} Point;
CAIRN_LEAF(Point);
typedef cairn_ref(Point) PointRef;

typedef struct {
    PointRef point;
    cairn_weak weak;
    cairn_weak gone;
    cairn_word word, bits;
} Holder;
CAIRN_TYPE_WITH(Holder, (.pinned = false), point, CAIRN_WEAK(weak), CAIRN_WEAK(gone),
                CAIRN_WORD(word), CAIRN_WORD(bits));

typedef struct {
    long count;
    NodeRef kids[];
} Flexible;
CAIRN_TYPE_WITH(Flexible, (.pinned = false), CAIRN_FLEX(kids));

/* What the script asks about. */
Node *list, *cycle_hint;
Holder *holder;
NodeRef *row;
Flexible *flexible;
char *text;
char *large;
void *untyped;
cairn_ref(const char) text_ref;
Node *in_other;
cairn_heap *other;
Point *deleted_point;
Node *held_once;
uintptr_t hidden_cycle, hidden_young, hidden_pinned, hidden_thread, hidden_stale, hidden_garbage,
    hidden_first;
static Node *volatile one_of_many[4]; /* volatile: else clang keeps the one that is used */
static pthread_barrier_t barrier;

__attribute__((noinline)) void look_here(Node *of_the_stack) {
    cairn_keep(of_the_stack);
}

static void *wait_with_node(void *unused) {
    Node *of_the_thread = cairn_new(Node);
    hidden_thread = ~(uintptr_t)of_the_thread;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    cairn_keep(of_the_thread);
    return unused;
}

__attribute__((noinline)) static void make_list(long count) {
    for (long i = 0; i < count; i++) {
        Node *node = cairn_make(Node, .next = {list}, .value = i); /* site of the list */
        if (i == 0) hidden_first = ~(uintptr_t)node;
        list = node;
    }
}

__attribute__((noinline)) static void make_others(void) {
    holder = cairn_new(Holder);
    Point *point = cairn_make(Point, .x = 3, .y = 4); /* site of the point */
    cairn_set(&holder->point, point);
    deleted_point = cairn_new(Point);
    cairn_weak_set(&holder->weak, point);
    cairn_weak_set(&holder->gone, deleted_point);
    cairn_set_word(&holder->word, list);
    cairn_set_word(&holder->bits, 41);
    row = cairn_new_array(NodeRef, 10);
    cairn_set(&row[7], list);
    flexible = cairn_new_flex(Flexible, kids, 5);
    cairn_set(&flexible->kids[3], list);
    text = cairn_strdup("some text");
    cairn_set(&text_ref, text);
    large = cairn_alloc_bytes(9 << 20);
    void **words = cairn_alloc(64);
    words[5] = list;
    untyped = words;
    const cairn_options options = {sizeof(options),    "other", 0,    0, 0,
                                   CAIRN_PLAN_DEFAULT, false,   false};
    if (cairn_heap_create(&options, &other) != CAIRN_OK) exit(2);
    in_other = cairn_new_in(other, Node);
    Node *pinned = cairn_pin(cairn_new(Node));
    hidden_pinned = ~(uintptr_t)pinned;
}

/* The cycle's two nodes, reachable from the caller's stack only. */
__attribute__((noinline)) static Node *make_cycle(void) {
    Node *first = cairn_new(Node), *second = cairn_make(Node, .next = {first});
    cairn_set(&first->child[1], second);
    hidden_cycle = ~(uintptr_t)second;
    return first;
}

__attribute__((noinline)) static void make_garbage(void) {
    Node *first = cairn_new(Node), *second = cairn_make(Node, .next = {first});
    cairn_set(&first->next, second);
    held_once = first;
    hidden_garbage = ~(uintptr_t)second;
}

__attribute__((noinline)) static void wipe_stack(void) {
    volatile char wiped[16384];
    for (size_t i = 0; i < sizeof(wiped); i++) wiped[i] = 0;
}

int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 1000;
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    make_list(count);
    make_others();
    make_garbage();
    Node *on_the_stack = make_cycle();
    if (pthread_create(&thread, NULL, wait_with_node, NULL) != 0) return 2;
    pthread_barrier_wait(&barrier);
    wipe_stack();
    cairn_collect(CAIRN_COUNT);
    held_once = NULL;
    hidden_stale = ~(uintptr_t)deleted_point;
    one_of_many[2] = in_other;
    cairn_delete(deleted_point); /* the deletion */
    Node *young = cairn_new(Node);
    hidden_young = ~(uintptr_t)young;
    look_here(on_the_stack);
    cairn_keep(young);
    cairn_keep(on_the_stack);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    printf("%p\n", (void *)one_of_many[2]);
    return 0;
}
