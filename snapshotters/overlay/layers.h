/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories of an overlay snapshotter: <root>/snapshots/<id> and <root>/work/<id>. Any thread.
 *
 * A directory is durable before a row of the metastore may name it: it is made in advance (stock.h), empty,
 * under an id that no row has yet. What has no row, and is neither in stock nor being put to use, is
 * garbage, and is removed soon after the start and by layers_cleanup().
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_LAYERS_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_LAYERS_H

#include <sys/types.h>

#include "base/ctx.h"
#include "base/err.h"
#include "snapshotters/metastore.h"

struct layers;

/** layers_check_root() - can mount options carry paths below @root? ERR_INVALID_ARGUMENT: no */
ERR_CHECKED int layers_check_root(const char *root, struct err *err);

/**
 * layers_open() - take up <root>/snapshots, made when missing
 * @root: absolute path that has passed layers_check_root(), borrowed
 * @store: gives out ids; outlives the result
 */
ERR_CHECKED int layers_open(const char *root, struct metastore *store, struct layers **ret_layers,
			    struct err *err);

/** layers_close() - stop the thread, remove the spares. Accepts NULL. */
void layers_close(struct layers *layers);

/**
 * layers_take() - the id of an empty, durable directory pair: fs (0755, root's) and work (0711)
 *
 * The caller puts it to use with layers_keep() once a row names it, or ends with layers_drop().
 */
ERR_CHECKED int layers_take(struct layers *layers, const struct ctx *ctx, uint64_t *ret_id,
			    struct err *err);

/** layers_chown() - give the fs directory of a taken id to @uid:@gid; durable on return */
ERR_CHECKED int layers_chown(struct layers *layers, uint64_t id, uid_t uid, gid_t gid,
			     struct err *err);

/**
 * layers_take_ready() - layers_take() of what is in stock
 * Return: false when that is nothing.
 */
bool layers_take_ready(struct layers *layers, uint64_t *ret_id);

/** layers_keep() - a row names @id now; or may, after a failure, which a cleanup will find out */
void layers_keep(struct layers *layers, uint64_t id);

/**
 * layers_drop() - no row came to name the taken @id
 * @clean: the directory is as it was taken, and goes back into stock; else it is removed soon
 * It does not wait for the disk.
 */
void layers_drop(struct layers *layers, uint64_t id, bool clean);

/** layers_owner() - who owns the fs directory of @id */
ERR_CHECKED int layers_owner(struct layers *layers, uint64_t id, uid_t *ret_uid, gid_t *ret_gid,
			     struct err *err);

/** layers_usage() - disk usage of the fs directory of @id */
ERR_CHECKED int layers_usage(struct layers *layers, const struct ctx *ctx, uint64_t id,
			     struct usage *ret_usage, struct err *err);

/**
 * layers_usage_of_few() - layers_usage() of a layer that holds a few files only
 * Return: 0, 1 when it holds more, -1.
 */
ERR_CHECKED int layers_usage_of_few(struct layers *layers, uint64_t id, struct usage *ret_usage,
				    struct err *err);

/** layers_remove() - delete the directories of @id, which no row names any more */
ERR_CHECKED int layers_remove(struct layers *layers, const struct ctx *ctx, uint64_t id,
			      struct err *err);

/** layers_cleanup() - delete every directory that is garbage; goes on past those that cannot be deleted */
ERR_CHECKED int layers_cleanup(struct layers *layers, const struct ctx *ctx, struct err *err);

/** layers_fs_path(), layers_work_path() - absolute paths in @arena; NULL when it is used up */
const char *layers_fs_path(const struct layers *layers, struct arena *arena, uint64_t id);
const char *layers_work_path(const struct layers *layers, struct arena *arena, uint64_t id);

/** layers_empty_path() - absolute path of a directory that is always empty, 0755 */
const char *layers_empty_path(const struct layers *layers);

#endif
