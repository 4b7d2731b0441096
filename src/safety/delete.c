/* SPDX-License-Identifier: MIT
 *
 * cairn_delete: the end of an object, now.
 *
 * Who sets the deleted bit has won; whoever comes later reports a double delete. The winner buries
 * the object: the record (graveyard.c) is all that an epoch needs to know. The usual deletion takes
 * no lock and has one locked instruction, that bit.
 *
 * If the block says that it has special objects (a weak cell, cleanups, a finalizer, pins), the
 * winner looks for the object's extra under its lock, clears the weak cell, and afterwards, outside
 * of every section, runs the finalizer (unless one has begun) and queues the cleanups. Setting the
 * bit and reading has_special are in order, as are setting has_special and reading the bit where
 * an extra is made: so either this deletion finds the extra, or who made it finds the object
 * deleted.
 *
 * Then the object is emptied. From when its extra names a tombstone a trace puts it into fields:
 * from the next epoch if there is no finalizer, else when that has returned. The slot lives on by
 * its counts like any other and is free when nothing, counted or on a stack, refers to it. What may
 * fail fails first: nothing has happened then.
 *
 * Every report comes after the last lock and section: its handler may leave with longjmp.
 */
#include "heap/guard.h"
#include "os/stack.h"
#include "safety/safety.h"

#include <string.h>

enum { POISON = 0xdd };

/* Words that hold no reference. Another thread may be storing a reference beside them. */
static void poison_element(const struct crn_type *type, char *element, size_t bytes) {
    for (size_t at = 0; at < bytes; at += sizeof(void *)) {
        if (crn_is_reference_word(type, at / sizeof(void *))) continue;
        memset(element + at, POISON, crn_min(sizeof(void *), bytes - at));
    }
}

static void clear_field(void **field, void *value, void *context) {
    (void)value;
    (void)context;
    crn_store_null(field);
}

/* Single objects whose fields a map has. */
static void empty_mapped(const struct crn_type *type, char *object) {
    size_t words = type->size / sizeof(void *), tail = type->size % sizeof(void *);
    for (size_t i = 0; i < words; i++) {
        if (i < 64 && (type->map >> i & 1))
            crn_store_null((void **)(void *)object + i);
        else
            memset(object + i * sizeof(void *), POISON, sizeof(void *));
    }
    if (tail) memset(object + words * sizeof(void *), POISON, tail);
}

/* References become NULL through the barrier, every other word poison. Not in a section: a large
 * object must not delay a stop. The caller holds the object on its stack. */
static void empty_object(const struct crn_block *block, char *object) {
    const struct crn_type *type = block->type;
    size_t used = crn_object_used(block, object);
    if (block->content != CRN_EXACT) {
        memset(object, POISON, used);
        return;
    }
    if (type->is_mapped && !block->is_sized && !type->has_flex) {
        empty_mapped(type, object);
        return;
    }
    crn_each_field(block, object, clear_field, NULL);
    if (type->has_flex || !block->is_sized) {
        size_t head = type->has_flex ? type->flex_offset : type->size;
        poison_element(type, object, head);
        if (type->is_flex_data) memset(object + head, POISON, used - head);
        return;
    }
    if (type->size == sizeof(void *)) return;
    for (size_t at = 0; at + type->size <= used; at += type->size) {
        poison_element(type, object + at, type->size);
    }
}

enum outcome { WON, NO_OBJECT, DELETED_BEFORE, NO_MEMORY };

struct deletion {
    char *object;
    struct crn_block *block;
    char *tombstone;
    uint32_t stack; /* of who deletes it */
    bool must_finalize, has_cleanups;
};

static void fill_grave(struct crn_grave *grave, const struct deletion *deletion,
                       const struct crn_call *call, int thread_id) {
    const struct crn_block *block = deletion->block;
    grave->object = deletion->object;
    grave->type = block->type->name;
    grave->allocated =
        crn_site_noted(&((struct crn_block *)(uintptr_t)block)->heap->region, deletion->object);
    grave->file = call->file;
    grave->function = call->function;
    grave->line = call->line;
    grave->thread_id = thread_id;
    grave->deleted_ns = crn_os_now_coarse_ns();
    grave->allocated_stack = 0;
    grave->deleted_stack = deletion->stack;
    grave->has_extra = false;
    if (CRN_LIKELY(!crn_births_kept)) return;
    struct crn_birth birth = crn_birth_of(block, deletion->object);
    grave->allocated_stack = birth.stack;
    crn_place_add_birth(&grave->allocated, birth);
}

/* Something of the block has an extra that is more than a deletion, this object perhaps. */
static CRN_NOINLINE void bury_special(struct crn_thread *self, struct crn_grave *grave,
                                      struct deletion *deletion) {
    struct crn_shard *shard = crn_extras_lock(deletion->object);
    struct crn_extra *extra = crn_extra_find_locked(shard, deletion->object);
    if (extra) {
        deletion->must_finalize =
            extra->finalizer == CRN_FINALIZER_WANTED || extra->finalizer == CRN_FINALIZER_QUEUED;
        if (deletion->must_finalize) extra->finalizer = CRN_FINALIZER_RUNNING;
        if (extra->cell) __atomic_store_n(&extra->cell->target, NULL, __ATOMIC_RELEASE);
        deletion->has_cleanups = extra->last_cleanup != NULL;
    }
    grave->has_extra = extra != NULL;
    deletion->tombstone = crn_graveyard_bury(self, grave);
    if (extra && !deletion->must_finalize) {
        extra->tombstone = crn_graveyard_of_field(deletion->tombstone);
    }
    crn_extras_unlock(shard);
}

static enum outcome claim(void *pointer, struct deletion *deletion, const struct crn_call *call) {
    deletion->object = crn_object_of(pointer, &deletion->block);
    if (crn_graveyard_has(pointer)) return DELETED_BEFORE;
    if (!deletion->object || deletion->object != pointer) return NO_OBJECT;
    struct crn_block *block = deletion->block;
    struct crn_thread *self = crn_self();
    struct crn_grave *grave = crn_graveyard_dig(self, crn_object_used(block, pointer));
    if (!grave) return NO_MEMORY;
    /* Before the bit: who finds that nothing in the block may be deleted does not look at it. */
    __atomic_store_n(&block->has_extras, true, __ATOMIC_RELAXED);
    bool has_won = crn_deleted_bit_claim(pointer);
    /* By the loser too: his uses come after his own deletion, and the winner may not be this far.
     * Its slot is not free before a stop. */
    if (crn_object_has_verdicts(pointer)) crn_verdicts_end(pointer, crn_object_bytes(block));
    if (!has_won) {
        self->is_digging = false;
        return DELETED_BEFORE;
    }
    if (CRN_UNLIKELY(__atomic_load_n(&crn_deaths_are_watched, __ATOMIC_RELAXED))) {
        crn_deaths_happened();
    }
    fill_grave(grave, deletion, call, self->thread_id);
    if (CRN_UNLIKELY(__atomic_load_n(&block->has_special, __ATOMIC_RELAXED)))
        bury_special(self, grave, deletion);
    else
        deletion->tombstone = crn_graveyard_bury(self, grave);
    return WON;
}

/* The finalizer of an object that had died runs here too: its call finds that it is over. Cleanups
 * follow the finalizer. */
static void finalize(const struct deletion *deletion) {
    if (deletion->must_finalize) deletion->block->type->finalize(deletion->object);
    crn_enter();
    struct crn_shard *shard = crn_extras_lock(deletion->object);
    struct crn_extra *extra = crn_extra_find_locked(shard, deletion->object);
    if (deletion->must_finalize) extra->finalizer = CRN_FINALIZER_NONE;
    crn_cleanups_queue_locked(extra);
    extra->tombstone = crn_graveyard_of_field(deletion->tombstone);
    crn_extras_unlock(shard);
    crn_leave();
}

static void finish(const struct deletion *deletion) {
    bool has_more = deletion->must_finalize || deletion->has_cleanups;
    if (has_more) finalize(deletion);
    empty_object(deletion->block, deletion->object);
    if (CRN_UNLIKELY(crn_checker_watches)) {
        size_t used = crn_object_used(deletion->block, deletion->object);
        crn_checker_forbid(deletion->object, used);
    }
    if (CRN_UNLIKELY(deletion->block->is_guarded)) {
        crn_enter();
        crn_guard_seal(deletion->block);
        crn_leave();
    }
    if (has_more) crn_finalizers_signal();
}

/* Of the first deletion. */
static CRN_NOINLINE void prepare(void) {
    crn_os_trace_prepare();
}

/* Returns the tombstone; NULL if nothing was deleted and the program goes on. */
static char *delete_object(void *pointer, const struct crn_call *call) {
    struct deletion deletion = {.object = NULL};
    if (CRN_UNLIKELY(!crn_graveyard_is_open())) prepare();
    if (CRN_UNLIKELY(crn_births_kept)) {
        deletion.stack = crn_deletion_stack(pointer, call->returns_to);
    }
    crn_enter();
    bool is_open = crn_graveyard_open();
    enum outcome outcome = is_open ? claim(pointer, &deletion, call) : NO_MEMORY;
    crn_extras_pace();
    crn_leave();
    if (CRN_LIKELY(outcome == WON)) {
        finish(&deletion);
        cairn_keep(pointer);
        return deletion.tombstone;
    }
    if (outcome == NO_MEMORY) {
        crn_fail("cairn_delete at %s:%d: out of memory", call->file, call->line);
    }
    if (outcome == NO_OBJECT) {
        crn_report_bad_delete(pointer, deletion.object, deletion.block, call);
    } else {
        const char *type = deletion.object ? deletion.block->type->name : "object";
        crn_report_double_delete(pointer, type, call);
    }
    return NULL;
}

void *cairn_delete_(void *pointer, const char *file, const char *function, int line) {
    if (!pointer) return NULL;
    struct crn_call call = CRN_CALL_HERE();
    char *tombstone = delete_object(pointer, &call);
    return tombstone ? tombstone : pointer;
}

void cairn_delete_ref_(void **field, const char *file, const char *function, int line) {
    void *object = __atomic_load_n(field, __ATOMIC_ACQUIRE);
    if (!object) return;
    struct crn_call call = CRN_CALL_HERE();
    char *tombstone = delete_object(object, &call);
    /* What another thread, or the finalizer, has stored meanwhile stays. */
    if (tombstone) (void)cairn_cas_(field, &object, crn_graveyard_of_field(tombstone));
}

bool cairn_is_deleted(const void *pointer) {
    if (crn_graveyard_has(pointer)) return true;
    crn_enter();
    struct crn_block *block;
    char *object = crn_object_of(pointer, &block);
    bool is_deleted = object && crn_bit_get(crn_deleted_bit(object));
    crn_leave();
    return is_deleted;
}
