/* SPDX-License-Identifier: MIT
 *
 * Extras: what few objects have. A weak cell, cleanups, pins, a finalizer, a deletion.
 *
 * An extra belongs to its object from the first of these until the object's slot is free. It may
 * own counts, each of them one that no field holds:
 *     pin_count > 0  at an epoch   <=>  is_pin_counted:  one on the object
 *     cell           at an epoch   <=>  is_cell_counted: one on the cell
 *     is_held                           one on the object, for its finalizer
 * What a thread changes between epochs is put on the news; an epoch reads the news and nothing
 * else, so its length does not depend on how many extras there are.
 *
 * Locks: an extra is guarded by its shard's lock (rank extras), the queue of calls by the calls
 * lock behind it. While the world is stopped no thread holds either.
 */
#ifndef CRN_EXTRAS_H
#define CRN_EXTRAS_H

#include "heap/heap.h"

/* Lives in the default heap whatever the target's heap is: it may outlast that. */
struct cairn_weak_cell {
    void *target; /* atomic; NULL once the target is gone */
};

/* One of an object's cleanups, and its own record in the queue: nothing is allocated at a death. */
struct crn_cleanup {
    struct crn_cleanup *next; /* of the same object, in a ring whose last one the extra names */
    struct crn_cleanup *next_queued; /* a whole ring at a time */
    void (*function)(void *argument);
    void *argument;
};

enum crn_finalizer_state {
    CRN_FINALIZER_NONE = 0, /* the type has none, or it is over */
    CRN_FINALIZER_WANTED,   /* runs when the object dies or is deleted */
    CRN_FINALIZER_QUEUED,   /* the object is dead; whoever takes the call runs it */
    CRN_FINALIZER_RUNNING,
};

struct crn_extra {
    struct crn_extra *next;        /* in its bucket, or in the shard's free list */
    struct crn_extra *next_news;   /* while is_news */
    struct crn_extra *next_queued; /* while its finalizer waits or its held count does */
    void *object;
    struct cairn_weak_cell *cell;
    struct crn_cleanup *last_cleanup; /* of the ring, NULL if none */
    void *tombstone;                  /* for fields, when the object is deleted and buried */
    uint32_t pin_count;
    uint8_t finalizer; /* enum crn_finalizer_state */
    bool is_news : 1;
    bool is_young : 1; /* no epoch has seen the object yet; then it is news as well */
    bool is_pin_counted : 1;
    bool is_cell_counted : 1;
    bool is_held : 1;
};

/* ---- extras.c: the table ---- */

struct crn_shard;
struct crn_shard *crn_extras_lock(const void *object); /* of the object's shard */
void crn_extras_unlock(struct crn_shard *shard);
struct crn_extra *crn_extra_find_locked(struct crn_shard *shard, const void *object);
/* NULL without memory. */
struct crn_extra *crn_extra_make_locked(struct crn_shard *shard, void *object,
                                        struct crn_block *block);
/* For deletions. Whoever calls holds the graves lock, or has stopped the world. Makes sure that so
 * many extras can be made without asking for memory; false if there is none. */
bool crn_extras_reserve(size_t count);
/* A deleted object gets its extra if it has none, and its tombstone if one is given. */
void crn_extra_settle(void *object, void *tombstone);
void crn_extra_remove_locked(struct crn_shard *shard, struct crn_extra *extra);
/* Something changed that the next epoch must know. */
void crn_extra_tell_locked(struct crn_shard *shard, struct crn_extra *extra);

/* Enters the runtime and locks the extra of an object, made if need be; NULL without memory. A
 * pointer that is no object is reported, outside of the section and of every lock. */
struct crn_extra *crn_extra_enter(void *object, struct crn_shard **shard, const char *caller);
void crn_extra_leave(struct crn_shard *shard);
/* Whoever told something calls this in its section, with no lock held; may collect. */
void crn_extras_pace(void);

/* While the world is stopped: takes the whole news off the shards, linked by next_news. */
struct crn_extra *crn_extras_news_take(void);
/* While the world is stopped: visits every extra; `visit` may remove the one that it is given. */
void crn_extras_each(void (*visit)(struct crn_extra *extra, void *context), void *context);
/* While the world is stopped: what fields that refer to a deleted object are to hold instead, or
 * NULL. */
void *crn_extra_tombstone(const void *object);
/* Whether its finalizer is running, on any thread. In a no-stop section with no lock held. */
bool crn_is_being_finalized(const void *object);
/* Whether an extra owns a count on its object besides those of fields and roots. */
unsigned crn_extra_counts(const void *object);

/* While the world is stopped: drops the extras of a heap that is about to end. */
struct cairn_heap;
void crn_extras_drop(struct cairn_heap *heap);

/* ---- finalize.c: deaths and calls ---- */

/* While the world is stopped: the object's last count is being taken, or it died young. Returns
 * whether it lives on for its finalizer, holding one count; otherwise its weak cell is cleared, its
 * cleanups are queued and its extra is gone. `how` is for the figures. */
enum crn_death { CRN_DEATH_BY_COUNT, CRN_DEATH_YOUNG, CRN_DEATH_BY_TRACE, CRN_DEATHS };
bool crn_extra_dies(void *object, const struct crn_block *block, enum crn_death how);
/* One that was deleted is dead: its deleted bit ends, and its heap counts it. */
void crn_deleted_dies(void *object, const struct crn_block *block, enum crn_death how);
bool crn_extra_died(void *object, const struct crn_block *block); /* by count */
/* While the world is stopped: the cell reads as NULL and the extra's count on it goes back. */
void crn_cell_release_locked(struct crn_extra *extra);
void crn_cleanups_queue_locked(struct crn_extra *extra);

/* Wakes the thread that runs finalizers and cleanups, if something waits. With no lock held. */
void crn_finalizers_signal(void);
void crn_finalizers_start_thread(void);  /* if calls wait for one; outside every section */
void crn_finalizers_forget_others(void); /* in a forked child */
/* While the world is stopped: visits the objects whose finalizers have returned since the last
 * call; each gives its held count back. */
void crn_finalized_take(void (*visit)(void *object));

/* While the world is stopped: drops what waits for finalizers of a heap that is about to end;
 * false, and nothing done, if one of them is running. */
bool crn_finalizers_purge(struct cairn_heap *heap);
/* How many finalizers have returned: a futex word; atomic. */
uint32_t *crn_finalizers_returned(void);
bool crn_is_finalizing(const struct cairn_heap *heap); /* this thread runs a finalizer of it */

#endif
