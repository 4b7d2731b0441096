/* SPDX-License-Identifier: MIT
 *
 * See births.h. With CAIRN_STACKS every allocation takes the slow path and is noted before the
 * program gets its object; in guard mode the guarded ones are, which are slow as they are.
 *
 * A birth is a stack's number and a thread, eight bytes. That of an object with blocks of its own
 * is in its block's descriptor, so that one guarded object in a thousand costs no shadow. That of a
 * slot is in a shadow of its heap, one for each 16 bytes, reserved at the heap's first note,
 * committed as it is touched. It is not the sites' shadow (sites.c), which then stays as it is: a
 * site is the compiler's and has a number of twenty bits, while a program has as many stacks as it
 * likes, and what the ordinary mode reads and writes does not depend on either. With stacks on each
 * slot is noted whenever it is handed out, so nothing needs to be forgotten.
 *
 * The walk up the stack comes outside of sections, since it may wait for the loader's lock.
 */
#include "object/births.h"

#include "heap/guard.h"
#include "object/object.h"
#include "os/stack.h"
#include "os/unwind.h"

#include <stdio.h>
#include <string.h>

enum crn_births crn_births_kept;
static unsigned stack_depth;

void crn_births_init(enum crn_births kept, uint32_t depth) {
    crn_births_kept = kept;
    stack_depth = depth;
}

/* ---- Taking -------------------------------------------------------------------------------------
 */

/* Where the tables do not lead the C library's unwinder knows a way, in microseconds. */
static CRN_NOINLINE unsigned walk_slow(uintptr_t *frames, const void *returns_to,
                                       const struct crn_thread *self) {
    struct crn_trace trace;
    crn_os_trace(&trace, returns_to, NULL, self->stack_low, self->stack_high);
    unsigned count = trace.count < stack_depth ? trace.count : stack_depth;
    memcpy(frames, trace.frames, count * sizeof(*frames));
    return count;
}

/* 0 in the handler of a signal that came amid the runtime's own work. */
static unsigned walk(uintptr_t *frames, const void *returns_to) {
    const struct crn_thread *self = crn_self();
    if (cairn_thread.no_stop) return 0;
    unsigned count = crn_os_unwind(frames, stack_depth, returns_to, self->stack_high);
    return CRN_LIKELY(count) ? count : walk_slow(frames, returns_to, self);
}

static uint32_t number_of(const uintptr_t *frames, unsigned count) {
    return count ? crn_depot_put(frames, count) : (uint32_t)CRN_STACK_LOST;
}

uint32_t crn_deletion_stack(const void *object, const void *returns_to) {
    if (crn_births_kept != CRN_BIRTHS_OF_ALL) {
        const struct crn_block *block = crn_guard_block_of(object);
        if (!block || !block->is_guarded) return CRN_STACK_NONE;
    }
    if (CRN_UNLIKELY(!crn_self())) { /* of which the walk needs to know the stack */
        crn_enter();
        crn_leave();
    }
    uintptr_t frames[CRN_FRAMES_MAX];
    unsigned count = walk(frames, returns_to);
    crn_enter();
    uint32_t number = number_of(frames, count);
    crn_leave();
    return number;
}

/* ---- Births -------------------------------------------------------------------------------------
 */

static void set_birth(struct crn_block *block, const void *object, struct crn_birth birth) {
    if (!block->slot_size) {
        block->birth = birth;
        return;
    }
    struct crn_birth *kept = crn_region_birth(&block->heap->region, object, true);
    if (kept) *kept = birth;
}

void crn_birth_note(const void *object, const void *returns_to) {
    struct crn_block *block = crn_block_of_start(object);
    if (crn_births_kept != CRN_BIRTHS_OF_ALL && !block->is_guarded) return;
    uintptr_t frames[CRN_FRAMES_MAX];
    unsigned count = walk(frames, returns_to);
    const struct crn_thread *self = crn_enter();
    set_birth(block, object, (struct crn_birth){number_of(frames, count), self->thread_id});
    crn_leave();
}

struct crn_birth crn_birth_of_slow(const struct crn_block *block, const void *object) {
    struct crn_birth birth = {CRN_STACK_NONE, 0};
    const struct crn_birth *kept = &block->birth;
    if (block->slot_size) kept = crn_region_birth(&block->heap->region, object, false);
    if (kept) birth = *kept;
    if (!birth.stack && crn_births_kept == CRN_BIRTHS_OF_ALL) birth.stack = CRN_STACK_LOST;
    return birth;
}

/* ---- Telling ------------------------------------------------------------------------------------
 */

enum { NAME_BYTES = 320 };

/* On no stack: a report from a fault may stand on a small one. */
struct telling {
    struct crn_trace trace;
    char names[CRN_FRAMES_MAX][NAME_BYTES];
};

void crn_stack_tell(struct crn_report *report, const char *key, uint32_t number) {
    if (number == CRN_STACK_NONE) return;
    static struct telling spare; /* for who has no memory: they may mix */
    struct telling *telling = crn_os_map(sizeof(*telling));
    bool is_mapped = telling != NULL;
    if (!is_mapped) telling = &spare;
    struct crn_trace *trace = &telling->trace;
    trace->is_exact = false;
    trace->count = crn_depot_get(number, trace->frames, CRN_FRAMES_MAX);
    crn_os_name_frames(trace, telling->names[0], NAME_BYTES);
    if (!trace->count) crn_report_item(report, key, "not recorded, for want of memory");
    for (unsigned i = 0; i < trace->count; i++) {
        /* A frame of its own where nothing is inlined. */
        if (i == 0 && trace->count > 1 && crn_os_frame_is_own(telling->names[i])) continue;
        crn_report_item(report, key, telling->names[i]);
        if (crn_os_frame_is_main(telling->names[i])) break;
    }
    if (is_mapped) crn_os_release(telling, sizeof(*telling));
}
