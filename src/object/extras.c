/* SPDX-License-Identifier: MIT
 *
 * What few objects have: a weak cell, cleanups, pins, a finalizer, a deletion.
 *
 * One open-addressing table maps an object's address to its entry; a block with such objects says
 * so, so that other deaths never look here. Owns the extras lock, and the queue of calls to make:
 * finalizers before cleanups of one object, no lock held while they run.
 *
 * A finalized object keeps one count from the moment it is queued until the epoch after its
 * finalizer has run: by then every store that the finalizer made has been counted.
 */
#include "object/object.h"

#include <string.h>

struct crn_lock crn_extras_lock;

static struct crn_extra **table;
static size_t capacity, used; /* used: entries and tombstones */
static struct crn_extra removed_mark;

struct call {
    struct call *next;
    void (*function)(void *argument);
    void *argument;
    struct crn_thread *thread; /* that runs it */
    bool is_finalizer;
};
static struct call *calls, **calls_tail = &calls; /* under the extras lock */
static struct call *running;                      /* by whoever took them */
static uint32_t calls_ended, waiter_count;        /* atomic; the first a futex word */
static struct call *finalized;                    /* ran; their objects' counts go back */
static uint32_t calls_ready;                      /* futex word; atomic */
static bool has_thread;                           /* atomic */

static size_t hash(const void *object) {
    return (size_t)(((uintptr_t)object >> CRN_GRANULE_SHIFT) * 0x9e3779b97f4a7c15u >> 20);
}

struct crn_extra *crn_extra_find_locked(const void *object) {
    if (!capacity) return NULL;
    for (size_t i = hash(object);; i++) {
        struct crn_extra *at = table[i & (capacity - 1)];
        if (!at) return NULL;
        if (at->object == object) return at;
    }
}

static void insert(struct crn_extra *extra) {
    size_t i = hash(extra->object);
    while (table[i & (capacity - 1)]) i++;
    table[i & (capacity - 1)] = extra;
    used++;
}

static bool grow(void) {
    size_t old_capacity = capacity;
    struct crn_extra **old = table;
    size_t live = 0;
    for (size_t i = 0; i < old_capacity; i++) live += old[i] && old[i] != &removed_mark;
    size_t grown = crn_max(256, (size_t)4 << crn_log2(live + 1));
    struct crn_extra **fresh = crn_meta_alloc(grown * sizeof(*fresh));
    if (!fresh) return false;
    table = fresh;
    capacity = grown;
    used = 0;
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i] && old[i] != &removed_mark) insert(old[i]);
    }
    crn_meta_free(old, old_capacity * sizeof(*old));
    return true;
}

struct crn_extra *crn_extra_make_locked(void *object, struct crn_block *block) {
    struct crn_extra *extra = crn_extra_find_locked(object);
    if (extra) return extra;
    if ((used + 1) * 2 > capacity && !grow()) return NULL;
    extra = crn_meta_alloc(sizeof(*extra));
    if (!extra) return NULL;
    extra->object = object;
    extra->is_young = __atomic_load_n(crn_count_of(object), __ATOMIC_RELAXED) == 0;
    insert(extra);
    __atomic_store_n(&block->has_extras, true, __ATOMIC_RELAXED);
    return extra;
}

void crn_extra_remove_locked(struct crn_extra *extra) {
    for (size_t i = hash(extra->object);; i++) {
        if (table[i & (capacity - 1)] != extra) continue;
        table[i & (capacity - 1)] = &removed_mark;
        break;
    }
    while (extra->cleanups) {
        struct crn_cleanup *next = extra->cleanups->next;
        crn_meta_free(extra->cleanups, sizeof(*extra->cleanups));
        extra->cleanups = next;
    }
    crn_meta_free(extra, sizeof(*extra));
}

void crn_extras_each_locked(void (*visit)(struct crn_extra *extra, void *context), void *context) {
    for (size_t i = 0; i < capacity; i++) {
        if (table[i] && table[i] != &removed_mark) visit(table[i], context);
    }
}

/* ---- Calls
 * ------------------------------------------------------------------------------------------- */

static bool queue_call(void (*function)(void *), void *argument, bool is_finalizer) {
    struct call *call = crn_meta_alloc(sizeof(*call));
    if (!call) return false;
    *call = (struct call){NULL, function, argument, NULL, is_finalizer};
    *calls_tail = call;
    calls_tail = &call->next;
    __atomic_store_n(&calls_ready, 1, __ATOMIC_RELEASE);
    return true;
}

bool crn_extra_died(void *object, const struct crn_block *block) {
    crn_lock_acquire(&crn_extras_lock);
    struct crn_extra *extra = crn_extra_find_locked(object);
    bool must_live = false;
    if (extra && extra->pin_count) {
        must_live = true;
    } else if (extra && extra->is_finalizable && !extra->is_finalized && !extra->is_deleted) {
        /* Without memory for the queue it stays and is tried again at the next death. */
        must_live = true;
        extra->is_finalized = queue_call(block->type->finalize, object, true);
        extra->is_held = true;
        if (extra->cell) extra->cell->target = NULL;
    } else if (extra) {
        if (extra->cell) extra->cell->target = NULL;
        for (struct crn_cleanup *at = extra->cleanups; at; at = at->next) {
            queue_call(at->function, at->argument, false);
        }
        if (extra->is_deleted) crn_bit_clear(crn_deleted_bit(object));
        crn_extra_remove_locked(extra);
    }
    crn_lock_release(&crn_extras_lock);
    return must_live;
}

static void end_call_locked(struct call *call) {
    if (!call->is_finalizer) {
        crn_meta_free(call, sizeof(*call));
        return;
    }
    call->next = finalized;
    finalized = call;
}

/* A call is off the list of those that run. */
static void note_end(void) {
    __atomic_fetch_add(&calls_ended, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&waiter_count, __ATOMIC_SEQ_CST)) {
        crn_futex_wake(&calls_ended, INT32_MAX);
    }
}

size_t cairn_finalize_pending(void) {
    size_t count = 0;
    for (;; count++) {
        crn_enter();
        crn_lock_acquire(&crn_extras_lock);
        struct call *call = calls;
        if (call) {
            calls = call->next;
            if (!calls) calls_tail = &calls;
            call->next = running;
            call->thread = crn_self();
            running = call;
        }
        crn_lock_release(&crn_extras_lock);
        void *argument = call ? call->argument : NULL;
        crn_leave();
        if (!call) return count;
        call->function(argument);
        cairn_keep(argument);
        crn_enter();
        crn_lock_acquire(&crn_extras_lock);
        struct call **at = &running;
        while (*at != call) at = &(*at)->next;
        *at = call->next;
        end_call_locked(call);
        crn_lock_release(&crn_extras_lock);
        note_end();
        crn_leave();
    }
}

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

void crn_finalized_take(void (*visit)(void *object, void *context), void *context) {
    while (finalized) {
        struct call *call = finalized;
        finalized = call->next;
        struct crn_extra *extra = crn_extra_find_locked(call->argument);
        if (extra) extra->is_held = false;
        visit(call->argument, context);
        crn_meta_free(call, sizeof(*call));
    }
}

static void drop_doomed(struct call **list, crn_is_doomed *is_doomed, const void *context) {
    for (struct call **at = list, *call; (call = *at) != NULL;) {
        if (!call->is_finalizer || !is_doomed(context, call->argument)) {
            at = &call->next;
            continue;
        }
        *at = call->next;
        crn_meta_free(call, sizeof(*call));
    }
}

static void purge_locked(crn_is_doomed *is_doomed, const void *context) {
    drop_doomed(&calls, is_doomed, context);
    calls_tail = &calls;
    while (*calls_tail) calls_tail = &(*calls_tail)->next;
    drop_doomed(&finalized, is_doomed, context);
    for (size_t i = 0; i < capacity; i++) {
        if (!table[i] || table[i] == &removed_mark) continue;
        if (is_doomed(context, table[i]->object)) table[i]->is_finalizable = false;
    }
}

/* Whether another thread runs a finalizer of a doomed object. */
static bool is_running_locked(crn_is_doomed *is_doomed, const void *context) {
    bool is_other = false;
    for (struct call *call = running; call; call = call->next) {
        if (!call->is_finalizer || !is_doomed(context, call->argument)) continue;
        if (call->thread == crn_self())
            call->is_finalizer = false;
        else
            is_other = true;
    }
    return is_other;
}

/* Who waits counts itself before it looks at `running`, under the lock; who has run a call takes it
 * off the list under the lock, then looks whether somebody waits: none sleeps past the last one. */
void crn_finalizers_purge(crn_is_doomed *is_doomed, const void *context) {
    __atomic_fetch_add(&waiter_count, 1, __ATOMIC_SEQ_CST);
    for (bool is_running = true; is_running;) {
        uint32_t seen = __atomic_load_n(&calls_ended, __ATOMIC_SEQ_CST);
        crn_enter();
        crn_lock_acquire(&crn_extras_lock);
        purge_locked(is_doomed, context);
        is_running = is_running_locked(is_doomed, context);
        crn_lock_release(&crn_extras_lock);
        crn_leave();
        if (!is_running) break;
        cairn_blocking_begin();
        crn_futex_wait(&calls_ended, seen);
        cairn_blocking_end();
    }
    __atomic_fetch_sub(&waiter_count, 1, __ATOMIC_SEQ_CST);
}

static void visit_held(struct crn_extra *extra, void *argument) {
    struct held_visit {
        void (*visit)(void *object, void *context);
        void *context;
    } *to = argument;
    if (extra->is_held) to->visit(extra->object, to->context);
}

void crn_finalizers_pending(void (*visit)(void *object, void *context), void *context) {
    struct held_visit {
        void (*visit)(void *object, void *context);
        void *context;
    } to = {visit, context};
    crn_extras_each_locked(visit_held, &to);
}

/* What the lost threads were calling counts as called: each finalizer begins once. */
void crn_finalizers_forget_thread(void) {
    has_thread = false;
    waiter_count = 0;
    for (struct call **at = &running, *call; (call = *at) != NULL;) {
        if (call->thread == crn_self()) {
            at = &call->next;
            continue;
        }
        *at = call->next;
        end_call_locked(call);
    }
}

static void count_waiting(struct crn_extra *extra, void *total) {
    if (extra->is_deleted) ++*(size_t *)total;
}

size_t crn_waiting_count(void) {
    size_t total = 0;
    crn_lock_acquire(&crn_extras_lock);
    crn_extras_each_locked(count_waiting, &total);
    crn_lock_release(&crn_extras_lock);
    return total;
}

/* ---- For programs
 * ------------------------------------------------------------------------------------- */

static struct crn_extra *enter_with_extra(void *object, const char *caller) {
    crn_enter();
    struct crn_block *block = NULL;
    char *start = crn_object_of(object, &block);
    CAIRN_REQUIRE(start && start == object, "%s: %p is not the start of an object", caller, object);
    crn_lock_acquire(&crn_extras_lock);
    return crn_extra_make_locked(object, block);
}

static void leave_extra(void) {
    crn_lock_release(&crn_extras_lock);
    crn_leave();
}

cairn_status cairn_cleanup_add(void *object, void (*function)(void *argument), void *argument) {
    if (!object || !function) return CAIRN_ERROR_ARGUMENT;
    struct crn_extra *extra = enter_with_extra(object, "cairn_cleanup_add");
    struct crn_cleanup *cleanup = extra ? crn_meta_alloc(sizeof(*cleanup)) : NULL;
    if (cleanup) {
        *cleanup = (struct crn_cleanup){NULL, function, argument};
        struct crn_cleanup **tail = &extra->cleanups;
        while (*tail) tail = &(*tail)->next;
        *tail = cleanup;
    }
    leave_extra();
    return cleanup ? CAIRN_OK : CAIRN_ERROR_NO_MEMORY;
}

void *cairn_pin_(void *object) {
    if (!object) return NULL;
    struct crn_extra *extra = enter_with_extra(object, "cairn_pin");
    if (extra) extra->pin_count++;
    leave_extra();
    CAIRN_REQUIRE(extra, "cairn_pin: out of memory");
    return object;
}

void cairn_unpin(const void *object) {
    if (!object) return;
    crn_enter();
    crn_lock_acquire(&crn_extras_lock);
    struct crn_extra *extra = crn_extra_find_locked(object);
    bool is_pinned = extra && extra->pin_count > 0;
    if (is_pinned) extra->pin_count--;
    leave_extra();
    CAIRN_REQUIRE(is_pinned, "cairn_unpin: %p is not pinned", object);
}

static cairn_type cell_type[1] = {
    {.size = sizeof(struct cairn_weak_cell), .align = 8, .name = "weak cell"}};

bool cairn_weak_set(cairn_weak *weak, void *object) {
    void **field = (void **)(uintptr_t)&weak->cell;
    if (!object) {
        cairn_store_(field, NULL);
        return true;
    }
    struct cairn_weak_cell *fresh = cairn_new_type_in(cairn_heap_of(object), cell_type);
    if (!fresh) return false;
    struct crn_extra *extra = enter_with_extra(object, "cairn_weak_set");
    struct cairn_weak_cell *cell = extra ? extra->cell : NULL;
    if (extra && !cell) {
        fresh->target = object;
        extra->cell = cell = fresh;
    }
    leave_extra();
    if (!cell) return false;
    cairn_store_(field, cell);
    return true;
}

/* The target is in a register or on this stack before the next stop: the epoch that would clear the
 * cell finds it there first. */
void *cairn_weak_get(const cairn_weak *weak) {
    const struct cairn_weak_cell *cell =
        __atomic_load_n((struct cairn_weak_cell *const *)&weak->cell, __ATOMIC_ACQUIRE);
    return cell ? __atomic_load_n(&cell->target, __ATOMIC_ACQUIRE) : NULL;
}
