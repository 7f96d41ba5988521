#!/bin/bash
# SPDX-License-Identifier: MIT
# The protocol's models (doc/protocol) hold: each check of run.sh is a result. MSOCK_TEST_MODELS=pass, bugs or big runs others.
here=$(cd "$(dirname "$0")" && pwd)
command -v spin >/dev/null || { echo '1..0 # SKIP spin is not installed'; exit 0; }
n=0
while read -r name _ expected rest; do
	n=$((n + 1))
	case $rest in
	*' ok') echo "ok $n - $name: expected to $expected: $rest" ;;
	*) echo "not ok $n - $name: expected to $expected: $rest" ;;
	esac
done < <("$here/../doc/protocol/run.sh" ${MSOCK_TEST_MODELS:-quick} 2>&1)
echo "1..$n"
