#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The example ends well; with an argument it ends with a report that names object, place and deletion.
set -u
ulimit -c 0
[ "$("$1" | head -1)" = "point: 3, 4" ] || { echo "wrong output"; exit 1; }
report=$("$1" touch 2>&1)
status=$?
[ $status = 134 ] || { echo "exit $status: $report"; exit 1; }
for words in "use after delete" "read of a deleted Point (8 bytes) at offset" \
    "addr2line -e " "allocated: examples/point.c:17 in main, by thread " \
    "deleted: examples/point.c:22 in main, by thread "; do
    case "$report" in *"$words"*) ;; *) echo "the report lacks: $words"; echo "$report"; exit 1 ;; esac
done
if command -v addr2line >/dev/null; then
    # In a build without inlining across lines this is the printf behind the deletion.
    line=$(echo "$report" | sed -n 's/.*, \(addr2line -e [^,]*\),.*/\1/p' | sh)
    case "$line" in *point.c:2[0-9]*) ;; *) echo "addr2line says $line"; exit 1 ;; esac
fi
CAIRN_PAUSE=soon "$1" 2>&1 | grep -q "CAIRN_PAUSE=soon is not understood" || { echo "bad variable ignored"; exit 1; }
