# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # life_dir is lifetime.sh's
# A private registry: Debian's docker-registry on loopback, on a port the kernel chooses, with a storage
# directory of its own; or several of them. Uses say.sh, wait.sh and lifetime.sh.

registry_host=''

# registry_start [NAME]: sets registry_host to HOST:PORT
registry_start() {
	local name=${1:-registry}
	local dir=$life_dir/$name

	mkdir -p "$dir"
	cat >"$dir/config.yml" <<-END
		version: 0.1
		log:
		  level: info
		storage:
		  filesystem:
		    rootdirectory: $dir/storage
		  delete:
		    enabled: true
		http:
		  addr: 127.0.0.1:0
	END
	life_start "$name" env OTEL_TRACES_EXPORTER=none docker-registry serve "$dir/config.yml"
	if ! wait_until_with "$(life_pid "$name")" 60 registry_answers "$name"; then
		say_tail "$life_dir/log/$name"
		die "the registry did not start"
	fi
}

# registry_answers NAME
registry_answers() {
	# with port 0 only its own log knows the port
	registry_host=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$life_dir/log/$1" | tail -n 1)
	[[ $registry_host ]] && curl -fsS -o /dev/null --max-time 5 "http://$registry_host/v2/" 2>/dev/null
}
