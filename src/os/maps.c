/* SPDX-License-Identifier: MIT
 *
 * Reads /proc/self/maps, or smaps, a line at a time. dladdr would take the loader's lock, which the
 * thread that faults may hold.
 *
 * The runtime's own memory never asks for huge pages, and says so (linux.c): that is what it is
 * known by in smaps, where the kernel has huge pages at all.
 *
 * A file's first mapping holds its ELF header; in a file that may lie anywhere, addresses count
 * from there. Only a fixed executable is linked to the addresses that it runs at.
 */
#define _GNU_SOURCE
#include "os/maps.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct reader {
    int file;
    size_t at, count;
    char buffer[1024];
};

static int next_character(struct reader *reader) {
    if (reader->at == reader->count) {
        long got;
        do got = syscall(SYS_read, reader->file, reader->buffer, sizeof(reader->buffer));
        while (got < 0 && errno == EINTR);
        if (got <= 0) return -1;
        reader->count = (size_t)got;
        reader->at = 0;
    }
    return (unsigned char)reader->buffer[reader->at++];
}

static int peek_character(struct reader *reader) {
    int c = next_character(reader);
    if (c >= 0) reader->at--;
    return c;
}

/* A hexadecimal number, whose first character is in `c`, and the character behind it. */
static uintptr_t read_number(struct reader *reader, int *c) {
    uintptr_t value = 0;
    for (;; *c = next_character(reader)) {
        int digit = *c >= '0' && *c <= '9' ? *c - '0' : *c >= 'a' && *c <= 'f' ? *c - 'a' + 10 : -1;
        if (digit < 0) return value;
        value = value << 4 | (uintptr_t)digit;
    }
}

static void skip_words(struct reader *reader, int *c, int count) {
    while (*c == ' ') *c = next_character(reader);
    for (int i = 0; i < count; i++) {
        while (*c > ' ') *c = next_character(reader);
        while (*c == ' ') *c = next_character(reader);
    }
}

/* "low-high perms offset device inode   path" */
static bool read_mapping(struct reader *reader, struct crn_mapping *mapping) {
    int c = next_character(reader);
    mapping->low = read_number(reader, &c);
    if (c != '-') return false;
    c = next_character(reader);
    mapping->high = read_number(reader, &c);
    mapping->is_readable = next_character(reader) == 'r';
    mapping->is_writable = next_character(reader) == 'w';
    (void)next_character(reader);
    c = next_character(reader);
    mapping->is_shared = c == 's';
    mapping->is_ours = false;
    c = next_character(reader);
    while (c == ' ') c = next_character(reader);
    mapping->offset = read_number(reader, &c);
    skip_words(reader, &c, 2);
    size_t length = 0;
    while (c >= 0 && c != '\n') {
        if (length == sizeof(mapping->path) - 1) {
            memmove(mapping->path, mapping->path + 1, length - 1);
            length--;
        }
        mapping->path[length++] = (char)c;
        c = next_character(reader);
    }
    mapping->path[length] = 0;
    return true;
}

/* The lines "Key: value" behind a mapping's own; the last of them is "VmFlags: rd wr ... nh". */
static void read_flags(struct reader *reader, struct crn_mapping *mapping) {
    static const char wanted[] = "VmFlags:";
    /* Where the kernel tells no flags the next mapping's line follows: given back. */
    for (bool is_last = false; !is_last;) {
        int first = peek_character(reader);
        if (first < 'A' || first > 'Z') return;
        size_t matched = 0;
        int c = next_character(reader), before = 0;
        is_last = true;
        for (; c >= 0 && c != '\n'; before = c, c = next_character(reader)) {
            if (matched < sizeof(wanted) - 1 && c == wanted[matched]) {
                matched++;
                continue;
            }
            is_last &= matched == sizeof(wanted) - 1;
            if (is_last && before == 'n' && c == 'h') mapping->is_ours = true;
        }
        if (c < 0) return;
    }
}

bool crn_os_each_mapping(bool tells_ours,
                         bool (*visit)(const struct crn_mapping *mapping, void *context),
                         void *context) {
    int saved = errno;
    const char *name = tells_ours ? "/proc/self/smaps" : "/proc/self/maps";
    struct reader reader = {.file = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC)};
    struct crn_mapping mapping;
    while (reader.file >= 0 && read_mapping(&reader, &mapping)) {
        if (tells_ours) read_flags(&reader, &mapping);
        if (!visit(&mapping, context)) break;
    }
    if (reader.file >= 0) syscall(SYS_close, reader.file);
    errno = saved;
    return reader.file >= 0;
}

struct mapping_search {
    uintptr_t address, low, high;
    bool is_found;
};

static bool look_for_mapping(const struct crn_mapping *mapping, void *context) {
    struct mapping_search *search = context;
    if (search->address >= mapping->high) return true;
    search->is_found = search->address >= mapping->low;
    search->low = mapping->low;
    search->high = mapping->high;
    return false;
}

bool crn_os_mapping_of(uintptr_t address, uintptr_t *low, uintptr_t *high) {
    struct mapping_search search = {.address = address};
    crn_os_each_mapping(false, look_for_mapping, &search);
    *low = search.low;
    *high = search.high;
    return search.is_found;
}

/* ---- Modules ------------------------------------------------------------------------------------
 */

static bool is_fixed(const char *base) {
    const ElfW(Ehdr) *header = (const ElfW(Ehdr) *)(const void *)base;
    return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 && header->e_type == ET_EXEC;
}

struct module_search {
    uintptr_t address, base;
    char base_path[256];
    struct crn_module *module;
    bool is_found;
};

static bool look_for_module(const struct crn_mapping *mapping, void *context) {
    struct module_search *search = context;
    /* Linkers may map the first page twice. */
    if (mapping->offset == 0 && strcmp(search->base_path, mapping->path) != 0) {
        search->base = mapping->low;
        memcpy(search->base_path, mapping->path, sizeof(search->base_path));
    }
    uintptr_t address = search->address;
    if (address < mapping->low || address >= mapping->high) return true;
    search->is_found = mapping->path[0] == '/' && strcmp(search->base_path, mapping->path) == 0;
    if (!search->is_found) return false;
    memcpy(search->module->path, mapping->path, sizeof(search->module->path));
    bool is_as_linked = is_fixed((const char *)search->base);
    search->module->offset = is_as_linked ? address : address - search->base;
    return false;
}

bool crn_os_module_of(uintptr_t address, struct crn_module *module) {
    struct module_search search = {.address = address, .module = module};
    crn_os_each_mapping(false, look_for_module, &search);
    return search.is_found;
}
