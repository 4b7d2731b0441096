#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What gdb says of the objects of known.c: in the process, in a core file of it (the same, word by word), in
# a stripped program, amid collections. Exits 77 where there is no gdb with Python, or it may not trace.
# Usage: test_gdb.sh FOLDER SCRIPT SOURCE PROGRAM
set -u
folder=$1
script=$2
source=$3
program=$4
core=$folder/core
failed() {
    echo "FAILED: $*" >&2
    exit 1
}
skipped() {
    echo "SKIPPED: $*"
    exit 77
}
in_gdb() { # arguments of gdb
    gdb -nx -q -batch -iex 'set auto-load no' -iex 'set debuginfod enabled off' -ex 'set width 0' \
        -ex "source $script" "$@" 2>&1
}
line_of() { # a mark in the source
    grep -n "/\* $1 \*/" "$source" | cut -d: -f1
}
answer() { # of the query with that name
    sed -n "/^== $1\$/,/^== /p" "$said" | grep -v '^== '
}
expect() { # query, words of one line...
    local query=$1 words
    shift
    for words in "$@"; do
        answer "$query" | grep -qE -- "$words" || { answer "$query"; failed "$said, $query: no \"$words\""; }
    done
}
expect_not() {
    ! answer "$1" | grep -qE -- "$2" || { answer "$1"; failed "$said, $1: \"$2\""; }
}
command -v gdb >/dev/null || skipped "no gdb"
gdb -nx -batch -ex 'python print(6 * 7)' 2>&1 | grep -q '^42$' || skipped "gdb has no Python"
rm -rf "$folder"
mkdir -p "$folder" || exit 2
can_trace=$(gdb -nx -batch -ex 'catch syscall exit_group' -ex run "$(command -v true)" 2>&1)
grep -q 'Catchpoint 1' <<<"$can_trace" || skipped "gdb may not run a program: $can_trace"

# ---- The same queries of the process and of the core file
queries=()
ask() { # name, command
    queries+=(-ex "echo == $1\n" -ex "$2")
}
ask heap 'cairn heap'
ask heap_other 'cairn heap other'
ask heap_none 'cairn heap nobody'
ask list 'cairn object list'
ask interior 'cairn object (char *)list + 20'
ask holder 'cairn object *holder'
ask row 'cairn object row'
ask flexible 'cairn object flexible'
ask text 'cairn object text'
ask large 'cairn object large + 5000000'
ask untyped 'cairn object untyped'
ask in_other 'cairn object in_other'
ask tombstone 'cairn object deleted_point'
ask stale 'cairn object ~hidden_stale'
ask young 'cairn object ~hidden_young'
ask reference 'cairn object holder->point'
ask weak 'cairn object holder->weak'
ask global 'cairn object &list'
ask free 'cairn object (char *)~hidden_young + 32'
ask region 'cairn object (char *)~hidden_young + 0x20000000'
ask nothing 'cairn object'
ask nonsense 'cairn object no_such_name'
ask wild 'cairn object -1'
ask why_list 'cairn why list'
ask why_second 'cairn why list->next.p'
ask why_cycle 'cairn why ~hidden_cycle'
ask why_young 'cairn why ~hidden_young'
ask why_thread 'cairn why ~hidden_thread'
ask why_pinned 'cairn why ~hidden_pinned'
ask why_garbage 'cairn why ~hidden_garbage'
ask why_deleted 'cairn why deleted_point'
ask why_other 'cairn why in_other'
ask why_point 'cairn why holder->point'
ask why_first 'cairn why ~hidden_first'
ask print_holder 'print *holder'
ask print_list 'print *list'
ask print_tombstone 'print deleted_point'
ask print_gone 'print holder->gone'
ask print_row 'print row[7]'
ask print_text 'print text_ref'
ask addresses 'printf "%#lx %#lx %#lx\n", (long)list, ~hidden_cycle, ~hidden_first'
ask end 'echo'

said=$folder/process.txt
in_gdb -ex 'cairn heap' -ex 'break look_here' -ex run -ex "generate-core-file $core" "${queries[@]}" \
    "$program" >"$said"
grep -q '^cairn: no program runs' "$said" || failed "before the start: $(head -1 "$said")"
grep -q '^Saved corefile' "$said" || { cat "$said"; failed "no core file"; }
[ "$(stat -c %s "$core")" -lt 1000000000 ] || failed "the core file has $(stat -c %s "$core") bytes"
grep -E 'Traceback|Python Exception|does not make sense' "$said" && failed "$said: a failure of the script"

expect heap '^heap default: 1,016 objects of 8 types, 9,4[0-9]{2},[0-9]{3} bytes; young: 1$' \
    'deleted objects that wait: 1$' ' 32,224 +1,007 +1  Node$' ' 80 +1 +0  reference$' ' 8 +1 +0  Point$' \
    '^collections: [1-9][0-9]* epochs, ' '^heap other: 1 object of 1 type, 32 bytes; young: 0'
answer heap | sed -n '4p' | grep -q ' 9,437,194 .* bytes$' || { answer heap; failed "not sorted by bytes"; }
expect_not heap_other 'heap default'
expect heap_none 'cairn: no heap has the name nobody; there is default, other'
expect list '^0x[0-9a-f]+: Node of 32 bytes in heap default$' '^  count 5, old$' \
    "^  allocated: .*known.c:$(line_of 'site of the list') in make_list, by thread [0-9]+$" \
    '^    next = 0x[0-9a-f]+ Node$' '^    child\[1\] = NULL$' '^  contents: .*value = 999}$'
expect interior ' is at offset 20 in$' ': Node of 32 bytes'
expect holder 'Holder of 40 bytes' 'point = 0x[0-9a-f]+ Point$' 'weak = weak reference to 0x[0-9a-f]+ Point$' \
    'gone = weak reference to NULL$' 'word = 0x[0-9a-f]+ Node$' 'bits = 0x29, no reference$'
expect row 'array of 10 references of 80 bytes' '\[7\] = 0x[0-9a-f]+ Node$' '\[9\] = NULL'
expect flexible 'Flexible of 48 bytes' 'kids\[3\] = 0x[0-9a-f]+ Node$' 'kids\[4\] = NULL'
expect text ': 10 bytes without references in heap default'
expect large ' is at offset 5000000 in$' ': 9,437,184 bytes without references'
expect untyped ': 64 bytes of untyped memory' 'at offset 40 = 0x[0-9a-f]+ Node$'
expect in_other 'Node of 32 bytes in heap other'
expect tombstone 'is a tombstone: of the deleted Point at 0x' 'size: 8 bytes' \
    'allocated: .*known.c:[0-9]+ in make_others' \
    "deleted: .*known.c:$(line_of 'the deletion') in main, by thread" 'its slot waits, with count [12]: '
expect stale 'Point of 8 bytes' 'count [12], old, deleted' 'weak references: yes' \
    "deleted: .*known.c:$(line_of 'the deletion') in main"
expect young 'Node of 32 bytes' 'count 0, young'
expect reference 'Point of 8 bytes' "known.c:$(line_of 'site of the point') "
expect weak 'Point of 8 bytes' "known.c:$(line_of 'site of the point') "
expect global 'is in no heap: it is list$'
expect free 'in a free slot of 32 bytes for Node in heap default: nothing lives there$'
expect region 'in the region of heap default, but in no object$'
expect nothing '^cairn: which address\?'
expect nonsense '^cairn: No symbol "no_such_name"'
expect wild 'is in no heap$'
expect why_list 'global data, list, at ' 'word of the Holder at ' '\[7\] of the array of references at ' \
    'kids\[3\] of the Flexible at ' 'offset 40 of the untyped memory at '
expect why_second 'next of the Node at' '^  global data, list' '-> 0x[0-9a-f]+ Node, next$' '-> 0x[0-9a-f]+ Node$'
expect why_cycle 'child\[1\] of the Node at' '^  (register|the stack of).*(of_the_stack|on_the_stack)' \
    '-> 0x[0-9a-f]+ Node, child\[1\]$'
expect why_young '(register|the stack of thread 1).*young in frame #1 main'
expect why_thread '(stack|register).*of_the_thread in frame #[0-9]+ wait_with_node'
expect_not why_thread 'by nothing'
expect why_pinned '^  pinned 1 time$'
expect why_garbage 'next of the Node at' 'no root leads to it'
expect why_deleted '\(its tombstone\) global data, deleted_point' 'it is deleted'
expect why_other 'heap other' 'global data, one_of_many\+16, at'
expect why_point 'point of the Holder at' 'global data, holder' '-> 0x[0-9a-f]+ Holder, point'
expect_not why_point 'weak'
expect why_first '\.\.\. 9[0-9]{2} more \.\.\.' '^  global data, list'
expect print_holder '= {point = \(Point \*\) 0x[0-9a-f]+, weak = \(weak Point \*\) 0x[0-9a-f]+, ' \
    'gone = \(weak\) NULL, word = \(Node \*\) 0x[0-9a-f]+, bits = 0x29}'
expect print_list '= {next = \(Node \*\) 0x[0-9a-f]+, child = {\(Node \*\) 0x0, \(Node \*\) 0x0}, value = 999}'
expect print_tombstone "= <deleted Point at 0x[0-9a-f]+, by .*known.c:$(line_of 'the deletion')>"
expect print_gone '= \(weak\) NULL'
expect print_row '= \(Node \*\) 0x'
expect print_text '= \(const char \*\) 0x[0-9a-f]+ "some text"'

# gdb numbers the threads of a core file in another order.
normal() {
    sed -n '/^== /,$p' "$1" | sed 's/thread [0-9]* (/thread (/'
}
in_gdb "${queries[@]}" "$program" "$core" >"$folder/core.txt"
diff <(normal "$said") <(normal "$folder/core.txt") || failed "a core file is seen in another way"

# ---- Without symbols: the same objects, by the library's description alone
read -r list cycle first <<<"$(answer addresses)"
strip -o "$folder/stripped" "$program" || failed "strip"
queries=()
ask heap 'cairn heap'
ask list "cairn object $list"
ask why_cycle "cairn why $cycle"
ask why_first "cairn why $first"
ask end 'echo'
said=$folder/stripped.txt
in_gdb "${queries[@]}" "$folder/stripped" "$core" >"$said"
diff <(answer heap) <(said=$folder/process.txt answer heap) || failed "stripped: another heap"
expect list 'Node of 32 bytes' 'count 5, old' 'in make_list, by thread' '^    at offset 0 = 0x[0-9a-f]+ Node$'
expect why_cycle 'at offset 16 of the Node at' '-> 0x[0-9a-f]+ Node, at offset 16$'
expect why_first 'global data, '

# ---- Another version
cp -r "$(dirname "$script")" "$folder/old"
sed -i 's/^DESCRIBED_VERSION = .*/DESCRIBED_VERSION = 7/' "$folder/old/cairn_gdb/described.py"
script=$folder/old/cairn-gdb.py in_gdb -ex 'cairn heap' "$program" "$core" |
    grep -q '^cairn: this script reads version 7 .* has version 1: use the script' || failed "another version"

# ---- Wherever the program stands; the functions have symbols in programs with the archive
if nm "$program" | grep -q ' [tT] crn_block_settle$'; then
    cat >"$folder/everywhere.py" <<'END'
import gdb
gdb.execute("set pagination off")
for place in ("crn_block_settle", "crn_extra_make_locked", "crn_segments_acquire", "crn_world_start", "crn_count_logs",
              "crn_deletions_settle"):
    breakpoint = gdb.Breakpoint(place)
    for i in range(6):
        gdb.execute("continue")
        if not gdb.selected_inferior().pid:
            break
        for command in ("cairn heap", "cairn object list", "cairn why list"):
            try:
                gdb.execute(command)
            except gdb.error as error:
                print("error:", error)
    breakpoint.delete()
    if gdb.selected_inferior().pid:
        gdb.execute("kill")
    gdb.execute("start")
END
    said=$folder/everywhere.txt
    in_gdb -ex start -ex "source $folder/everywhere.py" "$program" >"$said"
    grep -E 'Traceback|Python Exception|does not make sense' "$said" && failed "$said: a failure of the script"
    grep -q 'is in the middle of a collection' "$said" || failed "$said: no collection was seen"
    [ "$(grep -c '^heap default' "$said")" -ge 15 ] || { cat "$said"; failed "$said: few answers"; }
fi
rm -f "$core"
echo "gdb: process, core file and stripped program agree"
