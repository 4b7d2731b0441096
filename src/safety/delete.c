/* SPDX-License-Identifier: MIT
 *
 * cairn_delete: the end of an object, now.
 *
 * Who sets is_deleted under the shard's lock has won; whoever comes later reports a double delete.
 * The winner clears the weak cell and writes the grave in the same section; then, outside of
 * every section, runs the finalizer (unless one has begun), queues the cleanups and empties the
 * object. From when the extra names a tombstone a trace puts it into fields: at once if there is no
 * finalizer, else when that has returned. The slot lives on by its counts like any other and is
 * free when nothing, counted or on a stack, refers to it. What may fail fails first: nothing has
 * happened then.
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

/* References become NULL through the barrier, every other word poison. Not in a section: a large
 * object must not delay a stop. The caller holds the object on its stack. */
static void empty_object(const struct crn_block *block, char *object) {
    const struct crn_type *type = block->type;
    size_t used = crn_object_used(block, object);
    if (block->content != CRN_EXACT) {
        memset(object, POISON, used);
        return;
    }
    crn_each_field(block, object, clear_field, NULL);
    if (type->has_flex || !block->is_sized) {
        poison_element(type, object, type->has_flex ? type->flex_offset : type->size);
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

static char *bury(const struct deletion *deletion, const struct crn_call *call) {
    struct crn_grave grave = {.bytes = crn_object_used(deletion->block, deletion->object),
                              .object = deletion->object,
                              .type = deletion->block->type->name,
                              .allocated = crn_site_of(deletion->object),
                              .file = call->file,
                              .function = call->function,
                              .line = call->line,
                              .thread_id = crn_self()->thread_id,
                              .deleted_ns = crn_os_now_ns(),
                              .deleted_stack = deletion->stack};
    if (CRN_UNLIKELY(crn_births_kept)) {
        struct crn_birth birth = crn_birth_of(deletion->block, deletion->object);
        grave.allocated_stack = birth.stack;
        crn_place_add_birth(&grave.allocated, birth);
    }
    return crn_graveyard_bury(&grave);
}

static enum outcome claim(void *pointer, struct deletion *deletion, const struct crn_call *call) {
    deletion->object = crn_object_of(pointer, &deletion->block);
    if (crn_graveyard_has(pointer)) return DELETED_BEFORE;
    if (!deletion->object || deletion->object != pointer) return NO_OBJECT;
    struct crn_shard *shard = crn_extras_lock(pointer);
    struct crn_extra *extra = crn_extra_make_locked(shard, pointer, deletion->block);
    enum outcome outcome = !extra ? NO_MEMORY : extra->is_deleted ? DELETED_BEFORE : WON;
    if (outcome == WON) {
        extra->is_deleted = true;
        deletion->must_finalize =
            extra->finalizer == CRN_FINALIZER_WANTED || extra->finalizer == CRN_FINALIZER_QUEUED;
        if (deletion->must_finalize) extra->finalizer = CRN_FINALIZER_RUNNING;
        if (extra->cell) __atomic_store_n(&extra->cell->target, NULL, __ATOMIC_RELEASE);
        crn_bit_set(crn_deleted_bit(pointer));
        crn_object_forget(deletion->block, pointer);
        crn_deaths_happened();
        cairn_heap *heap = (cairn_heap *)deletion->block->heap;
        __atomic_fetch_add(&heap->waiting_objects, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&heap->core.deleted_objects, 1, __ATOMIC_RELAXED);
        deletion->has_cleanups = extra->last_cleanup != NULL;
        deletion->tombstone = bury(deletion, call);
        if (!deletion->must_finalize) {
            extra->tombstone = crn_graveyard_of_field(deletion->tombstone);
        }
    }
    crn_extras_unlock(shard);
    return outcome;
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
