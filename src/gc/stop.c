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
 * before. CAIRN_SIGNAL names another.
 *
 * A thread that waits in the kernel must never see EINTR from us. BLOCKED threads get no signal;
 * but one that was seen RUNNING may be BLOCKED by the time its signal comes. So the coordinator
 * sets the thread's signal_due before it looks at the state for the last time, and sends only if
 * that is still RUNNING, else it clears the flag; and a thread says BLOCKED first, then waits until
 * signal_due is clear, which the handler does (Dekker again). So no signal is under way once it
 * enters the call. A signal that comes to a BLOCKED thread does nothing else.
 *
 * A thread may end without running our destructor (a bare exit system call). tgkill then says so,
 * and the coordinator, which looks again from time to time while it waits, takes it off the list.
 *
 * While the world is stopped nothing is called that takes a lock of libc.
 */
#define _GNU_SOURCE
#include "gc/gc.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

enum { SPINS_BEFORE_SIGNAL = 500, SPINS_BEFORE_SLEEP = 2000 };
/* How long the coordinator sleeps before it asks whether the thread still exists, and how long a
 * thread waits for a signal that it keeps blocked. */
#define PATIENCE_NS UINT64_C(20000000)

bool crn_stop_is_installed;
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

void crn_thread_stands_at(struct crn_thread *self, char *low, const void *context) {
    self->stopped_at = low;
    self->interrupted_at = self->alternate_high = NULL;
    self->fake_stack = crn_fake_stack();
    if (CRN_LIKELY(low >= self->stack_low && low < self->stack_high)) return;
    self->alternate_high =
        context ? crn_os_context_alternate_stack_end(context) : crn_os_alternate_stack_end();
    if (!context) return;
    char *interrupted = (char *)crn_os_context_stack_pointer(context);
    bool was_on_stack = interrupted >= self->stack_low && interrupted < self->stack_high;
    if (was_on_stack) self->interrupted_at = interrupted - 128;
}

/* Who would stop the world again at once lets those go on first that wait here. */
static void await_start(void) {
    if (CRN_LIKELY(!__atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE))) return;
    __atomic_fetch_add(&crn_gc.standing, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE)) {
        crn_futex_wait(&cairn_runtime.stop, 1);
    }
    __atomic_fetch_sub(&crn_gc.standing, 1, __ATOMIC_RELAXED);
}

/* The callee-saved registers lie in this frame, the caller's frames above it. */
static CRN_NOINLINE void stand_still(struct crn_thread *self, const void *context) {
    __builtin_unwind_init();
    crn_thread_stands_at(self, CRN_STACK_POINTER(), context);
    do {
        __atomic_store_n(&self->state, CRN_THREAD_STOPPED, __ATOMIC_SEQ_CST);
        answer();
        /* Not from a handler on another stack: those are small. */
        if (!self->alternate_high) crn_team_volunteer(self);
        await_start();
        __atomic_store_n(&self->state, CRN_THREAD_RUNNING, __ATOMIC_SEQ_CST);
    } while (__atomic_load_n(&cairn_runtime.stop, __ATOMIC_SEQ_CST));
}

void crn_stop_if_asked(void) {
    struct crn_thread *self = crn_self();
    if (CRN_LIKELY(!__atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE))) return;
    if (!self) {
        answer(); /* a thread that has just gone */
        return;
    }
    /* A handler that interrupted who stops the others does not wait for itself. */
    if (CRN_UNLIKELY(self->holds_world)) return;
    stand_still(self, NULL);
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

/* ---- The signal -------------------------------------------------------------------------------
 */

static void pass_on(int signal, siginfo_t *info, void *context) {
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(signal, info, context);
    else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
        previous.sa_handler(signal);
}

static void on_stop_signal(int signal, siginfo_t *info, void *context) {
    int saved_errno = errno, cancel_state;
    struct crn_thread *self = crn_self();
    /* One that stands still goes on before it is cancelled, and is not before it is out of here. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    bool is_ours = self && __atomic_exchange_n(&self->signal_due, 0, __ATOMIC_SEQ_CST);
    if (!is_ours) {
        pass_on(signal, info, context);
    } else if (__atomic_load_n(&self->state, __ATOMIC_RELAXED) == CRN_THREAD_RUNNING &&
               __atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE)) {
        if (cairn_thread.no_stop) {
            cairn_thread.deferred = 1;
        } else {
            cairn_thread.no_stop = 1;
            stand_still(self, context);
            cairn_thread.no_stop = 0;
        }
    }
    pthread_setcancelstate(cancel_state, NULL);
    errno = saved_errno;
}

void crn_stop_exchange_action(const struct sigaction *action, struct sigaction *old) {
    struct sigaction before = previous;
    if (action) previous = *action;
    if (old) *old = before;
}

bool crn_stop_init(void) {
    crn_stop_is_installed = crn_os_on_signal(crn_os_stop_signal, on_stop_signal, &previous);
    return crn_stop_is_installed;
}

/* ---- The coordinator --------------------------------------------------------------------------
 */

static bool is_still(struct crn_thread *thread) {
    return __atomic_load_n(&thread->state, __ATOMIC_SEQ_CST) != CRN_THREAD_RUNNING;
}

/* One at a time: a second one could come after the handler has cleared the flag for the first. */
static void signal_thread(struct crn_thread *thread) {
    if (__atomic_exchange_n(&thread->signal_due, 1, __ATOMIC_SEQ_CST)) return;
    if (is_still(thread)) {
        __atomic_store_n(&thread->signal_due, 0, __ATOMIC_SEQ_CST);
    } else if (!crn_os_signal_thread(thread->thread_id, crn_os_stop_signal)) {
        crn_thread_abandon(thread);
    }
}

static void sleep_until_answer(struct crn_thread *thread) {
    uint32_t seen = __atomic_load_n(&answers, __ATOMIC_SEQ_CST);
    __atomic_store_n(&is_waiting, 1, __ATOMIC_SEQ_CST);
    if (!is_still(thread)) {
        crn_os_futex_wait_for(&answers, seen, PATIENCE_NS);
        /* Signal 0 only asks. */
        bool is_lost = __atomic_load_n(&answers, __ATOMIC_RELAXED) == seen &&
                       !crn_os_signal_thread(thread->thread_id, 0);
        if (is_lost && !is_still(thread)) crn_thread_abandon(thread);
    }
    __atomic_store_n(&is_waiting, 0, __ATOMIC_SEQ_CST);
}

/* The first of the list from here on that still runs. Whoever stands still stays so: see end_wait.
 */
static struct crn_thread *next_running(struct crn_thread *thread) {
    while (thread && (thread == crn_self() || is_still(thread))) thread = thread->next;
    return thread;
}

static void wait_for(struct crn_thread *thread) {
    for (unsigned spins = 0; !is_still(thread); spins++) {
        if (spins < SPINS_BEFORE_SLEEP)
            CRN_PAUSE();
        else
            sleep_until_answer(thread);
    }
}

/* Most threads come by on their own; the others get their signals together and answer side by side.
 */
void crn_world_stop(void) {
    unsigned patience = crn_settings.stress_stop_ns ? 0 : SPINS_BEFORE_SIGNAL;
    crn_lock_acquire(&crn_threads_lock);
    __atomic_store_n(&cairn_runtime.stop, 1, __ATOMIC_SEQ_CST);
    struct crn_thread *first = next_running(crn_threads);
    for (unsigned spins = 0; first && spins < patience; spins++) {
        CRN_PAUSE();
        first = next_running(first);
    }
    for (struct crn_thread *thread = first; thread; thread = next_running(thread->next)) {
        signal_thread(thread);
    }
    for (struct crn_thread *thread = first; thread; thread = next_running(thread->next)) {
        wait_for(thread);
    }
    crn_checker_hush_begin(); /* whoever stops the world looks at stacks and at dead objects */
}

void crn_world_start(void) {
    crn_checker_hush_end();
    crn_deaths_happened();
    __atomic_store_n(&cairn_runtime.stop, 0, __ATOMIC_SEQ_CST);
    crn_lock_release(&crn_threads_lock);
    crn_futex_wake(&cairn_runtime.stop, INT32_MAX);
}

/* ---- Calls that may wait ----------------------------------------------------------------------
 */

/* A signal that is on its way arrives here and not in the call. One that the thread keeps blocked
 * does not arrive, and does not interrupt the call either. */
static void await_signal(struct crn_thread *self) {
#if !CAIRN_TSAN_ /* ThreadSanitizer delivers signals in calls only */
    if (CRN_LIKELY(!__atomic_load_n(&self->signal_due, __ATOMIC_SEQ_CST))) return;
    uint64_t until = crn_os_now_ns() + PATIENCE_NS;
    while (__atomic_load_n(&self->signal_due, __ATOMIC_SEQ_CST) && crn_os_now_ns() < until) {
        sched_yield();
    }
#else
    (void)self;
#endif
}

CRN_NO_SANITIZE static void copy_words(char *to, const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += sizeof(void *)) {
        *(void *volatile *)(void *)(to + i) = *(void *const volatile *)(const void *)(from + i);
    }
}

/* In the frame of who calls it. That goes when the function returns, and with it the registers of
 * its caller that it saved: a copy is kept and scanned. */
__attribute__((always_inline)) static inline void begin_wait(struct crn_thread *self) {
    if (self->blocking_depth++) return;
    cairn_section_enter_();
    __builtin_unwind_init();
    char *low = CRN_STACK_POINTER(), *high = __builtin_dwarf_cfa();
    size_t bytes = (size_t)(high - low);
    CAIRN_REQUIRE(bytes <= CRN_FRAME_BYTES, "internal error: a frame of %zu bytes", bytes);
    self->frame_bytes = (uint16_t)bytes;
    copy_words(self->frame, low, bytes);
    crn_thread_stands_at(self, high, NULL);
    __atomic_store_n(&self->state, CRN_THREAD_BLOCKED, __ATOMIC_SEQ_CST);
    answer();
    /* Not cairn_section_leave_: a stop is welcome from here on, and needs no poll. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cairn_thread.no_stop = cairn_thread.no_stop - 1;
    await_signal(self);
}

/* Stays BLOCKED while a stop lasts: the coordinator may be reading stopped_at. In a no-stop
 * section, for a handler that stood still here would leave its own stopped_at behind. */
static void end_wait(struct crn_thread *self) {
    /* A thread that became known since it began has nothing to end. */
    if (!self->blocking_depth || --self->blocking_depth) return;
    cairn_section_enter_();
    for (;;) {
        await_start();
        __atomic_store_n(&self->state, CRN_THREAD_RUNNING, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&cairn_runtime.stop, __ATOMIC_SEQ_CST)) break;
        __atomic_store_n(&self->state, CRN_THREAD_BLOCKED, __ATOMIC_SEQ_CST);
        answer();
    }
    self->frame_bytes = 0;
    cairn_section_leave_();
}

/* In a section there is no stop to answer: a report's handler waits, perhaps in one of its own. */
CRN_NOINLINE void cairn_blocking_begin(void) {
    struct crn_thread *self = crn_self();
    if (self && !cairn_thread.no_stop) begin_wait(self);
}

void cairn_blocking_end(void) {
    struct crn_thread *self = crn_self();
    if (self && !cairn_thread.no_stop) end_wait(self);
}

CRN_NOINLINE void crn_wait_begin(void) {
    begin_wait(crn_self());
}

void crn_wait_end(void) {
    end_wait(crn_self());
}
