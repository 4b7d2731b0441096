/* SPDX-License-Identifier: MIT
 *
 * The lines that reports share: where it happened, what is known of the object, who refers to it,
 * the stack.
 *
 * A scene is memory of its own and not of the stack, for the report of a fault may stand on a small
 * one; without memory the report goes without names and holders. It ends before the report does,
 * whose handler may leave with longjmp.
 */
#include "os/stack.h"
#include "safety/safety.h"

#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 320, FRAMES_PRINTED = 16 };

struct crn_scene {
    struct crn_report *report;
    struct crn_call call;
    bool is_mapped;
    uint64_t opened_ns;
    struct crn_trace trace;
    struct crn_search search;
    char names[CRN_FRAMES_MAX][NAME_BYTES];
};

struct crn_scene *crn_scene_open(struct crn_report *report, const struct crn_call *call) {
    static struct crn_scene spare; /* for who has no memory: they may mix */
    struct crn_scene *scene = crn_os_map(sizeof(*scene));
    bool is_mapped = scene != NULL;
    if (!scene) scene = &spare;
    scene->report = report;
    scene->call = *call;
    scene->is_mapped = is_mapped;
    scene->opened_ns = crn_os_now_ns();
    const struct crn_thread *self = crn_self();
    crn_os_trace(&scene->trace, call->returns_to, call->context, self ? self->stack_low : NULL,
                 self ? self->stack_high : NULL);
    crn_os_name_frames(&scene->trace, scene->names[0], NAME_BYTES);
    return scene;
}

void crn_scene_where(struct crn_scene *scene) {
    const struct crn_call *call = &scene->call;
    int thread = crn_os_thread_id();
    if (call->file) {
        crn_report_line(scene->report, "where", "%s:%d in %s, thread %d", call->file, call->line,
                        call->function, thread);
        crn_report_string(scene->report, "file", call->file);
        crn_report_number(scene->report, "line", (uint64_t)call->line);
    } else {
        crn_report_line(scene->report, "where", "%s, thread %d", scene->names[0], thread);
    }
    crn_report_number(scene->report, "thread", (uint64_t)thread);
}

static void add_object(struct crn_scene *scene, const void *object, const char *type, size_t bytes,
                       const char *heap) {
    crn_report_number(scene->report, "object_address", (uintptr_t)object);
    crn_report_number(scene->report, "object_bytes", bytes);
    crn_report_string(scene->report, "type", type);
    crn_report_string(scene->report, "heap", heap);
}

static void add_place(struct crn_scene *scene, const struct crn_place *place, uint32_t stack) {
    char text[NAME_BYTES];
    crn_place_describe(place, text, sizeof(text));
    crn_report_line(scene->report, "allocated", "%s", text);
    crn_stack_tell(scene->report, "allocated_stack", stack);
    crn_report_string(scene->report, "allocated_file", place->file);
    if (place->file) crn_report_number(scene->report, "allocated_line", (uint64_t)place->line);
}

/* What is counted of it: of a deleted object the references that keep its slot waiting. */
static unsigned count_of(const void *object) {
    return __atomic_load_n(crn_count_of(object), __ATOMIC_RELAXED);
}

void crn_scene_object(struct crn_scene *scene, const void *object, const struct crn_block *block) {
    size_t bytes = crn_object_used(block, object);
    crn_report_line(scene->report, "object", "%p, a %s of %zu bytes in heap %s, count %u", object,
                    block->type->name, bytes, block->heap->name, count_of(object));
    add_object(scene, object, block->type->name, bytes, block->heap->name);
    struct crn_place place = crn_site_noted(&block->heap->region, object);
    struct crn_birth birth = crn_birth_of(block, object);
    crn_place_add_birth(&place, birth);
    add_place(scene, &place, birth.stack);
}

/* The heap may be gone, and the slot another object's. */
static bool still_waits(const struct crn_grave *grave, struct crn_block **block) {
    return crn_object_of(grave->object, block) == grave->object &&
           crn_bit_get(crn_deleted_bit(grave->object)) && (*block)->type->name == grave->type;
}

void crn_scene_grave(struct crn_scene *scene, const struct crn_grave *grave) {
    struct crn_report *report = scene->report;
    struct crn_block *block;
    const char *heap = NULL;
    crn_enter();
    bool waits = still_waits(grave, &block);
    if (waits) heap = block->heap->name;
    unsigned count = waits ? count_of(grave->object) : 0;
    crn_leave();
    if (waits) {
        crn_report_line(report, "object", "%p, a %s of %zu bytes in heap %s, count %u",
                        grave->object, grave->type, grave->bytes, heap, count);
    } else {
        crn_report_line(report, "object", "%p, a %s of %zu bytes; its memory is free again",
                        grave->object, grave->type, grave->bytes);
    }
    add_object(scene, grave->object, grave->type, grave->bytes, heap);
    add_place(scene, &grave->allocated, grave->allocated_stack);
    uint64_t us = (scene->opened_ns - grave->deleted_ns) / 1000;
    crn_report_line(report, "deleted", "%s:%d in %s, by thread %d, %llu.%03u ms ago", grave->file,
                    grave->line, grave->function, grave->thread_id, (unsigned long long)(us / 1000),
                    (unsigned)(us % 1000));
    crn_stack_tell(report, "deleted_stack", grave->deleted_stack);
    crn_report_string(report, "deleted_file", grave->file);
    crn_report_number(report, "deleted_line", (uint64_t)grave->line);
}

/* The report's own words lie below the frame that the program is in. */
static const char *stack_from(const struct crn_call *call) {
    return call->context ? (const char *)crn_os_context_stack_pointer(call->context) : call->frame;
}

void crn_scene_holders(struct crn_scene *scene, const void *low, size_t bytes,
                       const struct crn_grave *grave) {
    if (!scene->is_mapped) return;
    struct crn_search *search = &scene->search;
    memset(search, 0, sizeof(*search));
    /* The handler of a signal that came amid the runtime's own work does not stop the world. */
    const struct crn_thread *self = crn_self();
    if (scene->call.was_in_section || cairn_thread.no_stop || (self && self->holds_world)) {
        crn_report_line(scene->report, "still held by",
                        "not looked for, in the middle of Cairn's "
                        "own work");
        return;
    }
    search->stack_from = stack_from(&scene->call);
    if (grave) {
        struct crn_block *block;
        crn_graveyard_stretches(grave, search->targets);
        search->target_count = 2;
        if (!still_waits(grave, &block)) low = NULL;
    }
    if (low) {
        char *at = (char *)(uintptr_t)low;
        search->targets[search->target_count++] = (struct crn_range){at, at + bytes};
    }
    crn_hooks.search(search);
    for (unsigned i = 0; i < search->count && i < CRN_HOLDERS_NAMED; i++) {
        crn_report_line(scene->report, "still held by", "%s", search->texts[i]);
    }
    if (search->count > CRN_HOLDERS_NAMED) {
        crn_report_line(scene->report, "still held by", "%u more",
                        search->count - CRN_HOLDERS_NAMED);
    }
    if (search->is_cut) {
        crn_report_line(scene->report, "still held by",
                        "perhaps others: not all of the process's "
                        "memory was looked through");
    }
}

void crn_scene_close(struct crn_scene *scene, const char *next_step) {
    unsigned count = scene->trace.count;
    for (unsigned i = 0; count > 1 && i < count && i < FRAMES_PRINTED; i++) {
        crn_report_line(scene->report, "stack", "%s", scene->names[i]);
        if (crn_os_frame_is_main(scene->names[i])) break;
    }
    if (next_step) crn_report_line(scene->report, "next step", "%s", next_step);
    if (scene->is_mapped) crn_os_release(scene, sizeof(*scene));
}
