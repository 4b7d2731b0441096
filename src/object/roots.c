/* SPDX-License-Identifier: MIT
 *
 * Ranges of memory that the program asks to be scanned. Owns the roots lock.
 */
#include "object/object.h"

#include "base/described.h"

struct root {
    struct root *next;
    char *low, *high;
};

static struct crn_lock roots_lock;
static struct root *roots;

static cairn_status add(const void *low, const void *high) {
    if (!low || high < low) return CAIRN_ERROR_ARGUMENT;
    crn_enter();
    struct root *root = crn_meta_alloc(sizeof(*root));
    if (root) {
        root->low = (char *)(uintptr_t)low;
        root->high = (char *)(uintptr_t)high;
        crn_lock_acquire(&roots_lock);
        root->next = roots;
        roots = root;
        crn_lock_release(&roots_lock);
    }
    crn_leave();
    return root ? CAIRN_OK : CAIRN_ERROR_NO_MEMORY;
}

static void remove_root(const void *low, const char *caller) {
    crn_enter();
    crn_lock_acquire(&roots_lock);
    struct root **at = &roots;
    while (*at && (*at)->low != low) at = &(*at)->next;
    struct root *root = *at;
    if (root) *at = root->next;
    crn_lock_release(&roots_lock);
    crn_meta_free(root, sizeof(*root));
    crn_leave();
    CAIRN_REQUIRE(root, "%s: %p was not added", caller, low);
}

cairn_status cairn_root_add(const void *address, size_t bytes) {
    uintptr_t end;
    if (__builtin_add_overflow((uintptr_t)address, bytes, &end)) return CAIRN_ERROR_ARGUMENT;
    return add(address, (const char *)address + bytes);
}
void cairn_root_remove(const void *address) {
    remove_root(address, "cairn_root_remove");
}
cairn_status cairn_stack_add(const void *low, const void *high) {
    return add(low, high);
}
void cairn_stack_remove(const void *low) {
    remove_root(low, "cairn_stack_remove");
}

void crn_roots_each(void (*visit)(char *low, char *high, void *context), void *context) {
    for (struct root *root = roots; root; root = root->next) visit(root->low, root->high, context);
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_MEMBER(root, next),
    CRN_MEMBER(root, low),
    CRN_MEMBER(root, high),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(roots),
};
