/* SPDX-License-Identifier: MIT
 *
 * fork: the child goes on with a heap in which nothing is half done.
 *
 * Between the prepare handlers and the copy of memory libc takes every lock of malloc, and handlers
 * that were registered before ours take theirs. So nobody may stand still across a fork: a thread
 * that a signal stopped inside malloc would keep its lock for good. What the copy needs is less:
 * that no other thread is in the middle of a slow path. The protocol:
 *
 *   before  lock out newcomers; take the world; stop it; close the gate; start it again
 *   copy    (other threads run, malloc and free, and use the inline paths)
 *   after   open the gate; release the world; let newcomers in
 *
 * The argument:
 *  - A stop finds each known thread outside of slow paths, or at a safepoint of one, where an epoch
 *    could run and so everything is consistent. Behind the safepoint, and at the entry of every
 *    slow path, the gate is asked and waited at while it is closed. It was closed during a stop,
 *    and each thread has read the end of that stop (acquire, of the release in crn_world_start)
 *    before it goes on; so a relaxed load sees it closed. Hence no known thread is between two
 *    safepoints of a slow path when memory is copied, and no lock of the runtime is held, for they
 *    are held in such stretches only; but for the three that the forking thread holds itself.
 *  - A thread that the registry does not know yet cannot be stopped. It is inside the runtime only
 *    while it starts Cairn or becomes known, and holds the newcomers' lock meanwhile. This lock
 *    comes first of all; a known thread that waits for it stands still for whoever stops the world.
 *  - Other threads may be anywhere in the inline paths. The kernel copies each thread's stores up
 *    to some point in their order: a store reaches the page that both will share, or waits until
 *    the fork is over. Inline allocation is one store, to the cursor: a slot is handed out or it is
 *    not, and who got it is gone, so it is a young object that nobody names. An inline store to a
 *    field whose log bit is clear is one store. One whose bit is set goes to the slow path, and at
 *    its entry to the gate: bit set, field unchanged, nothing logged. Hence counts, log and bits
 *    agree, and nothing is to be rebuilt.
 *  - In the child the other threads are as threads that ended: their caches leave their blocks, the
 *    next epoch takes their logs. What the program did with its own locks is the program's affair.
 *  - Volunteers may still be leaving their seats (team.c); the helpers' threads are gone: both are
 *    reset, and helpers start again when they are wanted.
 *
 * A thread at the gate may hold locks of the program. So our handler must be the last to prepare:
 * it is registered when the library is loaded, before any of the program's own, and does nothing
 * until Cairn has started. Handlers that were there even before run while the gate is closed: they
 * must not call Cairn, nor wait for a thread that does.
 *
 * A fork inside the runtime (a handler of reports forks, say) does none of this: locks may be held,
 * and the child may only exec or end. Nor do vfork, _Fork and posix_spawn, whose children may not
 * use Cairn either.
 */
#include "gc/gc.h"

#include <pthread.h>
#include <sched.h>

/* The thread whose fork has closed the gate; atomic, since others compare it with themselves. */
static const struct cairn_thread *forker;

void crn_gate_wait(void) {
    while (__atomic_load_n(&crn_gate, __ATOMIC_ACQUIRE)) crn_futex_wait(&crn_gate, 1);
}

static void close_gate(void) {
    crn_world_take();
    crn_world_stop();
    /* Relaxed: published by the end of the stop. */
    __atomic_store_n(&crn_gate, 1, __ATOMIC_RELAXED);
    crn_world_start();
}

static void open_gate(void) {
    __atomic_store_n(&crn_gate, 0, __ATOMIC_RELEASE);
    crn_futex_wake(&crn_gate, INT32_MAX);
    crn_world_release();
}

static void before_fork(void) {
    if (cairn_thread.no_stop) return;
    cairn_section_enter_();
    while (!crn_lock_try(&crn_newcomers_lock)) {
        crn_stop_if_asked();
        sched_yield();
    }
    __atomic_store_n(&forker, &cairn_thread, __ATOMIC_RELAXED);
    if (crn_default_heap) close_gate();
    cairn_section_leave_();
}

bool crn_gate_is_mine(void) {
    return __atomic_load_n(&forker, __ATOMIC_RELAXED) == &cairn_thread;
}

static void after_fork(void) {
    if (!crn_gate_is_mine()) return;
    cairn_section_enter_();
    __atomic_store_n(&forker, NULL, __ATOMIC_RELAXED);
    if (crn_default_heap) open_gate();
    crn_lock_release(&crn_newcomers_lock);
    cairn_section_leave_();
}

static void after_fork_in_child(void) {
    if (crn_gate_is_mine() && crn_default_heap) {
        crn_gc.standing = 0;
        crn_thread_forget_others();
        crn_team_forget_others();
        crn_handovers_forget_others();
        crn_os_pages_after_fork();
        crn_finalizers_forget_others();
        crn_reclaim_forget_thread();
    }
    after_fork();
}

/* Before every constructor of the program, and so before every handler that it registers. */
__attribute__((constructor(101))) static void register_handlers(void) {
    CAIRN_REQUIRE(pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0,
                  "cannot load: no memory for a fork handler");
}
