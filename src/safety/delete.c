/* SPDX-License-Identifier: MIT
 *
 * Deleting, tombstones, and the report of a touched one.
 *
 * A tombstone is an address in the graveyard, a range that is never mapped. Each deletion takes the
 * next stretch of it, at least the object's size, so that any offset into the object lands in its
 * own stretch; a ring of records, ascending by address, tells whose it was. The slot itself lives
 * by its count: the collector frees it when nothing, counted or on a stack, refers to it any more.
 */
#define _GNU_SOURCE
#include "object/object.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { GRAVES = 1 << 16, POISON = 0xdd };
#define GRAVEYARD_BYTES CRN_GIB(64)

struct grave {
    char *address;
    size_t bytes;
    const char *type, *file, *function;
    int line, thread_id;
    void *object;
    uint64_t deleted_ns;
};

static struct crn_lock graves_lock;
static char *graveyard, *graveyard_end, *next_grave;
static struct grave *graves;
static uint64_t grave_count; /* so far; the last GRAVES of them are kept */
static struct sigaction previous_fault;

/* ---- Reports
 * ------------------------------------------------------------------------------------------- */

static const struct grave *find_grave(const char *address) {
    uint64_t kept = grave_count < GRAVES ? grave_count : GRAVES;
    for (uint64_t i = 0; i < kept; i++) {
        const struct grave *grave = &graves[(grave_count - 1 - i) % GRAVES];
        if (address >= grave->address && address < grave->address + grave->bytes) return grave;
    }
    return NULL;
}

static _Noreturn void report_touch(const char *address, const void *context) {
    const char *access = crn_os_context_is_write(context) ? "write to" : "read of";
    unsigned long at = (unsigned long)crn_os_context_program_counter(context);
    const struct grave *grave = find_grave(address);
    if (!grave) {
        crn_fail("use after delete\n  what: %s an object that was deleted, record expired\n"
                 "  where: instruction %#lx, thread %d",
                 access, at, crn_os_thread_id());
    }
    crn_fail("use after delete\n"
             "  what: %s a deleted %s (%zu bytes) at offset %zu\n"
             "  where: instruction %#lx, thread %d\n"
             "  object: %p, a %s in the heap\n"
             "  deleted: %s:%d in %s, by thread %d, %.3f ms ago\n"
             "  next step: the variable was set to a tombstone by that cairn_delete; do not use it "
             "after",
             access, grave->type, grave->bytes, (size_t)(address - grave->address), at,
             crn_os_thread_id(), grave->object, grave->type, grave->file, grave->line,
             grave->function, grave->thread_id,
             (double)(crn_os_now_ns() - grave->deleted_ns) / 1e6);
}

/* A fault that is not ours goes to whoever was there before, or happens again without us. */
static void on_fault(int signal, siginfo_t *info, void *context) {
    const char *address = info->si_addr;
    if (address >= graveyard && address < graveyard_end) report_touch(address, context);
    if (previous_fault.sa_flags & SA_SIGINFO) {
        previous_fault.sa_sigaction(signal, info, context);
    } else if (previous_fault.sa_handler != SIG_DFL && previous_fault.sa_handler != SIG_IGN) {
        previous_fault.sa_handler(signal);
    } else {
        sigaction(signal, &previous_fault, NULL);
    }
}

static bool open_graveyard_locked(void) {
    if (graveyard) return true;
    for (size_t bytes = GRAVEYARD_BYTES; bytes >= CRN_MIB(16) && !graveyard; bytes /= 2) {
        graveyard = crn_os_reserve(bytes, CRN_SEGMENT_BYTES);
        graveyard_end = graveyard + bytes;
    }
    graves = crn_meta_alloc(GRAVES * sizeof(*graves));
    next_grave = graveyard;
    return graveyard && graves && crn_os_on_signal(SIGSEGV, on_fault, &previous_fault);
}

/* At the graveyard's end the addresses begin anew: by then their records have long expired. */
static char *bury(char *object, size_t bytes, const char *type, const char *file,
                  const char *function, int line) {
    crn_lock_acquire(&graves_lock);
    CAIRN_REQUIRE(open_graveyard_locked(), "cairn_delete: no memory for tombstones");
    size_t stretch = crn_round_up(bytes + 1, CRN_GRANULE);
    if ((size_t)(graveyard_end - next_grave) < stretch) next_grave = graveyard;
    CAIRN_REQUIRE((size_t)(graveyard_end - next_grave) >= stretch,
                  "cairn_delete: an object of %zu bytes is larger than the graveyard", bytes);
    char *tombstone = next_grave;
    next_grave += stretch;
    graves[grave_count++ % GRAVES] = (struct grave){.address = tombstone,
                                                    .bytes = bytes,
                                                    .type = type,
                                                    .file = file,
                                                    .function = function,
                                                    .line = line,
                                                    .thread_id = crn_os_thread_id(),
                                                    .object = object,
                                                    .deleted_ns = crn_os_now_ns()};
    crn_lock_release(&graves_lock);
    return tombstone;
}

/* ---- Deleting
 * ------------------------------------------------------------------------------------------- */

static void clear_field(void **field, void *context) {
    (void)context;
    crn_store_null(field);
}

/* References become NULL through the barrier, every other word poison. */
static void empty_object(struct crn_block *block, char *object) {
    size_t used = crn_object_used(block, object);
    if (block->content != CRN_EXACT) {
        memset(object, block->content == CRN_LEAF ? POISON : 0, used);
        return;
    }
    crn_each_field(block, object, clear_field, NULL);
    for (char *at = object; at + sizeof(void *) <= object + used; at += sizeof(void *)) {
        void *word;
        memcpy(&word, at, sizeof(word));
        if (word) memset(at, POISON, sizeof(word));
    }
}

static _Noreturn void report_bad_delete(const void *pointer, const char *start, const char *file,
                                        int line) {
    const char *address = pointer;
    if (graveyard && address >= graveyard && address < graveyard_end) {
        const struct grave *grave = find_grave(address);
        if (!grave) crn_fail("double delete at %s:%d; the record of the first expired", file, line);
        crn_fail(
            "double delete\n  what: a %s, deleted before\n  where: %s:%d\n  deleted: %s:%d in %s",
            grave->type, file, line, grave->file, grave->line, grave->function);
    }
    if (start) {
        crn_fail("delete of an interior pointer at %s:%d: %p is %zu bytes into the object at %p",
                 file, line, pointer, (size_t)(address - start), (const void *)start);
    }
    crn_fail("delete of what is no object at %s:%d: %p", file, line, pointer);
}

void *cairn_delete_(void *pointer, const char *file, const char *function, int line) {
    if (!pointer) return NULL;
    crn_enter();
    struct crn_block *block = NULL;
    char *object = crn_object_of(pointer, &block);
    if (!object || object != pointer) report_bad_delete(pointer, object, file, line);
    crn_lock_acquire(&crn_extras_lock);
    struct crn_extra *extra = crn_extra_make_locked(object, block);
    CAIRN_REQUIRE(extra, "cairn_delete: out of memory");
    CAIRN_REQUIRE(!extra->is_deleted, "double delete at %s:%d of the %s at %p", file, line,
                  block->type->name, pointer);
    extra->is_deleted = true;
    bool must_finalize = extra->is_finalizable && !extra->is_finalized;
    extra->is_finalized = true;
    if (extra->cell) extra->cell->target = NULL;
    crn_lock_release(&crn_extras_lock);
    crn_leave();
    if (must_finalize) block->type->finalize(object);
    crn_enter();
    crn_bit_set(crn_deleted_bit(object));
    empty_object(block, object);
    __atomic_fetch_add(&block->heap->deleted_objects, 1, __ATOMIC_RELAXED);
    char *tombstone =
        bury(object, crn_object_used(block, object), block->type->name, file, function, line);
    crn_leave();
    return tombstone;
}

bool cairn_is_deleted(const void *pointer) {
    const char *address = pointer;
    if (graveyard && address >= graveyard && address < graveyard_end) return true;
    crn_enter();
    struct crn_block *block;
    char *object = crn_object_of(pointer, &block);
    bool is_deleted = object && crn_bit_get(crn_deleted_bit(object));
    crn_leave();
    return is_deleted;
}
