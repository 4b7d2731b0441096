#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The command finds what forgetful.c forgets, and nothing in the examples.
# Usage: test_check_types.sh COMMAND FORGETFUL PROGRAM...
set -u
command=$1
forgetful=$2
shift 2
failed() {
    echo "FAILED: $*"
    exit 1
}
found=$("$command" check-types "$forgetful")
[ $? = 1 ] || failed "forgetful: exit $?"
for words in "Node.forgotten at offset 8: a cairn_ref that its CAIRN_TYPE does not name" \
    "Node.row at offset 16: a cairn_ref" "Node.pair.a at offset 40: a cairn_ref" \
    "Node.pair.b at offset 48: a cairn_ref" "Node.plain at offset 56: a plain pointer to a Cairn type" \
    "Node.constant at offset 64: a plain pointer" "Node.word at offset 72: a cairn_word" \
    "Node.weak at offset 80: a cairn_weak" "Node.in_union at offset 88: a cairn_ref" \
    "Pair.b at offset 8: a cairn_ref" "Orphans.kids at offset 8: a reference in a type that CAIRN_LEAF"; do
    grep -qF "$words" <<<"$found" || { echo "$found"; failed "not found: $words"; }
done
[ "$(grep -c ' at offset ' <<<"$found")" = 11 ] || { echo "$found"; failed "found too much"; }
grep -q '5 types checked, 11 fields forgotten' <<<"$found" || { echo "$found"; failed "the sum"; }
"$command" check-types "$@" || failed "the examples"
"$command" check-types /nowhere 2>/dev/null
[ $? = 2 ] || failed "no file"
"$command" check-types "$0" 2>/dev/null
[ $? = 2 ] || failed "no program"
"$command" nonsense 2>/dev/null
[ $? = 2 ] || failed "no subcommand"
"$command" --help | grep -q check-types || failed "help"
