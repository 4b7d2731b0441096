/* SPDX-License-Identifier: MIT
 *
 * A thread that applies queued decrements beside the program, where a processor is free for it, and
 * helps with traces and with long counting.
 *
 * It is a thread like any other: known to the registry, stopped by collections, waiting as BLOCKED.
 * What it does is death.c's slice, so the argument stands there; while it works, the slow paths of
 * allocation find the slice's lock taken and go on. It starts when an epoch first leaves much to
 * do, and never where CAIRN_RECLAIMER=0 or one processor is all there is. Without it, or when all
 * processors are busy, the slow paths do the work.
 *
 * A stop would wait for its batch to end: microseconds, but many milliseconds where the system has
 * just given its processor to somebody else. So who is about to stop the world for an epoch says
 * that a stop is near, and lets the program go on for a while until this thread rests. This is for
 * the length of pauses only; a stop that comes unannounced, or while it begins to work, waits for
 * it like for any other thread. If none comes it goes on by itself.
 */
#include "gc/gc.h"

enum { WANTED_SLICES = 1, WANTED_HELP = 2 };
static uint32_t wanted; /* futex word; atomic */
/* How long it sleeps in a stop before it looks whether that is over. */
enum { STOP_NS = 200 * 1000, LOOKS_BEFORE_STOP = 10 };
static bool has_thread; /* atomic */
static bool is_at_work; /* atomic; false: it stands still, or nearly works */

/* As a volunteer it is in a no-stop section, like others: a handler of the program must not make it
 * stand still with a job half done. BLOCKED, it has no stop to answer at the section's end. */
static void volunteer(void) {
    cairn_section_enter_();
    crn_team_volunteer(crn_self());
    cairn_thread.no_stop = cairn_thread.no_stop - 1;
}

static bool is_stop_near(void) {
    return __atomic_load_n(&crn_gc.is_stop_near, __ATOMIC_RELAXED);
}

/* Returns when slices are wanted and the world runs. In a stop it helps at once, and again whenever
 * it is asked to. */
static void wait_for_slices(bool are_wanted) {
    cairn_blocking_begin();
    __atomic_store_n(&is_at_work, false, __ATOMIC_RELEASE);
    for (unsigned looks = 0;; looks++) {
        uint32_t what = __atomic_exchange_n(&wanted, 0, __ATOMIC_ACQ_REL);
        if (what & WANTED_SLICES) are_wanted = true;
        bool is_stopped = __atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE);
        if (is_stopped)
            volunteer();
        else if (are_wanted && looks >= LOOKS_BEFORE_STOP)
            __atomic_store_n(&crn_gc.is_stop_near, false, __ATOMIC_RELAXED);
        if (!is_stopped && are_wanted && !is_stop_near()) break;
        /* Nobody tells of a stop's end: it looks. */
        if (are_wanted)
            crn_os_futex_wait_for(&wanted, 0, STOP_NS);
        else
            crn_futex_wait(&wanted, 0);
    }
    cairn_blocking_end();
    __atomic_store_n(&is_at_work, true, __ATOMIC_RELAXED);
}

static void run(void *unused) {
    (void)unused;
    if (cairn_thread_register() != CAIRN_OK) return;
    crn_self()->is_rootless = true; /* what it holds is in lists of the collector's */
    for (bool has_more = false;;) {
        wait_for_slices(has_more);
        bool is_stopped = false;
        do {
            crn_enter();
            crn_count_slice();
            crn_leave();
            has_more = __atomic_load_n(&crn_gc.has_backlog, __ATOMIC_RELAXED);
            is_stopped = __atomic_load_n(&cairn_runtime.stop, __ATOMIC_ACQUIRE);
        } while (has_more && !is_stopped && !is_stop_near());
    }
}

static void ask_for(uint32_t what) {
    if (!crn_settings.has_reclaimer) return;
    bool was_wanted = __atomic_fetch_or(&wanted, what, __ATOMIC_RELEASE) != 0;
    if (!__atomic_load_n(&has_thread, __ATOMIC_RELAXED))
        crn_poll_behind_section();
    else if (!was_wanted)
        crn_futex_wake(&wanted, 1);
}

void crn_reclaim_wake(void) {
    ask_for(WANTED_SLICES);
}

/* A collection that the program asks for does not start the thread: the program may be in a signal
 * handler that interrupted malloc. */
void crn_reclaim_help(void) {
    bool may_start = !crn_self()->entered_at;
    bool has_one = __atomic_load_n(&has_thread, __ATOMIC_RELAXED);
    if (crn_gc.has_spare_processor && (has_one || may_start)) ask_for(WANTED_HELP);
}

void crn_reclaim_start_thread(void) {
    if (!__atomic_load_n(&wanted, __ATOMIC_RELAXED)) return;
    if (__atomic_load_n(&has_thread, __ATOMIC_RELAXED)) return;
    if (__atomic_exchange_n(&has_thread, true, __ATOMIC_ACQ_REL)) return;
    /* Without a thread, at the system's limit say, the slow paths go on alone. */
    (void)crn_os_thread_start(run, NULL);
}

bool crn_reclaim_rests(void) {
    if (!__atomic_load_n(&is_at_work, __ATOMIC_ACQUIRE)) return true;
    __atomic_store_n(&crn_gc.is_stop_near, true, __ATOMIC_RELAXED);
    return false;
}

void crn_reclaim_forget_thread(void) {
    crn_gc.is_stop_near = false;
    __atomic_store_n(&is_at_work, false, __ATOMIC_RELAXED);
    __atomic_store_n(&has_thread, false, __ATOMIC_RELAXED);
}
