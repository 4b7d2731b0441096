# SPDX-License-Identifier: MIT
"""Heaps, their segments, blocks and slots: what lives, and what it refers to."""

import itertools
import re

import gdb

from .memory import Unreadable, WORD, read, words_between, words_of
from .types import path_in


class Type:
    """What the collector knows of a type, and what debug information of the program adds."""

    def __init__(self, library, record):
        self.name = library.text(record.name) or "?"
        self.size = record.size
        self.content = record.content
        self.has_flex = bool(record.has_flex)
        self.is_flex_data = bool(record.is_flex_data)
        self.flex_offset = record.flex_offset
        self.refs = library.numbers_at(record.refs, record.ref_count)
        self.tagged = library.numbers_at(record.words, record.tagged_count)
        self.mask, self.tag = record.word_mask, record.word_tag
        self._debug = False

    @property
    def debug(self):
        """gdb's type of that name and size, or None."""
        if self._debug is False:
            self._debug = None
            for name in (self.name, "struct " + self.name):
                try:
                    found = gdb.lookup_type(name)
                except gdb.error:
                    continue
                if found.sizeof == self.size:
                    self._debug = found
                    break
        return self._debug

    def field_name(self, offset, is_sized):
        """What the program calls the word at an offset into an object."""
        prefix = ""
        within = offset
        if is_sized and not self.has_flex and self.size:
            prefix = "[%d]" % (offset // self.size)
            within = offset % self.size
        if self.name == "reference" and self.size == WORD:
            return prefix
        if self.has_flex and offset >= self.flex_offset:
            name = path_in(self.debug, self.flex_offset) if self.debug else None
            name = re.sub(r"\[0\]$", "", name or "the flexible part")
            return "%s[%d]" % (name, (offset - self.flex_offset) // WORD)
        name = path_in(self.debug, within) if self.debug else None
        if name is None:
            name = "at offset %d" % within
        return prefix + "." + name if prefix else name


class Block:
    """Slots of one type, or one object (`slot_size` is 0)."""

    def __init__(self, library, segment, record, heap):
        self.library, self.segment, self.heap = library, segment, heap
        self.base, self.end = record.base, record.end
        self.slot_size = record.slot_size
        self.step = self.slot_size or self.end - self.base
        self.is_sized = bool(record.is_sized)
        self.used_bytes = record.used_bytes
        self.content = record.content
        self.has_extras = bool(record.has_extras)
        self.is_sealed = bool(record.is_guarded and record.sealed)
        limit = segment.address + segment.bytes
        is_sound = segment.address < self.base < self.end <= limit and self.step > 0 and self.step % 16 == 0
        if not is_sound or (self.slot_size and self.end - self.base > 1 << library.block_shift):
            raise Unreadable("a block amid a change")
        self.type = library.type_at(record.type)
        self.is_array = self.is_sized and self.type.size > 1 and not self.type.has_flex
        self.slot_count = (self.end - self.base) // self.step
        young_end = record.young_end
        if record.cursor:
            young_end = library.word("cairn_cursor.next", record.cursor)
        # Slot numbers of the young interval, cut to the block.
        self.young_low = min(max(record.young_begin - self.base, 0) // self.step, self.slot_count)
        self.young_high = min(max(young_end - self.base, 0) // self.step, self.slot_count)
        self.is_plain = (
            self.content == library.EXACT
            and not (self.is_sized or self.type.tagged or self.type.has_flex)
            and self.slot_size > 0
        )
        self._words = None

    def counts(self):
        """The count byte of each slot."""
        table = self.segment.counts()
        first = (self.base - self.segment.address) >> self.library.granule_shift
        stride = self.step >> self.library.granule_shift
        return table[first : first + self.slot_count * stride : stride]

    def live(self):
        """A byte per slot, 1 where an object lives: counted, or young."""
        marks = self.counts().translate(IS_COUNTED)
        low, high = self.young_low, self.young_high
        return marks[:low] + b"\1" * (high - low) + marks[high:] if low < high else marks

    def deleted(self):
        """Slot numbers of deleted objects that wait."""
        if not self.has_extras:
            return []
        bits = self.library.deleted_bits(self.base, self.end)
        if not bits:
            return []
        stride = self.step >> self.library.granule_shift
        return [slot for slot in range(self.slot_count) if bits >> (slot * stride) & 1]

    def slot_of(self, address):
        return (address - self.base) // self.step

    def start(self, slot):
        return self.base + slot * self.step

    def is_young(self, slot):
        return self.counts()[slot] == 0 and self.young_low <= slot < self.young_high

    def data(self):
        return read(self.base, self.end - self.base)

    def words(self):
        """The memory of a block of slots, kept."""
        if self._words is None:
            try:
                self._words = words_of(self.data())
            except Unreadable:
                self._words = words_of(bytes(self.end - self.base))
        return self._words

    def used(self, slot):
        if not self.slot_size or not self.is_sized:
            return self.used_bytes
        try:
            unused = int.from_bytes(self.library.pages.read(self.start(slot) + self.step - 2, 2), "little")
        except Unreadable:
            unused = 0
        return max(self.slot_size - unused, 0)

    def used_in_all(self, marks):
        """Bytes in use of the slots that are marked."""
        if not self.slot_size or not self.is_sized:
            return self.used_bytes * marks.count(1)
        try:
            data = self.data()
        except Unreadable:
            return self.slot_size * marks.count(1)
        low = sum(itertools.compress(data[self.step - 2 :: self.step], marks))
        high = sum(itertools.compress(data[self.step - 1 :: self.step], marks))
        return self.slot_size * marks.count(1) - low - 256 * high

    def fields(self, slot):
        """(offset, value) of what an object refers to: exactly, or each word of untyped memory."""
        if self.content == self.library.LEAF or self.is_sealed:
            return
        start, used, kind = self.start(slot), self.used(slot), self.type
        end = start + min(used, self.step)
        if self.content == self.library.UNTYPED:
            for at, words in words_between(start, end):
                for i, value in enumerate(words):
                    if self.library.low <= value < self.library.high:
                        yield at + i * WORD - start, value
            return
        element = kind.flex_offset if kind.has_flex else kind.size
        count = 1 if kind.has_flex or not self.is_sized or not element else used // element
        if kind.refs == [0] and element == WORD:
            yield from self.row(start, end)
            return
        for i in range(count):
            try:
                words = words_of(self.library.pages.read(start + i * element, (element + 7) & -WORD))
            except Unreadable:
                continue
            for index in kind.refs:
                yield i * element + index * WORD, words[index]
            for index in kind.tagged:
                yield i * element + index * WORD, self.untagged(words[index])
        if kind.has_flex and not kind.is_flex_data:
            for offset, value in self.row(start + kind.flex_offset, end):
                yield kind.flex_offset + offset, value

    def row(self, low, high):
        for at, words in words_between(low, high):
            for i, value in enumerate(words):
                yield at + i * WORD - low, value

    def untagged(self, word):
        return word - self.type.tag if word & self.type.mask == self.type.tag else 0

    def is_field(self, slot, offset):
        """Whether a word at an offset is one that the object refers with; `value` as fields() has it."""
        kind = self.type
        if self.content == self.library.UNTYPED:
            return offset + WORD <= self.used(slot)
        if self.content != self.library.EXACT or offset + WORD > self.used(slot):
            return False
        if kind.has_flex and offset >= kind.flex_offset:
            return not kind.is_flex_data
        return self.word_index(offset) in kind.refs or self.is_tagged(offset)

    def is_tagged(self, offset):
        return self.content == self.library.EXACT and self.word_index(offset) in self.type.tagged

    def word_index(self, offset):
        """Of a word of an object in its element."""
        return (offset % self.type.size if self.is_array else offset) // WORD


IS_COUNTED = bytes([0] + [1] * 255)


class Segment:
    """Four megabytes with their tables; of a large object the first, `bytes` long in all."""

    def __init__(self, library, heap, address):
        self.library, self.heap, self.address = library, heap, address
        table = read(address, library.descriptors_end)
        self.table = table
        header = library.record_in("crn_segment", table, address)
        self.segment_count = header.segment_count
        self.is_large = self.segment_count > 0
        self.bytes = max(self.segment_count, 1) << library.segment_shift
        self.next = header.next
        self._counts = None
        self._blocks = {}

    def counts(self):
        if self._counts is None:
            size = 1 << (self.library.segment_shift - self.library.granule_shift)
            self._counts = read(self.address, size)
        return self._counts

    def block(self, index):
        """The block that a block's number belongs to, or None."""
        if index not in self._blocks:
            self._blocks[index] = self.make_block(index)
        return self._blocks[index]

    def make_block(self, index):
        library = self.library
        size = library.numbers["crn_block"]
        if self.is_large:
            offset = library.members["crn_segment"]["large"][0]
        elif index * size < library.first_descriptor:
            return None
        else:
            offset = index * size
        record = library.record_in("crn_block", self.table, self.address, offset)
        if not self.is_large and record.state == library.numbers["CRN_BLOCK_BODY"]:
            head = index - record.body_of
            return self.block(head) if 0 <= head < index else None
        if record.state == library.numbers["CRN_BLOCK_FREE"] or not record.type:
            return None
        try:
            return Block(library, self, record, self.heap)
        except Unreadable:
            library.skipped += 1
            return None

    def blocks(self):
        if self.is_large:
            found = [self.block(0)]
        else:
            count = 1 << (self.library.segment_shift - self.library.block_shift)
            found = [self.block(index) for index in range(count)]
        previous = None
        for block in found:
            if block and block is not previous:
                yield block
            previous = block or previous


class Heap:
    def __init__(self, library, address):
        self.library, self.address = library, address
        core = library.record("crn_heap", address)
        outer = library.record("cairn_heap", address)
        region = library.record("crn_region", core.at("region"))
        self.core, self.region = core, region
        self.name = core.name.split(b"\0")[0].decode("utf-8", "replace")
        self.base, self.end = region.base, region.end
        self.next, self.waiting = outer.next, outer.waiting_objects
        self._taken = None

    def holds(self, address):
        return self.base <= address < self.end

    def segment_at(self, address):
        """The segment that an address lies in, the first one of a large object; None if none is in use."""
        shift = self.library.segment_shift
        index = (address - self.base) >> shift
        if self._taken is None:
            count = (self.end - self.base) >> shift
            self._taken = read(self.region.is_taken, count)
            self._heads = memoryview(read(self.region.head_of, 4 * count)).cast("I")
        if not self._taken[index]:
            return None
        return self.library.segment(self, self.base + (self._heads[index] << shift))

    def segments(self):
        for first in (self.core.segments, self.core.larges):
            address, seen = first, set()
            while address and address not in seen and self.holds(address):
                seen.add(address)
                try:
                    segment = self.library.segment(self, address)
                except Unreadable:
                    self.library.skipped += 1
                    break
                yield segment
                address = segment.next

    def blocks(self):
        for segment in self.segments():
            yield from segment.blocks()
