/* SPDX-License-Identifier: MIT
 *
 * What a file that is compiled with CAIRN_CHECKED asks before it reads or stores a reference.
 *
 * A value is looked at while the caller has it, so it is a root and its slot is nobody else's: what
 * is deleted stays deleted, what is alive stays an object. The looks take no lock (heap.c has the
 * argument for crn_object_of) and are one section; every report comes after it.
 *
 * A deleted object whose finalizer runs is still the finalizer's to read and to store into.
 */
#include "safety/safety.h"

enum verdict { GOOD, OUTSIDE, DELETED, NO_OBJECT };

struct look {
    char *object; /* the start of what `address` lies in, or NULL */
    struct crn_block *block;
    enum verdict verdict;
};

/* In a section. The middle of an object is as good as its start here. */
CRN_INLINE struct look look_at(const void *address) {
    struct look look = {NULL, NULL, GOOD};
    look.object = crn_object_of(address, &look.block);
    if (CRN_LIKELY(look.object)) {
        bool is_deleted = crn_bit_get(crn_deleted_bit(look.object));
        if (CRN_UNLIKELY(is_deleted) && !crn_is_being_finalized(look.object))
            look.verdict = DELETED;
    } else if (crn_space_is_tombstone(address)) {
        look.verdict = DELETED;
    } else {
        look.verdict = crn_space_is_reserved(address) ? NO_OBJECT : OUTSIDE;
    }
    return look;
}

static _Noreturn void report_no_object(const char *what, const void *address,
                                       const struct look *look, const struct crn_call *call) {
    if (look->object) {
        crn_fail("not an object\n"
                 "  what: %s %p, %zu bytes into the %s at %p\n"
                 "  where: %s:%d in %s, thread %d\n"
                 "  next step: a reference is to the start of an object; keep an index beside it",
                 what, address, (size_t)((const char *)address - look->object),
                 look->block->type->name, (void *)look->object, call->file, call->line,
                 call->function, crn_os_thread_id());
    }
    crn_fail("not an object\n"
             "  what: %s %p, where no object lives\n"
             "  where: %s:%d in %s, thread %d\n"
             "  next step: it was reclaimed while a pointer to it was where Cairn cannot look, or "
             "the pointer is wrong; CAIRN_VERIFY=1 finds stores that nobody was told of",
             what, address, call->file, call->line, call->function, crn_os_thread_id());
}

/* ---- Values ----
 *
 * Most values are in a block of slots, and most of what is asked is in its descriptor's first line.
 * What does not fit here is looked at again at leisure: an object that a stop has promoted between
 * two looks, too. */

/* A young object's count is zero, and its slot between the record's beginning and its end, which is
 * the cursor's as long as one is in the block (heap.c, is_young_now: here a cursor that moves
 * meanwhile makes no second try). */
CRN_INLINE bool is_alive_in(const struct crn_block *block, const char *slot) {
    if (__atomic_load_n(crn_count_of(slot), __ATOMIC_RELAXED) != 0) return true;
    const struct cairn_cursor *cursor = __atomic_load_n(&block->cursor, __ATOMIC_RELAXED);
    CRN_FENCE();
    const char *end = cursor ? __atomic_load_n(&cursor->next, __ATOMIC_RELAXED)
                             : __atomic_load_n(&block->young_end, __ATOMIC_RELAXED);
    CRN_FENCE();
    return slot < end && slot >= __atomic_load_n(&block->young_begin, __ATOMIC_RELAXED) &&
           cursor == __atomic_load_n(&block->cursor, __ATOMIC_RELAXED);
}

/* The block of slots that an address lies in, one of a single block; else NULL. */
CRN_INLINE struct crn_block *slots_around(const void *address) {
    if (!crn_space_holds(address)) return NULL;
    if (crn_space.segment_kinds[(uintptr_t)address >> CRN_SEGMENT_SHIFT] != CRN_SEGMENT_BLOCKY) {
        return NULL;
    }
    struct crn_block *block = crn_block_in_table(address);
    uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
    bool is_usual = state != CRN_BLOCK_FREE && state != CRN_BLOCK_BODY && block->slot_size;
    return is_usual && (const char *)address >= block->base ? block : NULL;
}

CRN_INLINE uint64_t start_in(const struct crn_block *block, uint64_t offset) {
    return ((offset * block->reciprocal) >> 32) * block->slot_size;
}

CRN_INLINE bool is_plainly_good(const char *value, struct crn_block **out) {
    struct crn_block *block = *out = slots_around(value);
    if (!block) return false;
    uint64_t offset = (uint64_t)(value - block->base);
    return start_in(block, offset) == offset && is_alive_in(block, value) &&
           !crn_bit_get(crn_deleted_bit(value));
}

static CRN_NOINLINE void *check_value(void *value, const char *file, const char *function,
                                      int line) {
    crn_enter();
    struct look look = look_at(value);
    crn_leave();
    bool is_good = look.verdict == GOOD ? look.object == value : look.verdict == OUTSIDE;
    if (CRN_LIKELY(is_good)) return value;
    struct crn_call call = {file, function, line};
    if (look.verdict == DELETED) {
        crn_report_use(look.object ? look.object : value, "a reference to", &call);
    }
    report_no_object("a reference to", value, &look, &call);
}

void *cairn_check_value_(void *value, const char *file, const char *function, int line) {
    struct crn_block *block;
    if (!value || CRN_LIKELY(is_plainly_good(value, &block))) return value;
    return check_value(value, file, function, line);
}

/* ---- Stores ---- */

static _Noreturn void report_undeclared(void **field, const struct look *owner,
                                        const struct crn_call *call) {
    crn_fail(
        "undeclared field\n"
        "  what: a reference is stored at offset %zu of the %s at %p, which declares none there\n"
        "  where: %s:%d in %s, thread %d\n"
        "  next step: name the member in the CAIRN_TYPE",
        (size_t)((char *)field - owner->object), owner->block->type->name, (void *)owner->object,
        call->file, call->line, call->function, crn_os_thread_id());
}

static _Noreturn void report_crossing(const struct look *owner, const struct look *target,
                                      const struct crn_call *call) {
    crn_fail("a reference crosses heaps\n"
             "  what: a %s of heap %s is to refer to a %s of heap %s\n"
             "  where: %s:%d in %s, thread %d\n"
             "  next step: copy the object into the heap of what refers to it",
             owner->block->type->name, owner->block->heap->name, target->block->type->name,
             target->block->heap->name, call->file, call->line, call->function, crn_os_thread_id());
}

static _Noreturn void report_bounds(const char *what, const struct look *look, const void *low,
                                    size_t bytes, const struct crn_call *call) {
    crn_fail("out of bounds\n"
             "  what: %s reaches %zu bytes from offset %zu of the %s at %p, which has %zu\n"
             "  where: %s:%d in %s, thread %d",
             what, bytes, (size_t)((const char *)low - look->object), look->block->type->name,
             (void *)look->object, crn_object_used(look->block, look->object), call->file,
             call->line, call->function, crn_os_thread_id());
}

CRN_INLINE bool is_within(const struct look *look, const void *low, size_t bytes) {
    size_t offset = (size_t)((const char *)low - look->object);
    size_t used = crn_object_used(look->block, look->object);
    return offset <= used && bytes <= used - offset;
}

/* A declared field of an object of a type whose fields a map has. */
CRN_INLINE bool is_plain_field(const struct crn_block *block, void **field) {
    if (!block || block->content != CRN_EXACT || !block->type->is_mapped) return false;
    uint64_t offset = (uint64_t)((char *)field - block->base);
    uint64_t start = start_in(block, offset), within = offset - start;
    const char *object = block->base + start;
    size_t size = block->type->size;
    if (block->is_sized) {
        if (within + sizeof(void *) > crn_object_used(block, object)) return false;
        within = size == sizeof(void *) ? within % sizeof(void *) : within % (uint32_t)size;
    }
    return within < size && within % sizeof(void *) == 0 &&
           (block->type->map >> (within / sizeof(void *)) & 1) && is_alive_in(block, object) &&
           !crn_bit_get(crn_deleted_bit(object));
}

static CRN_NOINLINE void check_store(void **field, void *value, const char *file,
                                     const char *function, int line) {
    struct crn_call call = {file, function, line};
    if (value) (void)check_value(value, file, function, line);
    crn_enter();
    struct look owner = look_at(field), target = {NULL, NULL, OUTSIDE};
    if (value) target = look_at(value);
    crn_leave();
    if (owner.verdict == OUTSIDE) return;
    if (owner.verdict == DELETED) {
        crn_report_use(owner.object ? owner.object : (void *)field, "a store into", &call);
    }
    if (owner.verdict == NO_OBJECT) report_no_object("a store into", field, &owner, &call);
    if (!is_within(&owner, field, sizeof(void *))) {
        report_bounds("a store", &owner, field, sizeof(void *), &call);
    }
    bool is_field =
        owner.block->content == CRN_UNTYPED || crn_is_declared_field(owner.block, field);
    if (!is_field) report_undeclared(field, &owner, &call);
    bool is_crossing = target.verdict == GOOD && target.block->heap != owner.block->heap;
    if (is_crossing) report_crossing(&owner, &target, &call);
}

void cairn_check_store_(void **field, void *value, const char *file, const char *function,
                        int line) {
    struct crn_block *owner = slots_around(field), *target = owner;
    bool is_good = is_plain_field(owner, field) && (!value || is_plainly_good(value, &target)) &&
                   owner->heap == target->heap;
    if (CRN_UNLIKELY(!is_good)) check_store(field, value, file, function, line);
}

/* ---- Arrays ---- */

void *cairn_check_index_(const void *array, size_t index, size_t element_bytes, const char *file,
                         const char *function, int line) {
    struct crn_call call = {file, function, line};
    crn_enter();
    struct look look = look_at(array);
    size_t used = look.object ? crn_object_used(look.block, look.object) : 0;
    crn_leave();
    char *element = (char *)(uintptr_t)array + index * element_bytes;
    if (look.verdict == OUTSIDE && array) return element;
    if (look.verdict == DELETED) {
        crn_report_use(look.object ? look.object : array, "an element of", &call);
    }
    if (!array || look.verdict == NO_OBJECT) report_no_object("an element of", array, &look, &call);
    size_t offset = (size_t)((const char *)array - look.object);
    size_t length = offset < used ? (used - offset) / element_bytes : 0;
    if (CRN_LIKELY(index < length)) return element;
    crn_fail("out of bounds\n"
             "  what: element %td of %zu, of %zu bytes each, from offset %zu of the %s at %p\n"
             "  where: %s:%d in %s, thread %d",
             (ptrdiff_t)index, length, element_bytes, offset, look.block->type->name,
             (void *)look.object, file, line, function, crn_os_thread_id());
}

static void check_range(const void *low, size_t bytes, const char *what,
                        const struct crn_call *call) {
    crn_enter();
    struct look look = look_at(low);
    bool is_inside = look.object && is_within(&look, low, bytes);
    crn_leave();
    if (is_inside && look.verdict == GOOD) return;
    if (look.verdict == OUTSIDE) return;
    if (look.verdict == DELETED) crn_report_use(look.object ? look.object : low, what, call);
    if (look.verdict == NO_OBJECT) report_no_object(what, low, &look, call);
    report_bounds(what, &look, low, bytes, call);
}

void cairn_check_copy_(const void *dst, const void *src, size_t count, size_t element_bytes,
                       const char *file, const char *function, int line) {
    struct crn_call call = {file, function, line};
    size_t bytes;
    if (count == 0) return;
    if (__builtin_mul_overflow(count, element_bytes, &bytes)) bytes = SIZE_MAX;
    check_range(dst, bytes, "a copy to", &call);
    check_range(src, bytes, "a copy from", &call);
}
