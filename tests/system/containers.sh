#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016,SC2119 # what stands in single quotes is run in containers
# The life of images and containers: pull, run, exec, commit, diff, export, removal, garbage collection.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

setup() {
	start_all
}

test_pull_makes_a_snapshot_of_every_layer() {
	local ref top
	ref=$(plain_image pull)
	pull "$ref"
	top=$(chain_top "$ref")
	equal "$(chain_of "$top" | wc -l)" 3
	equal "$(chain_of "$top" | while read -r key; do snapshots | awk -v k="$key" '$1 == k { print $NF }'; done |
		sort -u)" Committed
}

test_second_pull_makes_nothing_new() {
	local ref before
	ref=$(plain_image again)
	pull "$ref"
	before=$(snapshots | sort)
	pull "$ref"
	equal "$(snapshots | sort)" "$before"
}

test_run_gives_output_and_exit_status() {
	local ref rc=0
	ref=$(plain_image run)
	pull "$ref"
	equal "$(run "$ref" cat /etc/name /etc/top /data/above)" "$(printf 'run\nrun on top\nabove')"
	run "$ref" sh -c 'exit 23' || rc=$?
	equal "$rc" 23
}

test_layers_lie_above_one_another() {
	local ref
	ref=$(plain_image stacked)
	pull "$ref"
	equal "$(run "$ref" sh -c 'tail -n 1 /data/numbers; cat /data/sub/below; ls -A /data')" \
		"$(printf '20000\nbelow\nabove\nnumbers\nsub')"
}

test_writes_stay_in_their_container() {
	local ref one two
	ref=$(plain_image writes)
	one=$(unique one) two=$(unique two)
	pull "$ref"
	start "$ref" "$one" sleep 1000000
	start "$ref" "$two" sleep 1000000
	inside "$one" sh -c 'echo changed >/data/above; rm /data/sub/below; echo new >/new'
	equal "$(inside "$one" cat /data/above /new)" "$(printf 'changed\nnew')"
	inside "$two" sh -c 'test "$(cat /data/above)" = above && test -e /data/sub/below && test ! -e /new'
	equal "$(run "$ref" cat /data/above)" above
	remove "$one"
	remove "$two"
}

test_committed_snapshot_carries_a_containers_changes() {
	local ref key=committing name=committed-by-hand dir=$life_dir/mnt-commit
	ref=$(plain_image commit)
	pull "$ref"
	ctr snapshots --snapshotter "$sn" prepare "$key" "$(chain_top "$ref")"
	mount_snapshot "$key" "$dir"
	printf 'kept\n' >"$dir/kept"
	rm "$dir/data/above"
	umount "$dir"
	ctr snapshots --snapshotter "$sn" commit "$name" "$key"
	contains "$(snapshots)" "^$name +$(chain_top "$ref") +Committed"
	equal "$(snapshots | grep -c "^$key ")" 0

	view after-commit "$name"
	mount_snapshot after-commit "$dir"
	equal "$(cat "$dir/kept")" kept
	gone "$dir/data/above"
	equal "$(cat "$dir/data/sub/below")" below
	umount "$dir"
	rm_snapshot after-commit
	rm_snapshot "$name"
}

# change_things ID: what the next two tests look for
change_things() {
	inside "$1" sh -c 'echo new >/new; rm /data/above; rm -r /data/sub; mkdir /data/sub; echo else >/data/sub/else
		chmod 4711 /etc/name; ln -s /new /link'
}

test_diff_holds_what_a_container_changed() {
	local ref id list
	ref=$(plain_image diff)
	id=$(unique diff)
	pull "$ref"
	start "$ref" "$id" sleep 1000000
	change_things "$id"
	ctr tasks rm --force "$id" >/dev/null
	ctr snapshots --snapshotter "$sn" diff --media-type application/vnd.oci.image.layer.v1.tar "$id" \
		>"$life_dir/diff.tar"
	list=$(tar tvf "$life_dir/diff.tar" --numeric-owner)
	contains "$list" ' new$'
	contains "$list" ' link -> /new$'
	contains "$list" ' data/\.wh\.above$'
	contains "$list" ' data/sub/else$'
	contains "$list" ' data/sub/\.wh\.below$|data/sub/\.wh\.\.wh\.\.opq$'
	contains "$list" '^-rws--x--x 0/0 .* etc/name$'
	fails grep -E 'numbers|busybox' <<<"$list"
	ctr containers rm "$id"
}

test_export_of_a_changed_container_gives_the_same_tree_elsewhere() {
	local ref id dir=$life_dir/export derived
	ref=$(plain_image export)
	id=$(unique export)
	pull "$ref"
	start "$ref" "$id" sleep 1000000
	change_things "$id"
	ctr tasks rm --force "$id" >/dev/null

	# the container's changes as one more layer of an image, pushed, pulled into another namespace
	mkdir -p "$dir/1" "$dir/2" "$dir/3"
	ctr snapshots --snapshotter "$sn" diff --media-type application/vnd.oci.image.layer.v1.tar "$id" \
		>"$dir/changes.tar"
	image_begin
	for layer in 3 2 1; do
		chain_of "$(chain_top "$ref")" >"$dir/chain"
		ctr snapshots --snapshotter "$sn" diff --media-type application/vnd.oci.image.layer.v1.tar \
			"$(sed -n "${layer}p" "$dir/chain")" >"$dir/layer.tar"
		image_add_tar "$dir/layer.tar"
	done
	image_add_tar "$dir/changes.tar"
	derived=$registry_host/test/derived:v1
	image_push "$registry_host" test/derived v1
	pull "$derived"

	view export-derived "$(chain_top "$derived")"
	mount_snapshot export-derived "$dir/1"
	mount_snapshot "$id" "$dir/2"
	same_tree --whole-seconds "$dir/1" "$dir/2"

	# the image as an archive, imported elsewhere
	ctr images export "$dir/image.tar" "$derived"
	ctr namespaces create elsewhere
	ctr -n elsewhere images import --snapshotter "$sn" "$dir/image.tar" >/dev/null
	equal "$(logged -n elsewhere run -- --rm --snapshotter "$sn" "$derived" "$(unique imported)" cat /new)" new
	umount "$dir/1" "$dir/2"
	ctr containers rm "$id"
	rm_snapshot export-derived
}

test_removed_container_leaves_no_directory() {
	local ref id upper
	ref=$(plain_image removed)
	id=$(unique removed)
	pull "$ref"
	start "$ref" "$id" sleep 1000000
	upper=$(upper_of "$id")
	inside "$id" sh -c 'mkdir -p /deep/er; seq 1 1000 >/deep/er/file 2>/dev/null || echo x >/deep/er/file'
	[[ -e $upper/deep/er/file ]]
	remove "$id"
	wait_until "$soon" gone "$upper"
	equal "$(run "$ref" cat /etc/name)" removed
}

test_removed_image_leaves_no_directory() {
	local ref key dirs=() path
	ref=$(plain_image collected)
	pull "$ref"
	for key in $(chain_of "$(chain_top "$ref")"); do
		path=$(layer_dir "$key")
		[[ -d $path ]]
		dirs+=("$path")
	done
	equal "${#dirs[@]}" 3
	ctr images rm --sync "$ref" >/dev/null
	for path in "${dirs[@]}"; do
		wait_until "$soon" gone "$path"
	done
}

test_layers_shared_with_another_image_survive_its_removal() {
	local one two dir=$life_dir/shared
	busybox_layer "$dir/base"
	for name in one two; do
		mkdir -p "$dir/$name"
		printf '%s\n' "$name" >"$dir/$name/top"
		image_begin
		image_add_dir "$dir/base"
		image_add_dir "$dir/$name"
		image_push "$registry_host" "test/shared-$name" v1
	done
	one=$registry_host/test/shared-one:v1 two=$registry_host/test/shared-two:v1
	pull "$one"
	pull "$two"
	equal "$(chain_of "$(chain_top "$one")" | tail -n 1)" "$(chain_of "$(chain_top "$two")" | tail -n 1)"
	ctr images rm --sync "$one" >/dev/null
	equal "$(run "$two" cat /top)" two
}

test_snapshot_with_children_cannot_be_removed() {
	local ref bottom
	ref=$(plain_image parent)
	pull "$ref"
	bottom=$(chain_of "$(chain_top "$ref")" | tail -n 1)
	contains "$(fails ctr snapshots --snapshotter "$sn" rm "$bottom")" 'remove|child'
	equal "$(run "$ref" cat /etc/name)" parent
}

test_usage_counts_what_a_container_wrote() {
	local ref id before after
	ref=$(plain_image usage)
	id=$(unique usage)
	pull "$ref"
	start "$ref" "$id" sleep 1000000
	before=$(usage_bytes "$id")
	inside "$id" dd if=/dev/zero of=/blob bs=1M count=8
	inside "$id" sync
	after=$(usage_bytes "$id")
	[[ $((after - before)) -ge $((8 << 20)) && $((after - before)) -lt $((9 << 20)) ]]
	remove "$id"
}

usage_bytes() {
	ctr snapshots --snapshotter "$sn" usage -b "$1" | awk 'NR == 2 { print $2 }'
}

test_128_layers_pull_and_run() {
	local dir=$life_dir/many ref i
	busybox_layer "$dir/base"
	image_begin
	image_add_dir "$dir/base"
	mkdir "$dir/layer"
	for i in $(seq 2 128); do
		printf '%s\n' "$i" >"$dir/layer/f$i"
		printf '%s\n' "$i" >"$dir/layer/last"
		image_add_dir "$dir/layer" tar
		rm "$dir/layer/f$i"
	done
	image_push "$registry_host" test/many v1
	ref=$registry_host/test/many:v1
	pull "$ref"
	equal "$(run "$ref" sh -c 'cat /last /f2 /f77; ls / | grep -c "^f[0-9]"')" "$(printf '128\n2\n77\n127')"
}

system_main "$@"
