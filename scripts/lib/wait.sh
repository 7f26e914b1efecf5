# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Waiting for a condition, with a deadline. No script sleeps and hopes.

# wait_until SECONDS COMMAND...: try COMMAND until it succeeds; 1 when the time is over.
# The deadline is generous by intent: it ends a hang, it measures nothing.
wait_until() {
	local end=$((SECONDS + $1))
	shift

	until "$@"; do
		[[ $SECONDS -lt $end ]] || return 1
		sleep 0.05
	done
}

# wait_until_with PID SECONDS COMMAND...: the same, but give up as soon as process PID is gone
wait_until_with() {
	local pid=$1 end=$((SECONDS + $2))
	shift 2

	until "$@"; do
		kill -0 "$pid" 2>/dev/null || return 1
		[[ $SECONDS -lt $end ]] || return 1
		sleep 0.05
	done
}

# not COMMAND...: the opposite, as an argument for wait_until
not() {
	! "$@"
}
