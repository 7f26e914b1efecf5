#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cmake --install puts everything where a distribution expects it, and what it puts there fits together.
# usage: install.sh CMAKE BUILD_DIR PREFIX
set -eu
cmake=$1 build=$2 prefix=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

DESTDIR=$tmp "$cmake" --install "$build" > "$tmp/log" || {
	cat "$tmp/log"
	exit 1
}

# MODE and path of each file.
check() {
	test -f "$tmp$2" || { echo "missing: $2"; exit 1; }
	mode=$(stat -c %a "$tmp$2")
	test "$mode" = "$1" || { echo "$2 has mode $mode, not $1"; exit 1; }
}
# check_unit FILE: a service starts what was installed
check_unit() {
	command=$(sed -n 's/^ExecStart=//p' "$1")
	command=${command%% *}
	test -x "$tmp$command" || { echo "ExecStart=$command was not installed"; exit 1; }
	if grep -q '[^ ]@[A-Z_]*@' "$1"; then
		echo "$1 was not configured"
		exit 1
	fi
}
# check_daemon NAME OPTION: what belongs to lighter-NAME; OPTION is a line of its example, uncommented
check_daemon() {
	check 755 "$prefix/bin/lighter-$1"
	check 644 "$prefix/lib/systemd/system/lighter-$1.service"
	check 644 "$prefix/lib/systemd/system/lighter-$1.socket"
	check 644 "$prefix/share/doc/lighter/examples/$1.toml"
	check 644 "$prefix/share/man/man8/lighter-$1.8"
	check 644 "$prefix/share/man/man5/lighter-$1.toml.5"

	daemon=$tmp$prefix/bin/lighter-$1
	example=$tmp$prefix/share/doc/lighter/examples/$1.toml
	unit=$tmp$prefix/lib/systemd/system/lighter-$1.service

	"$daemon" --print-config | diff -u "$example" -
	"$daemon" --check --config "$example"
	# Uncommented, too: every default is a value that is accepted.
	sed 's/^#\([a-z]\)/\1/' "$example" > "$tmp/all.toml"
	grep -q "^$2\$" "$tmp/all.toml"
	"$daemon" --check --config "$tmp/all.toml"

	check_unit "$unit"
	# A mistake in the configuration ends it for good.
	status=0
	"$daemon" --check --set nonsense=1 2> "$tmp/refusal" || status=$?
	grep -q "^RestartPreventExitStatus=$status\$" "$unit" || {
		echo "a wrong configuration exits with $status, after which the unit restarts"
		exit 1
	}
	address=$(sed -n 's/^ListenStream=//p' "${unit%.service}.socket")
	grep -q "^#address = \"$address\"\$" "$example" || {
		echo "the socket unit listens on $address, which is not the default"
		exit 1
	}
}
check_daemon overlay 'sync_remove = false'
check_daemon content 'adopt = true'
check 644 "$prefix/lib/systemd/system/lighter-content-verify.service"
check 644 "$prefix/lib/systemd/system/lighter-content-verify.timer"
check_unit "$tmp$prefix/lib/systemd/system/lighter-content-verify.service"

check_units() {
	if ! command -v systemd-analyze > /dev/null; then
		echo "systemd-analyze is not installed: the units' form was not checked"
		return
	fi
	# Names of other units, and the manual pages, are looked up on this machine, where they need not be.
	for unit in "$tmp$prefix"/lib/systemd/system/lighter-*.service; do
		other=${unit%.service}.socket
		test -e "$other" || other=${unit%.service}.timer
		if systemd-analyze verify --man=no "$unit" "$other" 2> "$tmp/verify"; then :; fi
		# Nothing is found when all is well.
		grep -e lighter "$tmp/verify" | grep -v -e 'is not executable: No such file' > "$tmp/wrong" || true
		cat "$tmp/wrong"
		test ! -s "$tmp/wrong" || exit 1
	done
}
check_units

# It can all be taken away again.
DESTDIR=$tmp "$cmake" --build "$build" --target uninstall > "$tmp/log" || {
	cat "$tmp/log"
	exit 1
}
find "$tmp$prefix" ! -type d -o -name '*lighter*' > "$tmp/left"
cat "$tmp/left"
test ! -s "$tmp/left"
