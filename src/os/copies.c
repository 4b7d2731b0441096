/* SPDX-License-Identifier: MIT
 *
 * Finding a second copy of Cairn in this process: two libraries with libcairn.a inside, or one
 * beside libcairn.so. Each would stop the other's threads, scan roots without knowing them all, and
 * take the same signals.
 *
 * Copies cannot meet by name: their symbols are hidden or local to a dlopen. They meet in what the
 * loader knows: each copy puts an ELF note into whatever it is linked into, and the note's body
 * says how far away the copy's own flag is, a distance that the linker resolves. Whoever starts
 * sets its flag, then walks the notes of all loaded objects and looks at the flags that they lead
 * to. Of two that start at once at least one sees the other, since both store before they load,
 * sequentially consistent. A copy that is loaded and never called is no harm and is not refused.
 *
 * This needs no file descriptor that a daemon might close, no address that another might take, no
 * /proc, survives fork, and costs a walk of a few program headers once: 2 us with a C library
 * alone. The note's layout is an interface between versions: it must not change. Limit: glibc's
 * dlmopen gives a library a loader's list of its own, and a copy there is not found.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <link.h>
#include <string.h>

extern uint32_t crn_copy_started __attribute__((visibility("hidden")));
uint32_t crn_copy_started; /* atomic; named by the note */

extern const char crn_copy_note[] __attribute__((visibility("hidden")));
__asm__(".pushsection .note.cairn, \"a\", %note\n"
        ".balign 4\n"
        ".globl crn_copy_note\n"
        ".hidden crn_copy_note\n"
        "crn_copy_note:\n"
        ".long 6, 4, 1\n" /* bytes of the name, bytes of the body, kind */
        ".asciz \"Cairn\"\n"
        ".balign 4\n"
        ".long crn_copy_started - .\n"
        ".popsection\n");

struct search {
    const char *other, *own;
    bool is_found;
};

static void look(struct search *search, const char *name, const char *body) {
    int32_t distance;
    memcpy(&distance, body, sizeof(distance));
    const uint32_t *flag = (const uint32_t *)(const void *)(body + distance);
    if (flag == &crn_copy_started) {
        search->own = name;
    } else if (__atomic_load_n(flag, __ATOMIC_SEQ_CST)) {
        search->other = name;
        search->is_found = true;
    }
}

static void walk_notes(struct search *search, const char *name, const char *at, const char *end,
                       size_t align) {
    while (end - at >= (ptrdiff_t)sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) note;
        memcpy(&note, at, sizeof(note));
        size_t body = crn_round_up(sizeof(note) + note.n_namesz, align);
        size_t bytes = crn_round_up(body + note.n_descsz, align);
        if (bytes > (size_t)(end - at)) return;
        bool is_cairn = note.n_namesz == 6 && note.n_descsz == 4 && note.n_type == 1 &&
                        memcmp(at + sizeof(note), "Cairn", 6) == 0;
        if (is_cairn) look(search, name, at + body);
        at += bytes;
    }
}

static int visit(struct dl_phdr_info *info, size_t size, void *search) {
    (void)size;
    const char *name = info->dlpi_name && *info->dlpi_name ? info->dlpi_name : "the program";
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_NOTE) continue;
        const char *at = (const char *)(uintptr_t)(info->dlpi_addr + header->p_vaddr);
        walk_notes(search, name, at, at + header->p_memsz, header->p_align == 8 ? 8 : 4);
    }
    return 0;
}

bool crn_os_other_copy(const char **own, const char **other) {
    /* The linker keeps a section that something refers to. */
    __asm__ volatile("" : : "r"(crn_copy_note));
    struct search search = {.other = "", .own = "the program"};
    __atomic_store_n(&crn_copy_started, 1, __ATOMIC_SEQ_CST);
    dl_iterate_phdr(visit, &search);
    *own = search.own;
    *other = search.other;
    return search.is_found;
}
