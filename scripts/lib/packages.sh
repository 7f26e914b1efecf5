# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The Debian packages that building, testing and the quickstart need, and how to install what is missing.
# Needs nothing but bash, coreutils, grep, dpkg and apt: it must work in a bare debootstrap of Debian 12.
# Uses say.sh.

# The users of these lists source this file.
# shellcheck disable=SC2034
{
	# what cmake asks for when it configures, and the compilers
	PACKAGES_BUILD=(
		cmake ninja-build gcc g++ pkg-config libc6-dev
		libgrpc-dev libprotobuf-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
		libsqlite3-dev libssl-dev libtomlplusplus-dev libre2-dev libjson-c-dev libcmocka-dev
	)
	# the second compiler, the sanitizers, the fuzzers and the formatter
	PACKAGES_CLANG=(clang clang-format libclang-rt-14-dev llvm)
	# a private containerd with a private registry, and what our scripts run themselves
	PACKAGES_CONTAINERD=(
		containerd runc docker-registry
		curl mount
	)
	# what the system tests look at a tree with
	PACKAGES_SYSTEM=(busybox-static python3 attr libcap2-bin sqlite3 e2fsprogs xfsprogs)
	# what scripts/test looks at the text of the tree with
	PACKAGES_STYLE=(git shellcheck mandoc)
	# making a Debian package, and finding out what it depends on
	PACKAGES_DEB=(dpkg-dev file)
	# containerd's public suite, and the baseline of the bench, in GOPATH mode
	PACKAGES_GO=(golang-1.19-go golang-github-containerd-containerd-dev)
}

# A package that is new on this machine must not start its service: the machine gets no registry that
# listens to everybody, and no second containerd, just because somebody tried lighter.
packages_policy=/usr/sbin/policy-rc.d

# packages_missing NAME...: those that are not installed, one a line
packages_missing() {
	local name

	for name in "$@"; do
		# another status is "not-installed"; several lines are several architectures
		dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed ||
			printf '%s\n' "$name"
	done
}

# packages_apt LOG ARGUMENT...: apt-get, waiting for others that hold apt's or dpkg's locks
packages_apt() {
	local log=$1 start=$SECONDS said='' rc
	shift

	while :; do
		rc=0
		DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=60 \
			-o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null || rc=$?
		[[ $rc -ne 0 ]] || return 0
		grep -qE 'Could not get lock|Unable to (acquire|lock)|is another process using it' "$log" ||
			return "$rc"
		[[ $((SECONDS - start)) -lt ${PACKAGES_LOCK_SECONDS:-900} ]] || return "$rc"
		[[ $said ]] || say_note "waiting for another apt or dpkg to finish"
		said=1
		sleep 2
	done
}

packages_deny_services() {
	[[ ! -e $packages_policy ]] || return 1
	printf '#!/bin/sh\nexit 101\n' >"$packages_policy"
	chmod 755 "$packages_policy"
}

# packages_install NAME...: install those that are missing; needs root only then
packages_install() (
	local log missing=() denied='' rc=0
	mapfile -t missing < <(packages_missing "$@")

	[[ ${#missing[@]} -gt 0 ]] || return 0
	[[ $EUID -eq 0 ]] ||
		die "missing packages; install them with: sudo apt-get install --no-install-recommends ${missing[*]}"

	say_note "installing: ${missing[*]}"
	log=$(mktemp)
	# a subshell with its own trap: the policy file must not survive an interruption
	trap '[[ -z $denied ]] || rm -f "$packages_policy"; rm -f "$log"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	if packages_deny_services; then denied=1; fi
	packages_apt "$log" install --no-install-recommends "${missing[@]}" || rc=$?
	if [[ $rc -ne 0 ]]; then
		# the lists may be absent (a fresh debootstrap) or too old for the mirror
		packages_apt "$log" update || { say_tail "$log"; die "apt-get update failed"; }
		rc=0
		packages_apt "$log" install --no-install-recommends "${missing[@]}" || rc=$?
	fi
	if [[ $rc -ne 0 ]]; then
		say_tail "$log" 30
		die "apt-get could not install: ${missing[*]}"
	fi
	# Debian's registry listens on every interface, without credentials, from the next boot on
	if [[ " ${missing[*]} " == *" docker-registry "* ]]; then
		DPKG_MAINTSCRIPT_PACKAGE=docker-registry deb-systemd-helper disable docker-registry.service \
			>/dev/null 2>&1 ||
			say_warn "could not disable docker-registry.service"
	fi
)

# packages_download DIR NAME...: fetch .deb files into DIR without installing them
packages_download() (
	local dir=$1 log
	shift

	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	cd "$dir" || exit 1
	packages_apt "$log" -o APT::Sandbox::User=root download "$@" && return 0
	packages_apt "$log" update || { say_tail "$log"; die "apt-get update failed"; }
	packages_apt "$log" -o APT::Sandbox::User=root download "$@" && return 0
	say_tail "$log"
	die "apt-get could not download: $*"
)
