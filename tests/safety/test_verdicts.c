/* SPDX-License-Identifier: MIT
 *
 * Verdicts: each way in which an object ends takes its verdicts away, and nothing that has none, or
 * another's, passes. Method: the verdict bytes themselves, and reports left by longjmp. Which
 * object is meant is known by a hidden address only, for a pointer would keep it alive.
 */
#define CAIRN_CHECKED
#include "../test_report.h"

#include "heap/heap.h"

typedef struct Pair Pair;
typedef cairn_ref(Pair) PairRef;
struct Pair {
    PairRef first, second;
    long value, more;
};
CAIRN_TYPE(Pair, first, second);

static PairRef *row;
static Pair *kept;

static int set_up(void **state) {
    (void)state;
    kept = cairn_new(Pair);
    row = cairn_new_array(PairRef, 64);
    cairn_set(&kept->first, kept);
    return 0;
}

static unsigned verdict_at(uintptr_t hidden, size_t offset) {
    const char *at = (const char *)SHOW(void, hidden) + offset;
    return (cairn_is_known_start_(at) ? CAIRN_VERDICT_START_ : 0u) |
           (cairn_is_known_field_(at) ? CAIRN_VERDICT_FIELD_ : 0u);
}
static void assert_forgotten(uintptr_t hidden, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 8) assert_int_equal(verdict_at(hidden, at), 0);
}

/* ---- Birth ---- */

static void new_objects_have_theirs(void **state) {
    (void)state;
    Pair *pair = cairn_new(Pair);
    uintptr_t hidden = HIDE(pair);
    assert_int_equal(verdict_at(hidden, 0), CAIRN_VERDICT_START_ | CAIRN_VERDICT_FIELD_);
    assert_int_equal(verdict_at(hidden, 8), CAIRN_VERDICT_FIELD_);
    assert_int_equal(verdict_at(hidden, 16), 0);
    assert_int_equal(verdict_at(hidden, 24), 0);
    PairRef *array = cairn_new_array(PairRef, 40);
    assert_int_equal(verdict_at(HIDE(array), 0), CAIRN_VERDICT_START_ | CAIRN_VERDICT_FIELD_);
    assert_int_equal(verdict_at(HIDE(array), 39 * 8), CAIRN_VERDICT_FIELD_);
    assert_int_equal(verdict_at(HIDE(array), 40 * 8), 0);
    Pair *pairs = cairn_new_array(Pair, 3);
    assert_int_equal(verdict_at(HIDE(pairs), 2 * sizeof(Pair) + 8), CAIRN_VERDICT_FIELD_);
    assert_int_equal(verdict_at(HIDE(pairs), 2 * sizeof(Pair) + 16), 0);
    char *text = cairn_strdup("text");
    assert_int_equal(verdict_at(HIDE(text), 0), CAIRN_VERDICT_START_);
    cairn_keep(text);
}

/* ---- Death ---- */

static uintptr_t hidden;

static void drop_by_count(void) {
    Pair *pair = cairn_new(Pair);
    cairn_set(&row[0], pair);
    cairn_set(&pair->second, kept);
    hidden = HIDE(pair);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(verdict_at(hidden, 8), CAIRN_VERDICT_FIELD_); /* promoted, and still known */
    cairn_set(&row[0], NULL);
}

static void drop_ring(void) {
    Pair *pair = cairn_new(Pair);
    cairn_set(&row[0], pair);
    cairn_set(&pair->first, pair);
    hidden = HIDE(pair);
    cairn_collect(CAIRN_COUNT);
    assert_true(verdict_at(hidden, 0) & CAIRN_VERDICT_START_);
    cairn_set(&row[0], NULL);
}

static void drop_young(void) {
    Pair *pair = cairn_new(Pair);
    hidden = HIDE(pair);
    assert_true(verdict_at(hidden, 0) & CAIRN_VERDICT_START_);
}

/* Beside one that lives on, in the same block. */
static void drop_young_among_others(void) {
    drop_young();
    cairn_set(&row[1], cairn_new(Pair));
}

static PairRef *held;
static void drop_array_of(size_t count) {
    held = cairn_new_array(PairRef, count);
    for (size_t i = 0; i < count; i += 10) cairn_set(&held[i], kept);
    hidden = HIDE(held);
    cairn_collect(CAIRN_COUNT);
    assert_int_equal(verdict_at(hidden, 10 * 8), CAIRN_VERDICT_FIELD_);
    held = NULL;
}
static void drop_small_array(void) {
    drop_array_of(40);
}
static void drop_array_of_own_blocks(void) {
    drop_array_of(4000);
}

static void assert_dies(void (*drop)(void), cairn_collection kind, size_t bytes) {
    run_apart(drop);
    for (int i = 0; i < 3; i++) cairn_collect(kind);
    assert_forgotten(hidden, bytes);
}

static void death_takes_them(void **state) {
    (void)state;
    assert_dies(drop_by_count, CAIRN_COUNT, sizeof(Pair));
    assert_dies(drop_ring, CAIRN_TRACE, sizeof(Pair));
    assert_dies(drop_young, CAIRN_COUNT, sizeof(Pair));
    assert_dies(drop_young_among_others, CAIRN_COUNT, sizeof(Pair));
    assert_dies(drop_small_array, CAIRN_COUNT, 40 * 8);
    assert_dies(drop_array_of_own_blocks, CAIRN_COUNT, 4000 * 8);
    assert_int_equal(verdict_at(HIDE(kept), 0), CAIRN_VERDICT_START_ | CAIRN_VERDICT_FIELD_);
}

/* Blocks in which nothing lives are freed as a whole. */
enum { RINGS = 4000 };
static uintptr_t rings[RINGS];
static void drop_rings(void) {
    PairRef *all = cairn_new_array(PairRef, RINGS);
    for (size_t i = 0; i < RINGS; i++) {
        Pair *pair = cairn_new(Pair);
        rings[i] = HIDE(pair);
        cairn_set(&pair->first, pair);
        cairn_set(&all[i], pair);
    }
    cairn_collect(CAIRN_COUNT);
}

static void whole_blocks_take_them(void **state) {
    (void)state;
    run_apart(drop_rings);
    cairn_collect(CAIRN_TRACE);
    for (size_t i = 0; i < RINGS; i++) assert_forgotten(rings[i], sizeof(Pair));
}

static void deletion_takes_them(void **state) {
    (void)state;
    Pair *pair = cairn_new(Pair), *copy = pair;
    assert_ptr_equal(cairn_get((*(const PairRef *)(const void *)&copy)), pair);
    cairn_delete(pair);
    assert_forgotten(HIDE(copy), sizeof(Pair));
    CATCH_REPORT(cairn_set(&kept->second, copy));
    assert_names("deleted");
    CATCH_REPORT(cairn_set(&copy->second, NULL));
    assert_forgotten(HIDE(copy), sizeof(Pair));
}

static void ended_heaps_take_them(void **state) {
    (void)state;
    cairn_heap *heap = make_small_heap();
    Pair *pair = cairn_new_in(heap, Pair);
    uintptr_t gone = HIDE(pair);
    assert_true(verdict_at(gone, 0) & CAIRN_VERDICT_START_);
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
    assert_forgotten(gone, sizeof(Pair));
}

/* ---- What is no better for a neighbour's ---- */

static void middles_do_not_pass(void **state) {
    (void)state;
    for (volatile size_t offset = 1; offset < sizeof(Pair); offset++) {
        void *middle = (char *)kept + offset;
        CATCH_REPORT(cairn_set(&kept->second, middle));
        assert_names("bytes into the Pair");
    }
    CATCH_REPORT(cairn_store_here_((void **)(void *)&kept->value, kept, "file", "function", 1));
    assert_names("declares none there");
}

static void heaps_are_told_apart(void **state) {
    (void)state;
    cairn_heap *heap = make_small_heap();
    Pair *other = cairn_new_in(heap, Pair);
    cairn_set(&other->first, other);
    cairn_set(&kept->second, kept);
    CATCH_REPORT(cairn_set(&kept->second, other));
    assert_names("is to refer to");
    cairn_set(&other->first, NULL);
    other = NULL;
    assert_int_equal(cairn_heap_destroy(heap), CAIRN_OK);
}

/* ---- Looks and deletions at once ---- */

/* Who looked before the deletion and gives its verdict after it. */
static void late_verdicts_do_not_come(void **state) {
    (void)state;
    Pair *pair = cairn_new(Pair), *copy = pair;
    void *field = &copy->second;
    *crn_verdict_of(pair) = 0;
    uint8_t before = crn_verdict_before_look(copy);
    cairn_delete(pair);
    assert_false(crn_verdict_give(copy, before, CAIRN_VERDICT_START_));
    assert_false(crn_verdict_give(field, before, CAIRN_VERDICT_SECOND_FIELD_));
    before = crn_verdict_before_look(copy);
    assert_false(crn_verdict_give(copy, before, CAIRN_VERDICT_START_));
    crn_verdict_take_back(copy, CAIRN_VERDICT_START_);
    assert_false(crn_verdict_give(copy, crn_verdict_before_look(copy), CAIRN_VERDICT_START_));
    assert_forgotten(HIDE(copy), sizeof(Pair));
}

static CRN_NOINLINE Pair *new_pair(void) {
    return cairn_new(Pair);
}

/* Who deletes second, when the first has come to the deleted bit and not yet to the mark. */
static void second_deletion_marks_as_well(void **state) {
    (void)state;
    Pair *pair = new_pair();
    assert_true(verdict_at(HIDE(pair), 0) & CAIRN_VERDICT_START_);
    assert_true(crn_deleted_bit_claim(pair));
    CATCH_REPORT(cairn_delete(pair));
    assert_names("delete");
    assert_forgotten(HIDE(pair), sizeof(Pair));
    struct crn_bit bit = crn_deleted_bit(pair); /* the made-up deletion dug no grave */
    __atomic_fetch_and(bit.byte, (uint8_t)~bit.mask, __ATOMIC_RELAXED);
    cairn_keep(pair);
}

/* New objects beside a deleted one write their own verdicts only. */
static void neighbours_leave_the_mark(void **state) {
    (void)state;
    enum { MANY = 64 };
    Pair *pairs[MANY];
    for (int i = 0; i < MANY; i++) pairs[i] = cairn_new(Pair);
    uintptr_t second = 0;
    for (int i = 1; i < MANY && !second; i++) {
        if (pairs[i] == pairs[i - 1] + 1) second = HIDE(pairs[i]);
    }
    assert_true(second);
    *crn_verdict_of(SHOW(Pair, second)) = CAIRN_VERDICT_DELETED_;
    (void)cairn_born_(cairn_type_of_Pair, sizeof(Pair), SHOW(Pair, second) - 1);
    assert_int_equal(*crn_verdict_of(SHOW(Pair, second)), CAIRN_VERDICT_DELETED_);
    for (int i = 0; i < MANY; i++) cairn_keep(pairs[i]);
}

static Pair *given;
static void give_and_drop(void) {
    given = cairn_new(Pair);
    hidden = HIDE(given);
    Pair *copy = given;
    cairn_delete(given);
    assert_int_equal(*crn_verdict_of(copy), CAIRN_VERDICT_DELETED_);
    given = NULL;
}

static void reclaimed_slots_lose_the_mark(void **state) {
    (void)state;
    run_apart(give_and_drop);
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    assert_int_equal(*crn_verdict_of(SHOW(void, hidden)), 0);
}

enum { RACES = 100000 };
static PairRef shared;
static bool is_over;

static void *look(void *unused) {
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {
        void *seen = __atomic_load_n((void **)(uintptr_t)&shared.p, __ATOMIC_ACQUIRE);
        cairn_check_value_(seen, "file", "look", 1);
    }
    return unused;
}

static void say_nothing(const cairn_report *told, void *context) {
    (void)told;
    (void)context;
}

static void looks_and_deletions_agree(void **state) {
    (void)state;
    pthread_t threads[2];
    cairn_on_report(say_nothing, NULL);
    cairn_report_set_policy(CAIRN_REPORT_CALLBACK);
    is_over = false;
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, look, NULL);
    for (size_t i = 0; i < RACES; i++) {
        Pair *pair = cairn_new(Pair), *copy = pair;
        *crn_verdict_of(pair) = 0; /* as if an unchecked file had made it */
        __atomic_store_n((void **)(uintptr_t)&shared.p, pair, __ATOMIC_RELEASE);
        for (size_t spin = i % 16; spin > 0; spin--) CRN_PAUSE();
        cairn_delete(pair);
        assert_int_equal(verdict_at(HIDE(copy), 0), 0);
    }
    __atomic_store_n(&is_over, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    cairn_report_set_policy(CAIRN_REPORT_ABORT);
    cairn_on_report(NULL, NULL);
}

int main(void) {
    set_up(NULL);
    if (!crn_verdicts_are_kept()) {
        puts("without plenty of address space, and under sanitizers, there are no verdicts");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(new_objects_have_theirs, set_up),
        cmocka_unit_test_setup(death_takes_them, set_up),
        cmocka_unit_test_setup(whole_blocks_take_them, set_up),
        cmocka_unit_test_setup(deletion_takes_them, set_up),
        cmocka_unit_test_setup(ended_heaps_take_them, set_up),
        cmocka_unit_test_setup(middles_do_not_pass, set_up),
        cmocka_unit_test_setup(heaps_are_told_apart, set_up),
        cmocka_unit_test_setup(late_verdicts_do_not_come, set_up),
        cmocka_unit_test_setup(second_deletion_marks_as_well, set_up),
        cmocka_unit_test_setup(neighbours_leave_the_mark, set_up),
        cmocka_unit_test_setup(reclaimed_slots_lose_the_mark, set_up),
        cmocka_unit_test_setup(looks_and_deletions_agree, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
