/* SPDX-License-Identifier: MIT
 *
 * The barrier's slow path and the field log. The argument stands in object.h.
 *
 * A thread logs into a chunk of its own; full chunks stay linked behind it until an epoch takes
 * them. Each thread keeps a spare chunk, so that a store never fails: taking the spare asks for an
 * epoch.
 */
#include "object/object.h"

#include <stdlib.h>
#include <string.h>

static struct crn_lock chunks_lock;
static struct crn_log_chunk *free_chunks;

struct crn_log_chunk *crn_log_chunk_take(void) {
    crn_lock_acquire(&chunks_lock);
    struct crn_log_chunk *chunk = free_chunks;
    if (chunk) free_chunks = chunk->next;
    crn_lock_release(&chunks_lock);
    if (!chunk) chunk = crn_meta_alloc(sizeof(*chunk));
    if (chunk) {
        chunk->next = NULL;
        chunk->count = 0;
    }
    return chunk;
}

void crn_log_chunk_give(struct crn_log_chunk *chunk) {
    crn_lock_acquire(&chunks_lock);
    chunk->next = free_chunks;
    free_chunks = chunk;
    crn_lock_release(&chunks_lock);
}

static CRN_NOINLINE void next_chunk(struct crn_thread *self) {
    struct crn_log_chunk *chunk = crn_log_chunk_take();
    if (!chunk) {
        chunk = self->spare;
        self->spare = NULL;
    }
    CAIRN_REQUIRE(chunk, "out of memory: no room to log a store");
    chunk->next = self->log;
    self->log = chunk;
}

/* Reads the old value, clears the bit, and logs if it was this thread that cleared it. */
static bool log_field(struct crn_thread *self, void **field) {
    void *old = __atomic_load_n(field, __ATOMIC_RELAXED);
    uintptr_t a = (uintptr_t)field & crn_space.mask;
    uint8_t bit = (uint8_t)(1u << ((a >> 3) & 7));
    /* Acquire-release orders the read of the old value before the clearing that others see. */
    uint8_t was =
        __atomic_fetch_and(cairn_runtime.log_bits + (a >> 6), (uint8_t)~bit, __ATOMIC_ACQ_REL);
    if (!(was & bit)) return false;
    if (!self->log || self->log->count == CRN_LOG_ENTRIES) next_chunk(self);
    self->log->entries[self->log->count++] = (struct crn_log_entry){field, old};
    return self->log->count == CRN_LOG_ENTRIES;
}

/* With a folded shadow a field outside every heap may meet another field's bit: leave that alone.
 */
static bool is_heap_field(void **field) {
    return crn_segment_kind(field) != CRN_SEGMENT_NONE;
}

void cairn_log_slow_(void **field) {
    if (!is_heap_field(field)) return;
    struct crn_thread *self = crn_enter();
    log_field(self, field);
    crn_leave();
}

void cairn_store_slow_(void **field, void *value) {
    if (!is_heap_field(field)) {
        __atomic_store_n(field, value, __ATOMIC_RELEASE);
        return;
    }
    struct crn_thread *self = crn_enter();
    bool is_full = log_field(self, field);
    __atomic_store_n(field, value, __ATOMIC_RELEASE);
    if (is_full) crn_hooks.logged();
    crn_leave();
}

void crn_log_range(char *low, char *high) {
    struct crn_thread *self = crn_self();
    if (crn_segment_kind(low) == CRN_SEGMENT_NONE) return;
    for (char *at = (char *)crn_round_up((uintptr_t)low, sizeof(void *));
         at + sizeof(void *) <= high; at += sizeof(void *)) {
        if (cairn_field_is_logged_(at)) log_field(self, (void **)(void *)at);
    }
}

/* ---- Bulk work
 * -------------------------------------------------------------------------------------- */

void cairn_copy_(void *dst, const void *src, size_t count, size_t element_size) {
    size_t bytes = 0;
    CAIRN_REQUIRE(!__builtin_mul_overflow(count, element_size, &bytes),
                  "cairn_copy: %zu elements of %zu bytes overflow", count, element_size);
    crn_enter();
    crn_log_range(dst, (char *)dst + bytes);
    memmove(dst, src, bytes);
    crn_hooks.poll();
    crn_leave();
}

void cairn_clear(void *object) {
    if (!object) return;
    crn_enter();
    struct crn_block *block = NULL;
    char *start = crn_object_of(object, &block);
    if (!start || start != object) {
        crn_leave(); /* the report's handler may not return */
        crn_fail("cairn_clear: %p is not the start of an object", object);
    }
    size_t bytes = crn_object_used(block, start);
    crn_log_range(start, start + bytes);
    memset(start, 0, bytes);
    crn_leave();
}

void cairn_sort_(void *array, size_t count, size_t element_size,
                 int (*compare)(const void *, const void *)) {
    if (count < 2) return;
    size_t bytes = 0;
    CAIRN_REQUIRE(!__builtin_mul_overflow(count, element_size, &bytes),
                  "cairn_sort: %zu elements of %zu bytes overflow", count, element_size);
    /* Sort a copy: the comparison is the program's and may run into an epoch. */
    void *copy = cairn_alloc(bytes);
    CAIRN_REQUIRE(copy, "cairn_sort: out of memory for %zu bytes", bytes);
    memcpy(copy, array, bytes);
    qsort(copy, count, element_size, compare);
    cairn_copy_(array, copy, count, element_size);
    cairn_keep(copy);
}
