#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Compiles and runs every piece of code of the pages: the blocks that begin with "```c run: NAME",
# each with the shared lines of the cookbook and the blocks before it in its page, as a program that
# calls NAME. Plain and checked; under CAIRN_VERIFY=1.
# Usage: run.sh COMPILER INCLUDE LIBRARY PAGE...
set -u
compiler=$1
include=$2
library=$3
shift 3
ulimit -c 0
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
export CAIRN_VERIFY=1
failed=0
count=0
shared=$(dirname "$1")/cookbook.md
awk '/^```c$/ { on = 1; next } /^```/ { on = 0 } on' "$shared" >"$work/shared.h"
for page; do
    awk '/^```c run: / { on = 1; next } /^```/ { on = 0 } on' "$page" >"$work/all.c"
    names=$(sed -n 's/^```c run: //p' "$page")
    [ -n "$names" ] || { echo "$page has no code to run"; failed=1; }
    for flags in -O2 "-O0 -DCAIRN_CHECKED"; do
        {
            cat "$work/shared.h" "$work/all.c"
            echo 'int main(void) {'
            for name in $names; do echo "    $name();"; done
            echo '    cairn_collect(CAIRN_TRACE);'
            echo '    return 0;'
            echo '}'
        } >"$work/program.c"
        # shellcheck disable=SC2086
        "$compiler" -std=gnu17 -g -Wall -Wextra -Werror -Wno-unused-function $flags -I"$include" \
            "$work/program.c" "$library" -pthread -o "$work/program" || { failed=1; continue; }
        "$work/program" >"$work/out" 2>&1
        status=$?
        [ $status = 0 ] && [ ! -s "$work/out" ] || { echo "$page, $flags: exit $status"; cat "$work/out"; failed=1; }
    done
    count=$((count + $(wc -w <<<"$names")))
done
echo "$count pieces of code"
exit $failed
