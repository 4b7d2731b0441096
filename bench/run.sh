#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs Cairn and its peers on the same work, in turn, in rounds; prints one table per workload and
# compares with the bars.
#
# Usage: run.sh BUILD_DIR [quick] [workload...]
#   ROUNDS=n           rounds, default 3 (quick: 1)
#   BENCH_PEERS=dirs   more directories, separated by colons, to look for peers' libraries in
#
# Exit status: 0 if all went well, 1 if a program failed or, unless quick, a bar was missed.
set -u
export LC_ALL=C
unset LD_PRELOAD

usage() {
    echo "usage: $0 BUILD_DIR [quick] [workload...]" >&2
    exit 2
}

if [ $# -lt 1 ] || [ ! -d "$1" ]; then usage; fi
BIN=$1
[ -d "$BIN/bench" ] && BIN=$BIN/bench
shift
QUICK=
if [ "${1:-}" = quick ]; then
    QUICK=yes
    shift
fi
WORKLOADS=${*:-gap trees churn churn16 threads store rings roots untyped bigarray empty types weak modes}
ROUNDS=${ROUNDS:-${QUICK:+1}}
ROUNDS=${ROUNDS:-3}
RUN_LIMIT_S=1200
FAILED=

if [ ! -x /usr/bin/time ]; then
    echo "run.sh: no /usr/bin/time (package time)" >&2
    exit 2
fi
RESULTS=$(mktemp -d) || exit 2
trap 'rm -rf "$RESULTS"' EXIT

# ---- Peers -----------------------------------------------------------------------------

declare -A LIBRARY
PEERS="glibc"

# Where a preloadable library is, or nothing.
library_path() {
    local directory
    local IFS=:
    for directory in ${BENCH_PEERS:-}; do
        if [ -e "$directory/$1" ]; then
            echo "$directory/$1"
            return
        fi
    done
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null |
        awk -v name="$1" '$1 == name { print $NF; exit }'
}

find_peer() { # name, package, file names
    local peer=$1 package=$2 name path
    shift 2
    for name; do
        path=$(library_path "$name")
        if [ -n "$path" ]; then
            LIBRARY[$peer]=$path
            PEERS="$PEERS $peer"
            echo "peer: $peer, $path"
            return
        fi
    done
    echo "missing: $peer (package $package), skipped"
}

find_built_peer() { # name, suffix of its programs, package
    if [ -x "$BIN/bench_trees_$2" ]; then
        PEERS="$PEERS $1"
        echo "peer: $1"
    else
        echo "missing: $1 (package $3, then configure and build again), skipped"
    fi
}

has_peer() {
    [[ " $PEERS " == *" $1 "* ]]
}

is_own() {
    case $1 in cairn | checked | instrumented | guarded) ;; *) false ;; esac
}

# ---- Measuring -------------------------------------------------------------------------

program_suffix() {
    case $1 in
    cairn | guarded) echo cairn ;;
    checked | instrumented) echo "$1" ;;
    libgc) echo gc ;;
    go) echo go ;;
    *) echo malloc ;;
    esac
}

fail() {
    echo "failed: $*"
    FAILED=yes
}

# One run: every key=value word that the program prints, wall time and peak RSS.
measure() { # table, peer, program, arguments
    local table=$1 peer=$2 binary preload status
    binary=$BIN/bench_$3_$(program_suffix "$2")
    shift 3
    preload=${LIBRARY[$peer]:-}
    if [ ! -x "$binary" ]; then
        fail "$table: $binary is not built"
        return
    fi
    timeout $RUN_LIMIT_S /usr/bin/time -q -o "$RESULTS/time" -f 'wall_s=%e rss_kib=%M cpu_s=%U+%S' \
        env ${preload:+"LD_PRELOAD=$preload"} CAIRN_GUARD="$(guard_of "$peer")" "$binary" "$@" >"$RESULTS/out" 2>"$RESULTS/err"
    status=$?
    if [ $status -ne 0 ]; then
        fail "$table: $peer, status $status: $(tail -n 3 "$RESULTS/err" | tr '\n' ' ')"
        return
    fi
    cat "$RESULTS/out" "$RESULTS/time" | record "$table" "$peer"
}

# Guard mode is a way to run the usual program.
guard_of() { # peer
    case $1 in guarded) echo 1000 ;; *) echo 0 ;; esac
}

record() { # table, peer; key=value words on stdin
    awk -v peer="$2" '{
        for (i = 1; i <= NF; i++) {
            if (split($i, pair, "=") != 2) continue
            if (pair[1] == "rss_kib") { pair[1] = "rss_mib"; pair[2] /= 1024 }
            if (pair[1] == "wall_s") wall_s = pair[2]
            if (pair[1] == "cpu_s") {
                split(pair[2], part, "+")
                pair[1] = "processors"
                pair[2] = wall_s > 0 ? (part[1] + part[2]) / wall_s : 0
            }
            print peer, pair[1], pair[2]
        }
    }' >>"$RESULTS/$1.figures"
}

# Round by round, every peer in turn.
measure_all() { # table, peers, program, arguments
    local table=$1 peers=$2 peer round
    shift 2
    for ((round = 1; round <= ROUNDS; round++)); do
        for peer in $peers; do
            if is_own "$peer" || has_peer "$peer"; then measure "$table" "$peer" "$@"; fi
        done
    done
}

# ---- Figures ---------------------------------------------------------------------------

values() { # table, peer, key
    [ -e "$RESULTS/$1.figures" ] || return
    awk -v peer="$2" -v key="$3" '$1 == peer && $2 == key { print $3 }' \
        "$RESULTS/$1.figures" | sort -g
}

median() { # table, peer, key
    values "$@" | awk '{ v[NR] = $1 }
        END { if (NR) printf "%.6g\n", (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'
}

# The largest of all rounds: for what must never happen.
worst() { # table, peer, key
    values "$@" | tail -n 1
}

quotient() {
    awk -v a="$1" -v b="$2" 'BEGIN { if (a != "" && b != "" && b != 0) printf "%.4g\n", a / b }'
}

# The highest median among the allocators used by hand.
best_by_hand() { # table, key
    local peer
    for peer in glibc mimalloc jemalloc tcmalloc; do
        median "$1" "$peer" "$2"
    done | sort -g | tail -n 1
}

# Columns: name, the metric, peak RSS, Cairn's metric through this one's, then whatever else.
table() { # table, title, metric, more keys
    local name=$1 title=$2 metric=$3 own peer key check
    shift 3
    own=$(median "$name" cairn "$metric")
    check=$(median "$name" cairn check)
    echo
    echo "$title; medians of $ROUNDS"
    printf '%-12s %14s %10s %9s' name "$metric" rss_mib cairn/it
    for key; do printf ' %14s' "$key"; done
    echo
    for peer in cairn checked instrumented guarded $PEERS; do
        local value
        value=$(median "$name" "$peer" "$metric")
        [ -n "$value" ] || continue
        printf '%-12s %14s %10.4g %9s' "$peer" "$value" "$(median "$name" "$peer" rss_mib)" \
            "$(quotient "$own" "$value")"
        for key; do
            value=$(median "$name" "$peer" "$key")
            printf ' %14s' "${value:--}"
        done
        echo
        if [ -n "$check" ] && [ "$(median "$name" "$peer" check)" != "$check" ]; then
            fail "$name: $peer computes something else than cairn"
        fi
    done
}

# bar TEXT VALUE most|least LIMIT
bar() {
    local verdict
    if [ -z "$2" ]; then
        echo "bar: $1: not measured"
        return
    fi
    verdict=$(awk -v value="$2" -v sense="$3" -v limit="$4" \
        'BEGIN {
            good = sense == "most" ? value + 0 <= limit + 0 : value + 0 >= limit + 0
            print good ? "ok" : "missed"
        }')
    echo "bar: $1: $2 $verdict"
    if [ "$verdict" = missed ] && [ -z "$QUICK" ]; then FAILED=yes; fi
}

# A ratio of medians, Cairn's through the peer's.
ratio_bar() { # text, table, peer, key, most|least, limit
    bar "$1" "$(quotient "$(median "$2" cairn "$4")" "$(median "$2" "$3" "$4")")" "$5" "$6"
}

# The pauses are those of counting epochs; a trace that stops the world is told beside them.
pause_bars() { # table, key of the longest
    bar "longest pause at most 2 ms" "$(worst "$1" cairn "$2")" most 2
    local trace_ms
    trace_ms=$(worst "$1" cairn trace_max_ms)
    if [ -n "$trace_ms" ]; then
        echo "note: longest trace $trace_ms ms, apart from the pauses above"
    fi
    if [ -e "$RESULTS/gap.figures" ]; then
        echo "note: threads that only read the clock lost up to $(worst gap glibc longest_gap_ms) ms"
    fi
}

# ---- Workloads -------------------------------------------------------------------------

BY_HAND="glibc mimalloc jemalloc tcmalloc"
size() { # full, quick
    if [ -n "$QUICK" ]; then echo "$2"; else echo "$1"; fi
}

# As many threads as processors, and nothing of anybody's to wait for.
run_gap() {
    measure_all gap glibc gap "$(size 20000 500)" "$(nproc)"
    table gap "what the machine takes from threads that only read the clock, ms" longest_gap_ms \
        gaps_above_1ms
}

run_trees() {
    local depth
    depth=$(size 20 12)
    measure_all trees "cairn $BY_HAND libgc go" trees "$depth"
    table trees "trees, depth $depth" wall_s pause_max_ms epochs traces
    ratio_bar "wall at most 1.2 of mimalloc" trees mimalloc wall_s most 1.2
    ratio_bar "wall at most 0.35 of libgc" trees libgc wall_s most 0.35
    ratio_bar "wall at most 0.35 of Go" trees go wall_s most 0.35
    ratio_bar "RSS at most 2.5 of mimalloc" trees mimalloc rss_mib most 2.5
}

# One table of `slots`; peers besides those by hand only where they are named.
churn_table() { # table, slots, steps, peers
    measure_all "$1" "$4" churn "$2" "$3"
    table "$1" "churn, $2 slots, $3 steps" steps_per_s longest_ms \
        pause_p50_ms pause_p99_ms pause_max_ms traces trace_max_ms
    bar "steps/s at least 0.65 of the best malloc" \
        "$(quotient "$(median "$1" cairn steps_per_s)" \
            "$(best_by_hand "$1" steps_per_s)")" least 0.65
    ratio_bar "RSS at most 1.2 of glibc" "$1" glibc rss_mib most 1.2
    bar "p99 pause at most 1 ms" "$(worst "$1" cairn pause_p99_ms)" most 1
    pause_bars "$1" pause_max_ms
}

run_churn() {
    churn_table churn "$(size 4194304 65536)" "$(size 30000000 200000)" "cairn $BY_HAND libgc go"
}

# What is left at 16 Mi slots of the steps/s at 4 Mi, through the same of glibc.
fall_bar() {
    local own peer
    own=$(quotient "$(median churn16 cairn steps_per_s)" "$(median churn cairn steps_per_s)")
    peer=$(quotient "$(median churn16 glibc steps_per_s)" "$(median churn glibc steps_per_s)")
    echo "note: of the steps/s at a quarter of the slots cairn keeps ${own:-?}, glibc ${peer:-?}"
    bar "falls no more than glibc (3 % are noise)" "$(quotient "$own" "$peer")" least 0.97
}

run_churn16() {
    churn_table churn16 "$(size 16777216 262144)" "$(size 30000000 400000)" "cairn $BY_HAND"
    if [ -e "$RESULTS/churn.figures" ]; then fall_bar; fi
}

# Where one thread has a second processor to itself, the reclaimer works there: then two threads
# share what one had. Without it the ratio tells of contention alone.
note_reclaimer() { # slots, steps
    local round
    export CAIRN_RECLAIMER=0
    for ((round = 1; round <= ROUNDS; round++)); do
        measure one_alone cairn churn "$1" "$2" 1
        measure two_alone cairn churn "$1" "$2" 2
    done
    unset CAIRN_RECLAIMER
    echo "note: one thread of cairn uses $(median one_thread cairn processors) processors;" \
        "without the reclaimer two threads are" \
        "$(quotient "$(median two_alone cairn steps_per_s)" \
            "$(median one_alone cairn steps_per_s)") of one"
}

run_threads() {
    local slots steps round peer
    slots=$(size 1048576 16384)
    steps=$(size 20000000 100000)
    for ((round = 1; round <= ROUNDS; round++)); do
        for peer in cairn glibc mimalloc; do
            [ "$peer" = cairn ] || has_peer "$peer" || continue
            measure one_thread "$peer" churn "$slots" "$steps" 1
            measure two_threads "$peer" churn "$slots" "$steps" 2
        done
    done
    table one_thread "threads: one, $slots slots, $steps steps" steps_per_s \
        longest_ms processors
    table two_threads "threads: two, $slots slots and $steps steps each" steps_per_s \
        longest_ms processors
    note_reclaimer "$slots" "$steps"
    if [ "$(nproc)" -lt 2 ]; then echo "note: a single processor: two threads cannot gain"; fi
    bar "two threads at least 1.7 of one" \
        "$(quotient "$(median two_threads cairn steps_per_s)" \
            "$(median one_thread cairn steps_per_s)")" least 1.7
}

run_store() {
    measure_all store cairn store "$(size 20000000 200000)"
    table store "store, ns" set_ns plain_ns extra_ns epochs_between
    bar "cairn_set within 1.5 ns of a plain store" "$(median store cairn extra_ns)" most 1.5
}

run_rings() {
    local peer seen
    measure_all rings "cairn libgc" rings "$(size 3000000 20000)" "$(size 200000 2000)"
    table rings "rings of 10" rings_per_s collections_seen traces trace_max_ms pause_max_ms
    ratio_bar "rings/s at least 2 of libgc" rings libgc rings_per_s least 2
    for peer in cairn libgc; do
        seen=$(median rings "$peer" collections_seen)
        awk -v seen="${seen:-2}" -v peer="$peer" 'BEGIN {
            if (seen < 2) print "note: " peer ": a ring lived through " seen " collections, not 2"
        }'
    done
    if [ "$(median rings cairn traces)" = 0 ]; then
        echo "note: no trace ran, so cairn freed no ring and the bar says nothing"
    fi
}

run_roots() {
    measure_all roots cairn roots "$(size 5000000 50000)" "$(size 256 16)"
    table roots "roots" steps_per_s pause_p50_ms pause_max_ms pause_share root_ms root_share
    pause_bars roots pause_max_ms
    bar "root scanning at most 0.05 of the time" "$(median roots cairn root_share)" most 0.05
}

run_untyped() {
    measure_all untyped cairn untyped "$(size 100 4)" "$(size 5000000 50000)"
    table untyped "untyped memory" steps_per_s \
        pause_p50_ms pause_p99_ms setup_max_ms pause_churn_ms
    pause_bars untyped pause_churn_ms
}

run_bigarray() {
    measure_all bigarray cairn bigarray "$(size 16777216 65536)"
    table bigarray "a large young array" fill_s pause_p50_ms pause_p99_ms pause_max_ms longest_ms
    pause_bars bigarray pause_max_ms
}

# /usr/bin/time counts in 10 ms, so the wall time is the mean of many starts.
run_empty() {
    local round peer binary count start end i
    count=$(size 200 20)
    for ((round = 1; round <= ROUNDS; round++)); do
        for peer in cairn glibc; do
            binary=$BIN/bench_empty_$(program_suffix "$peer")
            measure empty "$peer" empty rss
            [ -x "$binary" ] || continue
            start=${EPOCHREALTIME/./}
            for ((i = 0; i < count; i++)); do "$binary" >/dev/null; done
            end=${EPOCHREALTIME/./}
            awk -v us=$((end - start)) -v n="$count" \
                'BEGIN { printf "start_ms=%.3f\n", us / n / 1000 }' |
                record empty "$peer"
        done
    done
    table empty "an empty program, mean of $count starts" start_ms peak_kib
    bar "at most 1 ms more" "$(difference empty start_ms)" most 1
    bar "less than 1024 KiB more RSS" "$(difference empty peak_kib)" most 1023
}

difference() { # table, key: Cairn's median less glibc's
    awk -v a="$(median "$1" cairn "$2")" -v b="$(median "$1" glibc "$2")" \
        'BEGIN { if (a != "" && b != "") printf "%.4g\n", a - b }'
}

run_types() {
    local types threads thread_types
    types=$(size 10000 1000)
    threads=$(size 64 4)
    thread_types=$(size 500 50)
    measure_all types cairn types "$types"
    measure_all types_threads cairn types "$thread_types" "$threads"
    table types "types: $types with one object each" wall_s
    table types_threads "types: $threads threads times $thread_types types" wall_s
    bar "RSS below 100 MiB" "$(median types cairn rss_mib)" most 99.9
    bar "RSS with threads below 256 MiB" "$(median types_threads cairn rss_mib)" most 255.9
}

run_weak() {
    measure_all weak cairn weak "$(size 1000000 20000)" "$(size 200 20)"
    table weak "extras: living weak targets, finalizable and pinned objects" extra_us plain_us \
        set_ns new_ns pin_ns get_ns pause_max_ms
    bar "extras add less than 100 us to an epoch" "$(median weak cairn extra_us)" most 100
}

# The JSON example prints a table of its own, so only its time is taken.
measure_json() { # variant
    local start end status
    start=${EPOCHREALTIME/./}
    CAIRN_GUARD=$(guard_of "$1") "$BIN/bench_json_$(program_suffix "$1")" --rounds "$(size 60 2)" >"$RESULTS/out" 2>"$RESULTS/err"
    status=$?
    end=${EPOCHREALTIME/./}
    if [ $status -ne 0 ]; then
        fail "modes: json, $1, status $status: $(tail -n 3 "$RESULTS/err" | tr '\n' ' ')"
    else
        awk -v us=$((end - start)) 'BEGIN { printf "wall_s=%.3f\n", us / 1e6 }' |
            record modes_json "$1"
    fi
}

# What a program pays for checks that it is compiled with, or for one guarded object in 1000.
run_modes() {
    local round mode modes="cairn checked instrumented guarded"
    measure_all modes_trees "$modes" trees "$(size 19 12)"
    measure_all modes_churn "$modes" churn "$(size 1048576 65536)" "$(size 10000000 200000)"
    for ((round = 1; round <= ROUNDS; round++)); do
        for mode in $modes; do measure_json "$mode"; done
    done
    table modes_trees "modes: trees" wall_s
    table modes_churn "modes: churn" steps_per_s
    table modes_json "modes: the JSON example" wall_s
    mode_bars checked 2 1.15
    mode_bars instrumented 3.5 2.5
    mode_bars guarded 1.01 1.01
}

mode_bars() { # mode, most on trees, most on JSON
    bar "$1: trees at most $2 of release" \
        "$(quotient "$(median modes_trees "$1" wall_s)" "$(median modes_trees cairn wall_s)")" \
        most "$2"
    bar "$1: JSON at most $3 of release" \
        "$(quotient "$(median modes_json "$1" wall_s)" "$(median modes_json cairn wall_s)")" \
        most "$3"
}

# ---- The run ---------------------------------------------------------------------------

echo "machine: $(nproc) processors," \
    "$(awk '/MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
find_peer mimalloc libmimalloc-dev libmimalloc.so libmimalloc.so.2
find_peer jemalloc libjemalloc2 libjemalloc.so.2
find_peer tcmalloc libtcmalloc-minimal4 libtcmalloc_minimal.so.4
find_built_peer libgc gc libgc-dev
find_built_peer go go golang-go
if [ -n "$QUICK" ]; then echo "quick: small sizes; the bars are a rehearsal"; fi

for workload in $WORKLOADS; do
    if ! declare -F "run_$workload" >/dev/null; then
        fail "no workload $workload"
        continue
    fi
    "run_$workload"
done
[ -z "$FAILED" ]
