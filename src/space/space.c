/* SPDX-License-Identifier: MIT
 *
 * Reserving regions and shadows, taking and giving back segments.
 *
 * The full form reserves shadows for every user address: 2^47 of them on x86-64 (a log shadow of
 * 2 TiB of zero page), 2^48 on aarch64. Where a limit, a sanitizer, a kernel with smaller addresses
 * or an emulator leaves less, the mask shrinks; regions then must not fold onto each other, so a
 * region that would is refused.
 */
#include "space/space.h"

#include "base/described.h"
#include "base/lock.h"
#include "os/checker.h"
#include "os/os.h"

#include <cairn/runtime.h>
#include <string.h>

struct crn_space crn_space;
static struct crn_lock space_lock; /* guards region search and the kinds table */

enum { REGION_MAX = 1024 };
static struct crn_region
    *regions[REGION_MAX]; /* for the folding check and for what lies between them */

/* One reservation holds all shadows, in units of mask/128: log 2, roots 2, mark 1, deleted 1. */
static bool reserve_shadows(unsigned bits) {
    size_t unit = (size_t)1 << (bits - 7);
    uint8_t *base = crn_os_reserve_zero(unit * 6);
    if (!base) return false;
    crn_space.mask = ((uintptr_t)1 << bits) - 1;
    crn_space.root_bits = base + unit * 2;
    crn_space.mark_bits = base + unit * 4;
    crn_space.deleted_bits = base + unit * 5;
    cairn_runtime.log_mask = crn_space.mask;
    __atomic_store_n(&cairn_runtime.log_bits, base, __ATOMIC_RELEASE);
    return true;
}

static bool can_reserve(unsigned bits) {
    size_t bytes = ((size_t)1 << (bits - 7)) * 6;
    void *trial = crn_os_reserve_zero(bytes);
    if (trial) crn_os_release(trial, bytes);
    return trial != NULL;
}

/* Where tombstones point; not committed, in no region. */
static void reserve_graveyard(void) {
    size_t limit = crn_os_address_limit();
    size_t bytes = limit == SIZE_MAX ? CRN_GIB(128) : crn_round_up(limit / 64, CRN_SEGMENT_BYTES);
    for (; bytes >= CRN_SEGMENT_BYTES && !crn_space.graveyard; bytes /= 2) {
        crn_space.graveyard = crn_os_reserve(bytes, CRN_SEGMENT_BYTES);
        if (crn_space.graveyard) crn_space.grave_bytes = bytes / 2;
    }
}

static unsigned widest_shadow(void) {
    if (CAIRN_TSAN_ || CAIRN_ASAN_) return 41;
    size_t limit = crn_os_address_limit();
    if (limit == SIZE_MAX) return CRN_ADDRESS_BITS;
    unsigned bits = crn_log2(limit) + 1;
    return bits < 32 ? 32 : (bits > 41 ? 41 : bits);
}

bool crn_space_init(void) {
    crn_space.notes_ends = crn_checker_watches;
    crn_space.segment_kinds = crn_os_map_room((size_t)1 << (CRN_ADDRESS_BITS - CRN_SEGMENT_SHIFT));
    if (!crn_space.segment_kinds) return false;
    reserve_graveyard();
    unsigned widest = widest_shadow();
    if (reserve_shadows(widest)) return true;
    for (unsigned bits = widest - 1; bits >= 30; bits--) {
        if (!can_reserve(bits)) continue;
        /* What just fits would leave nothing for heaps and the program. */
        return reserve_shadows(bits >= 32 ? bits - 2 : bits);
    }
    return false;
}

/* Two regions fold onto each other if their masked intervals meet. */
static bool folds(const char *base, size_t bytes) {
    if (crn_space.mask >> (CRN_ADDRESS_BITS - 1)) return false;
    uintptr_t low = (uintptr_t)base & crn_space.mask;
    if (low + bytes > crn_space.mask + 1) return true;
    for (size_t i = 0; i < REGION_MAX; i++) {
        if (!regions[i]) continue;
        uintptr_t other = (uintptr_t)regions[i]->base & crn_space.mask;
        size_t size = (size_t)(regions[i]->end - regions[i]->base);
        if (low < other + size && other < low + bytes) return true;
    }
    return false;
}

static char *reserve_region(size_t bytes) {
    char *rejected[16];
    size_t rejected_count = 0;
    char *base = NULL;
    while (rejected_count < 16) {
        base = crn_os_reserve(bytes, CRN_SEGMENT_BYTES);
        if (!base || !folds(base, bytes)) break;
        rejected[rejected_count++] = base;
        base = NULL;
    }
    while (rejected_count > 0) crn_os_release(rejected[--rejected_count], bytes);
    return base;
}

static bool note_region(struct crn_region *region) {
    for (size_t i = 0; i < REGION_MAX; i++) {
        if (regions[i]) continue;
        regions[i] = region;
        bool is_lowest = !crn_space.low || region->base < crn_space.low;
        if (is_lowest) __atomic_store_n(&crn_space.low, region->base, __ATOMIC_RELAXED);
        if (is_lowest) {
            __atomic_store_n(&cairn_runtime.heap_low, (uintptr_t)region->base, __ATOMIC_RELAXED);
        }
        bool is_highest = region->end > crn_space.high;
        if (is_highest) __atomic_store_n(&crn_space.high, region->end, __ATOMIC_RELAXED);
        if (is_highest) {
            __atomic_store_n(&cairn_runtime.heap_high, (uintptr_t)region->end, __ATOMIC_RELAXED);
        }
        return true;
    }
    return false;
}

bool crn_space_is_reserved(const void *address) {
    const char *a = address;
    for (size_t i = 0; i < REGION_MAX; i++) {
        if (regions[i] && a >= regions[i]->base && a < regions[i]->end) return true;
    }
    return false;
}

bool crn_region_init(struct crn_region *region, size_t bytes) {
    memset(region, 0, sizeof(*region));
    crn_lock_acquire(&space_lock);
    size_t most = crn_space.mask >> (CRN_ADDRESS_BITS - 1) ? bytes : (crn_space.mask + 1) / 4;
    bytes = crn_round_up(crn_min(bytes, most), CRN_SEGMENT_BYTES);
    for (; bytes >= CRN_MIB(32); bytes = crn_round_up(bytes / 2, CRN_SEGMENT_BYTES)) {
        region->base = reserve_region(bytes);
        if (region->base) break;
    }
    bool is_done = false;
    if (region->base) {
        region->end = region->base + bytes;
        region->segment_count = bytes >> CRN_SEGMENT_SHIFT;
        region->is_taken = crn_os_map(region->segment_count * 5 + 8);
        is_done = region->is_taken && note_region(region);
        if (is_done) {
            region->head_of =
                (uint32_t *)(void *)(region->is_taken + crn_round_up(region->segment_count, 4));
        }
    }
    crn_lock_release(&space_lock);
    if (!is_done && region->base) crn_os_release(region->base, bytes);
    return is_done;
}

/* Of a shadow with so many bytes per granule. */
static size_t notes_bytes(const struct crn_region *region, size_t bytes_each) {
    return (size_t)(region->end - region->base) / CRN_GRANULE * bytes_each;
}

/* The last heaps that ended. Where address space is limited none is kept. */
enum { ENDED_MAX = 16, ENDED_NAME_BYTES = 32 };
static struct ended {
    char *low, *high; /* atomic */
    char name[ENDED_NAME_BYTES];
} ended[ENDED_MAX];
static unsigned ended_count; /* under the space lock */

static void keep_addresses_locked(const struct crn_region *region, const char *name) {
    struct ended *place = &ended[ended_count++ % ENDED_MAX];
    char *low = place->low, *high = place->high;
    __atomic_store_n(&place->low, NULL, __ATOMIC_RELAXED);
    if (low) crn_os_release(low, (size_t)(high - low));
    __atomic_store_n(&place->high, region->end, __ATOMIC_RELAXED);
    size_t length = strnlen(name, ENDED_NAME_BYTES - 1);
    memcpy(place->name, name, length);
    place->name[length] = 0;
    __atomic_store_n(&place->low, region->base, __ATOMIC_RELEASE);
}

const char *crn_space_was_heap(const void *address) {
    const char *a = address;
    for (size_t i = 0; i < ENDED_MAX; i++) {
        const char *low = __atomic_load_n(&ended[i].low, __ATOMIC_ACQUIRE);
        const char *high = __atomic_load_n(&ended[i].high, __ATOMIC_RELAXED);
        if (low && a >= low && a < high) return ended[i].name;
    }
    return NULL;
}

void crn_region_deinit(struct crn_region *region, const char *name) {
    size_t base_index = (uintptr_t)region->base >> CRN_SEGMENT_SHIFT;
    for (size_t i = 0; i < region->segment_count; i++) {
        if (region->is_taken[i])
            crn_segments_release(region, region->base + (i << CRN_SEGMENT_SHIFT), 1);
    }
    crn_lock_acquire(&space_lock);
    memset(crn_space.segment_kinds + base_index, 0, region->segment_count);
    for (size_t i = 0; i < REGION_MAX; i++) {
        if (regions[i] == region) regions[i] = NULL;
    }
    bool is_limited = crn_os_address_limit() != SIZE_MAX;
    if (!is_limited) keep_addresses_locked(region, name);
    crn_lock_release(&space_lock);
    if (is_limited) crn_os_release(region->base, (size_t)(region->end - region->base));
    crn_os_release(region->is_taken, region->segment_count * 5 + 8);
    if (region->sites) crn_os_release(region->sites, notes_bytes(region, sizeof(*region->sites)));
    if (region->births)
        crn_os_release(region->births, notes_bytes(region, sizeof(*region->births)));
}

/* ---- Sites and births --------------------------------------------------------------------------
 */

static size_t site_index(const struct crn_region *region, const char *address) {
    return (size_t)(address - region->base) >> CRN_GRANULE_SHIFT;
}

/* The sites of a segment belong into a core file as it does. */
static void set_sites_dumped(const struct crn_region *region, size_t first, size_t count,
                             bool is_dumped) {
    enum { SITES_SHIFT = CRN_SEGMENT_SHIFT - CRN_GRANULE_SHIFT };
    uint32_t *sites = region->sites + (first << SITES_SHIFT);
    crn_os_set_dumped(sites, (count << SITES_SHIFT) * sizeof(uint32_t), is_dumped);
}

static CRN_NOINLINE bool make_sites(struct crn_region *region) {
    crn_lock_acquire(&space_lock);
    if (!region->sites) {
        uint32_t *sites = crn_os_map_room(notes_bytes(region, sizeof(*region->sites)));
        __atomic_store_n(&region->sites, sites, __ATOMIC_RELEASE);
        for (size_t i = 0; sites && i < region->segment_count; i++) {
            if (region->is_taken[i]) set_sites_dumped(region, i, 1, true);
        }
    }
    crn_lock_release(&space_lock);
    return region->sites != NULL;
}

uint32_t *crn_region_site(struct crn_region *region, const void *address, bool make) {
    uint32_t *sites = __atomic_load_n(&region->sites, __ATOMIC_ACQUIRE);
    if (!sites && (!make || !make_sites(region))) return NULL;
    return region->sites + site_index(region, address);
}

static CRN_NOINLINE bool make_births(struct crn_region *region) {
    crn_lock_acquire(&space_lock);
    if (!region->births) {
        size_t bytes = notes_bytes(region, sizeof(*region->births));
        __atomic_store_n(&region->births, crn_os_map_room(bytes), __ATOMIC_RELEASE);
    }
    crn_lock_release(&space_lock);
    return region->births != NULL;
}

struct crn_birth *crn_region_birth(struct crn_region *region, const void *address, bool make) {
    struct crn_birth *births = __atomic_load_n(&region->births, __ATOMIC_ACQUIRE);
    if (!births && (!make || !make_births(region))) return NULL;
    return region->births + site_index(region, address);
}

void crn_region_sites_forget_slow(struct crn_region *region, const char *low, const char *high) {
    size_t first = site_index(region, low), end = site_index(region, high);
    memset(region->sites + first, 0, (end - first) * sizeof(uint32_t));
}

/* ---- Segments ----------------------------------------------------------------------------------
 */

static size_t find_free(const struct crn_region *region, size_t count) {
    size_t run = 0;
    for (size_t i = region->search_from; i < region->segment_count; i++) {
        run = region->is_taken[i] ? 0 : run + 1;
        if (run == count) return i + 1 - count;
    }
    return SIZE_MAX;
}

static void each_shadow(char *segment, size_t bytes, void (*apply)(void *address, size_t bytes)) {
    uintptr_t a = (uintptr_t)segment & crn_space.mask;
    apply(cairn_runtime.log_bits + (a >> 6), bytes >> 6);
    apply(crn_space.root_bits + (a >> 6), bytes >> 6);
    apply(crn_space.mark_bits + (a >> 7), bytes >> 7);
    apply(crn_space.deleted_bits + (a >> 7), bytes >> 7);
}

static bool commit_failed; /* under space_lock */
static void commit_shadow(void *address, size_t bytes) {
    if (!crn_os_commit(address, bytes)) commit_failed = true;
    crn_os_set_dumped(address, bytes, true);
}

char *crn_segments_acquire(struct crn_region *region, size_t count, enum crn_segment_kind kind,
                           bool is_huge) {
    crn_lock_acquire(&space_lock);
    char *segment = NULL;
    size_t first = find_free(region, count);
    if (first == SIZE_MAX && crn_space.reuses_late) {
        region->search_from = 0;
        first = find_free(region, count);
    }
    if (first == SIZE_MAX) goto unlock;
    char *at = region->base + (first << CRN_SEGMENT_SHIFT);
    size_t bytes = count << CRN_SEGMENT_SHIFT;
    commit_failed = false;
    each_shadow(at, bytes, commit_shadow);
    if (commit_failed || !crn_os_commit(at, bytes)) goto unlock;
    crn_os_set_dumped(at, bytes, true);
    if (region->sites) set_sites_dumped(region, first, count, true);
    if (is_huge) crn_os_huge(at, bytes);
    segment = at;
    for (size_t i = 0; i < count; i++) {
        region->is_taken[first + i] = 1;
        region->head_of[first + i] = (uint32_t)first;
        uint8_t value = (uint8_t)(i ? CRN_SEGMENT_BODY : kind);
        __atomic_store_n(&crn_space.segment_kinds[((uintptr_t)at >> CRN_SEGMENT_SHIFT) + i], value,
                         __ATOMIC_RELEASE);
        crn_checker_add_root(at + (i << CRN_SEGMENT_SHIFT), CRN_SEGMENT_BYTES);
    }
    if (first == region->search_from) region->search_from += count;
    __atomic_store_n(&region->committed_count, region->committed_count + count, __ATOMIC_RELAXED);
unlock:
    crn_lock_release(&space_lock);
    return segment;
}

void crn_segments_release(struct crn_region *region, char *segment, size_t count) {
    size_t first = (size_t)(segment - region->base) >> CRN_SEGMENT_SHIFT;
    size_t bytes = count << CRN_SEGMENT_SHIFT;
    crn_lock_acquire(&space_lock);
    for (size_t i = 0; i < count; i++) {
        crn_space.segment_kinds[((uintptr_t)segment >> CRN_SEGMENT_SHIFT) + i] = CRN_SEGMENT_NONE;
        region->is_taken[first + i] = 0;
        crn_checker_remove_root(segment + (i << CRN_SEGMENT_SHIFT), CRN_SEGMENT_BYTES);
    }
    /* What the addresses are used for next is not known; until then there is no access to them. */
    crn_checker_allow(segment, bytes);
    crn_os_decommit(segment, bytes);
    crn_os_set_dumped(segment, bytes, false);
    each_shadow(segment, bytes, crn_os_purge);
    if (crn_verdicts_are_kept()) crn_os_purge(crn_verdict_of(segment), bytes >> CRN_GRANULE_SHIFT);
    if (region->sites) {
        crn_os_purge(region->sites + (first << (CRN_SEGMENT_SHIFT - CRN_GRANULE_SHIFT)),
                     bytes / CRN_GRANULE * sizeof(uint32_t));
        set_sites_dumped(region, first, count, false);
    }
    if (region->births) {
        crn_os_purge(region->births + (first << (CRN_SEGMENT_SHIFT - CRN_GRANULE_SHIFT)),
                     bytes / CRN_GRANULE * sizeof(*region->births));
    }
    if (first < region->search_from && !crn_space.reuses_late) region->search_from = first;
    __atomic_store_n(&region->committed_count, region->committed_count - count, __ATOMIC_RELAXED);
    crn_lock_release(&space_lock);
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_MEMBER(crn_space, deleted_bits),
    CRN_MEMBER(crn_space, low),
    CRN_MEMBER(crn_space, high),
    CRN_MEMBER(crn_space, graveyard),
    CRN_MEMBER(crn_space, grave_bytes),
    CRN_MEMBER(crn_space, mask),
    CRN_MEMBER(crn_region, base),
    CRN_MEMBER(crn_region, end),
    CRN_MEMBER(crn_region, is_taken),
    CRN_MEMBER(crn_region, head_of),
    CRN_MEMBER(crn_region, committed_count),
    CRN_MEMBER(crn_region, sites),
    CRN_SIZE(ended),
    CRN_MEMBER(ended, low),
    CRN_MEMBER(ended, high),
    CRN_MEMBER(ended, name),
    CRN_NUMBER(ENDED_MAX),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(crn_space),
    CRN_TABLE(ended),
};
