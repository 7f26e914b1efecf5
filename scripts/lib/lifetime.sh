# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Everything a script starts or makes lives in one directory, and ends with the script: on success, on
# error, on Ctrl-C, on a closed pipe. What runs is written down in that directory, so that another
# process can end it later (quickstart --keep, then --stop).
# Uses say.sh and wait.sh.
#
#	$life_dir/processes   NAME PID STARTTIME, one a line, in the order of starting
#	$life_dir/log/NAME    what each of them printed

life_dir=''
life_keep=''
life_hooks=()

# life_begin NAME [PREPARE]: make the directory, and set the traps; PREPARE gets the directory while it is
# still empty, and may mount something there
life_begin() {
	life_dir=$(mktemp -d "${TMPDIR:-/var/tmp}/$1.XXXXXX")
	life_traps
	[[ $# -lt 2 ]] || "$2" "$life_dir"
	mkdir "$life_dir/log"
	: >"$life_dir/processes"
}

# life_adopt DIR: take over a directory that another script has kept
life_adopt() {
	[[ -f $1/processes && -d $1/log ]] || die "'$1' is not a directory that was kept"
	life_dir=$(cd "$1" && pwd)
	life_traps
}

life_traps() {
	trap life_end EXIT
	# A signal ends the script through EXIT, so there is one way out only.
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
	trap 'exit 141' PIPE
}

# life_at_end FUNCTION: call it first when all ends; the last one registered is called first
life_at_end() {
	life_hooks=("$1" "${life_hooks[@]}")
}

life_starttime() {
	# field 22; the name in field 2 may hold anything, so count after its closing parenthesis
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	# shellcheck disable=SC2086
	set -- ${stat##*) }
	printf '%s' "${20}"
}

# life_start NAME COMMAND...: run in the background, in a session of its own: Ctrl-C at the terminal
# reaches the script, which then stops things in order. Its exit status goes to $life_dir/exit.NAME, as
# whoever stops it need not be the shell that started it.
life_start() {
	local name=$1 pid
	shift

	rm -f "$life_dir/exit.$name"
	# shellcheck disable=SC2016
	read -r pid < <(exec setsid bash -c '
		log=$1 status=$2; shift 2
		"$@" >>"$log" 2>&1 </dev/null 3>&- 9>&- &
		printf "%s\n" "$!"
		# nobody may wait for the end of a pipe because of us
		exec >/dev/null 2>&1 </dev/null 3>&- 9>&-
		wait "$!"
		printf "%s\n" "$?" >"$status.new" && mv "$status.new" "$status"
	' life "$life_dir/log/$name" "$life_dir/exit.$name" "$@")
	printf '%s %s %s\n' "$name" "$pid" "$(life_starttime "$pid")" >>"$life_dir/processes"
}

# life_exit_status NAME: of a process that has ended; 1 when it is not known (yet)
life_exit_status() {
	cat "$life_dir/exit.$1" 2>/dev/null
}

# life_pid NAME: of the last process that was started under that name
life_pid() {
	local name pid _ found=''
	while read -r name pid _; do
		[[ $name != "$1" ]] || found=$pid
	done <"$life_dir/processes"
	[[ $found ]] && printf '%s' "$found"
}

# life_runs NAME: is it there, and still the process that we started?
life_runs() {
	local name pid start found_pid='' found_start=''
	while read -r name pid start; do
		[[ $name != "$1" ]] || { found_pid=$pid found_start=$start; }
	done <"$life_dir/processes"
	[[ $found_pid ]] && life_is "$found_pid" "$found_start"
}

life_is() {
	[[ $(life_starttime "$1") == "$2" ]] && [[ $(life_state "$1") != Z ]]
}

life_state() {
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	stat=${stat##*) }
	printf '%s' "${stat%% *}"
}

# life_stop NAME [SIGNAL [SECONDS]]: signal it and wait until it is gone; SIGKILL when the time is over.
# 1 when it had to be killed.
life_stop() {
	local pid killed=0
	life_runs "$1" || return 0
	pid=$(life_pid "$1")

	kill -s "${2:-TERM}" "$pid" 2>/dev/null || true
	if ! wait_until "${3:-20}" not life_runs "$1"; then
		kill -s KILL "$pid" 2>/dev/null || true
		wait_until 20 not life_runs "$1" || say_warn "$1 (process $pid) does not die"
		killed=1
	fi
	return "$killed"
}

# life_mounts: mount points in our directory, the deepest first
life_mounts() {
	local point
	while read -r _ _ _ _ point _; do
		printf -v point '%b' "$point"
		[[ $point != "$life_dir" && $point != "$life_dir"/* ]] || printf '%s\n' "$point"
	done </proc/self/mountinfo | sort -r
}

life_unmount() {
	local point
	for _ in 1 2 3; do
		mapfile -t points < <(life_mounts)
		[[ ${#points[@]} -gt 0 ]] || return 0
		for point in "${points[@]}"; do
			umount "$point" 2>/dev/null || umount --lazy "$point" 2>/dev/null || true
		done
	done
	[[ -z $(life_mounts) ]]
}

# life_end: the exit trap
life_end() {
	local rc=$? hook name names=() left=0
	# From here on nothing may stop us half-way, neither a second Ctrl-C nor a reader that has gone.
	set +eu
	trap '' INT TERM HUP PIPE
	trap - EXIT

	if [[ $life_keep && $rc -eq 0 ]]; then
		exit 0
	fi
	for hook in "${life_hooks[@]}"; do
		"$hook" "$rc"
	done
	if [[ -d $life_dir ]]; then
		while read -r name _; do
			names=("$name" "${names[@]}")
		done < <(cat "$life_dir/processes" 2>/dev/null)
		for name in "${names[@]}"; do
			life_stop "$name" || say_warn "$name did not stop by itself and was killed"
			# its exit status is the last thing that is written here
			wait_until 10 life_exit_status "$name" >/dev/null
		done
		if ! life_unmount; then
			say_warn "still mounted:"
			life_mounts >&2
			left=1
		fi
		# --one-file-system: what is still mounted is never emptied
		if ! rm -rf --one-file-system "$life_dir" 2>/dev/null; then
			say_warn "not removed: $life_dir"
			left=1
		fi
	fi
	if [[ $left -ne 0 && $rc -eq 0 ]]; then
		rc=1
	fi
	exit "$rc"
}
