/* SPDX-License-Identifier: MIT
 *
 * Stopping the world.
 *
 * A thread is RUNNING, STOPPED or BLOCKED. The coordinator sets `stop`, then waits until no other
 * thread is RUNNING; a thread that leaves STOPPED or BLOCKED first says RUNNING, then looks at
 * `stop`. Both sides store before they load, sequentially consistent, so at least one sees the
 * other (Dekker): either the coordinator sees RUNNING and waits, or the thread sees `stop` and
 * stands still again.
 *
 * Who does not answer within a few microseconds gets the stop signal. A signal that finds its
 * thread in a no-stop section sets `deferred` and returns: the section's end polls. SIGURG by
 * default: ignored where nobody listens, used by few, and passed on to a handler that was there
 * before.
 *
 * While the world is stopped nothing is called that takes a lock of libc.
 */
#define _GNU_SOURCE
#include "gc/gc.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <ucontext.h>

enum { SPINS_BEFORE_SIGNAL = 500, SPINS_BEFORE_SLEEP = 2000 };

static struct sigaction previous;

/* The coordinator sleeps on `answers` once it has waited for a while: on a busy machine the thread
 * that it waits for may need its processor. It sets is_waiting, then looks at the thread's state; a
 * thread sets its state, then looks at is_waiting: one sees the other. */
static uint32_t answers, is_waiting;

static void answer(void) {
    if (CRN_LIKELY(!__atomic_load_n(&is_waiting, __ATOMIC_SEQ_CST))) return;
    __atomic_fetch_add(&answers, 1, __ATOMIC_SEQ_CST);
    crn_futex_wake(&answers, 1);
}

/* Registers go to this frame, which lies above stopped_at; the caller's frames lie above it. */
static CRN_NOINLINE void stand_still(struct crn_thread *self) {
    jmp_buf registers;
    __builtin_unwind_init();
    (void)setjmp(registers);
    char *here = __builtin_frame_address(0);
    self->stopped_at = (char *)registers < here ? (char *)registers : here;
    do {
        __atomic_store_n(&self->state, CRN_THREAD_STOPPED, __ATOMIC_SEQ_CST);
        answer();
        /* Not from a handler on another stack: those are small. */
        if (!self->interrupted_at) crn_team_volunteer(self);
        while (__atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE)) {
            crn_futex_wait(&cairn_runtime.stop, 1);
        }
        __atomic_store_n(&self->state, CRN_THREAD_RUNNING, __ATOMIC_SEQ_CST);
    } while (__atomic_load_n(&cairn_runtime.stop, __ATOMIC_SEQ_CST));
    self->was_signalled = false;
}

void crn_stop_if_asked(void) {
    struct crn_thread *self = crn_self();
    if (CRN_LIKELY(!__atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE))) return;
    if (!self) {
        answer(); /* a thread that has just gone */
        return;
    }
    stand_still(self);
    crn_gate_pass();
}

/* pthread_create allocates. In a section it would wait for a lock of malloc that a thread holds
 * which a coordinator has stopped, and the coordinator for the section: so here, outside of all. */
static void start_threads(void) {
    if (!crn_self()) return; /* it has just ended, and would become known again */
    crn_finalizers_start_thread();
    crn_reclaim_start_thread();
}

void cairn_stop_poll_(void) {
    if (cairn_thread.no_stop) return;
    cairn_thread.deferred = 0;
    cairn_thread.no_stop = 1;
    struct crn_thread *self = crn_self();
    /* What full chunks ask for is a slow path like others; the thread that forks has no time for
     * it. */
    bool is_forking = crn_gate_is_mine();
    if (self && !is_forking) crn_gate_pass();
    if (self && !is_forking && self->full_chunks) crn_hooks.logged();
    crn_stop_if_asked();
    cairn_thread.no_stop = 0;
    if (!is_forking) start_threads();
}

/* Where the interrupted code's stack is, if the handler runs on another one. */
static void note_stacks(struct crn_thread *self, const ucontext_t *context) {
    char *interrupted = (char *)crn_os_context_stack_pointer(context);
    char *here = __builtin_frame_address(0);
    bool is_here_on_stack = here >= self->stack_low && here < self->stack_high;
    self->interrupted_at = NULL;
    if (is_here_on_stack) return;
    bool was_on_stack = interrupted >= self->stack_low && interrupted < self->stack_high;
    self->interrupted_at = was_on_stack ? interrupted - 128 : self->stack_low;
    self->alternate_high = (char *)context->uc_stack.ss_sp + context->uc_stack.ss_size;
}

static void on_stop_signal(int signal, siginfo_t *info, void *context) {
    int saved_errno = errno;
    struct crn_thread *self = crn_self();
    if (self && __atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE)) {
        if (cairn_thread.no_stop) {
            cairn_thread.deferred = 1;
        } else {
            cairn_thread.no_stop = 1;
            note_stacks(self, context);
            stand_still(self);
            self->interrupted_at = NULL;
            cairn_thread.no_stop = 0;
        }
    } else if (info->si_code != SI_TKILL) {
        if (previous.sa_flags & SA_SIGINFO)
            previous.sa_sigaction(signal, info, context);
        else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
            previous.sa_handler(signal);
    }
    errno = saved_errno;
}

bool crn_stop_init(void) {
    return crn_os_on_signal(CRN_STOP_SIGNAL, on_stop_signal, &previous);
}

static bool is_still(struct crn_thread *thread) {
    return __atomic_load_n(&thread->state, __ATOMIC_SEQ_CST) != CRN_THREAD_RUNNING;
}

static void wait_for(struct crn_thread *thread) {
    for (unsigned spins = 0; !is_still(thread); spins++) {
        if (spins == SPINS_BEFORE_SIGNAL) crn_os_signal_thread(thread->thread_id, CRN_STOP_SIGNAL);
        /* One that is ending answers, or is gone for the kernel soon: no sleep would be woken. */
        if (CRN_UNLIKELY(thread->is_ending) && spins > SPINS_BEFORE_SIGNAL) {
            if (!crn_os_signal_thread(thread->thread_id, 0)) crn_thread_is_gone(thread);
            sched_yield();
            continue;
        }
        if (spins < SPINS_BEFORE_SLEEP) {
            CRN_PAUSE();
            continue;
        }
        uint32_t seen = __atomic_load_n(&answers, __ATOMIC_SEQ_CST);
        __atomic_store_n(&is_waiting, 1, __ATOMIC_SEQ_CST);
        if (!is_still(thread)) crn_futex_wait(&answers, seen);
        __atomic_store_n(&is_waiting, 0, __ATOMIC_SEQ_CST);
    }
}

void crn_world_stop(void) {
    struct crn_thread *self = crn_self();
    crn_lock_acquire(&crn_threads_lock);
    __atomic_store_n(&cairn_runtime.stop, 1, __ATOMIC_SEQ_CST);
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        if (thread != self) wait_for(thread);
    }
}

void crn_world_start(void) {
    __atomic_store_n(&cairn_runtime.stop, 0, __ATOMIC_SEQ_CST);
    crn_lock_release(&crn_threads_lock);
    crn_futex_wake(&cairn_runtime.stop, INT32_MAX);
}

/* ---- Calls that may wait
 * -------------------------------------------------------------------------------- */

CRN_NOINLINE void cairn_blocking_begin(void) {
    struct crn_thread *self = crn_self();
    /* In a section there is no stop to answer: a report's handler waits, perhaps in one of its own.
     */
    if (!self || cairn_thread.no_stop || self->blocking_depth++) return;
    /* The caller's registers outlive this frame: they are kept with the thread and scanned there.
     */
    __builtin_unwind_init();
    (void)setjmp(self->registers);
    self->stopped_at = __builtin_frame_address(0);
    __atomic_store_n(&self->state, CRN_THREAD_BLOCKED, __ATOMIC_SEQ_CST);
    answer();
}

/* Stays BLOCKED while a stop lasts: the coordinator may be reading stopped_at. */
void cairn_blocking_end(void) {
    struct crn_thread *self = crn_self();
    if (!self || cairn_thread.no_stop || --self->blocking_depth) return;
    for (;;) {
        while (__atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE)) {
            crn_futex_wait(&cairn_runtime.stop, 1);
        }
        __atomic_store_n(&self->state, CRN_THREAD_RUNNING, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&cairn_runtime.stop, __ATOMIC_SEQ_CST)) return;
        __atomic_store_n(&self->state, CRN_THREAD_BLOCKED, __ATOMIC_SEQ_CST);
        answer();
    }
}
