/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What overlay.c, which opens and reads, and changes.c, which changes, share.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_OVERLAY_INTERNAL_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_OVERLAY_INTERNAL_H

#include "snapshotters/metastore.h"
#include "snapshotters/overlay/config.h"
#include "snapshotters/overlay/layers.h"
#include "snapshotters/overlay/mount_opts.h"
#include "snapshotters/overlay/overlay.h"

struct overlay {
	const struct overlay_conf *conf;
	struct metastore *store;
	struct layers *layers;
	struct mount_opts mount_opts;
};

/**
 * struct mapped_root - the host ids of a container's root, by the labels of its snapshot
 * @wanted: both labels are there, and to be trusted
 */
struct mapped_root {
	bool wanted;
	uint32_t uid;
	uint32_t gid;
};

/* --- overlay.c --- */

ERR_CHECKED int overlay_mapped_root(const struct strmap *labels, struct mapped_root *ret_root,
				    struct err *err);
ERR_CHECKED int overlay_is_remapped(struct overlay *o, const struct mapped_root *root,
				    uint64_t parent_id, bool *ret_remapped, struct err *err);
int overlay_gone_or_failed(struct overlay *o, struct ctx *ctx, const char *key, struct err *err);
ERR_CHECKED int overlay_add_upperdir(struct overlay *o, struct arena *arena, struct info *info,
				     struct err *err);

/* --- changes.c: entries of overlay_ops --- */

enum change_begun overlay_begin(void *self, struct snapshot_change *change, bool may_wait);
void overlay_lead(void *self);
int overlay_prepare(void *self, struct ctx *ctx, const struct snapshot_req *req,
		    struct mounts *ret_mounts, struct err *err);
int overlay_view(void *self, struct ctx *ctx, const struct snapshot_req *req,
		 struct mounts *ret_mounts, struct err *err);
int overlay_commit(void *self, struct ctx *ctx, const struct commit_req *req, struct err *err);
int overlay_remove(void *self, struct ctx *ctx, const char *key, struct err *err);
int overlay_update(void *self, struct ctx *ctx, const struct update_req *req, struct info *ret_info,
		   struct err *err);

#endif
