#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016,SC2119 # what stands in single quotes is run in containers
# What image layers can express survives: one image full of special cases, unpacked through lighter-overlay and
# through containerd's own overlayfs snapshotter, must give the same trees, layer by layer, attribute by
# attribute, both as mounted and as they lie on disk.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

own=overlayfs

# Every path of interest is in the layers below; the tests look at some of them by name, too.
make_layers() {
	local d=$1/1

	# 1: one of everything
	busybox_layer "$d"
	mkdir -p "$d"/{files,links,nodes,modes,owners,caps,xattrs,replaced,removed/sub/deeper,opaque/sub,names,deep}
	printf 'first\n' >"$d/files/changed"
	printf 'same size\n' >"$d/files/same-size"
	printf 'mode only\n' >"$d/files/mode-only"
	printf 'owner only\n' >"$d/files/owner-only"
	: >"$d/files/empty"
	truncate -s 1M "$d/files/sparse"
	printf 'linked\n' >"$d/links/one"
	ln "$d/links/one" "$d/links/two"
	ln "$d/links/one" "$d/files/three"
	ln -s ../links/one "$d/links/relative"
	ln -s /links/one "$d/links/absolute"
	ln -s nowhere "$d/links/dangling"
	ln -s . "$d/links/loop"
	mknod "$d/nodes/null" c 1 3
	mknod "$d/nodes/loop0" b 7 0
	mknod "$d/nodes/big" c 259 70000
	mkfifo "$d/nodes/fifo"
	for mode in 0000 0400 0644 1755 2755 4755 6711 7777; do
		printf '%s\n' "$mode" >"$d/modes/file-$mode"
		chmod "$mode" "$d/modes/file-$mode"
		mkdir "$d/modes/dir-$mode"
		chmod "$mode" "$d/modes/dir-$mode"
	done
	printf '1000\n' >"$d/owners/user"
	printf 'large\n' >"$d/owners/large"
	ln -s user "$d/owners/link"
	chown 1000:1001 "$d/owners/user"
	chown 4000000000:4000000001 "$d/owners/large"
	chown -h 1000:1001 "$d/owners/link"
	chown 65534:65534 "$d/owners"
	# setuid after chown, which would clear it
	printf 'setuid of another\n' >"$d/owners/setuid"
	chown 1000:1000 "$d/owners/setuid"
	chmod 4711 "$d/owners/setuid"
	cp /bin/busybox "$d/caps/raw"
	setcap cap_net_raw,cap_net_bind_service=ep "$d/caps/raw"
	cp "$d/caps/raw" "$d/caps/lost"
	setcap cap_chown=eip "$d/caps/lost"
	printf 'x\n' >"$d/xattrs/file"
	setfattr -n user.text -v 'some text' "$d/xattrs/file"
	setfattr -n user.binary -v 0x00ff0001feff "$d/xattrs/file"
	setfattr -n user.empty "$d/xattrs/file"
	setfattr -n user.on.directory -v yes "$d/xattrs"
	printf 'x\n' >"$d/xattrs/changes"
	setfattr -n user.keeps -v one "$d/xattrs/changes"
	setfattr -n user.goes -v two "$d/xattrs/changes"
	printf 'file\n' >"$d/replaced/file-by-dir"
	mkdir -p "$d/replaced/dir-by-file/inner" "$d/replaced/dir-by-link/inner"
	printf 'file\n' >"$d/replaced/file-by-link"
	ln -s ../files "$d/replaced/link-by-dir"
	printf 'x\n' | tee "$d/removed/file" "$d/removed/sub/file" "$d/removed/sub/deeper/file" >/dev/null
	printf 'below\n' | tee "$d/opaque/below" "$d/opaque/sub/below" "$d/opaque/both" >/dev/null
	printf 'x\n' >"$d/names/with space"
	printf 'x\n' >"$d/names/"$'new\nline'
	printf 'x\n' >"$d/names/größe-日本"
	printf 'x\n' >"$d/names/-dash"
	printf 'x\n' >"$d/names/comma,colon:equals="
	printf 'x\n' >"$d/names/$(printf 'n%.0s' $(seq 250))"
	mkdir -p "$d/deep/$(printf 'd%.0s/' $(seq 60))"
	touch -d '1970-01-01T00:00:01Z' "$d/files/empty"
	touch -d '2038-01-20T00:00:00.123456789Z' "$d/files/sparse"

	# 2: deletions, replacements, changes
	d=$1/2
	mkdir -p "$d"/{files,links,removed,opaque/sub,replaced/file-by-dir,replaced/link-by-dir,caps}
	printf 'second, longer\n' >"$d/files/changed"
	printf 'SAME SIZE\n' >"$d/files/same-size"
	cp -p "$1/1/files/mode-only" "$1/1/files/owner-only" "$d/files/"
	chmod 0600 "$d/files/mode-only"
	chown 7:8 "$d/files/owner-only"
	: >"$d/links/.wh.one"
	: >"$d/removed/.wh.file"
	: >"$d/removed/.wh.sub"
	: >"$d/opaque/.wh..wh..opq"
	printf 'above\n' >"$d/opaque/above"
	printf 'above\n' >"$d/opaque/both"
	printf 'above\n' >"$d/opaque/sub/above"
	printf 'inside\n' >"$d/replaced/file-by-dir/inside"
	printf 'inside\n' >"$d/replaced/link-by-dir/inside"
	printf 'now a file\n' >"$d/replaced/dir-by-file"
	ln -s ../files "$d/replaced/dir-by-link"
	ln -s nowhere "$d/replaced/file-by-link"
	cp /bin/busybox "$d/caps/lost"
	chmod 750 "$d/removed"

	# 3: what was deleted comes back, as something else; links and xattrs again
	d=$1/3
	mkdir -p "$d"/{removed/sub,links,xattrs,opaque,modes,files}
	printf 'back again\n' >"$d/removed/sub/new"
	printf 'back again\n' >"$d/removed/file"
	: >"$d/opaque/.wh.both"
	printf 'new links\n' >"$d/links/one"
	ln "$d/links/one" "$d/links/four"
	printf 'x\n' >"$d/xattrs/changes"
	setfattr -n user.keeps -v changed "$d/xattrs/changes"
	setfattr -n user.on.directory -v changed "$d/xattrs"
	: >"$d/modes/.wh.dir-7777"
	: >"$d/files/.wh.empty"
	cp /bin/busybox "$d/files/setuid"
	chmod 6755 "$d/files/setuid"

	# 4: nothing at all
	mkdir "$1/4"

	# 5: a whiteout of what never was, of all, and a directory that is opaque and empty
	d=$1/5
	mkdir -p "$d/opaque" "$d/names"
	: >"$d/.wh.never"
	: >"$d/.wh.deep"
	: >"$d/opaque/.wh..wh..opq"
	: >"$d/names/.wh.with space"
}

layers=(1 2 3 4 5)
special=''
declare -A mounted

setup() {
	local dir=$life_dir/special key snapshotter n

	mkdir "$dir"
	setfattr -n user.probe -v x "$dir" || printf 'no user xattrs\n' >"$life_dir/no-xattrs"
	start_all
	make_layers "$dir"
	image_begin
	image_add_dir "$dir/1" gzip
	image_add_dir "$dir/2" tar
	image_add_dir "$dir/3" gzip
	image_add_dir "$dir/4" tar
	image_add_dir "$dir/5" gzip
	image_push "$registry_host" test/special v1
	special=$registry_host/test/special:v1
	pull "$special"
	ctr images pull --plain-http --snapshotter "$own" "$special"

	for snapshotter in "$sn" "$own"; do
		n=${#layers[@]}
		for key in $(chain_of "$(chain_top "$special")"); do
			view "special-$n" "$key" "$snapshotter"
			mount_snapshot "special-$n" "$life_dir/$snapshotter-$n" "$snapshotter"
			mounted[$snapshotter-$n]=$key
			n=$((n - 1))
		done
	done
	dir=$life_dir/$sn-5
	top=$dir
}

test_mounted_trees_are_the_same_at_every_layer() {
	local n
	for n in "${layers[@]}"; do
		same_tree "$life_dir/$sn-$n" "$life_dir/$own-$n"
	done
}

test_directories_on_disk_are_the_same_at_every_layer() {
	local n
	for n in "${layers[@]}"; do
		# whiteouts as devices 0:0 and trusted.overlay.opaque are seen here
		same_tree "$(layer_dir "${mounted[$sn-$n]}")" "$(layer_dir "${mounted[$own-$n]}" "$own")"
	done
}

test_layers_on_disk_hold_nothing_that_overlayfs_added() {
	local n dir
	for n in "${layers[@]}"; do
		dir=$(layer_dir "${mounted[$sn-$n]}")
		# an index or an origin would tie the layer to this machine's inodes
		fails grep -E 'trusted\.overlay\.(origin|impure|nlink|redirect|metacopy)' \
			<<<"$(getfattr -R -h -d -m - --absolute-names "$dir" 2>/dev/null | grep -v opaque)"
	done
}

test_whiteouts_hide_files_and_directories() {
	[[ -e $life_dir/$sn-1/links/one && ! -e $life_dir/$sn-2/links/one ]]
	[[ -e $life_dir/$sn-1/removed/sub/deeper/file && ! -e $life_dir/$sn-2/removed/sub ]]
	[[ -d $life_dir/$sn-1/deep && ! -e $top/deep ]]
	equal "$(ls -A "$life_dir/$sn-3/removed/sub")" new
}

test_opaque_directories_hide_what_is_below() {
	equal "$(ls -A "$life_dir/$sn-1/opaque")" "$(printf 'below\nboth\nsub')"
	equal "$(ls -A "$life_dir/$sn-2/opaque")" "$(printf 'above\nboth\nsub')"
	equal "$(ls -A "$life_dir/$sn-2/opaque/sub")" above
	equal "$(ls -A "$life_dir/$sn-3/opaque")" "$(printf 'above\nsub')"
	equal "$(ls -A "$top/opaque")" ''
}

test_files_replace_directories_and_the_reverse() {
	equal "$(cat "$top/replaced/file-by-dir/inside")" inside
	[[ -d $top/replaced/link-by-dir && ! -L $top/replaced/link-by-dir ]]
	[[ -f $top/replaced/dir-by-file ]]
	equal "$(readlink "$top/replaced/dir-by-link")" ../files
}

test_xattrs_survive() {
	[[ ! -e $life_dir/no-xattrs ]] || skip "no user xattrs on this file system"
	equal "$(getfattr --absolute-names --only-values -n user.text "$top/xattrs/file")" 'some text'
	contains "$(getfattr --absolute-names -e hex -n user.binary "$top/xattrs/file")" '0x00ff0001feff$'
	contains "$(getfattr --absolute-names -d "$top/xattrs/file")" '^user.empty'
	equal "$(getfattr --absolute-names --only-values -n user.on.directory "$life_dir/$sn-2/xattrs")" yes
	equal "$(getfattr --absolute-names --only-values -n user.on.directory "$top/xattrs")" changed
	equal "$(getfattr --absolute-names --only-values -n user.keeps "$top/xattrs/changes")" changed
	fails getfattr --absolute-names -n user.goes "$top/xattrs/changes"
}

test_file_capabilities_survive() {
	contains "$(getcap "$top/caps/raw")" 'cap_net_bind_service,cap_net_raw=ep'
	contains "$(getcap "$life_dir/$sn-1/caps/lost")" 'cap_chown=eip'
	equal "$(getcap "$top/caps/lost")" ''
}

test_hard_links_survive() {
	local inode=$life_dir/$sn-1
	equal "$(stat -c %i "$inode/links/one" "$inode/links/two" "$inode/files/three" | sort -u | wc -l)" 1
	equal "$(stat -c %h "$inode/links/one")" 3
	equal "$(stat -c %i "$top/links/one" "$top/links/four" | sort -u | wc -l)" 1
	equal "$(cat "$top/links/two")" linked
}

test_device_nodes_survive() {
	equal "$(stat -c '%F %t:%T' "$top/nodes/null")" 'character special file 1:3'
	equal "$(stat -c '%F %t:%T' "$top/nodes/loop0")" 'block special file 7:0'
	equal "$(stat -c '%F %t:%T' "$top/nodes/big")" 'character special file 103:11170'
	equal "$(stat -c '%F' "$top/nodes/fifo")" fifo
}

test_modes_and_owners_survive() {
	equal "$(stat -c %a "$top/modes/file-7777" "$top/modes/file-6711" "$top/modes/dir-2755" "$top/modes/file-0000" |
		tr '\n' ' ')" '7777 6711 2755 0 '
	equal "$(stat -c %u:%g "$top/owners/large")" 4000000000:4000000001
	equal "$(stat -c %u:%g:%a "$top/owners/setuid")" 1000:1000:4711
	equal "$(stat -c %a "$top/files/setuid")" 6755
	equal "$(stat -c %u:%g:%a "$top")" 0:0:755
}

# mutate SNAPSHOTTER ID: a container that changes a bit of everything, then its diff and its tree
mutate() {
	ctr run --snapshotter "$1" --cap-add CAP_MKNOD "$special" "$2" sh -ec '
		cd /; rm -r /removed; mkdir /removed; echo new >/removed/new; rm /links/one
		mv /files /moved; chmod 1777 /modes; chown 5:6 /owners/user; ln /links/two /links/five
		echo more >>/files-new; rm -r /opaque; ln -s /x /opaque; echo x >>/xattrs/file
		cd /names; rm -- * || true; mkdir -p /a/b/c; rmdir /replaced/file-by-dir 2>/dev/null || true
		touch -d "2001-02-03 04:05:06" /moved /removed/new /files-new /a/b/c /a/b /a'
}

test_containers_change_the_same_in_the_same_way() {
	local ours theirs dir=$life_dir/changed
	ours=$(unique ours) theirs=$(unique theirs)
	mutate "$sn" "$ours"
	mutate "$own" "$theirs"
	ctr snapshots --snapshotter "$sn" diff --media-type application/vnd.oci.image.layer.v1.tar "$ours" >"$dir.ours"
	ctr snapshots --snapshotter "$own" diff --media-type application/vnd.oci.image.layer.v1.tar "$theirs" \
		>"$dir.theirs"
	# the containers ran at different times: everything but times
	equal "$(tar tvf "$dir.ours" --numeric-owner | awk '{ $4 = $5 = ""; print }')" \
		"$(tar tvf "$dir.theirs" --numeric-owner | awk '{ $4 = $5 = ""; print }')"
	[[ $(tar tf "$dir.ours" | wc -l) -gt 20 ]]
	ctr containers rm "$ours" "$theirs"
}

test_views_are_read_only() {
	contains "$(fails touch "$top/new")" 'Read-only file system'
	contains "$(fails touch "$life_dir/$sn-1/new")" 'Read-only file system'
}

system_main "$@"
