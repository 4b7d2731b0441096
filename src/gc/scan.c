/* SPDX-License-Identifier: MIT
 *
 * Roots outside the heaps: where a pointer may hide, and how it is seen.
 *
 * A thread's stack is scanned from where the thread stands to the stack's end. That holds
 *  - callee-saved registers: __builtin_unwind_init spills them into the frame of the function that
 *    calls it; stop.c scans from that frame's lowest byte, or keeps a copy of it;
 *  - all registers of a thread that the signal interrupted, vector state included: the kernel saved
 *    them in the signal frame, above the handler, and kept clear of the red zone;
 *  - static thread-locals, pthread arguments and the first pthread_setspecific values, where the C
 *    library puts the thread's descriptor at the stack's end; static_locals names the place if not.
 * A thread that stands on an alternate signal stack has two: that one is scanned up to its end, its
 * own from where the signal interrupted it (less 128 bytes of red zone), or as a whole if unknown.
 * A thread on a stack of the program's own making has its own scanned as a whole, and the other by
 * cairn_stack_add. AddressSanitizer's fake frames are scanned where a word of the stack points into
 * one: the frame's owner keeps its address there. Dynamic thread-locals and data: images.c.
 *
 * A thread that waits is scanned anew at every epoch: others may write into its frames meanwhile,
 * through pointers to its local variables, so what was found last time proves nothing.
 */
#include "gc/gc.h"

/* ---- Words ------------------------------------------------------------------------------------
 */

/* Eight words at a time: their upper halves are compared, four in a vector, with the upper halves
 * of the heaps' bounds; only then is each word looked at. Signed compares, for x86-64 has no
 * unsigned ones: x in [low, low + span] == (int)(x - low + INT_MIN) < (int)(span + 1 + INT_MIN). */
typedef int32_t lanes __attribute__((vector_size(16)));
typedef lanes stored_lanes __attribute__((aligned(8), may_alias));
typedef int64_t pair __attribute__((vector_size(16)));

struct range_test {
    lanes bias, limit;
    uintptr_t low, bytes;
};

static struct range_test range_test_of(const char *low, const char *high) {
    uint32_t first = (uint32_t)((uintptr_t)low >> 32);
    uint32_t last = (uint32_t)(((uintptr_t)high - 1) >> 32);
    int32_t bias = (int32_t)(0x80000000u - first);
    int32_t limit = (int32_t)(last - first + 1 + 0x80000000u);
    return (struct range_test){(lanes){bias, bias, bias, bias}, (lanes){limit, limit, limit, limit},
                               (uintptr_t)low, (uintptr_t)high - (uintptr_t)low};
}

CRN_INLINE CRN_NO_SANITIZE bool may_hold_any(const struct range_test *test, const char *eight) {
    const stored_lanes *at = (const stored_lanes *)(const void *)eight;
    lanes front = __builtin_shufflevector(at[0], at[1], 1, 3, 5, 7);
    lanes back = __builtin_shufflevector(at[2], at[3], 1, 3, 5, 7);
    pair hits = (pair)((front + test->bias < test->limit) | (back + test->bias < test->limit));
    return (hits[0] | hits[1]) != 0;
}

struct crn_scanned crn_scanned;

/* Where visiting twice has no effect words met lately are passed over: recursion repeats them. */
enum { RECENT = 16 };

enum { CACHE_LINE = 64, LINES_AHEAD = 16, THREAD_LINES = 32 };

CRN_INLINE CRN_NO_SANITIZE void look_at(const struct range_test *test, const char *at,
                                        void *recent[RECENT], void (*visit)(void *word)) {
    void *word = *(void *const volatile *)(const void *)at;
    if (CRN_LIKELY((uintptr_t)word - test->low >= test->bytes)) return;
    if (recent) {
        void **last = &recent[(uintptr_t)word >> 4 & (RECENT - 1)];
        if (*last == word) return;
        *last = word;
    }
    visit(word);
}

CRN_INLINE CRN_NO_SANITIZE void scan(const char *low, const char *high, void *recent[RECENT],
                                     void (*visit)(void *word)) {
    if (low >= high) return;
    crn_scanned.bytes += (uint64_t)(high - low);
    enum { WORD = sizeof(void *) };
    const struct range_test test = range_test_of(crn_space.low, crn_space.high);
    const char *at = low + (-(uintptr_t)low & (WORD - 1));
    const char *end = high - ((uintptr_t)high & (WORD - 1));
    for (; end - at >= 8 * WORD; at += 8 * WORD) {
        CRN_PREFETCH_READ(at + LINES_AHEAD * CACHE_LINE);
        if (CRN_LIKELY(!may_hold_any(&test, at))) continue;
        for (size_t i = 0; i < 8; i++) look_at(&test, at + i * WORD, recent, visit);
    }
    for (; at < end; at += WORD) look_at(&test, at, recent, visit);
}

CRN_NO_SANITIZE void crn_scan_words(const char *low, const char *high, void (*visit)(void *word)) {
    void *recent[RECENT] = {NULL};
    scan(low, high, recent, visit);
}

CRN_NO_SANITIZE void crn_scan_every_word(const char *low, const char *high,
                                         void (*visit)(void *word)) {
    scan(low, high, NULL, visit);
}

struct touched {
    char *low, *high;
    void (*visit)(void *word);
};

static void scan_touched(char *low, char *high, void *context) {
    const struct touched *of = context;
    crn_scan_words(low > of->low ? low : of->low, high < of->high ? high : of->high, of->visit);
}

static void scan_if_touched(char *low, char *high, void (*visit)(void *word)) {
    struct touched of = {low, high, visit};
    crn_os_touched(low, high, false, scan_touched, &of);
}

/* ---- AddressSanitizer's fake stacks -----------------------------------------------------------
 */

__attribute__((weak)) void *__asan_get_current_fake_stack(void);
__attribute__((weak)) void *__asan_addr_is_in_fake_stack(void *fake_stack, void *address,
                                                         void **low, void **high);

void *crn_fake_stack(void) {
    return __asan_get_current_fake_stack ? __asan_get_current_fake_stack() : NULL;
}

CRN_NO_SANITIZE static void scan_fake_frames(void *fake_stack, const char *low, const char *high,
                                             void (*visit)(void *word)) {
    for (const char *at = low; at + sizeof(void *) <= high; at += sizeof(void *)) {
        void *word = *(void *const volatile *)(const void *)at, *from, *to;
        if (__asan_addr_is_in_fake_stack(fake_stack, word, &from, &to)) {
            crn_scan_words(from, to, visit);
        }
    }
}

/* ---- Threads ----------------------------------------------------------------------------------
 */

/* ThreadSanitizer remembers in thread-locals which fields were accessed atomically: no references.
 */
void crn_scan_around_sanitizer(const struct crn_thread *thread, const char *low, const char *high,
                               void (*visit)(void *word)) {
    const char *from, *to;
    crn_os_sanitizer_locals(thread->anchor, &from, &to);
    if (from < to && from >= low && to <= high) {
        crn_scan_words(low, from, visit);
        low = to;
    }
    crn_scan_words(low, high, visit);
}

static void scan_stack(const struct crn_thread *thread, const char *low, const char *high,
                       void (*visit)(void *word)) {
    crn_scan_around_sanitizer(thread, low, high, visit);
    if (CRN_UNLIKELY(thread->fake_stack != NULL)) {
        scan_fake_frames(thread->fake_stack, low, high, visit);
    }
}

static void scan_own_stack_off_it(const struct crn_thread *thread, void (*visit)(void *word)) {
    if (thread->interrupted_at) {
        scan_stack(thread, thread->interrupted_at, thread->stack_high, visit);
    } else {
        scan_if_touched(thread->stack_low, thread->stack_high, visit);
    }
}

static void scan_thread(const struct crn_thread *thread, char *from, void (*visit)(void *word)) {
    if (from >= thread->stack_low && from < thread->stack_high) {
        scan_stack(thread, from, thread->stack_high, visit);
    } else {
        if (thread->alternate_high) scan_stack(thread, from, thread->alternate_high, visit);
        scan_own_stack_off_it(thread, visit);
    }
    if (thread->frame_bytes) {
        scan_stack(thread, thread->frame, thread->frame + thread->frame_bytes, visit);
    }
    for (size_t i = 0; i < CRN_SPECIFIC_PIECES; i++) {
        const char *piece = (const char *)thread->specifics[i];
        if (piece) crn_scan_words(piece, piece + CRN_SPECIFIC_PER_PIECE * sizeof(void *), visit);
    }
    crn_images_scan_locals(thread, visit);
}

static void scan_range(char *low, char *high, void *visit) {
    crn_scan_words(low, high, *(void (**)(void *))visit);
}

/* Stacks of many threads are many short stretches, each too short for the processor to see coming:
 * the next one is fetched while this one is looked at. */
static void prefetch_thread(const struct crn_thread *thread) {
    if (!thread) return;
    if (thread->next) CRN_PREFETCH_READ(&thread->next->stopped_at);
    size_t bytes = (size_t)(thread->stack_high - thread->stopped_at);
    if (bytes > THREAD_LINES * CACHE_LINE) bytes = THREAD_LINES * CACHE_LINE;
    for (size_t i = 0; i < bytes; i += CACHE_LINE) CRN_PREFETCH_READ(thread->stopped_at + i);
}

CRN_NOINLINE void crn_scan_roots(void (*visit)(void *word)) {
    struct crn_thread *self = crn_self();
    __builtin_unwind_init();
    char *here = CRN_STACK_POINTER();
    crn_thread_stands_at(self, self->entered_at ? self->entered_at : here, NULL);
    crn_scanned = (struct crn_scanned){0, 0};
    for (struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        prefetch_thread(thread->next);
        if (__atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == CRN_THREAD_GONE) continue;
        if (thread->is_rootless) continue;
        scan_thread(thread, thread->stopped_at, visit);
        crn_scanned.threads++;
    }
    crn_images_scan_data(visit);
    crn_roots_each(scan_range, &visit);
    crn_handovers_each(scan_range, &visit);
}
