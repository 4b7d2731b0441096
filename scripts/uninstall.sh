#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Removes the files that an install put in place, then the folders of theirs that are empty.
# Usage: uninstall.sh MANIFEST
set -u
# Those of our own name, and those that gdb looks through for scripts of a library that is not there.
remove_empty() {
    at=$1
    while case "$at" in */cairn | */cairn/gdb | */cairn/gdb/cairn_gdb | */gdb/auto-load/*) true ;; *) false ;; esac; do
        rmdir "${DESTDIR:-}$at" 2>/dev/null || return
        at=$(dirname "$at")
    done
}
manifest="${1:?the install manifest}"
[ -f "$manifest" ] || { echo "nothing was installed from here: no $manifest" >&2; exit 1; }
# The manifest has no newline at its end.
{ cat "$manifest"; echo; } | while IFS= read -r file; do
    [ -n "$file" ] || continue
    rm -f "${DESTDIR:-}$file" && echo "removed ${DESTDIR:-}$file"
    remove_empty "$(dirname "$file")"
done
rm -f "$manifest"
