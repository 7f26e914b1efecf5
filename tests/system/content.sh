#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2119 # optional arguments
# lighter-content in place of containerd's own content store, beside lighter-overlay: what goes in comes out byte for
# byte, goes when containerd wants it to go, and is not lost when the daemon is killed, whatever it was doing.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

probe=''

setup() {
	start_all_with_content
	ctr namespaces create red
	ctr namespaces create blue
	printf 'a blob that only the store can show\n' >"$life_dir/probe"
	probe=$(ingest "$life_dir/probe")
}

# --- blobs ----------------------------------------------------------------------------------------------------

# digest_of FILE
digest_of() {
	printf 'sha256:%s' "$(sha256sum "$1" | cut -d' ' -f1)"
}

# blob_file DIGEST: where the store keeps it
blob_file() {
	printf '%s/blobs/%s/%s' "$content_root" "${1%%:*}" "${1#*:}"
}

no_blob() {
	gone "$(blob_file "$1")"
}

# ingest FILE: a blob that stays; its digest is printed. ctr protects what it ingests from garbage collection by
# nothing, so it may be gone before it can be labelled.
ingest() {
	local digest size
	digest=$(digest_of "$1")
	size=$(stat -c %s "$1")

	for _ in 1 2 3 4 5; do
		ctr content ingest --expected-size "$size" --expected-digest "$digest" "ref-$RANDOM$RANDOM" <"$1" >&2
		if ctr content label "$digest" containerd.io/gc.root=test >/dev/null 2>&1; then
			printf '%s' "$digest"
			return 0
		fi
	done
	return 1
}

# random_file MIB: its path is printed
random_file() {
	local file
	file=$(mktemp "$life_dir/random.XXXXXX")
	head -c "$(($1 << 20))" /dev/urandom >"$file"
	printf '%s' "$file"
}

# image_blobs REF [NAMESPACE]: the digests of manifest, config and layers
image_blobs() {
	local manifest
	manifest=$(ctr -n "${2:-default}" images ls "name==$1" | awk 'NR == 2 { print $3 }')
	printf '%s\n' "$manifest"
	ctr -n "${2:-default}" content get "$manifest" | grep -oE 'sha256:[0-9a-f]{64}'
}

# layers_of REF [NAMESPACE]
layers_of() {
	image_blobs "$@" | tail -n +3
}

# download REGISTRY REPOSITORY DIGEST FILE: what a registry serves, past containerd
download() {
	local accept='Accept: application/vnd.oci.image.manifest.v1+json'
	curl -fsS -o "$4" "http://$1/v2/$2/blobs/$3" 2>/dev/null ||
		curl -fsS -o "$4" -H "$accept" "http://$1/v2/$2/manifests/$3"
}

# as_served REGISTRY REPOSITORY DIGEST [NAMESPACE]: is a blob that comes out of containerd, and one that lies on disk,
# what the registry serves?
as_served() {
	local dir
	dir=$(mktemp -d "$life_dir/served.XXXXXX")
	download "$1" "$2" "$3" "$dir/served"
	ctr -n "${4:-default}" content get "$3" >"$dir/got"
	cmp "$dir/served" "$dir/got"
	cmp "$dir/served" "$(blob_file "$3")"
	rm -r "$dir"
}

# image_as_served NAME REF [NAMESPACE]: the same of all blobs of an image; prints how many there are
image_as_served() {
	local digest n=0
	for digest in $(image_blobs "$2" "${3:-default}"); do
		as_served "$registry_host" "test/$1" "$digest" "${3:-default}"
		n=$((n + 1))
	done
	printf '%d' "$n"
}

# --- large images, and a registry that stalls ----------------------------------------------------------------

# large_image NAME: a layer of some 1 MiB, as it is transferred, and two of 18 MiB. No more, as containerd 2.x downloads
# three at a time.
large_image() {
	local dir i
	dir=$(mktemp -d "$life_dir/large.XXXXXX")
	image_begin
	busybox_layer "$dir/base"
	printf '%s\n' "$1" >"$dir/base/etc/name"
	image_add_dir "$dir/base"
	for i in 1 2; do
		mkdir "$dir/$i"
		head -c $((18 << 20)) /dev/urandom >"$dir/$i/random$i"
		image_add_dir "$dir/$i" tar
	done
	image_push "$registry_host" "test/$1" v1
	rm -r "$dir"
}

# start_stalling: a registry in front of the other; sets stalling_host, and gate, the file that lets it go on
start_stalling() {
	gate=$life_dir/gate.$RANDOM$RANDOM
	# the one of a test that failed
	life_stop stalling
	rm -f "$life_dir/log/stalling"
	life_start stalling "$python" "$repo_root/tests/system/stalling_registry.py" "$registry_host" "$gate"
	wait_until "$soon" stalling_listens
}

stalling_listens() {
	stalling_host=$(sed -n 's/^listening on //p' "$life_dir/log/stalling" | tail -n 1)
	[[ $stalling_host ]] && curl -fsS -o /dev/null --max-time 5 "http://$stalling_host/v2/"
}

# start_client ARGUMENT...: ctr in the background, as the process "client"
start_client() {
	# the one of a test that failed
	life_stop client KILL
	life_start client "$containerd_ctr_exe" --address "$containerd_socket" "$@"
}

# client_has_ended: whether a client gives up or goes on when the store comes back is its own affair
client_has_ended() {
	life_exit_status client >/dev/null
}

# held_of DIGEST: how many bytes the store holds of a layer that is being pulled
held_of() {
	local head
	head=$(grep -lsF "layer-$1" "$content_root"/ingests/*.ref) || return 1
	stat -c %s "${head%.ref}"
}

# large_layers: the digests of the last image's
large_layers() {
	printf '%s\n' "${image_layers[@]:1}" | grep -oE 'sha256:[0-9a-f]{64}'
}

# halves_held: has the store a good part of each large layer of the last image?
halves_held() {
	local digest
	for digest in $(large_layers); do
		[[ $(held_of "$digest" 2>/dev/null || echo 0) -ge $((2 << 20)) ]] || return 1
	done
}

# acknowledged: the digests of what containerd takes for committed, which it knows by itself
acknowledged() {
	ctr content ls -q
}

# nothing_lost LIST: is each of these digests what it was when it was acknowledged? But for what containerd has
# collected meanwhile, as it does when a client gave up.
nothing_lost() {
	local digest
	for digest in $1; do
		[[ sha256:$(ctr content get "$digest" | sha256sum | cut -d' ' -f1) != "$digest" ]] || continue
		if acknowledged | grep -x "$digest"; then
			printf 'lost, or another: %s\n' "$digest" >&2
			return 1
		fi
	done
}

content_reachable() {
	[[ $(timeout 10 "$containerd_ctr_exe" --address "$containerd_socket" content get "$probe" 2>/dev/null) == \
		$(cat "$life_dir/probe") ]]
}

bring_back() {
	content_start_again
	wait_until "$soon" content_reachable
}

# forget REF...: later tests have less to look at
forget() {
	ctr images rm "$@" >/dev/null
}

# --- what goes in comes out ------------------------------------------------------------------------------------

test_takes_the_place_of_the_built_in_store() {
	equal "$(ctr plugins ls | awk '$1 == "io.containerd.content.v1" { print $2, $NF }')" "$cn ok"
	[[ ! -d $life_dir/containerd/root/io.containerd.content.v1.content/blobs ]]
}

test_pulled_blobs_are_what_the_registry_serves() {
	local ref
	ref=$(plain_image pulled)
	pull "$ref"
	equal "$(image_as_served pulled "$ref")" 5
	contains "$(ctr images check "name==$ref")" ' complete \(4/4\)'
	equal "$(run "$ref" cat /etc/name /data/above)" "$(printf 'pulled\nabove')"
	forget "$ref"
}

test_large_layers_are_what_the_registry_serves() {
	local ref=$registry_host/test/large:v1
	large_image large
	pull "$ref"
	equal "$(image_as_served large "$ref")" 5
	equal "$(run "$ref" sh -c 'cat /random1 /random2 | wc -c')" $((36 << 20))
	forget "$ref"
}

test_five_images_are_pulled_at_the_same_time() {
	local refs=() pids=() i
	for i in 1 2 3 4 5; do
		refs+=("$(plain_image "at-once-$i")")
	done
	for i in "${refs[@]}"; do
		pull "$i" &
		pids+=("$!")
	done
	for i in "${pids[@]}"; do
		wait "$i"
	done
	for i in 1 2 3 4 5; do
		equal "$(image_as_served "at-once-$i" "${refs[i - 1]}")" 5
		equal "$(run "${refs[i - 1]}" cat /etc/name)" "at-once-$i"
	done
	forget "${refs[@]}"
}

test_exported_archive_holds_the_blobs() {
	local ref digest dir=$life_dir/exported
	ref=$(plain_image exported)
	pull "$ref"
	ctr images export "$life_dir/exported.tar" "$ref"
	mkdir "$dir"
	tar xf "$life_dir/exported.tar" -C "$dir"
	for digest in $(image_blobs "$ref"); do
		download "$registry_host" test/exported "$digest" "$life_dir/served"
		cmp "$life_dir/served" "$dir/blobs/sha256/${digest#*:}"
	done
	forget "$ref"
}

test_imported_image_has_the_blobs_of_the_archive() {
	local ref digests digest
	ref=$(plain_image imported)
	pull "$ref"
	digests=$(image_blobs "$ref")
	ctr images export "$life_dir/imported.tar" "$ref"
	ctr images rm --sync "$ref" >/dev/null
	for digest in $digests; do
		wait_until "$soon" no_blob "$digest"
	done
	ctr images import --snapshotter "$sn" "$life_dir/imported.tar" >/dev/null
	equal "$(image_blobs "$ref")" "$digests"
	equal "$(image_as_served imported "$ref")" 5
	equal "$(run "$ref" cat /etc/name)" imported
	forget "$ref"
}

test_image_is_pushed_to_another_registry() {
	local ref digest first=$registry_host registry_host
	registry_host=$first
	ref=$(plain_image pushed)
	pull "$ref"
	registry_start second
	ctr images tag "$ref" "$registry_host/other/copy:v2" >/dev/null
	ctr images push --plain-http "$registry_host/other/copy:v2" >/dev/null
	for digest in $(image_blobs "$ref"); do
		download "$first" test/pushed "$digest" "$life_dir/pushed-from"
		download "$registry_host" other/copy "$digest" "$life_dir/pushed-to"
		cmp "$life_dir/pushed-from" "$life_dir/pushed-to"
	done
	curl -fsS -o "$life_dir/pushed-to" -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
		"http://$registry_host/v2/other/copy/manifests/v2"
	equal "$(digest_of "$life_dir/pushed-to")" "$(image_blobs "$ref" | head -n 1)"
	forget "$ref" "$registry_host/other/copy:v2"
}

test_image_is_pushed_to_a_second_repository() {
	local ref digest
	# imported, so that containerd does not know where the registry has it already, and sends every byte
	ref=$(plain_image repushed)
	pull "$ref"
	ctr images export "$life_dir/repushed.tar" "$ref"
	ctr -n blue images import --no-unpack "$life_dir/repushed.tar" >/dev/null
	ctr -n blue images push --plain-http "$registry_host/second/repushed:v1" "$ref" >/dev/null
	for digest in $(image_blobs "$ref"); do
		as_served "$registry_host" second/repushed "$digest" blue
	done
	forget "$ref"
}

test_fetched_content_is_what_the_registry_serves() {
	local ref
	ref=$(plain_image fetched)
	ctr content fetch --plain-http "$ref" >/dev/null
	equal "$(image_as_served fetched "$ref")" 5
	forget "$ref"
}

test_ingested_file_comes_back() {
	local file digest
	file=$(random_file 21)
	# not a multiple of anything
	printf 'and a few more' >>"$file"
	digest=$(ingest "$file")
	ctr content get "$digest" | cmp - "$file"
	cmp "$(blob_file "$digest")" "$file"
	equal "$(stat -c %h "$(blob_file "$digest")")" 1
	# and once more is no error
	equal "$(ingest "$file")" "$digest"

	: >"$file"
	digest=$(ingest "$file")
	equal "$(ctr content get "$digest" | wc -c)" 0
	equal "$(stat -c %s "$(blob_file "$digest")")" 0
}

test_ingest_of_other_bytes_than_announced_is_refused() {
	local file other digest
	file=$(random_file 1) other=$(random_file 1)
	digest=$(digest_of "$file")
	contains "$(fails ctr content ingest --expected-size $((1 << 20)) --expected-digest "$digest" wrong-digest \
		<"$other")" 'unexpected commit digest|failed precondition'
	no_blob "$digest"
	no_blob "$(digest_of "$other")"
	contains "$(fails ctr content ingest --expected-size $((2 << 20)) --expected-digest "$digest" wrong-size \
		<"$file")" 'expected number of bytes|short read: expected'
	no_blob "$digest"
	fails ctr content get "$digest"
	# nor is the digest spoiled for whoever has the bytes
	equal "$(ingest "$file")" "$digest"
}

test_labels_are_set_and_taken_away() {
	local file digest
	file=$(random_file 1)
	digest=$(ingest "$file")
	ctr content label "$digest" color=green shape=round >/dev/null
	contains "$(ctr content ls 'labels.color==green')" "^$digest.*color=green"
	ctr content label "$digest" color= >/dev/null
	equal "$(ctr content ls -q 'labels.color==green')" ''
	equal "$(ctr content ls -q 'labels.shape==round')" "$digest"
	ctr content get "$digest" | cmp - "$file"
}

# --- what goes, goes --------------------------------------------------------------------------------------------

test_deleted_blob_leaves_the_disk() {
	local file digest
	file=$(random_file 1)
	digest=$(ingest "$file")
	ctr content rm "$digest" >/dev/null
	collect
	wait_until "$soon" no_blob "$digest"
	fails ctr content get "$digest"
	# it may come again
	equal "$(ingest "$file")" "$digest"
	ctr content get "$digest" | cmp - "$file"
}

test_blob_that_nothing_refers_to_is_collected() {
	local file kept digest
	file=$(random_file 1)
	kept=$(ingest "$(random_file 1)")
	digest=$(ingest "$file")
	ctr content label "$digest" containerd.io/gc.root= >/dev/null
	collect
	wait_until "$soon" no_blob "$digest"
	[[ -e $(blob_file "$kept") ]]
}

test_one_blob_serves_two_namespaces() {
	local ref digest n
	ref=$(plain_image shared)
	pull "$ref" red
	n=$(find "$content_root/blobs" -type f | wc -l)
	pull "$ref" blue
	equal "$(find "$content_root/blobs" -type f | wc -l)" "$n"
	equal "$(image_as_served shared "$ref" red)" 5
	equal "$(image_as_served shared "$ref" blue)" 5
	for digest in $(image_blobs "$ref" red); do
		fails ctr content get "$digest" >/dev/null
	done
}

test_blob_goes_with_the_last_namespace_that_has_it() {
	local ref digests digest
	ref=$(plain_image two-owners)
	pull "$ref" red
	pull "$ref" blue
	digests=$(image_blobs "$ref" red)
	ctr -n red images rm --sync "$ref" >/dev/null
	for digest in $digests; do
		fails ctr -n red content get "$digest"
		as_served "$registry_host" test/two-owners "$digest" blue
	done
	equal "$(logged -n blue run -- --rm --snapshotter "$sn" "$ref" "$(unique owner)" cat /etc/name)" two-owners
	ctr -n blue images rm --sync "$ref" >/dev/null
	for digest in $digests; do
		wait_until "$soon" no_blob "$digest"
	done
}

test_pruned_layers_go_and_containers_run() {
	local ref layers digest
	ref=$(plain_image pruned)
	pull "$ref" red
	pull "$ref" blue
	layers=$(layers_of "$ref" red)
	ctr -n red content prune references >/dev/null
	collect
	# blue refers to them still
	for digest in $layers; do
		as_served "$registry_host" test/pruned "$digest" blue
	done
	ctr -n blue content prune references >/dev/null
	collect
	for digest in $layers; do
		wait_until "$soon" no_blob "$digest"
	done
	contains "$(ctr -n blue images check "name==$ref")" 'incomplete \(1/4\)'
	equal "$(logged -n blue run -- --rm --snapshotter "$sn" "$ref" "$(unique pruned)" cat /etc/name)" pruned
	# and they can be had again
	ctr -n blue content fetch --plain-http "$ref" >/dev/null
	equal "$(image_as_served pruned "$ref" blue)" 5
}

# --- the daemon is stopped, and killed ----------------------------------------------------------------------------

# survive SIGNAL NAME: what the next two have in common
survive() {
	local ref more id held
	ref=$(plain_image "$2")
	more=$(plain_image "$2-more")
	id=$(unique "$2")
	pull "$ref"
	start_counter "$ref" "$id"
	held=$(acknowledged)

	end_process content "$1"
	counts "$id"
	# what is unpacked needs no content store; snapshots come and go without one
	ctr snapshots --snapshotter "$sn" prepare "$2-key" "$(image_chain_of_snapshots "$id")" >/dev/null
	rm_snapshot "$2-key"
	bring_back

	counts "$id"
	nothing_lost "$held"
	equal "$(image_as_served "$2" "$ref")" 5
	pull "$more"
	equal "$(image_as_served "$2-more" "$more")" 5
	equal "$(run "$more" cat /etc/name)" "$2-more"
	remove "$id"
	forget "$ref" "$more"
}

# image_chain_of_snapshots ID: the parent of a container's snapshot
image_chain_of_snapshots() {
	snapshots | awk -v key="$1" '$1 == key { print $2 }'
}

test_everything_is_there_after_a_stop() {
	survive TERM stopped
	no_sanitizer_report
}

test_everything_is_there_after_a_kill() {
	survive KILL killed
}

test_reading_fails_at_once_with_the_daemon_down() {
	end_process content KILL
	# timeout ends what would hang; how fast is not measured
	contains "$(fails timeout "$soon" "$containerd_ctr_exe" --address "$containerd_socket" content get "$probe")" \
		'navailable|connection error|connection refused|no such file'
	bring_back
}

test_killed_in_a_pull_loses_nothing_acknowledged() {
	local stalling_host gate ref id held digest
	ref=$(plain_image beside)
	id=$(unique beside)
	pull "$ref"
	start_counter "$ref" "$id"
	large_image killed-in-a-pull
	start_stalling
	ref=$stalling_host/test/killed-in-a-pull:v1

	start_client images pull --plain-http --snapshotter "$sn" "$ref"
	# manifest, config and the first layer are there, the others by half
	wait_until "$soon" halves_held
	wait_until "$soon" small_blobs_protected
	end_process content KILL
	held=$(acknowledged)
	counts "$id"
	bring_back
	nothing_lost "$held"
	for digest in $(small_blobs); do
		as_served "$registry_host" test/killed-in-a-pull "$digest"
	done
	: >"$gate"
	wait_until "$soon" client_has_ended
	pull "$ref"
	equal "$(image_as_served killed-in-a-pull "$ref")" 5
	equal "$(run "$ref" sh -c 'cat /etc/name; cat /random1 /random2 | wc -c')" \
		"$(printf 'killed-in-a-pull\n%d' $((36 << 20)))"
	counts "$id"
	remove "$id"
	life_stop stalling
}

# small_blobs: the digests of those blobs of the last image that the registry does not hold back
small_blobs() {
	printf '%s\n' "$image_manifest_digest"
	printf '%s\n' "${image_layers[0]}" | grep -oE 'sha256:[0-9a-f]{64}'
}

# small_blobs_protected: once containerd has them, they stay, though the pull ends
small_blobs_protected() {
	local digest
	for digest in $(small_blobs); do
		ctr content label "$digest" containerd.io/gc.root=test >/dev/null 2>&1 || return 1
	done
}

test_download_goes_on_where_the_kill_cut_it_off() {
	local stalling_host gate ref digest held=()
	large_image resumed
	start_stalling
	ref=$stalling_host/test/resumed:v1

	# A client that ends in order takes its lease with it, and containerd what was held under it. So it is killed, too.
	start_client content fetch --plain-http "$ref"
	wait_until "$soon" halves_held
	end_process client KILL
	end_process content KILL
	for digest in $(large_layers); do
		held+=("$digest:$(held_of "$digest")")
	done
	equal "${#held[@]}" 2
	bring_back

	: >"$gate"
	timeout "$soon" "$containerd_ctr_exe" --address "$containerd_socket" content fetch --plain-http "$ref" >/dev/null
	for digest in "${held[@]}"; do
		contains "$(cat "$life_dir/log/stalling")" "^GET /v2/test/resumed/blobs/${digest%:*} bytes=${digest##*:}-"
		fails held_of "${digest%:*}"
	done
	equal "$(image_as_served resumed "$ref")" 5
	life_stop stalling
}

test_killed_again_and_again_under_pulls() {
	local i refs=() before held
	for i in 1 2 3 4 5 6; do
		refs+=("$(plain_image "again-$i")")
	done
	for i in 1 2 3 4 5 6; do
		before=$(calls_served)
		start_client images pull --plain-http --snapshotter "$sn" "${refs[i - 1]}"
		# each time a bit later
		wait_until "$soon" has_served_or_client_ended $((before + 5 * i))
		end_process content KILL
		held=$(acknowledged)
		bring_back
		nothing_lost "$held"
		wait_until "$soon" client_has_ended
		pull "${refs[i - 1]}"
	done
	for i in 1 2 3 4 5 6; do
		equal "$(image_as_served "again-$i" "${refs[i - 1]}")" 5
		equal "$(run "${refs[i - 1]}" cat /etc/name)" "again-$i"
	done
	forget "${refs[@]}"
}

# calls_served: since the first start
calls_served() {
	grep -c 'method=' "$life_dir/log/content"
}

# has_served_or_client_ended N
has_served_or_client_ended() {
	[[ $(calls_served) -ge $1 ]] || client_has_ended
}

test_containerd_and_content_store_killed_find_everything() {
	local ref id held
	ref=$(plain_image both-killed)
	id=$(unique both-killed)
	pull "$ref"
	start_counter "$ref" "$id"
	held=$(acknowledged)
	kill -s KILL "$(life_pid containerd)"
	end_process content KILL
	content_start_again
	wait_until "$soon" life_exit_status containerd
	containerd_start_again
	wait_until "$soon" content_reachable
	nothing_lost "$held"
	equal "$(image_as_served both-killed "$ref")" 5
	counts "$id"
	equal "$(run "$ref" cat /etc/name)" both-killed
	remove "$id"
}

test_second_daemon_on_the_same_root_is_refused_at_once() {
	local out
	out=$(fails timeout "$soon" "${content_command[0]}" --root "$content_root" --address "$life_dir/second.sock")
	contains "$out" '[Ll]ock|in use|already|another'
	# and the first one serves on
	content_reachable
}

# configure PROXY...: another configuration for containerd, which must not run
configure() {
	containerd_config "$@" >"$life_dir/containerd/config.toml"
}

test_blobs_move_to_the_built_in_store_and_back() {
	local ref more id digest own=$life_dir/containerd/root/io.containerd.content.v1.content
	ref=$(plain_image moved)
	more=$(plain_image moved-more)
	id=$(unique moved)
	pull "$ref"
	start_counter "$ref" "$id"

	life_stop containerd TERM "$soon"
	end_process content TERM
	configure "$sn=$plugin_socket"
	containerd_start_again
	# containerd believes that it has the blobs
	contains "$(fails ctr images pull --plain-http --snapshotter "$sn" "$ref")" 'not found'
	life_stop containerd TERM "$soon"
	mkdir -p "$own"
	rm -rf "$own/blobs"
	cp -a --reflink=auto "$content_root/blobs" "$own/"
	containerd_start_again
	counts "$id"
	for digest in $(image_blobs "$ref"); do
		ctr content get "$digest" | cmp - "$(blob_file "$digest")"
	done
	pull "$more"
	equal "$(run "$ref" cat /etc/name)$(run "$more" cat /etc/name)" movedmoved-more

	# back: files without a database are verified, and adopted
	life_stop containerd TERM "$soon"
	rm -r "$content_root"
	mkdir -m 0700 "$content_root"
	mv "$own/blobs" "$content_root/"
	content_start_again
	wait_until "$soon" gone "$content_root/adopt"
	configure "$sn=$plugin_socket" "content:$cn=$content_socket"
	containerd_start_again
	wait_until "$soon" content_reachable
	counts "$id"
	equal "$(image_as_served moved "$ref")" 5
	equal "$(image_as_served moved-more "$more")" 5
	equal "$(run "$ref" cat /etc/name)$(run "$more" cat /etc/name)" movedmoved-more
	remove "$id"
}

system_main "$@"
