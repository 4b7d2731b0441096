/* SPDX-License-Identifier: MIT
 *
 * The main thread's locals lie in a mapping that the loader made. One of the program's right beside
 * it is the same to the kernel, and may be gone at the next collection.
 */
#define _GNU_SOURCE
#include "../test.h"

#include "object/object.h"

#include <sys/mman.h>

enum { ROOM = 16 * 4096 };
static char *below, *above;
static bool has_neighbours;

static void find_mapping(uintptr_t address, uintptr_t *low, uintptr_t *high) {
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps) abort();
    char line[512];
    while (fgets(line, sizeof(line), maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx", &from, &to) != 2 || address < from || address >= to) continue;
        *low = from;
        *high = to;
    }
    fclose(maps);
}

static char *map_at(uintptr_t address) {
    void *hint = (void *)address;
    void *mapping = mmap(hint, ROOM, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return mapping == MAP_FAILED ? NULL : mapping;
}

/* Before the first call. */
static void take_both_sides(void) {
    uintptr_t anchor = (uintptr_t)crn_os_thread_anchor(), low = 0, high = 0;
    find_mapping(anchor, &low, &high);
    below = map_at(low - ROOM);
    above = map_at(high);
    uintptr_t low_now = 0, high_now = 0;
    find_mapping(anchor, &low_now, &high_now);
    has_neighbours = (below && low_now < low) || (above && high_now > high);
}

static _Thread_local Node *own;
static void make_own(void) {
    own = cairn_make(Node, .value = 12);
}

static void neighbours_may_go(void **state) {
    (void)state;
    if (!has_neighbours) skip();
    make_own();
    if (below) assert_int_equal(munmap(below, ROOM), 0);
    if (above) assert_int_equal(munmap(above, ROOM), 0);
    clean_stack();
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    assert_int_equal(own->value, 12);
    own = NULL;
}

int main(void) {
    take_both_sides();
    const struct CMUnitTest tests[] = {cmocka_unit_test(neighbours_may_go)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
