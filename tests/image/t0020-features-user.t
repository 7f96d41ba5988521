#!/bin/sh
# SPDX-License-Identifier: MIT
# The same as an ordinary user with no_new_privs. MSOCK_TEST_LONG: three times there and back.
. "$(dirname "$0")/lib.sh"
command -v setpriv >/dev/null || { echo "1..0 # SKIP setpriv (util-linux) is missing"; exit 0; }
MOVES=$([ "${MSOCK_TEST_LONG:-0}" = 1 ] && echo 6 || echo 1)
export MOVES
for f in $("$work/feature"); do
	feature "$as_user" "$f" "$f as a user with no_new_privs"
done
plan
