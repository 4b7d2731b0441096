/* SPDX-License-Identifier: MIT
 *
 * Which memory asks for huge pages, as the kernel tells it in /proc/self/smaps: large objects, if
 * they are wanted; neither a small heap nor the runtime's own tables, whatever the system's
 * default.
 */
#define _GNU_SOURCE
#include "../test_child.h"

#include "os/os.h"
#include "space/space.h"

#include <sys/mman.h>

enum { ASKS = 1, REFUSES = 2, SAYS_NOTHING = 0, UNKNOWN = -1 };

/* What the mapping of the address says. */
static int advice_of(const void *address) {
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[512];
    bool is_here = false;
    int advice = UNKNOWN;
    while (file && advice == UNKNOWN && fgets(line, sizeof(line), file)) {
        unsigned long low, high;
        if (sscanf(line, "%lx-%lx", &low, &high) == 2)
            is_here = (uintptr_t)address >= low && (uintptr_t)address < high;
        if (!is_here || strncmp(line, "VmFlags:", 8) != 0) continue;
        advice = strstr(line, " hg") ? ASKS : strstr(line, " nh") ? REFUSES : SAYS_NOTHING;
    }
    if (file) fclose(file);
    return advice;
}

/* An emulator answers madvise by itself. */
static bool is_advice_told(void) {
    size_t bytes = (size_t)4 << 20;
    void *own = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(own, bytes, MADV_NOHUGEPAGE);
    bool is_told = advice_of(own) == REFUSES;
    munmap(own, bytes);
    return is_told;
}

enum { NOT_SAID = -1 };

static int look(long wanted) {
    if (wanted == NOT_SAID)
        unsetenv("CAIRN_HUGE_PAGES");
    else
        setenv("CAIRN_HUGE_PAGES", wanted ? "1" : "0", 1);
    Node *small = cairn_new(Node);
    NodeRef *large = cairn_new_array(NodeRef, 1 << 20);
    bool wants = wanted == NOT_SAID ? crn_os_huge_pages_are_usual() : wanted;
    if (advice_of(large) != (wants ? ASKS : REFUSES)) return 1;
    if (advice_of(small) != REFUSES) return 2;
    if (advice_of(crn_space.mark_bits) != REFUSES) return 3;
    cairn_keep(small);
    return 0;
}

static void large_objects_ask_if_wanted(void **state) {
    (void)state;
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (!file) skip();
    fclose(file);
    if (!is_advice_told()) skip();
    for (long wanted = NOT_SAID; wanted <= 1; wanted++) {
        int status = run_child(look, wanted);
        if (status) fail_msg("CAIRN_HUGE_PAGES %ld: status %#x", wanted, (unsigned)status);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_objects_ask_if_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
