# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # life_dir is lifetime.sh's
# Starting lighter-overlay (or whatever serves in its place) with a root and a socket of its own.
# Uses say.sh, wait.sh and lifetime.sh.

plugin_command=()
plugin_socket=''
plugin_root=''

# plugin_start EXECUTABLE [OPTION...]: start it, and wait until it takes connections
plugin_start() {
	local exe=$1
	shift

	# shellcheck disable=SC2034
	plugin_root=$life_dir/overlay
	plugin_socket=$life_dir/overlay.sock
	plugin_command=("$exe" --root "$plugin_root" --address "$plugin_socket" "$@")
	plugin_start_again
}

# plugin_start_again: the same command once more, after a stop or a kill
plugin_start_again() {
	life_start plugin "${plugin_command[@]}"
	if ! wait_until_with "$(life_pid plugin)" 60 plugin_accepts; then
		say_tail "$life_dir/log/plugin"
		die "${plugin_command[0]##*/} did not start"
	fi
}

# plugin_accepts: does somebody listen on the socket?
plugin_accepts() {
	local rc=0
	[[ -S $plugin_socket ]] || return 1
	# 7: could not connect. Whatever it answers to a request that is no gRPC is fine.
	curl -sS -o /dev/null --max-time 5 --http2-prior-knowledge --unix-socket "$plugin_socket" \
		http://localhost/ >/dev/null 2>&1 || rc=$?
	[[ $rc -ne 7 ]]
}
