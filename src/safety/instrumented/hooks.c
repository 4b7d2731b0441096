/* SPDX-License-Identifier: MIT
 *
 * libcairn-instrumented: what a compiler calls before each load and store in files that were
 * compiled with the flags of cairn-instrumented.pc (outlined hooks of -fsanitize=kernel-address).
 * Each asks the heap's own tables. A program that is linked to this library gives every object 16
 * bytes of room behind its end, so that a small overrun meets no other object.
 *
 * A hook calls nothing of the file that it was called from: the compiler keeps values in registers
 * across it as across no other call, and leaves out a hook for what it has just asked about.
 */
#include <cairn/runtime.h>

/* Seen by the core; see crn_has_redzones. */
CAIRN_API const char cairn_is_instrumented_ = 1;

#define HOOK(name, bytes, is_store)                                                                \
    CAIRN_API void name(const void *address);                                                      \
    void name(const void *address) {                                                               \
        CAIRN_ASK_(address, bytes, is_store);                                                      \
    }
#define HOOKS(bytes)                                                                               \
    HOOK(__asan_load##bytes##_noabort, bytes, false)                                               \
    HOOK(__asan_store##bytes##_noabort, bytes, true)

HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

#define HOOK_OF_MANY(name, is_store)                                                               \
    CAIRN_API void name(const void *address, size_t bytes);                                        \
    void name(const void *address, size_t bytes) {                                                 \
        CAIRN_ASK_(address, bytes, is_store);                                                      \
    }
HOOK_OF_MANY(__asan_loadN_noabort, false)
HOOK_OF_MANY(__asan_storeN_noabort, true)

/* Before exit, abort, longjmp and their like: nothing to undo, for stacks are not watched. */
CAIRN_API void __asan_handle_no_return(void);
void __asan_handle_no_return(void) {}

/* ---- Functions of libc that read and write memory ----------------------------------------------
 *
 * The header gives their names to these in instrumented files. Each asks, and does as libc's does.
 */

#include <string.h>

#define PLACE __builtin_return_address(0), (const char *)__builtin_dwarf_cfa()
#define READS(address, bytes)                                                                      \
    do {                                                                                           \
        if ((bytes) != 0) CAIRN_ASK_((address), (bytes), false);                                   \
    } while (0)
#define WRITES(address, bytes) cairn_write_range_((address), (bytes), PLACE)

void *cairn_memcpy_(void *to, const void *from, size_t bytes) {
    READS(from, bytes);
    WRITES(to, bytes);
    return memcpy(to, from, bytes);
}
void *cairn_memmove_(void *to, const void *from, size_t bytes) {
    READS(from, bytes);
    WRITES(to, bytes);
    return memmove(to, from, bytes);
}
void *cairn_memset_(void *to, int value, size_t bytes) {
    WRITES(to, bytes);
    return memset(to, value, bytes);
}
int cairn_memcmp_(const void *a, const void *b, size_t bytes) {
    READS(a, bytes);
    READS(b, bytes);
    return memcmp(a, b, bytes);
}
void *cairn_memchr_(const void *in, int value, size_t bytes) {
    const char *found = memchr(in, value, bytes);
    READS(in, found ? (size_t)(found - (const char *)in) + 1 : bytes);
    return (void *)(uintptr_t)found;
}

/* A string is read up to its end, which is asked about before the string is used: an object that
 * lacks one is followed by its room, which is zero, so the search ends there. */
size_t cairn_strlen_(const char *text) {
    READS(text, 1);
    size_t length = strlen(text);
    READS(text, length + 1);
    return length;
}
size_t cairn_strnlen_(const char *text, size_t most) {
    if (most == 0) return 0;
    READS(text, 1);
    size_t length = strnlen(text, most);
    READS(text, length < most ? length + 1 : most);
    return length;
}
char *cairn_strcpy_(char *to, const char *from) {
    READS(from, 1);
    size_t bytes = strlen(from) + 1;
    READS(from, bytes);
    WRITES(to, bytes);
    return memcpy(to, from, bytes);
}
char *cairn_strncpy_(char *to, const char *from, size_t most) {
    if (most == 0) return to;
    READS(from, 1);
    size_t length = strnlen(from, most);
    READS(from, length < most ? length + 1 : most);
    WRITES(to, most);
    return strncpy(to, from, most);
}
char *cairn_strcat_(char *to, const char *from) {
    READS(to, 1);
    READS(from, 1);
    size_t at = strlen(to), bytes = strlen(from) + 1;
    READS(to, at + 1);
    READS(from, bytes);
    WRITES(to + at, bytes);
    memcpy(to + at, from, bytes);
    return to;
}
int cairn_strcmp_(const char *a, const char *b) {
    READS(a, 1);
    READS(b, 1);
    size_t same = 0;
    while (a[same] && a[same] == b[same]) same++;
    READS(a, same + 1);
    READS(b, same + 1);
    return (unsigned char)a[same] - (unsigned char)b[same];
}
int cairn_strncmp_(const char *a, const char *b, size_t most) {
    if (most == 0) return 0;
    READS(a, 1);
    READS(b, 1);
    size_t same = 0;
    while (same + 1 < most && a[same] && a[same] == b[same]) same++;
    READS(a, same + 1);
    READS(b, same + 1);
    return (unsigned char)a[same] - (unsigned char)b[same];
}
char *cairn_strchr_(const char *text, int c) {
    READS(text, 1);
    const char *found = strchr(text, c);
    READS(text, (found ? (size_t)(found - text) : strlen(text)) + 1);
    return (char *)(uintptr_t)found;
}
