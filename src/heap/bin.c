/* SPDX-License-Identifier: MIT
 *
 * Bins: the process-wide numbering of (type, slot size). Bin 0 is never used: its cursor is empty,
 * so that a type without a bin takes the slow path. Owns the bins lock; reading is lock-free, since
 * pages of the table never move.
 */
#include "heap/heap.h"

enum { BINS_PER_PAGE = 1024, BIN_PAGES = 4096 };

size_t crn_redzone_bytes;
static struct crn_lock bins_lock;
static struct crn_bin *bin_pages[BIN_PAGES];
static uint32_t bin_count = 1; /* atomic */

struct crn_bin *crn_bin_of(uint32_t id) {
    return &__atomic_load_n(&bin_pages[id / BINS_PER_PAGE], __ATOMIC_ACQUIRE)[id % BINS_PER_PAGE];
}

uint32_t crn_bin_count(void) {
    return __atomic_load_n(&bin_count, __ATOMIC_ACQUIRE);
}

static struct crn_bin *make_locked(struct crn_type *type, size_t slot_size, bool is_sized) {
    uint32_t id = bin_count;
    if (id / BINS_PER_PAGE >= BIN_PAGES) return NULL;
    if (!bin_pages[id / BINS_PER_PAGE]) {
        struct crn_bin *page = crn_meta_alloc(BINS_PER_PAGE * sizeof(struct crn_bin));
        if (!page) return NULL;
        __atomic_store_n(&bin_pages[id / BINS_PER_PAGE], page, __ATOMIC_RELEASE);
    }
    struct crn_bin *bin = crn_bin_of(id);
    *bin = (struct crn_bin){.id = id,
                            .slot_size = (uint32_t)slot_size,
                            .reciprocal = (uint32_t)(((uint64_t)1 << 32) / slot_size + 1),
                            .is_sized = is_sized,
                            .type = type};
    __atomic_store_n(&bin_count, id + 1, __ATOMIC_RELEASE);
    return bin;
}

static struct crn_bin *find_or_make(struct crn_type *type, uint32_t *cell, size_t slot_size,
                                    bool is_sized) {
    uint32_t id = __atomic_load_n(cell, __ATOMIC_ACQUIRE);
    if (id) return crn_bin_of(id);
    crn_lock_acquire(&bins_lock);
    struct crn_bin *bin = *cell ? crn_bin_of(*cell) : make_locked(type, slot_size, is_sized);
    /* Release: pairs with the acquire above and publishes the bin's contents. */
    if (bin) __atomic_store_n(cell, bin->id, __ATOMIC_RELEASE);
    crn_lock_release(&bins_lock);
    return bin;
}

struct crn_bin *crn_bin_fixed(struct crn_type *type) {
    return find_or_make(type, &type->fixed_bin, crn_slot_size(type), false);
}

struct crn_bin *crn_bin_sized(struct crn_type *type, uint32_t class_index) {
    return find_or_make(type, &type->sized_bins[class_index], crn_class_size(class_index), true);
}
