# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # life_dir is lifetime.sh's
# A private containerd: own root, own state, own socket; the machine's own one is never touched.
# CONTAINERD and CTR name the programs (default: containerd and ctr from PATH; the shim of a containerd that
# is given by path is looked for beside it). Works with 1.6, 1.7 and 2.x.
# Uses say.sh, wait.sh, lifetime.sh, host.sh.

containerd_exe=''
containerd_ctr_exe=''
containerd_socket=''
containerd_version=''
containerd_path=$PATH

# containerd_find: which programs, which version ("1.6.20", "2.3.4")
containerd_find() {
	[[ ! $containerd_exe ]] || return 0
	containerd_exe=$(type -P "${CONTAINERD:-containerd}") || die "no such program: ${CONTAINERD:-containerd}"
	containerd_ctr_exe=$(type -P "${CTR:-ctr}") || die "no such program: ${CTR:-ctr}"
	containerd_path=$(cd "${containerd_exe%/*}" && pwd):$PATH
	containerd_version=$("$containerd_exe" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)
	[[ $containerd_version ]] || die "$containerd_exe --version says no version"
	if ! PATH=$containerd_path type -P containerd-shim-runc-v2 >/dev/null; then
		die "no containerd-shim-runc-v2 beside $containerd_exe"
	fi
}

containerd_is_2() {
	[[ ${containerd_version%%.*} -ge 2 ]]
}

# containerd_config [content:]NAME=SOCKET...: a configuration with a proxy plugin of each NAME, on stdout. They are
# snapshotters, but for "content:", which takes the place of containerd's own content store.
containerd_config() {
	local dir=$life_dir/containerd proxy version=2 type disabled=''
	local platform
	platform=$(host_platform)

	if containerd_is_2; then version=3; fi
	version=${CONTAINERD_CONFIG_VERSION:-$version}
	# there is one content store, and nobody says which where there are two
	[[ " $*" != *" content:"* ]] || disabled=$'\n\t"io.containerd.content.v1.content",'
	cat <<-END
		version = $version
		root = "$dir/root"
		state = "$dir/state"
		# not needed here, and they would look for directories of the machine's own containerd
		disabled_plugins = [
			"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
			"io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri",
			"io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
			"io.containerd.tracing.processor.v1.otlp",$disabled
		]

		[grpc]
			address = "$dir/containerd.sock"
		[ttrpc]
			address = "$dir/containerd.sock.ttrpc"
		[debug]
			level = "${CONTAINERD_LOG_LEVEL:-info}"
		[plugins."io.containerd.gc.v1.scheduler"]
			# collect soon after a removal: somebody is waiting to see it
			schedule_delay = "0ms"
			startup_delay = "100ms"
	END
	for proxy in "$@"; do
		type=snapshot
		[[ $proxy != content:* ]] || type=content proxy=${proxy#content:}
		cat <<-END

			[proxy_plugins.${proxy%%=*}]
				type = "$type"
				address = "${proxy#*=}"
		END
	done
	containerd_is_2 || return 0
	# ctr of 2.x pulls through the transfer service, which unpacks only for snapshotters it is told of; the
	# list replaces the default entry, so that one is repeated
	for proxy in "$@" overlayfs=; do
		[[ $proxy != content:* ]] || continue
		cat <<-END

			[[plugins."io.containerd.transfer.v1.local".unpack_config]]
				platform = "$platform"
				snapshotter = "${proxy%%=*}"
				differ = "walking"
		END
	done
}

# containerd_start [content:]NAME=SOCKET...
containerd_start() {
	local dir=$life_dir/containerd

	containerd_find
	mkdir -p "$dir"
	containerd_config "$@" >"$dir/config.toml"
	containerd_socket=$dir/containerd.sock
	life_at_end containerd_end
	containerd_start_again
}

containerd_start_again() {
	# NOTIFY_SOCKET belongs to whoever started us
	life_start containerd env -u NOTIFY_SOCKET -u LISTEN_FDS PATH="$containerd_path" \
		"$containerd_exe" --config "$life_dir/containerd/config.toml"
	if ! wait_until_with "$(life_pid containerd)" 60 containerd_answers; then
		say_tail "$life_dir/log/containerd"
		die "containerd did not start"
	fi
}

containerd_answers() {
	ctr version >/dev/null 2>&1
}

# ctr ARGUMENT...: the client of this containerd (an unset CONTAINERD_NAMESPACE is "default")
ctr() {
	"$containerd_ctr_exe" --address "$containerd_socket" "$@"
}

# containerd_shims: process ids of this containerd's shims, which name its socket in their arguments
containerd_shims() {
	local file arguments=()

	for file in /proc/[0-9]*/cmdline; do
		# processes come and go while we look
		{ mapfile -d '' -t arguments <"$file"; } 2>/dev/null || continue
		[[ ${arguments[0]:-} == *containerd-shim* ]] || continue
		if [[ " ${arguments[*]} " == *" $containerd_socket "* ]]; then
			file=${file%/cmdline}
			printf '%s\n' "${file#/proc/}"
		fi
	done
}

containerd_no_shims() {
	[[ -z $(containerd_shims) ]]
}

# containerd_end: kill every container; without this their shims would outlive containerd
containerd_end() {
	local namespace id pid children

	if life_runs containerd && containerd_answers; then
		for namespace in $(timeout 10 "$containerd_ctr_exe" --address "$containerd_socket" namespaces ls -q); do
			for id in $(timeout 10 "$containerd_ctr_exe" --address "$containerd_socket" \
				-n "$namespace" tasks ls -q); do
				timeout 20 "$containerd_ctr_exe" --address "$containerd_socket" -n "$namespace" \
					tasks rm --force "$id" >/dev/null 2>&1
			done
		done
	fi
	# a container whose client was killed half-way, or whose containerd is dead
	wait_until 3 containerd_no_shims && return 0
	for pid in $(containerd_shims); do
		mapfile -t children < <(cat "/proc/$pid/task/"*/children 2>/dev/null)
		# shellcheck disable=SC2068 # a line holds several, or none
		kill -s KILL ${children[@]} "$pid" 2>/dev/null
	done
	wait_until 10 containerd_no_shims || say_warn "shims still run: $(containerd_shims | tr '\n' ' ')"
	return 0
}
