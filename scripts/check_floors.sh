#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Refuses an include that points to a higher floor, or to another room of the same one. A public
# header includes public headers only; a test includes tests' headers and rooms, an example and a
# benchmark no room at all.
# Usage: check_floors.sh PROJECT
cd "${1:?the project folder}" || exit 2
grep -rnE '^#include "[a-z]+/' --include='*.[ch]' src tests include examples bench | awk -F: '
BEGIN {
    split("base:0 os:1 codec:1 space:2 heap:3 object:4 containers:5 gc:5 safety:5 mapped:6 compat:6 fs:7", a, " ")
    for (i in a) { split(a[i], b, ":"); floor[b[1]] = b[2] }
}
{
    file = $1; place = file; sub(/\/.*/, "", place)
    room = file; sub(/^[a-z]+\//, "", room); sub(/\/.*/, "", room)
    used = $3; sub(/^#include "/, "", used); sub(/\/.*/, "", used)
    if (place == "include" || place == "examples" || place == "bench") {
        if (used in floor) { print file ":" $2 ": " place " may not include " used; bad = 1 }
    } else if (!(used in floor)) { print file ":" $2 ": unknown room " used; bad = 1 }
    else if (place == "src" && !(room in floor)) { print file ":" $2 ": unknown room " room; bad = 1 }
    else if (place == "tests" && room in floor && floor[used] > floor[room]) {
        print file ":" $2 ": tests of " room " may not include " used; bad = 1
    } else if (place == "src" && room != used && floor[used] >= floor[room]) {
        print file ":" $2 ": " room " may not include " used; bad = 1
    }
}
END { exit bad }' || exit 1
if grep -rnE '^#include <(base|os|space|heap|object|gc|safety)/|^#include "' include; then
    echo "a public header includes public headers only, as <cairn/...>"
    exit 1
fi
