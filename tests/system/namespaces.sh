#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2119
# Two of containerd's namespaces on one plugin: they share neither names nor fate.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

setup() {
	start_all
	ctr namespaces create red
	ctr namespaces create blue
}

# run_in NAMESPACE REF COMMAND...
run_in() {
	local namespace=$1 ref=$2
	shift 2
	logged -n "$namespace" run -- --rm --snapshotter "$sn" "$ref" "$(unique "$namespace")" "$@"
}

snapshots_of() {
	ctr -n "$1" snapshots --snapshotter "$sn" ls | tail -n +2
}

test_one_image_is_pulled_and_run_in_both() {
	local ref
	ref=$(plain_image both)
	pull "$ref" red
	pull "$ref" blue
	equal "$(run_in red "$ref" cat /etc/name)" both
	equal "$(run_in blue "$ref" cat /etc/name)" both
}

test_same_key_means_another_snapshot_in_each() {
	local ref top dir=$life_dir/same-key
	ref=$(plain_image keys)
	pull "$ref" red
	pull "$ref" blue
	top=$(image_chain "$ref" red)
	equal "$(image_chain "$ref" blue)" "$top"
	ctr -n red snapshots --snapshotter "$sn" prepare the-key "$top"
	ctr -n blue snapshots --snapshotter "$sn" prepare the-key "$top"
	mkdir -p "$dir/red" "$dir/blue"
	for namespace in red blue; do
		mount -t overlay overlay "$dir/$namespace" -o "$(ctr -n "$namespace" snapshots --snapshotter "$sn" \
			mounts /target the-key | awk '{ print $7 }')"
		printf '%s\n' "$namespace" >"$dir/$namespace/color"
	done
	equal "$(cat "$dir/red/color" "$dir/blue/color")" "$(printf 'red\nblue')"
	umount "$dir/red" "$dir/blue"
	ctr -n red snapshots --snapshotter "$sn" rm the-key
	contains "$(snapshots_of blue)" '^the-key '
	equal "$(snapshots_of red | grep -c '^the-key ')" 0
	ctr -n blue snapshots --snapshotter "$sn" rm the-key
}

test_one_does_not_see_the_others_snapshots() {
	local ref
	ref=$(plain_image unseen)
	pull "$ref" red
	equal "$(snapshots_of red | grep -c "^$(image_chain "$ref" red) ")" 1
	equal "$(snapshots_of blue | grep -c "^$(image_chain "$ref" red) ")" 0
	contains "$(fails ctr -n blue snapshots --snapshotter "$sn" info "$(image_chain "$ref" red)")" 'not found'
}

test_removal_in_one_leaves_the_others_image_whole() {
	local ref before
	ref=$(plain_image apart)
	pull "$ref" red
	pull "$ref" blue
	before=$(find "$plugin_root/snapshots" -path '*/etc/top' -exec grep -l apart {} + | sort)
	equal "$(wc -l <<<"$before")" 2
	ctr -n red images rm --sync "$ref" >/dev/null
	wait_until "$soon" one_copy_left
	equal "$(run_in blue "$ref" cat /etc/name /data/above)" "$(printf 'apart\nabove')"
}

one_copy_left() {
	[[ $(find "$plugin_root/snapshots" -path '*/etc/top' -exec grep -l apart {} + | wc -l) -eq 1 ]]
}

test_a_namespace_can_be_emptied_and_removed() {
	local ref
	ref=$(plain_image emptied)
	ctr namespaces create brief
	pull "$ref" brief
	equal "$(run_in brief "$ref" cat /etc/name)" emptied
	ctr -n brief images rm --sync "$ref" >/dev/null
	wait_until "$soon" brief_is_empty
	wait_until "$soon" ctr namespaces rm brief
}

brief_is_empty() {
	[[ -z $(snapshots_of brief) ]] && ! grep -qs emptied "$plugin_root"/snapshots/*/etc/top
}

system_main "$@"
