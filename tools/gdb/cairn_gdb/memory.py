# SPDX-License-Identifier: MIT
"""Reading the memory of the program, whole stretches at a time."""

import gdb

WORD = 8
PAGE = 4096
CHUNK = 1 << 20


class Trouble(Exception):
    """Something to tell the user in one line."""


class Unreadable(Exception):
    pass


def read(address, size):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    except (gdb.error, OverflowError, ValueError):
        raise Unreadable(hex(address))


class Pages:
    """Small reads, a page at a time: lists whose entries lie side by side cost one read for many."""

    def __init__(self):
        self.pages = {}

    def read(self, address, size):
        first, last = address // PAGE, (address + size - 1) // PAGE
        got = b"".join(self.page(number) for number in range(first, last + 1))
        offset = address - first * PAGE
        return got[offset : offset + size]

    def page(self, number):
        known = self.pages.get(number)
        if known is None:
            known = self.pages[number] = read(number * PAGE, PAGE)
        return known


def words_of(data):
    return memoryview(data[: len(data) // WORD * WORD]).cast("Q")


def words_between(low, high):
    """(address, words) of what can be read of a range, in pieces; a piece of zeros is left out."""
    low = (low + WORD - 1) & -WORD
    while low + WORD <= high:
        size = min(high, (low // CHUNK + 1) * CHUNK) - low
        try:
            pieces = [(low, read(low, size))]
        except Unreadable:
            pieces = []
            for at in range(low, low + size, PAGE):
                try:
                    pieces.append((at, read(at, min(PAGE, low + size - at))))
                except Unreadable:
                    pass
        for at, data in pieces:
            if data.count(0) != len(data):
                yield at, words_of(data)
        low += size
