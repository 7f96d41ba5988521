#!/bin/sh
# SPDX-License-Identifier: MIT
# Lay our channel and launcher over an MPICH source tree: overlay.sh SRC.
# May be called again for the same tree: only files that differ are written,
# and what is generated from them only when patches or build rules changed.
set -eu
[ $# = 1 ] && [ -f "$1/src/mpid/ch3/subconfigure.m4" ] || { echo "usage: $0 MPICH-SOURCE" >&2; exit 2; }
src=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
stamp=$src/.msock-overlay

# put FILE TARGET: copy unless equal, so that make sees only what has changed.
put() {
	cmp -s "$1" "$2" || { mkdir -p "$(dirname "$2")" && cp "$1" "$2"; }
}

if [ ! -e "$stamp.patched" ]; then
	for patch in "$here"/patches/*.patch; do
		patch -d "$src" -p1 --no-backup-if-mismatch -s <"$patch"
	done
	cat "$here"/patches/*.patch >"$stamp.patched"
elif ! cat "$here"/patches/*.patch | cmp -s - "$stamp.patched"; then
	echo "$0: the patches have changed since they were applied: start from a fresh source tree" >&2
	exit 1
fi

channel=$src/src/mpid/ch3/channels/msock
(cd "$here/ch3-msock" && find . -type f ! -name '.*') | while read -r file; do
	put "$here/ch3-msock/$file" "$channel/$file"
done
for file in "$here"/hydra/*.[ch]; do
	put "$file" "$src/src/pm/hydra/tools/bootstrap/external/$(basename "$file")"
done

rules=$(find "$here/patches" "$here/ch3-msock" \( -name '*.patch' -o -name '*.mk' -o -name '*.m4' \) | sort |
	xargs -d '\n' cat | md5sum)
if [ "$rules" != "$(cat "$stamp.generated" 2>/dev/null)" ]; then
	rm -f "$stamp.generated"
	(cd "$src" && ./maint/gen_subcfg_m4 && autoreconf -I confdb --no-recursive)
	[ -e "$stamp.hydra" ] || (cd "$src/src/pm/hydra" && autoreconf -I confdb --no-recursive)
	touch "$stamp.hydra"
	echo "$rules" >"$stamp.generated"
fi
