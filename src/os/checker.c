/* SPDX-License-Identifier: MIT
 *
 * What AddressSanitizer and valgrind are told. The sanitizer's functions are weak: they are there
 * where the program is linked with its runtime. Valgrind recognises sequences of instructions that
 * do nothing elsewhere; they are here if its header was when this was built (CRN_HAS_VALGRIND).
 */
#include "os/checker.h"

#if defined(CRN_HAS_VALGRIND)
#include <valgrind/memcheck.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_MAKE_MEM_DEFINED(address, bytes) ((void)(address), (void)(bytes), 0)
#define VALGRIND_MAKE_MEM_NOACCESS(address, bytes) ((void)(address), (void)(bytes), 0)
#define VALGRIND_DISABLE_ERROR_REPORTING ((void)0)
#define VALGRIND_ENABLE_ERROR_REPORTING ((void)0)
#endif

__attribute__((weak)) void __asan_poison_memory_region(const volatile void *address, size_t bytes);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void *address,
                                                         size_t bytes);
__attribute__((weak)) void __lsan_register_root_region(const void *address, size_t bytes);
__attribute__((weak)) void __lsan_unregister_root_region(const void *address, size_t bytes);

bool crn_checker_watches, crn_checker_is_valgrind;
static bool has_address_sanitizer, has_leak_sanitizer, has_memcheck;

/* Its other tools do not know the request, and answer 0. */
static bool is_memcheck(void) {
    char byte = 0;
    return VALGRIND_MAKE_MEM_DEFINED(&byte, sizeof(byte)) != 0;
}

void crn_checker_init(bool is_wanted) {
    has_leak_sanitizer = is_wanted && __lsan_register_root_region && __lsan_unregister_root_region;
    /* A library that is itself compiled for it would be reported for what the collector reads. */
    has_address_sanitizer =
        is_wanted && !CAIRN_ASAN_ && __asan_poison_memory_region && __asan_unpoison_memory_region;
    crn_checker_is_valgrind = RUNNING_ON_VALGRIND != 0;
    has_memcheck = is_wanted && crn_checker_is_valgrind && is_memcheck();
    crn_checker_watches = has_address_sanitizer || has_memcheck;
}

void crn_checker_allow(const void *address, size_t bytes) {
    if (has_address_sanitizer) __asan_unpoison_memory_region(address, bytes);
    if (has_memcheck) (void)VALGRIND_MAKE_MEM_DEFINED(address, bytes);
}

void crn_checker_forbid(const void *address, size_t bytes) {
    if (has_address_sanitizer) __asan_poison_memory_region(address, bytes);
    if (has_memcheck) (void)VALGRIND_MAKE_MEM_NOACCESS(address, bytes);
}

void crn_checker_hush_slow(bool is_beginning) {
    if (is_beginning)
        VALGRIND_DISABLE_ERROR_REPORTING;
    else
        VALGRIND_ENABLE_ERROR_REPORTING;
}

void *crn_checker_written(void *word) {
    void *volatile copy = word;
    (void)VALGRIND_MAKE_MEM_DEFINED(&copy, sizeof(copy));
    return copy;
}

void crn_checker_add_root(const void *address, size_t bytes) {
    if (has_leak_sanitizer) __lsan_register_root_region(address, bytes);
}

void crn_checker_remove_root(const void *address, size_t bytes) {
    if (has_leak_sanitizer) __lsan_unregister_root_region(address, bytes);
}
