/* SPDX-License-Identifier: MIT
 *
 * The graveyard: where tombstones point, and whose they are.
 *
 * A range of addresses that is never mapped and lies outside all heaps (space.c), in two halves
 * that mean the same: the lower for the variables that cairn_delete set, the upper for fields. Each
 * deletion takes the next stretch of a half, longer than the object, so that every offset into the
 * object and one past its end lie in one stretch. Stretches have positions that only grow; address
 * = half + position mod its size, and a stretch never wraps. Before each lies a gap, so
 * that none begins where a half does: the runtime's own words name that.
 *
 * Deletions are recorded in chunks. A thread owns one and buries in it without a lock or a locked
 * instruction: it fills in the record, then says that there is one more. A chunk has positions of
 * its own, of which it gets more when the next stretch does not fit. Chunks are numbered; a ring of
 * them keeps the last RECORDS deletions and more, and who needs one writes over the oldest that
 * nobody owns and that is settled.
 *
 * Settling. A record is also the news of its deletion: the next epoch, when young objects have been
 * judged, makes an extra for each deleted object that lives on (so that it dies through extras.c,
 * and a trace finds its tombstone) and closes the account of the others. Until then the deleted bit
 * is all there is, and it is enough: no slot is free again before that epoch, since what a program
 * has in its hands in the middle of an epoch has a count, or is young. What settling needs is
 * reserved when the chunk is handed out, so an epoch never lacks memory for it. Where deletions
 * come faster than epochs, who needs a chunk settles the oldest itself.
 *
 * Readers take no lock, since a fault may come anywhere. The number of a chunk is zero while it is
 * being opened; a reader copies a record between two looks at the number. They look through all
 * chunks: it is for a report.
 *
 * Lock: graves_lock, for opening and settling. Inside it the extras locks and that of the runtime's
 * own memory.
 */
#include "safety/safety.h"

#include "base/described.h"

#include <string.h>

enum { GRAVES = 32, RECORDS = 1 << 16, CHUNKS = RECORDS / GRAVES + 1 };

struct crn_graves {
    uint64_t number;                /* from 1; atomic; 0 while it is being opened */
    uint64_t next, end;             /* positions that are its own and not used */
    const struct crn_thread *owner; /* NULL: none any more */
    struct crn_graves *next_listed; /* of those with an owner, or not settled; or of the left */
    uint32_t used;                  /* records; written by the owner, atomic */
    uint32_t settled;
    bool is_listed;
    struct crn_graves *next_more;
    struct crn_grave graves[GRAVES];
};

static struct crn_lock graves_lock;
static char *graveyard; /* atomic; NULL until open */
static size_t half_bytes;
static uint64_t next_position;
static struct crn_graves *chunks;
static uint64_t last_number;
static struct crn_graves *listed, *left; /* left: not full, by threads that ended */
static size_t listed_count;
static size_t waiting_count;   /* of the listed: without an owner */
static uint64_t settled_since; /* the last epoch */
/* Beyond the ring, where more threads own one than it has: atomic, and only ever longer. */
static struct crn_graves *more;

enum { GRAVE_WORDS = sizeof(struct crn_grave) / sizeof(uint64_t) };
_Static_assert(sizeof(struct crn_grave) % sizeof(uint64_t) == 0, "graves are copied by words");

static bool open_locked(void) {
    if (!crn_space.graveyard) return false;
    if (!chunks) chunks = crn_meta_alloc(CHUNKS * sizeof(*chunks));
    if (!chunks || !crn_listen_for_faults()) return false;
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

static char *tombstone_of(const struct crn_grave *grave) {
    return graveyard + grave->position % half_bytes;
}

void crn_graveyard_stretches(const struct crn_grave *grave, struct crn_range stretches[2]) {
    char *low = tombstone_of(grave);
    char *high = low + crn_min(grave->bytes, half_bytes / 4) + 1;
    stretches[0] = (struct crn_range){low, high};
    stretches[1] = (struct crn_range){low + half_bytes, high + half_bytes};
}

/* ---- Settling -----------------------------------------------------------------------------------
 */

/* Most die young: an epoch, which has judged the young ones, only closes their account. One that
 * had an extra may have died with it a moment ago. */
static void settle_grave(const struct crn_grave *grave, bool is_epoch) {
    struct crn_block *block = crn_block_of_start(grave->object);
    cairn_heap *heap = (cairn_heap *)block->heap;
    bool is_deleted = crn_bit_get(crn_deleted_bit(grave->object));
    if (is_epoch && is_deleted && *crn_count_of(grave->object) == 0) {
        heap->core.deleted_objects++; /* the world stands still */
        crn_deleted_dies(grave->object, block, CRN_DEATH_YOUNG);
        return;
    }
    __atomic_fetch_add(&heap->waiting_objects, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&heap->core.deleted_objects, 1, __ATOMIC_RELAXED);
    if (!is_deleted) return;
    void *tombstone = grave->has_extra ? NULL : crn_graveyard_of_field(tombstone_of(grave));
    crn_extra_settle(grave->object, tombstone);
}

static void settle_chunk(struct crn_graves *chunk, bool is_epoch) {
    uint32_t used = __atomic_load_n(&chunk->used, __ATOMIC_ACQUIRE);
    settled_since += used - chunk->settled;
    for (uint32_t i = chunk->settled; i < used; i++) {
        CRN_PREFETCH_READ(crn_count_of(chunk->graves[i].object));
    }
    for (; chunk->settled < used; chunk->settled++) {
        settle_grave(&chunk->graves[chunk->settled], is_epoch);
    }
}

/* Settles what is to be settled, all of it in a stop and what nobody owns otherwise, and takes off
 * the list what is then of no interest. */
static void settle_listed(bool is_stopped, bool is_epoch) {
    for (struct crn_graves **at = &listed, *chunk; (chunk = *at) != NULL;) {
        bool is_gone = is_stopped && chunk->owner &&
                       __atomic_load_n(&chunk->owner->state, __ATOMIC_ACQUIRE) == CRN_THREAD_GONE;
        if (is_gone) {
            chunk->owner = NULL;
            waiting_count++;
        }
        if (is_stopped || !chunk->owner) settle_chunk(chunk, is_epoch);
        if (chunk->owner) {
            at = &chunk->next_listed;
            continue;
        }
        *at = chunk->next_listed;
        chunk->is_listed = false;
        listed_count--;
        waiting_count--;
        if (chunk->used == GRAVES) continue;
        chunk->next_listed = left;
        left = chunk;
    }
}

uint64_t crn_deletions_settle(bool is_epoch) {
    if (listed) settle_listed(true, is_epoch);
    uint64_t settled = settled_since;
    settled_since = 0;
    return settled;
}

void crn_deletions_count(const cairn_heap *heap, uint64_t *deleted, uint64_t *waiting) {
    uint64_t count = 0;
    crn_lock_acquire(&graves_lock);
    for (const struct crn_graves *chunk = listed; chunk; chunk = chunk->next_listed) {
        uint32_t used = __atomic_load_n(&chunk->used, __ATOMIC_ACQUIRE);
        for (uint32_t i = chunk->settled; i < used; i++) {
            const char *object = chunk->graves[i].object;
            count += object >= heap->core.region.base && object < heap->core.region.end;
        }
    }
    /* Inside: what is settled meanwhile would be in both. */
    *deleted = __atomic_load_n(&heap->core.deleted_objects, __ATOMIC_RELAXED) + count;
    *waiting = __atomic_load_n(&heap->waiting_objects, __ATOMIC_RELAXED) + count;
    crn_lock_release(&graves_lock);
}

/* ---- Burying ------------------------------------------------------------------------------------
 */

/* Of an object larger than a quarter of a half only the beginning has its own stretch. */
CRN_INLINE size_t stretch_of(size_t bytes) {
    return CRN_GRANULE + crn_round_up(crn_min(bytes, half_bytes / 4) + 1, CRN_GRANULE);
}

static void open_chunk(struct crn_graves *chunk, uint64_t number) {
    __atomic_store_n(&chunk->number, 0, __ATOMIC_RELAXED);
    CRN_FENCE();
    chunk->settled = 0;
    __atomic_store_n(&chunk->used, 0, __ATOMIC_RELAXED);
    /* Release: who sees the number sees no record of before. */
    __atomic_store_n(&chunk->number, number, __ATOMIC_RELEASE);
}

/* For as many of the same size as there are records; a half has room for all chunks, twice. */
static CRN_NOINLINE void extend(struct crn_graves *chunk, size_t stretch) {
    size_t span = crn_max(stretch, crn_min(GRAVES * stretch, half_bytes / (2 * CHUNKS)));
    crn_lock_acquire(&graves_lock);
    size_t left_in_half = half_bytes - (size_t)(next_position % half_bytes);
    if (left_in_half < span) next_position += left_in_half;
    chunk->next = next_position;
    chunk->end = next_position += span;
    crn_lock_release(&graves_lock);
}

/* The oldest that may be written over, or NULL: what is listed has an owner, or is not settled. */
static struct crn_graves *find_free(void) {
    for (size_t tries = 0; tries < CHUNKS; tries++) {
        struct crn_graves *chunk = &chunks[++last_number % CHUNKS];
        if (!chunk->is_listed) return chunk;
    }
    last_number++;
    struct crn_graves *chunk = more;
    while (chunk && chunk->is_listed) chunk = chunk->next_more;
    return chunk;
}

static struct crn_graves *make_one_more(void) {
    struct crn_graves *chunk = crn_meta_alloc(sizeof(*chunk));
    if (!chunk) return NULL;
    chunk->next_more = more;
    __atomic_store_n(&more, chunk, __ATOMIC_RELEASE);
    return chunk;
}

/* What a thread that has ended did not use up. */
static struct crn_graves *take_left(void) {
    struct crn_graves *chunk = left;
    if (chunk) left = chunk->next_listed;
    return chunk;
}

/* When none is left: so what is found is on no list. */
static struct crn_graves *take_fresh(void) {
    struct crn_graves *chunk = find_free();
    if (!chunk) {
        settle_listed(false, false);
        chunk = find_free();
    }
    if (!chunk) chunk = make_one_more();
    if (!chunk) return NULL;
    open_chunk(chunk, last_number);
    return chunk;
}

static struct crn_graves *take_chunk_locked(struct crn_thread *self) {
    if (!crn_extras_reserve((listed_count + 1) * GRAVES)) return NULL;
    struct crn_graves *old = self->graves;
    if (old) {
        old->owner = NULL;
        waiting_count++;
    }
    self->graves = NULL;
    struct crn_graves *chunk = take_left();
    if (!chunk) chunk = take_fresh();
    if (!chunk) return NULL;
    chunk->owner = self;
    chunk->next_listed = listed;
    chunk->is_listed = true;
    listed = chunk;
    listed_count++;
    self->graves = chunk;
    return chunk;
}

static CRN_NOINLINE struct crn_graves *take_chunk(struct crn_thread *self) {
    crn_lock_acquire(&graves_lock);
    struct crn_graves *chunk = take_chunk_locked(self);
    /* Half of the ring waits for an epoch: as much news as any budget has. */
    bool is_crowded = waiting_count > CHUNKS / 2;
    crn_lock_release(&graves_lock);
    self->news_count += is_crowded ? (size_t)RECORDS * 64 : GRAVES;
    return chunk;
}

struct crn_grave *crn_graveyard_dig(struct crn_thread *self, size_t bytes) {
    CAIRN_REQUIRE(!self->is_digging,
                  "cairn_delete in a signal handler that interrupts cairn_delete");
    struct crn_graves *chunk = self->graves;
    if (CRN_UNLIKELY(!chunk || chunk->used == GRAVES)) {
        chunk = take_chunk(self);
        if (!chunk) return NULL;
    }
    size_t stretch = stretch_of(bytes);
    if (CRN_UNLIKELY(stretch > chunk->end - chunk->next)) extend(chunk, stretch);
    self->is_digging = true;
    struct crn_grave *grave = &chunk->graves[chunk->used];
    grave->position = chunk->next + CRN_GRANULE;
    grave->bytes = bytes;
    return grave;
}

char *crn_graveyard_bury(struct crn_thread *self, const struct crn_grave *grave) {
    struct crn_graves *chunk = self->graves;
    self->is_digging = false;
    chunk->next += stretch_of(grave->bytes);
    __atomic_store_n(&chunk->used, chunk->used + 1, __ATOMIC_RELEASE);
    for (size_t line = 0; line < sizeof(*grave); line += CRN_CACHE_LINE) {
        CRN_PREFETCH((const char *)(grave + 1) + line);
    }
    return tombstone_of(grave);
}

size_t crn_graveyard_excess(void) {
    size_t count = 0;
    const struct crn_graves *chunk = __atomic_load_n(&more, __ATOMIC_ACQUIRE);
    for (; chunk; chunk = chunk->next_more) count++;
    return count;
}

/* ---- Finding ------------------------------------------------------------------------------------
 */

/* What was found counts if it still is the same chunk afterwards. */
struct search {
    const void *object;      /* or */
    uint64_t within;         /* a half */
    struct crn_grave *grave; /* the best so far */
    uint64_t best, best_number;
    bool has_found;
};

/* The copy may be torn; the second look at the number tells. */
typedef uint64_t __attribute__((may_alias)) any_word;
CRN_NO_SANITIZE static void copy_grave(const struct crn_grave *from, struct crn_grave *to) {
    const volatile any_word *words = (const volatile any_word *)from;
    for (size_t i = 0; i < GRAVE_WORDS; i++) ((any_word *)to)[i] = words[i];
}

/* Of several laps the last. */
CRN_NO_SANITIZE static bool search_address(const struct crn_graves *chunk, uint32_t used,
                                           struct search *search, struct crn_grave *seen) {
    bool has_one = false;
    for (uint32_t i = 0; i < used; i++) {
        struct crn_grave copy;
        copy_grave(&chunk->graves[i], &copy);
        uint64_t begin = copy.position % half_bytes;
        uint64_t offset = search->within - begin + (search->within < begin ? half_bytes : 0);
        if (offset > copy.bytes || copy.position < search->best) continue;
        search->best = copy.position;
        *seen = copy;
        has_one = true;
    }
    return has_one;
}

/* What is not settled is the last deletion of its object; else the clock tells. */
CRN_NO_SANITIZE static bool search_object(const struct crn_graves *chunk, uint32_t used,
                                          struct search *search, struct crn_grave *seen) {
    const volatile struct crn_graves *now = chunk;
    bool has_one = false;
    for (uint32_t i = 0; i < used; i++) {
        struct crn_grave copy;
        copy_grave(&chunk->graves[i], &copy);
        uint64_t rank = i >= now->settled ? UINT64_MAX : copy.deleted_ns;
        bool is_better =
            rank > search->best || (rank == search->best && now->number >= search->best_number);
        if (copy.object != search->object || !is_better) continue;
        search->best = rank;
        search->best_number = now->number;
        *seen = copy;
        has_one = true;
    }
    return has_one;
}

static void search_chunk(const struct crn_graves *chunk, struct search *search) {
    uint64_t number = __atomic_load_n(&chunk->number, __ATOMIC_ACQUIRE);
    uint32_t used = __atomic_load_n(&chunk->used, __ATOMIC_ACQUIRE);
    if (number == 0 || used > GRAVES) return;
    struct search trial = *search;
    struct crn_grave seen;
    bool has_one = search->object ? search_object(chunk, used, &trial, &seen)
                                  : search_address(chunk, used, &trial, &seen);
    CRN_FENCE();
    if (!has_one || __atomic_load_n(&chunk->number, __ATOMIC_RELAXED) != number) return;
    search->best = trial.best;
    search->best_number = trial.best_number;
    search->has_found = true;
    *search->grave = seen;
}

static bool search_all(struct search *search) {
    for (size_t i = 0; i < CHUNKS; i++) search_chunk(&chunks[i], search);
    const struct crn_graves *chunk = __atomic_load_n(&more, __ATOMIC_ACQUIRE);
    for (; chunk; chunk = chunk->next_more) search_chunk(chunk, search);
    return search->has_found;
}

bool crn_graveyard_find(const void *address, struct crn_grave *grave, size_t *offset) {
    if (!crn_graveyard_has(address)) return false;
    uint64_t within = (uint64_t)((const char *)address - graveyard) % half_bytes;
    struct search search = {.within = within, .grave = grave};
    if (!search_all(&search)) return false;
    *offset = (size_t)(within - grave->position % half_bytes);
    return true;
}

bool crn_graveyard_find_object(const void *object, struct crn_grave *grave) {
    size_t offset;
    if (!crn_graveyard_is_open()) return false;
    if (crn_graveyard_find(object, grave, &offset)) return true; /* a tombstone */
    struct search search = {.object = object, .grave = grave};
    return search_all(&search);
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_SIZE(crn_graves),
    CRN_MEMBER(crn_graves, number),
    CRN_MEMBER(crn_graves, used),
    CRN_MEMBER(crn_graves, settled),
    CRN_MEMBER(crn_graves, next_more),
    CRN_MEMBER(crn_graves, graves),
    CRN_SIZE(crn_grave),
    CRN_MEMBER(crn_grave, position),
    CRN_MEMBER(crn_grave, bytes),
    CRN_MEMBER(crn_grave, object),
    CRN_MEMBER(crn_grave, type),
    CRN_MEMBER(crn_grave, allocated),
    CRN_MEMBER(crn_grave, file),
    CRN_MEMBER(crn_grave, function),
    CRN_MEMBER(crn_grave, line),
    CRN_MEMBER(crn_grave, thread_id),
    CRN_MEMBER(crn_grave, deleted_ns),
    CRN_MEMBER(crn_place, file),
    CRN_MEMBER(crn_place, function),
    CRN_MEMBER(crn_place, line),
    CRN_MEMBER(crn_place, thread_id),
    CRN_NUMBER(CHUNKS),
    CRN_NUMBER(GRAVES),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(chunks),
    CRN_TABLE(more),
    CRN_TABLE(last_number),
};
