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
#include "object/extras.h"
#include "os/os.h"

#include <cairn/cairn.h>

/* ---- The public heap
 * ------------------------------------------------------------------------------ */

struct cairn_heap {
    struct crn_heap core;    /* first */
    struct cairn_heap *next; /* all heaps, under the world lock */
    size_t limit_bytes;
    uint64_t pause_goal_ns; /* of its options; 0: the environment's */
    bool is_tracing, is_verifying;
    uint64_t waiting_objects; /* atomic; deleted, their slots not yet free */
    struct crn_deleted {
        uint64_t objects, bytes;
    } deleted[CRN_DEATHS];       /* deleted ones whose slots were freed, by how */
    uint32_t finalizers_running; /* atomic */
};

struct crn_settings {
    uint64_t pause_goal_ns;
    size_t limit_bytes;
    bool is_tracing, is_verifying;
    bool has_reclaimer;       /* CAIRN_RECLAIMER=0: no thread applies decrements */
    bool is_passive;          /* CAIRN_INTERPOSE=0: functions of libc are left alone */
    unsigned stress_collect;  /* CAIRN_STRESS=N: collect at every Nth slow path */
    unsigned fail_allocation; /* CAIRN_FAIL=N: the Nth slow-path allocation gives NULL */
    uint64_t stress_stop_ns;  /* CAIRN_STRESS_STOP=N: mean time between stops; 0: none */
};
extern struct crn_settings crn_settings;
extern cairn_heap *crn_default_heap, *crn_heaps;

bool crn_heap_is_alive(const cairn_heap *heap); /* made, and not destroyed */

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

struct crn_range {
    char *low, *high;
};

/* Values of pthread_setspecific, in pieces made as needed; written by their thread, and by
 * pthread_key_delete. */
enum { CRN_SPECIFIC_PIECES = 32, CRN_SPECIFIC_PER_PIECE = 32 };

/* The most that a frame with all callee-saved registers may take; sanitizers make large ones. */
enum { CRN_FRAME_BYTES = 1024 };

/* An epoch visits every thread, and most of them have done nothing since the last one: what it
 * looks at lies in two cache lines. */
struct crn_thread {
    _Alignas(CRN_CACHE_LINE) struct crn_thread *next; /* under the threads lock */
    char *stack_low, *stack_high;
    char *stopped_at;         /* the lowest address in use of the stack it stands on */
    char *alternate_high;     /* the end of that stack if it is an alternate signal stack */
    void *fake_stack;         /* AddressSanitizer's */
    uint32_t state;           /* enum crn_thread_state; atomic */
    uint32_t signal_due;      /* atomic; a stop signal is on its way; see stop.c */
    uint16_t frame_bytes;     /* used of frame */
    uint8_t specifics_in_use; /* pieces of values, from the first on */
    bool is_rootless;         /* one of ours that runs no code of the program: only stale words */
    uint32_t full_chunks;     /* of the log, not yet told to pacing */
    void *anchor;             /* of its thread-locals, see os.h */
    struct crn_range static_locals; /* where they are outside the stack */
    struct crn_log_chunk *log;      /* current and full ones */
    struct crn_log_chunk *spare;    /* so that a store never fails for memory */
    struct crn_cache *caches;       /* the default heap's first */
    char
        *interrupted_at; /* on another stack: the lowest address in use of its own, NULL: unknown */
    char *entered_at;    /* the lowest address of the frame that asks for a collection, or NULL */
    struct cairn_thread *inline_state;
    int thread_id;
    uint32_t blocking_depth;
    bool holds_world;             /* it collects; a signal's handler may run amid that */
    size_t news_count;            /* extras told since crn_hooks.logged was last called for them */
    struct crn_graves *graves;    /* where it records deletions; safety/graveyard.c */
    bool is_digging;              /* it fills in such a record */
    struct crn_extra *finalizing; /* whose finalizers it runs, the innermost first */
    struct crn_cleanup *cleaning; /* rings of cleanups that it runs, the innermost first */
    void **specifics[CRN_SPECIFIC_PIECES];
    _Alignas(sizeof(void *)) char frame[CRN_FRAME_BYTES]; /* of cairn_blocking_begin */
};
_Static_assert(offsetof(struct crn_thread, interrupted_at) <= 128, "what every epoch looks at");
extern struct crn_thread *crn_threads;
extern struct crn_lock crn_threads_lock;
extern uint32_t crn_waiters; /* to stop the world, or to become known; atomic */

CRN_INLINE struct crn_thread *crn_self(void) {
    return cairn_thread.self;
}
struct crn_cache *crn_cache_of(struct crn_thread *thread, cairn_heap *heap);
/* A record for a thread that is to come, and the calling thread's becoming known: with one that was
 * made for it, which is taken, or with one of its own. NULL without memory. */
struct crn_thread *crn_thread_make(void);
struct crn_thread *crn_thread_attach(struct crn_thread **made);
void crn_thread_forget_others(void); /* in a forked child */

/* Whoever becomes known, or starts Cairn, holds this: before that no stop waits for it. */
extern struct crn_lock crn_newcomers_lock;
extern uint32_t crn_gate; /* futex word; 1: a fork copies memory, slow paths wait; see gc/fork.c */
void crn_thread_free(struct crn_thread *thread);    /* of which nothing is in use */
void crn_thread_abandon(struct crn_thread *thread); /* it is no more; the world is stopped */

/* By a thread that was made through us and whose specific values, argument and result are therefore
 * kept elsewhere: the C library's descriptor at its stack's end need not be scanned. */
void crn_thread_skip_descriptor(void);

/* A value of pthread_setspecific, by its thread in a no-stop section; and the end of a key. */
void crn_thread_note_specific(struct crn_thread *self, size_t key, const void *value);
void crn_thread_forget_specific(size_t key);

/* What a thread that is made is given, and what it leaves for who joins it; see handover.c. The
 * caller is in a no-stop section. */
struct crn_handover;
struct crn_given {
    void *(*run)(void *argument);
    void *argument;
};
/* By the creator: NULL without memory; drop it if no thread came of it, else name it. */
struct crn_handover *crn_handover_make(struct crn_given given, bool is_detached);
void crn_handover_drop(struct crn_handover *handover);
void crn_handover_name(struct crn_handover *handover, uintptr_t thread);
/* By the thread: before it is known, where the record lies that was made for it; when it is, what
 * it was given; with its result; last. */
struct crn_thread **crn_handover_record(struct crn_handover *handover);
struct crn_given crn_handover_begin(struct crn_handover *handover, uintptr_t thread);
void crn_handover_leave(void *result);
void crn_handover_exits(void);
/* By others: detach; join before the wait (NULL: unknown) and joined after it. */
void crn_handover_detach(uintptr_t thread);
struct crn_handover *crn_handover_join(uintptr_t thread);
void crn_handover_joined(struct crn_handover *handover, bool is_over);
void crn_handovers_forget_others(void); /* in a forked child */
void crn_handovers_each(void (*visit)(char *low, char *high, void *context), void *context);

/* Enter and leave the runtime: no stop in between. Enter makes the thread known. */
struct crn_thread *crn_enter(void);
CRN_INLINE void crn_leave(void) {
    cairn_section_leave_();
}

/* What must not happen in a section happens in cairn_stop_poll_, behind the outermost one. */
CRN_INLINE void crn_poll_behind_section(void) {
    cairn_thread.deferred = 1;
}

/* ---- What gc/ provides
 * --------------------------------------------------------------------------------- */

/* Which words refer to what a report is about: those with a value in one of the targets. */
enum { CRN_TARGETS_MAX = 3, CRN_HOLDERS_NAMED = 8 };
struct crn_search {
    struct crn_range targets[CRN_TARGETS_MAX];
    unsigned target_count;
    const char *stack_from; /* of the calling thread: what lies below is the report's own */
    bool is_cut;            /* there was more memory than is worth the time */
    unsigned count;         /* of words; the first ones have a text */
    char texts[CRN_HOLDERS_NAMED][160];
};

/* Called in a no-stop section whose thread holds no lock; each may collect. */
struct crn_hooks {
    void (*allocated)(
        const cairn_heap *heap);         /* a slow path handed out memory: time for an epoch? */
    void (*logged)(void);                /* a log chunk is full */
    void (*ending)(uint64_t left_bytes); /* a thread, which leaves so much to the next epoch */
    void (*emergency)(void);             /* no memory: collect everything */
    void (*crowded)(void); /* no more objects can be guarded: collect, if it is time */
    void (*poll)(void);    /* stand still if a stop is wanted */
    void (*gate)(void);    /* wait until the fork that has closed the gate is over */
    bool (*start)(void);   /* once, under the start lock */
    void (*started)(void); /* once, afterwards, with no lock held */
    /* While the world is stopped: takes back a count that an extra owned. */
    void (*give_back)(void *object);
    /* Stops the world and looks through the process's memory. In no section, no lock held. */
    void (*search)(struct crn_search *search);
};
extern const struct crn_hooks crn_hooks;

/* What safety/ provides. */
bool crn_listen_for_faults(void); /* false if it cannot */
/* While the world is stopped: what was deleted since the last time gets its extras, or is dead: in
 * an epoch, when young objects have been judged. Returns how many were settled since the last. */
uint64_t crn_deletions_settle(bool is_epoch);
/* The figures of a heap, with what is not settled yet. In a section. */
void crn_deletions_count(const cairn_heap *heap, uint64_t *deleted, uint64_t *waiting);

/* At the entry of a slow path, and behind each of its safepoints. */
CRN_INLINE void crn_gate_pass(void) {
    if (CRN_UNLIKELY(__atomic_load_n(&crn_gate, __ATOMIC_RELAXED))) crn_hooks.gate();
}

/* ---- Types
 * ---------------------------------------------------------------------------------------------- */

struct crn_type *crn_type_known(cairn_type *type); /* NULL without memory */
/* What objects with a flexible member are of, whose elements have `size` bytes: the type itself if
 * the member is declared to hold references or nothing refers, else one like it. NULL without
 * memory. */
struct crn_type *crn_type_with_flex(struct crn_type *type, size_t offset, size_t size);
CRN_INLINE bool crn_type_is(const struct crn_type *type, const struct crn_type *wanted) {
    return type == wanted ||
           (wanted && type == __atomic_load_n(&wanted->with_data, __ATOMIC_ACQUIRE));
}
/* Whether any type has tagged words: set once, read in pauses. */
extern bool crn_any_tagged;
extern struct crn_type crn_type_bytes, crn_type_untyped;

bool crn_is_cell_type(const struct crn_type *type); /* of weak references; weak.c */

/* The value of a CAIRN_WORD as a reference: NULL for tagged bits. */
CRN_INLINE void *crn_word_reference(const struct crn_type *type, uintptr_t word) {
    return (word & type->word_mask) == type->word_tag ? (void *)(word - type->word_tag) : NULL;
}

/* `value` is what the field refers to: NULL where a word holds tagged bits. */
typedef void crn_field_visit(void **field, void *value, void *context);

/* Visits about `budget` elements from `from` on, which an earlier call returned or the
 * object's start; returns where to go on, NULL at the end. An element of the flexible part counts
 * as one. */
char *crn_each_field_from(const struct crn_block *block, char *object, char *from, size_t budget,
                          crn_field_visit *visit, void *context);

/* Every reference or tagged field of an object of an exact block; inlined, visit included, where
 * the type is mapped. */
CRN_INLINE void crn_each_field(const struct crn_block *block, char *object, crn_field_visit *visit,
                               void *context) {
    const struct crn_type *type = block->type;
    if (CRN_UNLIKELY(!type->is_mapped)) {
        crn_each_field_from(block, object, object, SIZE_MAX, visit, context);
        return;
    }
    size_t step = type->size, behind = 0; /* bytes behind the element */
    if (block->is_sized) {
        size_t used = crn_object_used(block, object);
        if (used < step) return;
        behind = used - step;
    }
    for (;; object += step, behind -= step) {
        void **words = (void **)(void *)object;
        for (uint64_t map = type->map; map; map &= map - 1) {
            void **field = words + __builtin_ctzll(map);
            visit(field, *field, context);
        }
        if (CRN_LIKELY(behind < step)) return;
    }
}

/* Elements are those of an array, those of a flexible part, and as one all that comes before it.
 * Where the one begins that `address` lies in, and the first that begins there or later. */
char *crn_element_of(const struct crn_block *block, char *object, const char *address);
char *crn_element_from(const struct crn_block *block, char *object, const char *address);

/* Visits the elements of an object that begin in [from, to), one of them at `from`. Returns where
 * the next one begins, behind the last the object's end. */
CRN_INLINE char *crn_each_field_between(const struct crn_block *block, char *object, char *from,
                                        char *to, crn_field_visit *visit, void *context) {
    const struct crn_type *type = block->type;
    if (CRN_UNLIKELY(!type->is_mapped)) {
        const char *behind = from == object && type->has_flex ? object + type->flex_offset : from;
        size_t step = type->has_flex ? sizeof(void *) : type->size;
        size_t count = to > behind ? ((size_t)(to - behind) + step - 1) / step : 0;
        char *next = crn_each_field_from(block, object, from, count, visit, context);
        return next ? next : object + crn_object_used(block, object);
    }
    size_t step = type->size;
    const char *end = object + crn_object_used(block, object);
    for (; from < to && from + step <= end; from += step) {
        void **words = (void **)(void *)from;
        for (uint64_t map = type->map; map; map &= map - 1) {
            void **field = words + __builtin_ctzll(map);
            visit(field, *field, context);
        }
    }
    return from;
}

/* The log bits of its promoted objects are set at once when the epoch settles the block. */
CRN_INLINE bool crn_has_log_bits(const struct crn_block *block) {
    return !block->is_sized && block->type->log_bits;
}

CRN_INLINE size_t crn_offset_in_object(const struct crn_block *owner, void **field) {
    size_t offset = (size_t)((char *)field - owner->base);
    return owner->slot_size ? offset % owner->slot_size : offset;
}

/* What a call says of an address that is not the start of an object. */
CRN_INLINE const char *crn_why_no_object(const void *address) {
    return crn_space_is_tombstone(address) ? "a tombstone: the object was deleted"
                                           : "not the start of an object";
}

/* Of an element, its flexible part apart; type.c. */
bool crn_is_tagged_word(const struct crn_type *type, size_t word);
bool crn_is_reference_word(const struct crn_type *type, size_t word); /* tagged ones too */
/* Whether a field of an exact block is a CAIRN_WORD; type.c. */
bool crn_is_tagged_field(const struct crn_block *owner, void **field);
/* Whether an address in an object is that of a field that its type declares; type.c. */
bool crn_is_declared_field(const struct crn_block *owner, void **field);
/* What `word`, read from a field of an exact block, refers to; type.c. */
void *crn_tagged_value(const struct crn_block *owner, void **field, void *word);

/* ---- Roots that the program adds
 * ------------------------------------------------------------------------------ */

void crn_roots_each(void (*visit)(char *low, char *high, void *context), void *context);

/* cairn_set(field, NULL) by the runtime itself, in a no-stop section. */
void crn_store_null(void **field);

/* Log every set field in [low, high), so that plain stores may follow. In a no-stop section. */
void crn_log_range(char *low, char *high);

#endif
