/* SPDX-License-Identifier: MIT
 *
 * Objects that die where the case says, and stale addresses of them. An object dies when nothing
 * that a scan finds names it, so what makes one is never inlined and hands out hidden copies only,
 * and what it left on the stack is overwritten before the collection.
 */
#ifndef CAIRN_CORPUS_DEAD_H
#define CAIRN_CORPUS_DEAD_H

#include "corpus.h"

#define APART __attribute__((noinline, unused)) static

/* Deeper than any frame that has held an address here. */
APART void clean_stack(void) {
    volatile char room[16384];
    for (size_t i = 0; i < sizeof(room); i++) room[i] = 0;
}

/* The second collection frees what the first one could not yet. */
APART void reclaim(void) {
    clean_stack();
    cairn_collect(CAIRN_TRACE);
    clean_stack();
    cairn_collect(CAIRN_TRACE);
}

APART uintptr_t hidden_node(void) {
    return HIDE(cairn_make(Node, .value = 1));
}

APART uintptr_t hidden_block(void) {
    return HIDE(cairn_make(Block, .values = {1, 2, 3, 4}));
}

#endif
