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
for words in "use after delete" "read of a deleted Point (8 bytes) at offset" "point.c:" "in main"; do
    case "$report" in *"$words"*) ;; *) echo "the report lacks: $words"; echo "$report"; exit 1 ;; esac
done
CAIRN_PAUSE=soon "$1" 2>&1 | grep -q "CAIRN_PAUSE=soon is not understood" || { echo "bad variable ignored"; exit 1; }
