#!/bin/sh
# SPDX-License-Identifier: MIT
# Debug mode: all memory is compared in the freeze, page by page. A page that is forgotten is found and named.
# MSOCK_TEST_LONG: 1,000 moves, of all features, half of them as an ordinary user with no_new_privs.
. "$(dirname "$0")/lib.sh"
moves=0
pages=0
count() { # adds up what the last run compared; each move must have
	moves=$((moves + $(grep -c 'step restorer summed' "$work/out")))
	pages=$((pages + $(sed -n 's/^mover: step restorer summed .* \([0-9]*\)$/\1/p' "$work/out" | awk '{ n += $1 } END { print n + 0 }')))
	if grep -q 'step restorer summed .* 0$' "$work/out"; then
		ok 1 "every move compares"
	fi
}

for f in writer heap; do
	mover env -d -v -f forgets-pages -- ./feature $f "$work/dir" && grep -q 'memory differs at the target: page [0-9a-f]* of .*, as it should' "$work/out"
	ok $? "$f: a page that is forgotten is named, and the move given up"
done
if [ "${MSOCK_TEST_LONG:-0}" = 1 ]; then
	list=$("$work/feature")
	MOVES=5
	modes="env as-user"
else
	list="pattern writer threads file-maps shared-twice"
	MOVES=3
	modes=env
fi
export MOVES
for mode in $modes; do
	for f in $list; do
		[ $mode = as-user ] && run=$as_user || run=env
		feature "$run" "$f" "$f: equal, $mode" -d -v && count
	done
done
if [ "${MSOCK_TEST_LONG:-0}" = 1 ]; then
	while [ "$moves" -lt 1000 ]; do
		MOVES=50
		before=$moves
		feature env writer "writer: equal, 50 moves" -d -v && count
		[ "$moves" -gt "$before" ] || break
	done
fi
echo "# $moves moves, $pages pages compared"
[ "$moves" -ge 3 ] && [ "$pages" -gt 1000 ]
ok $? "pages were compared"
plan
