/* SPDX-License-Identifier: MIT
 *
 * Large objects that are mostly untouched: a trace finds all that they refer to, wherever elements
 * and pages begin, and neither it nor their death makes memory of what was never written. What they
 * refer to are cycles of one, which a trace alone decides about.
 */
#include "../test.h"
#include "gc/gc.h"

#include <sched.h>
#include <sys/resource.h>

typedef struct Item Item;
typedef cairn_ref(Item) ItemRef;
struct Item {
    ItemRef self;
    size_t number;
};
CAIRN_TYPE(Item, self);

/* The reference near the end, in a page behind the one in which the element begins. */
typedef struct {
    char before[488];
    ItemRef item;
} Mapped;
CAIRN_TYPE(Mapped, item);
typedef struct {
    char before[4096];
    ItemRef item;
} Listed;
CAIRN_TYPE(Listed, item);
typedef struct {
    ItemRef first;
    char between[100];
    ItemRef items[];
} Flexible;
CAIRN_TYPE(Flexible, first, CAIRN_FLEX(items));

enum { MIB_REFS = (1 << 20) / sizeof(ItemRef), REFS = 8 * MIB_REFS + 77, ELEMENTS = 20000 };
static ItemRef *plain;
static Mapped *mapped;
static Listed *listed;
static Flexible *flexible;

static ItemRef *plain_at(size_t i) {
    return &plain[i];
}
static ItemRef *mapped_at(size_t i) {
    return &mapped[i].item;
}
static ItemRef *listed_at(size_t i) {
    return &listed[i].item;
}
static ItemRef *flexible_at(size_t i) {
    return i ? &flexible->items[i - 1] : &flexible->first;
}

/* Those at the edges of each MiB among them: the collector reads so much at a time. */
static bool is_chosen(ItemRef *at(size_t), size_t i, size_t count) {
    size_t step = (size_t)((char *)at(2) - (char *)at(1)), mib = 1 << 20;
    size_t offset = i * step % mib;
    return i == 0 || i + 1 == count || offset < step || offset > mib - step || i % 1009 == 0;
}

/* Returns how many. */
static size_t set_all(ItemRef *at(size_t), size_t count) {
    size_t made = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_chosen(at, i, count)) continue;
        Item *item = cairn_make(Item, .number = i);
        cairn_set(&item->self, item);
        cairn_set(at(i), item);
        made++;
    }
    return made;
}

static void check_all(ItemRef *at(size_t), size_t count) {
    for (size_t i = 0; i < count; i++) {
        const Item *item = at(i)->p;
        if (!is_chosen(at, i, count)) {
            assert_null(item);
            continue;
        }
        assert_true(item->self.p == item && item->number == i);
        assert_int_equal(cairn_count(item), 2);
    }
}

static void clear_all(ItemRef *at(size_t), size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (is_chosen(at, i, count)) cairn_set(at(i), NULL);
    }
}

static bool is_over; /* atomic */
static void *stand_still_often(void *argument) {
    if (cairn_thread_register() != CAIRN_OK) abort();
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) sched_yield();
    return argument;
}

enum { ARRAYS = 4, FEW = 20 }; /* that old words on the stack keep */

static void check_kind(ItemRef *at(size_t), size_t count) {
    uint64_t made = set_all(at, count);
    for (int i = 0; i < 3; i++) {
        collect_and_clean(CAIRN_TRACE);
        assert_in_range(live_objects(), ARRAYS + made, ARRAYS + made + FEW);
        check_all(at, count);
    }
    clear_all(at, count);
    for (int i = 0; i < 3; i++) collect_and_clean(CAIRN_TRACE);
    assert_in_range(live_objects(), ARRAYS, ARRAYS + FEW);
}

static void check_kinds(void) {
    check_kind(plain_at, REFS);
    check_kind(mapped_at, ELEMENTS);
    check_kind(listed_at, ELEMENTS);
    check_kind(flexible_at, REFS);
}

static void trace_finds_all_that_sparse_objects_hold(void **state) {
    (void)state;
    plain = cairn_new_array(ItemRef, REFS);
    mapped = cairn_new_array(Mapped, ELEMENTS);
    listed = cairn_new_array(Listed, ELEMENTS);
    flexible = cairn_new_flex(Flexible, items, REFS - 1);
    check_kinds();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stand_still_often, NULL), 0);
    check_kinds();
    __atomic_store_n(&is_over, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    plain = NULL;
    mapped = NULL;
    listed = NULL;
    flexible = NULL;
    collect_and_clean(CAIRN_TRACE);
    collect_and_clean(CAIRN_TRACE);
}

/* Data in front of a flexible part: addresses there are no references. */
typedef struct {
    ItemRef first;
    void *data[2 * MIB_REFS];
    ItemRef items[];
} Headed;
CAIRN_TYPE(Headed, first, CAIRN_FLEX(items));
enum { DROPPED = 200 };
static Headed *headed;
static Item *kept[DROPPED]; /* until they are mature */

static void write_addresses(void) {
    for (size_t i = 0; i < DROPPED; i++) {
        Item *item = cairn_new(Item);
        cairn_set(&item->self, item);
        headed->data[MIB_REFS / 2 + i] = kept[i] = item;
    }
    headed->data[0] = headed->data[MIB_REFS / 2];
}

static void data_in_front_is_not_read(void **state) {
    (void)state;
    headed = cairn_new_flex(Headed, items, 0);
    run_apart(write_addresses);
    collect_and_clean(CAIRN_COUNT);
    assert_true(live_objects() >= 1 + DROPPED);
    memset(kept, 0, sizeof(kept));
    /* The first one: what it reads by mistake may be resident then. */
    collect_and_clean(CAIRN_TRACE);
    assert_in_range(live_objects(), 1, 1 + FEW);
    headed = NULL;
    for (int i = 0; i < 2; i++) collect_and_clean(CAIRN_COUNT);
    assert_in_range(live_objects(), 0, FEW);
}

static size_t faults_so_far(void) {
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (size_t)usage.ru_minflt;
}

enum { SPARSE_MIB = 512 };
static ItemRef *sparse;
static void make_sparse(void) {
    sparse = cairn_new_array(ItemRef, (size_t)SPARSE_MIB * MIB_REFS);
    for (size_t i = 0; i < SPARSE_MIB; i += 64) cairn_set(&sparse[i * MIB_REFS], cairn_new(Item));
}

static void what_was_never_written_stays_away(void **state) {
    (void)state;
#if defined(CRN_AUDIT) || defined(__SANITIZE_ADDRESS__) || CAIRN_TSAN_
    skip(); /* who checks reads all */
#endif
    if (crn_checker_is_valgrind) skip();
    run_apart(make_sparse);
    collect_and_clean(CAIRN_COUNT);
    size_t faults = faults_so_far(), pages = (size_t)SPARSE_MIB << 8;
    for (int i = 0; i < 3; i++) collect_and_clean(CAIRN_TRACE);
    assert_true(faults_so_far() - faults < pages / 16);
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    long most_kib = usage.ru_maxrss;
    sparse = NULL;
    uint64_t before = live_objects();
    for (int i = 0; i < 3; i++) collect_and_clean(CAIRN_COUNT);
    assert_true(live_objects() < before);
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    assert_true(usage.ru_maxrss - most_kib < SPARSE_MIB * 1024 / 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_never_written_stays_away),
        cmocka_unit_test(data_in_front_is_not_read),
        cmocka_unit_test(trace_finds_all_that_sparse_objects_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
