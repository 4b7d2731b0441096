/* SPDX-License-Identifier: MIT
 *
 * Allocation sites. A file compiled with CAIRN_SITES gives each allocation a static site and notes
 * it for the object that it got; others note nothing.
 *
 * A note is a word in a volatile shadow of the object's region, one word per 16 bytes: 20 bits of
 * site, 12 bits of thread, each a number given at first use. The shadow is reserved at the region's
 * first note and committed as it is touched; its pages go back with the segments. Slots that are
 * handed out again are forgotten first (crn_region_sites_forget), so a note is never that of an
 * earlier object. Numbers that do not fit are noted as unknown.
 */
#include "object/sites.h"

#include "base/described.h"
#include "object/object.h"

#include <stdio.h>

enum { SITE_BITS = 20, SITES_MAX = 1 << SITE_BITS, THREADS_MAX = 1 << (32 - SITE_BITS) };

static struct crn_lock sites_lock;
static struct cairn_site **sites; /* atomic; by number, from 1 */
static uint32_t site_count = 1;
static int thread_ids[THREADS_MAX]; /* by number, from 1 */
static uint32_t thread_count = 1;
static CAIRN_THREAD_LOCAL_ uint32_t thread_number __attribute__((tls_model("initial-exec")));

static uint32_t number_of_site(struct cairn_site *site) {
    uint32_t number = __atomic_load_n(&site->number, __ATOMIC_ACQUIRE);
    if (number) return number;
    crn_lock_acquire(&sites_lock);
    if (!sites) {
        __atomic_store_n(&sites, crn_os_map(SITES_MAX * sizeof(struct cairn_site *)),
                         __ATOMIC_RELEASE);
    }
    number = site->number;
    if (!number && sites && site_count < SITES_MAX) {
        number = site_count++;
        sites[number] = site;
        __atomic_store_n(&site->number, number, __ATOMIC_RELEASE);
    }
    crn_lock_release(&sites_lock);
    return number;
}

static uint32_t number_of_thread(void) {
    if (thread_number) return thread_number;
    crn_lock_acquire(&sites_lock);
    if (thread_count < THREADS_MAX) {
        thread_number = thread_count++;
        thread_ids[thread_number] = crn_os_thread_id();
    }
    crn_lock_release(&sites_lock);
    return thread_number;
}

bool crn_sites_lack_room;

void cairn_site_note_(void *object, struct cairn_site *site) {
    crn_enter();
    struct crn_block *block = crn_block_of_interior(object);
    uint32_t *note = block ? crn_region_site(&block->heap->region, object, true) : NULL;
    if (note)
        *note = number_of_site(site) | number_of_thread() << SITE_BITS;
    else if (block)
        __atomic_store_n(&crn_sites_lack_room, true, __ATOMIC_RELAXED);
    crn_leave();
}

struct crn_place crn_site_of(const void *object) {
    struct crn_block *block = crn_block_of_interior(object);
    return block ? crn_site_noted(&block->heap->region, object)
                 : (struct crn_place){NULL, NULL, 0, 0};
}

struct crn_place crn_site_noted(struct crn_region *region, const void *object) {
    struct crn_place place = {NULL, NULL, 0, 0};
    const uint32_t *note = crn_region_site(region, object, false);
    struct cairn_site *const *known = __atomic_load_n(&sites, __ATOMIC_ACQUIRE);
    uint32_t number = note && known ? *note & (SITES_MAX - 1) : 0;
    if (!number) return place;
    const struct cairn_site *site = known[number];
    return (struct crn_place){site->file, site->function, site->line,
                              thread_ids[*note >> SITE_BITS]};
}

void crn_place_describe(const struct crn_place *place, char *text, size_t bytes) {
    if (place->file) {
        snprintf(text, bytes, "%s:%d in %s, by thread %d", place->file, place->line,
                 place->function, place->thread_id);
        return;
    }
    if (place->thread_id) {
        snprintf(text, bytes, "by thread %d", place->thread_id);
        return;
    }
    bool lacks_room = __atomic_load_n(&crn_sites_lack_room, __ATOMIC_RELAXED);
    snprintf(text, bytes, "not recorded; %s",
             lacks_room ? "no address space for sites"
                        : "compile with -DCAIRN_SITES or run with CAIRN_STACKS=1");
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_MEMBER(cairn_site, file),
    CRN_MEMBER(cairn_site, function),
    CRN_MEMBER(cairn_site, line),
    CRN_NUMBER(SITE_BITS),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(sites),
    CRN_TABLE(thread_ids),
};
