# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # life_dir is lifetime.sh's
# Starting lighter-overlay (or whatever serves in its place), and lighter-content, each with a root and a socket of
# its own. As processes they are called "plugin" and "content".
# Uses say.sh, wait.sh and lifetime.sh.

plugin_command=()
plugin_socket=''
plugin_root=''

content_command=()
content_socket=''
content_root=''

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
	plugin_serve plugin "$plugin_socket" "${plugin_command[@]}"
}

# content_start EXECUTABLE [OPTION...], content_start_again: the same for the content store
content_start() {
	local exe=$1
	shift

	# shellcheck disable=SC2034
	content_root=$life_dir/content
	content_socket=$life_dir/content.sock
	content_command=("$exe" --root "$content_root" --address "$content_socket" "$@")
	content_start_again
}

content_start_again() {
	plugin_serve content "$content_socket" "${content_command[@]}"
}

# plugin_serve PROCESS SOCKET COMMAND...: start COMMAND, and wait until it takes connections on SOCKET
plugin_serve() {
	local process=$1 socket=$2
	shift 2

	life_start "$process" "$@"
	if ! wait_until_with "$(life_pid "$process")" 60 plugin_accepts "$socket"; then
		say_tail "$life_dir/log/$process"
		die "${1##*/} did not start"
	fi
}

# plugin_accepts SOCKET: does somebody listen on it?
plugin_accepts() {
	local rc=0
	[[ -S $1 ]] || return 1
	# 7: could not connect. Whatever it answers to a request that is no gRPC is fine.
	curl -sS -o /dev/null --max-time 5 --http2-prior-knowledge --unix-socket "$1" \
		http://localhost/ >/dev/null 2>&1 || rc=$?
	[[ $rc -ne 7 ]]
}
