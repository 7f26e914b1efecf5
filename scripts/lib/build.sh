# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # repo_root belongs to whoever sources this
# Building a preset, and where its executables are. Uses say.sh; needs repo_root.

# build_dir PRESET: where a preset builds
build_dir() {
	printf '%s/build/%s' "$repo_root" "$1"
}

# build_daemon PRESET NAME: the path of lighter-NAME
build_daemon() {
	local dir=snapshotters/$2
	[[ $2 != content ]] || dir=content
	printf '%s/%s/lighter-%s' "$(build_dir "$1")" "$dir" "$2"
}

# build_as_owner COMMAND...: run as the user whose source tree it is, so that `sudo scripts/…` leaves no
# files of root's in it; as root where that user cannot write there
build_as_owner() {
	local uid gid home
	uid=$(stat -c %u "$repo_root") gid=$(stat -c %g "$repo_root")

	if [[ $EUID -ne 0 || $uid -eq 0 ]] ||
		! setpriv --reuid "$uid" --regid "$gid" --clear-groups test -w "$repo_root/scripts" ||
		[[ -e $repo_root/build && $(stat -c %u "$repo_root/build") -eq 0 ]]; then
		"$@"
		return
	fi
	home=$(getent passwd "$uid" | cut -d: -f6) || home=/nonexistent
	HOME=${home:-/nonexistent} setpriv --reuid "$uid" --regid "$gid" --clear-groups "$@"
}

# build_configure PRESET, build_targets PRESET TARGET...: the two steps
build_configure() {
	(cd "$repo_root" && build_as_owner cmake --preset "$1")
}

build_targets() {
	local preset=$1
	shift
	build_as_owner cmake --build "$(build_dir "$preset")" --target "$@"
}
