/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mounts we hand out: the table of containerd's overlayfs snapshotter 2.x, case by case. No state, any
 * thread.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_MOUNT_OPTS_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_MOUNT_OPTS_H

#include "base/ctx.h"
#include "base/err.h"
#include "snapshotters/overlay/config.h"
#include "snapshotters/overlay/kernel.h"
#include "snapshotters/overlay/layers.h"
#include "snapshotters/snapshot.h"

/**
 * struct mount_opts - what is the same for every mount of this process
 * @common: options that end every overlay mount: configured ones, userxattr, index=off; borrowed or owned
 *          as mount_opts_init() made them
 */
struct mount_opts {
	const char **common;
	size_t n_common;
	bool remap_ids;
	bool rebase;
};

/**
 * mount_opts_check() - would clients be able to mount with @conf's options? ERR_INVALID_ARGUMENT: no
 *
 * The kernel is asked where we may (kernel_try_options()).
 */
ERR_CHECKED int mount_opts_check(const struct overlay_conf *conf, struct err *err);

/** mount_opts_init() - settle the common options; @conf has passed mount_opts_check(), and must outlive @opts */
ERR_CHECKED int mount_opts_init(struct mount_opts *opts, const struct overlay_conf *conf,
				const struct kernel_abilities *kernel, struct err *err);
void mount_opts_done(struct mount_opts *opts);

/**
 * struct mount_case - which snapshot is to be mounted
 * @labels: those it has, for ID mappings and extraction
 * @parents: ids, nearest first
 * @remapped: @labels' ID mappings apply, and the parent's files are not yet owned by the mapped ids
 */
struct mount_case {
	uint64_t id;
	enum snapshot_kind kind;
	const struct strmap *labels;
	const uint64_t *parents;
	size_t n_parents;
	bool remapped;
};

/** mount_opts_mounts() - the mounts for @what, in @ctx->arena */
ERR_CHECKED int mount_opts_mounts(const struct mount_opts *opts, const struct layers *layers,
				  struct ctx *ctx, const struct mount_case *what,
				  struct mounts *ret_mounts, struct err *err);

#endif
