/* SPDX-License-Identifier: MIT
 *
 * What AddressSanitizer and valgrind are told. Their functions are weak: those of a sanitizer are
 * there where the program is linked with its runtime. Takes no lock; theirs take none either but
 * for those of roots, which are not called in a stop that could hold them up.
 */
#include "os/checker.h"

__attribute__((weak)) void __asan_poison_memory_region(const volatile void *address, size_t bytes);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void *address,
                                                         size_t bytes);
__attribute__((weak)) void __lsan_register_root_region(const void *address, size_t bytes);
__attribute__((weak)) void __lsan_unregister_root_region(const void *address, size_t bytes);

bool crn_checker_watches;
static bool has_address_sanitizer, has_leak_sanitizer;

void crn_checker_init(bool is_wanted) {
    has_leak_sanitizer = is_wanted && __lsan_register_root_region && __lsan_unregister_root_region;
    /* A library that is itself compiled for it would be reported for what the collector reads. */
    has_address_sanitizer = is_wanted && !CAIRN_ASAN_ && __asan_poison_memory_region &&
                            __asan_unpoison_memory_region;
    crn_checker_watches = has_address_sanitizer;
}

void crn_checker_allow(const void *address, size_t bytes) {
    if (has_address_sanitizer) __asan_unpoison_memory_region(address, bytes);
}

void crn_checker_forbid(const void *address, size_t bytes) {
    if (has_address_sanitizer) __asan_poison_memory_region(address, bytes);
}

void crn_checker_add_root(const void *address, size_t bytes) {
    if (has_leak_sanitizer) __lsan_register_root_region(address, bytes);
}

void crn_checker_remove_root(const void *address, size_t bytes) {
    if (has_leak_sanitizer) __lsan_unregister_root_region(address, bytes);
}
