# SPDX-License-Identifier: MIT
"""Roots outside the heaps, and what they are called."""

import collections
import re
import struct

import gdb

from .memory import CHUNK, WORD, words_between
from .text import plural
from .types import dotted, path_in

RED_ZONE = 128
FRAMES_MAX = 500
ROOTS_TRIED = 32


# `target` is the start of the object; `at` the address of the word, 0 if it has none; `thread` gdb's, or None.
Root = collections.namedtuple("Root", "kind target at thread text value")


class Selection:
    """The user's thread and frame, put back at the end."""

    def __enter__(self):
        self.thread = gdb.selected_thread()
        try:
            self.frame = gdb.selected_frame()
        except gdb.error:
            self.frame = None
        return self

    def __exit__(self, *unused):
        try:
            if self.thread and self.thread.is_valid():
                self.thread.switch()
            if self.frame and self.frame.is_valid():
                self.frame.select()
        except gdb.error:
            pass


def thread_name(thread):
    return "thread %d (%d)" % (thread.num, thread.ptid[1] or thread.ptid[0])


class Roots:
    """Everything outside the heaps that keeps an object alive, as the collector sees it: any word that
    points into one. Words that nobody reads any more are among them; the collector cannot tell either."""

    def __init__(self, library, tombstones=()):
        self.library = library
        self.tombstones = set(tombstones)  # which are looked for as well: they hold nothing

    def each(self):
        yield from self.of_threads()
        yield from self.of_data()
        yield from self.of_extras()

    def in_range(self, low, high, kind, thread=None, text=""):
        library = self.library
        for at, words in words_between(low, high):
            for i, value in enumerate(words):
                if library.low <= value < library.high:
                    found = library.object(value)
                    if found:
                        yield Root(kind, found.start, at + i * WORD, thread, text, value)
                elif value in self.tombstones:
                    yield Root(kind, None, at + i * WORD, thread, text, value)

    def of_threads(self):
        library = self.library
        known = [t for t in library.threads() if not t.is_rootless]
        seen = set()
        for thread in sorted(gdb.selected_inferior().threads(), key=lambda t: t.num):
            try:
                thread.switch()
                frame = gdb.newest_frame()
                pointer = int(frame.read_register("sp")) & (1 << 64) - 1
            except gdb.error:
                continue
            own = self.record_of(known, thread, pointer)
            if not own:
                continue
            seen.add(own.address)
            yield from self.of_registers(thread, frame)
            yield from self.of_stack(thread, own, pointer)
            yield from self.of_record(thread, own)
        for own in known:
            if own.address not in seen and own.stopped_at:
                text = "thread %d, which gdb does not know" % own.thread_id
                yield from self.in_range(own.stopped_at, own.stack_high, "stack", None, text)
                yield from self.of_record(None, own)

    @staticmethod
    def record_of(known, thread, pointer):
        for own in known:
            if own.stack_low <= pointer < own.stack_high:
                return own
        for own in known:
            if own.thread_id == thread.ptid[1]:
                return own
        return None

    def of_registers(self, thread, frame):
        try:
            registers = list(frame.architecture().registers("general"))
        except (AttributeError, gdb.error):
            return
        for register in registers:
            try:
                value = int(frame.read_register(register.name).cast(gdb.lookup_type("long")))
            except (gdb.error, OverflowError):
                continue
            value &= (1 << 64) - 1
            found = self.library.object(value)
            if found:
                yield Root("register", found.start, 0, thread, register.name, value)

    def of_stack(self, thread, own, pointer):
        if own.stack_low <= pointer < own.stack_high:
            low = max(pointer - RED_ZONE, own.stack_low)
            yield from self.in_range(low, own.stack_high, "stack", thread)
            return
        # On an alternate signal stack, or one that the program made.
        if 0 < own.alternate_high - pointer < 64 * CHUNK:
            yield from self.in_range(pointer, own.alternate_high, "stack", thread)
        low = own.interrupted_at or own.stack_low
        yield from self.in_range(low, own.stack_high, "stack", thread)

    def of_record(self, thread, own):
        library = self.library
        low, high = struct.unpack("<QQ", own.static_locals[:16])
        if low < high and not (own.stack_low <= low < own.stack_high):
            yield from self.in_range(low, high, "local", thread)
        frame = own.at("frame")
        if own.frame_bytes:
            yield from self.in_range(frame, frame + own.frame_bytes, "saved", thread)
        pieces = struct.unpack("<%dQ" % (len(own.specifics) // WORD), own.specifics)
        for piece in pieces[: own.specifics_in_use]:
            size = library.numbers["CRN_SPECIFIC_PER_PIECE"] * WORD
            if piece:
                yield from self.in_range(piece, piece + size, "specific", thread)

    def of_data(self):
        library, seen = self.library, set()
        for low, high, name, flags, _ in library.sections:
            is_data = "ALLOC" in flags and "READONLY" not in flags and "CODE" not in flags
            # What .tdata and .tbss say are the initial values of thread-locals.
            if not is_data or name in (".tdata", ".tbss") or (low, high) in seen:
                continue
            seen.add((low, high))
            yield from self.in_range(low, high, "data")
        for root in library.list_of("root", library.word_at(library.tables["roots"])):
            yield from self.in_range(root.low, root.high, "added")
        for hand in library.list_of("crn_handover", library.word_at(library.tables["handovers"])):
            yield from self.in_range(hand.at("given"), hand.at("result") + WORD, "handover")

    def of_extras(self):
        numbers = self.library.numbers
        for extra in self.library.extras():
            if extra.pin_count:
                text = "pinned " + plural(extra.pin_count, "time")
                yield Root("pin", extra.object, 0, None, text, extra.object)
            if extra.finalizer in (numbers["CRN_FINALIZER_QUEUED"], numbers["CRN_FINALIZER_RUNNING"]):
                yield Root("finalizer", extra.object, 0, None, "its finalizer is due", extra.object)


def describe_root(root):
    at = "0x%x" % root.at
    if root.kind == "data":
        return "global data, %s, at %s" % (symbol_at(root.at) or "no symbol", at)
    if root.kind == "added":
        return "memory given to cairn_root_add, at " + at
    if root.kind == "handover":
        return "an argument or a result between threads, at " + at
    if root.kind in ("pin", "finalizer"):
        return root.text
    who = thread_name(root.thread) if root.thread else root.text
    if root.kind == "local":
        return "a thread-local of %s, at %s" % (who, at)
    if root.kind == "specific":
        return "a value of pthread_setspecific, of " + who
    if root.kind == "saved":
        return "a register of %s, saved while it waits" % who
    name = name_in_frames(root) if root.thread else None
    if root.kind == "register":
        return "register %s of %s%s" % (root.text, who, ", " + name if name else "")
    return "the stack of %s, %s at %s" % (who, name + "," if name else "", at)


def describe_best(roots):
    """Of several that hold the same object one that the program has a name for, if there is one."""
    texts = []
    for root in roots[:ROOTS_TRIED]:
        texts.append(describe_root(root))
        if root.kind not in ("stack", "register", "saved") or " in frame #" in texts[-1]:
            return texts[-1]
    return texts[0]


def symbol_at(address):
    try:
        text = gdb.execute("info symbol 0x%x" % address, to_string=True).strip()
    except gdb.error:
        return None
    matched = re.match(r"(.*?) in section ", text)
    return matched.group(1).replace(" + ", "+") if matched else None


def frames_of(thread):
    """(frame, its stack pointer), the newest first."""
    thread.switch()
    frames, frame = [], gdb.newest_frame()
    while frame and len(frames) < FRAMES_MAX:
        try:
            frames.append((frame, int(frame.read_register("sp")) & (1 << 64) - 1))
            frame = frame.older()
        except gdb.error:
            break
    return frames


def name_in_frames(root):
    """What debug information says of a word of a stack or of a register: the variable, else the frame."""
    try:
        frames = frames_of(root.thread)
        if root.kind == "register":
            variable = variable_with(frames[0][0], 0, root.value)
            return "%s in %s" % (variable, frame_name(frames, 0)) if variable else None
        holder = None
        for level, (frame, pointer) in enumerate(frames):
            if pointer - (RED_ZONE if level == 0 else 0) <= root.at:
                holder = level
        if holder is None:
            return None
        variable = variable_with(frames[holder][0], root.at, None)
        if variable:
            return "%s in %s" % (variable, frame_name(frames, holder))
        # A register that the function has saved: whose variable was in it?
        for level in range(holder + 1, min(holder + 10, len(frames))):
            variable = variable_with(frames[level][0], 0, root.value)
            if variable:
                return "saved by %s: %s in %s" % (
                    frame_name(frames, holder), variable, frame_name(frames, level))
        return frame_name(frames, holder)
    except (gdb.error, RuntimeError):
        return None


def frame_name(frames, level):
    return "frame #%d %s" % (level, frames[level][0].name() or "??")


def variable_with(frame, at, value):
    """A variable of a frame that lies at an address, or, in a register, has a value."""
    try:
        block = frame.block()
    except RuntimeError:
        return None
    while block and not block.is_global and not block.is_static:
        for symbol in block:
            if not (symbol.is_variable or symbol.is_argument):
                continue
            try:
                found = frame.read_var(symbol, block)
                if found.is_optimized_out:
                    continue
                if found.address is not None:
                    low = int(found.address)
                    if at and low <= at < low + found.type.sizeof:
                        return symbol.name + dotted(path_in(found.type, at - low))
                elif value is not None and is_word(found.type) and int(found) == value:
                    return symbol.name
            except (gdb.error, ValueError):
                continue
        if block.function:
            break
        block = block.superblock
    return None


def is_word(kind):
    kind = kind.strip_typedefs()
    return kind.code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_INT) and kind.sizeof == WORD
