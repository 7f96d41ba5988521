#!/bin/bash
# SPDX-License-Identifier: MIT
#
# demo.sh - heat2d on four ranks over three hosts, first left alone, then with ranks that move while it runs.
#
# usage: demo.sh [N [STEPS]]
#
# The hosts are 127.0.0.2 to 127.0.0.4; no root, no set-up. Rank 1 moves once, rank 2 twice. Exit status 0 when every move
# was committed and both runs end with the same checksum. MSOCK_PREFIX says where the product is installed, if not here.
set -u
here=$(cd "$(dirname "$0")" && pwd)
prefix=${MSOCK_PREFIX:-$(cd "$here/../../.." && pwd)}
heat2d=$here/heat2d
[ -x "$heat2d" ] || heat2d=$prefix/libexec/msock/examples/heat2d
size=${1:-512} steps=${2:-8000}
hosts=127.0.0.2,127.0.0.3,127.0.0.4
work=$(mktemp -d) || exit 1
job=
cleanup() {
	[ -n "$job" ] && kill "$job" 2>/dev/null && wait "$job"
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
export MSOCK_RUNDIR=$work PATH=$prefix/bin:$PATH

run() {
	exec mpiexec -launcher msock -hosts $hosts -n 4 "$heat2d" "$size" "$steps"
}

# field NAME: a number or a plain string out of one line of JSON on stdin
field() {
	sed -n "s/.*\"$1\": *\"\{0,1\}\([^,\"}]*\).*/\1/p"
}

# progress TENTHS: wait until rank 0 has come so far, or the job has ended
progress() {
	until grep -q "^step $((steps / 10 * $1)) " "$work/moved" || ! kill -0 "$job" 2>/dev/null; do
		read -r -t 0.05 <>"$work/never"
	done
}

# move RANK HOST
move() {
	local line
	if ! line=$(msrank-move --json "$1" "$2"); then
		echo "demo: rank $1 was not moved to $2: $line" >&2
		failed=1
		return
	fi
	printf '%4s  %-10s %-10s %8.1f ms %8.1f ms %11s %8s %9s\n' "$1" \
		"$(field from <<<"$line")" "$(field to <<<"$line")" "$(field freeze_ms <<<"$line")" \
		"$(field total_ms <<<"$line")" "$(field image_bytes <<<"$line")" \
		"$(field drained <<<"$line")" "$(field mirrored <<<"$line")"
}

failed=0
mkfifo "$work/never"
echo "heat2d $size $steps, 4 ranks on $hosts, nobody moves:"
if ! (run) >"$work/still"; then
	echo 'demo: the unmoved run failed' >&2
	exit 1
fi
grep '^checksum ' "$work/still"
echo
echo 'The same while ranks move:'
run >"$work/moved" &
job=$!
printf '%4s  %-10s %-10s %11s %11s %11s %8s %9s\n' rank from to freeze total bytes drained mirrored
progress 1
move 2 127.0.0.2
progress 3
move 1 127.0.0.4
progress 5
move 2 127.0.0.3
wait "$job"
status=$?
job=
grep '^checksum ' "$work/moved"
if [ $status -ne 0 ] || [ $failed -ne 0 ]; then
	echo "demo: the moved run ended with $status" >&2
	exit 1
fi
want=$(grep '^checksum ' "$work/still")
if [ -z "$want" ] || [ "$want" != "$(grep '^checksum ' "$work/moved")" ]; then
	echo 'demo: the checksums differ' >&2
	exit 1
fi
echo 'The checksums are equal.'
