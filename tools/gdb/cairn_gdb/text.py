# SPDX-License-Identifier: MIT
"""How answers are written."""

import gdb


def say(text=""):
    gdb.write(text + "\n")


def amount(number):
    return "{:,}".format(number)


def plural(number, noun):
    """`1 byte`, `2 bytes`; a type's name stays as it is, but for that of references."""
    is_ours = noun in ("byte", "object", "type", "time", "reference")
    return "%s %s%s" % (amount(number), noun, "s" if is_ours and number != 1 else "")
