# SPDX-License-Identifier: MIT
"""The commands `cairn heap`, `cairn object` and `cairn why`."""

import gdb

from .described import weak_target
from .heap import IS_COUNTED
from .library import Library
from .memory import Trouble, Unreadable
from .paths import holders_in_heaps, shortest_path, step_name
from .roots import Roots, Selection, describe_best, describe_root, symbol_at
from .text import amount, plural, say
from .types import is_reference

HOLDERS_SHOWN = 20
PATH_SHOWN = 40


def address_of(text):
    """An address from an expression: a number, a pointer, a reference, a weak one, or what has an address."""
    if not text.strip():
        raise Trouble("which address? say for example: cairn object n->next.p")
    value = gdb.parse_and_eval(text)
    kind = value.type.strip_typedefs()
    if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION, gdb.TYPE_CODE_ARRAY):
        if is_reference(kind):
            value = value["p"]
        elif kind.tag == "cairn_word":
            value = value["w"]
        elif kind.tag == "cairn_weak":
            value = weak_target(value)
        elif value.address is not None:
            value = value.address
        else:
            raise Trouble("%s is no address" % text)
    return int(value) & (1 << 64) - 1


def summary(library, found):
    """`Node of 32 bytes in heap default`"""
    block = found.block
    used = block.used(found.slot)
    if block.content == library.UNTYPED:
        what = "%s of untyped memory" % plural(used, "byte")
    elif block.is_sized and block.type.size <= 1:
        what = "%s without references" % plural(used, "byte")
    else:
        count = used // block.type.size if block.is_array else 0
        name = "array of %s" % plural(count, block.type.name) if block.is_array else block.type.name
        what = "%s of %s" % (name, plural(used, "byte"))
    return "%s in heap %s" % (what, block.heap.name)


def state_of(library, found):
    """`count 3, old`"""
    count = found.block.counts()[found.slot]
    age = "young" if found.block.is_young(found.slot) else "old"
    text = "count %s, %s" % ("255 or more" if count == 255 else count, age)
    return text + (", deleted" if library.is_deleted(found) else "")


def warn(library):
    collecting = library.collecting()
    if collecting:
        say("(thread %d is in the middle of a collection: not all of this need be so)" % collecting.thread_id)
    if library.skipped:
        say("(%d things could not be read, or were amid a change)" % library.skipped)


class Command(gdb.Command):
    """Errors are lines of text, whatever happens."""

    def __init__(self, name, completer=gdb.COMPLETE_EXPRESSION):
        super().__init__(name, gdb.COMMAND_DATA, completer)

    def invoke(self, text, from_tty):
        self.dont_repeat()
        try:
            self.run(text)
        except Trouble as trouble:
            raise gdb.GdbError("cairn: %s" % trouble)
        except Unreadable as where:
            raise gdb.GdbError("cairn: memory at %s cannot be read" % where)
        except gdb.error as error:
            raise gdb.GdbError("cairn: %s" % error)
        except (KeyboardInterrupt, gdb.GdbError):
            raise
        except Exception as error:  # amid a change anything may be found
            raise gdb.GdbError("cairn: what is there does not make sense (%s: %s)" % (type(error).__name__, error))


class CairnPrefix(gdb.Command):
    """Look into the heaps of a program that uses Cairn.
cairn heap [NAME]   what is in the heaps, by type
cairn object ADDR   what lives at an address
cairn why ADDR      what keeps it alive"""

    def __init__(self):
        super().__init__("cairn", gdb.COMMAND_DATA, prefix=True)


class CairnHeap(Command):
    """The heaps of the program: objects and bytes by type, largest first.
Usage: cairn heap [NAME]
Objects that are deleted and still wait for their last reference are not among the types."""

    def run(self, text):
        library = Library()
        wanted = text.strip()
        heaps = [heap for heap in library.heaps if not wanted or heap.name == wanted]
        if not heaps:
            names = ", ".join(heap.name for heap in library.heaps)
            raise Trouble("no heap has the name %s; there is %s" % (wanted, names))
        for heap in heaps:
            self.show(library, heap)
        gc = library.record("crn_gc", library.tables["crn_gc"])
        say("collections: %s epochs, %s traces" % (amount(gc.epoch), amount(gc.trace_number)))
        warn(library)

    def show(self, library, heap):
        types = {}
        deleted_count = 0
        for block in heap.blocks():
            try:
                marks, counts = block.live(), block.counts()
                deleted = block.deleted()
            except Unreadable:
                library.skipped += 1
                continue
            if deleted:
                changed = bytearray(marks)
                for slot in deleted:
                    deleted_count += changed[slot]
                    changed[slot] = 0
                marks = bytes(changed)
            row = types.setdefault(block.type.name, [0, 0, 0])
            row[0] += block.used_in_all(marks)
            row[1] += marks.count(1)
            low, high = block.young_low, block.young_high
            young = counts[low:high].translate(IS_COUNTED)
            row[2] += young.count(0) - sum(1 for slot in deleted if low <= slot < high and not counts[slot])
        types = {name: row for name, row in types.items() if row[1]}
        total = [sum(row[i] for row in types.values()) for i in range(3)]
        say("heap %s: %s of %s, %s; young: %s" % (
            heap.name, plural(total[1], "object"), plural(len(types), "type"), plural(total[0], "byte"),
            amount(total[2])))
        say("  segments of 4 MiB: %s; deleted objects that wait: %s" % (
            amount(heap.region.committed_count), amount(deleted_count)))
        if types:
            say("  %15s %13s %13s  %s" % ("bytes", "objects", "young", "type"))
        for name, row in sorted(types.items(), key=lambda item: (-item[1][0], item[0])):
            say("  %15s %13s %13s  %s" % (amount(row[0]), amount(row[1]), amount(row[2]), name))


class CairnObject(Command):
    """What lives at an address, which may lie in the middle of an object.
Usage: cairn object EXPRESSION
The expression gives a number, a pointer or a cairn_ref; a tombstone is told whose it is."""

    def run(self, text):
        address = address_of(text)
        library = Library()
        if library.is_tombstone(address):
            self.show_tombstone(library, address)
        else:
            found = library.find(address)
            if found and found.is_alive:
                self.show(library, found, address)
            else:
                self.show_nothing(library, found, address)
        warn(library)

    def show(self, library, found, address):
        if address != found.start:
            say("0x%x is at offset %d in" % (address, address - found.start))
            if address - found.start >= found.block.used(found.slot):
                say("(behind its end, in the rest of its slot)")
        say("0x%x: %s" % (found.start, summary(library, found)))
        say("  " + state_of(library, found))
        site = library.site_of(found)
        say("  allocated: " + (site or "not noted; compile with -DCAIRN_SITES"))
        self.show_extra(library, found)
        if library.is_deleted(found):
            self.show_grave(library, library.grave_of(found.start))
        self.show_fields(library, found)

    @staticmethod
    def show_extra(library, found):
        extra = library.extra_of(found.start) if found.block.has_extras else None
        if not extra:
            return
        numbers = library.numbers
        if extra.pin_count:
            say("  pinned " + plural(extra.pin_count, "time"))
        if extra.cell:
            say("  weak references: yes, by the cell at 0x%x" % extra.cell)
        if extra.last_cleanup:
            say("  cleanups: yes")
        for state in ("WANTED", "QUEUED", "RUNNING"):
            if extra.finalizer == numbers["CRN_FINALIZER_" + state]:
                say("  finalizer: " + {"WANTED": "when it dies", "QUEUED": "due", "RUNNING": "running"}[state])

    @staticmethod
    def show_grave(library, grave):
        if grave is None:
            say("  deleted: too long ago to be on record")
            return
        say("  deleted: " + (library.place(grave) or "at an unknown place"))

    @staticmethod
    def show_fields(library, found):
        block, shown = found.block, 0
        for offset, value in block.fields(found.slot):
            if shown == 0:
                say("  refers to:")
            shown += 1
            if shown > HOLDERS_SHOWN:
                say("    ... and more")
                break
            is_untyped = block.content == library.UNTYPED
            name = "at offset %d" % offset if is_untyped else block.type.field_name(offset, block.is_sized)
            text = describe_value(library, value)
            if not value and block.is_tagged(offset):
                text = "0x%x, no reference" % library.word_at(found.start + offset)
            say("    %s = %s" % (name, text))
        if block.is_sealed or block.is_sized and block.type.size <= 1:
            return
        if block.type.debug is not None and not library.is_deleted(found):
            try:
                value = gdb.Value(found.start).cast(block.type.debug.pointer()).dereference()
                say("  contents: " + value.format_string(max_elements=16, max_depth=3))
            except (gdb.error, TypeError):
                pass

    def show_tombstone(self, library, address):
        found = library.grave_at(address)
        if not found:
            say("0x%x is a tombstone of an object that was deleted too long ago to be on record" % address)
            return
        grave, offset = found
        more = "" if not offset else ", at offset %d" % offset
        kind = library.text(grave.type) or "object"
        say("0x%x is a tombstone: of the deleted %s at 0x%x%s" % (address, kind, grave.object, more))
        site = self.allocated(library, grave)
        say("  size: %s bytes" % amount(grave.bytes))
        say("  allocated: " + (site or "not noted; compile with -DCAIRN_SITES"))
        self.show_grave(library, grave)
        slot = library.object(grave.object)
        if slot and slot.start == grave.object and library.is_deleted(slot):
            count = slot.block.counts()[slot.slot]
            say("  its slot waits, with count %d: see cairn why 0x%x" % (count, grave.object))
        else:
            say("  its memory is free again, or another object's")

    @staticmethod
    def allocated(library, grave):
        return library.place(library.record_in("crn_place", grave._data, grave.address,
                                               grave._base + grave._members["allocated"][0]))

    @staticmethod
    def show_nothing(library, found, address):
        heap = library.heap_of(address)
        if found:
            say("0x%x is in a free slot of %s bytes for %s in heap %s: nothing lives there" % (
                address, amount(found.block.step), found.block.type.name, heap.name))
        elif heap:
            say("0x%x is in the region of heap %s, but in no object" % (address, heap.name))
        elif library.ended_heap(address) is not None:
            say("0x%x was in heap %s, which has ended" % (address, library.ended_heap(address)))
        else:
            symbol = symbol_at(address)
            say("0x%x is in no heap%s" % (address, ": it is " + symbol if symbol else ""))


def describe_value(library, value):
    if not value:
        return "NULL"
    if library.is_tombstone(value):
        return library.describe_tombstone(value)
    found = library.object(value)
    if not found:
        return "0x%x, in no heap" % value if not library.heap_of(value) else "0x%x, which is no object" % value
    inner = "" if found.start == value else " + %d" % (value - found.start)
    if found.block.type.name == "weak cell":
        return "weak reference to " + describe_value(library, library.word("cairn_weak_cell.target", value))
    deleted = ", deleted" if library.is_deleted(found) else ""
    return "0x%x %s%s%s" % (found.start, found.block.type.name, inner, deleted)


class CairnWhy(Command):
    """What keeps an object alive: fields, stacks, registers, data, pins; and the shortest way to it from a root.
Usage: cairn why EXPRESSION
Stacks, registers and data are looked through as the collector does it: each word that points into the
object counts. Weak references do not hold."""

    def run(self, text):
        address = address_of(text)
        library = Library()
        grave = None
        if library.is_tombstone(address):
            found = library.grave_at(address)
            if not found:
                raise Trouble("0x%x is a tombstone of an object that was deleted too long ago" % address)
            say("0x%x is a tombstone: %s" % (address, library.describe_tombstone(address)))
            grave, address = found[0], found[0].object
        found = library.object(address)
        if not found or (grave and not (found.start == address and library.is_deleted(found))):
            if grave:
                say("Its memory is free again: nothing that Cairn sees refers to it.")
            else:
                CairnObject.show_nothing(library, library.find(address), address)
            return
        say("0x%x: %s, %s" % (found.start, summary(library, found), state_of(library, found)))
        with Selection():
            self.explain(library, found)
        warn(library)

    def explain(self, library, found):
        start, end = found.start, found.start + found.block.step
        values = [start]
        grave = library.grave_of(start) if library.is_deleted(found) else None
        if grave:
            values += library.tombstones(grave)
        roots = list(Roots(library, values[1:]).each())
        lines = Lines("held by")
        for root in roots:
            if root.target == start:
                lines.add(lambda: describe_root(root))
        for root in roots:
            if root.target is None:
                lines.add(lambda: "(its tombstone) " + describe_root(root))
        roots = [root for root in roots if root.target is not None]
        for block, slot, offset in holders_in_heaps(library, start, end, values):
            lines.add(lambda: self.describe_field(library, block, slot, offset))
        lines.end("  by nothing: it is garbage, or waits for the next epoch")
        if grave:
            say("it is deleted: the next trace makes tombstones of the fields that refer to it")
        self.show_path(library, roots, start)

    @staticmethod
    def describe_field(library, block, slot, offset):
        start = block.start(slot)
        if block.content == library.UNTYPED:
            return "offset %d of the untyped memory at 0x%x" % (offset, start)
        name = block.type.field_name(offset, block.is_sized)
        kind = block.type.name
        if block.is_array:
            kind = "array of " + ("references" if kind == "reference" else kind)
        return "%s of the %s at 0x%x" % (name, kind, start)

    @staticmethod
    def show_path(library, roots, start):
        path = shortest_path(library, roots, start)
        if not path:
            say("no root leads to it: the next trace takes it")
            return
        say("shortest path from a root:")
        say("  " + describe_best([root for root in roots if root.target == path[0]]))
        for number, (at, following) in enumerate(zip(path, path[1:] + [None])):
            if PATH_SHOWN // 2 <= number < len(path) - PATH_SHOWN // 2:
                if number == PATH_SHOWN // 2:
                    say("   ... %s more ..." % amount(len(path) - PATH_SHOWN))
                continue
            name = library.find(at).block.type.name
            step = "" if following is None else ", " + step_name(library, at, following)
            say("   -> 0x%x %s%s" % (at, name, step))


class Lines:
    """The first of many lines; those that are not shown are not made."""

    def __init__(self, heading):
        self.heading, self.count = heading, 0

    def add(self, make):
        self.count += 1
        if self.count == 1:
            say(self.heading + ":")
        if self.count <= HOLDERS_SHOWN:
            say("  " + make())

    def end(self, otherwise):
        if self.count == 0:
            say(self.heading + ":")
            say(otherwise)
        if self.count > HOLDERS_SHOWN:
            say("  and %s more" % amount(self.count - HOLDERS_SHOWN))
