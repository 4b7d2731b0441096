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

# What a case does in a mode, into `got`: R and the title, - for nothing, or what should not be.
# With what bash has built in: there are thousands of runs, and each is short.
outcome() { # mode name way
    local program=$programs/corpus_$1 status first=
    if [ "$1" = guard ]; then
        CAIRN_GUARD=1 timeout 60 "$programs/corpus_default" "$2" "$3" >"$work/out" 2>"$work/err"
    else
        timeout 60 "$program" "$2" "$3" >"$work/out" 2>"$work/err"
    fi
    status=$?
    read -r first <"$work/err"
    if [ $status = 134 ] && [ "${first#cairn: }" != "$first" ]; then
        got="R ${first#cairn: }"
    elif [ $status = 0 ] && [ ! -s "$work/err" ]; then
        got=-
    else
        got="? exit $status: $(<"$work/err")"
    fi
}

# bash tells of each program that aborts: not wanted.
exec 3>&2 2>/dev/null
failed=0
complain() {
    echo "$*" >&3
    failed=1
}

rows=
while read -r name caught titles; do
    position=0
    row="| \`$name\` |"
    for mode in $modes; do
        wanted=${caught:position:1}
        position=$((position + 1))
        outcome "$mode" "$name" bad
        [ "${got:0:1}" = "$wanted" ] || complain "$name, $mode: wanted $wanted, got $got"
        if [ "${got:0:1}" = R ]; then
            [[ ${got:2} =~ ^($titles) ]] || complain "$name, $mode: wanted $titles, got $got"
        fi
        case $got in
        R*) row="$row yes |" ;;
        *) row="$row no |" ;;
        esac
        outcome "$mode" "$name" fixed
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
    document=$(<"$3")
    while read -r line; do
        [[ $'\n'$document$'\n' == *$'\n'"$line"$'\n'* ]] || complain "$3 lacks: $line"
    done <<<"$table"
    ;;
esac
[ "${2:-}" = --table ] || echo "$count cases, $([ $failed = 0 ] && echo "all as they should be" || echo "some failed")"
exit $failed
