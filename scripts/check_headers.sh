#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Every internal header compiles alone, in both compilers. (The public ones: tests/compile/run.sh.)
cd "$(dirname "$0")/.." || exit 2
bad=0
for header in src/*/*.h; do
    for compiler in gcc clang; do
        printf '#include "%s"\nextern int a_declaration;\n' "${header#src/}" |
            $compiler -std=gnu17 -Wall -Wextra -Werror -Iinclude -Isrc -fsyntax-only -x c - || {
            echo "$header does not compile alone with $compiler"
            bad=1
        }
    done
done
exit $bad
