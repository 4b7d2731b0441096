/* SPDX-License-Identifier: MIT
 *
 * Loaded objects: their writable segments, their thread-locals in any thread, and whether the
 * loader's list has changed.
 *
 * The list of what is loaded comes from dl_iterate_phdr, which takes the loader's lock. With the
 * world stopped that lock may be held by a stopped thread, so there the loader's list is walked
 * instead, as a debugger does (r_debug, link_map), and only to compare it with what was met under
 * the lock. The walk goes from one known entry to the next and ends at the first that differs. A
 * stopped thread may stand in the middle of a change: entries are appended and unlinked by single
 * stores, and are unlinked before they are freed, so each entry reached is whole. While a change is
 * under way (r_state) the object concerned runs no code: it is not initialised yet, or its
 * destructors are over; whether it counts is all the same.
 *
 * A thread's copy of an object's thread-locals is found by the thread's vector of them, whose
 * layout is the C library's ABI with its debugger interface; crn_os_images checks it against what
 * the loader says of the calling thread.
 */
#define _GNU_SOURCE
#include "os/maps.h"
#include "os/os.h"

#include <elf.h>
#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

/* ---- The loader's list ------------------------------------------------------------------------
 */

static const ElfW(Phdr) * program_headers(size_t *count) {
    *count = getauxval(AT_PHNUM);
    return (const ElfW(Phdr) *)getauxval(AT_PHDR);
}

/* The program's DT_DEBUG entry; NULL in a static program, which loads nothing. */
static const struct r_debug *find_debug(void) {
    size_t count;
    const ElfW(Phdr) *headers = program_headers(&count);
    const ElfW(Phdr) *dynamic = NULL, *self = NULL;
    for (size_t i = 0; headers && i < count; i++) {
        if (headers[i].p_type == PT_DYNAMIC) dynamic = &headers[i];
        if (headers[i].p_type == PT_PHDR) self = &headers[i];
    }
    if (!dynamic) return NULL;
    uintptr_t base = self ? (uintptr_t)headers - self->p_vaddr : 0;
    for (const ElfW(Dyn) *entry = (const ElfW(Dyn) *)(base + dynamic->p_vaddr);
         entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_DEBUG) return (const struct r_debug *)entry->d_un.d_ptr;
    }
    return NULL;
}

static const struct link_map *first_link(void) {
    static const struct r_debug *known; /* atomic; whoever looks for it finds the same */
    const struct r_debug *debug = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!debug) {
        debug = find_debug();
        __atomic_store_n(&known, debug, __ATOMIC_RELAXED);
    }
    return debug ? debug->r_map : NULL;
}

CRN_NO_SANITIZE bool crn_os_images_are(const void *const *links, size_t count) {
    const struct link_map *at = first_link();
    for (size_t i = 0; i < count; i++, at = at->l_next) {
        if (at != links[i]) return false;
    }
    return !at;
}

/* ---- Segments and thread-locals ---------------------------------------------------------------
 */

struct walk {
    const struct crn_os_images_visit *visit;
    const void *anchor;
    bool is_begun;
};

static void visit_segment(const struct dl_phdr_info *info, const ElfW(Phdr) * header,
                          const ElfW(Phdr) * relro, const struct crn_os_images_visit *visit) {
    char *low = (char *)(uintptr_t)(info->dlpi_addr + header->p_vaddr);
    char *high = low + header->p_memsz;
    if (relro) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *from = (char *)(uintptr_t)(info->dlpi_addr + relro->p_vaddr);
        char *to = (char *)((uintptr_t)(from + relro->p_memsz) & ~(page - 1));
        if (from <= low && to > low) low = to;
    }
    if (low < high) visit->segment(low, high, visit->context);
}

/* Under the loader's lock, which is no mutex that ThreadSanitizer knows. */
CRN_NO_SANITIZE static void visit_links(const struct crn_os_images_visit *visit) {
    for (const struct link_map *link = first_link(); link; link = link->l_next) {
        visit->link(link, visit->context);
    }
}

#if CAIRN_TSAN_
void __tsan_init(void);

/* At the same distance from each thread's anchor. Written under the loader's lock, always the same.
 */
static ptrdiff_t sanitizer_offset;
static size_t sanitizer_bytes;

CRN_NO_SANITIZE static void note_sanitizer(const struct dl_phdr_info *info, const void *anchor) {
    bool is_library = info->dlpi_name && info->dlpi_name[0], is_it = false;
    size_t bytes = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t low = info->dlpi_addr + header->p_vaddr;
        is_it |= header->p_type == PT_LOAD && (uintptr_t)__tsan_init - low < header->p_memsz;
        if (header->p_type == PT_TLS) bytes = header->p_memsz;
    }
    if (!is_library || !is_it || !info->dlpi_tls_data) return;
    sanitizer_offset = (char *)info->dlpi_tls_data - (const char *)anchor;
    sanitizer_bytes = bytes;
}

CRN_NO_SANITIZE void crn_os_sanitizer_locals(const void *anchor, const char **low,
                                             const char **high) {
    *low = (const char *)anchor + sanitizer_offset;
    *high = *low + sanitizer_bytes;
}
#else
void crn_os_sanitizer_locals(const void *anchor, const char **low, const char **high) {
    *low = *high = anchor;
}
#endif

static int visit_image(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    struct walk *walk = argument;
    const struct crn_os_images_visit *visit = walk->visit;
    if (!walk->is_begun) {
        walk->is_begun = true;
        visit_links(visit);
    }
#if CAIRN_TSAN_
    note_sanitizer(info, walk->anchor);
#endif
    const ElfW(Phdr) *relro = NULL;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_GNU_RELRO) relro = &info->dlpi_phdr[i];
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_LOAD && (header->p_flags & PF_W)) {
            visit_segment(info, header, relro, visit);
        } else if (header->p_type == PT_TLS && info->dlpi_tls_modid) {
            char *here = info->dlpi_tls_data;
            CAIRN_REQUIRE(
                !here || crn_os_thread_locals(walk->anchor, info->dlpi_tls_modid) == here,
                "cannot start: this C library keeps thread-locals where they are not found");
            visit->locals(info->dlpi_tls_modid, header->p_memsz, here, visit->context);
        }
    }
    return 0;
}

void crn_os_images(const struct crn_os_images_visit *visit) {
    struct walk walk = {visit, crn_os_thread_anchor(), false};
    dl_iterate_phdr(visit_image, &walk);
}

/* ---- A thread's vector ------------------------------------------------------------------------
 */

void *crn_os_thread_anchor(void) {
#if defined(__x86_64__)
    void *anchor;
    __asm__("mov %%fs:0, %0" : "=r"(anchor));
    return anchor;
#else
    return __builtin_thread_pointer();
#endif
}

#if defined(__x86_64__)
enum { VECTOR_WORD = 1 };
#elif defined(__GLIBC__)
enum { VECTOR_WORD = 0 };
#else
enum { VECTOR_WORD = -1 };
#endif

CRN_NO_SANITIZE char *crn_os_thread_locals(const void *anchor, size_t module) {
#if defined(__GLIBC__)
    struct entry {
        uintptr_t value, to_free;
    };
    const struct entry *vector = ((struct entry *const *)anchor)[VECTOR_WORD];
    if (!vector || module > vector[-1].value) return NULL;
    uintptr_t value = vector[module].value;
    return value == UINTPTR_MAX ? NULL : (char *)value;
#else
    const uintptr_t *vector = ((uintptr_t *const *)anchor)[VECTOR_WORD];
    return !vector || module > vector[0] ? NULL : (char *)vector[module];
#endif
}

char *crn_os_thread_descriptor(void) {
#if defined(__x86_64__) && defined(__GLIBC__)
    return crn_os_thread_anchor();
#else
    return NULL;
#endif
}

/* ---- Static thread-locals ---------------------------------------------------------------------
 */

/* What the thread's descriptor surely has beside the anchor, the values of keys, argument and
 * result among it; and what the loader surely keeps for objects loaded later, beside the blocks of
 * those that are loaded (glibc's defaults: (4 - 1) namespaces of 144 + 4 of 144 + 512 and more). No
 * more: in the kernel's eyes the mapping may go on with one of the program's, which may be gone at
 * the next collection. ThreadSanitizer may have memory there. */
#if !defined(__GLIBC__)
enum { DESCRIPTOR_BYTES = 128, SPARE_BYTES = 0 };
#elif CAIRN_TSAN_
enum { DESCRIPTOR_BYTES = 2048, SPARE_BYTES = 0 };
#elif defined(__x86_64__)
enum { DESCRIPTOR_BYTES = 2048, SPARE_BYTES = 1664 };
#else
enum { DESCRIPTOR_BYTES = 1664, SPARE_BYTES = 1664 };
#endif

struct blocks {
    uintptr_t from, to;       /* the mapping */
    uintptr_t lowest, behind; /* of the blocks within it, and the anchor */
};

static int note_block(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    struct blocks *blocks = argument;
    uintptr_t here = (uintptr_t)info->dlpi_tls_data, bytes = 0;
    if (here < blocks->from || here >= blocks->to) return 0;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_TLS) bytes = info->dlpi_phdr[i].p_memsz;
    }
    blocks->lowest = crn_min(blocks->lowest, here);
    blocks->behind = crn_max(blocks->behind, here + bytes);
    return 0;
}

bool crn_os_static_locals(const char *stack_low, const char *stack_high, char **low, char **high) {
    uintptr_t anchor = (uintptr_t)crn_os_thread_anchor(), from, to;
    if (anchor >= (uintptr_t)stack_low && anchor < (uintptr_t)stack_high) return false;
    if (!crn_os_mapping_of(anchor, &from, &to)) return false;
    struct blocks blocks = {from, to, anchor, anchor};
    dl_iterate_phdr(note_block, &blocks);
#if defined(__x86_64__) /* the descriptor lies above, and the blocks below */
    from = crn_max(from, blocks.lowest - SPARE_BYTES);
    to = crn_min(to, anchor + DESCRIPTOR_BYTES);
#else
    from = crn_max(from, anchor - DESCRIPTOR_BYTES);
    to = crn_min(to, blocks.behind + SPARE_BYTES);
#endif
    if (from < (uintptr_t)stack_high && to > (uintptr_t)stack_high) from = (uintptr_t)stack_high;
    *low = (char *)from;
    *high = (char *)to;
    return true;
}
