/* SPDX-License-Identifier: MIT
 *
 * Guard mode: objects on pages of their own, so that the processor itself refuses what no check
 * would see. CAIRN_GUARD=1 guards every object, CAIRN_GUARD=N one in N.
 *
 * A guarded object has a run of blocks of a segment of guards. Only the pages that it lies on are
 * accessible; its end, rounded up to 16 bytes, is the end of the last one. When it is deleted
 * (sealed) or dies (retired) access is taken away, and its addresses wait in a row, oldest first,
 * until there are no others: a stale pointer faults as long as that takes, and its descriptor
 * still says what was there. The runtime never touches the memory of a sealed object: it counts as
 * one without references from then on, and the epoch leaves out what is logged of its fields.
 *
 * One in N: a thread draws how many allocations come before the next guarded one, and a cursor's
 * piece ends in front of it, so the inline path pays nothing and every allocation is as likely. A
 * guarded one costs system calls and page faults. So that the cost is bounded for programs that do
 * little but allocate, a thread spends at most about 10/N of its time on them: a percent for N =
 * 1000, the next one waits if it must.
 *
 * A guarded object takes two of the kernel's mappings, of which a process may have some 65,000
 * (vm.max_map_count). Beyond three quarters of them objects are not guarded until others have died.
 */
#include "heap/guard.h"
#include "base/report.h"

enum { QUARANTINE_MAX = 1 << 20, QUARANTINE_LOOK = 64 };

uint32_t crn_guard_period;
bool crn_guard_has_sealed;
/* Of guarded objects and their segments, as far as we know; atomic. Those that died merge with
 * their neighbours, but not always, as after a fork: so all are counted now and then, and `others`
 * are the rest. */
static size_t mappings, others, mappings_max;
static size_t left_to_count; /* guarded objects before the next look; atomic */
static uint32_t is_told;     /* atomic */

static size_t page_bytes(void) {
    return crn_os_page_bytes();
}

void crn_guard_init(uint32_t period) {
    CAIRN_REQUIRE(!period || page_bytes() <= CRN_BLOCK_BYTES / 2,
                  "CAIRN_GUARD: pages of %zu bytes are too large for it", page_bytes());
    mappings_max = crn_os_mappings_max() / 4 * 3;
    crn_guard_period = period;
    crn_space.reuses_late = period == 1;
}

static void tell_of_limit(void) {
    if (__atomic_exchange_n(&is_told, 1, __ATOMIC_RELAXED)) return;
    crn_note("guard mode: the kernel's limit on mappings is near (%zu objects are guarded; see "
             "vm.max_map_count); what is allocated meanwhile is not guarded",
             __atomic_load_n(&mappings, __ATOMIC_RELAXED) / 2);
}

static size_t mappings_now(void) {
    return __atomic_load_n(&mappings, __ATOMIC_RELAXED) +
           __atomic_load_n(&others, __ATOMIC_RELAXED);
}

bool crn_guard_is_crowded(void) {
    return mappings_now() > mappings_max;
}

enum { COUNT_AT_LEAST = 256 };
static void count_mappings(void) {
    if (__atomic_fetch_sub(&left_to_count, 1, __ATOMIC_RELAXED) != 0) return;
    size_t ours = __atomic_load_n(&mappings, __ATOMIC_RELAXED), all = crn_os_mappings_now();
    __atomic_store_n(&others, all > ours ? all - ours : 0, __ATOMIC_RELAXED);
    size_t room = mappings_max > all ? mappings_max - all : 0;
    __atomic_store_n(&left_to_count, crn_max(room / 8, COUNT_AT_LEAST), __ATOMIC_RELAXED);
}

/* ---- Blocks -------------------------------------------------------------------------------------
 */

static struct crn_block *block_at(struct crn_segment *segment, size_t index) {
    return (struct crn_block *)(void *)((char *)segment + index * sizeof(struct crn_block));
}

static char *memory_of(const struct crn_block *block) {
    size_t index = ((uintptr_t)block & (CRN_SEGMENT_BYTES - 1)) / sizeof(struct crn_block);
    return crn_segment_of(block) + (index << CRN_BLOCK_SHIFT);
}

static struct crn_segment *add_segment_locked(struct crn_heap *heap) {
    char *memory = crn_segments_acquire(&heap->region, 1, CRN_SEGMENT_GUARDED, false);
    if (!memory) return NULL;
    crn_os_protect(memory + CRN_TABLE_BYTES, CRN_SEGMENT_BYTES - CRN_TABLE_BYTES);
    struct crn_segment *segment = (struct crn_segment *)(void *)memory;
    crn_checker_forbid(memory + CRN_TABLE_BYTES, CRN_SEGMENT_BYTES - CRN_TABLE_BYTES);
    segment->heap = heap;
    segment->is_for_runs = true; /* and no block of it counts as free */
    for (size_t i = CRN_FIRST_BLOCK; i < CRN_SEGMENT_BLOCKS; i++) {
        block_at(segment, i)->heap = heap;
        block_at(segment, i)->is_fresh = true;
    }
    segment->next = heap->segments;
    if (heap->segments) heap->segments->prev = segment;
    heap->segments = segment;
    heap->guards.segment = segment;
    heap->guards.next_index = CRN_FIRST_BLOCK;
    __atomic_fetch_add(&mappings, 2, __ATOMIC_RELAXED);
    return segment;
}

/* Addresses that nobody had yet. */
static struct crn_block *take_new_locked(struct crn_heap *heap, size_t count) {
    struct crn_guards *guards = &heap->guards;
    bool has_room = guards->segment && guards->next_index + count <= CRN_SEGMENT_BLOCKS;
    if (!has_room && !add_segment_locked(heap)) return NULL;
    struct crn_block *head = block_at(guards->segment, guards->next_index);
    guards->next_index += count;
    return head;
}

/* Those that have waited longest, of the first few that are large enough. */
static struct crn_block *take_old_locked(struct crn_heap *heap, size_t count) {
    struct crn_guards *guards = &heap->guards;
    struct crn_block **at = &guards->first, *before = NULL;
    for (unsigned i = 0; i < QUARANTINE_LOOK && *at; i++, before = *at, at = &(*at)->next) {
        struct crn_block *head = *at;
        if (head->run_blocks < count) continue;
        *at = head->next;
        if (guards->last == head) guards->last = before;
        guards->waiting--;
        return head;
    }
    return NULL;
}

static struct crn_block *take_blocks_locked(struct crn_heap *heap, size_t count) {
    struct crn_block *head = NULL;
    if (heap->guards.waiting < QUARANTINE_MAX) head = take_new_locked(heap, count);
    if (!head) head = take_old_locked(heap, count);
    return head;
}

static void wait_locked(struct crn_heap *heap, struct crn_block *head) {
    struct crn_guards *guards = &heap->guards;
    head->next = NULL;
    if (guards->last)
        guards->last->next = head;
    else
        guards->first = head;
    guards->last = head;
    guards->waiting++;
}

/* The pages that an object lies on. */
static char *pages_of(const struct crn_block *block, size_t *bytes) {
    char *low = (char *)((uintptr_t)block->base & ~(page_bytes() - 1));
    char *end = block->base + crn_round_up(crn_max(block->used_bytes, 1), CRN_GRANULE);
    *bytes = crn_round_up((size_t)(end - low), page_bytes());
    return low;
}

/* One page without access lies before and behind those of the object. */
struct crn_block *crn_heap_take_guarded(struct crn_heap *heap, struct crn_type *type, size_t used,
                                        size_t align, bool is_sized) {
    size_t room = crn_round_up(crn_max(used, 1), CRN_GRANULE), page = page_bytes();
    size_t bytes = crn_round_up(room + (align > CRN_GRANULE ? align : 0), page);
    size_t count = (bytes + 2 * page + CRN_BLOCK_BYTES - 1) >> CRN_BLOCK_SHIFT;
    if (align > page || count > (CRN_SEGMENT_BLOCKS - CRN_FIRST_BLOCK) / 2) return NULL;
    count_mappings();
    if (crn_guard_is_crowded()) {
        tell_of_limit();
        return NULL;
    }
    crn_lock_acquire(&heap->lock);
    struct crn_block *head = take_blocks_locked(heap, count);
    if (head) {
        char *low = memory_of(head) + page;
        char *base = (char *)((uintptr_t)(low + bytes - room) & ~(crn_max(align, CRN_GRANULE) - 1));
        if (!head->run_blocks) head->run_blocks = (uint16_t)count;
        bool is_open = crn_os_commit(low, bytes) &&
                       crn_block_open_guarded(head, type, base, room + CRN_GRANULE, used, is_sized);
        crn_checker_forbid(low, bytes);
        if (!is_open) {
            crn_os_decommit(low, bytes);
            wait_locked(heap, head);
            head = NULL;
        }
    }
    crn_lock_release(&heap->lock);
    if (!head) {
        tell_of_limit();
        return NULL;
    }
    __atomic_fetch_add(&mappings, 2, __ATOMIC_RELAXED);
    return head;
}

/* ---- Ends ---------------------------------------------------------------------------------------
 */

static void take_access(const struct crn_block *block) {
    size_t bytes;
    char *low = pages_of(block, &bytes);
    crn_checker_forbid(low, bytes);
    crn_os_decommit(low, bytes);
}

void crn_guard_seal(struct crn_block *block) {
    crn_lock_acquire(&block->heap->lock);
    block->content = CRN_LEAF;
    block->sealed = CRN_SEALED_BY_DELETION;
    __atomic_store_n(&crn_guard_has_sealed, true, __ATOMIC_RELAXED);
    take_access(block);
    crn_lock_release(&block->heap->lock);
}

void crn_guard_retire(struct crn_block *block) {
    if (!block->sealed) {
        take_access(block);
        block->sealed = CRN_SEALED_BY_DEATH;
    }
    __atomic_fetch_sub(&mappings, 2, __ATOMIC_RELAXED);
    wait_locked(block->heap, block);
}

const struct crn_block *crn_guard_block_of(const void *address) {
    enum crn_segment_kind kind = crn_segment_kind(address);
    if (kind == CRN_SEGMENT_LARGE || kind == CRN_SEGMENT_BODY)
        return crn_block_of_interior(address);
    if (kind != CRN_SEGMENT_GUARDED) return NULL;
    const struct crn_block *block = crn_block_in_table(address);
    if (block->state == CRN_BLOCK_BODY) block -= block->body_of;
    return block->type ? block : NULL;
}

/* ---- Which ones ---------------------------------------------------------------------------------
 */

/* Uniform in [1, 2 N - 1]: N on average. */
static uint32_t draw(struct crn_cache *cache) {
    uint64_t x = cache->guard_random ? cache->guard_random : (uintptr_t)cache | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    cache->guard_random = x;
    return (uint32_t)(1 + (x >> 33) % (2 * (uint64_t)crn_guard_period - 1));
}

char *crn_guard_shorten(struct crn_cache *cache, char *from, char *to, size_t slot_size) {
    if (!cache->guard_random) cache->guard_countdown = draw(cache);
    size_t slots = (size_t)(to - from) / slot_size;
    if (slots > cache->guard_countdown) slots = crn_max(cache->guard_countdown, 1);
    cache->guard_countdown -= (uint32_t)crn_min(slots, cache->guard_countdown);
    return from + slots * slot_size;
}

bool crn_guard_is_due(struct crn_cache *cache, const struct crn_bin *bin) {
    if (crn_guard_period == 1) return true;
    if (bin && bin->id < cache->capacity) {
        const struct cairn_cursor *cursor = &cache->cursors[bin->id];
        if ((size_t)(cursor->limit - cursor->next) >= bin->slot_size) return false;
    }
    if (cache->guard_countdown > 0 || !cache->guard_random) return false;
    cache->guard_countdown = draw(cache);
    return crn_os_now_ns() >= cache->guard_not_before_ns;
}

/* What an object costs to guard it costs again when it dies; its pages' faults, the misses of
 * memory that lies apart and what the kernel interrupts other processors for come on top. */
enum { COST_IN_ALL = 8 };
void crn_guard_note_cost(struct crn_cache *cache, uint64_t began_ns) {
    uint64_t now = crn_os_now_ns();
    if (crn_guard_period > 1) {
        cache->guard_not_before_ns = now + (now - began_ns) * COST_IN_ALL * crn_guard_period / 10;
    }
}
