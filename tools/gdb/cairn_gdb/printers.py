# SPDX-License-Identifier: MIT
"""How references, weak references, tagged words and tombstones are printed."""

import gdb
import gdb.printing

from .described import described, has_process, weak_target
from .library import Library
from .memory import Trouble, Unreadable, WORD, read
from .types import is_reference


def library_or_none():
    try:
        return Library()
    except Exception:
        return None


def graveyard():
    """(low, high) of the addresses of tombstones; (0, 0) where there are none."""
    known = described()
    address = known.tables["crn_space"]
    members = known.members["crn_space"]
    low, size = (
        int.from_bytes(read(address + members[name][0], WORD), "little") for name in ("graveyard", "grave_bytes")
    )
    return low, low + 2 * size


class PrintPointer:
    """A pointer of the program's that may be a tombstone, or a reference."""

    def __init__(self, value, with_type):
        self.value, self.with_type = value, with_type

    def to_string(self):
        address = int(self.value)
        try:
            low, high = graveyard()
            if low <= address < high:
                return Library().describe_tombstone(address)
        except Exception:
            pass  # no library, or not one to read: a pointer like any other
        text = self.value.format_string(raw=True)
        return "(%s) %s" % (self.value.type.unqualified(), text) if self.with_type else text


class PrintWord:
    def __init__(self, value):
        self.word = int(value["w"])

    def to_string(self):
        library = library_or_none()
        # Which bits are the tag is known to the type that the word is a member of, not here.
        found = library.object(self.word & ~7) if library else None
        if found and found.start == self.word & ~7:
            tag = self.word & 7
            return "(%s *) 0x%x%s" % (found.block.type.name, found.start, " | %d" % tag if tag else "")
        return "0x%x" % self.word


class PrintWeak:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        try:
            target = weak_target(self.value)
        except Exception:
            return "(weak) cell 0x%x" % int(self.value["cell"])
        if not target:
            return "(weak) NULL"
        library = library_or_none()
        found = library.object(target) if library else None
        name = found.block.type.name if found else "void"
        return "(weak %s *) 0x%x" % (name, target)


class Printers(gdb.printing.PrettyPrinter):
    def __call__(self, value):
        try:
            return self.choose(value)
        except (gdb.error, Trouble, Unreadable):
            return None

    @staticmethod
    def choose(value):
        kind = value.type.strip_typedefs()
        if kind.code == gdb.TYPE_CODE_STRUCT:
            if kind.tag == "cairn_word":
                return PrintWord(value)
            if kind.tag == "cairn_weak":
                return PrintWeak(value)
            return PrintPointer(value["p"], True) if is_reference(kind) else None
        if kind.code == gdb.TYPE_CODE_PTR and has_process():
            low, high = graveyard()
            return PrintPointer(value, False) if low <= int(value) < high else None
        return None
