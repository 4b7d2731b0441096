#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Removes the files that an install put in place, then the folders of our own name that are empty.
# Usage: uninstall.sh MANIFEST
set -u
manifest="${1:?the install manifest}"
[ -f "$manifest" ] || { echo "nothing was installed from here: no $manifest" >&2; exit 1; }
# The manifest has no newline at its end.
{ cat "$manifest"; echo; } | while IFS= read -r file; do
    [ -n "$file" ] || continue
    rm -f "${DESTDIR:-}$file" && echo "removed ${DESTDIR:-}$file"
    folder=$(dirname "$file")
    case "$folder" in */cairn) rmdir "${DESTDIR:-}$folder" 2>/dev/null ;; esac
done
rm -f "$manifest"
