/* SPDX-License-Identifier: MIT
 *
 * References to what lies outside every heap: stored, not counted, wherever it lies. Method: a page
 * between the regions of two heaps, where the address alone does not tell.
 */
#include "../test.h"
#include "os/os.h"
#include "space/space.h"

typedef struct Holder Holder;
typedef cairn_ref(const char) TextRef;
struct Holder {
    TextRef text;
};
CAIRN_TYPE(Holder, text);

static Holder *holder;

/* The kernel places what is too large for a hole below what is there. */
static const char *page_between_regions(void) {
    enum { PAGES = 16 };
    char *pages[PAGES];
    cairn_heap *heap = NULL;
    cairn_options options = CAIRN_OPTIONS_INIT;
    options.region_bytes = CRN_MIB(64);
    for (int i = 0; i < PAGES; i++) {
        pages[i] = crn_os_map(CRN_MIB(64));
        assert_non_null(pages[i]);
        assert_int_equal(cairn_heap_create(&options, &heap), CAIRN_OK);
        if (pages[i] > crn_space.low && pages[i] < crn_space.high) return pages[i];
    }
    fail_msg("no page between two regions");
    return NULL;
}

static void reference_between_regions_is_stored_and_not_counted(void **state) {
    (void)state;
    holder = cairn_new(Holder);
    const char *page = page_between_regions();
    cairn_set(&holder->text, page);
    cairn_collect(CAIRN_COUNT); /* the holder matures: its fields are counted */
    cairn_collect(CAIRN_TRACE);
    assert_ptr_equal(holder->text.p, page);
    cairn_set(&holder->text, page + 8); /* logged: the old value is given back */
    cairn_collect(CAIRN_COUNT);
    cairn_collect(CAIRN_COUNT);
    assert_ptr_equal(holder->text.p, page + 8);
    assert_int_equal(page[0], 0);
    holder = NULL; /* its death gives back what it held */
    for (int i = 0; i < 3; i++) live_after(CAIRN_TRACE);
    assert_int_equal(page[8], 0);
}

static void deleted_reference_between_regions_is_a_tombstone(void **state) {
    (void)state;
    Node *node = cairn_make(Node, .next = {cairn_new(Node)});
    cairn_delete_ref(&node->next);
    cairn_collect(CAIRN_COUNT);
    cairn_collect(CAIRN_TRACE);
    assert_true(cairn_is_deleted(node->next.p));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_between_regions_is_stored_and_not_counted),
        cmocka_unit_test(deleted_reference_between_regions_is_a_tombstone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
