#!/bin/sh
# SPDX-License-Identifier: MIT
# The same as an ordinary user with no_new_privs.
. "$(dirname "$0")/lib.sh"
command -v setpriv >/dev/null || { echo "1..0 # SKIP setpriv (util-linux) is missing"; exit 0; }
for f in $("$work/feature"); do
	least=3
	case $f in sleeping) least=1 ;; esac
	mover "$as_user" -- ./feature "$f" "$work/dir" && moved $least
	ok $? "$f as a user with no_new_privs"
done
plan
