/* SPDX-License-Identifier: MIT
 *
 * What instrumented files ask before each load and store: does it lie within a living object?
 * Any copy of a pointer is as good as another here: it is the address that counts.
 *
 * The looks are those of checked.c (look.h). Memory of the runtime inside a segment, tables and
 * descriptors, counts as no object: no inline path touches it.
 */
#include "safety/look.h"

/* ---- Reports ------------------------------------------------------------------------------------
 */

static const char *verb_of(bool is_store) {
    return is_store ? "write to" : "read of";
}

static void add_access(struct crn_report *report, const struct crn_access *access) {
    crn_report_string(report, "access", access->verb);
    crn_report_number(report, "address", (uintptr_t)access->address);
    crn_report_number(report, "access_bytes", access->bytes);
}

static void report_bounds(const struct crn_access *access, const struct look *look,
                          const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_OUT_OF_BOUNDS, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_OUT_OF_BOUNDS);
    size_t offset = (size_t)((const char *)access->address - look->object);
    size_t used = crn_object_used(look->block, look->object);
    crn_report_line(report, "what", "%s %zu bytes at offset %zu of a %s, which has %zu",
                    access->verb, access->bytes, offset, look->block->type->name, used);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    add_access(report, access);
    crn_report_number(report, "offset", offset);
    crn_scene_object(scene, look->object, look->block);
    crn_scene_close(scene, offset >= used && offset < used + CRN_GRANULE
                               ? "the access lies just behind the object's end"
                               : NULL);
    crn_report_end(report);
}

/* The slot is free: what lived there last was of the block's type. */
static void report_death(const struct crn_access *access, const struct crn_call *call) {
    const struct crn_block *block = crn_block_of_interior(access->address);
    bool is_slot = block && (const char *)access->address >= block->base &&
                   (const char *)access->address < block->end;
    if (crn_is_told(CAIRN_VIOLATION_USE_AFTER_DEATH, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_USE_AFTER_DEATH);
    const char *ended = crn_space_was_heap(access->address);
    if (ended)
        crn_report_line(report, "what", "%s %zu bytes at %p, in heap %s, which was destroyed",
                        access->verb, access->bytes, access->address, ended);
    else if (is_slot)
        crn_report_line(report, "what",
                        "%s %zu bytes at %p, where no object lives; the last was a %s",
                        access->verb, access->bytes, access->address, block->type->name);
    else
        crn_report_line(report, "what", "%s %zu bytes at %p, where no object lives", access->verb,
                        access->bytes, access->address);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    add_access(report, access);
    if (is_slot) crn_report_string(report, "type", block->type->name);
    crn_scene_holders(scene, access->address, 1, NULL);
    crn_scene_close(scene, ended ? "no pointer into a heap may be used after cairn_heap_destroy"
                                 : "its object was reclaimed while a pointer to it was where Cairn "
                                   "cannot look, as in malloc memory, or the address was never an "
                                   "object's");
    crn_report_end(report);
}

/* ---- Loads and stores ---------------------------------------------------------------------------
 */

static void check_again(const struct crn_access *access, const struct crn_call *call) {
    crn_enter();
    struct look look = look_at(access->address);
    bool is_inside = look.object && is_within(&look, access->address, access->bytes);
    crn_leave();
    if (look.verdict == OUTSIDE || (look.verdict == GOOD && is_inside)) return;
    if (look.verdict == DELETED)
        crn_report_use(access, call);
    else if (look.verdict == NO_OBJECT)
        report_death(access, call);
    else
        report_bounds(access, &look, call);
}

/* Most accesses are to the object of the one before: the hooks look there themselves. */
bool cairn_is_accessible_(const void *address, size_t bytes) {
    uint64_t deaths = deaths_before_look();
    struct extent extent;
    if (CRN_UNLIKELY(!extent_with(address, bytes, &extent))) return false;
    note_seen(&cairn_thread.touched, &extent, deaths);
    return true;
}

void cairn_access_(const void *address, size_t bytes, bool is_store, const void *code,
                   const char *frame) {
    struct crn_access access = {verb_of(is_store), address, bytes};
    struct crn_call call = {.returns_to = code, .frame = frame};
    check_again(&access, &call);
}

void cairn_write_range_(const void *address, size_t bytes, const void *code, const char *frame) {
    if (bytes == 0 || !crn_space_holds(address)) return;
    const struct crn_block *block = block_with(address, bytes);
    if (CRN_LIKELY(block && block->content != CRN_EXACT)) return;
    if (!block) cairn_access_(address, bytes, true, code, frame);
    struct crn_call call = {.returns_to = code, .frame = frame};
    crn_check_plain_store(address, bytes, &call);
}
