#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2119
# The options of [overlay] under a real containerd: pull, run and removal work with each of them, and each does
# what it says.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

setup() {
	start_all
}

# with_config: serve the same root with the configuration on stdin; containerd finds it by itself
with_config() {
	life_stop plugin TERM "$soon"
	no_sanitizer_report
	cat >"$life_dir/overlay.toml"
	start_plugin --config "$life_dir/overlay.toml"
	wait_until "$soon" plugin_reachable
}

# scenario NAME: pull, run, change, diff, remove; sets ref and id of a running container
scenario() {
	ref=$(plain_image "$1")
	id=$(unique "$1")
	pull "$ref"
	equal "$(run "$ref" cat /etc/name /etc/top)" "$(printf '%s\n%s on top' "$1" "$1")"
	start "$ref" "$id" sleep 1000000
	inside "$id" sh -c 'echo new >/new; rm /data/above; mv /data/sub /data/moved'
	equal "$(inside "$id" cat /new /data/moved/below)" "$(printf 'new\nbelow')"
	contains "$(ctr snapshots --snapshotter "$sn" diff --media-type application/vnd.oci.image.layer.v1.tar "$id" |
		tar t)" '^data/\.wh\.above$'
}

test_directories_disappear_with_sync_remove() {
	local ref id upper key=by-hand
	with_config <<-END
		[overlay]
		sync_remove = true
	END
	scenario sync-remove
	upper=$(upper_of "$id")
	remove "$id"
	wait_until "$soon" gone "$upper"
	ctr snapshots --snapshotter "$sn" prepare "$key" "$(chain_top "$ref")"
	upper=$(upper_of "$key")
	[[ -d $upper ]]
	ctr snapshots --snapshotter "$sn" rm "$key"
	wait_until "$soon" gone "$upper"
}

test_upperdir_label_tells_where_a_container_writes() {
	local ref id upper
	with_config <<-END
		[overlay]
		upperdir_label = true
	END
	scenario upperdir-label
	upper=$(ctr snapshots --snapshotter "$sn" info "$id" |
		sed -n 's,.*"containerd.io/snapshot/overlay.upperdir": "\([^"]*\)".*,\1,p')
	equal "$upper" "$(upper_of "$id")"
	equal "$(cat "$upper/new")" new
	remove "$id"
}

test_without_upperdir_label_there_is_none() {
	local ref id
	with_config </dev/null
	scenario no-upperdir-label
	fails grep overlay.upperdir <<<"$(ctr snapshots --snapshotter "$sn" info "$id")"
	remove "$id"
}

test_mount_options_reach_the_mount() {
	local ref id
	with_config <<-END
		[overlay]
		mount_options = ["metacopy=off", "redirect_dir=nofollow"]
	END
	scenario mount-options
	contains "$(mount_options "$id")" '[ ,]metacopy=off,redirect_dir=nofollow(,|$)'
	contains "$(inside "$id" grep ' / ' /proc/mounts)" '[, ]redirect_dir=nofollow[, ]'
	remove "$id"
}

volatile_plugin() {
	with_config <<-END
		[overlay]
		mount_options = ["volatile"]
	END
}

test_volatile_reaches_the_mount() {
	local ref key=volatile-by-hand dir=$life_dir/volatile
	volatile_plugin
	ref=$(plain_image volatile-mount)
	pull "$ref"
	ctr snapshots --snapshotter "$sn" prepare "$key" "$(chain_top "$ref")" >/dev/null
	mount_snapshot "$key" "$dir"
	contains "$(grep " $dir " /proc/mounts)" '[, =]volatile[, ]'
	equal "$(cat "$dir/etc/name")" volatile-mount
	umount "$dir"
	rm_snapshot "$key"
}

test_volatile_mounts_run_containers() {
	local ref id
	# The client looks into the root before the shim mounts it; the kernel refuses to mount twice what was
	# volatile once. Newer ones leave the option out of the first mount.
	containerd_is_2 || skip "ctr $containerd_version mounts a container's root twice, which volatile forbids"
	volatile_plugin
	scenario volatile
	contains "$(mount_options "$id")" '[ ,]volatile(,|$)'
	contains "$(inside "$id" grep ' / ' /proc/mounts)" '[, =]volatile[, ]'
	remove "$id"
}

test_everything_at_once() {
	local ref id upper
	with_config <<-END
		log_level = "debug"
		log_format = "json"
		workers = 4
		[overlay]
		sync_remove = true
		upperdir_label = true
		mount_options = ["redirect_dir=nofollow", "index=off"]
	END
	scenario everything
	upper=$(upper_of "$id")
	contains "$(ctr snapshots --snapshotter "$sn" info "$id")" "overlay.upperdir\": \"$upper\""
	remove "$id"
	wait_until "$soon" gone "$upper"
	tail -n 1 "$life_dir/log/plugin" | "$python" -c 'import json, sys; json.load(sys.stdin)'
}

test_unknown_option_is_refused_with_file_and_line() {
	local out
	printf '[overlay]\nsync_remove = true\nsink_remove = true\n' >"$life_dir/wrong.toml"
	out=$(fails timeout "$soon" "${plugin_command[0]}" --config "$life_dir/wrong.toml" --root "$life_dir/nowhere" \
		--address "$life_dir/nowhere.sock")
	contains "$out" 'wrong\.toml:3'
	contains "$out" sink_remove
	[[ ! -e $life_dir/nowhere ]]
}

system_main "$@"
