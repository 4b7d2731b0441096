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

enum { THREAD_BYTES = 2048, THREADS_AHEAD = 6 };

struct touched {
    char *low, *high;
    struct crn_worker *worker;
};

static void scan_touched(char *low, char *high, void *context) {
    const struct touched *of = context;
    crn_scan_range(low > of->low ? low : of->low, high < of->high ? high : of->high, of->worker);
}

static void scan_if_touched(char *low, char *high, struct crn_worker *worker) {
    struct touched of = {low, high, worker};
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
                                             struct crn_worker *worker) {
    for (const char *at = low; at + sizeof(void *) <= high; at += sizeof(void *)) {
        void *word = *(void *const volatile *)(const void *)at, *from, *to;
        if (__asan_addr_is_in_fake_stack(fake_stack, word, &from, &to)) {
            crn_scan_range(from, to, worker);
        }
    }
}

/* ---- Threads ----------------------------------------------------------------------------------
 */

/* ThreadSanitizer remembers in thread-locals which fields were accessed atomically: no references.
 */
void crn_scan_around_sanitizer(const struct crn_thread *thread, const char *low, const char *high,
                               struct crn_worker *worker) {
    const char *from, *to;
    crn_os_sanitizer_locals(thread->anchor, &from, &to);
    if (from < to && from >= low && to <= high) {
        crn_scan_range(low, from, worker);
        low = to;
    }
    crn_scan_range(low, high, worker);
}

static void scan_stack(const struct crn_thread *thread, const char *low, const char *high,
                       struct crn_worker *worker) {
    crn_scan_around_sanitizer(thread, low, high, worker);
    if (CRN_UNLIKELY(thread->fake_stack != NULL)) {
        scan_fake_frames(thread->fake_stack, low, high, worker);
    }
}

static void scan_own_stack_off_it(const struct crn_thread *thread, struct crn_worker *worker) {
    if (thread->interrupted_at) {
        scan_stack(thread, thread->interrupted_at, thread->stack_high, worker);
    } else {
        scan_if_touched(thread->stack_low, thread->stack_high, worker);
    }
}

static void scan_thread(const struct crn_thread *thread, char *from, struct crn_worker *worker) {
    if (from >= thread->stack_low && from < thread->stack_high) {
        scan_stack(thread, from, thread->stack_high, worker);
    } else {
        if (thread->alternate_high) scan_stack(thread, from, thread->alternate_high, worker);
        scan_own_stack_off_it(thread, worker);
    }
    if (thread->frame_bytes) {
        scan_stack(thread, thread->frame, thread->frame + thread->frame_bytes, worker);
    }
    for (size_t i = 0; i < thread->specifics_in_use; i++) {
        const char *piece = (const char *)thread->specifics[i];
        if (piece) crn_scan_range(piece, piece + CRN_SPECIFIC_PER_PIECE * sizeof(void *), worker);
    }
    crn_images_scan_locals(thread, worker);
}

/* Stacks of many threads are many short stretches, each too short for the processor to see coming.
 * Well ahead a thread's record is fetched, then the first line of its stack, and with it the page's
 * translation; the lines of the next thread while this one is looked at. */
static const struct crn_thread *look_far_ahead(const struct crn_thread *thread) {
    if (!thread) return NULL;
    CRN_PREFETCH_READ(thread->stopped_at);
    CRN_PREFETCH_READ(thread->frame);
    const char *next = (const char *)thread->next;
    if (!next) return NULL;
    CRN_PREFETCH_READ(next);
    CRN_PREFETCH_READ(next + CRN_CACHE_LINE);
    return thread->next;
}

static void look_ahead(const struct crn_thread *thread) {
    if (!thread) return;
    size_t bytes = (size_t)(thread->stack_high - thread->stopped_at);
    if (bytes > THREAD_BYTES) bytes = THREAD_BYTES;
    for (size_t i = 0; i < bytes; i += CRN_CACHE_LINE) CRN_PREFETCH_READ(thread->stopped_at + i);
}

static void scan_threads(const struct crn_thread *first, const struct crn_thread *end,
                         struct crn_worker *worker) {
    const struct crn_thread *ahead = first;
    for (unsigned i = 0; i < THREADS_AHEAD; i++) ahead = look_far_ahead(ahead);
    for (const struct crn_thread *thread = first; thread != end; thread = thread->next) {
        ahead = look_far_ahead(ahead);
        look_ahead(thread->next);
        if (__atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == CRN_THREAD_GONE) continue;
        if (thread->is_rootless) continue;
        scan_thread(thread, thread->stopped_at, worker);
        worker->scanned.threads++;
    }
}

/* ---- Side by side -------------------------------------------------------------------------------
 *
 * Workers take pieces: a few threads at a time, the data of what is loaded, ranges that the program
 * has added. Who is at a long range gives half of it away where another has nothing to do. All only
 * read what stands still, and each notes what it finds in a list of its own.
 */

enum { THREADS_AT_ONCE = 16, PIECE_BYTES = 32 << 10 };

/* What nobody has taken yet, besides the ranges in the team's pool; under the team's lock. */
static struct {
    const struct crn_thread *thread;
    bool has_data, has_handovers;
} untaken;

struct piece {
    enum { PIECE_NONE, PIECE_RANGE, PIECE_THREADS, PIECE_DATA, PIECE_HANDOVERS } kind;
    const char *low, *high;
    const struct crn_thread *first, *end;
};

static void give_range(char *low, char *high, void *unused) {
    (void)unused;
    crn_team_give_pair(low, high);
}

static struct piece take_piece(void) {
    struct piece piece = {.kind = PIECE_NONE};
    void *low, *high;
    if (crn_team_take_pair(&low, &high)) {
        piece.kind = PIECE_RANGE;
        piece.low = low;
        piece.high = high;
        return piece;
    }
    crn_lock_acquire(&crn_team.lock);
    if (untaken.has_data) {
        piece.kind = PIECE_DATA;
        untaken.has_data = false;
    } else if (untaken.thread) {
        piece.kind = PIECE_THREADS;
        piece.first = untaken.thread;
        for (unsigned i = 0; i < THREADS_AT_ONCE && untaken.thread; i++) {
            untaken.thread = untaken.thread->next;
        }
        piece.end = untaken.thread;
    } else if (untaken.has_handovers) {
        piece.kind = PIECE_HANDOVERS;
        untaken.has_handovers = false;
    } else {
        __atomic_store_n(&crn_team.has_source, false, __ATOMIC_RELAXED);
    }
    crn_lock_release(&crn_team.lock);
    return piece;
}

static void note_word(void *word, struct crn_worker *worker) {
    crn_push(&worker->found, word);
}

/* Another worker has nothing to do, or has come while this one was alone. */
static bool is_half_wanted(void) {
    if (CRN_LIKELY(!crn_team_has_others())) return false;
    if (__atomic_load_n(&crn_team.is_open, __ATOMIC_RELAXED)) return crn_team_is_hungry();
    return __atomic_load_n(&crn_team.pool.count, __ATOMIC_RELAXED) == 0;
}

void crn_scan_range(const char *low, const char *high, struct crn_worker *worker) {
    low += -(uintptr_t)low & (sizeof(void *) - 1);
    while (low < high && (size_t)(high - low) > PIECE_BYTES) {
        size_t half = (size_t)(high - low) / 2 & ~(sizeof(void *) - 1);
        if (half >= PIECE_BYTES && is_half_wanted()) {
            give_range((char *)(uintptr_t)low + half, (char *)(uintptr_t)high, NULL);
            high = low + half;
        } else {
            crn_scan_words(low, low + PIECE_BYTES, note_word, worker);
            low += PIECE_BYTES;
        }
    }
    crn_scan_words(low, high, note_word, worker);
}

static void scan_handover(char *low, char *high, void *worker) {
    crn_scan_range(low, high, worker);
}

static void scan_piece(const struct piece *piece, struct crn_worker *worker) {
    if (piece->kind == PIECE_RANGE)
        crn_scan_range(piece->low, piece->high, worker);
    else if (piece->kind == PIECE_DATA)
        crn_images_scan_data(worker);
    else if (piece->kind == PIECE_THREADS)
        scan_threads(piece->first, piece->end, worker);
    else
        crn_handovers_each(scan_handover, worker);
}

static void scan_together(struct crn_worker *worker) {
    for (;;) {
        struct piece piece = take_piece();
        if (piece.kind == PIECE_NONE) return;
        scan_piece(&piece, worker);
    }
}

/* Stops when another has come. */
static void scan_alone(struct crn_worker *worker) {
    while (!crn_team_has_others()) {
        struct piece piece = take_piece();
        if (piece.kind == PIECE_NONE) return;
        scan_piece(&piece, worker);
    }
}

struct crn_scanned crn_scanned(void) {
    struct crn_scanned all = {0, 0};
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) {
        all.bytes += crn_gc.workers[i].scanned.bytes;
        all.threads += crn_gc.workers[i].scanned.threads;
    }
    return all;
}

CRN_NOINLINE void crn_scan_roots(void) {
    struct crn_thread *self = crn_self();
    __builtin_unwind_init();
    char *here = CRN_STACK_POINTER();
    crn_thread_stands_at(self, self->entered_at ? self->entered_at : here, NULL);
    for (unsigned i = 0; i < CRN_WORKERS_MAX; i++) {
        crn_gc.workers[i].found.count = 0;
        crn_gc.workers[i].scanned = (struct crn_scanned){0, 0};
    }
    untaken.thread = crn_threads;
    untaken.has_data = untaken.has_handovers = true;
    crn_roots_each(give_range, NULL);
    __atomic_store_n(&crn_team.has_source, true, __ATOMIC_RELAXED);
    do {
        crn_team_run(scan_alone, scan_together);
    } while (crn_team_has_work());
}
