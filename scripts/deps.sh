#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Installs the Debian packages that a target needs and that are missing; exits 2 where it may not.
set -u
packages="gcc libc6-dev make cmake pkg-config"
case "${1:-}" in
demo) packages="$packages iso-codes" ;;
test)
    packages="$packages iso-codes binutils g++ clang clang-format libclang-rt-14-dev libcmocka-dev"
    packages="$packages libjansson-dev libdw-dev gdb valgrind"
    ;;
aarch64) packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" ;;
musl) packages="$packages musl-tools" ;;
bench) packages="$packages libmimalloc-dev libjemalloc-dev libtcmalloc-minimal4 libgc-dev golang-go time" ;;
*) echo "usage: deps.sh demo|test|bench|aarch64|musl" >&2; exit 2 ;;
esac
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' ||
        missing="$missing $package"
done
[ -z "$missing" ] && exit 0
line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
    as=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as="sudo"
    echo "installing with sudo:$missing"
else
    echo "missing packages; run as root: $line" >&2
    exit 2
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$as $line >/dev/null 2>&1 || { $as apt-get update >/dev/null 2>&1 && $as $line >/dev/null; } || {
    echo "could not install; run as root: $line" >&2
    exit 2
}
