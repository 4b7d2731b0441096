/* SPDX-License-Identifier: MIT
 *
 * Reads /proc/self/maps a line at a time. dladdr would take the loader's lock, which the thread
 * that faults may hold.
 *
 * A file's first mapping holds its ELF header; in a file that may lie anywhere, addresses count
 * from there. Only a fixed executable is linked to the addresses that it runs at.
 */
#define _GNU_SOURCE
#include "os/module.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

struct reader {
    int file;
    size_t at, count;
    char buffer[1024];
};

static int next_character(struct reader *reader) {
    if (reader->at == reader->count) {
        ssize_t got;
        do got = read(reader->file, reader->buffer, sizeof(reader->buffer));
        while (got < 0 && errno == EINTR);
        if (got <= 0) return -1;
        reader->count = (size_t)got;
        reader->at = 0;
    }
    return (unsigned char)reader->buffer[reader->at++];
}

struct mapping {
    uintptr_t low, high, offset;
    char path[256];
};

/* A hexadecimal number and the character behind it. */
static uintptr_t read_number(struct reader *reader, int *c) {
    uintptr_t value = 0;
    for (;;) {
        *c = next_character(reader);
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
static bool read_mapping(struct reader *reader, struct mapping *mapping) {
    int c;
    mapping->low = read_number(reader, &c);
    if (c != '-') return false;
    mapping->high = read_number(reader, &c);
    skip_words(reader, &c, 1);
    mapping->offset = read_number(reader, &c); /* less its first digit, a padding zero */
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

static bool is_fixed(const char *base) {
    const ElfW(Ehdr) *header = (const ElfW(Ehdr) *)(const void *)base;
    return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 && header->e_type == ET_EXEC;
}

bool crn_os_module_of(uintptr_t address, struct crn_module *module) {
    int saved = errno;
    struct reader reader = {.file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    if (reader.file < 0) {
        errno = saved;
        return false;
    }
    struct mapping mapping;
    uintptr_t base = 0;
    char base_path[sizeof(mapping.path)] = "";
    bool found = false;
    while (!found && read_mapping(&reader, &mapping)) {
        if (mapping.offset == 0) {
            base = mapping.low;
            memcpy(base_path, mapping.path, sizeof(base_path));
        }
        found = address >= mapping.low && address < mapping.high && mapping.path[0] == '/' &&
                strcmp(base_path, mapping.path) == 0;
    }
    close(reader.file);
    errno = saved;
    if (!found) return false;
    memcpy(module->path, mapping.path, sizeof(module->path));
    module->offset = is_fixed((const char *)base) ? address : address - base;
    return true;
}
