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
echo '$ json --query 639-3.0.name   # what stands at a path in the documents of iso-codes'
"$examples/json" --query 639-3.0.name || exit 1
echo
echo '$ json --count scope   # which values a key has there, and how often'
"$examples/json" --count scope || exit 1
echo
echo '$ json   # edits and rewrites all documents 50 times without one free: memory stays flat'
"$examples/json"
