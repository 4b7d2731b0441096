#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs the model program over many seeds, in each preset and under each stress switch. Every failure
# prints the line that repeats it. Usage: [SEEDS=100] [STEPS=40000] [FIRST=1] soak.sh PRESET...
set -u
cd "$(dirname "$0")/.." || exit 2
seeds=${SEEDS:-100} steps=${STEPS:-40000} first=${FIRST:-1}
runs=0 failed=0
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

run() { # PRESET SEED NAME=VALUE...
    local preset=$1 seed=$2
    shift 2
    runs=$((runs + 1))
    # Only KILL ends a process whose threads all stand still.
    if ! env CAIRN_TEST_SEED="$seed" "$@" timeout -s KILL 900 \
        "build/$preset/tests/model_test_model" >"$log" 2>&1; then
        failed=$((failed + 1))
        grep -E '^cairn:|^test_model|ERROR|SUMMARY|WARNING' "$log" | head -n 5
        echo "again: CAIRN_TEST_SEED=$seed $* build/$preset/tests/model_test_model"
    fi
}

for preset in "$@"; do
    if ! { cmake --preset "$preset" && cmake --build "build/$preset" -j"$(nproc)"; } >"$log" 2>&1; then
        tail -n 40 "$log"
        exit 1
    fi
done
for ((seed = first; seed < first + seeds; seed++)); do
    for preset in "$@"; do
        run "$preset" "$seed" CAIRN_TEST_STEPS="$steps"
        run "$preset" "$seed" CAIRN_TEST_STEPS="$steps" CAIRN_VERIFY=1
        run "$preset" "$seed" CAIRN_TEST_STEPS="$steps" CAIRN_RECLAIMER=0
        run "$preset" "$seed" CAIRN_TEST_STEPS=$((steps / 40)) CAIRN_VERIFY=1 CAIRN_STRESS=1
        run "$preset" "$seed" CAIRN_TEST_STEPS="$steps" CAIRN_VERIFY=1 CAIRN_STRESS_STOP=50
    done
done
echo "$runs runs, $failed failed"
[ "$failed" = 0 ]
