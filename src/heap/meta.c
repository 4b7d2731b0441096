/* SPDX-License-Identifier: MIT
 *
 * The runtime's own memory: power-of-two sizes with free lists, cut from mapped chunks; above 1 MiB
 * a mapping of its own. Owns the meta lock.
 */
#include "heap/heap.h"
#include "os/os.h"

#include <string.h>

enum { META_MIN_SHIFT = 5, META_MAX_SHIFT = 20, META_CHUNK = 1 << 20, META_SOON = 1 << 15 };

struct free_piece {
    struct free_piece *next;
};

static struct crn_lock meta_lock;
static struct free_piece *free_pieces[META_MAX_SHIFT + 1];
static char *chunk, *chunk_end;

static unsigned shift_of(size_t bytes) {
    if (bytes <= (size_t)1 << META_MIN_SHIFT) return META_MIN_SHIFT;
    return crn_log2(bytes - 1) + 1;
}

/* Aligned to its size, or to a cache line. */
static void *cut(size_t bytes) {
    chunk += -(uintptr_t)chunk & (crn_min(bytes, CRN_CACHE_LINE) - 1);
    if (chunk > chunk_end || (size_t)(chunk_end - chunk) < bytes) {
        char *fresh = crn_os_map(META_CHUNK);
        if (!fresh) return NULL;
        if (!chunk) crn_os_populate(fresh, META_SOON);
        chunk = fresh;
        chunk_end = fresh + META_CHUNK;
    }
    void *piece = chunk;
    chunk += bytes;
    return piece;
}

void *crn_meta_alloc(size_t bytes) {
    unsigned shift = shift_of(bytes);
    if (shift > META_MAX_SHIFT) return crn_os_map(bytes);
    if (crn_os_should_fail()) return NULL;
    crn_lock_acquire(&meta_lock);
    struct free_piece *piece = free_pieces[shift];
    bool is_used = piece != NULL;
    if (is_used)
        free_pieces[shift] = piece->next;
    else
        piece = cut((size_t)1 << shift);
    crn_lock_release(&meta_lock);
    if (is_used) memset(piece, 0, bytes); /* what is cut is zero */
    return piece;
}

void crn_meta_free(void *memory, size_t bytes) {
    if (!memory) return;
    unsigned shift = shift_of(bytes);
    if (shift > META_MAX_SHIFT) {
        crn_os_release(memory, bytes);
        return;
    }
    struct free_piece *piece = memory;
    crn_lock_acquire(&meta_lock);
    piece->next = free_pieces[shift];
    free_pieces[shift] = piece;
    crn_lock_release(&meta_lock);
}
