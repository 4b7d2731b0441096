/* SPDX-License-Identifier: MIT
 *
 * Allocation: sizes, classes, failure and what a program calls.
 *
 * One slow path serves all: ask for an epoch if one is due, take a slot, collect everything if
 * there is none, ask the program's handler, give NULL.
 *
 * What a program calls says where it returns to (`caller`): there begins the stack that is noted
 * for the object, if stacks are, behind the last section.
 */
#include "heap/alive.h"
#include "heap/guard.h"
#include "object/births.h"
#include "object/object.h"

#include <stdio.h>
#include <string.h>

static cairn_out_of_memory_handler memory_handler;
static void *memory_context;

void cairn_on_out_of_memory(cairn_out_of_memory_handler handler, void *context) {
    memory_context = context;
    memory_handler = handler;
}

/* What to allocate: `bin` for a slot, else an own object. */
struct request {
    struct crn_type *type;
    struct crn_bin *bin;
    size_t bytes, align;
    bool is_sized;
    bool has_own; /* answer: it was given blocks of its own, as all in guard mode */
};

static bool is_over_limit(const cairn_heap *heap) {
    size_t used = crn_region_committed(&heap->core.region) << CRN_SEGMENT_SHIFT;
    return heap->limit_bytes && used > heap->limit_bytes && heap->core.free_block_count == 0;
}

/* NULL: not this one, or there is no room for it. */
static CRN_NOINLINE void *try_guarded(struct crn_cache *cache, struct request *request) {
    const struct crn_bin *bin = request->bin;
    if (!crn_guard_is_due(cache, bin)) return NULL;
    struct crn_type *type = bin ? bin->type : request->type;
    size_t bytes = request->is_sized ? request->bytes : type->size;
    void *object = crn_cache_allocate_guarded(
        cache, type, bytes, crn_max(request->align, type->align), request->is_sized);
    request->has_own = object != NULL;
    return object;
}

static void *try_once(cairn_heap *heap, struct crn_cache *cache, struct request *request) {
    if (!cache) return NULL;
    if (CRN_UNLIKELY(crn_guard_period) && crn_guard_may_be_due(cache)) {
        void *object = try_guarded(cache, request);
        if (object) return object;
    }
    request->has_own = !request->bin;
    if (request->bin) return crn_cache_allocate(cache, request->bin);
    if (is_over_limit(heap)) return NULL;
    char *object = crn_cache_allocate_own(cache, request->type, request->bytes, request->align,
                                          request->is_sized);
    return object;
}

/* CAIRN_FAIL=N: the Nth request fails, the collection notwithstanding. */
static bool must_fail(void) {
    static unsigned requests;
    return CRN_UNLIKELY(crn_settings.fail_allocation) &&
           __atomic_add_fetch(&requests, 1, __ATOMIC_RELAXED) == crn_settings.fail_allocation;
}

static void *allocate(cairn_heap *heap, struct request *request) {
    struct crn_cache *cache = crn_cache_of(crn_enter(), heap);
    if (CRN_UNLIKELY(!cache || cache->unreported_bytes >= CRN_REPORT_BYTES ||
                     crn_settings.stress_collect)) {
        if (cache) crn_cache_report(cache);
        crn_hooks.allocated(heap);
    } else if (CRN_UNLIKELY(__atomic_load_n(&cairn_runtime.stop, __ATOMIC_RELAXED))) {
        crn_hooks.poll();
    }
    if (CRN_UNLIKELY(crn_guard_period == 1) && crn_guard_is_crowded()) crn_hooks.crowded();
    bool is_failing = must_fail();
    void *object = is_failing ? NULL : try_once(heap, cache, request);
    if (CRN_UNLIKELY(!object)) {
        crn_hooks.emergency();
        if (is_failing) return NULL;
        object = try_once(heap, crn_cache_of(crn_self(), heap), request);
    }
    return object;
}

/* Leaves the section that allocate entered, calling the handler outside of it. */
static bool should_retry(cairn_heap *heap, size_t bytes) {
    crn_leave();
    return memory_handler && memory_handler(heap, bytes, memory_context);
}

static cairn_heap *chosen(cairn_heap *heap) {
    crn_start();
    return heap ? heap : crn_default_heap;
}

/* In the section in which the object was made, or with the object on this thread's stack. */
static bool note_finalizable(void *object) {
    struct crn_shard *shard = crn_extras_lock(object);
    struct crn_extra *extra = crn_extra_make_locked(shard, object, crn_block_of_start(object));
    if (extra) extra->finalizer = CRN_FINALIZER_WANTED;
    crn_extras_unlock(shard);
    crn_extras_pace();
    return extra != NULL;
}

/* Born with log bits set: an epoch then reads what was stored, not the whole object. Nor is it read
 * here: its pages would be there before anybody needs them. */
static void set_log_bit(void **field) {
    uintptr_t a = (uintptr_t)field & crn_space.mask;
    __atomic_fetch_or(cairn_runtime.log_bits + (a >> 6), (uint8_t)(1u << ((a >> 3) & 7)),
                      __ATOMIC_RELAXED);
}

static void set_log_bits_between(void **at, void **end) {
    for (; at < end && (uintptr_t)at % (8 * sizeof(void *)); at++) set_log_bit(at);
    size_t bytes = at < end ? (size_t)(end - at) / 8 : 0;
    memset(cairn_runtime.log_bits + (((uintptr_t)at & crn_space.mask) >> 6), 0xff, bytes);
    for (at += bytes * 8; at < end; at++) set_log_bit(at);
}

static void set_log_bits(const struct crn_block *block) {
    const struct crn_type *type = block->type;
    char *object = block->base, *end = object + crn_object_used(block, object);
    if (type->size == sizeof(void *) && type->is_mapped && type->map) {
        set_log_bits_between((void **)(void *)object, (void **)(void *)end);
        return;
    }
    if (type->has_flex && !type->is_flex_data) {
        set_log_bits_between((void **)(void *)(object + type->flex_offset), (void **)(void *)end);
    }
    for (char *element = object; element + type->size <= end; element += type->size) {
        void **words = (void **)(void *)element;
        for (size_t i = 0; i < type->ref_count; i++) set_log_bit(words + type->refs[i]);
        for (size_t i = 0; i < type->tagged_count; i++) set_log_bit(words + type->words[i]);
        if (type->has_flex) break;
    }
}

/* Returns inside the section: the caller leaves it after what must not be interrupted. */
static void *allocate_enter(cairn_heap *heap, struct request *request) {
    void *object = NULL;
    for (;;) {
        object = allocate(heap, request);
        if (CRN_LIKELY(object)) break;
        if (!should_retry(heap, request->bytes)) return NULL;
    }
    if (request->has_own) {
        struct crn_block *block = crn_block_of_start(object);
        if (block->content == CRN_EXACT) set_log_bits(block);
        crn_region_sites_forget(&block->heap->region, object, (char *)object + CRN_GRANULE);
    }
    return object;
}

static struct crn_bin *publish_bin(cairn_type *type, struct crn_type *known) {
    struct crn_bin *bin = crn_bin_fixed(known);
    /* A finalizable object needs its entry, so its type never gets the inline path; nor does one of
     * a file that knows nothing of the room behind objects, or leaves it where nobody else does. */
    bool is_fit = ((type->field_count & CAIRN_REDZONE_FLAG_) != 0) == (crn_redzone_bytes != 0);
    bool is_seen =
        crn_guard_period == 1 || crn_births_kept == CRN_BIRTHS_OF_ALL || crn_checker_watches;
    if (bin && is_fit && !is_seen && !known->finalize && !crn_settings.stress_collect &&
        !crn_settings.fail_allocation) {
        __atomic_store_n(&type->bin, bin->id, __ATOMIC_RELEASE);
    }
    return bin;
}

static void *new_enter(cairn_heap *heap, cairn_type *type) {
    /* The usual case: a type with a bin, in the default heap. */
    uint32_t bin = __atomic_load_n(&type->bin, __ATOMIC_ACQUIRE);
    if (CRN_LIKELY(bin && !heap)) {
        struct request request = {.bin = crn_bin_of(bin), .bytes = type->size};
        return allocate_enter(crn_default_heap, &request);
    }
    heap = chosen(heap);
    crn_enter();
    struct crn_type *known = crn_type_known(type);
    struct request request = {.type = known, .bytes = type->size, .align = type->align};
    bool is_small = crn_slot_size_for(type->size, type->align) <= CRN_SMALL_MAX;
    if (known && is_small) request.bin = publish_bin(type, known);
    crn_leave();
    if (!known || (is_small && !request.bin)) return NULL;
    void *object = allocate_enter(heap, &request);
    if (object && known->finalize && !note_finalizable(object)) {
        crn_leave();
        return NULL;
    }
    return object;
}

void *cairn_new_type_in_(cairn_heap *heap, cairn_type *type) {
    void *object = new_enter(heap, type);
    if (!object) return NULL;
    crn_leave();
    if (CRN_UNLIKELY(crn_births_kept)) crn_birth_note(object, __builtin_return_address(0));
    return object;
}

/* The contents are stored plainly: the object is young and no stop comes between. */
void *cairn_make_(cairn_heap *heap, cairn_type *type, const void *initial) {
    void *object = NULL;
    /* Acquire: the room behind objects is known with it. */
    uint32_t bin = __atomic_load_n(&type->bin, __ATOMIC_ACQUIRE);
    if (!heap && bin && bin < cairn_thread.cursor_count) {
        struct cairn_cursor *cursor = cairn_thread.cursors + bin;
        size_t slot = crn_slot_size_for(type->size, type->align);
        cairn_barrier_enter_();
        if (slot <= (size_t)(cursor->limit - cursor->next)) {
            object = cursor->next;
            cursor->next += slot;
            memcpy(object, initial, type->size);
            cairn_barrier_leave_();
            return object;
        }
        cairn_barrier_leave_();
    }
    object = new_enter(heap, type);
    if (!object) return NULL;
    crn_log_range(object, (char *)object + type->size);
    memcpy(object, initial, type->size);
    crn_leave();
    if (CRN_UNLIKELY(crn_births_kept)) crn_birth_note(object, __builtin_return_address(0));
    return object;
}

/* What the caller of a checked file is to find known: elements that are not many. Larger objects
 * are looked at field by field. */
enum { JUDGED_WORDS_MAX = 512 };
static CRN_NOINLINE void give_verdicts(const struct crn_type *type, const char *object,
                                       size_t bytes) {
    size_t words = bytes / sizeof(void *);
    bool has_fields = type->content == CRN_EXACT && type->is_mapped && !type->has_flex;
    if (has_fields && type->size == sizeof(void *) && words <= JUDGED_WORDS_MAX) {
        uint8_t both = CAIRN_VERDICT_FIELD_ | CAIRN_VERDICT_SECOND_FIELD_;
        memset(crn_verdict_of(object), both, words / 2);
        if (words % 2)
            *crn_verdict_of(object + (words - 1) * sizeof(void *)) = CAIRN_VERDICT_FIELD_;
    } else if (has_fields && words <= JUDGED_WORDS_MAX) {
        uint64_t map = type->map;
        for (size_t element = 0; element < words; element += type->word_count) {
            for (uint64_t left = map; left; left &= left - 1) {
                const char *field =
                    object + (element + (size_t)__builtin_ctzll(left)) * sizeof(void *);
                *crn_verdict_of(field) |= crn_field_verdict(field);
            }
        }
    }
    *crn_verdict_of(object) |= CAIRN_VERDICT_START_;
}

/* ---- Sized objects
 * ---------------------------------------------------------------------------------- */

static void *sized(cairn_heap *heap, struct crn_type *type, size_t bytes, size_t align) {
    heap = chosen(heap);
    /* With the trailer, and so a spare byte behind the last element. */
    size_t want = bytes + 2 + crn_redzone_bytes;
    if (want < bytes || want > SIZE_MAX / 2) return NULL;
    struct request request = {.type = type, .bytes = bytes, .align = align, .is_sized = true};
    if (align > CRN_GRANULE) want = crn_round_up(want, align);
    bool is_small = want <= CRN_SMALL_MAX;
    if (is_small) {
        crn_enter();
        uint32_t class_index = crn_size_class(want);
        while (crn_class_size(class_index) % crn_max(align, 1) != 0) class_index++;
        request.bin = crn_bin_sized(type, class_index);
        crn_leave();
        if (!request.bin || request.bin->slot_size > CRN_SMALL_MAX) request.bin = NULL;
    }
    char *object = allocate_enter(heap, &request);
    if (!object) return NULL;
    if (!request.has_own) {
        uint16_t unused = (uint16_t)(request.bin->slot_size - bytes);
        memcpy(object + request.bin->slot_size - 2, &unused, 2);
        /* All behind it but these two bytes: looks read them. */
        if (CRN_UNLIKELY(crn_checker_watches)) crn_checker_forbid(object + bytes, unused - 2u);
        if (CRN_UNLIKELY(crn_verdicts_are_kept())) give_verdicts(type, object, bytes);
    }
    crn_leave();
    return object;
}

static CRN_NOINLINE void *sized_noted(cairn_heap *heap, struct crn_type *type, size_t bytes,
                                      size_t align, const void *caller) {
    void *object = sized(heap, type, bytes, align);
    bool may_be_kept = object && (crn_births_kept == CRN_BIRTHS_OF_ALL ||
                                  crn_segment_kind(object) != CRN_SEGMENT_BLOCKY);
    if (may_be_kept) crn_birth_note(object, caller);
    return object;
}

CRN_INLINE void *sized_for(cairn_heap *heap, struct crn_type *type, size_t bytes, size_t align,
                           const void *caller) {
    if (CRN_UNLIKELY(crn_births_kept)) return sized_noted(heap, type, bytes, align, caller);
    return sized(heap, type, bytes, align);
}

void *cairn_new_array_(cairn_heap *heap, cairn_type *type, size_t count) {
    size_t bytes;
    if (__builtin_mul_overflow(count, type->size, &bytes)) return NULL;
    heap = chosen(heap);
    crn_enter();
    struct crn_type *known = crn_type_known(type);
    crn_leave();
    if (!known) return NULL;
    CAIRN_REQUIRE(!known->has_flex && !known->finalize,
                  "an array of %s: types with a flexible member or a finalizer have no arrays",
                  known->name);
    return sized_for(heap, known, bytes, known->align, __builtin_return_address(0));
}

void *cairn_new_flex_(cairn_heap *heap, cairn_type *type, size_t offset, size_t element_size,
                      size_t count) {
    size_t bytes;
    if (__builtin_mul_overflow(count, element_size, &bytes)) return NULL;
    if (__builtin_add_overflow(bytes, offset, &bytes)) return NULL;
    heap = chosen(heap);
    crn_enter();
    struct crn_type *known = crn_type_known(type);
    if (known) known = crn_type_with_flex(known, offset, element_size);
    crn_leave();
    if (!known) return NULL;
    char *object = sized_for(heap, known, crn_max(bytes, type->size), known->align,
                             __builtin_return_address(0));
    if (object && known->finalize) {
        crn_enter();
        bool is_noted = note_finalizable(object);
        crn_leave();
        if (!is_noted) return NULL;
    }
    return object;
}

void *cairn_alloc_(cairn_heap *heap, size_t bytes) {
    return sized_for(heap, &crn_type_untyped, bytes, CRN_GRANULE, __builtin_return_address(0));
}
void *cairn_alloc_bytes_(cairn_heap *heap, size_t bytes) {
    return sized_for(heap, &crn_type_bytes, bytes, CRN_GRANULE, __builtin_return_address(0));
}

static bool is_alignment(size_t align) {
    return align != 0 && (align & (align - 1)) == 0 && align <= CRN_MIB(2);
}
void *cairn_alloc_aligned_(cairn_heap *heap, size_t bytes, size_t align) {
    if (!is_alignment(align)) return NULL;
    return sized_for(heap, &crn_type_untyped, bytes, align, __builtin_return_address(0));
}
void *cairn_alloc_bytes_aligned_(cairn_heap *heap, size_t bytes, size_t align) {
    if (!is_alignment(align)) return NULL;
    return sized_for(heap, &crn_type_bytes, bytes, align, __builtin_return_address(0));
}

static CRN_NOINLINE void look_again(const void *array, struct crn_block **block,
                                    const char *caller) {
    crn_enter();
    char *object = crn_object_of(array, block);
    crn_leave();
    CAIRN_REQUIRE(object && object == (const char *)array, "%s: %p is %s", caller, array,
                  crn_why_no_object(array));
}

/* The caller has the array, so it and its block stay what they are. */
CRN_INLINE size_t length_of(const void *array, struct crn_block **block, const char *caller) {
    if (CRN_UNLIKELY(!crn_starts_here(array, block))) look_again(array, block, caller);
    if (!(*block)->is_sized) return 1;
    size_t used = crn_object_used(*block, array);
    const struct crn_type *type = (*block)->type;
    cairn_keep(array); /* until here, though the caller may have no use for it any more */
    if (type->has_flex) return type->flex_size ? (used - type->flex_offset) / type->flex_size : 0;
    return type->size ? used / type->size : 0;
}

size_t cairn_length(const void *array) {
    struct crn_block *block;
    return array ? length_of(array, &block, "cairn_length") : 0;
}

void *cairn_resize_array_(cairn_heap *heap, const void *array, size_t count) {
    CAIRN_REQUIRE(array, "cairn_resize_array: NULL has no type");
    struct crn_block *block;
    size_t length = length_of(array, &block, "cairn_resize_array");
    struct crn_type *type = block->type;
    CAIRN_REQUIRE(block->is_sized && !type->has_flex, "cairn_resize_array: %p is not an array",
                  array);
    size_t bytes;
    if (__builtin_mul_overflow(count, type->size, &bytes)) return NULL;
    void *grown = sized_for(heap ? heap : (cairn_heap *)block->heap, type, bytes, type->align,
                            __builtin_return_address(0));
    if (grown) cairn_copy_(grown, array, crn_min(count, length), type->size);
    return grown;
}

/* ---- Strings
 * ------------------------------------------------------------------------------------------- */

static char *duplicate(cairn_heap *heap, const char *text, size_t limit, const void *caller) {
    CAIRN_REQUIRE(text, "cairn_strdup: the text is NULL");
    size_t length = strnlen(text, limit);
    char *copy = sized_for(heap, &crn_type_bytes, length + 1, CRN_GRANULE, caller);
    if (copy) memcpy(copy, text, length);
    return copy;
}

char *cairn_strndup_(cairn_heap *heap, const char *text, size_t limit) {
    return duplicate(heap, text, limit, __builtin_return_address(0));
}
char *cairn_strdup_(cairn_heap *heap, const char *text) {
    return duplicate(heap, text, SIZE_MAX / 4, __builtin_return_address(0));
}

char *cairn_format_(cairn_heap *heap, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = NULL;
    if (length >= 0) {
        text = sized_for(heap, &crn_type_bytes, (size_t)length + 1, CRN_GRANULE,
                         __builtin_return_address(0));
    }
    if (text) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}
