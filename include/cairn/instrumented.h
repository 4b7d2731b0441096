/* SPDX-License-Identifier: MIT
 *
 * Included before every file by the flags of cairn-instrumented.pc; nothing to include by hand.
 * See docs/safety.md, "Instrumented builds".
 */
#ifndef CAIRN_INSTRUMENTED_H
#define CAIRN_INSTRUMENTED_H

/* No other header: those of libc would fix its features before the file says which it wants. */
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In instrumented files these stand for libc's. Compiled without builtins, so that no call of them
 * becomes code that nobody asks about. */
#if defined(CAIRN_INSTRUMENTED)
#define CAIRN_STANDS_FOR_(name) __asm__("cairn_" #name "_")
#ifdef __cplusplus
#define CAIRN_NOTHROW_ noexcept(true)
#else
#define CAIRN_NOTHROW_
#endif
void *memcpy(void *, const void *, size_t) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(memcpy);
void *memmove(void *, const void *, size_t) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(memmove);
void *memset(void *, int, size_t) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(memset);
int memcmp(const void *, const void *, size_t) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(memcmp);
size_t strlen(const char *) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(strlen);
size_t strnlen(const char *, size_t) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(strnlen);
char *strcpy(char *, const char *) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(strcpy);
char *strncpy(char *, const char *, size_t) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(strncpy);
char *strcat(char *, const char *) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(strcat);
int strcmp(const char *, const char *) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(strcmp);
int strncmp(const char *, const char *, size_t) CAIRN_NOTHROW_ CAIRN_STANDS_FOR_(strncmp);
#ifndef __cplusplus /* there they are overloaded */
void *memchr(const void *, int, size_t) CAIRN_STANDS_FOR_(memchr);
char *strchr(const char *, int) CAIRN_STANDS_FOR_(strchr);
#endif
#endif

#ifdef __cplusplus
}
#endif

#endif
