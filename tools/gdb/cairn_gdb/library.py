# SPDX-License-Identifier: MIT
"""The library as it stands at one moment: from an address to its object, and what is known of it."""

import bisect
import collections

from .described import Caches, Record, described
from .heap import Heap, Segment, Type
from .memory import PAGE, Pages, Trouble, Unreadable, WORD, read


Found = collections.namedtuple("Found", "block slot start is_alive")


class Library:
    """The library as it stands at one moment; made for each command."""

    def __init__(self):
        known = described()
        self.described, self.sections = known, known.sections
        self.members, self.numbers, self.tables = known.members, known.numbers, known.tables
        self.pages = Pages()
        self.skipped = 0
        try:
            self.begin()
        except KeyError as error:
            raise Trouble("the library's description does not have %s" % error)
        except Unreadable as error:
            raise Trouble("the library's tables cannot be read, at %s" % error)

    def begin(self):
        numbers = self.numbers
        self.segment_shift = numbers["CRN_SEGMENT_SHIFT"]
        self.block_shift = numbers["CRN_BLOCK_SHIFT"]
        self.granule_shift = numbers["CRN_GRANULE_SHIFT"]
        self.LEAF, self.EXACT, self.UNTYPED = (
            numbers["CRN_" + name] for name in ("LEAF", "EXACT", "UNTYPED")
        )
        size = numbers["crn_block"]
        blocks = 1 << (self.segment_shift - self.block_shift)
        self.descriptors_end = blocks * size
        # Blocks whose memory the counts take have no descriptor.
        self.first_descriptor = size * ((1 << (self.segment_shift - self.granule_shift)) >> self.block_shift)
        space = self.record("crn_space", self.tables["crn_space"])
        self.low, self.high, self.mask = space.low, space.high, space.mask
        self.graveyard, self.half = space.graveyard, space.grave_bytes
        self._deleted_bits = space.deleted_bits
        self._segments, self._types = {}, {}
        self._blocks_at = {}
        self.heaps = []
        address, seen = self.word_at(self.tables["crn_heaps"]), set()
        while address and address not in seen:
            seen.add(address)
            self.heaps.append(Heap(self, address))
            address = self.heaps[-1].next
        self.heaps.reverse()  # the default heap is the oldest
        if not self.heaps:
            raise Trouble("Cairn has not been called yet: there is no heap")

    # -- Reading

    def record(self, owner, address):
        return Record(self.members[owner], self.pages.read(address, self.described.spans[owner]), address)

    def record_in(self, owner, data, address, base=0):
        return Record(self.members[owner], data, address + base, base)

    def word_at(self, address, size=WORD):
        return int.from_bytes(self.pages.read(address, size), "little")

    def word(self, name, address):
        owner, member = name.split(".")
        offset, size = self.members[owner][member]
        return self.word_at(address + offset, size)

    def text(self, address, most=256):
        """A C string, or None."""
        data = b""
        while address and b"\0" not in data and len(data) < most:
            try:
                data += self.pages.read(address + len(data), 16 - (address + len(data)) % 16)
            except Unreadable:
                return None
        return data.split(b"\0")[0].decode("utf-8", "replace") if data else None

    def numbers_at(self, address, count):
        """uint32_t of the library's, as a list."""
        if not address or not 0 < count < 1 << 20:
            return []
        return memoryview(self.pages.read(address, 4 * count)).cast("I").tolist()

    def deleted_bits(self, low, high):
        """Of the granules of a range, as one number; 0 where they cannot be read."""
        at = (low & self.mask) >> self.granule_shift
        count = (high - low) >> self.granule_shift
        try:
            data = read(self._deleted_bits + (at >> 3), (count + 7 + (at & 7)) >> 3)
        except Unreadable:
            return 0
        return (int.from_bytes(data, "little") >> (at & 7)) & ((1 << count) - 1)

    def list_of(self, owner, first):
        """Records linked by `next`, as far as they can be read."""
        address, seen = first, set()
        while address and address not in seen:
            seen.add(address)
            try:
                record = self.record(owner, address)
            except Unreadable:
                self.skipped += 1
                return
            yield record
            address = record.next

    # -- From an address to its object

    def type_at(self, address):
        known = self._types.get(address)
        if known is None:
            known = self._types[address] = Type(self, self.record("crn_type", address))
        return known

    def segment(self, heap, address):
        known = self._segments.get(address)
        if known is None:
            known = self._segments[address] = Segment(self, heap, address)
        return known

    def heap_of(self, address):
        for heap in self.heaps:
            if heap.holds(address):
                return heap
        return None

    def block_of(self, address):
        """The block that an address lies in, or None."""
        key = address >> self.block_shift
        if key not in self._blocks_at:
            self._blocks_at[key] = self.find_block(address)
        return self._blocks_at[key]

    def find_block(self, address):
        heap = self.heap_of(address)
        try:
            segment = heap.segment_at(address) if heap else None
            if not segment:
                return None
            return segment.block(0 if segment.is_large else (address - segment.address) >> self.block_shift)
        except Unreadable:
            return None

    def find(self, address):
        """The slot that an address lies in, in use or not; None if there is none."""
        if not self.low <= address < self.high:
            return None
        block = self.block_of(address)
        if not block or not block.base <= address < block.end:
            return None
        slot = block.slot_of(address)
        if slot >= block.slot_count:
            return None
        try:
            is_alive = block.counts()[slot] != 0 or block.is_young(slot)
        except Unreadable:
            return None
        return Found(block, slot, block.start(slot), is_alive)

    def object(self, address):
        found = self.find(address)
        return found if found and found.is_alive else None

    def is_deleted(self, found):
        return bool(found.block.has_extras and self.deleted_bits(found.start, found.start + 16) & 1)

    def ended_heap(self, address):
        size = self.numbers["ended"]
        for i in range(self.numbers["ENDED_MAX"]):
            record = self.record("ended", self.tables["ended"] + i * size)
            if record.low and record.low <= address < record.high:
                return record.name.split(b"\0")[0].decode("utf-8", "replace")
        return None

    # -- Extras; the table is the one of src/object/extras.c

    def bucket_address(self, shard, index):
        first = self.numbers["FIRST_BUCKETS"]
        number = 0 if index < first else index.bit_length() - first.bit_length() + 1
        within = index if index < first else index - (1 << (index.bit_length() - 1))
        segment = int.from_bytes(shard.segments[number * WORD : number * WORD + WORD], "little")
        return segment + within * WORD if segment else 0

    def shard(self, index):
        return self.record("crn_shard", self.tables["shards"] + index * self.numbers["crn_shard"])

    def extra_of(self, start):
        page = ((start >> 12) * 0x9E3779B97F4A7C15) & (1 << 64) - 1
        shard = self.shard(page >> (64 - (self.numbers["SHARDS"].bit_length() - 1)))
        if not shard.bucket_count:
            return None
        mask = (2 << (shard.bucket_count.bit_length() - 1)) - 1
        index = ((page >> 16) + ((start & PAGE - 1) >> self.granule_shift)) & mask
        if index >= shard.bucket_count:
            index &= mask >> 1
        address = self.bucket_address(shard, index)
        first = self.word_at(address) if address else 0
        for extra in self.list_of("crn_extra", first):
            if extra.object == start:
                return extra
        return None

    def extras(self):
        for i in range(self.numbers["SHARDS"]):
            try:
                shard = self.shard(i)
                buckets = [self.bucket_address(shard, k) for k in range(shard.bucket_count)]
                firsts = [self.word_at(address) for address in buckets if address]
            except Unreadable:
                self.skipped += 1
                continue
            for first in firsts:
                for extra in self.list_of("crn_extra", first):
                    if extra.object:
                        yield extra

    # -- Where it was allocated and deleted

    def place(self, record):
        file = self.text(record.file)
        if not file:
            return None
        thread = getattr(record, "thread_id", 0) if "thread_id" in record._members else 0
        text = "%s:%d in %s" % (file, record.line, self.text(record.function) or "?")
        return text + (", by thread %d" % thread if thread else "")

    def site_of(self, found):
        """Where the object was allocated, if that was noted."""
        heap = found.block.heap
        try:
            sites = self.word_at(self.tables["sites"])
            if not heap.region.sites or not sites:
                return None
            index = (found.start - heap.base) >> self.granule_shift
            note = self.word_at(heap.region.sites + index * 4, 4)
            bits = self.numbers["SITE_BITS"]
            number, thread = note & (1 << bits) - 1, note >> bits
            if not number:
                return None
            site = self.record("cairn_site", self.word_at(sites + number * WORD))
            text = self.place(site)
            thread_id = self.word_at(self.tables["thread_ids"] + thread * 4, 4) if thread else 0
            return text + (", by thread %d" % thread_id if text and thread_id else "")
        except (Unreadable, KeyError):
            return None

    def chunks_of_graves(self):
        """Those in use: the ring's, and what came besides."""
        ring = int.from_bytes(read(self.tables["chunks"], WORD), "little")
        size, count = self.numbers["crn_graves"], self.numbers["CHUNKS"]
        last = int.from_bytes(read(self.tables["last_number"], WORD), "little")
        if ring and last:
            data = read(ring, size * min(count, last + 1))
            for at in range(0, len(data), size):
                yield self.record_in("crn_graves", data, ring, at), data, ring, at
        at = int.from_bytes(read(self.tables["more"], WORD), "little")
        while at:
            data = read(at, size)
            chunk = self.record_in("crn_graves", data, at, 0)
            yield chunk, data, at, 0
            at = chunk.next_more

    def graves(self):
        """(positions, records), ascending; those that are still on record."""
        if Caches.graves:
            return Caches.graves
        found = []
        try:
            size, first = self.numbers["crn_grave"], self.members["crn_graves"]["graves"][0]
            for chunk, data, base, at in self.chunks_of_graves():
                for i in range(chunk.used if chunk.number else 0):
                    grave = self.record_in("crn_grave", data, base, at + first + i * size)
                    found.append((grave.position, i >= chunk.settled, grave))
        except (Unreadable, KeyError):
            pass
        found.sort(key=lambda entry: entry[0])
        Caches.graves = [entry[0] for entry in found], [entry[2] for entry in found]
        Caches.unsettled = {entry[2].object: entry[2] for entry in found if entry[1]}
        return Caches.graves

    def is_tombstone(self, address):
        return self.graveyard != 0 and self.graveyard <= address < self.graveyard + 2 * self.half

    def grave_at(self, address):
        """(grave, offset into the object) of a tombstone; None if it is too old."""
        positions, records = self.graves()
        if not positions:
            return None
        within = (address - self.graveyard) % self.half
        position = positions[-1] - positions[-1] % self.half + within
        if position > positions[-1] + records[-1].bytes:
            position -= self.half
        index = bisect.bisect_right(positions, position) - 1
        if index < 0 or position - positions[index] > records[index].bytes:
            return None
        return records[index], position - positions[index]

    def grave_of(self, start):
        """The grave of a deleted object whose slot waits: of several that were there the last."""
        graves = [g for g in self.graves()[1] if g.object == start]
        return Caches.unsettled.get(start) or max(graves, key=lambda g: g.deleted_ns, default=None)

    def tombstones(self, grave):
        low = self.graveyard + grave.position % self.half
        return [low, low + self.half]

    def describe_tombstone(self, address):
        """As printers show it."""
        found = self.grave_at(address)
        if not found:
            return "<deleted object, tombstone 0x%x>" % address
        grave, offset = found
        where = self.text(grave.file)
        at = "0x%x" % grave.object + ("+%d" % offset if offset else "")
        by = ", by %s:%d" % (where, grave.line) if where else ""
        return "<deleted %s at %s%s>" % (self.text(grave.type) or "object", at, by)

    # -- Threads

    def threads(self):
        gone = self.numbers["CRN_THREAD_GONE"]
        first = self.word_at(self.tables["crn_threads"])
        return [t for t in self.list_of("crn_thread", first) if t.state != gone]

    def collecting(self):
        """The thread that collects at this moment, or None."""
        for thread in self.threads():
            if thread.holds_world:
                return thread
        return None
