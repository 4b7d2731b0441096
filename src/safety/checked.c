/* SPDX-License-Identifier: MIT
 *
 * What a file that is compiled with CAIRN_CHECKED asks before it reads or stores a reference.
 *
 * A value is looked at while the caller has it, so it is a root and its slot is nobody else's: what
 * is deleted stays deleted, what is alive stays an object. The looks (look.h) are one section;
 * every report comes after it.
 */
#include "safety/look.h"

#include <stdlib.h>
#include <string.h>

/* What a look found is reported; the caller goes on as unchecked where that is the policy. */
static void report_no_object(const char *verb, const void *address, const struct look *look,
                             const struct crn_call *call) {
    const char *ended = look->object ? NULL : crn_space_was_heap(address);
    cairn_violation violation =
        ended ? CAIRN_VIOLATION_USE_AFTER_DEATH : CAIRN_VIOLATION_NOT_AN_OBJECT;
    if (crn_is_told(violation, call)) return;
    struct crn_report *report = crn_report_begin(violation);
    if (ended) {
        crn_report_line(report, "what", "%s %p, in heap %s, which was destroyed", verb, address,
                        ended);
    } else if (look->object) {
        crn_report_line(report, "what", "%s %p, %zu bytes into the %s at %p", verb, address,
                        (size_t)((const char *)address - look->object), look->block->type->name,
                        (void *)look->object);
    } else {
        crn_report_line(report, "what", "%s %p, where no object lives", verb, address);
    }
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_number(report, "address", (uintptr_t)address);
    if (look->object) crn_scene_object(scene, look->object, look->block);
    if (!look->object) crn_scene_holders(scene, address, 1, NULL);
    crn_scene_close(
        scene, look->object ? "a reference is to the start of an object; keep an index beside it"
               : ended
                   ? "no pointer into a heap may be used after cairn_heap_destroy"
                   : "it was reclaimed while a pointer to it was where Cairn cannot look, or the "
                     "pointer is wrong; CAIRN_VERIFY=1 finds stores that nobody was told of");
    crn_report_end(report);
}

static void report_deleted(const char *verb, const void *address, const struct crn_call *call) {
    struct crn_access access = {verb, address, 0};
    crn_report_use(&access, call);
}

/* ---- Verdicts: looked for, given, and looked at again; see verdicts.c ---- */

/* At the first look of all. A handler that looks meanwhile does without. */
static CRN_NOINLINE bool open_verdicts(void) {
    if (!crn_verdicts_are_wanting() || cairn_thread.no_stop) return false;
    crn_enter();
    crn_verdicts_open();
    crn_leave();
    return crn_verdicts_are_kept();
}

static void remember_start(const char *object) {
    if (CRN_UNLIKELY(!crn_verdicts_are_kept()) && !open_verdicts()) return;
    struct crn_block *block;
    cairn_section_enter_();
    uint8_t before = crn_verdict_before_look(object);
    bool is_given =
        is_plainly_good(object, &block) && crn_verdict_give(object, before, CAIRN_VERDICT_START_);
    if (is_given && !is_plainly_good(object, &block)) {
        crn_verdict_take_back(object, CAIRN_VERDICT_START_);
    }
    cairn_section_leave_();
}

/* ---- Values ---- */

static CRN_NOINLINE void check_value(void *value, const struct crn_call *call) {
    crn_enter();
    struct look look = look_at(value);
    crn_leave();
    bool is_good = look.verdict == GOOD ? look.object == value : look.verdict == OUTSIDE;
    if (CRN_LIKELY(is_good)) return;
    if (look.verdict == DELETED)
        report_deleted("a reference to", value, call);
    else
        report_no_object("a reference to", value, &look, call);
}

void *cairn_check_value_(void *value, const char *file, const char *function, int line) {
    struct crn_block *block;
    if (!value) return NULL;
    if (CRN_LIKELY(is_plainly_good(value, &block))) {
        remember_start(value);
        return value;
    }
    struct crn_call call = CRN_CALL_HERE();
    check_value(value, &call);
    return value;
}

/* ---- Types ---- */

static void report_type(const char *object, const struct crn_block *block, const char *name,
                        const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_WRONG_TYPE, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_WRONG_TYPE);
    crn_report_line(report, "what", "a cast to %s of %p, a %s", name, (const void *)object,
                    block->type->name);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_string(report, "wanted_type", name);
    crn_scene_object(scene, object, block);
    crn_scene_close(scene, NULL);
    crn_report_end(report);
}

void *cairn_check_type_(void *value, cairn_type *type, const char *file, const char *function,
                        int line) {
    if (!value) return NULL;
    struct crn_block *block;
    bool is_good = is_plainly_good(value, &block);
    struct crn_type *wanted = __atomic_load_n(&type->known, __ATOMIC_ACQUIRE);
    if (CRN_LIKELY(is_good && crn_type_is(block->type, wanted))) {
        return value;
    }
    struct crn_call call = CRN_CALL_HERE();
    if (is_good) {
        report_type(value, block, type->name, &call);
        return value;
    }
    crn_enter();
    struct look look = look_at(value);
    const struct crn_type *known = crn_type_known(type);
    crn_leave();
    bool is_start = look.verdict == GOOD && look.object == value;
    if (!is_start)
        check_value(value, &call);
    else if (known && !crn_type_is(look.block->type, known))
        report_type(value, look.block, type->name, &call);
    return value;
}

/* ---- Stores ---- */

static void report_undeclared(void **field, const struct look *owner, const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_UNDECLARED_FIELD, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_UNDECLARED_FIELD);
    size_t offset = (size_t)((char *)field - owner->object);
    crn_report_line(
        report, "what",
        "a reference is stored at offset %zu of the %s at %p, which declares none there", offset,
        owner->block->type->name, (void *)owner->object);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_number(report, "offset", offset);
    crn_scene_object(scene, owner->object, owner->block);
    crn_scene_close(scene, "name the member in the CAIRN_TYPE");
    crn_report_end(report);
}

static void report_crossing(const struct look *owner, const struct look *target,
                            const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_CROSSES_HEAPS, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_CROSSES_HEAPS);
    crn_report_line(report, "what", "a %s of heap %s is to refer to a %s of heap %s",
                    owner->block->type->name, owner->block->heap->name, target->block->type->name,
                    target->block->heap->name);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_scene_object(scene, target->object, target->block);
    crn_scene_close(scene, "copy the object into the heap of what refers to it");
    crn_report_end(report);
}

static void report_bounds(const char *verb, const struct look *look, const void *low, size_t bytes,
                          const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_OUT_OF_BOUNDS, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_OUT_OF_BOUNDS);
    size_t offset = (size_t)((const char *)low - look->object);
    crn_report_line(report, "what",
                    "%s reaches %zu bytes from offset %zu of the %s at %p, which has %zu", verb,
                    bytes, offset, look->block->type->name, (void *)look->object,
                    crn_object_used(look->block, look->object));
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_number(report, "offset", offset);
    crn_report_number(report, "access_bytes", bytes);
    crn_scene_object(scene, look->object, look->block);
    crn_scene_close(scene, NULL);
    crn_report_end(report);
}

/* A declared field of a living object of a type whose fields a map has. */
CRN_INLINE bool is_plain_field(void **field, const struct crn_block **out) {
    const struct crn_block *block = *out = crn_block_around(field);
    if (!block || block->content != CRN_EXACT || !block->type->is_mapped) return false;
    uint64_t offset = (uint64_t)((char *)field - block->base);
    uint64_t start = block->slot_size ? crn_start_in(block, offset) : 0, within = offset - start;
    const char *object = block->base + start;
    if (!crn_is_alive_in(block, object)) return false;
    size_t size = block->type->size;
    if (block->is_sized) {
        if (within + sizeof(void *) > crn_object_used(block, object)) return false;
        within = size == sizeof(void *) ? within % sizeof(void *) : within % (uint32_t)size;
    }
    return within < size && within % sizeof(void *) == 0 &&
           (block->type->map >> (within / sizeof(void *)) & 1) &&
           !(may_be_deleted(block) && crn_bit_get(crn_deleted_bit(object)));
}

static void remember_field(void **field) {
    if (CRN_UNLIKELY(!crn_verdicts_are_kept()) && !open_verdicts()) return;
    const struct crn_block *block;
    uint8_t verdict = crn_field_verdict(field);
    cairn_section_enter_();
    uint8_t before = crn_verdict_before_look(field);
    bool is_given = is_plain_field(field, &block) && crn_verdict_give(field, before, verdict);
    if (is_given && !is_plain_field(field, &block)) crn_verdict_take_back(field, verdict);
    cairn_section_leave_();
}

/* The first thing that is wrong with it is reported. */
static void judge_store(void **field, void *value, const struct look *owner,
                        const struct look *target, const struct crn_call *call) {
    bool is_good = target->verdict == GOOD ? target->object == value : target->verdict == OUTSIDE;
    if (target->verdict == DELETED)
        report_deleted("a reference to", value, call);
    else if (!is_good)
        report_no_object("a reference to", value, target, call);
    else if (owner->verdict == OUTSIDE)
        return;
    else if (owner->verdict == DELETED)
        report_deleted("a store into", field, call);
    else if (owner->verdict == NO_OBJECT)
        report_no_object("a store into", field, owner, call);
    else if (!is_within(owner, field, sizeof(void *)))
        report_bounds("a store", owner, field, sizeof(void *), call);
    else if (owner->block->content != CRN_UNTYPED && !crn_is_declared_field(owner->block, field))
        report_undeclared(field, owner, call);
    else if (target->verdict == GOOD && target->block->heap != owner->block->heap)
        report_crossing(owner, target, call);
}

static CRN_NOINLINE void check_store(void **field, void *value, const struct crn_call *call) {
    crn_enter();
    struct look owner = look_at(field), target = {NULL, NULL, OUTSIDE};
    if (value) target = look_at(value);
    crn_leave();
    judge_store(field, value, &owner, &target, call);
}

void cairn_check_store_(void **field, void *value, const char *file, const char *function,
                        int line) {
    const struct crn_block *owner;
    struct crn_block *target;
    bool is_field = is_plain_field(field, &owner);
    bool is_good =
        is_field && (!value || (is_plainly_good(value, &target) && owner->heap == target->heap));
    if (CRN_LIKELY(is_good)) {
        remember_field(field);
        if (value) remember_start(value);
        return;
    }
    struct crn_call call = CRN_CALL_HERE();
    check_store(field, value, &call);
}

/* ---- Arrays ---- */

static void report_index(const struct look *look, size_t offset, size_t index, size_t length,
                         size_t element_bytes, const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_OUT_OF_BOUNDS, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_OUT_OF_BOUNDS);
    crn_report_line(report, "what",
                    "element %td of %zu, of %zu bytes each, from offset %zu of the %s at %p",
                    (ptrdiff_t)index, length, element_bytes, offset, look->block->type->name,
                    (void *)look->object);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_number(report, "index", index);
    crn_report_number(report, "length", length);
    crn_scene_object(scene, look->object, look->block);
    crn_scene_close(scene, "cairn_length says how many elements an array has");
    crn_report_end(report);
}

void *cairn_check_index_(const void *array, size_t index, size_t element_bytes, const char *file,
                         const char *function, int line) {
    size_t behind;
    char *element = (char *)(uintptr_t)array + index * element_bytes;
    bool is_far = __builtin_mul_overflow(index, element_bytes, &behind) ||
                  __builtin_add_overflow(behind, element_bytes, &behind);
    if (CRN_LIKELY(!is_far && block_with(array, behind))) return element;
    struct crn_call call = CRN_CALL_HERE();
    crn_enter();
    struct look look = look_at(array);
    size_t used = look.object ? crn_object_used(look.block, look.object) : 0;
    crn_leave();
    if (look.verdict == OUTSIDE && array) return element;
    if (look.verdict == DELETED) {
        report_deleted("an element of", array, &call);
        return element;
    }
    if (!array || look.verdict == NO_OBJECT) {
        report_no_object("an element of", array, &look, &call);
        return element;
    }
    size_t offset = (size_t)((const char *)array - look.object);
    size_t length = offset < used ? (used - offset) / element_bytes : 0;
    if (CRN_UNLIKELY(index >= length)) {
        report_index(&look, offset, index, length, element_bytes, &call);
    }
    return element;
}

static void check_range(const void *low, size_t bytes, const char *verb,
                        const struct crn_call *call) {
    crn_enter();
    struct look look = look_at(low);
    bool is_inside = look.object && is_within(&look, low, bytes);
    crn_leave();
    if (look.verdict == OUTSIDE) return;
    if (look.verdict == DELETED)
        report_deleted(verb, low, call);
    else if (look.verdict == NO_OBJECT)
        report_no_object(verb, low, &look, call);
    else if (!is_inside)
        report_bounds(verb, &look, low, bytes, call);
}

void cairn_check_copy_(const void *dst, const void *src, size_t count, size_t element_bytes,
                       const char *file, const char *function, int line) {
    struct crn_call call = CRN_CALL_HERE();
    size_t bytes;
    if (count == 0) return;
    if (__builtin_mul_overflow(count, element_bytes, &bytes)) bytes = SIZE_MAX;
    if (!block_with(dst, bytes)) check_range(dst, bytes, "a copy to", &call);
    if (!block_with(src, bytes)) check_range(src, bytes, "a copy from", &call);
}

/* ---- Plain copies ----
 *
 * memcpy and its like tell nobody of the references that they overwrite and store: the counts would
 * be wrong from then on. Reading by them is fine.
 */

static void report_plain_store(const void *low, size_t bytes, const struct look *look, void **field,
                               const struct crn_call *call) {
    if (crn_is_told(CAIRN_VIOLATION_PLAIN_COPY, call)) return;
    struct crn_report *report = crn_report_begin(CAIRN_VIOLATION_PLAIN_COPY);
    size_t offset = (size_t)((const char *)field - look->object);
    crn_report_line(
        report, "what",
        "%zu bytes are written plainly at offset %zu of the %s at %p, over its reference "
        "at offset %zu",
        bytes, (size_t)((const char *)low - look->object), look->block->type->name,
        (void *)look->object, offset);
    struct crn_scene *scene = crn_scene_open(report, call);
    crn_scene_where(scene);
    crn_report_number(report, "offset", offset);
    crn_report_number(report, "access_bytes", bytes);
    crn_scene_object(scene, look->object, look->block);
    crn_scene_close(scene, "cairn_copy copies references, cairn_clear clears an object, cairn_sort "
                           "sorts an array of them");
    crn_report_end(report);
}

void crn_check_plain_store(const void *low, size_t bytes, const struct crn_call *call) {
    crn_enter();
    struct look look = look_at(low);
    void **hit = NULL;
    if (look.object && look.verdict == GOOD && look.block->content == CRN_EXACT) {
        size_t used = crn_object_used(look.block, look.object);
        uintptr_t end = (uintptr_t)low + crn_min(bytes, used);
        end = (uintptr_t)crn_min(end, (uintptr_t)look.object + used);
        uintptr_t at = (uintptr_t)low & ~(sizeof(void *) - 1);
        for (; !hit && at < end; at += sizeof(void *)) {
            if (crn_is_declared_field(look.block, (void **)at)) hit = (void **)at;
        }
    }
    crn_leave();
    if (hit) report_plain_store(low, bytes, &look, hit, call);
}

/* Who fills a buffer comes back to it, and who reads a text piece by piece too. What was written to
 * last is remembered if it has no references. */
static CRN_NOINLINE void check_write(const char *to, size_t bytes, const struct crn_call *call) {
    uint64_t deaths = deaths_before_look();
    struct extent extent;
    bool is_within = extent_with(to, bytes, &extent);
    if (CRN_LIKELY(is_within && extent.block->content != CRN_EXACT)) {
        note_seen(&cairn_thread.written, &extent, deaths);
        return;
    }
    if (!is_within) check_range(to, bytes, "a write to", call);
    crn_check_plain_store(to, bytes, call);
}

/* From the start of a slot's object, whose verdict has said all but where it ends. */
CRN_INLINE const struct crn_block *block_from_start(const char *from, size_t bytes) {
    if (!cairn_is_known_start_(from)) return NULL;
    const struct crn_block *block = crn_block_in_table(from);
    return block->slot_size && bytes <= crn_object_used(block, from) ? block : NULL;
}

/* A string that has just been made, mostly. */
CRN_INLINE bool is_leaf_start(const char *to, size_t bytes) {
    const struct crn_block *block = block_from_start(to, bytes);
    return block && block->content != CRN_EXACT;
}

static CRN_NOINLINE void check_read(const char *from, size_t bytes, const struct crn_call *call) {
    uint64_t deaths = deaths_before_look();
    struct extent extent;
    if (extent_with(from, bytes, &extent))
        note_seen(&cairn_thread.read, &extent, deaths);
    else
        check_range(from, bytes, "a read of", call);
}

CRN_INLINE bool may_write(const void *to, size_t bytes) {
    return bytes == 0 || cairn_is_known_(&cairn_thread.written, to, bytes) ||
           is_leaf_start(to, bytes);
}
CRN_INLINE bool may_read(const void *from, size_t bytes) {
    return bytes == 0 || cairn_is_known_(&cairn_thread.read, from, bytes) ||
           block_from_start(from, bytes);
}

/* The calls below end in one of these, with the parameters that they had: a jump, so the program's
 * code is still what is returned to, and nothing is kept for a report that most calls never make.
 */
static CRN_NOINLINE void *copy_looking(const char *file, const char *function, int line, void *to,
                                       const void *from, size_t bytes) {
    struct crn_call call = CRN_CALL_HERE();
    if (!may_read(from, bytes)) check_read(from, bytes, &call);
    if (!may_write(to, bytes)) check_write(to, bytes, &call);
    return memmove(to, from, bytes);
}

static CRN_NOINLINE void *set_looking(const char *file, const char *function, int line, void *to,
                                      int value, size_t bytes) {
    struct crn_call call = CRN_CALL_HERE();
    check_write(to, bytes, &call);
    return memset(to, value, bytes);
}

void *cairn_check_memcpy_(const char *file, const char *function, int line, void *to,
                          const void *from, size_t bytes) {
    if (CRN_LIKELY(may_read(from, bytes) && may_write(to, bytes))) return memcpy(to, from, bytes);
    return copy_looking(file, function, line, to, from, bytes);
}

void *cairn_check_memmove_(const char *file, const char *function, int line, void *to,
                           const void *from, size_t bytes) {
    if (CRN_LIKELY(may_read(from, bytes) && may_write(to, bytes))) return memmove(to, from, bytes);
    return copy_looking(file, function, line, to, from, bytes);
}

void *cairn_check_memset_(const char *file, const char *function, int line, void *to, int value,
                          size_t bytes) {
    if (CRN_LIKELY(may_write(to, bytes))) return memset(to, value, bytes);
    return set_looking(file, function, line, to, value, bytes);
}

void cairn_check_qsort_(const char *file, const char *function, int line, void *array, size_t count,
                        size_t element_bytes, int (*compare)(const void *, const void *)) {
    struct crn_call call = CRN_CALL_HERE();
    size_t bytes;
    if (__builtin_mul_overflow(count, element_bytes, &bytes)) bytes = SIZE_MAX;
    if (!may_write(array, bytes)) check_write(array, bytes, &call);
    qsort(array, count, element_bytes, compare);
}
