/* SPDX-License-Identifier: MIT
 *
 * The registry of threads, and the inline state of each.
 *
 * A thread is known from its first slow path on; it leaves when its thread-specific data is
 * destroyed, in the last round but one (a sanitizer takes the last), so that other destructors may
 * still use Cairn. Its record, with its blocks and its log, stays behind until the next epoch. One
 * that a destructor of the last round makes known again may end without a word: the coordinator
 * asks the kernel (stop.c).
 */
#include "object/object.h"

#include "base/described.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

static struct cairn_cursor no_cursor[1];
CAIRN_THREAD_LOCAL_ struct cairn_thread cairn_thread
    __attribute__((tls_model("initial-exec"))) = {.cursors = no_cursor, .cursor_count = 1};

static unsigned char no_log_bits[1], no_verdicts[1];
struct cairn_runtime cairn_runtime = {
    .version = CAIRN_RUNTIME_VERSION,
    .log_bits = no_log_bits,
    .verdicts = no_verdicts,
    .unjudged = UINTPTR_MAX,
};

struct crn_thread *crn_threads;
struct crn_lock crn_threads_lock, crn_newcomers_lock;
uint32_t crn_waiters;
uint32_t crn_gate;
static pthread_key_t exit_key;
static pthread_once_t exit_key_once = PTHREAD_ONCE_INIT;

static CAIRN_THREAD_LOCAL_ int exit_rounds;

static void free_specifics(struct crn_thread *thread) {
    for (size_t i = 0; i < CRN_SPECIFIC_PIECES; i++) {
        crn_meta_free(thread->specifics[i], CRN_SPECIFIC_PER_PIECE * sizeof(void *));
        thread->specifics[i] = NULL;
    }
}

/* Until the next epoch: its record, what it has logged, and blocks that nobody else fills. */
static uint64_t left_bytes(const struct crn_thread *thread) {
    uint64_t bytes = sizeof(*thread);
    for (const struct crn_log_chunk *chunk = thread->log; chunk; chunk = chunk->next) {
        bytes += sizeof(*chunk);
    }
    for (const struct crn_cache *cache = thread->caches; cache; cache = cache->next) {
        bytes +=
            sizeof(*cache) + cache->capacity * (sizeof(*cache->cursors) + sizeof(*cache->runs));
        for (const struct crn_block *block = cache->acquired; block; block = block->next) {
            bytes += block->slot_size ? CRN_BLOCK_BYTES : crn_object_bytes(block);
        }
    }
    return bytes;
}

/* Before its record is the collector's. */
static void give_up_room(struct crn_thread *thread) {
    for (struct crn_cache *cache = thread->caches; cache; cache = cache->next) {
        crn_cache_leave(cache);
        crn_cache_report(cache);
    }
    crn_hooks.ending(left_bytes(thread));
    if (thread->spare) crn_log_chunk_give(thread->spare);
    thread->spare = NULL;
    free_specifics(thread);
}

static void thread_exits(void *argument) {
    struct crn_thread *thread = argument;
    /* A thread that was cancelled between cairn_blocking_begin and _end. */
    if (thread->blocking_depth) {
        thread->blocking_depth = 1;
        cairn_blocking_end();
    }
    if (++exit_rounds < PTHREAD_DESTRUCTOR_ITERATIONS - 1) {
        pthread_setspecific(exit_key, thread);
        return;
    }
    cairn_section_enter_();
    crn_gate_pass();
    give_up_room(thread);
    crn_handover_exits();
    cairn_thread.cursors = no_cursor;
    cairn_thread.cursor_count = 1;
    cairn_thread.self = NULL;
    /* Release: the collector sees the caches as they were left. It frees the record at its next
     * epoch. */
    __atomic_store_n(&thread->state, CRN_THREAD_GONE, __ATOMIC_SEQ_CST);
    crn_hooks.poll(); /* a coordinator may be waiting for this thread */
    cairn_section_leave_();
}

static void make_exit_key(void) {
    CAIRN_REQUIRE(pthread_key_create(&exit_key, thread_exits) == 0,
                  "cannot start: no thread-specific key is left");
}

static struct crn_cache *find_or_make_cache(struct crn_thread *thread, cairn_heap *heap) {
    struct crn_cache **at = &thread->caches;
    while (*at && (*at)->heap != &heap->core) at = &(*at)->next;
    if (*at) return *at;
    if (CRN_UNLIKELY(!crn_heap_is_alive(heap))) {
        crn_leave();
        crn_fail("an allocation names a heap at %p, where none lives", (void *)heap);
    }
    struct crn_cache *cache = crn_meta_alloc(sizeof(*cache));
    if (!cache) return NULL;
    if (!crn_cache_init(cache, &heap->core)) {
        crn_meta_free(cache, sizeof(*cache));
        return NULL;
    }
    return *at = cache;
}

struct crn_cache *crn_cache_of(struct crn_thread *thread, cairn_heap *heap) {
    struct crn_cache *cache = find_or_make_cache(thread, heap);
    if (cache && heap == crn_default_heap) {
        cairn_thread.cursors = cache->cursors;
        cairn_thread.cursor_count = cache->capacity;
    }
    return cache;
}

void crn_thread_free(struct crn_thread *thread) {
    for (struct crn_cache *cache = thread->caches, *next; cache; cache = next) {
        next = cache->next;
        crn_cache_free(cache);
    }
    if (thread->spare) crn_log_chunk_give(thread->spare);
    crn_meta_free(thread, sizeof(*thread));
}

struct crn_thread *crn_thread_make(void) {
    struct crn_thread *thread = crn_meta_alloc(sizeof(*thread));
    if (!thread) return NULL;
    thread->spare = crn_log_chunk_take();
    if (thread->spare && find_or_make_cache(thread, crn_default_heap)) return thread;
    crn_thread_free(thread);
    return NULL;
}

static bool settle_in(struct crn_thread *thread) {
    if (!crn_os_stack_bounds(&thread->stack_low, &thread->stack_high)) return false;
    thread->inline_state = &cairn_thread;
    thread->thread_id = crn_os_thread_id();
    thread->anchor = crn_os_thread_anchor();
    crn_os_static_locals(thread->stack_low, thread->stack_high, &thread->static_locals.low,
                         &thread->static_locals.high);
    crn_os_admit_stop_signal();
    return pthread_setspecific(exit_key, thread) == 0;
}

static struct crn_thread *attach(struct crn_thread *thread) {
    pthread_once(&exit_key_once, make_exit_key);
    if (!thread) thread = crn_thread_make();
    if (!thread) return NULL;
    if (!settle_in(thread)) {
        crn_thread_free(thread);
        return NULL;
    }
    crn_cache_of(thread, crn_default_heap);
    cairn_thread.self = thread;
    /* A stop holds it, and whoever makes one after another looks whether somebody waits. */
    __atomic_fetch_add(&crn_waiters, 1, __ATOMIC_RELAXED);
    crn_lock_acquire(&crn_threads_lock);
    __atomic_fetch_sub(&crn_waiters, 1, __ATOMIC_RELAXED);
    thread->next = crn_threads;
    crn_threads = thread;
    crn_lock_release(&crn_threads_lock);
    return thread;
}

/* A forked child finds what was made either still there, or in the registry. */
struct crn_thread *crn_thread_attach(struct crn_thread **made) {
    crn_lock_acquire(&crn_newcomers_lock);
    struct crn_thread *thread = attach(made ? *made : NULL);
    if (made) *made = NULL;
    crn_lock_release(&crn_newcomers_lock);
    return thread;
}

struct crn_thread *crn_enter(void) {
    cairn_section_enter_();
    crn_gate_pass();
    struct crn_thread *self = cairn_thread.self;
    if (CRN_LIKELY(self)) return self;
    crn_start();
    self = cairn_thread.self;
    if (!self) self = crn_thread_attach(NULL);
    CAIRN_REQUIRE(self, "out of memory: cannot register a thread");
    return self;
}

cairn_status cairn_thread_register(void) {
    crn_start();
    cairn_section_enter_();
    bool is_known = cairn_thread.self || crn_thread_attach(NULL);
    cairn_section_leave_();
    return is_known ? CAIRN_OK : CAIRN_ERROR_NO_MEMORY;
}

void crn_thread_skip_descriptor(void) {
    struct crn_thread *self = cairn_thread.self;
    char *descriptor = crn_os_thread_descriptor();
    if (descriptor >= self->stack_low && descriptor < self->stack_high) {
        self->stack_high = descriptor;
    }
}

void crn_thread_note_specific(struct crn_thread *self, size_t key, const void *value) {
    size_t index = key / CRN_SPECIFIC_PER_PIECE;
    if (index >= CRN_SPECIFIC_PIECES) return;
    void ***piece = &self->specifics[index];
    if (!*piece) {
        if (!crn_space_holds(value)) return; /* as our own is, which asks for no memory */
        *piece = crn_meta_alloc(CRN_SPECIFIC_PER_PIECE * sizeof(void *));
        CAIRN_REQUIRE(*piece, "out of memory: cannot keep a thread-specific value");
    }
    (*piece)[key % CRN_SPECIFIC_PER_PIECE] = (void *)(uintptr_t)value;
    if (self->specifics_in_use <= index) self->specifics_in_use = (uint8_t)(index + 1);
}

void crn_thread_forget_specific(size_t key) {
    size_t index = key / CRN_SPECIFIC_PER_PIECE;
    if (index >= CRN_SPECIFIC_PIECES) return;
    /* A stop holds it and waits for this thread. */
    while (!crn_lock_try(&crn_threads_lock)) {
        crn_hooks.poll();
        sched_yield();
    }
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        void **piece = thread->specifics[index];
        if (piece) piece[key % CRN_SPECIFIC_PER_PIECE] = NULL;
    }
    crn_lock_release(&crn_threads_lock);
}

/* What the thread had allocated and logged stays until the next epoch, as with threads that ended.
 */
void crn_thread_abandon(struct crn_thread *thread) {
    for (struct crn_cache *cache = thread->caches; cache; cache = cache->next) {
        crn_cache_leave(cache);
    }
    free_specifics(thread);
    __atomic_store_n(&thread->state, CRN_THREAD_GONE, __ATOMIC_SEQ_CST);
}

/* In a forked child only this thread is left. */
void crn_thread_forget_others(void) {
    crn_waiters = 0;
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        if (__atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == CRN_THREAD_GONE) continue;
        if (thread == cairn_thread.self) {
            thread->thread_id = crn_os_thread_id();
            thread->signal_due = 0;
        } else {
            crn_thread_abandon(thread);
        }
    }
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_MEMBER(crn_thread, next),           CRN_MEMBER(crn_thread, stack_low),
    CRN_MEMBER(crn_thread, stack_high),     CRN_MEMBER(crn_thread, alternate_high),
    CRN_MEMBER(crn_thread, interrupted_at), CRN_MEMBER(crn_thread, stopped_at),
    CRN_MEMBER(crn_thread, state),          CRN_MEMBER(crn_thread, thread_id),
    CRN_MEMBER(crn_thread, is_rootless),    CRN_MEMBER(crn_thread, static_locals),
    CRN_MEMBER(crn_thread, frame),          CRN_MEMBER(crn_thread, frame_bytes),
    CRN_MEMBER(crn_thread, specifics),      CRN_MEMBER(crn_thread, specifics_in_use),
    CRN_MEMBER(crn_thread, holds_world),    CRN_NUMBER(CRN_THREAD_GONE),
    CRN_NUMBER(CRN_SPECIFIC_PER_PIECE),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(crn_threads),
};
