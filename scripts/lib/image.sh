# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # life_dir is lifetime.sh's
# Making a small OCI image from directories, layer by layer, and pushing it to a registry, with tar, gzip,
# sha256sum and curl alone.
#
#	image_begin
#	image_add_dir DIR            a layer: everything in DIR, owners, times and xattrs included
#	image_add_tar FILE [gzip|tar]
#	image_push HOST NAME TAG     sets image_manifest_digest
#
# A deletion is a file ".wh.NAME", an opaque directory holds a file ".wh..wh..opq".
# Uses say.sh, lifetime.sh and host.sh.

image_dir=''
image_diff_ids=()
image_layers=()
image_manifest_digest=''
image_command='["/bin/sh"]'

image_begin() {
	image_dir=$(mktemp -d "$life_dir/image.XXXXXX")
	image_diff_ids=() image_layers=() image_manifest_digest=''
}

image_sha256() {
	local sum
	sum=$(sha256sum "$1")
	printf '%s' "${sum%% *}"
}

# image_keep FILE: move FILE to its digest's name, which is printed
image_keep() {
	local hex
	hex=$(image_sha256 "$1")
	mv "$1" "$image_dir/$hex"
	printf '%s' "$hex"
}

image_descriptor() {
	printf '{"mediaType":"%s","digest":"sha256:%s","size":%d}' "$1" "$2" "$(stat -c %s "$image_dir/$2")"
}

image_add_tar() {
	local tar=$1 hex
	image_diff_ids+=("\"sha256:$(image_sha256 "$tar")\"")
	if [[ ${2:-gzip} == gzip ]]; then
		gzip -n -c "$tar" >"$image_dir/new"
		hex=$(image_keep "$image_dir/new")
		image_layers+=("$(image_descriptor application/vnd.oci.image.layer.v1.tar+gzip "$hex")")
	else
		cp "$tar" "$image_dir/new"
		hex=$(image_keep "$image_dir/new")
		image_layers+=("$(image_descriptor application/vnd.oci.image.layer.v1.tar "$hex")")
	fi
}

image_add_dir() {
	# times of access and change, and tar's process id, would give every run another digest
	tar --create --file "$image_dir/tar" --directory "$1" --format=pax --numeric-owner --sort=name \
		--pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' \
		--xattrs --xattrs-include='*' .
	image_add_tar "$image_dir/tar" "${2:-gzip}"
	rm "$image_dir/tar"
}

image_join() {
	local IFS=,
	printf '%s' "$*"
}

# image_push_blob HOST NAME HEX
image_push_blob() {
	local host=$1 name=$2 hex=$3 location

	curl -fsS -o /dev/null --head "http://$host/v2/$name/blobs/sha256:$hex" 2>/dev/null && return 0
	location=$(curl -fsS -o /dev/null -X POST -w '%header{location}' "http://$host/v2/$name/blobs/uploads/")
	[[ $location == http* ]] || location=http://$host$location
	[[ $location == *\?* ]] && location+='&' || location+='?'
	curl -fsS -o /dev/null -X PUT -H 'Content-Type: application/octet-stream' \
		--data-binary "@$image_dir/$hex" "${location}digest=sha256:$hex"
}

image_push() {
	local host=$1 name=$2 tag=$3 platform hex config manifest blob
	platform=$(host_platform)
	platform=${platform#linux/}

	printf '{"created":"2024-01-01T00:00:00Z","os":"linux","architecture":"%s",' "${platform%%/*}" \
		>"$image_dir/new"
	printf '"config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":%s},' \
		"$image_command" >>"$image_dir/new"
	printf '"rootfs":{"type":"layers","diff_ids":[%s]}}' "$(image_join "${image_diff_ids[@]}")" \
		>>"$image_dir/new"
	config=$(image_keep "$image_dir/new")

	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
		"$(image_descriptor application/vnd.oci.image.config.v1+json "$config")" \
		"$(image_join "${image_layers[@]}")" >"$image_dir/new"
	manifest=$(image_keep "$image_dir/new")

	for blob in "$image_dir"/*; do
		hex=${blob##*/}
		[[ $hex == "$manifest" ]] || image_push_blob "$host" "$name" "$hex"
	done
	curl -fsS -o /dev/null -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
		--data-binary "@$image_dir/$manifest" "http://$host/v2/$name/manifests/$tag"
	# shellcheck disable=SC2034
	image_manifest_digest=sha256:$manifest
}

# image_size_bytes: of all layers as they are transferred
image_size_bytes() {
	printf '%s\n' "${image_layers[@]}" | sed 's/.*"size":\([0-9]*\)}$/\1/' | {
		local sum=0 size
		while read -r size; do sum=$((sum + size)); done
		printf '%d' "$sum"
	}
}
