/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/config.h"

const struct conf_option overlay_options[] = {
	CONF_BOOL(struct overlay_conf, upperdir_label, "false",
		  "add the label containerd.io/snapshot/overlay.upperdir, the path of a snapshot's "
		  "own "
		  "directory, to what Stat, List and Update answer"),
	CONF_BOOL(struct overlay_conf, sync_remove, "false",
		  "delete a snapshot's directory in Remove rather than in Cleanup"),
	CONF_LIST(struct overlay_conf, mount_options, "[]",
		  "options added to every overlay mount, such as \"volatile\""),
	CONF_BOOL(
		struct overlay_conf, slow_chown, "false",
		"register without the capability only-remap-ids, so that a client whose kernel "
		"cannot "
		"idmap mounts copies and chowns an image for a user namespace instead of refusing"),
	CONF_CHOICE(
		struct overlay_conf, remap_ids, "\"auto\"", "auto|always|never",
		"hand out ID-mapped mounts for user namespaces: auto does where the kernel can"),
	CONF_BOOL(struct overlay_conf, rebase, "false",
		  "for containerd 2.4 and newer with the capability rebase registered: layers of "
		  "an image "
		  "are unpacked at the same time"),
	CONF_END,
};
