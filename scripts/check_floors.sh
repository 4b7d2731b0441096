#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Refuses an include that points to a higher floor, or to another room of the same one.
# Usage: check_floors.sh PROJECT
cd "${1:?the project folder}/src" || exit 2
grep -rnE '^#include "[a-z]+/' --include='*.[ch]' . | awk -F: '
BEGIN {
    split("base:0 os:1 codec:1 space:2 heap:3 object:4 containers:5 gc:5 safety:5 mapped:6 compat:6 fs:7", a, " ")
    for (i in a) { split(a[i], b, ":"); floor[b[1]] = b[2] }
}
{
    file = $1; sub(/^\.\//, "", file); room = file; sub(/\/.*/, "", room)
    used = $3; sub(/^#include "/, "", used); sub(/\/.*/, "", used)
    if (!(room in floor) || !(used in floor)) { print file ":" $2 ": unknown room " room " or " used; bad = 1 }
    else if (room != used && floor[used] >= floor[room]) {
        print file ":" $2 ": " room " may not include " used; bad = 1
    }
}
END { exit bad }'
