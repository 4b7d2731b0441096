#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs the examples; the second run of point ends with a report, and must.
set -u
examples="$1/examples"
echo '$ point'
"$examples/point" || exit 1
echo
echo '$ point touch'
(ulimit -c 0; exec 3>&2 2>/dev/null; "$examples/point" touch 2>&3) # bash's word about the abort goes
[ $? = 134 ] || { echo "point: expected a report and an abort" >&2; exit 1; }
echo
echo '$ json'
"$examples/json"
