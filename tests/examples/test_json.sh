#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The json example against jansson: test_json.sh JSON COMPARE_JANSSON
#
# Every file of iso-codes and some of our own must survive reading and writing; bad files must be
# refused with the right place, message and exit status; questions must be answered; and the resident
# memory after a hundred rounds may be at most half as much again as after ten: on a loaded machine pauses
# end earlier by the clock and leave more decrements queued (a round allocates as much as is live).
set -u

if [ $# -ne 2 ]; then
    echo "usage: test_json.sh JSON COMPARE_JANSSON" >&2
    exit 2
fi
json=$1
compare=$2
iso=/usr/share/iso-codes/json
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failures=0

fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}

# same FILE: what the example writes is what jansson reads in the file.
same() {
    if ! "$json" --print "$1" >"$dir/out" 2>"$dir/err"; then
        fail "$1: $(cat "$dir/err")"
    elif ! "$compare" "$1" "$dir/out"; then
        fail "$1: written differently"
    elif ! "$json" --print "$dir/out" | cmp -s - "$dir/out"; then
        fail "$1: the second writing differs from the first"
    fi
}

# good TEXT: the same for a text, with printf's escapes.
good() {
    printf "$1" >"$dir/good.json"
    same "$dir/good.json"
}

# run STATUS STDOUT STDERR ARGUMENT...: exit status and output, which must contain what is given.
run() {
    local status=$1 out=$2 err=$3 actual
    shift 3
    "$json" "$@" >"$dir/out" 2>"$dir/err"
    actual=$?
    [ $actual -eq "$status" ] || fail "json $*: exit status $actual, not $status"
    if [ -n "$out" ]; then
        grep -qF -- "$out" "$dir/out" || fail "json $*: no '$out' in: $(head -c 300 "$dir/out")"
    elif [ -s "$dir/out" ]; then
        fail "json $*: unexpected output: $(head -c 300 "$dir/out")"
    fi
    if [ -n "$err" ]; then
        grep -qF -- "$err" "$dir/err" || fail "json $*: no '$err' in: $(head -c 300 "$dir/err")"
    elif [ -s "$dir/err" ]; then
        fail "json $*: unexpected message: $(head -c 300 "$dir/err")"
    fi
}

# bad PLACE MESSAGE TEXT: the text, with printf's escapes, is refused there.
bad() {
    printf "$3" >"$dir/bad.json"
    run 1 "" "json: $dir/bad.json:$1: $2" --print "$dir/bad.json"
}

repeat() {
    printf "%0${2}d" 0 | sed "s/0/$1/g"
}

found=0
for file in "$iso"/*.json; do
    [ -e "$file" ] || continue
    same "$file"
    found=$((found + 1))
done
[ $found -gt 0 ] || fail "$iso: no files; is iso-codes installed?"

good ' {} '
good '[]'
good 'null'
good '"text"'
good '[true, false, null, 0, -1, 9223372036854775807, -9223372036854775808]'
good '[0.0, 1.5, -2.5e-3, 1E5, 1e+2, 0.1, 1.7976931348623157e308, 5e-324, 123456789.123456789]'
good '["\\u0041\\u00e4\\u20AC\\uD83D\\uDE00\\"\\\\\\/\\b\\f\\n\\r\\t", "\\u0000\\u001f\\u007f", ""]'
good '["\303\244 \342\202\254 \360\237\230\200 \357\277\277"]'
good '{"": 1, "b": {"a": [[], {}]}, "a": 3}'
good '{"a": 1, "b": 2, "a": 3}'
good '\t\r\n[1\t,\r2\n]\n'
good "{$(for i in $(seq 1000); do printf '"key %d": [%d, "%d"], ' $((i * 7919 % 1000)) $i $i; done)\"end\": 0}"
good "$(repeat '[' 512)$(repeat ']' 512)"

bad 1:1 "unexpected end of the document" ''
bad 2:1 "unexpected end of the document" '[1,\n'
bad 1:2 "unexpected end of the document" '['
bad 1:1 "a value is expected" 'nul'
bad 1:1 "a value is expected" "'a'"
bad 1:4 "a value is expected" '[1,]'
bad 1:1 "a value is expected" '\357\273\277[]'
bad 1:4 "',' or ']' is expected" '[1 2]'
bad 2:3 "',' or '}' is expected" '{"a": 1\n  "b": 2}'
bad 1:2 "a key in quotes is expected" '{a: 1}'
bad 1:9 "a key in quotes is expected" '{"a": 1,}'
bad 1:6 "':' is expected" '{"a" 1}'
bad 1:4 "nothing may follow the document" '[] []'
bad 1:3 "nothing may follow the document" '[]\0'
bad 1:2 "this is not a number" '[01]'
bad 1:2 "this is not a number" '[-]'
bad 1:2 "this is not a number" '[1.]'
bad 1:2 "this is not a number" '[1e]'
bad 1:3 "',' or ']' is expected" '[0x10]'
bad 1:2 "a value is expected" '[+1]'
bad 1:2 "a value is expected" '[.5]'
bad 1:2 "a value is expected" '[NaN]'
bad 1:2 "this number is out of range" '[9223372036854775808]'
bad 1:2 "this number is out of range" '[-9223372036854775809]'
bad 1:2 "this number is out of range" '[1e400]'
bad 3:1 "this string is not closed" '\n\n"abc'
bad 1:1 "this string is not closed" '"abc\\'
bad 1:1 "this string is not closed" '"abc\\"'
bad 1:4 "a control character in a string must be escaped" '["a\n"]'
bad 1:4 "a control character in a string must be escaped" '["a\0"]'
bad 1:3 "there is no such escape" '["\\x"]'
bad 1:5 "\\u needs four hexadecimal digits" '["\303\244\303\244\\u12"]'
bad 1:5 "\\u needs four hexadecimal digits" '["ab\\u12g4"]'
bad 1:3 "half of a surrogate pair stands alone" '["\\ud83d"]'
bad 1:3 "half of a surrogate pair stands alone" '["\\ud83d\\u0041"]'
bad 1:3 "half of a surrogate pair stands alone" '["\\ude00\\ud83d"]'
bad 1:5 "this is not valid UTF-8" '["ab\300\200"]'
bad 1:3 "this is not valid UTF-8" '["\355\240\200"]'
bad 1:3 "this is not valid UTF-8" '["\364\220\200\200"]'
bad 1:3 "this is not valid UTF-8" '["\342\202"]'
bad 1:513 "this is nested deeper than 512 levels" "$(repeat '[' 513)$(repeat ']' 513)"
bad 1:2561 "this is nested deeper than 512 levels" "$(repeat '{"a":' 100000)"

run 1 "" "No such file or directory" "$dir/absent.json"
run 1 "" "Is a directory" "$dir"
run 2 "" "Try 'json --help'" --unknown
run 2 "" "option '--rounds' requires an argument" --rounds
run 2 "" "--rounds needs a number" --rounds -1
run 2 "" "--rounds needs a number" --rounds 10x
run 2 "" "--rounds needs a number" --rounds 99999999999999999999
run 2 "" "'~' must be followed by 0 or 1" --query /a~2
run 0 "usage: json" "" --help

# jansson takes no NUL in a key.
printf '{"a": 1, "a\\u0000b": 2}' >"$dir/nul.json"
run 0 '"a\u0000b": 2' "" --print "$dir/nul.json"
printf '{"a.b": [10, {"c/d~": "x"}], "c": {"a": [5], "d": "\\u00e4", "e": {"d": 1}}}' >"$dir/q.json"
run 0 '"ä"' "" --query c.d "$dir/q.json"
run 0 5 "" --query c.a.0 "$dir/q.json"
run 0 10 "" --query /a.b/0 "$dir/q.json"
run 0 '"x"' "" --query /a.b/1/c~1d~0 "$dir/q.json"
run 0 '"a.b": [' "" --query "" "$dir/q.json"
for path in a.b c.a.1 c.a.00 c.a.-1 c.a.x c.d.e /a.b/ /nothing c.a.18446744073709551616; do
    run 1 "" "json: $path: there is nothing at this path" --query "$path" "$dir/q.json"
done
run 0 "d: 2 values, 2 different" "" --count d "$dir/q.json"
if [ -e "$iso/iso_639-3.json" ]; then
    run 0 '"Ghotuo"' "" --query 639-3.0.name
    count=$(grep -c '"scope": "I"' "$iso/iso_639-3.json")
    run 0 "$count \"I\"" "" --count scope "$iso/iso_639-3.json"
fi
[ ! -w /dev/full ] || ! "$json" --print "$dir/q.json" >/dev/full 2>"$dir/err" || fail "a full disk"

# resident ROUND: the resident memory after that round, in KiB.
resident() {
    awk -v round="$1" '$1 == round { print $5 }' "$dir/figures"
}

if "$json" --rounds 100 >"$dir/figures" 2>"$dir/err"; then
    tenth=$(resident 10)
    last=$(resident 100)
    if [ -z "$tenth" ] || [ -z "$last" ] || [ "$tenth" -le 0 ]; then
        fail "no figures: $(cat "$dir/figures")"
    elif [ $((last * 10)) -gt $((tenth * 15)) ]; then
        fail "resident memory grew from $tenth to $last KiB: $(cat "$dir/figures")"
    fi
else
    fail "100 rounds: $(cat "$dir/err")"
fi
run 0 "      3 " "" --rounds 3 "$dir/q.json"
# The key that marks a round must be none of the documents' own.
echo '{"round_": 1}' >"$dir/one.json"
echo '[{"round": 2}]' >"$dir/two.json"
run 0 "      4 " "" --rounds 4 "$dir/one.json" "$dir/two.json"

[ $failures -eq 0 ] && echo "json: all is well, $found files of iso-codes"
[ $failures -eq 0 ]
