#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs every case of the corpus, broken and fixed, in every mode that its programs were built for, and
# compares with what each case says. With --table it prints the table of docs/safety.md instead; with
# --document FILE it also wants that table to stand in the file.
# Usage: run.sh PROGRAMS [--table | --document FILE]
set -u
programs=$1
ulimit -c 0
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
export CAIRN_SYMBOLIZER=0
modes="default checked guard instrumented"
unset CAIRN_GUARD CAIRN_POLICY CAIRN_REPORT

# What a case does in a mode: R and the title, - for nothing, or what should not be.
outcome() { # mode name way
    local guard= program=$programs/corpus_$1
    [ "$1" != guard ] || { guard=1; program=$programs/corpus_default; }
    timeout 60 env ${guard:+CAIRN_GUARD=1} "$program" "$2" "$3" >"$work/out" 2>"$work/err"
    local status=$?
    if [ $status = 134 ] && head -1 "$work/err" | grep -q '^cairn: '; then
        echo "R $(head -1 "$work/err" | sed 's/^cairn: //')"
    elif [ $status = 0 ] && [ ! -s "$work/err" ]; then
        echo -
    else
        echo "? exit $status: $(head -3 "$work/err" | tr '\n' ' ')"
    fi
}

failed=0
complain() {
    echo "$*" >&2
    failed=1
}

rows=
while read -r name caught titles; do
    position=0
    row="| \`$name\` |"
    for mode in $modes; do
        wanted=${caught:position:1}
        position=$((position + 1))
        got=$(outcome "$mode" "$name" bad)
        [ "${got:0:1}" = "$wanted" ] || complain "$name, $mode: wanted $wanted, got $got"
        if [ "${got:0:1}" = R ]; then
            grep -qE "^($titles)" <<<"${got:2}" || complain "$name, $mode: wanted $titles, got $got"
        fi
        row="$row $([ "${got:0:1}" = R ] && echo yes || echo no) |"
        got=$(outcome "$mode" "$name" fixed)
        [ "$got" = - ] || complain "$name, $mode, fixed: $got"
    done
    rows="$rows$row"$'\n'
done < <("$programs/corpus_default")
table="| case | default | checked | guard | instrumented |
|---|---|---|---|---|
${rows%$'\n'}"
count=$(grep -c . <<<"$rows")
case "${2:-}" in
--table) echo "$table" ;;
--document)
    while read -r line; do
        grep -qxF "$line" "$3" || complain "$3 lacks: $line"
    done <<<"$table"
    ;;
esac
[ "${2:-}" = --table ] || echo "$count cases, $([ $failed = 0 ] && echo "all as they should be" || echo "some failed")"
exit $failed
