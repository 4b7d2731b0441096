/* SPDX-License-Identifier: MIT
 *
 * Segments and blocks of one heap: taking, freeing, listing.
 *
 * free_blocks lists every free block of every blocky segment; a segment's free_map says the same
 * per block, for finding runs. Both change together, under heap->lock or while the world is
 * stopped.
 */
#include "base/described.h"
#include "heap/guard.h"
#include "os/os.h"

#include <string.h>

bool crn_deaths_are_watched;

/* Heaps below this get small pages: huge ones would commit what they never touch. */
enum { HUGE_FROM_SEGMENTS = 16 };

static struct crn_block *block_at(struct crn_segment *segment, size_t index) {
    return (struct crn_block *)(void *)((char *)segment + index * sizeof(struct crn_block));
}

static struct crn_segment *segment_of_block(const struct crn_block *block) {
    return (struct crn_segment *)(void *)crn_segment_of(block);
}

static size_t index_of_block(const struct crn_block *block) {
    return ((uintptr_t)block & (CRN_SEGMENT_BYTES - 1)) / sizeof(struct crn_block);
}

static char *memory_of_block(const struct crn_block *block) {
    return crn_segment_of(block) + (index_of_block(block) << CRN_BLOCK_SHIFT);
}

/* ---- Lists
 * --------------------------------------------------------------------------------------- */

static void list_push(struct crn_block_list *list, struct crn_block *block) {
    block->prev = NULL;
    block->next = list->first;
    if (list->first)
        list->first->prev = block;
    else
        list->last = block;
    list->first = block;
}

static void list_append(struct crn_block_list *list, struct crn_block *block) {
    block->next = NULL;
    block->prev = list->last;
    if (list->last)
        list->last->next = block;
    else
        list->first = block;
    list->last = block;
}

static void list_remove(struct crn_block_list *list, struct crn_block *block) {
    if (block->prev)
        block->prev->next = block->next;
    else
        list->first = block->next;
    if (block->next)
        block->next->prev = block->prev;
    else
        list->last = block->prev;
    block->next = block->prev = NULL;
}

/* Atomic: threads look at blocks of others, whose objects they refer to, without a lock. */
static void set_state(struct crn_block *block, uint8_t state) {
    __atomic_store_n(&block->state, state, __ATOMIC_RELAXED);
}

static void mark_free(struct crn_heap *heap, struct crn_block *block) {
    struct crn_segment *segment = segment_of_block(block);
    size_t index = index_of_block(block);
    set_state(block, CRN_BLOCK_FREE);
    block->slot_size = 0;
    segment->free_map[index / 64] |= (uint64_t)1 << (index % 64);
    segment->free_count++;
    __atomic_store_n(&heap->free_block_count, heap->free_block_count + 1, __ATOMIC_RELAXED);
    if (!segment->is_for_runs) list_push(&heap->free_blocks, block);
}

static void mark_taken(struct crn_heap *heap, struct crn_block *block) {
    struct crn_segment *segment = segment_of_block(block);
    size_t index = index_of_block(block);
    if (!segment->is_for_runs) list_remove(&heap->free_blocks, block);
    segment->free_map[index / 64] &= ~((uint64_t)1 << (index % 64));
    segment->free_count--;
    __atomic_store_n(&heap->free_block_count, heap->free_block_count - 1, __ATOMIC_RELAXED);
}

/* ---- Segments
 * ------------------------------------------------------------------------------------- */

static void link_segment(struct crn_segment **list, struct crn_segment *segment) {
    segment->prev = NULL;
    segment->next = *list;
    if (*list) (*list)->prev = segment;
    *list = segment;
}

static void unlink_segment(struct crn_segment **list, struct crn_segment *segment) {
    if (segment->prev)
        segment->prev->next = segment->next;
    else
        *list = segment->next;
    if (segment->next) segment->next->prev = segment->prev;
}

/* Not where blocks are mostly empty, as those of many types with few objects each: a huge page
 * makes 64 of them resident at once. */
static bool deserves_huge_pages(const struct crn_heap *heap) {
    size_t segments = crn_region_committed(&heap->region);
    uint64_t allocated = __atomic_load_n(&heap->allocated_bytes, __ATOMIC_RELAXED);
    return segments >= HUGE_FROM_SEGMENTS && allocated >= (segments << CRN_SEGMENT_SHIFT) / 2;
}

static struct crn_segment *add_segment(struct crn_heap *heap, bool is_for_runs) {
    char *memory =
        crn_segments_acquire(&heap->region, 1, CRN_SEGMENT_BLOCKY, deserves_huge_pages(heap));
    if (!memory) return NULL;
    /* The descriptors are written now, and the counts behind them are the first to be. */
    crn_os_populate(memory, (CRN_TABLE_BYTES >> CRN_GRANULE_SHIFT) + 1);
    struct crn_segment *segment = (struct crn_segment *)(void *)memory;
    segment->heap = heap;
    segment->is_for_runs = is_for_runs;
    crn_checker_forbid(memory + CRN_TABLE_BYTES, CRN_SEGMENT_BYTES - CRN_TABLE_BYTES);
    for (size_t i = CRN_SEGMENT_BLOCKS; i-- > CRN_FIRST_BLOCK;) {
        block_at(segment, i)->heap = heap;
        block_at(segment, i)->is_fresh = true;
        mark_free(heap, block_at(segment, i));
    }
    link_segment(&heap->segments, segment);
    return segment;
}

/* The first of `count` adjacent free blocks of a segment whose index is a multiple of `step`. */
static struct crn_block *find_run(struct crn_segment *segment, size_t count, size_t step) {
    size_t run = 0;
    for (size_t i = CRN_FIRST_BLOCK; i < CRN_SEGMENT_BLOCKS; i++) {
        bool is_free = (segment->free_map[i / 64] >> (i % 64)) & 1;
        run = is_free && (run > 0 || i % step == 0) ? run + 1 : 0;
        if (run == count) return block_at(segment, i + 1 - count);
    }
    return NULL;
}

/* `count` adjacent free blocks, aligned to `step` of them; the first of them, or NULL. */
static struct crn_block *take_blocks(struct crn_heap *heap, size_t count, size_t step) {
    if (count == 1 && step == 1 && heap->free_blocks.first) {
        struct crn_block *block = heap->free_blocks.first;
        mark_taken(heap, block);
        return block;
    }
    bool is_for_runs = count > 1 || step > 1;
    struct crn_segment *segment = is_for_runs ? heap->segments : NULL;
    for (;; segment = segment->next) {
        if (!segment) segment = add_segment(heap, is_for_runs);
        if (!segment) return NULL;
        if (segment->free_count < count || segment->is_for_runs != is_for_runs) continue;
        struct crn_block *head = find_run(segment, count, step);
        if (!head) continue;
        for (size_t i = 0; i < count; i++) mark_taken(heap, &head[i]);
        return head;
    }
}

/* ---- Untyped blocks
 * ------------------------------------------------------------------------------- */

static size_t pages_bytes(size_t row_count) {
    return sizeof(struct crn_pages) + row_count * sizeof(struct crn_row);
}

/* Gives an untyped block the rows for what its pages hold. False without memory. */
static bool open_pages(struct crn_block *block) {
    uintptr_t low = (uintptr_t)block->base & ~(uintptr_t)(CRN_PAGE_BYTES - 1);
    size_t row_count = ((uintptr_t)block->end - low + CRN_PAGE_BYTES - 1) / CRN_PAGE_BYTES;
    struct crn_pages *pages = crn_meta_alloc(pages_bytes(row_count));
    if (!pages) return false;
    pages->row_count = row_count;
    block->pages = pages;
    struct crn_segment *segment = segment_of_block(block);
    if (segment->untyped_count++ > 0) return true;
    struct crn_heap *heap = block->heap;
    segment->prev_untyped = NULL;
    segment->next_untyped = heap->untyped;
    if (heap->untyped) heap->untyped->prev_untyped = segment;
    heap->untyped = segment;
    return true;
}

/* The collector has given back what the pages held. */
static void close_pages(struct crn_block *block) {
    if (!block->pages) return;
    crn_meta_free(block->pages, pages_bytes(block->pages->row_count));
    block->pages = NULL;
    struct crn_segment *segment = segment_of_block(block);
    if (--segment->untyped_count > 0) return;
    if (segment->prev_untyped)
        segment->prev_untyped->next_untyped = segment->next_untyped;
    else
        block->heap->untyped = segment->next_untyped;
    if (segment->next_untyped) segment->next_untyped->prev_untyped = segment->prev_untyped;
}

void crn_segment_each_untyped(struct crn_segment *segment,
                              void (*visit)(struct crn_block *block, bool flag), bool flag) {
    if (segment->large.pages) visit(&segment->large, flag);
    if (segment->segment_count) return;
    for (size_t i = CRN_FIRST_BLOCK; i < CRN_SEGMENT_BLOCKS; i++) {
        if (block_at(segment, i)->pages) visit(block_at(segment, i), flag);
    }
}

static void close_block_pages(struct crn_block *block, bool unused) {
    (void)unused;
    close_pages(block);
}

void crn_heap_close_pages(struct crn_heap *heap) {
    while (heap->untyped) crn_segment_each_untyped(heap->untyped, close_block_pages, false);
}

static void open_block(struct crn_block *block, struct crn_type *type, char *base, char *end) {
    block->type = type;
    block->content = (uint8_t)type->content;
    block->base = base;
    block->end = end;
    block->young_begin = base;
    block->young_end = base;
    block->cursor = NULL;
    block->live = block->promoted = 0;
    block->slot_count = 1;
    block->has_extras = block->has_special = false;
    set_state(block, CRN_BLOCK_ACTIVE);
}

/* Whatever a block held before, none of its words is a field to log until its new type says so. */
static void forget_log_bits(const struct crn_block *block) {
    uintptr_t a = (uintptr_t)memory_of_block(block) & crn_space.mask;
    memset(cairn_runtime.log_bits + (a >> 6), 0, CRN_BLOCK_BYTES >> 6);
}

/* ---- For caches
 * -------------------------------------------------------------------------------------- */

/* The list that the block is in, if any. */
static struct crn_block_list *list_of(const struct crn_block *block) {
    if (block->state != CRN_BLOCK_ROOMY && block->state != CRN_BLOCK_PARTIAL) return NULL;
    struct crn_rooms *rooms = &block->heap->rooms[block->bin->id];
    return block->state == CRN_BLOCK_ROOMY ? &rooms->roomy : &rooms->partial;
}

static struct crn_block *take_settled(struct crn_heap *heap, const struct crn_bin *bin) {
    if (bin->id >= heap->rooms_capacity) return NULL;
    const struct crn_rooms *rooms = &heap->rooms[bin->id];
    struct crn_block *block = rooms->roomy.first;
    if (!block && !heap->free_blocks.first) block = rooms->partial.first;
    if (!block) return NULL;
    list_remove(list_of(block), block);
    set_state(block, CRN_BLOCK_ACTIVE);
    return block;
}

static struct crn_block *take_free(struct crn_heap *heap, struct crn_bin *bin) {
    struct crn_block *block = take_blocks(heap, 1, 1);
    if (!block) return NULL;
    if (!block->is_fresh) forget_log_bits(block);
    char *memory = memory_of_block(block);
    size_t slots = CRN_BLOCK_BYTES / bin->slot_size;
    open_block(block, bin->type, memory, memory + slots * bin->slot_size);
    block->bin = bin;
    block->slot_size = (uint16_t)bin->slot_size;
    block->reciprocal = bin->reciprocal;
    block->slot_count = (uint16_t)slots;
    block->is_sized = bin->is_sized;
    block->used_bytes = bin->is_sized ? 0 : bin->type->size;
    block->run_blocks = 1;
    if (block->content != CRN_UNTYPED || open_pages(block)) return block;
    mark_free(heap, block);
    return NULL;
}

struct crn_block *crn_heap_take_block(struct crn_heap *heap, struct crn_bin *bin) {
    crn_lock_acquire(&heap->lock);
    struct crn_block *block = take_settled(heap, bin);
    if (!block) block = take_free(heap, bin);
    crn_lock_release(&heap->lock);
    return block;
}

static void open_own(struct crn_block *block, struct crn_type *type, char *base, size_t bytes,
                     size_t used, bool is_sized) {
    open_block(block, type, base, base + bytes);
    block->bin = NULL;
    block->slot_size = 0;
    block->used_bytes = used;
    block->is_sized = is_sized;
    block->young_end = block->end;
    set_state(block, CRN_BLOCK_SPENT);
}

/* Zero memory and clear log bits of reused blocks; then the fields of a young own object are born
 * logged, so that an epoch reads what was stored and not the whole object. */
struct crn_block *crn_heap_take_run(struct crn_heap *heap, struct crn_type *type, size_t bytes,
                                    size_t used, size_t align, bool is_sized) {
    size_t count = (bytes + CRN_BLOCK_BYTES - 1) >> CRN_BLOCK_SHIFT;
    size_t step = crn_max(align >> CRN_BLOCK_SHIFT, 1);
    crn_lock_acquire(&heap->lock);
    struct crn_block *head = take_blocks(heap, count, step);
    if (head) {
        open_own(head, type, memory_of_block(head), crn_round_up(bytes, CRN_GRANULE), used,
                 is_sized);
        head->run_blocks = (uint16_t)count;
        for (size_t i = 1; i < count; i++) {
            set_state(&head[i], CRN_BLOCK_BODY);
            head[i].body_of = (uint8_t)i;
        }
        if (head->content == CRN_UNTYPED && !open_pages(head)) {
            for (size_t i = 0; i < count; i++) mark_free(heap, &head[i]);
            head = NULL;
        }
    }
    crn_lock_release(&heap->lock);
    if (!head) return NULL;
    for (size_t i = 0; i < count; i++) {
        if (!head[i].is_fresh) {
            forget_log_bits(&head[i]);
            crn_checker_allow(memory_of_block(&head[i]), CRN_BLOCK_BYTES);
            memset(memory_of_block(&head[i]), 0, CRN_BLOCK_BYTES);
            crn_checker_forbid(memory_of_block(&head[i]), CRN_BLOCK_BYTES);
        }
        head[i].is_fresh = false;
    }
    return head;
}

bool crn_block_open_guarded(struct crn_block *head, struct crn_type *type, char *base, size_t bytes,
                            size_t used, bool is_sized) {
    for (size_t i = 0; i < head->run_blocks; i++) {
        if (!head[i].is_fresh) forget_log_bits(&head[i]);
        head[i].is_fresh = false;
        if (i == 0) continue;
        set_state(&head[i], CRN_BLOCK_BODY);
        head[i].body_of = (uint8_t)i;
    }
    open_own(head, type, base, bytes, used, is_sized);
    head->is_guarded = true;
    head->sealed = CRN_UNSEALED;
    if (head->content != CRN_UNTYPED || open_pages(head)) return true;
    set_state(head, CRN_BLOCK_FREE);
    return false;
}

struct crn_block *crn_heap_take_large(struct crn_heap *heap, struct crn_type *type, size_t bytes,
                                      size_t used, size_t align, bool is_sized) {
    size_t offset = crn_round_up(CRN_TABLE_BYTES, align);
    if (bytes > SIZE_MAX / 2) return NULL;
    size_t page = crn_os_page_bytes(),
           guarded = crn_guard_period == 1 && align <= CRN_GRANULE ? page : 0;
    if (guarded) {
        /* Its end is a page's; what lies behind is not accessible. */
        offset += -(offset + crn_round_up(used, CRN_GRANULE)) & (page - 1);
    }
    size_t count = (offset + bytes + guarded + CRN_SEGMENT_BYTES - 1) >> CRN_SEGMENT_SHIFT;
    crn_lock_acquire(&heap->lock);
    char *memory = crn_segments_acquire(&heap->region, count, CRN_SEGMENT_LARGE, true);
    struct crn_block *block = NULL;
    if (memory) {
        struct crn_segment *segment = (struct crn_segment *)(void *)memory;
        segment->heap = heap;
        segment->segment_count = (uint32_t)count;
        block = &segment->large;
        block->heap = heap;
        open_own(block, type, memory + offset, crn_round_up(bytes, CRN_GRANULE), used, is_sized);
        if (type->content == CRN_UNTYPED && !open_pages(block)) {
            crn_segments_release(&heap->region, memory, count);
            block = NULL;
        } else {
            link_segment(&heap->larges, segment);
            crn_checker_forbid(memory + CRN_TABLE_BYTES,
                               (count << CRN_SEGMENT_SHIFT) - CRN_TABLE_BYTES);
            if (guarded) {
                block->is_guarded = true;
                size_t end = offset + crn_round_up(used, CRN_GRANULE);
                crn_os_protect(memory + end, (count << CRN_SEGMENT_SHIFT) - end);
            }
        }
    }
    crn_lock_release(&heap->lock);
    return block;
}

/* ---- While the world is stopped
 * ------------------------------------------------------------------------ */

static bool grow_rooms(struct crn_heap *heap, uint32_t id) {
    if (id < heap->rooms_capacity) return true;
    size_t capacity = crn_max(crn_round_up(crn_bin_count(), 64), heap->rooms_capacity * 2);
    struct crn_rooms *grown = crn_meta_alloc(capacity * sizeof(*grown));
    if (!grown) return false;
    size_t old_bytes = heap->rooms_capacity * sizeof(*grown);
    if (heap->rooms) {
        memcpy(grown, heap->rooms, old_bytes);
        crn_meta_free(heap->rooms, old_bytes);
    }
    heap->rooms = grown;
    heap->rooms_capacity = capacity;
    return true;
}

static uint8_t state_for(const struct crn_block *block, uint32_t live) {
    if (live <= crn_block_roomy(block)) return CRN_BLOCK_ROOMY;
    return block->slot_count - live >= crn_block_room(block) ? CRN_BLOCK_PARTIAL : CRN_BLOCK_FULL;
}

/* Without memory for the list a block stays full until something else in it dies: nothing is lost.
 * Of two workers that pass two thresholds the later one may come first: the state only ever falls.
 */
void crn_block_has_room(struct crn_block *block) {
    struct crn_heap *heap = block->heap;
    if (!crn_block_is_settled(block) || !grow_rooms(heap, block->bin->id)) return;
    uint8_t state = state_for(block, __atomic_load_n(&block->live, __ATOMIC_RELAXED));
    if (state >= block->state) return;
    if (list_of(block)) list_remove(list_of(block), block);
    set_state(block, state);
    list_append(list_of(block), block);
}

void crn_block_free(struct crn_block *block) {
    struct crn_heap *heap = block->heap;
    close_pages(block);
    if (crn_segment_kind(block) == CRN_SEGMENT_LARGE) {
        struct crn_segment *segment = segment_of_block(block);
        unlink_segment(&heap->larges, segment);
        crn_segments_release(&heap->region, (char *)segment, segment->segment_count);
        return;
    }
    if (block->is_guarded) {
        set_state(block, CRN_BLOCK_FREE);
        crn_guard_retire(block);
        return;
    }
    if (list_of(block)) list_remove(list_of(block), block);
    crn_checker_forbid(memory_of_block(block), block->run_blocks * CRN_BLOCK_BYTES);
    for (size_t i = block->run_blocks; i-- > 0;) {
        block[i].is_fresh = false;
        mark_free(heap, &block[i]);
    }
}

void crn_block_settle(struct crn_block *block) {
    block->young_begin = block->young_end = block->end;
    block->next = block->prev = NULL;
    set_state(block, CRN_BLOCK_FULL);
    CRN_ASSERT(block->promoted == 0);
    if (block->live == 0)
        crn_block_free(block);
    else if (block->slot_size)
        crn_block_has_room(block);
}

static bool is_unused(const struct crn_segment *segment) {
    return segment->free_count == CRN_SEGMENT_BLOCKS - CRN_FIRST_BLOCK;
}

enum { FREE_SEGMENTS_MIN = 4 };
void crn_heap_trim(struct crn_heap *heap, bool wants_all) {
    /* What is in use may be taken once more before the next trace, and pages that come back are
     * cleared: so many are kept. */
    size_t used = 0;
    for (struct crn_segment *segment = heap->segments; segment; segment = segment->next) {
        used += !is_unused(segment);
    }
    size_t keep = wants_all ? 0 : crn_max(used, FREE_SEGMENTS_MIN);
    for (struct crn_segment *segment = heap->segments, *next; segment; segment = next) {
        next = segment->next;
        if (!is_unused(segment)) continue;
        if (keep > 0) {
            keep--;
            continue;
        }
        for (size_t i = CRN_FIRST_BLOCK; i < CRN_SEGMENT_BLOCKS; i++) {
            mark_taken(heap, block_at(segment, i));
        }
        unlink_segment(&heap->segments, segment);
        crn_segments_release(&heap->region, (char *)segment, 1);
    }
}

void crn_segment_each_block(struct crn_segment *segment,
                            void (*visit)(struct crn_block *block, void *context), void *context) {
    for (size_t i = CRN_FIRST_BLOCK; i < CRN_SEGMENT_BLOCKS; i++) {
        struct crn_block *block = block_at(segment, i);
        /* With the lock alone a cursor's thread may be leaving the block: active or spent. */
        uint8_t state = __atomic_load_n(&block->state, __ATOMIC_RELAXED);
        if (state != CRN_BLOCK_FREE && state != CRN_BLOCK_BODY) visit(block, context);
    }
}

void crn_heap_each_block(struct crn_heap *heap,
                         void (*visit)(struct crn_block *block, void *context), void *context) {
    for (struct crn_segment *segment = heap->segments; segment; segment = segment->next) {
        crn_segment_each_block(segment, visit, context);
    }
    for (struct crn_segment *segment = heap->larges, *next; segment; segment = next) {
        next = segment->next;
        visit(&segment->large, context);
    }
}

/* ---- From an address to its object
 * ------------------------------------------------------------------------ */

struct crn_block *crn_block_of_interior(const void *address) {
    const char *a = address;
    enum crn_segment_kind kind = crn_segment_kind(a);
    if (kind == CRN_SEGMENT_NONE) return NULL;
    char *memory = crn_segment_of(a);
    if (kind == CRN_SEGMENT_BODY) {
        /* Walk back to the head: the region's table would need the heap, which the head knows. */
        do memory -= CRN_SEGMENT_BYTES;
        while (crn_segment_kind(memory) == CRN_SEGMENT_BODY);
        kind = CRN_SEGMENT_LARGE;
    }
    struct crn_segment *segment = (struct crn_segment *)(void *)memory;
    if (kind == CRN_SEGMENT_LARGE) return &segment->large;
    size_t index = (size_t)(a - memory) >> CRN_BLOCK_SHIFT;
    if (index < CRN_FIRST_BLOCK) return NULL;
    struct crn_block *block = block_at(segment, index);
    /* Another thread may be leaving the block: active and spent are as good. */
    if (__atomic_load_n(&block->state, __ATOMIC_RELAXED) == CRN_BLOCK_BODY) block -= block->body_of;
    return __atomic_load_n(&block->state, __ATOMIC_RELAXED) == CRN_BLOCK_FREE ? NULL : block;
}

/* While other threads run, the block's cursor may be about to leave it: then young_end, which was
 * stored before, says the same. A cursor that has left belongs to another block. */
static CRN_NO_SANITIZE bool is_young_now(const struct crn_block *block, const char *slot) {
    const volatile struct crn_block *now = block;
    for (;;) {
        const volatile struct cairn_cursor *cursor = now->cursor;
        CRN_FENCE();
        const char *end = cursor ? cursor->next : now->young_end;
        CRN_FENCE();
        if (now->cursor == cursor) return slot >= now->young_begin && slot < end;
    }
}

char *crn_object_of(const void *address, struct crn_block **out) {
    char *a = (char *)(uintptr_t)address;
    if (!crn_space_holds(a)) return NULL;
    struct crn_block *block = crn_block_of_interior(a);
    if (!block || a < block->base || a >= block->end) return NULL;
    char *slot = block->base;
    if (block->slot_size) {
        uint64_t offset = (uint64_t)(a - block->base);
        slot += ((offset * block->reciprocal) >> 32) * block->slot_size;
    }
    /* Relaxed: a slice may lower it meanwhile, but not to zero for what the program reaches. */
    uint8_t count = __atomic_load_n(crn_count_of(slot), __ATOMIC_RELAXED);
    if (count == 0 && !is_young_now(block, slot)) return NULL;
    *out = block;
    return slot;
}

/* A run's and a large object's memory is forbidden when its blocks or segments are freed. */
void crn_object_ended_slow(const struct crn_block *block, const char *object) {
    if (crn_object_has_verdicts(object)) crn_verdicts_forget(object, crn_object_bytes(block));
    if (block->slot_size) crn_checker_forbid(object, block->slot_size);
}

/* ---- A heap
 * -----------------------------------------------------------------------------------------------
 */

bool crn_heap_init(struct crn_heap *heap, size_t region_bytes) {
    return crn_region_init(&heap->region, region_bytes);
}

void crn_heap_deinit(struct crn_heap *heap) {
    crn_region_deinit(&heap->region, heap->name);
    crn_meta_free(heap->rooms, heap->rooms_capacity * sizeof(*heap->rooms));
}

/* ---- For debuggers ---- */

CRN_DESCRIBED_AS(described) = {
    CRN_MEMBER(crn_heap, region),
    CRN_MEMBER(crn_heap, name),
    CRN_MEMBER(crn_heap, segments),
    CRN_MEMBER(crn_heap, larges),
    CRN_MEMBER(crn_segment, next),
    CRN_MEMBER(crn_segment, segment_count),
    CRN_MEMBER(crn_segment, large),
    CRN_SIZE(crn_block),
    CRN_MEMBER(crn_block, type),
    CRN_MEMBER(crn_block, base),
    CRN_MEMBER(crn_block, young_begin),
    CRN_MEMBER(crn_block, young_end),
    CRN_MEMBER(crn_block, cursor),
    CRN_MEMBER(crn_block, slot_size),
    CRN_MEMBER(crn_block, state),
    CRN_MEMBER(crn_block, content),
    CRN_MEMBER(crn_block, is_sized),
    CRN_MEMBER(crn_block, end),
    CRN_MEMBER(crn_block, used_bytes),
    CRN_MEMBER(crn_block, body_of),
    CRN_MEMBER(crn_block, has_extras),
    CRN_MEMBER(crn_block, is_guarded),
    CRN_MEMBER(crn_block, sealed),
    CRN_MEMBER(crn_type, name),
    CRN_MEMBER(crn_type, size),
    CRN_MEMBER(crn_type, content),
    CRN_MEMBER(crn_type, has_flex),
    CRN_MEMBER(crn_type, is_flex_data),
    CRN_MEMBER(crn_type, flex_offset),
    CRN_MEMBER(crn_type, refs),
    CRN_MEMBER(crn_type, ref_count),
    CRN_MEMBER(crn_type, words),
    CRN_MEMBER(crn_type, tagged_count),
    CRN_MEMBER(crn_type, word_mask),
    CRN_MEMBER(crn_type, word_tag),
    CRN_MEMBER(cairn_cursor, next),
    CRN_NUMBER(CRN_SEGMENT_SHIFT),
    CRN_NUMBER(CRN_BLOCK_SHIFT),
    CRN_NUMBER(CRN_GRANULE_SHIFT),
    CRN_NUMBER(CRN_BLOCK_FREE),
    CRN_NUMBER(CRN_BLOCK_BODY),
    CRN_NUMBER(CRN_LEAF),
    CRN_NUMBER(CRN_EXACT),
    CRN_NUMBER(CRN_UNTYPED),
};
