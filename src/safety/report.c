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
#include "os/module.h"
#include "safety/safety.h"

#include <stdio.h>
#include <string.h>
#include <ucontext.h>

static struct sigaction previous_fault;

/* ---- Texts ---- */

enum { TEXT_BYTES = 512 };

static void describe_deletion(const struct crn_grave *grave, char *text) {
    uint64_t us = (crn_os_now_ns() - grave->deleted_ns) / 1000;
    snprintf(text, TEXT_BYTES, "%s:%d in %s, by thread %d, %llu.%03u ms ago", grave->file,
             grave->line, grave->function, grave->thread_id, (unsigned long long)(us / 1000),
             (unsigned)(us % 1000));
}

static void describe_code(uintptr_t at, char *text) {
    struct crn_module module;
    if (crn_os_module_of(at, &module)) {
        snprintf(text, TEXT_BYTES, "instruction %#lx, addr2line -e %s %#lx", (unsigned long)at,
                 module.path, (unsigned long)module.offset);
    } else {
        snprintf(text, TEXT_BYTES, "instruction %#lx", (unsigned long)at);
    }
}

/* ---- Touching ---- */

/* `address` is where in the object, or in a tombstone of it; `where` is the place in the program.
 */
static _Noreturn void report_touch(const struct crn_grave *grave, const void *address,
                                   size_t offset, const char *access, const char *where) {
    bool is_variable = crn_space_is_variable_tombstone(address);
    char allocated[TEXT_BYTES], deleted[TEXT_BYTES];
    crn_place_describe(&grave->allocated, allocated, TEXT_BYTES);
    describe_deletion(grave, deleted);
    crn_fail("use after delete\n"
             "  what: %s a deleted %s (%zu bytes) at offset %zu\n"
             "  where: %s, thread %d\n"
             "  object: %p, a %s in the heap\n"
             "  allocated: %s\n"
             "  deleted: %s\n"
             "  next step: %s",
             access, grave->type, grave->bytes, offset, where, crn_os_thread_id(), grave->object,
             grave->type, allocated, deleted,
             is_variable
                 ? "the variable was set to a tombstone by that cairn_delete; do not use it "
                   "after"
                 : "the reference outlived the object: set it to NULL where the object is "
                   "deleted, or make it a cairn_weak");
}

static _Noreturn void report_touch_of_forgotten(const char *access, const char *where) {
    crn_fail("use after delete\n  what: %s an object that was deleted, record expired\n"
             "  where: %s, thread %d",
             access, where, crn_os_thread_id());
}

static _Noreturn void report_fault(const char *address, const void *context) {
    const char *access = crn_os_context_is_write(context) ? "write to" : "read of";
    char where[TEXT_BYTES];
    describe_code(crn_os_context_program_counter(context), where);
    struct crn_grave grave;
    size_t offset;
    if (!crn_graveyard_find(address, &grave, &offset)) report_touch_of_forgotten(access, where);
    report_touch(&grave, address, offset, access, where);
}

void crn_report_use(const void *pointer, const char *access, const struct crn_call *call) {
    char where[TEXT_BYTES];
    snprintf(where, sizeof(where), "%s:%d in %s", call->file, call->line, call->function);
    struct crn_grave grave;
    size_t offset = 0;
    bool is_known = crn_graveyard_has(pointer) ? crn_graveyard_find(pointer, &grave, &offset)
                                               : crn_graveyard_find_object(pointer, &grave);
    if (!is_known) report_touch_of_forgotten(access, where);
    report_touch(&grave, pointer, offset, access, where);
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
    if (info->si_code > 0 && crn_graveyard_has(info->si_addr)) {
        leave_sections(context);
        report_fault(info->si_addr, context);
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

bool crn_report_init(void) {
    return crn_os_on_signal(SIGSEGV, on_fault, &previous_fault);
}

/* ---- Deleting what cannot be deleted ---- */

void crn_report_double_delete(const void *pointer, const char *type, const struct crn_call *site) {
    struct crn_grave grave;
    if (!crn_graveyard_find_object(pointer, &grave)) {
        crn_fail("double delete\n  what: the %s at %p, deleted before; the record expired\n"
                 "  where: %s:%d in %s",
                 type, pointer, site->file, site->line, site->function);
    }
    char allocated[TEXT_BYTES], deleted[TEXT_BYTES];
    crn_place_describe(&grave.allocated, allocated, TEXT_BYTES);
    describe_deletion(&grave, deleted);
    crn_fail("double delete\n"
             "  what: a %s (%zu bytes), deleted before\n"
             "  where: %s:%d in %s, thread %d\n"
             "  object: %p\n"
             "  allocated: %s\n"
             "  deleted: %s",
             grave.type, grave.bytes, site->file, site->line, site->function, crn_os_thread_id(),
             grave.object, allocated, deleted);
}

void crn_report_no_object(const void *pointer, const char *start, const char *type,
                          const struct crn_call *site) {
    if (start) {
        crn_fail("delete of an interior pointer\n"
                 "  what: %p is %zu bytes into the %s at %p\n"
                 "  where: %s:%d in %s, thread %d\n"
                 "  next step: delete the pointer that the allocation returned",
                 pointer, (size_t)((const char *)pointer - start), type, (const void *)start,
                 site->file, site->line, site->function, crn_os_thread_id());
    }
    crn_fail("delete of what is no object\n"
             "  what: %p lies in no object of any heap\n"
             "  where: %s:%d in %s, thread %d",
             pointer, site->file, site->line, site->function, crn_os_thread_id());
}
