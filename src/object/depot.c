/* SPDX-License-Identifier: MIT
 *
 * See depot.h. Programs allocate from few places: millions of objects share some thousand stacks,
 * so each is kept once and named by a number of 32 bits.
 *
 * A stack lies in one of many pieces of a mebibyte, each mapped when the one before is full, and
 * its number says where: 16 bits of piece, 16 of place in it, in units of 16 bytes. Nothing is ever
 * moved or freed. It is found by its hash: the first 16 bits choose a root, and from there on each
 * stack has four children, chosen by the next two bits (a hash trie whose nodes are the elements).
 * So the depot grows without a table that would have to be copied, and a million stacks are two or
 * three steps deep below their roots.
 *
 * Looking up takes no lock: a cell that names a stack is written once, with release, after the
 * stack. Who finds an empty cell takes the depot lock and goes on from there. Pieces and numbers
 * hold addresses of code only, and no scan looks at them.
 */
#include "object/depot.h"

#include "base/lock.h"
#include "os/os.h"

#include <string.h>

enum { PIECE_SHIFT = 20, UNIT_SHIFT = 4, PLACE_BITS = 16, PIECES_MAX = 1 << 16, ROOT_BITS = 16 };
enum { CHILDREN = 4, CHILD_BITS = 2 };
_Static_assert(PIECE_SHIFT - UNIT_SHIFT == PLACE_BITS, "a place is a unit of its piece");

struct stack {
    uint64_t hash;
    uint32_t children[CHILDREN]; /* numbers; atomic; 0 or written once */
    uint32_t count;
    uintptr_t frames[];
};

struct depot {
    uint32_t roots[1 << ROOT_BITS]; /* numbers; as children */
    char *pieces[PIECES_MAX];       /* written under the lock, before any number into it */
};

static struct crn_lock depot_lock;
static struct depot *depot; /* atomic */
/* Under the lock. The first units are never used: their numbers mean that there is no stack. */
static size_t piece_count, used_bytes;
static size_t stack_count; /* atomic */

static uint64_t hash_of(const uintptr_t *frames, unsigned count) {
    uint64_t hash = count;
    for (unsigned i = 0; i < count; i++) {
        hash = (hash ^ frames[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return hash * 0x9e3779b97f4a7c15u;
}

static struct stack *stack_at(const struct depot *at, uint32_t number) {
    size_t place = (size_t)(number & ((1u << PLACE_BITS) - 1)) << UNIT_SHIFT;
    return (struct stack *)(void *)(at->pieces[number >> PLACE_BITS] + place);
}

/* On the way down: the cell to look at, and the bits of the hash that choose below it. */
struct way {
    uint32_t *cell;
    uint64_t bits;
};

/* To the stack, whose number is returned; or 0, and the way ends at the cell where it belongs.
 * Acquire: of the release by who put the number there, and the stack before it. */
static uint32_t follow(const struct depot *at, struct way *way, uint64_t hash,
                       const uintptr_t *frames, unsigned count) {
    for (;;) {
        uint32_t number = __atomic_load_n(way->cell, __ATOMIC_ACQUIRE);
        if (!number) return 0;
        struct stack *stack = stack_at(at, number);
        if (stack->hash == hash && stack->count == count &&
            memcmp(stack->frames, frames, count * sizeof(*frames)) == 0) {
            return number;
        }
        way->cell = &stack->children[way->bits >> (64 - CHILD_BITS)];
        way->bits <<= CHILD_BITS;
    }
}

static uint32_t take_room_locked(size_t bytes) {
    size_t room = piece_count ? ((size_t)1 << PIECE_SHIFT) - used_bytes : 0;
    if (room < bytes) {
        char *fresh = piece_count < PIECES_MAX ? crn_os_map((size_t)1 << PIECE_SHIFT) : NULL;
        if (!fresh) return 0;
        used_bytes = piece_count ? 0 : (CRN_STACK_LOST + 1) << UNIT_SHIFT;
        depot->pieces[piece_count++] = fresh;
    }
    uint32_t number = (uint32_t)((piece_count - 1) << PLACE_BITS | used_bytes >> UNIT_SHIFT);
    used_bytes += bytes;
    return number;
}

static uint32_t add_locked(struct way *way, uint64_t hash, const uintptr_t *frames,
                           unsigned count) {
    size_t bytes = sizeof(struct stack) + count * sizeof(*frames);
    uint32_t number = take_room_locked(crn_round_up(bytes, (size_t)1 << UNIT_SHIFT));
    if (!number) return CRN_STACK_LOST;
    struct stack *stack = stack_at(depot, number);
    stack->hash = hash;
    stack->count = count;
    memcpy(stack->frames, frames, count * sizeof(*frames));
    __atomic_fetch_add(&stack_count, 1, __ATOMIC_RELAXED);
    __atomic_store_n(way->cell, number, __ATOMIC_RELEASE);
    return number;
}

static CRN_NOINLINE struct depot *open_depot(void) {
    crn_lock_acquire(&depot_lock);
    if (!depot) __atomic_store_n(&depot, crn_os_map(sizeof(*depot)), __ATOMIC_RELEASE);
    crn_lock_release(&depot_lock);
    return depot;
}

uint32_t crn_depot_put(const uintptr_t *frames, unsigned count) {
    struct depot *at = __atomic_load_n(&depot, __ATOMIC_ACQUIRE);
    if (!at) at = open_depot();
    if (!at) return CRN_STACK_LOST;
    uint64_t hash = hash_of(frames, count);
    struct way way = {&at->roots[hash >> (64 - ROOT_BITS)], hash << ROOT_BITS};
    uint32_t number = follow(at, &way, hash, frames, count);
    if (CRN_LIKELY(number)) return number;
    crn_lock_acquire(&depot_lock);
    number = follow(at, &way, hash, frames, count);
    if (!number) number = add_locked(&way, hash, frames, count);
    crn_lock_release(&depot_lock);
    return number;
}

unsigned crn_depot_get(uint32_t number, uintptr_t *frames, unsigned most) {
    if (number <= CRN_STACK_LOST) return 0;
    const struct stack *stack = stack_at(__atomic_load_n(&depot, __ATOMIC_ACQUIRE), number);
    unsigned count = stack->count < most ? stack->count : most;
    memcpy(frames, stack->frames, count * sizeof(*frames));
    return count;
}

size_t crn_depot_count(void) {
    return __atomic_load_n(&stack_count, __ATOMIC_RELAXED);
}
