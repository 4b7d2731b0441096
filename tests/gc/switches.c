/* SPDX-License-Identifier: MIT
 *
 * Says which signal stopped a computing thread and whether a library's waiting call was told to the
 * collector. For test_switches.sh.
 */
#define _GNU_SOURCE
#include <cairn/cairn.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *switches_poll(
    void *unused); /* in a library of its own; posts through is_ready first */
extern uint32_t switches_is_ready;

typedef struct Leaf {
    long value;
} Leaf;
CAIRN_LEAF(Leaf);

static uint32_t is_computing, is_over;

static void *compute(void *argument) {
    (void)cairn_new(Leaf);
    __atomic_store_n(&is_computing, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {}
    return argument;
}

/* Known to Cairn with and without an interposed pthread_create. */
static void *wait_in_library(void *argument) {
    (void)cairn_new(Leaf);
    return switches_poll(argument);
}

/* The only signal that has a handler, libc's own two apart. */
static int find_stop_signal(void) {
    char line[256];
    unsigned long long caught = 0;
    FILE *status = fopen("/proc/self/status", "r");
    if (!status) return 0;
    while (fgets(line, sizeof(line), status)) {
        if (strncmp(line, "SigCgt:", 7) == 0) caught = strtoull(line + 7, NULL, 16);
    }
    fclose(status);
    caught &= ~(3ull << 31);
    return caught ? __builtin_ctzll(caught) + 1 : 0;
}

int main(void) {
    (void)cairn_new(Leaf);
    pthread_t computing, waiting;
    pthread_create(&computing, NULL, compute, NULL);
    while (!__atomic_load_n(&is_computing, __ATOMIC_ACQUIRE)) sched_yield();
    for (int i = 0; i < 10; i++) cairn_collect(CAIRN_COUNT);
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    pthread_join(computing, NULL);
    /* An interrupted poll of a library returns early with EINTR, one that was told does not. */
    void *result = NULL;
    pthread_create(&waiting, NULL, wait_in_library, NULL);
    while (!__atomic_load_n(&switches_is_ready, __ATOMIC_ACQUIRE)) sched_yield();
    for (int i = 0; i < 3000; i++) cairn_collect(CAIRN_COUNT);
    __atomic_store_n(&switches_is_ready, 2, __ATOMIC_RELEASE);
    pthread_join(waiting, &result);
    printf("stopped by %d, waits told: %s\n", find_stop_signal(), result ? "no" : "yes");
    return 0;
}
