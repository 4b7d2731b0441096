/* SPDX-License-Identifier: MIT
 *
 * The table of extras: from an object's address to its extra.
 *
 * Sixty-four shards by page, each with its lock, its table and its free list, so that threads
 * that make finalizable objects or weak references seldom meet. A block that has such objects says
 * so (has_extras): other deaths never look here.
 *
 * A shard's table grows by linear hashing (Litwin, "Linear hashing: a new tool for file and table
 * addressing", 1980): with n buckets, 2^k <= n < 2^(k+1), an entry lies in bucket h mod 2^(k+1), or
 * in h mod 2^k where that is not below n. Adding bucket n splits bucket n - 2^k and touches no
 * other, so no insertion costs more than a few entries and a stop never waits for a rehash. Buckets
 * lie in segments that double and never move. Where memory is short a table does not grow: its
 * chains do.
 *
 * The news of a shard is a list of extras that are young or that changed since the last epoch. Only
 * an epoch takes an extra off it, and an extra is removed only while the world is stopped, after
 * the epoch took the news: so no removed extra is ever on it. (Ending a heap is the exception, and
 * unlinks.)
 */
#include "object/object.h"

#include "base/described.h"

enum {
    SHARD_BITS = 6,
    SHARDS = 1 << SHARD_BITS,
    FIRST_BUCKETS = 16,
    SEGMENTS = 28,
    BATCH = 64,
    PAGE_SHIFT = 12
};

struct crn_shard {
    _Alignas(128) struct crn_lock lock;
    struct crn_extra *news;
    struct crn_extra *free;
    size_t bucket_count, entry_count;
    struct crn_extra **segments[SEGMENTS]; /* buckets 0..15, 16..31, 32..63, 64..127, ... */
};
static struct crn_shard shards[SHARDS];

/* ---- Buckets ---- */

/* Neighbours in a page are neighbours in the table: objects that are made one after the other,
 * which is the rule, find shard, buckets and extras in the cache. Pages are scattered. */
static uint64_t hash_page(const void *object) {
    return ((uintptr_t)object >> PAGE_SHIFT) * 0x9e3779b97f4a7c15u;
}

static struct crn_shard *shard_of(const void *object) {
    return &shards[hash_page(object) >> (64 - SHARD_BITS)];
}

static struct crn_extra **bucket_at(const struct crn_shard *shard, size_t index) {
    if (index < FIRST_BUCKETS) return &shard->segments[0][index];
    uint32_t top = crn_log2(index);
    return &shard->segments[top - 3][index - ((size_t)1 << top)];
}

/* The shard has at least one bucket. */
static size_t index_of(const struct crn_shard *shard, const void *object) {
    size_t mask = ((size_t)2 << crn_log2(shard->bucket_count)) - 1;
    size_t granule = ((uintptr_t)object & (((uintptr_t)1 << PAGE_SHIFT) - 1)) >> CRN_GRANULE_SHIFT;
    size_t index = ((size_t)(hash_page(object) >> 16) + granule) & mask;
    return index < shard->bucket_count ? index : index & (mask >> 1);
}

static bool has_segment_for(struct crn_shard *shard, size_t index) {
    size_t number = index < FIRST_BUCKETS ? 0 : crn_log2(index) - 3;
    size_t count = index < FIRST_BUCKETS ? FIRST_BUCKETS : (size_t)1 << crn_log2(index);
    if (number >= SEGMENTS) return false;
    if (!shard->segments[number]) {
        shard->segments[number] = crn_meta_alloc(count * sizeof(struct crn_extra *));
    }
    return shard->segments[number] != NULL;
}

static void split_one(struct crn_shard *shard) {
    size_t added = shard->bucket_count;
    if (!has_segment_for(shard, added)) return;
    struct crn_extra **from = bucket_at(shard, added - ((size_t)1 << crn_log2(added)));
    struct crn_extra **to = bucket_at(shard, added);
    shard->bucket_count = added + 1;
    while (*from) {
        struct crn_extra *extra = *from;
        if (index_of(shard, extra->object) != added) {
            from = &extra->next;
            continue;
        }
        *from = extra->next;
        extra->next = *to;
        *to = extra;
    }
}

/* ---- Extras ---- */

struct crn_shard *crn_extras_lock(const void *object) {
    struct crn_shard *shard = shard_of(object);
    crn_lock_acquire(&shard->lock);
    return shard;
}

void crn_extras_unlock(struct crn_shard *shard) {
    crn_lock_release(&shard->lock);
}

struct crn_extra *crn_extra_find_locked(struct crn_shard *shard, const void *object) {
    if (!shard->bucket_count) return NULL;
    struct crn_extra *extra = *bucket_at(shard, index_of(shard, object));
    while (extra && extra->object != object) extra = extra->next;
    return extra;
}

void crn_extra_tell_locked(struct crn_shard *shard, struct crn_extra *extra) {
    if (extra->is_news) return;
    extra->is_news = true;
    extra->next_news = shard->news;
    shard->news = extra;
    crn_self()->news_count++;
}

/* An epoch pays for news as it does for logged stores: so they count towards the next one alike. */
void crn_extras_pace(void) {
    struct crn_thread *self = crn_self();
    if (self->news_count < CRN_LOG_ENTRIES) return;
    self->full_chunks += (uint32_t)(self->news_count / CRN_LOG_ENTRIES);
    self->news_count = 0;
    crn_hooks.logged();
}

static bool refill(struct crn_shard *shard) {
    struct crn_extra *batch = crn_meta_alloc(BATCH * sizeof(*batch));
    if (!batch) return false;
    for (size_t i = 0; i < BATCH; i++) {
        batch[i].next = shard->free;
        shard->free = &batch[i];
    }
    return true;
}

/* One of the shard's free ones, for an object that has none. */
static struct crn_extra *insert(struct crn_shard *shard, void *object) {
    if (shard->entry_count >= shard->bucket_count) split_one(shard);
    struct crn_extra *extra = shard->free;
    shard->free = extra->next;
    struct crn_extra **bucket = bucket_at(shard, index_of(shard, object));
    *extra = (struct crn_extra){.next = *bucket, .object = object};
    *bucket = extra;
    shard->entry_count++;
    /* No epoch comes between this look and the news: the caller is in a no-stop section. */
    extra->is_young = __atomic_load_n(crn_count_of(object), __ATOMIC_RELAXED) == 0;
    if (extra->is_young) crn_extra_tell_locked(shard, extra);
    return extra;
}

static bool has_buckets(struct crn_shard *shard) {
    if (shard->bucket_count) return true;
    if (!has_segment_for(shard, 0)) return false;
    shard->bucket_count = FIRST_BUCKETS;
    return true;
}

/* The fence: either a deletion sees that the block has special objects and comes here, or who made
 * the extra sees the deleted bit (delete.c). */
struct crn_extra *crn_extra_make_locked(struct crn_shard *shard, void *object,
                                        struct crn_block *block) {
    struct crn_extra *extra = crn_extra_find_locked(shard, object);
    if (!extra) {
        if ((!shard->free && !refill(shard)) || !has_buckets(shard)) return NULL;
        extra = insert(shard, object);
    }
    if (!__atomic_load_n(&block->has_special, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&block->has_special, true, __ATOMIC_RELAXED);
        __atomic_store_n(&block->has_extras, true, __ATOMIC_RELAXED);
        CRN_FULL_FENCE();
    }
    return extra;
}

static struct crn_extra *reserve;
static size_t reserve_count;

bool crn_extras_reserve(size_t count) {
    static bool has_all_buckets;
    for (size_t i = 0; !has_all_buckets && i < SHARDS; i++) {
        crn_lock_acquire(&shards[i].lock);
        bool has = has_buckets(&shards[i]);
        crn_lock_release(&shards[i].lock);
        if (!has) return false;
    }
    has_all_buckets = true;
    while (reserve_count < count) {
        struct crn_extra *batch = crn_meta_alloc(BATCH * sizeof(*batch));
        if (!batch) return false;
        for (size_t i = 0; i < BATCH; i++) {
            batch[i].next = reserve;
            reserve = &batch[i];
        }
        reserve_count += BATCH;
    }
    return true;
}

/* Removed ones go to the shards' free lists: those first, so that the reserve stays. */
void crn_extra_settle(void *object, void *tombstone) {
    struct crn_shard *shard = crn_extras_lock(object);
    struct crn_extra *extra = crn_extra_find_locked(shard, object);
    if (!extra) {
        if (!shard->free) {
            CRN_ASSERT(reserve);
            shard->free = reserve;
            reserve = reserve->next;
            reserve_count--;
            shard->free->next = NULL;
        }
        extra = insert(shard, object);
    }
    if (tombstone) extra->tombstone = tombstone;
    crn_extras_unlock(shard);
}

void crn_extra_remove_locked(struct crn_shard *shard, struct crn_extra *extra) {
    struct crn_extra **at = bucket_at(shard, index_of(shard, extra->object));
    while (*at != extra) at = &(*at)->next;
    *at = extra->next;
    shard->entry_count--;
    extra->object = NULL;
    extra->next = shard->free;
    shard->free = extra;
}

/* The report comes last: its handler may leave with longjmp. */
struct crn_extra *crn_extra_enter(void *object, struct crn_shard **shard, const char *caller) {
    crn_enter();
    struct crn_block *block = NULL;
    char *start = crn_object_of(object, &block);
    if (!start || start != object) {
        crn_leave();
        crn_fail("%s: %p is %s", caller, object, crn_why_no_object(object));
    }
    *shard = crn_extras_lock(object);
    return crn_extra_make_locked(*shard, object, block);
}

void crn_extra_leave(struct crn_shard *shard) {
    crn_extras_unlock(shard);
    crn_extras_pace();
    crn_leave();
}

/* ---- For collections ---- */

struct crn_extra *crn_extras_news_take(void) {
    struct crn_extra *all = NULL;
    for (size_t i = 0; i < SHARDS; i++) {
        while (shards[i].news) {
            struct crn_extra *extra = shards[i].news;
            shards[i].news = extra->next_news;
            extra->is_news = false;
            extra->next_news = all;
            all = extra;
        }
    }
    return all;
}

void crn_extras_each(void (*visit)(struct crn_extra *extra, void *context), void *context) {
    for (size_t i = 0; i < SHARDS; i++) {
        for (size_t k = 0; k < shards[i].bucket_count; k++) {
            for (struct crn_extra *extra = *bucket_at(&shards[i], k), *next; extra; extra = next) {
                next = extra->next;
                visit(extra, context);
            }
        }
    }
}

unsigned crn_extra_counts(const void *object) {
    struct crn_shard *shard = crn_extras_lock(object);
    const struct crn_extra *extra = crn_extra_find_locked(shard, object);
    unsigned counts = extra ? (unsigned)extra->is_held + extra->is_pin_counted : 0;
    crn_extras_unlock(shard);
    return counts;
}

void *crn_extra_tombstone(const void *object) {
    struct crn_shard *shard = crn_extras_lock(object);
    const struct crn_extra *extra = crn_extra_find_locked(shard, object);
    void *tombstone = extra ? extra->tombstone : NULL;
    crn_extras_unlock(shard);
    return tombstone;
}

bool crn_is_being_finalized(const void *object) {
    struct crn_shard *shard = crn_extras_lock(object);
    const struct crn_extra *extra = crn_extra_find_locked(shard, object);
    bool is_running = extra && extra->finalizer == CRN_FINALIZER_RUNNING;
    crn_extras_unlock(shard);
    return is_running;
}

/* ---- Ending a heap ---- */

static bool is_in(const cairn_heap *heap, const void *address) {
    const char *a = address;
    return a >= heap->core.region.base && a < heap->core.region.end;
}

static void drop(struct crn_extra *extra, void *context) {
    if (!is_in(context, extra->object)) return;
    crn_cell_release_locked(extra);
    while (extra->last_cleanup) {
        struct crn_cleanup *first = extra->last_cleanup->next;
        if (first == extra->last_cleanup)
            extra->last_cleanup = NULL;
        else
            extra->last_cleanup->next = first->next;
        crn_meta_free(first, sizeof(*first));
    }
    crn_extra_remove_locked(shard_of(extra->object), extra);
}

void crn_extras_drop(cairn_heap *heap) {
    for (size_t i = 0; i < SHARDS; i++) {
        struct crn_extra **at = &shards[i].news;
        while (*at) {
            if (is_in(heap, (*at)->object))
                *at = (*at)->next_news;
            else
                at = &(*at)->next_news;
        }
    }
    crn_extras_each(drop, heap);
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_SIZE(crn_shard),
    CRN_MEMBER(crn_shard, bucket_count),
    CRN_MEMBER(crn_shard, segments),
    CRN_MEMBER(crn_extra, next),
    CRN_MEMBER(crn_extra, object),
    CRN_MEMBER(crn_extra, cell),
    CRN_MEMBER(crn_extra, last_cleanup),
    CRN_MEMBER(crn_extra, tombstone),
    CRN_MEMBER(crn_extra, pin_count),
    CRN_MEMBER(crn_extra, finalizer),
    CRN_MEMBER(cairn_weak_cell, target),
    CRN_NUMBER(SHARDS),
    CRN_NUMBER(FIRST_BUCKETS),
    CRN_NUMBER(CRN_FINALIZER_WANTED),
    CRN_NUMBER(CRN_FINALIZER_QUEUED),
    CRN_NUMBER(CRN_FINALIZER_RUNNING),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(shards),
};
