#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The manual pages say what the daemon's option table says: same options, same defaults, same choices; and
# mandoc finds nothing wrong with them.
# usage: man.sh DAEMON PAGE_8 PAGE_5
set -eu
daemon=$1 page8=$2 page5=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# "KEY DEFAULT" from the lines "#key = default" below their "[table]".
"$daemon" --print-config | awk '
	/^\[/ { table = substr($0, 2, length($0) - 2) "." }
	/^#[a-z]/ { sub(/^#/, table); sub(/ = /, " "); print }' | sort > "$tmp/keys"
sed 's/\\(dq/"/g' "$page5" | awk '
	/^\.It Cm [a-z_.]+ No = / { key = $3 }
	/^Default:/ { getline; sub(/^\.Ql /, ""); print key " " $0 }' | sort > "$tmp/keys.man"
test -s "$tmp/keys"
diff -u "$tmp/keys" "$tmp/keys.man"

# flags_of [COMMAND]: "OPTION PLACEHOLDER" of each.
flags_of() {
	"$daemon" "$@" --help | awk '/^  --/ { print $1, ($2 ~ /^[A-Z=]+$/ ? $2 : "") }' | sed 's/ *$//' | sort
}
# Each of the daemon's once, and each of a command's own, which follow the .Ss of the command's name.
awk '/^\.S[hs] / { section = $2 }
	/^\.It Fl Fl / { print section, "--" $4, $6 }' "$page8" | sed 's/ *$//' > "$tmp/flags.man"
"$daemon" --help | sed -n '/^Commands/,/^Options/s/^  \([a-z]*\) .*/\1/p' > "$tmp/commands"
flags_of > "$tmp/flags"
test -s "$tmp/flags"
sed -n 's/^DESCRIPTION //p' "$tmp/flags.man" | sort | diff -u "$tmp/flags" -
while read -r command; do
	flags_of "$command" | comm -23 - "$tmp/flags" > "$tmp/own"
	sed -n "s/^$command //p" "$tmp/flags.man" | sort | diff -u "$tmp/own" -
done < "$tmp/commands"

# Every choice of "  key=a|b|c".
"$daemon" --help | sed -n 's/^  [a-z_.]*=\([a-z|]*\)$/\1/p' | tr '|' '\n' | sort -u |
	grep -v -x -e true -e false > "$tmp/choices"
test -s "$tmp/choices"
while read -r choice; do
	grep -q "^\.Cm $choice\$\|^\.Cm $choice " "$page5" || {
		echo "choice '$choice' is not in $page5"
		exit 1
	}
done < "$tmp/choices"

if ! command -v mandoc > /dev/null; then
	echo "mandoc is not installed: the pages' form was not checked"
	exit 0
fi
# Whether pages of others are installed is not ours to say.
mandoc -T lint "$page8" "$page5" 2>&1 |
	grep -v -e 'referenced manual not found' -e 'outdated mandoc.db' > "$tmp/lint" || true
cat "$tmp/lint"
test ! -s "$tmp/lint"
