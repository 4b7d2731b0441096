/* SPDX-License-Identifier: MIT
 *
 * What the compilers must refuse. Each case is one macro; without any, the file compiles. A case is
 * introduced by an #if line that ends in the piece of a message that shows the right reason, as an
 * extended regular expression for C, and after " ## " for C++; "-" where that language has no such
 * case. run.sh reads these lines.
 */
#include <cairn/cairn.h>

typedef struct Node Node;
typedef struct Other Other;
typedef cairn_ref(Node) NodeRef;
typedef cairn_ref(Other) OtherRef;
typedef struct Slot {
    NodeRef key;
} Slot;
CAIRN_TYPE(Slot, key);
struct Node {
    NodeRef next;
    Node *raw;
    long number;
    cairn_weak weak;
    cairn_word word;
    Slot slot;
    struct {
        Node *const q;
    } other_name;
    struct {
        Node *p;
    } not_const;
    struct {
        Node *const p;
        long more;
    } too_large;
};
struct Other {
    int x;
};
#if defined(FIELD_IS_A_POINTER) //: is a pointer; did you mean|member reference ## member
CAIRN_TYPE(Node, raw);
#elif defined(FIELD_IS_A_NUMBER) //: request for member 'p'|member reference ## member|not a class
CAIRN_TYPE(Node, number);
#elif defined(FIELD_IS_NOT_THERE) //: no member named 'absent' ## no member named 'absent'|has no member
CAIRN_TYPE(Node, absent);
#elif defined(FIELD_HAS_NO_P) //: no member named 'p' ## no member named 'p'|is not a member|has no member
CAIRN_TYPE(Node, other_name);
#elif defined(FIELD_IS_NOT_CONST) //: field_is_no_cairn_ref ## not what the declaration says
CAIRN_TYPE(Node, not_const);
#elif defined(FIELD_IS_TOO_LARGE) //: field_is_no_cairn_ref ## not what the declaration says
CAIRN_TYPE(Node, too_large);
#elif defined(SECOND_FIELD_IS_A_NUMBER) //: request for member 'p'|member reference ## member|not a class
CAIRN_TYPE(Node, next, number);
#elif defined(WEAK_IS_A_REFERENCE) //: field_is_no_cairn_weak ## not what the declaration says
CAIRN_TYPE(Node, next, CAIRN_WEAK(next));
#elif defined(WEAK_IS_PLAIN) //: no member named 'p' ## no member named 'p'|is not a member|has no member
CAIRN_TYPE(Node, next, weak);
#elif defined(WORD_IS_A_NUMBER) //: field_is_no_cairn_word ## not what the declaration says
CAIRN_TYPE(Node, next, CAIRN_WORD(number));
#elif defined(NESTED_IS_OTHER) //: nested_field_is_not_of_that_type ## not what the declaration says
CAIRN_TYPE(Other, CAIRN_NESTED(x, Slot));
#elif defined(NESTED_IS_A_REFERENCE) //: nested_field_is_not_of_that_type ## not what the declaration says
CAIRN_TYPE(Node, CAIRN_NESTED(next, Slot));
#elif defined(NESTED_IS_UNDECLARED) //: cairn_type_of_Other ## cairn_type_of_Other
CAIRN_TYPE(Node, CAIRN_NESTED(slot, Other));
#elif defined(FLEX_IS_NO_ARRAY) //: subscripted value ## subscript|operator\[\]
CAIRN_TYPE(Node, CAIRN_FLEX(next));
#elif defined(FLEX_IS_OF_NUMBERS) //: request for member 'p'|member reference ## member|not a class
typedef struct Tail {
    long count;
    long tail[];
} Tail;
CAIRN_TYPE(Tail, CAIRN_FLEX(tail));
#else
CAIRN_TYPE(Node, next, CAIRN_WEAK(weak), CAIRN_WORD(word), CAIRN_NESTED(slot, Slot));
#endif

void run(Node *n, Node *m, Other *o, const Node *c, NodeRef *a, OtherRef *b, const NodeRef *d);
void run(Node *n, Node *m, Other *o, const Node *c, NodeRef *a, OtherRef *b, const NodeRef *d) {
    (void)n, (void)m, (void)o, (void)c, (void)a, (void)b, (void)d;
#if defined(ASSIGN_POINTER) //: read-only member 'p'|const-qualified type ## read-only member|const-qualified type
    n->next.p = m;
#elif defined(ASSIGN_OBJECT) //: read-only|const-qualified ## deleted
    *n = *m;
#elif defined(ASSIGN_REFERENCE) //: read-only|const-qualified ## deleted
    n->next = m->next;
#elif defined(ASSIGN_ELEMENT) //: read-only|const-qualified ## deleted
    a[0] = a[1];
#elif defined(ADDRESS_AS_MUTABLE) //: discards 'const'|discards qualifiers ## invalid conversion|cannot initialize
    Node **address = &n->next.p;
    (void)address;
#elif defined(SET_OTHER_TYPE) //: does not fit ## cannot convert|no matching function
    cairn_set(&n->next, o);
#elif defined(SET_NUMBER) //: does not fit|invalid type argument|requires pointer ## invalid conversion|no matching function
    cairn_set(&n->next, 42);
#elif defined(SET_CONST_VALUE) //: does not fit ## invalid conversion|no matching function
    cairn_set(&n->next, c);
#elif defined(SET_IN_CONST_OBJECT) //: stored into is const ## stored into is const
    cairn_set(&c->next, m);
#elif defined(SET_RAW_POINTER) //: is a pointer; did you mean|member reference ## is a pointer|not a class|no matching function|member reference|no type named
    cairn_set(&n->raw, m);
#elif defined(SET_VALUE_IS_REFERENCE) //: does not fit|invalid type argument|requires pointer ## cannot convert|no matching function
    cairn_set(&n->next, m->next);
#elif defined(SET_AT_OTHER_TYPE) //: does not fit ## cannot convert|no matching function
    cairn_set_at(&n->next.p, o);
#elif defined(SET_WORD_OF_REFERENCE) //: _Generic|not compatible with any ## cannot convert|no matching function
    cairn_set_word(&n->next, 1);
#elif defined(SWAP_OTHER_TYPE) //: does not fit ## cannot convert|no matching function
    (void)cairn_swap(&n->next, o);
#elif defined(SWAP_IN_CONST_OBJECT) //: stored into is const ## stored into is const
    (void)cairn_swap(&c->next, m);
#elif defined(CAS_OTHER_VALUE) //: does not fit ## cannot convert|no matching function
    (void)cairn_cas(&n->next, &m, o);
#elif defined(CAS_OTHER_EXPECTED) //: what is expected is not a variable ## cannot convert|no matching function
    (void)cairn_cas(&n->next, &o, m);
#elif defined(CAS_EXPECTED_BY_VALUE) //: what is expected is not a variable ## cannot convert|no matching function
    (void)cairn_cas(&n->next, m, m);
#elif defined(COPY_OTHER_TYPE) //: differ in type ## cannot convert|no matching function
    cairn_copy(a, b, 1);
#elif defined(COPY_TO_CONST) //: stored into is const ## stored into is const|is not const
    cairn_copy(d, a, 1);
#elif defined(SORT_CONST) //: stored into is const ## invalid conversion|no matching function
    cairn_sort(d, 1, NULL);
#elif defined(ARRAY_OF_UNDECLARED) //: no member named 'p' ## -
    (void)cairn_new_array(Other, 3);
#elif defined(NEW_OF_UNDECLARED) //: cairn_type_of_Other ## cairn_type_of_Other
    (void)cairn_new(Other);
#elif defined(NEW_INTO_OTHER) //: incompatible ## cannot convert|cannot initialize
    Other *wrong = cairn_new(Node);
    (void)wrong;
#elif defined(MAKE_WITH_OTHER) //: incompatible ## cannot convert|cannot initialize
    (void)cairn_make(Node, .next = {o});
#elif defined(PIN_INTO_OTHER) //: incompatible ## cannot convert|incompatible
    o = cairn_pin(n);
#elif defined(DELETE_CONST_VARIABLE) //: read-only|const-qualified ## read-only|const-qualified
    Node *const fixed = n;
    cairn_delete(fixed);
#elif defined(DELETE_VALUE) //: lvalue required|rvalue ## lvalue required|rvalue
    cairn_delete(n + 1);
#elif defined(STATUS_IGNORED) //: warn_unused_result|warn-unused|unused-result ## warn_unused_result|unused-result
    cairn_thread_register();
#elif defined(FORMAT_WRONG) //: format ## format
    (void)cairn_format("%s", 5);
#endif
}
