#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The contract as the compilers see it: what must compile does without a warning and runs, what must
# be refused is, for the right reason. Usage: run.sh COMPILER INCLUDE ARCHIVE WORK
set -u
compiler=$1
include=$(cd "$2" && pwd) || exit 2
archive=$(realpath "$3") || exit 2
work=$(realpath "$4")/contract-$compiler
cd "$(dirname "$0")" || exit 2
rm -rf "$work"
mkdir -p "$work" || exit 2
export LC_ALL=C
warnings="-Wall -Wextra -Wshadow -Wconversion -Wcast-qual -pedantic -Werror"
checks=0
bad=0
failed() {
    echo "FAILED: $*"
    bad=1
}
accepts() { # a command
    checks=$((checks + 1))
    "$@" >"$work/log.txt" 2>&1 || { failed "$*"; head -n 20 "$work/log.txt"; }
}
refuses() { # a pattern of the message, then a command
    local reason=$1
    shift
    checks=$((checks + 1))
    if "$@" >"$work/log.txt" 2>&1; then
        failed "accepted: $*"
    elif ! grep -E '(error|warning):' "$work/log.txt" | grep -qE -e "$reason"; then
        failed "refused, but not for /$reason/: $*"
        grep -E '(error|warning):' "$work/log.txt" | head -n 5
    fi
}

# Without -Werror: a refusal is an error by itself, but where C has a warning only.
refusals() { # c|c++, command...
    local language=$1 name reasons reason strict
    shift
    while IFS='|' read -r name reasons; do
        reason=${reasons%% ## *}
        [ "$language" = c ] || reason=${reasons##* ## }
        [ "$reason" != - ] || continue
        strict=""
        case $name in
        ADDRESS_AS_MUTABLE | NEW_INTO_OTHER | MAKE_WITH_OTHER | PIN_INTO_OTHER | STATUS_IGNORED | \
            FORMAT_WRONG) strict="-Wall -Werror" ;;
        esac
        refuses "$reason" "$@" $strict -c -o /dev/null -D"$name" fail.c
    done < <(sed -nE "s/^#(el)?if defined\(([A-Z_]+)\) \/\/: (.*)/\2|\3/p" fail.c)
}
# Two files, in the language at hand and in C, as one program.
runs() { # name, command...
    local name=$1
    shift
    accepts "$@" $warnings -O2 -c main.c -o "$work/$name.o"
    accepts gcc -std=c17 $warnings -O2 -I"$include" -c other.c -o "$work/other.o"
    accepts g++ "$work/$name.o" "$work/other.o" "$archive" -pthread -o "$work/$name"
    accepts "$work/$name"
}

case $compiler in
*++)
    language=c++
    standards="c++17 c++20"
    ;;
*)
    language=c
    standards="c11 c17 c2x"
    ;;
esac
command -v "$compiler" >/dev/null || failed "no $compiler"
for header in "$include"/cairn/*.h; do
    printf '#include "%s"\nextern int a_declaration;\n' "$header" >"$work/alone.c"
    accepts $compiler -x $language -std=${standards%% *} $warnings -I"$include" -fsyntax-only "$work/alone.c"
done
for standard in $standards; do
    accepts $compiler -x $language -std=$standard -I"$include" $warnings -fsyntax-only fail.c
    accepts $compiler -x $language -std=$standard -I"$include" -DCAIRN_CHECKED $warnings -fsyntax-only fail.c
    runs $standard $compiler -x $language -std=$standard -I"$include"
done
# What is refused does not hang on the standard, and there are hundreds.
refusals $language $compiler -x $language -std=${standards%% *} -I"$include"
refusals $language $compiler -x $language -std=${standards##* } -I"$include" -DCAIRN_CHECKED
runs sites $compiler -x $language -std=${standards%% *} -I"$include" -DCAIRN_SITES
runs checked $compiler -x $language -std=${standards%% *} -I"$include" -DCAIRN_CHECKED

# Up to 340 fields, and one more is refused, not forgotten.
fields() { # count
    echo '#include <cairn/cairn.h>'
    echo 'typedef cairn_ref(void) Ref; typedef struct {'
    for ((i = 0; i < $1; i++)); do echo "Ref f$i;"; done
    echo '} Wide; CAIRN_TYPE(Wide'
    for ((i = 0; i < $1; i++)); do echo ", f$i"; done
    echo ');'
    echo "extern int check[sizeof(cairn_fields_of_Wide) == $1 * sizeof(struct cairn_field) ? 1 : -1];"
}
if [ $language = c ]; then
    fields 340 >"$work/wide.c"
    accepts $compiler -std=c11 $warnings -I"$include" -fsyntax-only "$work/wide.c"
    fields 430 >"$work/wide.c"
    refuses "CAIRN_EACH" $compiler -std=c11 -I"$include" -fsyntax-only "$work/wide.c"
fi
rm -rf "$work"
echo "$checks checks of the contract"
exit $bad
