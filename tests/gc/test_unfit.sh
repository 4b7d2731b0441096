#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A static program on the archive that interposes ends with one report that names the way out.
# Usage: test_unfit.sh PROGRAM
ulimit -c 0
output=$("$1" 2>&1)
status=$?
if [ "$status" != 134 ] || ! grep -q 'next step: link without -static' <<<"$output"; then
    echo "status $status, output: $output"
    exit 1
fi
