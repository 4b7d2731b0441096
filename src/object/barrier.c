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

/* Reads the old value, clears the bit, and logs if it was this thread that cleared it. A full chunk
 * asks for an epoch at the end of the section, when the store is done. */
static void log_field(struct crn_thread *self, void **field) {
    void *old = __atomic_load_n(field, __ATOMIC_RELAXED);
    uintptr_t a = (uintptr_t)field & crn_space.mask;
    uint8_t bit = (uint8_t)(1u << ((a >> 3) & 7));
    /* Acquire-release orders the read of the old value before the clearing that others see. */
    uint8_t was =
        __atomic_fetch_and(cairn_runtime.log_bits + (a >> 6), (uint8_t)~bit, __ATOMIC_ACQ_REL);
    if (!(was & bit)) return;
    if (!self->log || self->log->count == CRN_LOG_ENTRIES) next_chunk(self);
    self->log->entries[self->log->count++] = (struct crn_log_entry){field, old};
    if (self->log->count < CRN_LOG_ENTRIES) return;
    self->full_chunks++;
    self->inline_state->deferred = 1;
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
    log_field(self, field);
    __atomic_store_n(field, value, __ATOMIC_RELEASE);
    crn_leave();
}

void crn_store_null(void **field) {
    if (cairn_field_is_logged_(field)) cairn_store_slow_(field, NULL);
    __atomic_store_n(field, NULL, __ATOMIC_RELEASE);
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

/* A piece is one section, between two of them a stop may come; and has no more words than the spare
 * chunk has room for. */
enum { COPY_BYTES = 4096 };
_Static_assert(COPY_BYTES / sizeof(void *) <= CRN_LOG_ENTRIES, "a piece fits the spare chunk");

static void copy_piece(char *to, const char *from, size_t bytes) {
    crn_enter();
    crn_log_range(to, to + bytes);
    memmove(to, from, bytes);
    crn_hooks.poll();
    crn_leave();
}

/* Overlapping ranges are copied from the end that is overwritten last. Pieces end at words of dst,
 * so that no reference is ever half there. */
void cairn_copy_(void *dst, const void *src, size_t count, size_t element_size) {
    size_t bytes = 0;
    CAIRN_REQUIRE(!__builtin_mul_overflow(count, element_size, &bytes),
                  "cairn_copy: %zu elements of %zu bytes overflow", count, element_size);
    char *to = dst;
    const char *from = src;
    size_t first = crn_min(bytes, (size_t)(-(uintptr_t)to & (COPY_BYTES - 1)));
    if ((uintptr_t)to - (uintptr_t)from >= bytes) {
        for (size_t done = 0, piece = first ? first : crn_min(bytes, COPY_BYTES); done < bytes;
             piece = crn_min(bytes - done, COPY_BYTES)) {
            copy_piece(to + done, from + done, piece);
            done += piece;
        }
        return;
    }
    while (bytes > first) {
        size_t piece = (bytes - first - 1) % COPY_BYTES + 1;
        bytes -= piece;
        copy_piece(to + bytes, from + bytes, piece);
    }
    if (first) copy_piece(to, from, first);
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
    crn_leave();
    for (size_t at = 0; at < bytes; at += COPY_BYTES) {
        size_t piece = crn_min(bytes - at, COPY_BYTES);
        crn_enter();
        crn_log_range(start + at, start + at + piece);
        memset(start + at, 0, piece);
        crn_hooks.poll();
        crn_leave();
    }
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
    memset(copy, 0, bytes); /* it may be found for a while, and should name nothing then */
    cairn_keep(copy);
}
