#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs an aarch64 program under qemu-user. Debian 12's walks every page of a mapping that a program
# makes, which for shadows of the whole address space would take hours; the limit makes them narrow.
ulimit -v 33554432
exec qemu-aarch64 -L /usr/aarch64-linux-gnu "$@"
