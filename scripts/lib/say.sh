# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034 # the colours are for whoever sources this
# What the scripts print. Colour only on a terminal, and never with NO_COLOR.

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
	say_bold=$'\e[1m' say_dim=$'\e[2m' say_green=$'\e[32m' say_red=$'\e[31m' say_yellow=$'\e[33m'
	say_cyan=$'\e[36m' say_off=$'\e[0m'
else
	say_bold='' say_dim='' say_green='' say_red='' say_yellow='' say_cyan='' say_off=''
fi

# say TEXT...: one line of plain text
say() {
	printf '%s\n' "$*"
}

# say_note TEXT...: a remark below a step
say_note() {
	printf '    %s%s%s\n' "$say_dim" "$*" "$say_off"
}

# say_warn TEXT...: something is not as it should be, and we go on
say_warn() {
	printf '%swarning:%s %s\n' "$say_yellow" "$say_off" "$*" >&2
}

# die TEXT...: say what is wrong and end; the exit trap cleans up
die() {
	printf '%serror:%s %s\n' "$say_red$say_bold" "$say_off" "$*" >&2
	exit 1
}

# say_tail FILE [LINES]: the end of a log, with its name above
say_tail() {
	[[ -s $1 ]] || return 0
	printf '%s--- last lines of %s%s\n' "$say_dim" "$1" "$say_off"
	tail -n "${2:-20}" "$1" | cut -c "1-${SAY_TAIL_COLUMNS:-400}" | sed 's/^/    /'
}

# now_us: microseconds since the epoch, for measuring
now_us() {
	local us=${EPOCHREALTIME/[.,]/}
	printf '%s' "$us"
}

# seconds_since START_US: the time that has passed, as "1.23 s"
seconds_since() {
	local us=$(($(now_us) - $1))
	printf '%d.%02d s' $((us / 1000000)) $((us % 1000000 / 10000))
}
