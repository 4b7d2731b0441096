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
    "allocated: examples/point.c:17 in main, by thread " \
    "deleted: examples/point.c:22 in main, by thread " "  stack: "; do
    case "$report" in *"$words"*) ;; *) echo "the report lacks: $words"; echo "$report"; exit 1 ;; esac
done
# Under ThreadSanitizer there are no names.
if [ -z "${CAIRN_TEST_NAMELESS:-}" ] && command -v addr2line >/dev/null; then
    # In a build without inlining across lines this is the printf behind the deletion.
    case "$report" in *"where: main at "*"examples/point.c:2"[3-9]*) ;; *) echo "$report"; exit 1 ;; esac
fi
plain=$(CAIRN_SYMBOLIZER=0 "$1" touch 2>&1)
case "$plain" in *"where: /"*"point+0x"*) ;; *) echo "$plain"; exit 1 ;; esac
CAIRN_PAUSE=soon "$1" 2>&1 | grep -q "CAIRN_PAUSE=soon is not understood" || { echo "bad variable ignored"; exit 1; }
