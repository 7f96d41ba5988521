#!/bin/sh
# SPDX-License-Identifier: MIT
# Each feature is moved, and still does what it did. With the privileges that the test has.
. "$(dirname "$0")/lib.sh"
for f in $("$work/feature"); do
	least=3
	case $f in sleeping) least=1 ;; esac
	mover env -- ./feature "$f" "$work/dir" && moved $least
	ok $? "$f"
done
plan
