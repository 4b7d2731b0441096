#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The off switches: CAIRN_SIGNAL moves the stop signal, CAIRN_INTERPOSE=0 leaves libc alone, bad
# values are clear errors. Usage: test_switches.sh PROGRAM, built from switches.c
set -u
program=$1
failed=0

expect() { # status, text, environment...
    local status=$1 text=$2 output got
    shift 2
    output=$(env "$@" timeout 60 "$program" 2>&1)
    got=$?
    if [ "$got" != "$status" ] || ! grep -q -- "$text" <<<"$output"; then
        echo "$*: status $got instead of $status, or no '$text' in: $output"
        failed=1
    fi
}

expect 0 "stopped by 23, waits told: yes"
expect 0 "stopped by 10, waits told: yes" CAIRN_SIGNAL=10
expect 0 "stopped by 40, waits told: yes" CAIRN_SIGNAL=40
expect 0 "stopped by 23, waits told: no" CAIRN_INTERPOSE=0
expect 134 "CAIRN_SIGNAL=9 cannot stop threads" CAIRN_SIGNAL=9
expect 134 "CAIRN_SIGNAL=11 cannot stop threads" CAIRN_SIGNAL=11
expect 134 "CAIRN_SIGNAL=33 cannot stop threads" CAIRN_SIGNAL=33
expect 134 "CAIRN_SIGNAL=65 cannot stop threads" CAIRN_SIGNAL=65
expect 134 "CAIRN_SIGNAL=x is not understood" CAIRN_SIGNAL=x
expect 134 "CAIRN_INTERPOSE=2 is not understood" CAIRN_INTERPOSE=2
exit $failed
