#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Checkers from outside report what is wrong with objects, and nothing that is right: broken programs
# of the corpus and their fixed twins, and a program that uses everything (quiet.c).
# Usage: run.sh asan SOURCES COMPILER LINK_OPTION...   builds them with AddressSanitizer, not Cairn
#        run.sh memcheck CORPUS QUIET TEST...          runs the programs as they are under valgrind;
#                                                      tests must pass and nothing be reported
# Exits with 77 if there is no such checker.
set -u
mode=$1
shift
ulimit -c 0
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
export CAIRN_SYMBOLIZER=0
unset CAIRN_CHECKER CAIRN_GUARD CAIRN_POLICY CAIRN_REPORT CAIRN_STACKS

failed=0
complain() {
    echo "$*" >&2
    head -20 "$work/err" >&2
    failed=1
}

# What the checker's own reports begin with; those of Cairn do not count here.
wants() { # pattern program argument...
    local pattern=$1
    shift
    run "$@" && complain "$*: ended well"
    grep -qE "$pattern" "$work/err" || complain "$*: no such report"
}
wants_silence() {
    run "$@" || complain "$*: exit $?"
    [ ! -s "$work/err" ] || complain "$*: said something"
}

case $mode in
asan)
    sources=$1 compiler=$2
    shift 2
    build() { # output source...
        local output=$1
        shift
        "$compiler" -std=gnu17 -g -O1 -fsanitize=address -I"$sources/include" "$@" -o "$output"
    }
    echo 'int main(void) { return 0; }' >"$work/empty.c"
    if ! build "$work/empty" "$work/empty.c" 2>/dev/null || ! "$work/empty"; then
        echo "SKIPPED: $compiler has no AddressSanitizer here"
        exit 77
    fi
    build "$work/corpus" "$sources"/tests/corpus/*.c "$@" || exit 2
    build "$work/quiet" "$sources/tests/checker/quiet.c" "$@" || exit 2
    run() { ASAN_OPTIONS=symbolize=0:${options:-} timeout 60 "$@" >/dev/null 2>"$work/err"; }
    report="ERROR: AddressSanitizer: use-after-poison"
    corpus=$work/corpus quiet=$work/quiet
    cases="read_of_a_copy write_to_a_copy read_of_a_copy_after_allocations assignment_of_a_struct
        memcpy_from_a_deleted_object strcmp_of_a_deleted_string read_of_deleted_memory
        read_of_a_deleted_aligned_object read_of_a_deleted_large_object write_to_a_deleted_huge_object
        read_of_a_reclaimed_object write_to_a_reclaimed_object
        read_a_byte_past_an_object write_a_word_past_an_object memset_past_an_object
        read_a_byte_before_an_object write_a_word_before_an_object write_past_a_block_in_a_heap
        read_of_a_copy_in_a_heap read_in_a_thread_of_what_its_creator_deleted"
    ;;
memcheck)
    if ! command -v valgrind >/dev/null || ! valgrind -q true >/dev/null 2>&1; then
        echo "SKIPPED: no valgrind"
        exit 77
    fi
    corpus=$1 quiet=$2
    shift 2
    if valgrind -q "$corpus" 2>&1 | grep -q "debuginfo reader"; then
        echo "SKIPPED: this valgrind cannot read what the compiler says for debuggers"
        exit 77
    fi
    run() { timeout 60 valgrind -q --error-exitcode=9 ${options:-} "$@" >/dev/null 2>"$work/err"; }
    report="== (Invalid (read|write) of size|Conditional jump)"
    cases="read_of_a_copy write_to_a_reclaimed_object read_of_a_deleted_large_object
        strcmp_of_a_deleted_string read_a_byte_past_an_object write_a_word_past_an_object
        read_a_byte_before_an_object write_past_a_block_in_a_heap
        read_in_a_thread_of_what_its_creator_deleted"
    ;;
*) exit 2 ;;
esac

count=0
for name in $cases; do
    wants "$report" "$corpus" "$name" bad
    wants_silence "$corpus" "$name" fixed
    count=$((count + 1))
done
if [ "$mode" = asan ]; then
    wants "$report" "$quiet" past
    wants "99 byte\(s\) leaked" "$quiet" leak
    for options in detect_stack_use_after_return=0 detect_stack_use_after_return=1; do
        wants_silence "$quiet"
    done
    # Without word from Cairn a heap is one mapping like any other.
    CAIRN_CHECKER=0 wants_silence "$corpus" read_of_a_copy bad
else
    wants "$report" "$quiet" past
    wants_silence "$quiet"
    for test in "$@"; do
        run "$test" || complain "$test: exit $?"
        ! grep -q "^==" "$work/err" || complain "$test: was reported"
    done
fi
echo "$count cases, $([ $failed = 0 ] && echo "all as they should be" || echo "some failed")"
exit $failed
