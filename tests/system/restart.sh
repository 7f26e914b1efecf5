#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016,SC2119 # what stands in single quotes is run in containers
# The plugin stops, is killed, is away, comes back: running containers do not notice, clients are told at once,
# nothing is lost, and containerd need not be restarted.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

setup() {
	start_all
}

bring_back() {
	plugin_start_again
	wait_until "$soon" plugin_reachable
}

# survive SIGNAL NAME: what the next two have in common
survive() {
	local ref one two before
	ref=$(plain_image "$2")
	one=$(unique "$2-one") two=$(unique "$2-two")
	pull "$ref"
	start_counter "$ref" "$one"
	start_counter "$ref" "$two"
	before=$(snapshots | sort)

	end_process plugin "$1"
	counts "$one"
	counts "$two"
	inside "$one" sh -c 'echo written while down >/note; rm -r /data/sub'
	bring_back

	counts "$one"
	equal "$(snapshots | sort)" "$before"
	equal "$(inside "$one" cat /note)" 'written while down'
	equal "$(run "$ref" cat /etc/name /data/sub/below)" "$(printf '%s\nbelow' "$2")"
	# what it did with the plugin down is in its snapshot, which the plugin still knows; while it ran, a file could go
	# under the hands of whoever reads it
	ctr tasks rm --force "$one" >/dev/null
	contains "$(ctr snapshots --snapshotter "$sn" diff --media-type application/vnd.oci.image.layer.v1.tar "$one" |
		tar t)" '^note$'
	ctr containers rm "$one"
	remove "$two"
}

test_containers_go_on_when_the_plugin_is_stopped_and_started() {
	survive TERM stopped
	no_sanitizer_report
}

test_containers_go_on_when_the_plugin_is_killed_and_started() {
	survive KILL killed
}

test_container_ends_and_is_removed_with_the_plugin_down() {
	local ref id upper
	ref=$(plain_image removed-down)
	id=$(unique removed-down)
	pull "$ref"
	start_counter "$ref" "$id"
	upper=$(upper_of "$id")
	end_process plugin KILL
	ctr tasks rm --force "$id" >/dev/null
	# containerd forgets the container now, and the snapshot when the plugin is back
	ctr containers rm "$id" || true
	bring_back
	equal "$(run "$ref" cat /etc/name)" removed-down
	ctr snapshots --snapshotter "$sn" rm "$id" 2>/dev/null || true
	wait_until "$soon" collected "$upper"
}

# collected DIR: gone, after another round of garbage collection (each removal of a snapshot asks for one)
collected() {
	plugin_reachable && gone "$1"
}

test_clients_are_told_at_once_that_the_plugin_is_down() {
	local ref pulled from
	pulled=$(plain_image told-pulled)
	ref=$(plain_image told)
	pull "$pulled"
	end_process plugin KILL
	# timeout ends what would hang; how fast is not measured
	contains "$(fails timeout "$soon" "$containerd_ctr_exe" --address "$containerd_socket" images pull --plain-http \
		--snapshotter "$sn" "$ref")" 'navailable|connection error|connect: connection refused|no such file'
	contains "$(fails timeout "$soon" "$containerd_ctr_exe" --address "$containerd_socket" run --rm \
		--snapshotter "$sn" "$pulled" "$(unique told)" true)" \
		'navailable|connection error|connect: connection refused|no such file'
	contains "$(fails timeout "$soon" "$containerd_ctr_exe" --address "$containerd_socket" snapshots \
		--snapshotter "$sn" prepare told-key)" 'navailable|connection error|connection refused|no such file'
	# another snapshotter is not disturbed
	ctr images pull --plain-http --snapshotter overlayfs "$ref" >/dev/null
	bring_back
	pull "$ref"
	equal "$(run "$ref" cat /etc/name)" told
	equal "$(run "$pulled" cat /etc/name)" told-pulled
}

test_plugin_killed_in_a_pull_leaves_nothing_that_stops_the_next() {
	local ref dir=$life_dir/killed-pull i rc=0
	busybox_layer "$dir/1"
	image_begin
	image_add_dir "$dir/1"
	for i in $(seq 2 20); do
		mkdir "$dir/$i"
		printf '%s\n' "$i" >"$dir/$i/layer$i"
		seq "$((i * 1000))" "$((i * 1000 + 20000))" >"$dir/$i/numbers$i"
		image_add_dir "$dir/$i"
	done
	image_push "$registry_host" test/killed-pull v1
	ref=$registry_host/test/killed-pull:v1

	ctr images pull --plain-http --snapshotter "$sn" "$ref" >/dev/null 2>&1 &
	i=$!
	# in the middle: some layers are there, not all
	wait_until "$soon" some_layers_of_it
	end_process plugin KILL
	wait "$i" || rc=$?
	bring_back
	pull "$ref"
	equal "$(chain_of "$(chain_top "$ref")" | wc -l)" 20
	equal "$(run "$ref" sh -c 'cat /layer* | wc -l; cat /numbers20 | wc -l')" "$(printf '19\n20001')"
}

some_layers_of_it() {
	grep -qsx 3 "$plugin_root"/snapshots/*/layer3 || [[ -e $(compgen -G "$plugin_root/snapshots/*/layer3") ]]
}

test_containerd_restarts_and_finds_everything() {
	local ref id before
	ref=$(plain_image containerd-restart)
	id=$(unique containerd-restart)
	pull "$ref"
	start_counter "$ref" "$id"
	before=$(snapshots | sort)
	life_stop containerd TERM "$soon"
	containerd_start_again
	equal "$(snapshots | sort)" "$before"
	counts "$id"
	equal "$(run "$ref" cat /etc/name)" containerd-restart
	remove "$id"
}

test_both_killed_find_everything() {
	local ref id
	ref=$(plain_image both-killed)
	id=$(unique both-killed)
	pull "$ref"
	start_counter "$ref" "$id"
	kill -s KILL "$(life_pid containerd)"
	end_process plugin KILL
	plugin_start_again
	wait_until "$soon" life_exit_status containerd
	containerd_start_again
	counts "$id"
	equal "$(run "$ref" cat /etc/name)" both-killed
	remove "$id"
}

test_second_plugin_on_the_same_root_is_refused_at_once() {
	local out
	out=$(fails timeout "$soon" "${plugin_command[0]}" --root "$plugin_root" --address "$life_dir/second.sock")
	contains "$out" '[Ll]ock|in use|already|another'
	# and the first one serves on
	plugin_reachable
}

system_main "$@"
