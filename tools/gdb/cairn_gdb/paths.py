# SPDX-License-Identifier: MIT
"""Who refers to an object, and the shortest way to it from a root."""

import collections

from .memory import WORD, words_between


def holders_in_heaps(library, start, end, values):
    """(block, slot, offset) of the fields whose value is one of `values`, the words of untyped memory
    that are, or that point into the object."""
    patterns = [value.to_bytes(WORD, "little") for value in values]
    for heap in library.heaps:
        for block in heap.blocks():
            if block.content == library.LEAF or block.is_sealed:
                continue
            live = block.live()
            for offset in offsets_in(library, block, start, end, values, patterns):
                slot, within = divmod(offset, block.step)
                if live[slot] and block.is_field(slot, within):
                    yield block, slot, within


def offsets_in(library, block, start, end, values, patterns):
    """Offsets into a block of words that may refer to the object."""
    is_exact = block.content == library.EXACT and not block.type.tagged
    for at, words in words_between(block.base, block.end):
        if not is_exact:
            tag = block.type.tag if block.type.tagged else 0
            for i, word in enumerate(words):
                is_inner = not block.type.tagged and start <= word < end
                if is_inner or word in values or word - tag in values:
                    yield at - block.base + i * WORD
            continue
        data = words.tobytes()
        for pattern in patterns:
            offset = data.find(pattern)
            while offset >= 0:
                if offset % WORD == 0:
                    yield at - block.base + offset
                offset = data.find(pattern, offset + 1)


def shortest_path(library, roots, target):
    """The objects from one that a root holds to the target; None if there is no way."""
    parents, queue = {}, collections.deque()
    for root in roots:
        if root.target not in parents:
            parents[root.target] = None
            queue.append(root.target)
    shift, known, leaf = library.block_shift, library._blocks_at, library.LEAF
    while queue and target not in parents:
        start = queue.popleft()
        key = start >> shift
        block = known[key] if key in known else library.block_of(start)
        if block is None or block.content == leaf:
            continue
        if block.is_plain:
            words, index = block.words(), (start - block.base) >> 3
            for ref in block.type.refs:
                value = words[index + ref]
                if value and value not in parents:
                    parents[value] = start
                    queue.append(value)
            continue
        is_untyped = block.content == library.UNTYPED
        for _, value in block.fields(block.slot_of(start)):
            if is_untyped:
                found = library.object(value)
                value = found.start if found else 0
            if value and value not in parents:
                parents[value] = start
                queue.append(value)
    if target not in parents:
        return None
    path = [target]
    while parents[path[-1]] is not None:
        path.append(parents[path[-1]])
    path.reverse()
    return path


def step_name(library, holder, target):
    """By what an object refers to another."""
    found = library.find(holder)
    block = found.block
    if block.content == library.UNTYPED:
        for offset, value in block.fields(found.slot):
            other = library.object(value)
            if other and other.start == target:
                return "at offset %d" % offset
        return "?"
    for offset, value in block.fields(found.slot):
        if value == target:
            return block.type.field_name(offset, block.is_sized)
    return "?"
