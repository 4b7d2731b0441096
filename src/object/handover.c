/* SPDX-License-Identifier: MIT
 *
 * What threads hand to each other: the argument of one that is made until it has taken it, and its
 * result until it is joined or known to be detached. Owns the handover lock, which ranks with the
 * roots' lock.
 *
 * It goes when three things are true: the thread is over, nobody will join it any more (it was
 * detached, or a join has returned), and its creator has named it, for until then the creator holds
 * its address. A joiner takes it before it waits: as soon as the wait has ended, a new thread may
 * have the old one's name.
 */
#include "object/object.h"

#include "base/described.h"

struct crn_handover {
    struct crn_handover *next, *prev; /* under the lock */
    struct crn_given given;           /* scanned; the argument is cleared when it has been taken */
    void *result;                     /* scanned; written by the thread */
    struct crn_thread *record;        /* the thread's until it is known: it needs no memory then */
    uintptr_t thread; /* as pthread_self; 0 until the thread or its creator says it */
    bool is_over, is_detached, is_named, is_joining;
};

static struct crn_lock handover_lock;
static struct crn_handover *handovers; /* newest first */
static CAIRN_THREAD_LOCAL_ struct crn_handover *mine;

static void unlink_locked(struct crn_handover *handover) {
    if (handover->prev)
        handover->prev->next = handover->next;
    else
        handovers = handover->next;
    if (handover->next) handover->next->prev = handover->prev;
    crn_meta_free(handover, sizeof(*handover));
}

static void retire_locked(struct crn_handover *handover) {
    if (handover->is_over && handover->is_detached && handover->is_named) unlink_locked(handover);
}

struct crn_handover *crn_handover_make(struct crn_given given, bool is_detached) {
    struct crn_handover *handover = crn_meta_alloc(sizeof(*handover));
    if (!handover) return NULL;
    handover->record = crn_thread_make();
    if (!handover->record) {
        crn_meta_free(handover, sizeof(*handover));
        return NULL;
    }
    handover->given = given;
    handover->is_detached = is_detached;
    crn_lock_acquire(&handover_lock);
    handover->next = handovers;
    if (handovers) handovers->prev = handover;
    handovers = handover;
    crn_lock_release(&handover_lock);
    return handover;
}

void crn_handover_drop(struct crn_handover *handover) {
    crn_thread_free(handover->record);
    crn_lock_acquire(&handover_lock);
    unlink_locked(handover);
    crn_lock_release(&handover_lock);
}

void crn_handover_name(struct crn_handover *handover, uintptr_t thread) {
    crn_lock_acquire(&handover_lock);
    handover->thread = thread;
    handover->is_named = true;
    retire_locked(handover);
    crn_lock_release(&handover_lock);
}

struct crn_thread **crn_handover_record(struct crn_handover *handover) {
    return &handover->record;
}

struct crn_given crn_handover_begin(struct crn_handover *handover, uintptr_t thread) {
    crn_lock_acquire(&handover_lock);
    struct crn_given given = handover->given;
    handover->given.argument = NULL;
    handover->thread = thread;
    mine = handover;
    crn_lock_release(&handover_lock);
    return given;
}

void crn_handover_leave(void *result) {
    if (mine) mine->result = result;
}

void crn_handover_exits(void) {
    if (!mine) return;
    crn_lock_acquire(&handover_lock);
    mine->is_over = true;
    retire_locked(mine);
    crn_lock_release(&handover_lock);
    mine = NULL;
}

static struct crn_handover *find_locked(uintptr_t thread) {
    struct crn_handover *at = handovers;
    while (at && (at->is_joining || at->is_detached || at->thread != thread)) at = at->next;
    return at;
}

void crn_handover_detach(uintptr_t thread) {
    crn_lock_acquire(&handover_lock);
    struct crn_handover *handover = find_locked(thread);
    if (handover) {
        handover->is_detached = true;
        retire_locked(handover);
    }
    crn_lock_release(&handover_lock);
}

struct crn_handover *crn_handover_join(uintptr_t thread) {
    crn_lock_acquire(&handover_lock);
    struct crn_handover *handover = find_locked(thread);
    if (handover) handover->is_joining = true;
    crn_lock_release(&handover_lock);
    return handover;
}

void crn_handover_joined(struct crn_handover *handover, bool is_over) {
    if (!handover) return;
    crn_lock_acquire(&handover_lock);
    handover->is_joining = false;
    if (is_over) {
        handover->is_over = handover->is_detached = true;
        retire_locked(handover);
    }
    crn_lock_release(&handover_lock);
}

void crn_handovers_forget_others(void) {
    for (struct crn_handover *at = handovers, *next; at; at = next) {
        next = at->next;
        if (at == mine) continue;
        if (at->record) crn_thread_free(at->record);
        unlink_locked(at);
    }
}

void crn_handovers_each(void (*visit)(char *low, char *high, void *context), void *context) {
    for (struct crn_handover *at = handovers; at; at = at->next) {
        visit((char *)&at->given, (char *)(&at->result + 1), context);
    }
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_MEMBER(crn_handover, next),
    CRN_MEMBER(crn_handover, given),
    CRN_MEMBER(crn_handover, result),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(handovers),
};
