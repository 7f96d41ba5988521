#!/bin/sh
# SPDX-License-Identifier: MIT
# What cannot move is refused by name; once it is gone, the move succeeds.
. "$(dirname "$0")/lib.sh"
while read -r what says; do
	mover env -x -- ./refuse "$what" && moved 1 && grep -q "refused: .*$says" "$work/out"
	ok $? "$what: \"$says\""
done <<END
child running child process
socket descriptor [0-9]*: a socket that is not the job's: UDP, socket:
fifo descriptor [0-9]*: a pipe that is not the job's
pipe descriptor [0-9]*: a pipe that is not the job's
device descriptor [0-9]*: device /dev/
memfd mapping /memfd:mine
inotify descriptor [0-9]*: anon_inode:inotify
END
plan
