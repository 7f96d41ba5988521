#!/bin/sh
# SPDX-License-Identifier: MIT
# A move that fails before its commit leaves the program as it was; the next move succeeds.
. "$(dirname "$0")/lib.sh"
for f in pattern pending itimers posix-timers in-handler threads robust-mutex offsets events pipes-left socketpair-stream; do
	mover env -a -- ./feature $f "$work/dir" && moved 3 && [ "$(grep -c 'given up, as it should' "$work/out")" = 3 ]
	ok $? "$f: each move is given up once"
done
for fault in bad-sum target-bad-sum target-dies-mid-image target-fails-prepare; do
	for f in pattern pending threads stdio; do
		mover env -f $fault -- ./feature $f "$work/dir" && moved 3 && grep -q 'as it should' "$work/out"
		ok $? "$f: $fault"
	done
done
plan
