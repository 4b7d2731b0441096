/* SPDX-License-Identifier: MIT
 *
 * How an object with an extra dies, and the calls that follow: finalizers, then cleanups.
 *
 *     WANTED --its last count is taken--> QUEUED --taken from the queue--> RUNNING --> NONE
 *     WANTED or QUEUED --cairn_delete takes it--> RUNNING --> NONE
 *
 * A dead object that wants its finalizer keeps one count, `is_held`, from the stop in which it died
 * until the first epoch after the finalizer has returned. That epoch counts what the finalizer
 * stored before it takes the held count back, so an object that was stored anywhere lives on, as an
 * ordinary object without a finalizer; one that was not dies for good, and then its cleanups are
 * queued. Its weak cell is cleared at the first death: nobody gets at it but the finalizer.
 *
 * Objects that are found dead together are finalized in no set order, cycles included; an object
 * that dies by count outlives whatever holds it. The cleanups of one object are queued as one ring
 * and run in order by one thread. Both queues are made of records that exist already, so that no
 * death needs memory. User code runs with no lock held and outside of any section.
 */
#include "object/object.h"

static struct crn_lock calls_lock; /* guards what follows */
static struct crn_extra *finalizers, **finalizers_tail = &finalizers;
static struct crn_cleanup *cleanups, **cleanups_tail = &cleanups; /* last ones of their rings */
static struct crn_extra *finalized;                               /* their held counts go back */
static uint32_t calls_ready;                                      /* futex word; atomic */
static uint32_t returned; /* finalizers that have; futex word; atomic */
static bool has_thread;   /* atomic */

/* ---- Deaths ---- */

static void queue_finalizer(struct crn_extra *extra) {
    crn_lock_acquire(&calls_lock);
    extra->next_queued = NULL;
    *finalizers_tail = extra;
    finalizers_tail = &extra->next_queued;
    crn_lock_release(&calls_lock);
    __atomic_store_n(&calls_ready, 1, __ATOMIC_RELEASE);
}

void crn_cleanups_queue_locked(struct crn_extra *extra) {
    struct crn_cleanup *last = extra->last_cleanup;
    if (!last) return;
    extra->last_cleanup = NULL;
    crn_lock_acquire(&calls_lock);
    last->next_queued = NULL;
    *cleanups_tail = last;
    cleanups_tail = &last->next_queued;
    crn_lock_release(&calls_lock);
    __atomic_store_n(&calls_ready, 1, __ATOMIC_RELEASE);
}

void crn_cell_release_locked(struct crn_extra *extra) {
    struct cairn_weak_cell *cell = extra->cell;
    if (!cell) return;
    __atomic_store_n(&cell->target, NULL, __ATOMIC_RELEASE);
    if (extra->is_cell_counted) crn_hooks.give_back(cell);
    extra->is_cell_counted = false;
    extra->cell = NULL;
}

void crn_deleted_dies(void *object, const struct crn_block *block, enum crn_death how) {
    cairn_heap *heap = (cairn_heap *)block->heap;
    crn_bit_clear(crn_deleted_bit(object));
    heap->deleted[how].objects++;
    heap->deleted[how].bytes += crn_object_bytes(block);
}

bool crn_extra_dies(void *object, const struct crn_block *block, enum crn_death how) {
    struct crn_shard *shard = crn_extras_lock(object);
    struct crn_extra *extra = crn_extra_find_locked(shard, object);
    bool must_live = extra && extra->finalizer == CRN_FINALIZER_WANTED;
    if (extra) {
        CRN_ASSERT(!extra->is_held && !extra->is_pin_counted);
        crn_cell_release_locked(extra);
    }
    if (must_live) {
        extra->finalizer = CRN_FINALIZER_QUEUED;
        extra->is_held = true;
        queue_finalizer(extra);
    } else if (extra) {
        crn_cleanups_queue_locked(extra);
        if (crn_bit_get(crn_deleted_bit(object))) {
            cairn_heap *heap = (cairn_heap *)block->heap;
            __atomic_fetch_sub(&heap->waiting_objects, 1, __ATOMIC_RELAXED);
            crn_deleted_dies(object, block, how);
        }
        crn_extra_remove_locked(shard, extra);
    }
    crn_extras_unlock(shard);
    return must_live;
}

bool crn_extra_died(void *object, const struct crn_block *block) {
    return crn_extra_dies(object, block, CRN_DEATH_BY_COUNT);
}

void crn_finalized_take(void (*visit)(void *object)) {
    while (finalized) {
        struct crn_extra *extra = finalized;
        finalized = extra->next_queued;
        extra->is_held = false;
        visit(extra->object);
    }
}

/* ---- Calls ---- */

static struct crn_extra *take_finalizer(void) {
    crn_lock_acquire(&calls_lock);
    struct crn_extra *extra = finalizers;
    if (extra) {
        finalizers = extra->next_queued;
        if (!finalizers) finalizers_tail = &finalizers;
    }
    crn_lock_release(&calls_lock);
    return extra;
}

static struct crn_cleanup *take_cleanups(void) {
    crn_lock_acquire(&calls_lock);
    struct crn_cleanup *last = cleanups;
    if (last) {
        cleanups = last->next_queued;
        if (!cleanups) cleanups_tail = &cleanups;
    }
    crn_lock_release(&calls_lock);
    return last;
}

/* The object stays while it is held, so the extra does. Returns whether there was a call to make:
 * a deletion may have made it. */
static bool run_finalizer(struct crn_extra *extra) {
    void *object = extra->object;
    struct crn_shard *shard = crn_extras_lock(object);
    bool is_due = extra->finalizer == CRN_FINALIZER_QUEUED;
    if (is_due) extra->finalizer = CRN_FINALIZER_RUNNING;
    crn_extras_unlock(shard);
    struct crn_thread *self = crn_self();
    extra->next_queued = self->finalizing;
    self->finalizing = extra;
    if (is_due) {
        crn_leave();
        crn_block_of_start(object)->type->finalize(object);
        cairn_keep(object);
        crn_enter();
        shard = crn_extras_lock(object);
        extra->finalizer = CRN_FINALIZER_NONE;
        crn_extras_unlock(shard);
    }
    crn_lock_acquire(&calls_lock);
    self->finalizing = extra->next_queued;
    extra->next_queued = finalized;
    finalized = extra;
    crn_lock_release(&calls_lock);
    return is_due;
}

/* The ring holds what is still to be run: a forked child goes on with it. */
static size_t run_cleanups(struct crn_cleanup *last) {
    struct crn_thread *self = crn_self();
    size_t count = 0;
    for (bool is_last = false; !is_last;) {
        struct crn_cleanup *at = last->next;
        is_last = at == last;
        void (*function)(void *argument) = at->function;
        void *argument = at->argument;
        cairn_section_enter_();
        if (count == 0) {
            last->next_queued = self->cleaning;
            self->cleaning = last;
        }
        last->next = at->next;
        if (is_last) self->cleaning = last->next_queued;
        crn_meta_free(at, sizeof(*at));
        cairn_section_leave_();
        function(argument);
        count++;
    }
    return count;
}

/* A heap that is about to end looks at finalizers_running while the world is stopped: taking from
 * the queue and saying so are one section. */
static bool run_next_finalizer(size_t *count) {
    crn_enter();
    struct crn_extra *extra = take_finalizer();
    if (!extra) {
        crn_leave();
        return false;
    }
    cairn_heap *heap = (cairn_heap *)crn_block_of_start(extra->object)->heap;
    __atomic_fetch_add(&heap->finalizers_running, 1, __ATOMIC_RELAXED);
    *count += run_finalizer(extra);
    __atomic_fetch_sub(&heap->finalizers_running, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&returned, 1, __ATOMIC_RELEASE);
    crn_leave();
    crn_futex_wake(&returned, INT32_MAX);
    return true;
}

size_t cairn_finalize_pending(void) {
    size_t count = 0;
    for (;;) {
        while (run_next_finalizer(&count)) {}
        crn_enter();
        struct crn_cleanup *last = take_cleanups();
        crn_leave();
        if (!last) return count;
        count += run_cleanups(last);
    }
}

/* ---- The thread that makes the calls ---- */

static void run_calls(void *unused) {
    (void)unused;
    if (cairn_thread_register() != CAIRN_OK) return;
    for (;;) {
        cairn_finalize_pending();
        cairn_blocking_begin();
        crn_futex_wait(&calls_ready, 0);
        cairn_blocking_end();
        __atomic_store_n(&calls_ready, 0, __ATOMIC_RELAXED);
    }
}

/* Called after a collection, outside every lock. */
void crn_finalizers_signal(void) {
    if (!__atomic_load_n(&calls_ready, __ATOMIC_ACQUIRE)) return;
    if (!__atomic_load_n(&has_thread, __ATOMIC_RELAXED)) crn_poll_behind_section();
    crn_futex_wake(&calls_ready, 1);
}

void crn_finalizers_start_thread(void) {
    if (!__atomic_load_n(&calls_ready, __ATOMIC_ACQUIRE)) return;
    if (__atomic_exchange_n(&has_thread, true, __ATOMIC_ACQ_REL)) return;
    if (crn_os_thread_start(run_calls, NULL)) return;
    /* At the system's limit, say: tried again behind the next collection. */
    __atomic_store_n(&has_thread, false, __ATOMIC_RELEASE);
}

/* What a lost thread was calling counts as called: each finalizer begins once. Cleanups that it had
 * not begun are queued again. */
static void forget_calls_of(struct crn_thread *thread) {
    while (thread->finalizing) {
        struct crn_extra *extra = thread->finalizing;
        thread->finalizing = extra->next_queued;
        cairn_heap *heap = (cairn_heap *)crn_block_of_start(extra->object)->heap;
        heap->finalizers_running--;
        returned++;
        extra->finalizer = CRN_FINALIZER_NONE;
        extra->next_queued = finalized;
        finalized = extra;
    }
    while (thread->cleaning) {
        struct crn_cleanup *last = thread->cleaning;
        thread->cleaning = last->next_queued;
        last->next_queued = NULL;
        *cleanups_tail = last;
        cleanups_tail = &last->next_queued;
        calls_ready = 1;
    }
}

void crn_finalizers_forget_others(void) {
    has_thread = false;
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        if (thread != crn_self()) forget_calls_of(thread);
    }
}

/* ---- Ending a heap ---- */

bool crn_finalizers_purge(cairn_heap *heap) {
    if (__atomic_load_n(&heap->finalizers_running, __ATOMIC_RELAXED)) return false;
    struct crn_extra **lists[] = {&finalizers, &finalized};
    for (size_t i = 0; i < 2; i++) {
        struct crn_extra **at = lists[i];
        while (*at) {
            if (crn_block_of_start((*at)->object)->heap == &heap->core)
                *at = (*at)->next_queued;
            else
                at = &(*at)->next_queued;
        }
        if (i == 0) finalizers_tail = at;
    }
    return true;
}

uint32_t *crn_finalizers_returned(void) {
    return &returned;
}

bool crn_is_finalizing(const cairn_heap *heap) {
    const struct crn_thread *self = crn_self();
    const struct crn_extra *at = self ? self->finalizing : NULL;
    while (at && crn_block_of_start(at->object)->heap != &heap->core) at = at->next_queued;
    return at != NULL;
}

/* ---- For programs ---- */

cairn_status cairn_cleanup_add(void *object, void (*function)(void *argument), void *argument) {
    if (!object || !function || crn_space_is_tombstone(object)) return CAIRN_ERROR_ARGUMENT;
    struct crn_shard *shard;
    struct crn_extra *extra = crn_extra_enter(object, &shard, "cairn_cleanup_add");
    cairn_status status = CAIRN_ERROR_NO_MEMORY;
    struct crn_cleanup *cleanup = NULL;
    if (extra && crn_bit_get(crn_deleted_bit(object))) {
        status = CAIRN_ERROR_ARGUMENT;
    } else if (extra && (cleanup = crn_meta_alloc(sizeof(*cleanup))) != NULL) {
        struct crn_cleanup *last = extra->last_cleanup;
        *cleanup = (struct crn_cleanup){last ? last->next : cleanup, NULL, function, argument};
        if (last) last->next = cleanup;
        extra->last_cleanup = cleanup;
        status = CAIRN_OK;
    }
    crn_extra_leave(shard);
    return status;
}
