# SPDX-License-Identifier: MIT
"""What debug information says of the program's types; none of it is needed."""

import gdb


def is_reference(kind):
    """cairn_ref(T) is a struct without a name, so it is known by its one member: `T *const p`."""
    if kind.code != gdb.TYPE_CODE_STRUCT:
        return False
    fields = kind.fields()
    if len(fields) != 1 or fields[0].name != "p":
        return False
    member = fields[0].type
    return member.strip_typedefs().code == gdb.TYPE_CODE_PTR and member == member.const()


def path_in(kind, offset, depth=0):
    """The member at an offset as C names it, without the `.p` of a reference; None if there is none."""
    kind = kind.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_ARRAY:
        element = kind.target()
        if not element.sizeof:
            return ""
        rest = path_in(element, offset % element.sizeof, depth + 1)
        return "[%d]%s" % (offset // element.sizeof, dotted(rest))
    if kind.code not in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION) or depth > 20:
        return ""
    if is_reference(kind) or kind.tag in ("cairn_word", "cairn_weak"):
        return ""
    for field in kind.fields():
        if not hasattr(field, "bitpos") or field.bitsize:
            continue
        start = field.bitpos // 8
        # A flexible array member has no size of its own.
        is_flexible = field.type.sizeof == 0 and offset >= start
        if start <= offset < start + field.type.sizeof or is_flexible:
            rest = path_in(field.type, offset - start, depth + 1)
            return field.name + dotted(rest) if field.name else rest
    return None


def dotted(rest):
    return "" if not rest else rest if rest.startswith("[") else "." + rest
