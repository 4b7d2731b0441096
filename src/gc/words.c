/* SPDX-License-Identifier: MIT
 *
 * Looking through memory for words that may be pointers into a heap.
 */
#include "gc/gc.h"

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

/* Where visiting twice has no effect words met lately are passed over: recursion repeats them. */
enum { RECENT = 16 };

enum { BYTES_AHEAD = 1024 };

CRN_INLINE CRN_NO_SANITIZE void look_at(const struct range_test *test, const char *at,
                                        void *recent[RECENT], crn_word_visit *visit,
                                        struct crn_worker *worker) {
    void *word = *(void *const volatile *)(const void *)at;
    if (CRN_LIKELY((uintptr_t)word - test->low >= test->bytes)) return;
    if (CRN_UNLIKELY(crn_checker_is_valgrind)) word = crn_checker_written(word);
    if (recent) {
        void **last = &recent[(uintptr_t)word >> 4 & (RECENT - 1)];
        if (*last == word) return;
        *last = word;
    }
    visit(word, worker);
}

CRN_INLINE CRN_NO_SANITIZE void scan(const char *low, const char *high, void *recent[RECENT],
                                     crn_word_visit *visit, struct crn_worker *worker) {
    if (low >= high) return;
    worker->scanned.bytes += (uint64_t)(high - low);
    enum { WORD = sizeof(void *) };
    const struct range_test test = range_test_of(crn_space.low, crn_space.high);
    const char *at = low + (-(uintptr_t)low & (WORD - 1));
    const char *end = high - ((uintptr_t)high & (WORD - 1));
    for (; end - at >= 8 * WORD; at += 8 * WORD) {
        /* Not beyond the end: a guard page there would be looked up each time in vain. */
        if (end - at > BYTES_AHEAD) CRN_PREFETCH_READ(at + BYTES_AHEAD);
        if (CRN_LIKELY(!may_hold_any(&test, at))) continue;
        for (size_t i = 0; i < 8; i++) look_at(&test, at + i * WORD, recent, visit, worker);
    }
    for (; at < end; at += WORD) look_at(&test, at, recent, visit, worker);
}

CRN_NO_SANITIZE void crn_scan_words(const char *low, const char *high, crn_word_visit *visit,
                                    struct crn_worker *worker) {
    void *recent[RECENT] = {NULL};
    scan(low, high, recent, visit, worker);
}

CRN_NO_SANITIZE void crn_scan_every_word(const char *low, const char *high, crn_word_visit *visit,
                                         struct crn_worker *worker) {
    scan(low, high, NULL, visit, worker);
}
