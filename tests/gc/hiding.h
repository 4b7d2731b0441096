/* SPDX-License-Identifier: MIT
 *
 * Hiding an object and asking whether it is seen. An object is given to the hiding place and to a
 * weak reference, and every other copy is wiped; after traces the weak reference must still find
 * it, with its contents. Then the place is cleared and the object must go, which shows that nothing
 * else kept it. A thread that hides something stands at a gate while another collects. Include it
 * first.
 */
#ifndef CAIRN_HIDING_H
#define CAIRN_HIDING_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../test.h"

#include <semaphore.h>

#define IS_SANITIZED (CAIRN_TSAN_ || CAIRN_ASAN_)

#if CAIRN_ASAN_
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_stack_use_after_return=1";
}
#endif

/* ---- A watched object -------------------------------------------------------------------------
 */

enum { MAGIC = 123456 };
static cairn_weak watched;

/* Its address leaves by the place alone: the callers below return with clean registers. */
__attribute__((noinline, unused)) static void *make_watched(void) {
    Node *node = cairn_make(Node, .value = MAGIC);
    assert_true(cairn_weak_set(&watched, node));
    return node;
}

__attribute__((noinline, unused)) static bool is_watched_alive(void) {
    const Node *node = cairn_weak_get(&watched);
    return node && node->value == MAGIC;
}

static void *ask_apart(void *answer) {
    for (int i = 0; i < 3; i++) collect_and_clean(CAIRN_TRACE);
    *(bool *)answer = is_watched_alive();
    for (int i = 0; i < 3; i++) collect_and_clean(CAIRN_TRACE);
    return NULL;
}

/* On a stack of its own, which is gone afterwards with what the weak reference left there. libc
 * uses stacks again, so each collection cleans what lies below. */
__attribute__((unused)) static bool survives_collections(void) {
    bool answer = false;
    pthread_t thread;
    clean_stack();
    assert_int_equal(pthread_create(&thread, NULL, ask_apart, &answer), 0);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
    return answer;
}

/* A thread that was interrupted on its way to the gate may have the address in a vector register.
 */
__attribute__((unused)) static bool goes_in_time(void) {
    for (int i = 0; i < 20; i++) {
        if (!survives_collections()) return true;
    }
    return false;
}

/* ---- A gate -----------------------------------------------------------------------------------
 */

static sem_t arrived, passed;

static void gate_init(void) {
    assert_int_equal(sem_init(&arrived, 0, 0), 0);
    assert_int_equal(sem_init(&passed, 0, 0), 0);
}

static void wait_at(sem_t *gate) {
    cairn_blocking_begin();
    while (sem_wait(gate) != 0) {}
    cairn_blocking_end();
}

static void stand_at_gate(void) {
    sem_post(&arrived);
    wait_at(&passed);
}

struct hiding {
    void (*hide)(void);  /* makes the watched object and hides it; on the thread */
    void (*clear)(void); /* unhides it; on the thread */
};

/* What calls may leave in registers counts when the signal interrupts a thread. */
__attribute__((noinline, unused)) static void clean_registers(void) {
#if defined(__x86_64__)
    __asm__ volatile("xor %%eax, %%eax\n\txor %%ecx, %%ecx\n\txor %%edx, %%edx\n\t"
                     "xor %%esi, %%esi\n\txor %%edi, %%edi\n\txor %%r8d, %%r8d\n\t"
                     "xor %%r9d, %%r9d\n\txor %%r10d, %%r10d\n\txor %%r11d, %%r11d\n\t"
                     "pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\tpxor %%xmm2, %%xmm2\n\t"
                     "pxor %%xmm3, %%xmm3\n\tpxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\t"
                     "pxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\tpxor %%xmm8, %%xmm8\n\t"
                     "pxor %%xmm9, %%xmm9\n\tpxor %%xmm10, %%xmm10\n\tpxor %%xmm11, %%xmm11\n\t"
                     "pxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\t"
                     "pxor %%xmm14, %%xmm14\n\tpxor %%xmm15, %%xmm15"
                     :
                     :
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1",
                       "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");
#endif
}

__attribute__((noinline, unused)) static void call_and_clean(void (*function)(void)) {
    function();
    clean_stack();
    clean_registers();
}

__attribute__((unused)) static void *hide_and_stand(void *argument) {
    const struct hiding *hiding = argument;
    call_and_clean(hiding->hide);
    stand_at_gate();
    call_and_clean(hiding->clear);
    stand_at_gate();
    return NULL;
}

__attribute__((unused)) static void expect_hiding_place_is_seen(void (*hide)(void),
                                                                void (*clear)(void)) {
    gate_init();
    struct hiding hiding = {hide, clear};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hide_and_stand, &hiding), 0);
    wait_at(&arrived);
    assert_true(survives_collections());
    sem_post(&passed);
    wait_at(&arrived);
    assert_true(goes_in_time());
    sem_post(&passed);
    pthread_join(thread, NULL);
}

#endif
