/* SPDX-License-Identifier: MIT
 *
 * Objects as the collector sees them: their types, their fields, the field log, what keeps them
 * alive.
 *
 * The barrier's argument. A reference field of a mature object has its log bit set between an epoch
 * and its first store. cairn_set tests the bit; if set, the slow path reads the old value, then
 * clears the bit with an atomic and, and only the thread whose and found it set logs (field, old
 * value); then it stores. Two racing threads both read before either stores past a cleared bit, so
 * whoever wins logs the value that the field had at the epoch. Test, log and store lie in one
 * no-stop section: a thread stopped between test and store would store unlogged after the epoch has
 * set the bit again.
 */
#ifndef CRN_OBJECT_H
#define CRN_OBJECT_H

#include "heap/heap.h"
#include "os/os.h"

#include <cairn/cairn.h>
#include <setjmp.h>

/* ---- The public heap
 * ------------------------------------------------------------------------------ */

struct cairn_heap {
    struct crn_heap core;    /* first */
    struct cairn_heap *next; /* all heaps, under the world lock */
    size_t limit_bytes;
    struct crn_cache orphans; /* blocks of threads that have ended */
};

struct crn_settings {
    uint64_t pause_goal_ns;
    size_t limit_bytes;
    bool is_tracing, is_verifying;
    bool has_reclaimer;       /* CAIRN_RECLAIMER=0: no thread applies decrements */
    unsigned stress_collect;  /* CAIRN_STRESS=N: collect at every Nth slow path */
    unsigned fail_allocation; /* CAIRN_FAIL=N: the Nth slow-path allocation gives NULL */
    uint64_t stress_stop_ns;  /* CAIRN_STRESS_STOP=N: mean time between stops; 0: none */
};
extern struct crn_settings crn_settings;
extern cairn_heap *crn_default_heap, *crn_heaps;

/* Makes the runtime ready and registers the thread; aborts with a clear report if it cannot. */
void crn_start(void);

/* ---- The field log
 * ----------------------------------------------------------------------------------- */

struct crn_log_entry {
    void **field;
    void *old;
};
enum { CRN_LOG_ENTRIES = 1023 };
struct crn_log_chunk {
    struct crn_log_chunk *next;
    size_t count;
    struct crn_log_entry entries[CRN_LOG_ENTRIES];
};
struct crn_log_chunk *crn_log_chunk_take(void); /* NULL without memory */
void crn_log_chunk_give(struct crn_log_chunk *chunk);

/* ---- Threads
 * ------------------------------------------------------------------------------------------- */

enum crn_thread_state {
    CRN_THREAD_RUNNING = 0,
    CRN_THREAD_STOPPED,
    CRN_THREAD_BLOCKED, /* in a call that may wait; scanned where it stands */
    CRN_THREAD_GONE,
};

enum { CRN_THREAD_RANGES = 16 };
struct crn_range {
    char *low, *high;
};

struct crn_thread {
    struct crn_thread *next; /* under the threads lock */
    struct cairn_thread *inline_state;
    int thread_id;
    uint32_t state; /* enum crn_thread_state; atomic */
    uint32_t blocking_depth;
    bool was_signalled;
    uint32_t full_chunks; /* of the log, not yet told to pacing */
    char *stack_low, *stack_high;
    char *stopped_at;            /* the lowest address in use of the stack */
    char *interrupted_at;        /* the stack pointer under a signal handler on another stack */
    char *alternate_high;        /* the end of that other stack */
    jmp_buf registers;           /* at cairn_blocking_begin */
    struct crn_log_chunk *log;   /* current and full ones */
    struct crn_log_chunk *spare; /* so that a store never fails for memory */
    struct crn_cache *caches;    /* the default heap's first */
    struct crn_range locals[CRN_THREAD_RANGES]; /* thread-locals of loaded objects */
    size_t local_count;
};
extern struct crn_thread *crn_threads;
extern struct crn_lock crn_threads_lock;

CRN_INLINE struct crn_thread *crn_self(void) {
    return cairn_thread.self;
}
struct crn_cache *crn_cache_of(struct crn_thread *thread, cairn_heap *heap);
struct crn_thread *crn_thread_attach(void); /* NULL without memory */
void crn_thread_forget_others(void);        /* in a forked child */

/* Enter and leave the runtime: no stop in between. Enter makes the thread known. */
struct crn_thread *crn_enter(void);
CRN_INLINE void crn_leave(void) {
    cairn_section_leave_();
}

/* ---- What gc/ provides
 * --------------------------------------------------------------------------------- */

/* Called in a no-stop section whose thread holds no lock; each may collect. */
struct crn_hooks {
    void (*allocated)(
        const cairn_heap *heap); /* a slow path handed out memory: time for an epoch? */
    void (*logged)(void);        /* a log chunk is full */
    void (*emergency)(void);     /* no memory: collect everything */
    void (*poll)(void);          /* stand still if a stop is wanted */
    bool (*start)(void);         /* once, under the start lock */
    void (*started)(void);       /* once, afterwards, with no lock held */
};
extern const struct crn_hooks crn_hooks;

/* ---- Types
 * ---------------------------------------------------------------------------------------------- */

struct crn_type *crn_type_known(cairn_type *type); /* NULL without memory */
/* Whether any type has tagged words, any heap untyped memory: set once, read in pauses. */
extern bool crn_any_tagged, crn_any_untyped;
extern struct crn_type crn_type_bytes, crn_type_untyped, crn_type_cell;

/* The value of a word of a field, as a reference: NULL for tagged bits. */
CRN_INLINE void *crn_word_reference(const struct crn_type *type, uintptr_t word) {
    return (word & type->word_mask) == type->word_tag ? (void *)(word - type->word_tag) : NULL;
}

typedef void crn_field_visit(void **field, void *context);

/* Every reference field of one element. Inlined, visit included. */
CRN_INLINE void crn_each_field_of_element(const struct crn_type *type, char *element,
                                          crn_field_visit *visit, void *context) {
    void **words = (void **)(void *)element;
    if (CRN_LIKELY(type->is_mapped)) {
        for (uint64_t map = type->map; map; map &= map - 1) {
            visit(words + __builtin_ctzll(map), context);
        }
        return;
    }
    for (size_t i = 0; i < type->ref_count; i++) visit(words + type->refs[i], context);
    for (size_t i = 0; i < type->tagged_count; i++) visit(words + type->words[i], context);
}

/* Every reference or tagged field of an object of an exact block. */
CRN_INLINE void crn_each_field(const struct crn_block *block, char *object, crn_field_visit *visit,
                               void *context) {
    const struct crn_type *type = block->type;
    if (CRN_LIKELY(!block->is_sized)) {
        crn_each_field_of_element(type, object, visit, context);
        return;
    }
    char *end = object + crn_object_used(block, object);
    if (type->has_flex) {
        crn_each_field_of_element(type, object, visit, context);
        for (char *at = object + type->flex_offset; at + sizeof(void *) <= end;
             at += sizeof(void *)) {
            visit((void **)(void *)at, context);
        }
        return;
    }
    for (char *at = object; at + type->size <= end; at += type->size) {
        crn_each_field_of_element(type, at, visit, context);
    }
}

/* The same for about `budget` fields from `from` on, which an earlier call returned or the object's
 * start; returns where to go on, NULL at the end. A single element counts as one step. */
CRN_INLINE char *crn_each_field_from(const struct crn_block *block, char *object, char *from,
                                     size_t budget, crn_field_visit *visit, void *context) {
    const struct crn_type *type = block->type;
    char *end = object + crn_object_used(block, object);
    size_t step = type->size;
    if (!block->is_sized || (type->has_flex && from == object)) {
        crn_each_field_of_element(type, object, visit, context);
        if (!block->is_sized) return NULL;
        from = object + type->flex_offset;
    }
    if (type->has_flex) step = sizeof(void *);
    for (; from + step <= end && budget > 0; from += step, budget--) {
        if (type->has_flex)
            visit((void **)(void *)from, context);
        else
            crn_each_field_of_element(type, from, visit, context);
    }
    return from + step <= end ? from : NULL;
}

/* What a field refers to now: tagged bits are NULL. `owner` is the field's block. */
CRN_INLINE void *crn_field_value(const struct crn_block *owner, void *value) {
    const struct crn_type *type = owner->type;
    if (CRN_LIKELY(type->tagged_count == 0)) return value;
    return crn_word_reference(type, (uintptr_t)value);
}

/* ---- Extras: weak cells, cleanups, pins, finalizers, deleted objects
 * ---------------------------------------- */

struct cairn_weak_cell {
    void *target; /* NULL once the target is gone */
};

struct crn_cleanup {
    struct crn_cleanup *next;
    void (*function)(void *argument);
    void *argument;
};

struct crn_extra {
    void *object;
    struct cairn_weak_cell *cell;
    struct crn_cleanup *cleanups; /* in the order added */
    size_t pin_count;
    bool is_finalizable, is_finalized, is_deleted, is_young, is_held;
};
extern struct crn_lock crn_extras_lock;
struct crn_extra *crn_extra_find_locked(const void *object);
struct crn_extra *crn_extra_make_locked(void *object,
                                        struct crn_block *block); /* NULL: no memory */
void crn_extra_remove_locked(struct crn_extra *extra);
void crn_extras_each_locked(void (*visit)(struct crn_extra *extra, void *context), void *context);
/* While the world is stopped: called for an object whose count is zero. Returns whether it must
 * live on to be finalized; otherwise its weak cell is cleared and its cleanups are queued. */
bool crn_extra_died(void *object, const struct crn_block *block);
void crn_finalizers_signal(void);
bool crn_pin_pending(void);
size_t crn_waiting_count(void);
/* Objects that finalizers ran on since the last call; each gives its count back at the epoch. */
void crn_finalized_take(void (*visit)(void *object, void *context), void *context);
/* Visits what the queue of calls still holds. */
void crn_finalizers_pending(void (*visit)(void *object, void *context), void *context);

/* ---- Roots that the program adds
 * ------------------------------------------------------------------------------ */

void crn_roots_each(void (*visit)(char *low, char *high, void *context), void *context);

/* cairn_set(field, NULL) by the runtime itself, in a no-stop section. */
void crn_store_null(void **field);

/* Log every set field in [low, high), so that plain stores may follow. In a no-stop section. */
void crn_log_range(char *low, char *high);

#endif
