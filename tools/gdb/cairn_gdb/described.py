# SPDX-License-Identifier: MIT
"""What the library says of its own structures (src/base/described.h).

The description has a version: another one than DESCRIBED_VERSION is refused.
"""

import collections
import re
import struct

import gdb

from .memory import Trouble, Unreadable, WORD, read

DESCRIBED_VERSION = 1
ROW_BYTES = 48
NAME_BYTES = 40


def sections():
    """(low, high, name, flags, file) of all that is loaded."""
    try:
        text = gdb.execute("maintenance info sections -all-objects", to_string=True)
    except gdb.error:
        text = gdb.execute("maintenance info sections ALLOBJ", to_string=True)
    found, file = [], None
    for line in text.splitlines():
        heading = re.match(r"(\w+) file: [`'](.*)'", line)
        if heading:
            file = None if heading.group(1) == "Core" else heading.group(2)
            continue
        row = re.match(r"\s*\[\d+\]\s+(0x\w+)->(0x\w+) at 0x\w+: (\S+) (.*)", line)
        if row and file is not None:
            low, high = int(row.group(1), 16), int(row.group(2), 16)
            found.append((low, high, row.group(3), row.group(4).split(), file))
    return found


def rows_of(low, high):
    """Name and last eight bytes of each row; zeros between the rows of two files are passed over."""
    data, at = read(low, high - low), 0
    while at + ROW_BYTES <= len(data):
        if data[at] == 0:
            at += 16
            continue
        name = data[at : at + NAME_BYTES].split(b"\0")[0].decode("ascii", "replace")
        yield name, data[at + NAME_BYTES : at + ROW_BYTES]
        at += ROW_BYTES


class Described:
    """Offsets, constants and tables of one copy of the library."""

    def __init__(self, layout, tables, everything):
        self.sections = everything
        self.members = collections.defaultdict(dict)
        self.numbers = {}
        for name, value in rows_of(*layout):
            offset, size = struct.unpack("<II", value)
            if size == 0:
                self.numbers[name] = offset
            else:
                owner, member = name.split(".", 1)
                self.members[owner][member] = (offset, size)
        version = self.numbers.get("CRN_DESCRIBED_VERSION")
        if version != DESCRIBED_VERSION:
            raise Trouble(
                "this script reads version %d of the library's description of itself, and this "
                "library has version %s: use the script that came with it" % (DESCRIBED_VERSION, version)
            )
        self.tables = {name: struct.unpack("<Q", value)[0] for name, value in rows_of(*tables)}
        self.spans = {
            owner: max(offset + size for offset, size in members.values())
            for owner, members in self.members.items()
        }


class Caches:
    described = None  # of the program as it is loaded now
    graves = unsettled = None  # while nothing runs

    @classmethod
    def forget(cls, *unused):
        cls.described = cls.graves = None


for event in ("new_objfile", "clear_objfiles", "free_objfile", "exited", "executable_changed"):
    if hasattr(gdb.events, event):
        getattr(gdb.events, event).connect(Caches.forget)


def forget_graves(*unused):
    Caches.graves = None


if hasattr(gdb.events, "cont"):
    gdb.events.cont.connect(forget_graves)


def has_process():
    inferior = gdb.selected_inferior()
    return inferior.is_valid() and len(inferior.threads()) > 0


def described():
    if not has_process():
        raise Trouble("no program runs, and there is no core file")
    key = (gdb.selected_inferior().num, gdb.current_progspace().filename)
    if Caches.described and Caches.described[0] == key:
        return Caches.described[1]
    everything = sections()
    found = None
    for low, high, name, _, file in everything:
        if name != "cairn_layout" or file.endswith(".debug"):
            continue
        tables = [s[:2] for s in everything if s[2] == "cairn_tables" and s[4] == file]
        if tables:
            try:
                found = Described((low, high), tables[0], everything)
                break
            except Unreadable:
                continue
    if not found:
        raise Trouble("no libcairn in this program, or one of before it described itself to gdb")
    Caches.described = (key, found)
    return found


class Record:
    """A structure of the library's, read at once; members are numbers, or bytes if they are longer."""

    def __init__(self, members, data, address, base=0):
        self.__dict__.update(_members=members, _data=data, _base=base, address=address)

    def __getattr__(self, name):
        try:
            offset, size = self._members[name]
        except KeyError:
            raise Trouble("the library's description does not have " + name)
        value = self._data[self._base + offset : self._base + offset + size]
        return value if size > WORD else int.from_bytes(value, "little")

    def at(self, name):
        """The address of a member."""
        return self.address + self._members[name][0]


def weak_target(value):
    """What a cairn_weak names: a number, 0 for NULL."""
    cell = int(value["cell"])
    if not cell:
        return 0
    known = described()
    return int.from_bytes(read(cell + known.members["cairn_weak_cell"]["target"][0], WORD), "little")
