/* SPDX-License-Identifier: MIT
 *
 * What is loaded: the data of loaded objects and each thread's copies of their thread-locals.
 *
 * The list is made while the program runs, for making it takes the loader's lock; it is used while
 * the world is stopped, when nobody may wait for that lock. In between something may be loaded or
 * unloaded. So the coordinator looks once the world is stopped whether the list is still that of
 * the loader (os/loaded.c says how, without a lock); if not it lets the world go, has a new list
 * made, and stops the world again. A program that loads nothing pays a glance per collection.
 *
 * Whoever makes a list holds no lock of ours and says that it waits (BLOCKED): a thread that was
 * stopped within the loader may hold the loader's lock until the world goes on.
 */
#include "gc/gc.h"

#include <stdlib.h>

/* Segments closer than this are asked about in one system call. */
enum { CLUSTER_GAP = 4 << 20 };

struct module {
    size_t id, bytes;
    bool is_static; /* lies where every thread's stack or static thread-locals are scanned anyway */
};

struct row {
    void *items;
    size_t count, capacity;
};

struct crn_images {
    struct row segments; /* struct crn_range, ascending */
    struct row modules;  /* struct module */
    struct row links;    /* const void *: the loader's entries */
};

static struct crn_images *images; /* under the world lock */

/* ---- Making -----------------------------------------------------------------------------------
 */

static void *row_push(struct row *row, size_t item_size) {
    if (row->count == row->capacity) {
        size_t capacity = row->capacity ? row->capacity * 2 : 64;
        char *grown = crn_meta_alloc(capacity * item_size);
        CAIRN_REQUIRE(grown, "out of memory: cannot list the loaded objects");
        for (size_t i = 0; i < row->count * item_size; i++) grown[i] = ((char *)row->items)[i];
        crn_meta_free(row->items, row->capacity * item_size);
        row->items = grown;
        row->capacity = capacity;
    }
    return (char *)row->items + row->count++ * item_size;
}

static void row_free(struct row *row, size_t item_size) {
    crn_meta_free(row->items, row->capacity * item_size);
}

static void note_segment(char *low, char *high, void *context) {
    struct crn_images *to = context;
    *(struct crn_range *)row_push(&to->segments, sizeof(struct crn_range)) =
        (struct crn_range){low, high};
}

static void note_locals(size_t module, size_t bytes, char *here, void *context) {
    struct crn_images *to = context;
    struct crn_thread *self = crn_self();
    bool is_static = (here >= self->stack_low && here < self->stack_high) ||
                     (here >= self->static_locals.low && here < self->static_locals.high);
    *(struct module *)row_push(&to->modules, sizeof(struct module)) =
        (struct module){module, bytes, is_static};
}

static void note_link(const void *link, void *context) {
    struct crn_images *to = context;
    *(const void **)row_push(&to->links, sizeof(void *)) = link;
}

static int compare_segments(const void *left, const void *right) {
    const struct crn_range *a = left, *b = right;
    return (a->low > b->low) - (a->low < b->low);
}

static void images_free(struct crn_images *old) {
    if (!old) return;
    row_free(&old->segments, sizeof(struct crn_range));
    row_free(&old->modules, sizeof(struct module));
    row_free(&old->links, sizeof(void *));
    crn_meta_free(old, sizeof(*old));
}

struct crn_images *crn_images_gather(void) {
    crn_wait_begin();
    struct crn_images *fresh = crn_meta_alloc(sizeof(*fresh));
    CAIRN_REQUIRE(fresh, "out of memory: cannot list the loaded objects");
    const struct crn_os_images_visit visit = {note_segment, note_locals, note_link, fresh};
    crn_os_images(&visit);
    qsort(fresh->segments.items, fresh->segments.count, sizeof(struct crn_range), compare_segments);
    crn_wait_end();
    return fresh;
}

void crn_images_install(struct crn_images *fresh) {
    images_free(images);
    images = fresh;
}

bool crn_images_are_current(void) {
    return images && crn_os_images_are(images->links.items, images->links.count);
}

/* ---- Scanning ---------------------------------------------------------------------------------
 */

struct cluster {
    const struct crn_range *at, *end; /* segments, ascending; those before `at` are done */
    struct crn_worker *worker;
};

/* Touched pages come in ascending order too. */
static void scan_cut(char *low, char *high, void *context) {
    struct cluster *cluster = context;
    while (cluster->at < cluster->end && cluster->at->high <= low) cluster->at++;
    for (const struct crn_range *of = cluster->at; of < cluster->end && of->low < high; of++) {
        crn_scan_range(of->low > low ? of->low : low, of->high < high ? of->high : high,
                       cluster->worker);
    }
}

void crn_images_scan_data(struct crn_worker *worker) {
    const struct crn_range *segments = images->segments.items;
    size_t count = images->segments.count;
    for (size_t i = 0, next; i < count; i = next) {
        next = i + 1;
        while (next < count && segments[next].low - segments[next - 1].high < CLUSTER_GAP) next++;
        struct cluster cluster = {&segments[i], &segments[next], worker};
        crn_os_touched(segments[i].low, segments[next - 1].high, true, scan_cut, &cluster);
    }
}

bool crn_images_have_data(const void *address) {
    const struct crn_range *segments = images->segments.items;
    const char *a = address;
    for (size_t i = 0; i < images->segments.count; i++) {
        if (a >= segments[i].low && a < segments[i].high) return true;
    }
    return false;
}

void crn_images_scan_locals(const struct crn_thread *thread, struct crn_worker *worker) {
    crn_scan_around_sanitizer(thread, thread->static_locals.low, thread->static_locals.high,
                              worker);
    const struct module *modules = images->modules.items;
    for (size_t i = 0; i < images->modules.count; i++) {
        if (modules[i].is_static) continue;
        char *low = crn_os_thread_locals(thread->anchor, modules[i].id);
        if (low) crn_scan_range(low, low + modules[i].bytes, worker);
    }
}
