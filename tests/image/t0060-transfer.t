#!/bin/sh
# SPDX-License-Identifier: MIT
# How memory goes: stop and copy, compressed, held back, all zeros; what the freeze finds; what a check predicts.
. "$(dirname "$0")/lib.sh"

steps() { # steps NAME: figures of that step, one line a move
	sed -n "s/^mover: step [a-z ]* $1 //p" "$work/out"
}

# The writer zeroes pages that were sent, and looks at them.
for f in writer sparse file-maps; do
	for way in "-s" "-z" "-z -s" "-l 200000000"; do
		mover env -v $way -- ./feature $f "$work/dir" && moved 3
		ok $? "$f: moved with $way"
	done
done

mover env -v -s -- ./feature pattern "$work/dir" && moved 3 && [ -z "$(steps round)" ]
ok $? "stop and copy sends nothing early"
# Without memory that is there already it would be one fault for each of some 2000 pages.
steps summed | awk '{ n++; if ($1 < 1500 || $3 > 200) bad = 1 } END { exit bad || n < 3 }'
ok $? "the target does not fault on what comes in the freeze"
mover env -v -- ./feature pattern "$work/dir" && moved 3
steps sent | awk '{ n++; if ($4 > 200) bad = 1 } END { exit bad || n < 3 }'
ok $? "the source does not fault in the freeze"
steps sent | awk '{ n++; if ($2 < 1 || $3 < 100) bad = 1 } END { exit bad || n < 3 }'
ok $? "zero pages and pages of files are left out"

mover env -v -c -- ./feature pattern "$work/dir" && moved 3 && [ "$(grep -c 'predicted [1-9]' "$work/out")" -ge 3 ]
ok $? "a check predicts, and the program can still be moved"
mover env -v -s -q 0.1 -- ./feature pattern "$work/dir"
[ $? = 125 ] && grep -q 'failed: the freeze would last .* longer than .*--max-freeze' "$work/out"
ok $? "a freeze that would be too long is not begun: stop and copy"
mover env -q 60000 -- ./feature pattern "$work/dir" && moved 3
ok $? "one that is not too long is"
plan
