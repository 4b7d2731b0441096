/* SPDX-License-Identifier: MIT
 *
 * A library that knows nothing of Cairn and waits in poll. Returns non-NULL if it was interrupted.
 */
#include <poll.h>
#include <stddef.h>
#include <stdint.h>

uint32_t switches_is_ready; /* 1 once it waits; 2: stop */
void *switches_poll(void *unused);
void *switches_poll(void *unused) {
    (void)unused;
    __atomic_store_n(&switches_is_ready, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&switches_is_ready, __ATOMIC_ACQUIRE) != 2) {
        if (poll(NULL, 0, 1) != 0) return &switches_is_ready;
    }
    return NULL;
}
