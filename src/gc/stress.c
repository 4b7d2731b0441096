/* SPDX-License-Identifier: MIT
 *
 * CAIRN_STRESS_STOP=N: a thread that collects at random instants, N microseconds apart on average,
 * and stops the others by the signal at once instead of waiting for them to come by.
 *
 * Programs stop where they poll; what must hold at every instruction (the barrier's section, the
 * inline allocator that is stopped anywhere, registers found in the signal frame, threads stopped
 * inside malloc) is only tried if the stop comes anywhere. So here the sleep's random length is the
 * purpose; nothing waits for it. A forked child has no such thread.
 */
#include "gc/gc.h"

enum { TRACE_EVERY = 16 };

/* Exponential waits would need libm; uniform ones up to twice the mean try every instant too. */
static uint64_t draw(uint64_t *random, uint64_t below) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % below;
}

static void run(void *unused) {
    (void)unused;
    if (cairn_thread_register() != CAIRN_OK) return;
    crn_self()->is_rootless = true; /* what it holds is in lists of the collector's */
    uint64_t random = 0x9e3779b97f4a7c15u;
    for (unsigned round = 1;; round++) {
        cairn_blocking_begin();
        crn_os_sleep_ns(draw(&random, 2 * crn_settings.stress_stop_ns));
        cairn_blocking_end();
        crn_enter();
        crn_collect(round % TRACE_EVERY == 0 ? CAIRN_TRACE : CAIRN_COUNT);
        crn_leave();
    }
}

void crn_stress_start(void) {
    if (!crn_settings.stress_stop_ns) return;
    CAIRN_REQUIRE(crn_os_thread_start(run, NULL), "CAIRN_STRESS_STOP: cannot start a thread");
}
