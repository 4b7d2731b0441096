# SPDX-License-Identifier: MIT
"""Loads cairn_gdb, which lies beside this file in the sources, and in DATADIR/cairn/gdb where this file is
installed as DATADIR/gdb/auto-load/LIBDIR/libcairn.so.VERSION-gdb.py. See cairn_gdb/__init__.py."""

import os
import sys

import gdb


def folder_of_package():
    here = os.path.dirname(os.path.abspath(__file__))
    mark = os.path.join(os.sep, "gdb", "auto-load", "")
    candidates, at = [here], here.find(mark)
    while at >= 0:
        candidates.append(os.path.join(here[:at], "cairn", "gdb"))
        at = here.find(mark, at + 1)
    for folder in candidates:
        if os.path.isdir(os.path.join(folder, "cairn_gdb")):
            return folder
    raise gdb.GdbError("cairn: the folder cairn_gdb is not where %s was installed with it" % __file__)


def load():
    # Of two libraries that this gdb meets the later one's script holds.
    for name in [name for name in sys.modules if name.split(".")[0] == "cairn_gdb"]:
        del sys.modules[name]
    folder, writes = folder_of_package(), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # what is written there nobody would uninstall
    sys.path.insert(0, folder)
    try:
        import cairn_gdb

        cairn_gdb.register(gdb.current_objfile())
    finally:
        sys.path.remove(folder)
        sys.dont_write_bytecode = writes


load()
