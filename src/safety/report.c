/* SPDX-License-Identifier: MIT
 *
 * Reports of what was deleted, and the handler of faults that finds them.
 *
 * The handler runs on the program's alternate stack if it has one. A fault outside the graveyard
 * goes to whoever listened before; where nobody did it happens again with the default action, so a
 * program that overflows its stack dies as it would without Cairn (on a stack that is full and has
 * no alternate, the kernel does not get as far as the handler).
 *
 * The program's report handler may leave by longjmp. So a report from a fault first restores the
 * signal mask of the faulting code and ends the section that a copy out of a tombstone may be in.
 * No lock is held there: the runtime touches nothing of the program's under one.
 */
#define _GNU_SOURCE
#include "heap/guard.h"
#include "safety/safety.h"

#include <string.h>
#include <ucontext.h>

static struct sigaction previous_fault;

/* ---- Touching ---- */

static const char *next_step_after(const void *address) {
    if (crn_space_is_variable_tombstone(address)) {
        return "the variable was set to a tombstone by that cairn_delete; do not use it after";
    }
    return "the reference outlived the object: set it to NULL where the object is deleted, or make "
           "it a cairn_weak";
}

static void add_access(struct crn_report *report, const struct crn_access *access, size_t offset) {
    crn_report_string(report, "access", access->verb);
    crn_report_number(report, "address", (uintptr_t)access->address);
    crn_report_number(report, "offset", offset);
    if (access->bytes) crn_report_number(report, "access_bytes", access->bytes);
}

static void report_expired(const struct crn_access *access, const struct crn_call *call) {
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_USE_AFTER_DELETE);
    crn_report_line(report, "what", "%s an object that was deleted, record expired", access->verb);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    add_access(report, access, 0);
    crn_scene_close(scene, next_step_after(access->address));
    if (call->context) crn_report_abort(report);
    crn_report_end(report);
}

static void report_grave(const struct crn_access *access, const struct crn_grave *grave,
                         size_t offset, const struct crn_call *call) {
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_USE_AFTER_DELETE);
    crn_report_line(report, "what", "%s a deleted %s (%zu bytes) at offset %zu", access->verb,
                    grave->type, grave->bytes, offset);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    add_access(report, access, offset);
    crn_scene_grave(scene, grave);
    crn_scene_holders(scene, grave->object, grave->bytes, grave);
    crn_scene_close(scene, next_step_after(access->address));
    if (call->context) crn_report_abort(report);
    crn_report_end(report);
}

void crn_report_use(const struct crn_access *access, const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_USE_AFTER_DELETE, call)) return;
    struct crn_grave grave;
    const void *address = access->address;
    struct crn_block *block;
    const char *start = crn_object_of(address, &block);
    size_t offset = start ? (size_t)((const char *)address - start) : 0;
    bool is_known = crn_graveyard_has(address)
                        ? crn_graveyard_find(address, &grave, &offset)
                        : crn_graveyard_find_object(start ? start : address, &grave);
    if (is_known)
        report_grave(access, &grave, offset, call);
    else
        report_expired(access, call);
}

static void report_fault(const char *address, const void *context, bool was_in_section) {
    const char *verb = crn_os_context_is_write(context) ? "write to" : "read of";
    struct crn_call call = {.context = context, .was_in_section = was_in_section};
    struct crn_access access = {verb, address, 0};
    crn_report_use(&access, &call);
}

/* ---- Guards ---- */

static void report_guard_bounds(const struct crn_access *access, const struct crn_block *block,
                                const struct crn_call *call) {
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_OUT_OF_BOUNDS);
    ptrdiff_t offset = (const char *)access->address - block->base;
    crn_report_line(report, "what", "%s offset %td of a %s, which has %zu bytes", access->verb,
                    offset, block->type->name, block->used_bytes);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_string(report, "access", access->verb);
    crn_report_number(report, "address", (uintptr_t)access->address);
    crn_scene_object(scene, block->base, block);
    crn_scene_close(scene, NULL);
    crn_report_abort(report);
}

static void report_guard_death(const struct crn_access *access, const struct crn_block *block,
                               const struct crn_call *call) {
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_USE_AFTER_DEATH);
    if (block) {
        crn_report_line(report, "what", "%s a %s (%zu bytes) at offset %td that was reclaimed",
                        access->verb, block->type->name, block->used_bytes,
                        (const char *)access->address - block->base);
    } else {
        crn_report_line(report, "what", "%s %p, where no object lives", access->verb,
                        access->address);
    }
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_string(report, "access", access->verb);
    crn_report_number(report, "address", (uintptr_t)access->address);
    if (block) crn_scene_object(scene, block->base, block);
    if (block) crn_scene_holders(scene, block->base, crn_max(block->used_bytes, 1), NULL);
    crn_scene_close(scene,
                    "nothing that Cairn sees referred to it: keep a reference where it looks");
    crn_report_abort(report);
}

/* A place that has been deleted or has died is so until it is used again; its grave, if it was
 * deleted, is found by its address, and is the last one of that address. */
static void report_guard(const char *address, const void *context, bool was_in_section) {
    const char *verb = crn_os_context_is_write(context) ? "write to" : "read of";
    struct crn_call call = {.context = context, .was_in_section = was_in_section};
    struct crn_access access = {verb, address, 0};
    const struct crn_block *block = crn_guard_block_of(address);
    struct crn_grave grave;
    if (!block || (!block->sealed && block->state == CRN_BLOCK_FREE)) {
        report_guard_death(&access, NULL, &call);
    } else if (!block->sealed) {
        report_guard_bounds(&access, block, &call);
    } else if (block->sealed == CRN_SEALED_BY_DELETION &&
               crn_graveyard_find_object(block->base, &grave)) {
        report_grave(&access, &grave, (size_t)(address - block->base), &call);
    } else {
        report_guard_death(&access, block, &call);
    }
}

/* Memory of a heap that was destroyed. */
static void report_ended_heap(const char *address, const void *context, bool was_in_section) {
    const char *verb = crn_os_context_is_write(context) ? "write to" : "read of";
    struct crn_call call = {.context = context, .was_in_section = was_in_section};
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_USE_AFTER_DEATH);
    crn_report_line(report, "what", "%s %p, in heap %s, which was destroyed", verb,
                    (const void *)address, crn_space_was_heap(address));
    struct crn_scene *scene = crn_scene_open(report, &call);
    crn_scene_where(scene);
    crn_report_string(report, "access", verb);
    crn_report_number(report, "address", (uintptr_t)address);
    crn_scene_holders(scene, address, 1, NULL);
    crn_scene_close(scene, "no pointer into a heap may be used after cairn_heap_destroy");
    crn_report_abort(report);
}

static void leave_sections(const ucontext_t *context) {
    pthread_sigmask(SIG_SETMASK, &context->uc_sigmask, NULL);
    cairn_thread.no_stop = 0;
    if (cairn_thread.deferred) cairn_stop_poll_();
}

/* A signal that somebody sent does not come again by itself. */
static void take_default(int signal, const siginfo_t *info) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, NULL);
    if (info->si_code <= 0) raise(signal);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    const char *address = info->si_code > 0 ? info->si_addr : NULL;
    bool was_in_section = cairn_thread.no_stop != 0;
    if (address && crn_graveyard_has(address)) {
        leave_sections(context);
        report_fault(address, context, was_in_section);
    }
    if (address && crn_guard_period && crn_space_is_reserved(address)) {
        leave_sections(context);
        report_guard(address, context, was_in_section);
    }
    if (address && crn_space_was_heap(address)) {
        leave_sections(context);
        report_ended_heap(address, context, was_in_section);
    }
    if (previous_fault.sa_flags & SA_SIGINFO) {
        previous_fault.sa_sigaction(signal, info, context);
    } else if (previous_fault.sa_handler == SIG_IGN && info->si_code <= 0) {
        return;
    } else if (previous_fault.sa_handler != SIG_DFL && previous_fault.sa_handler != SIG_IGN) {
        previous_fault.sa_handler(signal);
    } else {
        take_default(signal, info);
    }
}

bool crn_listen_for_faults(void) {
    static struct crn_lock listen_lock;
    static bool is_listening;
    crn_lock_acquire(&listen_lock);
    if (!is_listening) is_listening = crn_os_on_signal(SIGSEGV, on_fault, &previous_fault);
    bool is_done = is_listening;
    crn_lock_release(&listen_lock);
    return is_done;
}

/* ---- Deleting what cannot be deleted ---- */

void crn_report_double_delete(const void *pointer, const char *type, const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_DOUBLE_DELETE, call)) return;
    struct crn_grave grave;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_DOUBLE_DELETE);
    bool is_known = crn_graveyard_find_object(pointer, &grave);
    if (is_known) {
        crn_report_line(report, "what", "a %s (%zu bytes), deleted before", grave.type,
                        grave.bytes);
    } else {
        crn_report_line(report, "what", "the %s at %p, deleted before; the record expired", type,
                        pointer);
    }
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    if (is_known) crn_scene_grave(scene, &grave);
    if (is_known) crn_scene_holders(scene, grave.object, grave.bytes, &grave);
    crn_scene_close(scene, "of two places that end one object, take the cairn_delete out of one");
    crn_report_end(report);
}

void crn_report_bad_delete(const void *pointer, const char *start, const struct crn_block *block,
                           const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_BAD_DELETE, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_BAD_DELETE);
    if (start) {
        crn_report_line(report, "what",
                        "delete of an interior pointer: %p is %zu bytes into the %s at %p", pointer,
                        (size_t)((const char *)pointer - start), block->type->name,
                        (const void *)start);
    } else {
        crn_report_line(report, "what",
                        "delete of what is no object: %p lies in no object of any heap", pointer);
    }
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_number(report, "address", (uintptr_t)pointer);
    if (start) crn_scene_object(scene, start, block);
    crn_scene_close(scene, start
                               ? "delete the pointer that the allocation returned"
                               : "delete only what cairn_new and its sisters returned; memory of "
                                 "malloc goes to free, a local or static variable goes by itself");
    crn_report_end(report);
}
