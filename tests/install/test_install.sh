#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Installs a build to a prefix of its own, builds and runs programs against it and against the
# embedded sources, looks at what the shared library exports and needs, and uninstalls. With
# --installed-only nothing is built from embedded sources: once, with one compiler, is enough.
# Usage: test_install.sh SOURCE BUILD CC [--installed-only]
set -u
source=$1
build=$2
cc=$3
ways="package subdirectory fetch"
[ "${4:-}" != --installed-only ] || ways=package
work=$build/test_install
prefix=$work/prefix
consumer=$source/tests/install/consumer
failed() {
    echo "FAILED: $*" >&2
    exit 1
}
run() { # what, then a command whose output is shown only if it fails
    local what=$1
    shift
    "$@" >"$work/log.txt" 2>&1 || { cat "$work/log.txt"; failed "$what: $*"; }
}
rm -rf "$work"
mkdir -p "$work" || exit 2

run install cmake --install "$build" --prefix "$prefix"
version=$(sed -n 's/^#define CAIRN_RUNTIME_VERSION \([0-9]*\)u$/\1/p' "$prefix/include/cairn/runtime.h")
[ -n "$version" ] || failed "no CAIRN_RUNTIME_VERSION"
library=$(find "$prefix" -name "libcairn.so.$version")
[ -n "$library" ] || failed "libcairn.so.$version is not installed"
libraries=$(dirname "$library")
export LD_LIBRARY_PATH=$libraries PKG_CONFIG_PATH=$libraries/pkgconfig
diff <(cd "$source/include" && find . -name '*.h' | sort) \
    <(cd "$prefix/include" && find . -type f | sort) || failed "the installed headers differ"

# ---- What the shared library shows and wants
readelf -d "$library" >"$work/dynamic.txt"
grep -q "SONAME.*\[libcairn\.so\.$version\]" "$work/dynamic.txt" || failed "soname"
needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic.txt" | grep -v '^libc\.so\.6$')
[ -z "$needed" ] || failed "needs more than libc: $needed"
libc=$(ldd "$library" | sed -n 's/.*=> \(.*libc\.so\.6\) .*/\1/p')
nm -D --defined-only "$libc" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/libc.txt"
interposed=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    grep -v '^cairn_' | sort)
foreign=$(comm -23 - "$work/libc.txt" <<<"$interposed")
[ -z "$foreign" ] || failed "exports besides cairn_* what libc has not: $foreign"
for name in pthread_create pthread_setspecific poll nanosleep; do
    grep -qx $name <<<"$interposed" || failed "$name is not interposed"
done

# ---- gdb loads its script by itself, for the library and for programs with the archive, stripped ones too
# The program has done all its work when it ends.
cairn_in_gdb() { # what, safe path, scripts folder, program
    command -v gdb >/dev/null && gdb -batch -ex 'python 1' 2>&1 | cmp -s - /dev/null || return 0
    gdb -nx -batch -iex "add-auto-load-safe-path $2" -iex "set auto-load scripts-directory $3" \
        -ex 'catch syscall exit_group' -ex run -ex 'cairn heap' "$4" >"$work/gdb.txt" 2>&1
    grep -q '^heap default: ' "$work/gdb.txt" || { cat "$work/gdb.txt"; failed "$1: gdb has no cairn heap"; }
}

# ---- CMake. What is embedded is built as it comes, without optimisation: that is looked at elsewhere.
for way in $ways; do
    run "$way" cmake -S "$consumer" -B "$work/$way" -DWAY=$way -DCMAKE_C_COMPILER="$cc" \
        -DCMAKE_PREFIX_PATH="$prefix" -DCAIRN_SOURCE="$source"
    case $way in
    package) kinds="cairn cairn_static" ;;
    subdirectory) kinds=cairn ;;
    fetch) kinds=cairn_static ;;
    esac
    for kind in $kinds; do
        run "$way" cmake --build "$work/$way" --target "with_$kind"
        run "$way, $kind" "$work/$way/with_$kind"
        is_dynamic=$(readelf -d "$work/$way/with_$kind" | grep -c 'NEEDED.*libcairn')
        [ "$is_dynamic" = "$([ $kind = cairn ] && echo 1 || echo 0)" ] ||
            failed "$way: cairn::$kind is the wrong library"
    done
    [[ $kinds != *static ]] || nm "$work/$way/with_cairn_static" | grep -q ' T pthread_create' ||
        failed "$way: the archive does not interpose"
    [ $way = package ] || [ ! -e "$work/$way/cairn/tests" ] || failed "$way: builds the tests"
done

# ---- pkg-config
flags=$(pkg-config --cflags --libs cairn) || failed "pkg-config"
run "pkg-config" "$cc" -o "$work/shared" "$consumer/main.c" $flags
run "pkg-config" "$work/shared"
readelf -d "$work/shared" | grep -q 'NEEDED.*libcairn' || failed "pkg-config: not the shared library"
scripts=$(find "$prefix" -type d -path '*/gdb/auto-load')
cairn_in_gdb "shared" "$scripts" "$scripts" "$work/shared"
strip --strip-unneeded "$(readlink -f "$library")"
cairn_in_gdb "shared, stripped" "$scripts" "$scripts" "$work/shared"

# ---- Programs with sanitizers, on the library without. Some hide where threads' locals lie.
for kind in address thread; do
    if ! echo 'int main(void) { return 0; }' |
        "$cc" -fsanitize=$kind -x c -o "$work/probe" - 2>/dev/null || ! "$work/probe"; then
        continue
    fi
    run "sanitizer" "$cc" -g -fsanitize=$kind -o "$work/sanitized" "$consumer/main.c" $flags
    for _ in 1 2 3; do run "sanitizer $kind" timeout 60 "$work/sanitized"; done
done

# ---- A program without a dynamic linker
if [ "$ways" != package ]; then
    run "static" cmake -S "$source" -B "$work/plain" -DCAIRN_BUILD_TESTS=OFF -DCAIRN_BUILD_EXAMPLES=OFF \
        -DCAIRN_INTERPOSE=OFF -DCMAKE_C_COMPILER="$cc" \
        -DCMAKE_INSTALL_PREFIX="$work/plain-prefix"
    run "static" cmake --build "$work/plain" --target install -j2
    pc=$(dirname "$(find "$work/plain-prefix" -name cairn.pc)")
    flags=$(PKG_CONFIG_PATH=$pc pkg-config --static --cflags --libs cairn) || failed "pkg-config --static"
    run "pkg-config --static" "$cc" -static -o "$work/static" "$consumer/main.c" $flags
    run "pkg-config --static" "$work/static"
    scripts=$(find "$work/plain-prefix" -type d -path '*/gdb/auto-load')
    cairn_in_gdb "static" "$scripts" /nowhere "$work/static"
    strip "$work/static"
    cairn_in_gdb "static, stripped" "$scripts" /nowhere "$work/static"
fi

# ---- And away again
run uninstall cmake --build "$build" --target uninstall
left=$(find "$prefix" ! -type d -o -name '*cairn*')
[ -z "$left" ] || failed "uninstall leaves $left"
rm -rf "$work"
echo "install: every way of use works, and uninstall leaves nothing"
