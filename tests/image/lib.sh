# SPDX-License-Identifier: MIT
# lib.sh - for the tests of the image: a directory that every user can read, and TAP.
# Run in the top of the build tree.

set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/msock-image.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"
mkdir "$work/dir"
for f in msock/image/msrestore tests/image/mover tests/image/feature tests/image/refuse tests/image/.libs/member.so; do
	cp "$f" "$work/" && chmod 755 "$work/${f##*/}" || { echo "Bail out! $f is not built"; exit 99; }
done
chmod 777 "$work/dir"

number=0
ok() { # ok STATUS NAME
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number - $2"
	else
		echo "not ok $number - $2"
		sed 's/^/# /' "$work/out" 2>/dev/null | tail -20
	fi
}

plan() {
	echo "1..$number"
}

# What runs a command as nobody with no_new_privs when we are root, else with no_new_privs only.
if [ "$(id -u)" = 0 ]; then
	as_user="setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs"
else
	as_user="setpriv --no-new-privs"
fi

# mover RUNNER OPTIONS -- PROGRAM...: what it says goes to $work/out
mover() {
	runner=$1
	shift
	options=
	while [ "$1" != -- ]; do
		options="$options $1"
		shift
	done
	shift
	(cd "$work" && timeout 240 $runner ./mover $options ./msrestore ./member.so "$@") >"$work/out" 2>&1
}

# feature RUNNER NAME TEXT OPTIONS: moved $MOVES times, or as often as it ever is, and all is as it was; or skipped with its reason.
feature() {
	runner=$1
	name=$2
	text=$3
	shift 3
	least=$MOVES
	case $name in sleeping) least=1 ;; lost-lock) least=0 ;; esac
	mover "$runner" "$@" -- ./feature "$name" "$work/dir"
	status=$?
	if [ $status = 77 ]; then
		number=$((number + 1))
		echo "ok $number - $text # SKIP $(sed -n 's/^skip: //p' "$work/out")"
		return 1
	fi
	[ $status = 0 ] && moved $least
	status=$?
	ok $status "$text"
	return $status
}

moved() { # moved N: the last run made at least N moves
	[ "$(sed -n 's/^mover: \([0-9]*\) moves$/\1/p' "$work/out")" -ge "$1" ]
}
