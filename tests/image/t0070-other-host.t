#!/bin/sh
# SPDX-License-Identifier: MIT
# A host with another kernel's vdso, with another processor, where somebody took the lock: by force, on this host.
. "$(dirname "$0")/lib.sh"
MOVES=$([ "${MSOCK_TEST_LONG:-0}" = 1 ] && echo 6 || echo 3)
OTHER_VDSO=1
export MOVES OTHER_VDSO
for f in vdso clocks clock-loop monotonic-deadline posix-timers threads; do
	mover env -w other-vdso -- ./feature "$f" "$work/dir" && moved "$MOVES"
	ok $? "$f: each time another vdso"
	mover "$as_user" -w other-vdso -- ./feature "$f" "$work/dir" && moved "$MOVES"
	ok $? "$f: each time another vdso, as a user with no_new_privs"
done
unset OTHER_VDSO
mover env -- ./feature vdso "$work/dir"
ok $? "vdso: unless it is forced, it is where it was"
mover env -f other-processor -- ./feature rounding "$work/dir" && moved "$MOVES" &&
	grep -q "this processor lacks registers that the member uses: APX, as it should" "$work/out"
ok $? "a processor without registers that the member uses is refused; the program goes on"
echo >"$work/dir/locked"
mover env -k "$work/dir/locked" -- ./feature lost-lock "$work/dir"
[ $? = 125 ] && grep -q "^msock: the lock on descriptor [0-9]* was lost to another process in a move$" "$work/out" &&
	! grep -q "went on" "$work/out"
ok $? "a lock that another process has taken meanwhile: the member ends and names it"
plan
