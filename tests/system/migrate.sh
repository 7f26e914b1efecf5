#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2119 # optional arguments
# From containerd's own content store to lighter-content, as README.md tells it: what was there is there, and goes when
# containerd wants it to go. And what becomes of a blob that is damaged.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

setup() {
	registry_start
	start_plugin
	containerd_start "$sn=$plugin_socket"
	ctr namespaces create red
	# as content_start sets them; it is started by the first test
	content_root=$life_dir/content
	content_socket=$life_dir/content.sock
	content_command=("${LIGHTER_CONTENT:-$(build_daemon dev content)}" --root "$content_root"
		--address "$content_socket" --log-level debug)
}

own_store() {
	printf '%s/containerd/root/io.containerd.content.v1.content' "$life_dir"
}

# content_tool VERB [ARGUMENT]...: lighter-content's command, of that store
content_tool() {
	local verb=$1
	shift
	"${content_command[0]}" "$verb" --root "$content_root" --address "$content_socket" "$@"
}

# exits STATUS COMMAND...: its output is printed
exits() {
	local want=$1 rc=0
	shift
	"$@" 2>&1 || rc=$?
	equal "$rc" "$want" >&2
}

# blob_file DIGEST: where lighter-content keeps it
blob_file() {
	printf '%s/blobs/%s/%s' "$content_root" "${1%%:*}" "${1#*:}"
}

no_blob() {
	gone "$(blob_file "$1")"
}

# image_blobs REF [NAMESPACE]: the digests of manifest, config and layers
image_blobs() {
	local manifest
	manifest=$(ctr -n "${2:-default}" images ls "name==$1" | awk 'NR == 2 { print $3 }')
	printf '%s\n' "$manifest"
	ctr -n "${2:-default}" content get "$manifest" | grep -oE 'sha256:[0-9a-f]{64}'
}

# good DIGEST [NAMESPACE]: is it what its name says, as containerd reads it?
good() {
	equal "sha256:$(ctr -n "${2:-default}" content get "$1" | sha256sum | cut -d' ' -f1)" "$1"
}

# requests: how many the registry has had
requests() {
	grep -c '/v2/test/' "$life_dir/log/registry"
}

content_reachable() {
	ctr plugins ls | grep -qE "io.containerd.content.v1 +$cn .*ok" && ctr content ls >/dev/null
}

test_images_are_taken_over_from_the_built_in_store() {
	local run_before fetched late id digest before before_red n_requests
	run_before=$(plain_image run-before)
	fetched=$(plain_image fetched)
	late=$(plain_image late)
	id=$(unique taken-over)
	pull "$run_before"
	pull "$run_before" red
	# not unpacked: only its blobs make a container of it
	ctr content fetch --plain-http "$fetched" >/dev/null
	start_counter "$run_before" "$id"

	# containerd goes on meanwhile
	contains "$(exits 0 content_tool import --dry-run "$life_dir/containerd/root")" 'would import [1-9][0-9]* blobs'
	[[ ! -e $content_root ]]
	contains "$(exits 0 content_tool import "$life_dir/containerd/root")" 'imported [1-9][0-9]* blobs.* 0 were left'
	ctr content fetch --plain-http "$late" >/dev/null
	before=$(ctr content ls -q | sort)
	before_red=$(ctr -n red content ls -q | sort)
	life_stop containerd TERM "$soon"
	contains "$(exits 0 content_tool import "$(own_store)")" 'imported [1-9][0-9]* blobs.* [1-9][0-9]* were here already'
	content_start_again
	containerd_config "$sn=$plugin_socket" "content:$cn=$content_socket" >"$life_dir/containerd/config.toml"
	containerd_start_again
	wait_until "$soon" content_reachable

	counts "$id"
	equal "$(ctr content ls -q | sort)" "$before"
	equal "$(ctr -n red content ls -q | sort)" "$before_red"
	for digest in $before; do
		good "$digest"
	done
	for digest in $before_red; do
		good "$digest" red
	done
	# neither from the registry, nor from the old directory
	n_requests=$(requests)
	mv "$(own_store)" "$(own_store).old"
	equal "$(run "$fetched" cat /etc/name)" fetched
	equal "$(run "$late" cat /etc/name)" late
	equal "$(run "$run_before" cat /etc/name)" run-before
	contains "$(ctr images check "name==$late")" ' complete \(4/4\)'
	equal "$(requests)" "$n_requests"
	remove "$id"
	exits 0 content_tool verify --rate unlimited
}

test_what_was_taken_over_is_collected_like_any_other() {
	local ref digest digests
	# each namespace lists what it has; run-before is in two
	ref=$(ctr images ls -q | grep /late:)
	digests=$(image_blobs "$ref")
	ctr images rm --sync "$ref" >/dev/null
	for digest in $digests; do
		wait_until "$soon" no_blob "$digest"
		[[ -e $(own_store).old/blobs/${digest/:/\/} ]]
	done
	ref=$(ctr images ls -q | grep /run-before:)
	digests=$(image_blobs "$ref")
	ctr images rm --sync "$ref" >/dev/null
	for digest in $digests; do
		good "$digest" red
	done
	ctr -n red images rm --sync "$ref" >/dev/null
	for digest in $digests; do
		wait_until "$soon" no_blob "$digest"
	done
}

test_damaged_blob_is_quarantined_and_pulled_again() {
	local ref digest file
	ref=$(plain_image damaged)
	pull "$ref"
	digest=$(image_blobs "$ref" | tail -n 1)
	file=$(blob_file "$digest")
	exits 0 content_tool verify --rate unlimited
	printf 'X' | dd of="$file" bs=1 seek=20 conv=notrunc status=none

	contains "$(exits 3 content_tool verify)" "^damaged: $digest: "
	[[ -e $file ]]
	contains "$(exits 3 content_tool verify --quarantine "$digest")" "^quarantined: $digest"
	no_blob "$digest"
	[[ -e $content_root/quarantine/${digest/:/\/} ]]
	exits 0 content_tool verify
	# what is unpacked goes on; containerd believes that it has the blob, and does not fetch it by itself
	equal "$(run "$ref" cat /etc/name)" damaged
	pull "$ref"
	fails ctr content get "$digest"
	ctr content rm "$digest" >/dev/null
	ctr content fetch --plain-http "$ref" >/dev/null
	good "$digest"
	exits 0 content_tool verify
	equal "$(run "$ref" cat /etc/name)" damaged
}

test_verification_minds_no_pulls_and_no_collection() {
	local i ref
	for i in 1 2 3 4; do
		ref=$(plain_image "beside-$i")
		pull "$ref"
		content_tool verify --rate unlimited &
		ctr images rm --sync "$ref" >/dev/null
		pull "$ref"
		wait "$!"
	done
}

system_main "$@"
