#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The contract as the compilers see it. Usage: run.sh INCLUDE
set -u
include=$(cd "$1" && pwd) || exit 2
cd "$(dirname "$0")" || exit 2
flags="-I$include -fsyntax-only -Wall -Wextra -Wshadow -Wconversion -Wcast-qual -pedantic -Werror"
bad=0
checks=0
check() { # 0|1 command: must it compile?
    checks=$((checks + 1))
    local wanted=$1
    shift
    "$@" >/dev/null 2>&1
    local got=$?
    if { [ "$wanted" = 1 ] && [ $got != 0 ]; } || { [ "$wanted" = 0 ] && [ $got = 0 ]; }; then
        echo "FAILED: $* (exit $got)"
        bad=1
    fi
}
for compiler in gcc clang; do
    command -v $compiler >/dev/null || { echo "SKIPPED: no $compiler"; continue; }
    for standard in c11 c17 c2x; do
        check 1 $compiler -std=$standard $flags pass.c
        check 1 $compiler -std=$standard $flags -DCAIRN_SITES pass.c
        check 1 $compiler -std=$standard $flags -DCASE=0 fail.c
        for case in 1 2 3 4 5 6 7 8 9; do check 0 $compiler -std=$standard $flags -DCASE=$case fail.c; done
    done
done
for compiler in g++ clang++; do
    command -v $compiler >/dev/null || { echo "SKIPPED: no $compiler"; continue; }
    check 1 $compiler -x c++ -std=c++17 -I"$include" -fsyntax-only -Wall -Wshadow -Werror -DCASE=0 fail.c
    check 1 $compiler -x c++ -std=c++17 -I"$include" -fsyntax-only -Wall -Wshadow -Werror -DCAIRN_SITES pass.c
    for case in 1 2 3 4 5 6 7 9; do
        check 0 $compiler -x c++ -std=c++17 -I"$include" -fsyntax-only -DCASE=$case fail.c
    done
done
echo "$checks compilations checked"
exit $bad
