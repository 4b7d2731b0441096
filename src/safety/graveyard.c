/* SPDX-License-Identifier: MIT
 *
 * The graveyard: where tombstones point, and whose they are.
 *
 * A range of addresses that is never mapped and lies outside all heaps (space.c), in two halves
 * that mean the same: the lower for the variables that cairn_delete set, the upper for fields. Each
 * deletion takes the next stretch of a half, longer than the object, so that every offset into the
 * object and one past its end lie in one stretch. Stretches have positions that only grow; address
 * = half + position mod its size, and a stretch never wraps. Before each lies a gap, so
 * that none begins where a half does: the runtime's own words name that.  A ring keeps the last
 * RECORDS records, ascending by position, so a record is found by bisection.
 *
 * Readers take no lock, since a fault may come anywhere. A record carries the number of its
 * deletion: the writer sets it to zero, writes the record, sets it; a reader copies the record
 * between two looks at it. A record that is being overwritten is older than all others, so a search
 * that meets one goes on above it.
 */
#include "base/described.h"
#include "safety/safety.h"

#include <string.h>

enum { RECORDS = 1 << 16 };

struct record {
    uint64_t number; /* of the deletion, from 1; atomic; 0 while it is written */
    struct crn_grave grave;
};

enum { GRAVE_WORDS = sizeof(struct crn_grave) / sizeof(uint64_t) };
_Static_assert(sizeof(struct crn_grave) % sizeof(uint64_t) == 0, "graves are copied by words");

static struct crn_lock graves_lock; /* for writers */
static char *graveyard;             /* atomic; NULL until open */
static size_t half_bytes;
static uint64_t next_position;
static struct record *records;
static uint64_t last_number; /* atomic */

static bool open_locked(void) {
    if (!crn_space.graveyard) return false;
    if (!records) records = crn_meta_alloc(RECORDS * sizeof(*records));
    if (!records || !crn_listen_for_faults()) return false;
    half_bytes = crn_space.grave_bytes;
    /* Release: who sees the graveyard sees its size and its records. */
    __atomic_store_n(&graveyard, crn_space.graveyard, __ATOMIC_RELEASE);
    return true;
}

bool crn_graveyard_open(void) {
    if (__atomic_load_n(&graveyard, __ATOMIC_ACQUIRE)) return true;
    crn_lock_acquire(&graves_lock);
    bool is_open = graveyard || open_locked();
    crn_lock_release(&graves_lock);
    return is_open;
}

bool crn_graveyard_is_open(void) {
    return __atomic_load_n(&graveyard, __ATOMIC_ACQUIRE) != NULL;
}

bool crn_graveyard_has(const void *address) {
    return __atomic_load_n(&graveyard, __ATOMIC_ACQUIRE) && crn_space_is_tombstone(address);
}

char *crn_graveyard_of_field(char *tombstone) {
    return tombstone + half_bytes;
}

void crn_graveyard_stretches(const struct crn_grave *grave, struct crn_range stretches[2]) {
    char *low = graveyard + grave->position % half_bytes;
    char *high = low + crn_min(grave->bytes, half_bytes / 4) + 1;
    stretches[0] = (struct crn_range){low, high};
    stretches[1] = (struct crn_range){low + half_bytes, high + half_bytes};
}

/* Of an object larger than a quarter of a half only the beginning has its own stretch. */
static uint64_t take_stretch_locked(size_t bytes) {
    size_t stretch = CRN_GRANULE + crn_round_up(crn_min(bytes, half_bytes / 4) + 1, CRN_GRANULE);
    size_t left = half_bytes - (size_t)(next_position % half_bytes);
    if (left < stretch) next_position += left;
    uint64_t position = next_position + CRN_GRANULE;
    next_position += stretch;
    return position;
}

CRN_NO_SANITIZE static void write_record(struct record *record, const struct crn_grave *grave) {
    __atomic_store_n(&record->number, 0, __ATOMIC_RELAXED);
    CRN_FENCE();
    volatile uint64_t *to = (volatile uint64_t *)&record->grave;
    for (size_t i = 0; i < GRAVE_WORDS; i++) to[i] = ((const uint64_t *)grave)[i];
}

char *crn_graveyard_bury(struct crn_grave *grave) {
    crn_lock_acquire(&graves_lock);
    grave->position = take_stretch_locked(grave->bytes);
    uint64_t number = last_number + 1;
    struct record *record = &records[number % RECORDS];
    write_record(record, grave);
    __atomic_store_n(&record->number, number, __ATOMIC_RELEASE);
    __atomic_store_n(&last_number, number, __ATOMIC_RELEASE);
    crn_lock_release(&graves_lock);
    return graveyard + grave->position % half_bytes;
}

/* The copy may be torn; the second look at the number tells. */
CRN_NO_SANITIZE static bool read_record(uint64_t number, struct crn_grave *grave) {
    const struct record *record = &records[number % RECORDS];
    if (__atomic_load_n(&record->number, __ATOMIC_ACQUIRE) != number) return false;
    const volatile uint64_t *from = (const volatile uint64_t *)&record->grave;
    for (size_t i = 0; i < GRAVE_WORDS; i++) ((uint64_t *)grave)[i] = from[i];
    CRN_FENCE();
    return __atomic_load_n(&record->number, __ATOMIC_RELAXED) == number;
}

/* The last record at or before a position. */
static bool find_at(uint64_t position, uint64_t last, struct crn_grave *grave) {
    uint64_t low = last > RECORDS ? last - RECORDS + 1 : 1, high = last + 1;
    bool found = false;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct crn_grave seen;
        bool is_known = read_record(middle, &seen);
        if (is_known && seen.position > position) {
            high = middle;
            continue;
        }
        if (is_known) *grave = seen;
        found = is_known;
        low = middle + 1;
    }
    return found;
}

bool crn_graveyard_find(const void *address, struct crn_grave *grave, size_t *offset) {
    if (!crn_graveyard_has(address)) return false;
    uint64_t last = __atomic_load_n(&last_number, __ATOMIC_ACQUIRE);
    struct crn_grave newest;
    if (last == 0 || !read_record(last, &newest)) return false;
    /* The lap in which the address was handed out last. */
    uint64_t within = (uint64_t)((const char *)address - graveyard) % half_bytes;
    uint64_t end = newest.position + crn_min(newest.bytes, half_bytes / 4) + 1;
    uint64_t position = end - end % half_bytes + within;
    if (position >= end) {
        if (position < half_bytes) return false;
        position -= half_bytes;
    }
    if (!find_at(position, last, grave)) return false;
    *offset = (size_t)(position - grave->position);
    return *offset <= grave->bytes;
}

bool crn_graveyard_find_object(const void *object, struct crn_grave *grave) {
    size_t offset;
    if (crn_graveyard_find(object, grave, &offset)) return true; /* a tombstone */
    uint64_t last = __atomic_load_n(&last_number, __ATOMIC_ACQUIRE);
    for (uint64_t number = last; number > 0 && number + RECORDS > last; number--) {
        if (read_record(number, grave) && grave->object == object) return true;
    }
    return false;
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_SIZE(record),
    CRN_MEMBER(record, number),
    CRN_MEMBER(record, grave),
    CRN_MEMBER(crn_grave, position),
    CRN_MEMBER(crn_grave, bytes),
    CRN_MEMBER(crn_grave, object),
    CRN_MEMBER(crn_grave, type),
    CRN_MEMBER(crn_grave, allocated),
    CRN_MEMBER(crn_grave, file),
    CRN_MEMBER(crn_grave, function),
    CRN_MEMBER(crn_grave, line),
    CRN_MEMBER(crn_grave, thread_id),
    CRN_MEMBER(crn_place, file),
    CRN_MEMBER(crn_place, function),
    CRN_MEMBER(crn_place, line),
    CRN_MEMBER(crn_place, thread_id),
    CRN_NUMBER(RECORDS),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(records),
    CRN_TABLE(last_number),
};
