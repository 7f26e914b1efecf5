/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of the [overlay] table; names and meaning are those of containerd's overlayfs snapshotter where
 * it has them.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_CONFIG_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_CONFIG_H

#include "base/conf.h"

struct overlay_conf {
	bool upperdir_label;
	bool sync_remove;
	struct conf_list mount_options;
	bool slow_chown;
	char *remap_ids;
	bool rebase;
};

extern const struct conf_option overlay_options[];

#endif
