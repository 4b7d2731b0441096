/* SPDX-License-Identifier: MIT
 *
 * What the context of a fault tells: which address, and whether it was read or written. Method:
 * touch memory that has no access and jump out of the handler.
 */
#include "../test.h"
#include "os/os.h"

static sigjmp_buf touched;
static bool was_write;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    was_write = crn_os_context_is_write(context);
    siglongjmp(touched, 1);
}

struct line {
    long words[8];
};

/* Whether the statement faulted as a write; it must fault. */
#define FAULTS_AS_WRITE(statement)                                                                 \
    (sigsetjmp(touched, 1) == 0 ? ({                                                               \
        statement;                                                                                 \
        fail_msg("no fault");                                                                      \
        false;                                                                                     \
    })                                                                                             \
                                : was_write)

static void fault_tells_reads_from_writes(void **state) {
    (void)state;
    char *memory = crn_os_reserve(CRN_MIB(4), CRN_MIB(4));
    assert_non_null(memory);
    struct sigaction previous;
    assert_true(crn_os_on_signal(SIGSEGV, on_fault, &previous));
    volatile char *byte = memory;
    volatile long *word = (volatile long *)(void *)(memory + 64);
    volatile double *real = (volatile double *)(void *)(memory + 128);
    volatile struct line *line = (volatile struct line *)(void *)(memory + 256);
    assert_false(FAULTS_AS_WRITE((void)*byte));
    assert_false(FAULTS_AS_WRITE((void)*word));
    assert_false(FAULTS_AS_WRITE((void)*real));
    assert_false(FAULTS_AS_WRITE((void)__atomic_load_n(word, __ATOMIC_ACQUIRE)));
    assert_true(FAULTS_AS_WRITE(*byte = 1));
    assert_true(FAULTS_AS_WRITE(*word = 1));
    assert_true(FAULTS_AS_WRITE(*real = 1));
    assert_true(FAULTS_AS_WRITE(*line = (struct line){{0}}));
    assert_true(FAULTS_AS_WRITE(__atomic_store_n(word, 1, __ATOMIC_RELEASE)));
    assert_int_equal(sigaction(SIGSEGV, &previous, NULL), 0);
    crn_os_release(memory, CRN_MIB(4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fault_tells_reads_from_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
