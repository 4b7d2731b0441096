/* SPDX-License-Identifier: MIT
 *
 * The collector: stopping, epochs, traces, when to run them.
 *
 * One thread, the coordinator, holds the world lock and does a collection while all others stand
 * still. Right after an epoch, for every mature object below 255: count == fields that refer to it
 * + rooted + what its extra owns (pinned, held for its finalizer, a living target's cell) + queued
 * decrements
 */
#ifndef CRN_GC_H
#define CRN_GC_H

#include "object/object.h"

/* A growing row of pointers in address space reserved at the start, so that pushing cannot fail
 * where a collection could not go on. */
struct crn_stack {
    void **items;
    size_t count, capacity;
};

struct crn_histogram {
    uint64_t buckets[64 * 8]; /* eight per doubling of nanoseconds */
    uint64_t total, min, max;
};

struct crn_scanned {
    uint64_t bytes;
    unsigned threads;
};

/* A block that a worker has promoted objects of in this epoch, and what it needs to know of it for
 * the next one. */
enum { CRN_NEAR = 8 };
struct crn_near {
    char *low; /* its young slots; `bytes` of them, 0: no block */
    size_t bytes;
    uintptr_t fields_low; /* fields that lie here may refer there; others are checked */
    size_t fields_bytes;
    uint64_t map; /* of the type, where the fields are plain */
    struct crn_block *block;
    uint32_t reciprocal, slot_size;
    uint32_t promoted; /* and not yet in the block's own number */
    bool is_scanned, is_plain;
};

/* Who counts: the coordinator, and stopped threads that volunteer. */
enum { CRN_WORKERS_MAX = 8 };
struct crn_worker {
    _Alignas(128) struct crn_stack grey; /* objects whose fields are to be counted or marked */
    struct crn_stack decrements;         /* objects to take one count from */
    struct crn_stack found; /* words by the scan of the roots, objects by that of an untyped page */
    struct crn_scanned scanned;
    struct crn_thread *thread; /* whose log it takes first */
    struct crn_heap *heap;     /* of the figures */
    uint64_t freed_objects, freed_bytes;
    uint64_t entries;               /* of the log, this epoch */
    struct crn_near near[CRN_NEAR]; /* by the low bits of the block's number; see count.c */
};

struct crn_team {
    struct crn_lock lock;
    struct crn_stack pool; /* work given away */
    void (*job)(struct crn_worker *worker);
    unsigned seat_count;
    uint32_t seats_taken; /* atomic; a bit per volunteer */
    uint32_t working;     /* atomic; volunteers within a job */
    uint32_t hungry;      /* atomic; workers that wait for work */
    bool is_open;         /* atomic */
    bool is_tracing;      /* atomic */
    bool has_source;      /* atomic; there may be work outside of lists and pool: logs, segments */
};
extern struct crn_team crn_team;

struct crn_gc {
    struct crn_lock world;
    const struct cairn_thread *last_holder; /* of `world`; atomic; compared only */
    int cancel_state;                       /* of the thread that holds `world`, as it was before */
    uint64_t released_ns;                   /* when it let the others go */
    uint32_t standing;                      /* those that wait for the end of a stop; atomic */
    struct crn_worker workers[CRN_WORKERS_MAX]; /* the coordinator's first */
    struct crn_stack deferred;                  /* for one worker alone; see death.c */
    /* Large objects that die piece by piece, and those that are done; see large.c. */
    struct crn_stack dismantled, emptied;
    bool has_stale_pages;              /* atomic while several work */
    bool has_unheld_pages;             /* some page had no memory for its list */
    char *dismantling;                 /* taken from `dismantled`, or NULL */
    char *dismantled_to, *purged_from; /* how far that has got */
    size_t released_rows;              /* of its untyped pages */
    struct crn_lock slice;             /* who applies decrements between epochs */
    struct crn_stack husks;            /* dead, empty, in blocks to be settled; under `slice` */
    struct crn_stack postponed;        /* decrements that wait for a stop; under `slice` */
    bool has_backlog;                  /* atomic; decrements wait for slices */
    bool is_stop_near;                 /* atomic; slices rest; see reclaim.c */
    bool has_spare_processor;  /* fewer threads ran at the last stop than there are processors */
    bool is_short;             /* atomic; a trace is wanted by a request that found no memory */
    bool is_behind;            /* something was still queued when the last epoch began */
    bool is_swamped;           /* and much of what that one queued: pauses help, and come sooner */
    struct crn_stack roots[2]; /* rooted in even and in odd epochs */
    unsigned parity;           /* of the last epoch */
    uint64_t deadline_ns;      /* when decrementing stops; 0: when all are done */
    uint64_t epoch, trace_number;
    uint64_t started_ns, program_ns;
    unsigned processor_count;
    /* One epoch serves all heaps: the environment's settings and those of each heap's options; the
     * shortest goal counts. Since the last collection began. */
    uint64_t pause_goal_ns;
    bool is_tracing, is_verifying;
    /* Pacing; see pace.c. */
    uint64_t budget_bytes, budget_entries; /* atomic reads by allocators */
    uint64_t left_bytes;                   /* atomic; by threads that ended since the last epoch */
    uint64_t logged_entries;               /* atomic; full chunks since the last epoch */
    uint64_t trace_at_bytes, trace_at_used, trace_multiple;
    double root_ns;                        /* of the last epochs, smoothed */
    double last_root_ns, last_counting_ns; /* of the last epoch */
    /* Figures of the epoch under way. */
    uint64_t promoted_bytes, freed_bytes; /* atomic */
    struct crn_histogram pauses;
    uint64_t trace_ns_max, pause_total_ns, root_total_ns;
};
extern struct crn_gc crn_gc;

CRN_INLINE void crn_push(struct crn_stack *stack, void *item) {
    CAIRN_REQUIRE(stack->count < stack->capacity, "the collector's worklist is full");
    stack->items[stack->count++] = item;
}

/* Worklists are taken in batches, so that memory comes for several objects at once. One that may
 * have many fields ends its batch: what lies behind it goes back first, under what its fields lead
 * to. So children are taken while they are in the cache, no list holds the fields of a batch of
 * such objects, other workers can be given the rest, and a slice comes to its next look for a stop.
 */
enum { CRN_WIDE_BYTES = 4096 };
CRN_INLINE bool crn_is_wide(const struct crn_block *block) {
    return block->content == CRN_EXACT && (block->is_sized || !block->type->is_mapped) &&
           crn_object_bytes(block) >= CRN_WIDE_BYTES;
}
CRN_INLINE void crn_put_back(struct crn_stack *stack, char *const *items, unsigned count) {
    for (unsigned i = 0; i < count; i++) crn_push(stack, items[i]);
}

/* stop.c: the caller holds the world lock and is in a no-stop section. */
void crn_world_stop(void);
void crn_world_start(void);
void crn_stop_if_asked(void);
/* cairn_blocking_begin and _end for the runtime itself, in a section, with no lock held. */
void crn_wait_begin(void);
void crn_wait_end(void);
bool crn_stop_init(void);
extern bool crn_stop_is_installed; /* the handler; from then on its action is ours */
/* The program's handler of the stop signal, which gets what is not ours. Each may be NULL. */
void crn_stop_exchange_action(const struct sigaction *action, struct sigaction *old);

/* Notes where the thread's stack is in use from, on which stack that is, and what a signal
 * interrupted: its context, or NULL. By the thread itself. */
void crn_thread_stands_at(struct crn_thread *self, char *low, const void *context);
void *crn_fake_stack(void); /* scan.c: AddressSanitizer's, of this thread */

/* fork.c: waits until the fork that has closed the gate is over. */
void crn_gate_wait(void);
bool crn_gate_is_mine(void); /* this thread is between the two halves of a fork */

/* words.c: visits the words that may be pointers into a heap. crn_scan_words may pass over one that
 * it has visited; crn_scan_every_word does not. */
typedef void crn_word_visit(void *word, struct crn_worker *worker);
void crn_scan_words(const char *low, const char *high, crn_word_visit *visit,
                    struct crn_worker *worker);
void crn_scan_every_word(const char *low, const char *high, crn_word_visit *visit,
                         struct crn_worker *worker);

/* scan.c: the words outside the heaps that may be roots; they come into the workers' `found`. */
void crn_scan_roots(void);
struct crn_scanned crn_scanned(void); /* since that began, with what followed */
/* For parts of it: notes what is found in [low, high). */
void crn_scan_range(const char *low, const char *high, struct crn_worker *worker);
void crn_scan_around_sanitizer(const struct crn_thread *thread, const char *low, const char *high,
                               struct crn_worker *worker);

/* images.c: what is loaded. Gather with no lock held and the world running; install under the world
 * lock; the rest while the world is stopped. */
struct crn_images *crn_images_gather(void);
void crn_images_install(struct crn_images *fresh);
bool crn_images_are_current(void);
void crn_images_scan_data(struct crn_worker *worker);
bool crn_images_have_data(const void *address); /* of a loaded object */
void crn_images_scan_locals(const struct crn_thread *thread, struct crn_worker *worker);

/* team.c: runs a job, by the coordinator alone or with who volunteers; to its end, if the job for
 * one alone does not stop when others have come. */
void crn_team_run(void (*alone)(struct crn_worker *), void (*together)(struct crn_worker *));
void crn_team_volunteer(struct crn_thread *self); /* while stopped: helps until there is no need */
void crn_team_forget_others(void);                /* in a forked child */
bool crn_team_has_work(void);                     /* not taken by anybody */
void crn_team_share(struct crn_stack *stack);
bool crn_team_take(struct crn_stack *stack);
/* The same for two that belong together, where a job's pool holds nothing else. */
void crn_team_give_pair(void *first, void *second);
bool crn_team_take_pair(void **first, void **second);
CRN_INLINE bool crn_team_has_others(void) {
    return __atomic_load_n(&crn_team.seats_taken, __ATOMIC_RELAXED) != 0;
}
CRN_INLINE bool crn_team_is_hungry(void) {
    return __atomic_load_n(&crn_team.hungry, __ATOMIC_RELAXED) != 0 &&
           __atomic_load_n(&crn_team.pool.count, __ATOMIC_RELAXED) == 0;
}

/* count.c: by the coordinator; the world is stopped. */
void crn_count_logs(void);
void crn_count_drain(void);
/* When all increments are over: what workers promoted is in the blocks' numbers. */
void crn_count_settle(void);
void crn_count_decrements(uint64_t deadline_ns);
/* What waited for the stop: husks are queued again, what has extras dies. */
void crn_count_resume(uint64_t deadline_ns);
void crn_count_increment(void *object);
bool crn_count_gather(void);  /* all workers' decrements, to the first; were there any? */
void crn_defer(void *object); /* to crn_gc.deferred, by any worker */
void crn_count_give_up(struct crn_block *block, char *object); /* queues what its fields hold */
void crn_count_kill(struct crn_block *block, char *object);    /* a large young one that died */
void crn_block_free_all(struct crn_block *block);              /* a settled one; figures, lists */
void crn_object_free(struct crn_block *block, char *object);   /* count to zero, figures, lists */
void crn_worker_flush(struct crn_worker *worker);              /* figures, to their heap */

/* Outside every heap's memory: such a reference is stored and not counted. */
CRN_INLINE bool crn_is_foreign(const void *value) {
    return !crn_space_holds(value) || crn_segment_kind(value) == CRN_SEGMENT_NONE;
}

/* A share of the queued decrements, while the program runs; in a no-stop section, no lock held. */
void crn_count_slice(void);
/* The same until so much is freed or nothing is queued: for a heap that would grow meanwhile. */
void crn_count_help(uint64_t bytes);

/* epoch.c, trace.c, verify.c: the world is stopped. */
void crn_epoch_run(bool is_bounded);
void crn_root_object(char *object);
void crn_trace_run(void);
void crn_verify(void);
/* forgotten.c: for crn_verify. */
void crn_each_counted(struct crn_block *block,
                      void (*visit)(struct crn_block *block, char *object));
_Noreturn void crn_report_uncounted(void **field, const void *value);
_Noreturn void crn_report_miscounted(const struct crn_block *block, const char *object,
                                     unsigned count, unsigned found);
void crn_note_undeclared(struct crn_block *block); /* once per type and word */
void crn_print_undeclared(void); /* on stderr; the world lock is held, the world runs */
void crn_heap_check(cairn_heap *heap);

/* holders.c */
void crn_search_holders(struct crn_search *search);

/* extras.c: before the logs are counted; after; and every count that extras own, once for each. */
void crn_extras_count(void);
void crn_extras_judge_young(void);
void crn_extras_each_count(void (*visit)(void *object));

/* pace.c */
bool crn_pace_init(void);
void crn_pace_after_epoch(uint64_t pause_ns, uint64_t root_ns, uint64_t entries,
                          uint64_t young_bytes);
void crn_pace_after_trace(uint64_t freed_bytes);
uint64_t crn_young_bytes(void);
uint64_t crn_live_bytes(void);
uint64_t crn_committed_bytes(void), crn_used_bytes(void);

/* untyped.c: the world is stopped, but for crn_untyped_changed */
void crn_untyped_changed(const struct crn_block *block, const char *object); /* born, or died */
void crn_untyped_ask(void);   /* which pages were written? */
void crn_untyped_renew(void); /* scans the stale ones */
/* Gives back what `budget` pages from `from` on held; returns where to go on, 0 at the end. Under
 * the slice's lock or in a stop. */
size_t crn_untyped_release(struct crn_worker *worker, struct crn_block *block, size_t from,
                           size_t budget);
void crn_untyped_each_held(void (*visit)(void *object));
/* Pages forget, without a decrement, what is not live any more. */
void crn_untyped_forget(bool (*is_live)(const char *object));

/* large.c: one worker at a time */
bool crn_large_is(const struct crn_block *block);
bool crn_large_step(struct crn_worker *worker); /* false: there was nothing to do */
bool crn_large_is_waiting(void);

/* reclaim.c */
void crn_reclaim_start_thread(void);  /* if it is wanted; outside every section */
void crn_reclaim_wake(void);          /* outside every lock: somebody else may apply decrements */
void crn_reclaim_help(void);          /* the world is stopped: it may take a seat in the team */
bool crn_reclaim_rests(void);         /* else it is told that a stop is near */
void crn_reclaim_forget_thread(void); /* in a forked child */

/* stress.c */
void crn_stress_start(void); /* the thread of CAIRN_STRESS_STOP, if asked for */

/* collect.c: in a no-stop section with no lock held. Taking the world waits out a collection,
 * standing still for it; it is held from before a stop until after it. */
void crn_world_take(void);
void crn_world_release(void);
/* Takes the world and stops it, with a list of what is loaded that is true. */
void crn_world_stop_knowing_images(void);
void crn_collect(cairn_collection kind);

/* histogram.c */
void crn_histogram_add(struct crn_histogram *histogram, uint64_t value);
uint64_t crn_histogram_quantile(const struct crn_histogram *histogram, double quantile);

#endif
