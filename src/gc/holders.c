/* SPDX-License-Identifier: MIT
 *
 * Who refers to it? For reports: every word of the process whose value lies in a target, with what
 * is known of the place. Fields and untyped memory are found through the heaps, everything else
 * through the list of what is mapped: stacks, data, and memory that Cairn does not look into, as
 * malloc's, which is often where the stale pointer came from.
 *
 * The world is stopped meanwhile, so registered threads change nothing. Others may unmap what is
 * looked at: memory outside the heaps is read by a system call that can fail.
 */
#define _GNU_SOURCE
#include "gc/gc.h"
#include "os/maps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PIECE_BYTES = 64 << 10, MOST_NS = 1000000000 };
/* A mapping larger than this is no memory but room that a tool keeps, as a sanitizer's shadow. */
#define MAPPING_BYTES_MAX CRN_GIB(64)

struct looking {
    struct crn_search *search;
    const struct crn_block *block; /* that is looked through, or NULL */
    uint64_t until_ns;
    void **piece;         /* PIECE_BYTES of memory, copied */
    struct crn_range own; /* in use of the alternate stack that the report stands on */
};

static bool is_target(const struct crn_search *search, const void *word) {
    for (unsigned i = 0; i < search->target_count; i++) {
        const struct crn_range *target = &search->targets[i];
        if ((uintptr_t)word - (uintptr_t)target->low < (uintptr_t)(target->high - target->low)) {
            return true;
        }
    }
    return false;
}

/* The text to fill in for one more word, or NULL. */
static char *next_text(struct crn_search *search) {
    unsigned number = search->count++;
    return number < CRN_HOLDERS_NAMED ? search->texts[number] : NULL;
}

/* ---- Heaps --------------------------------------------------------------------------------------
 */

static void look_at_field(void **field, void *value, void *context) {
    struct looking *looking = context;
    if (!value || !is_target(looking->search, value)) return;
    char *text = next_text(looking->search);
    if (!text) return;
    size_t offset = crn_offset_in_object(looking->block, field);
    snprintf(text, sizeof(looking->search->texts[0]), "the field at offset %zu of the %.60s at %p",
             offset, looking->block->type->name, (void *)((char *)field - offset));
}

static void look_at_untyped(struct looking *looking, char *object) {
    size_t used = crn_object_used(looking->block, object);
    for (size_t at = 0; at + sizeof(void *) <= used; at += sizeof(void *)) {
        void *word = *(void **)(void *)(object + at);
        char *text = is_target(looking->search, word) ? next_text(looking->search) : NULL;
        if (text) {
            snprintf(text, sizeof(looking->search->texts[0]),
                     "offset %zu of the untyped memory at %p", at, (void *)object);
        }
    }
}

static void look_through_block(struct crn_block *block, void *context) {
    struct looking *looking = context;
    looking->block = block;
    if (block->content == CRN_LEAF) return;
    if (crn_os_now_ns() > looking->until_ns) {
        looking->search->is_cut = true;
        return;
    }
    size_t step = crn_object_bytes(block);
    for (char *object = block->base; object < block->end; object += step) {
        if (!*crn_count_of(object) && !crn_is_young(block, object)) continue;
        if (block->content == CRN_EXACT)
            crn_each_field(block, object, look_at_field, looking);
        else
            look_at_untyped(looking, object);
    }
}

/* ---- Everything else ----------------------------------------------------------------------------
 */

/* Of threads that are gone the stacks are others' by now. */
static const struct crn_thread *thread_with(const char *address) {
    for (const struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        if (__atomic_load_n(&thread->state, __ATOMIC_RELAXED) == CRN_THREAD_GONE) continue;
        bool is_local =
            address >= thread->static_locals.low && address < thread->static_locals.high;
        bool is_stack = address >= thread->stack_low && address < thread->stack_high;
        if (is_local || is_stack) return thread;
    }
    return NULL;
}

struct root_search {
    const char *address;
    bool is_found;
};
static void look_at_root(char *low, char *high, void *context) {
    struct root_search *search = context;
    search->is_found |= search->address >= low && search->address < high;
}

/* NULL: a word of a stack that is not in use, or the report's own. */
static const char *place_of(const struct looking *looking, const char *at,
                            const struct crn_thread **thread) {
    *thread = thread_with(at);
    if (at >= looking->own.low && at < looking->own.high) return NULL;
    if (*thread) {
        bool is_local = at >= (*thread)->static_locals.low && at < (*thread)->static_locals.high;
        const char *from = (*thread)->stopped_at;
        if (*thread == crn_self() && looking->search->stack_from) {
            from = looking->search->stack_from;
        }
        if (is_local) return "a thread-local of";
        return at >= from || (from && from >= (*thread)->stack_high) ? "the stack of" : NULL;
    }
    struct root_search root = {at, false};
    crn_roots_each(look_at_root, &root);
    if (root.is_found) return "memory given to cairn_root_add";
    if (crn_images_have_data(at)) return "global data";
    return "malloc memory or a mapping, where Cairn does not look";
}

static void note_holder(struct looking *looking, const char *at) {
    const struct crn_thread *thread;
    const char *place = place_of(looking, at, &thread);
    char *text = place ? next_text(looking->search) : NULL;
    if (!text) return;
    size_t bytes = sizeof(looking->search->texts[0]);
    if (thread)
        snprintf(text, bytes, "%s thread %d, at %p", place, thread->thread_id, (const void *)at);
    else
        snprintf(text, bytes, "%s, at %p", place, (const void *)at);
}

static void look_through_pages(char *low, char *high, void *context) {
    struct looking *looking = context;
    for (char *at = low; at < high; at += PIECE_BYTES) {
        if (crn_os_now_ns() > looking->until_ns) {
            looking->search->is_cut = true;
            return;
        }
        size_t bytes = crn_min((size_t)(high - at), PIECE_BYTES);
        struct iovec to = {looking->piece, bytes}, from = {at, bytes};
        long got = syscall(SYS_process_vm_readv, (long)getpid(), &to, 1L, &from, 1L, 0L);
        if (got < 0 && errno != EFAULT) looking->search->is_cut = true;
        for (size_t i = 0; got > 0 && (i + 1) * sizeof(void *) <= (size_t)got; i++) {
            if (is_target(looking->search, looking->piece[i])) {
                note_holder(looking, at + i * sizeof(void *));
            }
        }
    }
}

/* The kernel keeps stacks from huge pages too. */
static bool is_stack(const struct crn_mapping *mapping) {
    for (const struct crn_thread *thread = crn_threads; thread; thread = thread->next) {
        uintptr_t last = (uintptr_t)thread->stack_high - 1;
        if (last >= mapping->low && last < mapping->high) return true;
    }
    return false;
}

static bool look_through_mapping(const struct crn_mapping *mapping, void *context) {
    struct looking *looking = context;
    bool is_looked_at = mapping->is_readable && mapping->is_writable &&
                        mapping->high - mapping->low <= MAPPING_BYTES_MAX &&
                        (!mapping->is_ours || is_stack(mapping)) &&
                        !crn_space_is_reserved((const void *)mapping->low);
    bool is_private_file = mapping->path[0] == '/' && !mapping->is_shared;
    if (is_looked_at) {
        crn_os_touched((char *)mapping->low, (char *)mapping->high, is_private_file,
                       look_through_pages, looking);
    }
    return !looking->search->is_cut;
}

/* Like a collection's, so that the list of what is loaded is there and true. */
void crn_search_holders(struct crn_search *search) {
    crn_enter();
    struct looking looking = {.search = search, .piece = crn_os_map(PIECE_BYTES)};
    looking.own = (struct crn_range){CRN_STACK_POINTER(), crn_os_alternate_stack_end()};
    crn_world_stop_knowing_images();
    looking.until_ns = crn_os_now_ns() + MOST_NS;
    for (cairn_heap *heap = crn_heaps; heap; heap = heap->next) {
        crn_heap_each_block(&heap->core, look_through_block, &looking);
    }
    /* ThreadSanitizer maps so much that to list it takes a second, and valgrind all that it keeps
     * for itself. */
    bool is_foreign = crn_os_has_thread_sanitizer() || crn_checker_is_valgrind;
    bool is_listed = looking.piece && !search->is_cut && !is_foreign &&
                     crn_os_each_mapping(true, look_through_mapping, &looking);
    if (!is_listed) search->is_cut = true;
    crn_world_start();
    crn_world_release();
    if (looking.piece) crn_os_release(looking.piece, PIECE_BYTES);
    crn_leave();
}
