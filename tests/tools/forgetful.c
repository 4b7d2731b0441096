/* SPDX-License-Identifier: MIT
 *
 * Types that forget; for test_check_types.sh. The program does nothing.
 */
#include <cairn/cairn.h>

typedef struct Node Node;
typedef cairn_ref(Node) NodeRef;
typedef struct {
    NodeRef a, b;
} Pair;
struct Node {
    NodeRef next, forgotten;
    NodeRef row[3];
    Pair pair;
    Node *plain;
    const Node *constant;
    cairn_word word;
    cairn_weak weak;
    union {
        NodeRef in_union;
        long number;
    };
    void *anything;
    long value;
};
CAIRN_TYPE(Node, next);
CAIRN_TYPE(Pair, a);

typedef struct {
    long count;
    NodeRef kids[];
} Family;
CAIRN_TYPE(Family, CAIRN_FLEX(kids));
typedef struct {
    long count;
    NodeRef kids[];
} Orphans;
CAIRN_LEAF(Orphans);
typedef struct {
    NodeRef all[2][2];
    Pair pairs[2];
    cairn_word word;
    cairn_weak weak;
} Whole;
CAIRN_TYPE(Whole, all, CAIRN_NESTED(pairs, Pair), CAIRN_WORD(word), CAIRN_WEAK(weak));

int main(void) {
    return !cairn_new(Node) || !cairn_new_flex(Family, kids, 1) || !cairn_new(Orphans) ||
           !cairn_new(Whole) || !cairn_new(Pair);
}
