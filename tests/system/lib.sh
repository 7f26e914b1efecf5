# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154,SC2119,SC2120 # variables of scripts/lib; optional arguments
# What every file of system tests shares. A file here is a program of its own: it may define setup(), defines
# functions test_*, each of which proves one behaviour named after it, and ends with: system_main "$@".
#
# setup() runs once and starts what all tests of the file share; each test runs in a subshell with set -e, and
# brings its own images, namespaces and container names. A test fails by a command that fails; it calls
# skip REASON where the machine cannot do what it needs.
#
# The environment, all optional:
#	LIGHTER_OVERLAY            the executables that are tested (default: those of preset dev)
#	LIGHTER_CONTENT
#	CONTAINERD, CTR            containerd and its client
#	CONTAINERD_CONFIG_VERSION  default 2 for 1.x, 3 for 2.x
#	SYSTEM_RESULTS             file to which "pass|fail|skip" is appended, a line a test
#	SYSTEM_VERBOSE             print the log of tests that pass, too
set -euo pipefail

repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=scripts/lib/say.sh
. "$repo_root/scripts/lib/say.sh"
# shellcheck source=scripts/lib/wait.sh
. "$repo_root/scripts/lib/wait.sh"
# shellcheck source=scripts/lib/lifetime.sh
. "$repo_root/scripts/lib/lifetime.sh"
# shellcheck source=scripts/lib/packages.sh
. "$repo_root/scripts/lib/packages.sh"
# shellcheck source=scripts/lib/host.sh
. "$repo_root/scripts/lib/host.sh"
# shellcheck source=scripts/lib/build.sh
. "$repo_root/scripts/lib/build.sh"
# shellcheck source=scripts/lib/registry.sh
. "$repo_root/scripts/lib/registry.sh"
# shellcheck source=scripts/lib/image.sh
. "$repo_root/scripts/lib/image.sh"
# shellcheck source=scripts/lib/plugin.sh
. "$repo_root/scripts/lib/plugin.sh"
# shellcheck source=scripts/lib/containerd.sh
. "$repo_root/scripts/lib/containerd.sh"

export LC_ALL=C.UTF-8
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
unset CONTAINERD_ADDRESS CONTAINERD_NAMESPACE CONTAINERD_SNAPSHOTTER NOTIFY_SOCKET LISTEN_FDS LISTEN_PID

# the names under which containerd knows us, and a deadline that only ends hangs
sn=lighter-overlay
cn=lighter-content
soon=120
python=$(PATH=/usr/bin:$PATH type -P python3 || true)

# --- what a file's setup() starts -----------------------------------------------------------------------

# start_all [OPTION...]: registry, plugin (with these options of its own), containerd
start_all() {
	registry_start
	start_plugin "$@"
	containerd_start "$sn=$plugin_socket"
}

# start_all_with_content: the same with lighter-content in place of containerd's own content store
start_all_with_content() {
	registry_start
	start_content
	start_plugin
	containerd_start "$sn=$plugin_socket" "content:$cn=$content_socket"
}

# a sanitizer's report must end the process, so that it cannot be overlooked
report_by_exit() {
	export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=0:exitcode=99}
	export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1:exitcode=99}
}

start_content() {
	report_by_exit
	content_start "${LIGHTER_CONTENT:-$(build_daemon dev content)}" --log-level debug "$@"
}

start_plugin() {
	report_by_exit
	plugin_start "${LIGHTER_OVERLAY:-$(build_daemon dev overlay)}" --log-level debug "$@"
}

# plugin_reachable: can containerd use the plugin (again)? It waits up to 3 s between attempts to connect. Only a
# call that containerd cannot answer by itself tells.
plugin_reachable() {
	local probe=reachable-$RANDOM$RANDOM
	ctr snapshots --snapshotter "$sn" prepare "$probe" >/dev/null 2>&1 || return 1
	ctr snapshots --snapshotter "$sn" rm "$probe"
}

# processes: those of ours that the file has started
processes() {
	printf 'plugin\n'
	[[ ! $content_root ]] || printf 'content\n'
}

# end_process NAME SIGNAL: and wait until it is gone
end_process() {
	kill -s "$2" "$(life_pid "$1")"
	wait_until "$soon" life_exit_status "$1" >/dev/null
}

# --- images ------------------------------------------------------------------------------------------------

# busybox_layer DIR: a root file system of Debian's static busybox
busybox_layer() {
	local applet
	mkdir -p "$1"/{bin,etc,proc,sys,dev,root,tmp}
	chmod 1777 "$1/tmp"
	cp /bin/busybox "$1/bin/busybox"
	for applet in sh ls cat echo grep id rm mv mkdir rmdir touch sleep chmod chown ln stat test kill tail \
		head sync dd mknod find sort; do
		ln -sf busybox "$1/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\n' >"$1/etc/passwd"
	printf 'root:x:0:\n' >"$1/etc/group"
}

# plain_image NAME: three layers, pushed; its reference is printed. Every NAME gives layers of its own.
plain_image() {
	local name=$1 dir
	dir=$(mktemp -d "$life_dir/plain.XXXXXX")
	image_begin
	busybox_layer "$dir/1"
	printf '%s\n' "$name" >"$dir/1/etc/name"
	mkdir -p "$dir"/{2/data/sub,3/data,3/etc}
	seq 1 20000 >"$dir/2/data/numbers"
	printf 'below\n' >"$dir/2/data/sub/below"
	printf 'gone\n' >"$dir/2/data/deleted"
	: >"$dir/3/data/.wh.deleted"
	printf 'above\n' >"$dir/3/data/above"
	printf '%s on top\n' "$name" >"$dir/3/etc/top"
	image_add_dir "$dir/1"
	image_add_dir "$dir/2"
	image_add_dir "$dir/3"
	image_push "$registry_host" "test/$name" v1
	rm -rf "$dir"
	printf '%s/test/%s:v1' "$registry_host" "$name"
}

# pull REF [NAMESPACE]
pull() {
	ctr -n "${2:-default}" images pull --plain-http --snapshotter "$sn" "$1" >/dev/null
}

# --- containers ---------------------------------------------------------------------------------------------

# unique WORD: a name no other test run on this machine uses (runc's state is shared by all containerds)
unique() {
	printf 'lighter-%s-%s-%s' "$1" "$$" "$RANDOM"
}

# logged COMMAND... -- ARGUMENT...: COMMAND --log-uri FILE ARGUMENT..., then what FILE holds. ctr loses, now and
# then, what a process prints that ends at once; the shim, writing a file, does not.
logged() {
	local command=() file=$life_dir/out.$RANDOM$RANDOM rc=0
	while [[ $1 != -- ]]; do
		command+=("$1")
		shift
	done
	shift
	: >"$file"
	ctr "${command[@]}" --log-uri "file://$file" "$@" || rc=$?
	cat "$file"
	rm "$file"
	return "$rc"
}

# run REF COMMAND...: run to the end, print its output
run() {
	local ref=$1
	shift
	logged run -- --rm --snapshotter "$sn" "$ref" "$(unique run)" "$@"
}

# start REF ID COMMAND...: start a plain image's container in the background. What a test then runs inside of it
# may delete, so see first that it is inside.
start() {
	local ref=$1 id=$2
	shift 2
	ctr run --detach --null-io --snapshotter "$sn" "$ref" "$id" "$@"
	inside "$id" test -e /etc/name
}

# inside ID COMMAND...: run a command in a running container
inside() {
	local id=$1
	shift
	logged tasks exec -- --exec-id "e$RANDOM$RANDOM" "$id" "$@"
}

# start_counter REF ID: a container that writes a file again and again, reads a layer's, and deletes another's
start_counter() {
	# shellcheck disable=SC2016 # run in the container
	start "$1" "$2" sh -c 'n=0; while :; do n=$((n + 1)); cat /data/above >/dev/null || exit 9
		echo $n >/counter.new && mv /counter.new /counter; sleep 0.02; done'
	wait_until "$soon" inside "$2" test -e /counter
}

# counts ID: does the container's counter move on?
counts() {
	local before
	before=$(inside "$1" cat /counter)
	wait_until "$soon" has_counted_beyond "$1" "$before"
}

has_counted_beyond() {
	[[ $(inside "$1" cat /counter) -gt $2 ]]
}

# remove ID: kill and remove a container
remove() {
	ctr tasks rm --force "$1" >/dev/null
	ctr containers rm "$1"
}

# --- snapshots ------------------------------------------------------------------------------------------------

# snapshots: "KEY PARENT KIND" of each
snapshots() {
	ctr snapshots --snapshotter "$sn" ls | tail -n +2
}

# chain_top REF [NAMESPACE]: the snapshot of an image's uppermost layer, found as the one committed snapshot whose
# name containerd has written on the image's config
chain_top() {
	ctr -n "${2:-default}" content ls "labels.\"containerd.io/gc.ref.snapshot.$sn\"" | tail -n +2 |
		sed -n "s,.*containerd.io/gc.ref.snapshot.$sn=\(sha256:[0-9a-f]*\).*,\1,p" |
		grep -xF "$(image_chain "$1" "${2:-default}")"
}

# image_chain REF [NAMESPACE]: the chain ID of all layers, computed from the config
image_chain() {
	local manifest config id chain=''
	manifest=$(ctr -n "${2:-default}" images ls "name==$1" | awk 'NR == 2 { print $3 }')
	config=$(ctr -n "${2:-default}" content get "$manifest" |
		grep -o '"config":{[^}]*}' | grep -o 'sha256:[0-9a-f]*')
	for id in $(ctr -n "${2:-default}" content get "$config" | grep -o '"diff_ids":\[[^]]*\]' |
		grep -o 'sha256:[0-9a-f]*'); do
		if [[ $chain ]]; then
			chain=sha256:$(printf '%s %s' "$chain" "$id" | sha256sum | cut -d' ' -f1)
		else
			chain=$id
		fi
	done
	printf '%s\n' "$chain"
}

# chain_of KEY: KEY and its ancestors, the nearest first
chain_of() {
	local list key=$1
	list=$(snapshots)
	while [[ $key ]]; do
		printf '%s\n' "$key"
		key=$(awk -v key="$key" '$1 == key && NF == 3 { print $2 }' <<<"$list")
	done
}

# mount_options KEY [SNAPSHOTTER]: "TYPE SOURCE OPTIONS" of the (only) mount
mount_options() {
	# mount -t TYPE SOURCE TARGET -o OPTIONS
	ctr snapshots --snapshotter "${2:-$sn}" mounts /target "$1" | awk '{ print $3, $4, $7 }'
}

# view KEY PARENT [SNAPSHOTTER [NAMESPACE]]: a view that stays. ctr gives a view no protection against garbage
# collection (other than what it prepares), so it may be gone before it can be labelled.
view() {
	local in=(-n "${4:-default}" snapshots --snapshotter "${3:-$sn}")

	for _ in 1 2 3 4 5; do
		ctr "${in[@]}" view "$1" "$2" >/dev/null
		if ctr "${in[@]}" label "$1" containerd.io/gc.root=test >/dev/null 2>&1; then
			return 0
		fi
	done
	return 1
}

# rm_snapshot KEY [SNAPSHOTTER]
rm_snapshot() {
	ctr snapshots --snapshotter "${2:-$sn}" rm "$1"
}

# layer_dir KEY [SNAPSHOTTER]: the directory of a committed snapshot
layer_dir() {
	local probe=layer-dir-$RANDOM$RANDOM
	ctr snapshots --snapshotter "${2:-$sn}" prepare "$probe" "$1" >/dev/null
	mount_options "$probe" "${2:-$sn}" | sed -n 's,.*lowerdir=\([^:,]*\).*,\1,p'
	rm_snapshot "$probe" "${2:-$sn}"
}

# upper_of KEY: the directory of an active snapshot
upper_of() {
	mount_options "$1" | sed -n 's,.*upperdir=\([^,]*\).*,\1,p;s,^bind \([^ ]*\) .*,\1,p'
}

# mount_snapshot KEY DIR [SNAPSHOTTER]: as containerd's client would
mount_snapshot() {
	local type source options
	mkdir -p "$2"
	read -r type source options < <(mount_options "$1" "${3:-$sn}")
	mount -t "$type" "$source" "$2" -o "$options"
}

# collect: a round of garbage collection, to its end
collect() {
	ctr leases rm --sync "$(ctr leases create)" >/dev/null
}

# --- claims -----------------------------------------------------------------------------------------------------

# equal ACTUAL EXPECTED
equal() {
	[[ $1 != "$2" ]] || return 0
	printf 'expected: %s\nbut got:  %s\n' "$2" "$1" >&2
	return 1
}

# contains TEXT PATTERN (an extended regular expression)
contains() {
	grep -qE -- "$2" <<<"$1" && return 0
	printf 'expected to find: %s\nin: %s\n' "$2" "$1" >&2
	return 1
}

# fails COMMAND...: it must fail; its output is printed
fails() {
	local out
	if out=$("$@" 2>&1); then
		printf 'expected to fail: %s\nprinted: %s\n' "$*" "$out" >&2
		return 1
	fi
	printf '%s' "$out"
}

# same_tree ONE OTHER: equal in every attribute
same_tree() {
	"$python" "$repo_root/tests/system/compare_trees.py" "$@"
}

gone() {
	[[ ! -e $1 ]]
}

skip() {
	printf '%s' "$*" >"$life_dir/skip"
	exit 77
}

# test_plugin_stops_cleanly: the last test of every file. SIGTERM ends each process of ours with 0, without a
# sanitizer's report, and what lies on disk then is what the database names. Garbage collection that is cut off leaves
# directories for the next start, as it should, so let it end first.
test_plugin_stops_cleanly() {
	local process
	collect
	for process in $(processes); do
		end_process "$process" TERM
		equal "$process: exit status $(life_exit_status "$process")" "$process: exit status 0"
	done
	no_sanitizer_report
	files_match_database
}

no_sanitizer_report() {
	local process
	for process in $(processes); do
		if grep -nE -A 30 'ERROR: (Address|Leak|Thread)Sanitizer|runtime error:|WARNING: ThreadSanitizer' \
			"$life_dir/log/$process" >&2; then
			return 1
		fi
	done
}

# files_match_database: only for processes that stand still
files_match_database() {
	"$python" "$repo_root/tests/system/check_root.py" "$plugin_root" || return 1
	[[ ! $content_root ]] || "$python" "$repo_root/tests/system/check_content.py" "$content_root"
}

# --- running ----------------------------------------------------------------------------------------------------

system_chosen=()

system_result() {
	local kind=$1 name=$2 text=$3
	[[ -z ${SYSTEM_RESULTS:-} ]] || printf '%s\n' "$kind" >>"$SYSTEM_RESULTS"
	case $kind in
	pass) printf '%sok%s    %s (%s)\n' "$say_green" "$say_off" "$name" "$text" ;;
	fail) printf '%sFAIL%s  %s (%s)\n' "$say_red$say_bold" "$say_off" "$name" "$text" ;;
	skip) printf '%sskip%s  %s (%s)\n' "$say_yellow" "$say_off" "$name" "$text" ;;
	esac >&3
}

system_names() {
	local line
	while read -r line; do
		line=${line#test_}
		printf '%s/%s\n' "$1" "${line%%(*}"
	done < <(grep -oE '^test_[a-z0-9_]+\(' "$0")
	printf '%s/plugin_stops_cleanly\n' "$1"
}

# system_setup_failed: registered while setup() runs
system_setup_failed() {
	local name
	[[ ! -e $life_dir/is-set-up && $1 -ne 0 ]] || return 0
	for name in "${system_chosen[@]}"; do
		system_result fail "$name" "setup failed"
	done
	say_tail "$life_dir/setup.log" 40 >&3
	system_daemon_logs >&3
}

system_daemon_logs() {
	local process
	for process in $(processes); do
		grep -vE 'method"?[=:]"?(Usage|Stat|Mounts|List|Info|Read).*code"?[=:]"?OK' "$life_dir/log/$process" \
			>"$life_dir/$process-calls" || true
		say_tail "$life_dir/$process-calls" 15
	done
	grep -vE 'level=info|shim disconnected|devmapper' "$life_dir/log/containerd" >"$life_dir/containerd-warnings" || true
	say_tail "$life_dir/containerd-warnings" 10
}

# system_main [--list] [WORD...]: run the file's tests, or those whose name (subject/test) holds one of the WORDs
system_main() {
	local subject name word rc from log n_failed=0
	subject=$(basename "$0" .sh)
	system_chosen=()

	case ${1:-} in
	--list)
		system_names "$subject"
		return
		;;
	-h | --help)
		printf 'usage: %s [--list] [WORD...]\n\nOne file of system tests; see %s/run --help.\n' \
			"$0" "$(dirname "$0")"
		return
		;;
	esac
	[[ $# -gt 0 ]] || set -- ''
	for name in $(system_names "$subject"); do
		for word in "$@"; do
			[[ $name != *"$word"* ]] || { system_chosen+=("$name"); break; }
		done
	done
	[[ ${#system_chosen[@]} -gt 0 ]] || return 0

	exec 3>&1
	host_require_root "$0"
	host_enter "$(cd "$(dirname "$0")" && pwd)/$subject.sh" "$@"
	containerd_find
	life_begin "lighter-$subject" host_require_overlay
	life_at_end system_setup_failed
	{
		host_require_cgroups
		setup
	} >"$life_dir/setup.log" 2>&1
	: >"$life_dir/is-set-up"

	for name in "${system_chosen[@]}"; do
		log=$life_dir/test.log
		rm -f "$life_dir/skip"
		from=$(now_us)
		set +e
		(
			exec >"$log" 2>&1 9>"$life_dir/trace"
			# what is traced is the test itself, not the helpers below it
			PS4='${BASH_SOURCE##*/}:${LINENO}: '
			BASH_XTRACEFD=9
			set -ex
			"test_${name#*/}"
		)
		rc=$?
		set -e
		case $rc in
		0) system_result pass "$name" "$(seconds_since "$from")" ;;
		77) system_result skip "$name" "$(cat "$life_dir/skip")" ;;
		*)
			n_failed=$((n_failed + 1))
			system_result fail "$name" "$(seconds_since "$from")"
			grep -aE "^.?$subject\\.sh:" "$life_dir/trace" | cut -c1-200 >"$life_dir/steps" || true
			say_tail "$life_dir/steps" 12
			say_tail "$log" 40
			system_daemon_logs
			;;
		esac
		[[ ! ${SYSTEM_VERBOSE:-} || $rc -ne 0 ]] || sed 's/^/    /' "$log"
	done
	[[ $n_failed -eq 0 ]]
}
