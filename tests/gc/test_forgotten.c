/* SPDX-License-Identifier: MIT
 *
 * What CAIRN_VERIFY=1 finds of what a program forgot to tell: each in a child that must end with
 * one report, or go on with a note; and programs that tell everything, of which it says nothing.
 */
#define CAIRN_SITES
#include "../test.h"
#include "../test_child.h"

typedef struct Entry Entry;
typedef cairn_ref(Entry) EntryRef;
struct Entry {
    long number;
    EntryRef next;
    Entry *plain; /* not declared */
    NodeRef nodes[3];
};
CAIRN_TYPE(Entry, next, nodes);
typedef struct {
    long numbers[3];
} Leaf;
CAIRN_LEAF(Leaf);

static Entry *kept;
static EntryRef *table;
static Leaf *leaves;

/* As memcpy does, where no barrier sees it. */
static void store_raw(void *field, const void *value) {
    memcpy(field, &value, sizeof(value));
}

static void make_mature(void) {
    kept = cairn_new(Entry);
    table = cairn_new_array(EntryRef, 4);
    for (size_t i = 0; i < 4; i++) cairn_set(&table[i], cairn_make(Entry, .number = (long)i));
    cairn_collect(CAIRN_COUNT);
}

static int end_well(long kind) {
    clean_stack();
    cairn_collect(kind == 0 ? CAIRN_COUNT : CAIRN_TRACE);
    cairn_collect(CAIRN_COUNT);
    cairn_keep(leaves);
    return 0;
}

/* ---- Forgotten stores ---- */

static void store_young(void) {
    store_raw((void *)&kept->next, cairn_new(Entry));
}
static void store_middle(void) {
    store_raw((void *)&kept->nodes[1], &table[1].p->number + 1);
}
static void store_known(void) {
    store_raw((void *)&kept->next, table[2].p);
}
static void overwrite(void) {
    store_raw((void *)&table[1], NULL);
}
static void move_by_memmove(void) {
    memmove((void *)&table[0], (void *)&table[1], 3 * sizeof(*table));
}

static const struct wrong {
    void (*run)(void);
    const char *what, *more;
} wrongs[] = {
    {store_young, "the field at offset 8 of the Entry at", "where no object lives"},
    {store_middle, "the field at offset 32 of the Entry at", "the middle of the Entry at"},
    {store_known, "a reference to the Entry at", "held by: 2 fields: the field at offset"},
    {overwrite, "was overwritten or cleared without cairn_set", "held by: 0 fields"},
    {move_by_memmove, "without cairn_set", "test_forgotten.c:"},
};

static int run_wrong(long index) {
    setenv("CAIRN_VERIFY", "1", 1);
    run_apart(make_mature);
    run_apart(wrongs[index / 2].run);
    return end_well(index % 2);
}

static void forgotten_stores_are_found(void **state) {
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(wrongs) / sizeof(*wrongs); i++) {
        int status = run_child(run_wrong, (long)i);
        const struct wrong *wrong = &wrongs[i / 2];
        bool is_right = is_one_report(status) && strstr(child_output, "forgotten store") &&
                        strstr(child_output, wrong->what) && strstr(child_output, wrong->more) &&
                        strstr(child_output, "in make_mature");
        if (!is_right) fail_msg("%zu: status %#x: %s", i, (unsigned)status, child_output);
    }
}

/* ---- Options ---- */

/* As the environment says it, but by a heap's options, which count for all heaps. */
static int run_with_options(long is_verifying) {
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.verify = is_verifying;
    options.trace = !is_verifying;
    options.region_bytes = (size_t)64 << 20;
    cairn_heap *heap;
    if (cairn_heap_create(&options, &heap) != CAIRN_OK) return 1;
    run_apart(make_mature);
    if (is_verifying) run_apart(store_young);
    return end_well(0);
}

static void options_do_as_the_environment(void **state) {
    (void)state;
    assert_true(is_one_report(run_child(run_with_options, true)));
    assert_non_null(strstr(child_output, "forgotten store"));
    assert_int_equal(run_child(run_with_options, false), 0);
    assert_non_null(strstr(child_output, "cairn: epoch "));
}

/* ---- Undeclared references ---- */

static void keep_plain(void) {
    kept->plain = table[3].p;
}
static void keep_interior(void) {
    kept->plain = (Entry *)(void *)&table[3].p->nodes[0];
}
static void keep_only_there(void) {
    for (size_t i = 0; i < 4; i++) table[i].p->plain = cairn_new(Entry);
}
static void keep_in_leaf(void) {
    leaves = cairn_new_array(Leaf, 10);
    leaves[7].numbers[2] = (long)(uintptr_t)kept;
}

static const struct wrong undeclared[] = {
    {keep_plain, "note: Entry has an undeclared reference at offset 16:", "in a Entry;"},
    {keep_interior, "note: Entry has an undeclared reference at offset 16:", "not at its start;"},
    {keep_only_there,
     "note: Entry has an undeclared reference at offset 16:", "where no object lives any more;"},
    {keep_in_leaf, "note: Leaf has an undeclared reference at offset 16:", "in a Entry;"},
};

static int run_undeclared(long index) {
    setenv("CAIRN_VERIFY", "1", 1);
    run_apart(make_mature);
    run_apart(undeclared[index].run);
    for (int i = 0; i < 3; i++) end_well(1);
    return 0;
}

static void undeclared_references_are_noted_once(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(undeclared) / sizeof(*undeclared); i++) {
        int status = run_child(run_undeclared, (long)i);
        const char *note = strstr(child_output, undeclared[i].what);
        bool is_right =
            status == 0 && note && strstr(note, undeclared[i].more) && !strstr(note + 1, "cairn: ");
        if (!is_right) fail_msg("%zu: status %#x: %s", i, (unsigned)status, child_output);
    }
}

/* ---- Nothing to say ---- */

static void tell_everything(void) {
    static Entry fixed;
    cairn_set(&kept->next, table[2].p);
    cairn_set(&kept->nodes[0], cairn_make(Node, .value = -1));
    cairn_set(&table[0].p->next, &fixed);
    cairn_copy(table[1].p, kept, 1);
    cairn_clear(kept);
    cairn_set(&kept->next, cairn_new(Entry));
    cairn_weak watch = {0};
    if (!cairn_weak_set(&watch, kept)) abort();
    Entry *gone = table[3].p;
    cairn_status status = cairn_cleanup_add(table[2].p, (void (*)(void *))free, malloc(16));
    if (status != CAIRN_OK) abort();
    cairn_pin(table[2].p);
    cairn_delete(gone);
    fixed.number = 3;
    leaves = cairn_new_array(Leaf, 10);
    for (size_t i = 0; i < 10; i++) leaves[i].numbers[0] = (long)(i * 0x1234567);
}

static int run_right(long unused) {
    setenv("CAIRN_VERIFY", "1", 1);
    run_apart(make_mature);
    for (int i = 0; i < 5; i++) {
        run_apart(tell_everything);
        end_well(i % 2);
        run_apart(make_mature);
    }
    return (int)unused;
}

static void nothing_is_said_of_what_is_told(void **state) {
    (void)state;
    int status = run_child(run_right, 0);
    if (status != 0 || *child_output) fail_msg("status %#x: %s", (unsigned)status, child_output);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forgotten_stores_are_found),
        cmocka_unit_test(options_do_as_the_environment),
        cmocka_unit_test(undeclared_references_are_noted_once),
        cmocka_unit_test(nothing_is_said_of_what_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
