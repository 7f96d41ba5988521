#!/bin/sh
# SPDX-License-Identifier: MIT
# Each feature is moved there and back, and still does what it did. With the privileges that the test has.
# MSOCK_TEST_LONG: three times.
. "$(dirname "$0")/lib.sh"
MOVES=$([ "${MSOCK_TEST_LONG:-0}" = 1 ] && echo 6 || echo 2)
export MOVES
for f in $("$work/feature"); do
	feature env "$f" "$f"
done
plan
