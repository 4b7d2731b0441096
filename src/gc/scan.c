/* SPDX-License-Identifier: MIT
 *
 * Roots outside the heaps: stacks, registers, thread-locals, the data of loaded objects, added
 * ranges.
 *
 * glibc mangles some registers in a jmp_buf, so callee-saved ones are spilled by
 * __builtin_unwind_init into the frame of the function that calls it, which is scanned; the signal
 * frame holds all registers of a thread that was interrupted, vector state included, and lies
 * within the scanned range.
 */
#include "gc/gc.h"

enum { SEGMENTS_MAX = 4096 };

static struct crn_range segments[SEGMENTS_MAX];
static size_t segment_count;

static void note_segment(char *low, char *high, void *context) {
    (void)context;
    if (segment_count < SEGMENTS_MAX) segments[segment_count++] = (struct crn_range){low, high};
}

void crn_scan_prepare(void) {
    segment_count = 0;
    crn_os_data_segments(note_segment, NULL);
}

CRN_NO_SANITIZE void crn_scan_words(const char *low, const char *high, void (*visit)(void *word)) {
    void *const *at = (void *const *)crn_round_up((uintptr_t)low, sizeof(void *));
    void *const *end = (void *const *)((uintptr_t)high & ~(sizeof(void *) - 1));
    char *heaps_low = crn_space.low;
    size_t heaps_bytes = (size_t)(crn_space.high - heaps_low);
    for (; at < end; at++) {
        void *word = *(void *const volatile *)at;
        if (CRN_UNLIKELY((uintptr_t)word - (uintptr_t)heaps_low < heaps_bytes)) visit(word);
    }
}

static void (*touched_visit)(void *word);
static char *touched_low, *touched_high;

static void scan_touched(char *low, char *high, void *context) {
    (void)context;
    crn_scan_words(low > touched_low ? low : touched_low, high < touched_high ? high : touched_high,
                   touched_visit);
}

static void scan_if_touched(char *low, char *high, void (*visit)(void *word)) {
    touched_visit = visit;
    touched_low = low;
    touched_high = high;
    crn_os_touched(low, high, scan_touched, NULL);
}

static void scan_thread(struct crn_thread *thread, char *from, void (*visit)(void *word)) {
    if (thread->interrupted_at) {
        crn_scan_words(from, thread->alternate_high, visit);
        scan_if_touched(thread->interrupted_at, thread->stack_high, visit);
    } else if (from >= thread->stack_low && from < thread->stack_high) {
        crn_scan_words(from, thread->stack_high, visit);
    } else {
        /* A coroutine's stack: its range was added by the program; the own stack is scanned whole.
         */
        scan_if_touched(thread->stack_low, thread->stack_high, visit);
    }
    crn_scan_words((char *)&thread->registers, (char *)(&thread->registers + 1), visit);
    for (size_t i = 0; i < thread->local_count; i++) {
        crn_scan_words(thread->locals[i].low, thread->locals[i].high, visit);
    }
}

static void scan_range(char *low, char *high, void *visit) {
    crn_scan_words(low, high, *(void (**)(void *))visit);
}

CRN_NOINLINE void crn_scan_roots(void (*visit)(void *word)) {
    struct crn_thread *self = crn_self();
    __builtin_unwind_init();
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        if (__atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == CRN_THREAD_GONE) continue;
        char *from = thread == self ? __builtin_frame_address(0) : thread->stopped_at;
        scan_thread(thread, from, visit);
    }
    for (size_t i = 0; i < segment_count; i++) {
        scan_if_touched(segments[i].low, segments[i].high, visit);
    }
    crn_roots_each(scan_range, &visit);
}
