#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cpack -G DEB makes a package that depends on the libraries it needs, installs into an empty root, and goes again:
# a removal leaves the configuration, a purge leaves nothing but what containers need.
# usage: deb.sh CPACK BUILD_DIR
set -eu
cpack=$1 build=$2
for tool in dpkg-shlibdeps file; do
	command -v $tool > /dev/null || { echo "$tool is not installed"; exit 77; }
done

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

"$cpack" -G DEB --config "$build/CPackConfig.cmake" -B "$tmp/out" -D CPACK_DEBIAN_COMPRESSION_TYPE=none \
	> "$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
deb=$(echo "$tmp"/out/lighter_*.deb)
test -f "$deb"

# depends WORD: among what the package needs
depends() {
	dpkg-deb --field "$deb" Depends | tr , '\n' | grep -q "^ *$1\b" || {
		echo "no dependency on $1:"
		dpkg-deb --field "$deb" Depends
		exit 1
	}
}
depends libc6
depends libgrpc29
depends libsqlite3-0
depends libprotobuf-c1
depends libssl3

if [ "$(id -u)" -ne 0 ]; then
	echo "not root: the package was built, and not installed"
	exit 0
fi
root=$tmp/root
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/lighter/overlay"
: > "$root/var/lib/dpkg/status"

# in_root ARGUMENT...: dpkg on that root; its scripts see DPKG_ROOT, and leave this machine alone
in_root() {
	dpkg --root="$root" --log=/dev/null --force-depends --force-script-chrootless "$@" > "$tmp/log" 2>&1 || {
		cat "$tmp/log"
		exit 1
	}
}
# ours [PATTERN]: what there is of the package, on stdout
ours() {
	find "$root" -path "$root/var/lib/dpkg" -prune -o -name '*lighter*' -print -o -path '*lighter*' ! -type d -print
}

in_root --install "$deb"
for name in overlay content; do
	for file in "/usr/bin/lighter-$name" "/usr/lib/systemd/system/lighter-$name.service" \
		"/usr/lib/systemd/system/lighter-$name.socket" "/usr/share/man/man8/lighter-$name.8.gz" \
		"/usr/share/man/man5/lighter-$name.toml.5.gz" "/etc/lighter/$name.toml" \
		"/usr/share/doc/lighter/examples/$name.toml"; do
		test -f "$root$file" || { echo "missing: $file"; exit 1; }
		test "$(stat -c %U:%G "$root$file")" = root:root
	done
	"$root/usr/bin/lighter-$name" --check --config "$root/etc/lighter/$name.toml"
	dpkg --root="$root" --status lighter | grep -q "^ /etc/lighter/$name.toml "
done
# Nobody asked for a start.
test ! -e "$root/etc/systemd"

# What an administrator wrote stays over an upgrade, and over a removal.
echo 'log_level = "debug"' > "$root/etc/lighter/overlay.toml"
in_root --force-confold --install "$deb"
in_root --remove lighter
grep -q debug "$root/etc/lighter/overlay.toml"
# Nothing is found when all is well.
ours | grep -v "^$root/etc/lighter\|^$root/var/lib/lighter" > "$tmp/left" || true
cat "$tmp/left"
test ! -s "$tmp/left"

in_root --purge lighter
grep -q "/var/lib/lighter is left" "$tmp/log"
test -d "$root/var/lib/lighter/overlay"
rm -r "$root/var/lib/lighter"
ours > "$tmp/left"
cat "$tmp/left"
test ! -s "$tmp/left"
