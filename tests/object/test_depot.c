/* SPDX-License-Identifier: MIT
 *
 * The depot: equal stacks have one number and others have others, whatever comes in between and
 * from however many threads; each comes back as it was put; without memory the stack is lost and
 * nothing else.
 */
#include "../test.h"
#include "object/depot.h"
#include "os/os.h"

enum { FRAMES = 12 };
#if CAIRN_TSAN_ || CAIRN_ASAN_
enum { MANY = 100000 };
#else
enum { MANY = 600000 };
#endif

/* The `which`th stack: most of its frames are those of others. */
static unsigned make_stack(uint64_t which, uintptr_t *frames) {
    unsigned count = 1 + (unsigned)(which % FRAMES);
    for (unsigned i = 0; i < count; i++) frames[i] = 0x400000 + i * 16;
    frames[count - 1] += (uintptr_t)which << 8;
    return count;
}

static uint32_t put(uint64_t which) {
    uintptr_t frames[FRAMES];
    unsigned count = make_stack(which, frames);
    return crn_depot_put(frames, count);
}

static void assert_kept(uint32_t number, uint64_t which) {
    uintptr_t wanted[FRAMES], found[FRAMES + 1];
    unsigned count = make_stack(which, wanted);
    assert_int_equal(crn_depot_get(number, found, FRAMES + 1), count);
    assert_memory_equal(found, wanted, count * sizeof(*wanted));
}

/* The first, which has the depot still to open: whichever request fails, a number comes with the
 * next attempt. */
static void lack_of_memory_loses_one_stack(void **state) {
    (void)state;
    uintptr_t frame = 0x1234;
    unsigned lost = 0;
    for (uint64_t request = 1; request <= 3; request++) {
        crn_os_fail_at(request);
        uint32_t number = crn_depot_put(&frame, 1);
        crn_os_fail_at(0);
        lost += number == CRN_STACK_LOST;
        assert_int_equal(crn_depot_get(CRN_STACK_LOST, &frame, 1), 0);
        assert_true(crn_depot_put(&frame, 1) > CRN_STACK_LOST);
        frame += 16;
    }
    assert_int_equal(lost, 1); /* the depot's own memory; later requests were none */
    size_t before = crn_depot_count();
    crn_os_fail_at(1);
    uint64_t which = (uint64_t)MANY * 20;
    while (put(which) != CRN_STACK_LOST) which++; /* until the piece is full */
    assert_true(put(which) > CRN_STACK_LOST);
    assert_true(crn_depot_count() - before > 1000);
    crn_os_fail_at(0);
}

static uint32_t numbers[MANY];

static void stacks_have_one_number_each(void **state) {
    (void)state;
    size_t before = crn_depot_count();
    for (uint64_t i = 0; i < MANY; i++) numbers[i] = put(i);
    assert_int_equal(crn_depot_count() - before, MANY);
    for (uint64_t i = 0; i < MANY; i++) {
        assert_int_equal(put(i), numbers[i]);
        assert_kept(numbers[i], i);
    }
    assert_int_equal(crn_depot_count() - before, MANY);
    uintptr_t few[2];
    assert_int_equal(crn_depot_get(numbers[FRAMES - 1], few, 2), 2);
}

/* A stack that begins like another is another. */
static void prefix_is_another_stack(void **state) {
    (void)state;
    uintptr_t frames[3] = {0x77000, 0x77010, 0};
    assert_int_not_equal(crn_depot_put(frames, 2), crn_depot_put(frames, 1));
    assert_int_not_equal(crn_depot_put(frames, 3), crn_depot_put(frames, 2));
}

enum { THREADS = 8, SHARED = 3000, ROUNDS = 3 };
static uint32_t seen[THREADS][SHARED];

static void *put_all(void *argument) {
    size_t self = (size_t)(uintptr_t)argument;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (uint64_t i = 0; i < SHARED; i++) {
            uint32_t number = put((uint64_t)MANY * 2 + i);
            if (round && seen[self][i] != number) abort();
            seen[self][i] = number;
            uint64_t own = (uint64_t)MANY * (3 + self) + i;
            if (put(own) != put(own)) abort();
        }
    }
    return NULL;
}

static void threads_agree_on_numbers(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    size_t before = crn_depot_count();
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, put_all, (void *)i), 0);
    }
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (uint64_t i = 0; i < SHARED; i++) {
        for (size_t k = 1; k < THREADS; k++) assert_int_equal(seen[k][i], seen[0][i]);
        assert_kept(seen[0][i], (uint64_t)MANY * 2 + i);
    }
    assert_int_equal(crn_depot_count() - before, (size_t)SHARED * (THREADS + 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lack_of_memory_loses_one_stack), /* first: there is no depot yet */
        cmocka_unit_test(stacks_have_one_number_each),
        cmocka_unit_test(prefix_is_another_stack),
        cmocka_unit_test(threads_agree_on_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
