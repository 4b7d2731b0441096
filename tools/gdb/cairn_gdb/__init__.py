# SPDX-License-Identifier: MIT
"""Cairn in gdb: `cairn heap`, `cairn object`, `cairn why`, and printers for references.

Works on a process and on a core file, calls nothing in the program and changes nothing, so it may
be used wherever a program stands, also in the middle of a collection. What does not make sense
there is left out and counted.

Where things are. The library describes its own structures (src/base/described.h) in two sections
that are loaded with its code: `cairn_layout` has the offset and the size of each member that is
used here, `cairn_tables` the addresses of the tables. So release builds, stripped or not, need no
debug information of the library; and where it is there, a second way of finding the same would be
a second way to be wrong. Debug information of the program gives names to fields and variables; without
it there are offsets. The description has a version: another one than DESCRIBED_VERSION is refused.

How it is loaded. The shared library's copy is installed where gdb looks for scripts of that library:
DATADIR/gdb/auto-load/LIBDIR/libcairn.so.VERSION-gdb.py. A program with the archive in it has no such
name; it carries the path of the same copy in a section `.debug_gdb_scripts`, a loaded one too, so that
`strip` leaves it. Either way gdb runs only what lies below its auto-load safe-path; docs/gdb.md.

How fast. Tables and blocks are read whole, and what is asked of many objects at once is asked with
slices and counts of bytes, not object by object.
"""

import gdb
import gdb.printing

from .commands import CairnHeap, CairnObject, CairnPrefix, CairnWhy
from .printers import Printers


def register(objfile):
    """Once more does no harm: the newest commands and printers hold."""
    CairnPrefix()
    CairnHeap("cairn heap", gdb.COMPLETE_NONE)
    CairnObject("cairn object")
    CairnWhy("cairn why")
    gdb.printing.register_pretty_printer(objfile, Printers("cairn"), replace=True)
