/* SPDX-License-Identifier: MIT
 *
 * The team: threads that a collection has stopped help with its work, as many as there are
 * processors.
 *
 * A stopped thread takes a seat and spins; where there is no seat it sleeps. The coordinator opens
 * a job, works at it, and closes it when nobody works any more. A volunteer first says that it
 * works, then looks whether the job is open; the coordinator first closes, then waits for those who
 * work; both sequentially consistent, so no volunteer works at a closed job. A worker leaves a job
 * only with its own lists and the pool empty, so when all have left the work is done.
 *
 * The pool holds what a worker with much to do gave away because another had nothing. Its lock
 * guards it, the taking of log chunks and of segments, and crn_gc.deferred.
 *
 * The reclaimer's thread, which waits while it has nothing to do, is asked to help with a trace. It
 * takes a seat as it is, BLOCKED: that is standing still, and it leaves like any volunteer.
 */
#include "gc/gc.h"

#include <sched.h>

struct crn_team crn_team;

/* About a fifth of a millisecond: longer than roots usually take, shorter than a trace. */
enum { SPINS_IDLE = 8192, SHARE_MIN = 64, SHARE_MAX = 512 };

bool crn_team_has_work(void) {
    return __atomic_load_n(&crn_team.has_source, __ATOMIC_RELAXED) ||
           __atomic_load_n(&crn_team.pool.count, __ATOMIC_RELAXED) != 0;
}

void crn_team_share(struct crn_stack *stack) {
    if (stack->count < SHARE_MIN) return;
    size_t count = crn_min(stack->count / 2, SHARE_MAX);
    crn_lock_acquire(&crn_team.lock);
    /* The oldest entries are the likeliest to lead to much; the newest take their place. */
    struct crn_stack *pool = &crn_team.pool;
    CAIRN_REQUIRE(pool->count + count <= pool->capacity, "the collector's pool is full");
    for (size_t i = 0; i < count; i++) {
        pool->items[pool->count + i] = stack->items[i];
        stack->items[i] = stack->items[--stack->count];
    }
    __atomic_store_n(&pool->count, pool->count + count, __ATOMIC_RELAXED);
    crn_lock_release(&crn_team.lock);
}

bool crn_team_take(struct crn_stack *stack) {
    struct crn_stack *pool = &crn_team.pool;
    if (__atomic_load_n(&pool->count, __ATOMIC_RELAXED) == 0) return false;
    crn_lock_acquire(&crn_team.lock);
    size_t count = crn_min(pool->count, SHARE_MAX);
    for (size_t i = 0; i < count; i++) crn_push(stack, pool->items[pool->count - 1 - i]);
    __atomic_store_n(&pool->count, pool->count - count, __ATOMIC_RELAXED);
    crn_lock_release(&crn_team.lock);
    return count != 0;
}

void crn_team_give_pair(void *first, void *second) {
    struct crn_stack *pool = &crn_team.pool;
    crn_lock_acquire(&crn_team.lock);
    CAIRN_REQUIRE(pool->count + 2 <= pool->capacity, "the collector's pool is full");
    pool->items[pool->count] = first;
    pool->items[pool->count + 1] = second;
    __atomic_store_n(&pool->count, pool->count + 2, __ATOMIC_RELAXED);
    crn_lock_release(&crn_team.lock);
}

bool crn_team_take_pair(void **first, void **second) {
    struct crn_stack *pool = &crn_team.pool;
    if (__atomic_load_n(&pool->count, __ATOMIC_RELAXED) == 0) return false;
    crn_lock_acquire(&crn_team.lock);
    bool has_any = pool->count != 0;
    if (has_any) {
        *first = pool->items[pool->count - 2];
        *second = pool->items[pool->count - 1];
        __atomic_store_n(&pool->count, pool->count - 2, __ATOMIC_RELAXED);
    }
    crn_lock_release(&crn_team.lock);
    return has_any;
}

void crn_team_run(void (*alone)(struct crn_worker *), void (*together)(struct crn_worker *)) {
    struct crn_worker *first = &crn_gc.workers[0];
    if (!crn_team_has_others()) {
        alone(first);
        crn_worker_flush(first);
        return;
    }
    crn_team.job = together;
    __atomic_store_n(&crn_team.is_open, true, __ATOMIC_SEQ_CST);
    together(first);
    __atomic_fetch_add(&crn_team.hungry, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&crn_team.working, __ATOMIC_SEQ_CST)) {
        if (!crn_team_has_work()) {
            CRN_PAUSE();
            continue;
        }
        __atomic_fetch_sub(&crn_team.hungry, 1, __ATOMIC_RELAXED);
        together(first);
        __atomic_fetch_add(&crn_team.hungry, 1, __ATOMIC_RELAXED);
    }
    __atomic_fetch_sub(&crn_team.hungry, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&crn_team.is_open, false, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&crn_team.working, __ATOMIC_SEQ_CST)) CRN_PAUSE();
    /* One that came between the last look and the closing may have left work in the pool. */
    alone(first);
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) crn_worker_flush(&crn_gc.workers[i]);
}

static unsigned take_seat(void) {
    uint32_t taken = __atomic_load_n(&crn_team.seats_taken, __ATOMIC_RELAXED);
    for (;;) {
        uint32_t free = ~taken & (((uint32_t)1 << crn_team.seat_count) - 1);
        if (!free) return 0;
        uint32_t seat = free & -free;
        if (__atomic_compare_exchange_n(&crn_team.seats_taken, &taken, taken | seat, false,
                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            return (unsigned)__builtin_ctz(seat) + 1;
        }
    }
}

void crn_team_volunteer(struct crn_thread *self) {
    unsigned seat = take_seat();
    if (!seat) return;
    struct crn_worker *worker = &crn_gc.workers[seat];
    worker->thread = self;
    unsigned idle = 0;
    bool is_hungry = false;
    while (__atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE) && idle < SPINS_IDLE) {
        bool is_open = __atomic_load_n(&crn_team.is_open, __ATOMIC_RELAXED);
        if (is_open != is_hungry) {
            __atomic_fetch_add(&crn_team.hungry, is_open ? 1 : (uint32_t)-1, __ATOMIC_RELAXED);
            is_hungry = is_open;
        }
        if (!is_open || !crn_team_has_work()) {
            CRN_PAUSE();
            /* Who works at a job, or traces, may have something to give at any time. */
            idle += !is_open && !__atomic_load_n(&crn_team.is_tracing, __ATOMIC_RELAXED);
            continue;
        }
        idle = 0;
        __atomic_fetch_sub(&crn_team.hungry, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&crn_team.working, 1, __ATOMIC_SEQ_CST);
        crn_checker_hush_begin();
        if (__atomic_load_n(&crn_team.is_open, __ATOMIC_SEQ_CST)) crn_team.job(worker);
        crn_checker_hush_end();
        __atomic_fetch_sub(&crn_team.working, 1, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&crn_team.hungry, 1, __ATOMIC_RELAXED);
    }
    if (is_hungry) __atomic_fetch_sub(&crn_team.hungry, 1, __ATOMIC_RELAXED);
    worker->thread = NULL;
    __atomic_fetch_and(&crn_team.seats_taken, ~((uint32_t)1 << (seat - 1)), __ATOMIC_RELEASE);
}

/* No job is open when memory is copied, but a volunteer of the last stop may not have left its seat
 * yet; whoever it was is gone. */
void crn_team_forget_others(void) {
    crn_team.seats_taken = crn_team.working = crn_team.hungry = 0;
    crn_team.is_open = false;
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) crn_gc.workers[i].thread = NULL;
}
