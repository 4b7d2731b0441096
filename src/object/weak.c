/* SPDX-License-Identifier: MIT
 *
 * Weak references and pins.
 *
 * A weak reference refers to its target's cell, a small leaf of the default heap; the cell names
 * the target, is not scanned, and is cleared in the very stop in which the target is found dead.
 * Weak fields hold ordinary counts on the cell; the target's extra holds one more, from the first
 * epoch after the cell was made until the target dies. So a cell outlives its target as long as
 * weak fields need it, and no epoch looks at the cells of living targets. A cell is always first
 * counted by its extra, never through a field: a weak reference may name an object of another heap.
 *
 * Why cairn_weak_get never resurrects. It loads the cell, then the target, and from then on the
 * target is in a register or on the stack. A stop may fall
 *  - before the second load: the cell is a root, and the load sees the cell as the stop left it;
 *  - after it: the target is a root of that stop, whatever its count was. If it was young it is
 *    counted; if it was mature its count is not zero, because a count that reaches zero and the
 *    clearing of the cell are in one stop, and a queued decrement is applied after the increments
 *    of the same epoch.
 * So no stop ends with a cell that names an object whose slot may be handed out again, and none
 * frees a target that somebody has loaded. A target whose finalizer is due counts as dead: its cell
 * is cleared before the finalizer runs, and a weak reference set to it later gets a cell of its
 * own.
 */
#include "object/object.h"

static cairn_type cell_type[1] = {
    {.size = sizeof(struct cairn_weak_cell), .align = 8, .name = "weak cell"}};

bool crn_is_cell_type(const struct crn_type *type) {
    return type == __atomic_load_n(&cell_type->known, __ATOMIC_ACQUIRE);
}

/* The target's cell, or NULL if it has none or was deleted. */
static struct cairn_weak_cell *find_cell(void *object, bool *is_deleted) {
    struct crn_shard *shard;
    struct crn_extra *extra = crn_extra_enter(object, &shard, "cairn_weak_set");
    *is_deleted = extra && crn_bit_get(crn_deleted_bit(object));
    struct cairn_weak_cell *cell = extra ? extra->cell : NULL;
    crn_extra_leave(shard);
    return cell;
}

/* Another thread may have been faster: then its cell is the target's. */
static struct cairn_weak_cell *give_cell(void *object, struct cairn_weak_cell *fresh) {
    struct crn_shard *shard;
    struct crn_extra *extra = crn_extra_enter(object, &shard, "cairn_weak_set");
    struct cairn_weak_cell *cell = extra ? extra->cell : NULL;
    if (extra && !cell) {
        extra->cell = cell = fresh;
        void *target = crn_bit_get(crn_deleted_bit(object)) ? NULL : object;
        __atomic_store_n(&fresh->target, target, __ATOMIC_RELEASE);
        crn_extra_tell_locked(shard, extra);
    }
    crn_extra_leave(shard);
    return cell;
}

bool cairn_weak_set(cairn_weak *weak, void *object) {
    void **field = (void **)(uintptr_t)&weak->cell;
    if (crn_space_is_tombstone(object))
        object = NULL; /* deleted, as before the trace that found it */
    bool is_deleted = false;
    struct cairn_weak_cell *cell = object ? find_cell(object, &is_deleted) : NULL;
    if (object && !cell && !is_deleted) {
        cell = cairn_new_type(cell_type);
        if (cell) cell = give_cell(object, cell);
        if (!cell) return false;
    }
    cairn_store_(field, cell);
    return true;
}

void *cairn_weak_get(const cairn_weak *weak) {
    const struct cairn_weak_cell *cell =
        __atomic_load_n((struct cairn_weak_cell *const *)&weak->cell, __ATOMIC_ACQUIRE);
    return cell ? __atomic_load_n(&cell->target, __ATOMIC_ACQUIRE) : NULL;
}

/* ---- Pins ----
 * The first pin and the last unpin are news: the next epoch gives or takes one count. Until it has
 * given, the object is alive because the caller holds it. */

void *cairn_pin_(void *object) {
    if (!object || crn_space_is_tombstone(object)) return object; /* nothing to keep */
    struct crn_shard *shard;
    struct crn_extra *extra = crn_extra_enter(object, &shard, "cairn_pin");
    bool is_full = extra && extra->pin_count == UINT32_MAX;
    if (extra && !is_full && extra->pin_count++ == 0) crn_extra_tell_locked(shard, extra);
    crn_extra_leave(shard);
    CAIRN_REQUIRE(extra, "cairn_pin: out of memory");
    CAIRN_REQUIRE(!is_full, "cairn_pin: %p is pinned 4294967295 times", object);
    return object;
}

void cairn_unpin(const void *object) {
    if (!object || crn_space_is_tombstone(object)) return;
    crn_enter();
    struct crn_shard *shard = crn_extras_lock(object);
    struct crn_extra *extra = crn_extra_find_locked(shard, object);
    bool is_pinned = extra && extra->pin_count > 0;
    if (is_pinned && --extra->pin_count == 0) crn_extra_tell_locked(shard, extra);
    crn_extra_leave(shard);
    CAIRN_REQUIRE(is_pinned, "cairn_unpin: %p is not pinned", object);
}
