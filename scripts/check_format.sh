#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Every C file is as clang-format leaves it. tests/compile/fail.c is not: its lines carry messages.
cd "$(dirname "$0")/.." || exit 2
command -v clang-format >/dev/null || { echo "SKIPPED: no clang-format"; exit 77; }
find bench examples include src tests -name '*.[ch]' ! -path tests/compile/fail.c -print0 |
    xargs -0 clang-format --dry-run -Werror
