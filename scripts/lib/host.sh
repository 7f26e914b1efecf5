# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What runc and overlayfs need from the machine, be it a whole one, a container or a bare chroot: found
# out by trying, repaired where that is harmless, and otherwise said in words that help.
# Uses say.sh and lifetime.sh.

# host_require_root NAME
host_require_root() {
	[[ $EUID -eq 0 ]] || die "$1 must run as root: sudo $1"
}

host_mounted() {
	local point
	while read -r _ _ _ _ point _; do
		[[ $point != "$1" ]] || return 0
	done </proc/self/mountinfo
	return 1
}

# host_chrooted: is our root another one than that of the mount namespace that we are in?
host_chrooted() {
	local true_root
	host_mounted / || return 0
	# joining the namespace that we are in leads to its root
	true_root=$(nsenter --mount=/proc/self/ns/mnt stat -L -c %d:%i / 2>/dev/null) || return 1
	[[ $true_root != "$(stat -L -c %d:%i /)" ]]
}

# host_enter SCRIPT ARGUMENT...: start SCRIPT again where runc can work, if it cannot work here.
# In a chroot runc's pivot_root fails; or else what is executed in a running container escapes to the root
# outside, because the namespace's root is not where pivot_root believes it to be. So a mount namespace is
# made whose root is the chroot's directory. Nobody else sees what is mounted there.
host_enter() {
	[[ -r /proc/self/mountinfo ]] ||
		die "/proc is not mounted; before chroot: mount -t proc proc DIR/proc; mount --rbind /sys DIR/sys"
	if ! host_chrooted; then
		return 0
	fi
	[[ -z ${LIGHTER_HOST_ENTERED:-} ]] || die "cannot leave this chroot for a mount namespace of its own"
	export LIGHTER_HOST_ENTERED=1
	# Outside, where sh runs, all we ask for is mount and pivot_root.
	# shellcheck disable=SC2016
	exec unshare --mount --propagation unchanged nsenter --mount=/proc/self/ns/mnt sh -ec '
		mount --make-rprivate /
		dir=$(readlink /proc/self/fd/7)
		exec 7<&-
		mount --rbind "$dir" "$dir"
		cd "$dir"
		pivot_root . mnt
		exec chroot . bash -ec "
			umount --lazy /mnt
			[[ -d /sys/fs/cgroup ]] || mount -t sysfs sysfs /sys
			cd \"\$0\"
			exec \"\$@\"
		" "$@"
	' host_enter "$PWD" "$@" 7</
}

# host_try_overlay DIR: can DIR hold the upper directory of an overlay?
host_try_overlay() {
	local dir=$1/overlay-probe rc=0

	mkdir -p "$dir"/{lower,upper,work,merged}
	mount -t overlay -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" \
		overlay "$dir/merged" 2>/dev/null || rc=$?
	if [[ $rc -eq 0 ]]; then
		# a removal must leave a whiteout, which some file systems refuse
		: >"$dir/merged/file" || rc=1
		mknod "$dir/upper/device" c 0 0 2>/dev/null || rc=1
		umount "$dir/merged"
	fi
	rm -rf "$dir"
	return "$rc"
}

# host_require_overlay DIR: make sure that overlays can be made in DIR
host_require_overlay() {
	if ! grep -qw overlay /proc/filesystems; then
		modprobe overlay 2>/dev/null || true
		grep -qw overlay /proc/filesystems ||
			die "this kernel ($(uname -r)) has no overlay file system; try: modprobe overlay"
	fi
	host_try_overlay "$1" && return 0

	# A container's own root is often an overlay, which cannot carry another one's upper directory.
	mount -t tmpfs -o mode=0700 lighter "$1" 2>/dev/null ||
		die "cannot mount a file system here; a container needs --privileged, or CAP_SYS_ADMIN"
	host_try_overlay "$1" ||
		die "the kernel refuses an overlay mount both in $1 and on tmpfs; see: dmesg | tail"
	say_warn "overlays cannot be made on the file system of ${1%/*}: using a tmpfs (TMPDIR chooses another place)"
}

# host_cgroup2_serves: can the hierarchy at /sys/fs/cgroup limit a container's CPU? runc sets that of each one. It can
# not where its controllers are bound to hierarchies of version 1, or are not delegated to the container that we are in.
host_cgroup2_serves() {
	local probe=/sys/fs/cgroup/lighter-probe-$$ rc=0

	mkdir "$probe" 2>/dev/null || return 1
	# runc does the same, and leaves it so
	echo +cpu 2>/dev/null >/sys/fs/cgroup/cgroup.subtree_control || rc=1
	[[ -e $probe/cpu.weight ]] || rc=1
	rmdir "$probe"
	return "$rc"
}

# host_has_cgroup1: are there controllers in hierarchies of version 1, mounted or not?
host_has_cgroup1() {
	grep -q '^[1-9][0-9]*:[a-z]' /proc/self/cgroup
}

# host_require_cgroups: mount the cgroup hierarchies where nobody has (a bare chroot), or only one that does not serve;
# they are taken away again at the end
host_cgroup_mounts=()
host_require_cgroups() {
	local line id controllers

	case $(stat -f -c %T /sys/fs/cgroup) in
	cgroup2fs)
		if host_cgroup2_serves; then
			return 0
		fi
		host_has_cgroup1 || die "runc cannot limit CPU here: /sys/fs/cgroup/cgroup.controllers has" \
			"'$(cat /sys/fs/cgroup/cgroup.controllers)', and lacks cpu, or does not let us pass it on;" \
			"a container needs --privileged --cgroupns=host, a systemd unit Delegate=yes"
		say_note "the cgroups at /sys/fs/cgroup cannot limit CPU: mounting those of version 1 over them for now"
		;;
	tmpfs)
		if grep -q ' - cgroup2\? ' /proc/self/mountinfo; then
			return 0
		fi
		;;
	esac

	life_at_end host_unmount_cgroups
	if ! host_has_cgroup1; then
		# version 2 alone
		host_mount_cgroup -t cgroup2 cgroup2 /sys/fs/cgroup
		host_cgroup2_serves || die "runc cannot limit CPU with the cgroups of this machine, which have" \
			"'$(cat /sys/fs/cgroup/cgroup.controllers)'; it needs the controller cpu"
		return
	fi
	host_mount_cgroup -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
	while IFS=: read -r id controllers _; do
		[[ $id -ne 0 && $controllers ]] || continue
		line=${controllers#name=}
		mkdir -p "/sys/fs/cgroup/$line"
		host_mount_cgroup -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$line"
	done </proc/self/cgroup
}

host_mount_cgroup() {
	local point=${*: -1}
	mount "$@" || die "cannot mount $point, which runc needs; mount --rbind /sys into the chroot"
	host_cgroup_mounts=("$point" "${host_cgroup_mounts[@]}")
}

host_unmount_cgroups() {
	local point
	for point in "${host_cgroup_mounts[@]}"; do
		umount "$point" 2>/dev/null || umount --lazy "$point" || say_warn "still mounted: $point"
	done
}

# host_platform: this machine in containerd's words
host_platform() {
	local arch
	arch=$(dpkg --print-architecture)
	case $arch in
	armhf) printf 'linux/arm/v7' ;;
	ppc64el) printf 'linux/ppc64le' ;;
	*) printf 'linux/%s' "$arch" ;;
	esac
}
