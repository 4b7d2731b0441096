#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Builds and tests each preset; ends with one line "N passed, N failed" over all of them.
set -u
cd "$(dirname "$0")/.." || exit 2
jobs=$(nproc)
passed=0
failed=0
for preset in "$@"; do
    mkdir -p "build/$preset"
    log="build/$preset/log.txt"
    if ! { cmake --preset "$preset" && cmake --build "build/$preset" -j"$jobs"; } >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "$preset: does not build"
        failed=$((failed + 1))
        continue
    fi
    ctest --test-dir "build/$preset" -j"$jobs" --output-on-failure --timeout 900 >"$log.test" 2>&1
    total=$(grep -cE '^ *[0-9]+/[0-9]+ Test ' "$log.test")
    good=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*( Passed |\*\*\*Skipped )' "$log.test")
    echo "$preset: $good of $total passed"
    [ "$good" = "$total" ] && [ "$total" != 0 ] || cat "$log.test"
    passed=$((passed + good))
    failed=$((failed + total - good))
    [ "$total" != 0 ] || failed=$((failed + 1))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
