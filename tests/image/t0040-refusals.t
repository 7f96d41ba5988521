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
named mapping /dev/shm/msock-refuse
segment mapping /SYSV
flying descriptor [0-9]*: descriptors are on their way through this socket
listener descriptor [0-9]*: a socket that is not the job's: a unix socket that listens
lease descriptor [0-9]*: a lease or unknown lock
directory the working directory is removed: /tmp/msock-refuse
inotify descriptor [0-9]*: anon_inode:inotify
END
mover env -x -- ./refuse filter && grep -q "refused: the process has a seccomp filter, which cannot move" "$work/out"
ok $? "filter: \"the process has a seccomp filter\""
plan
