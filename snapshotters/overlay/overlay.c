/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/overlay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "snapshotters/overlay/idmap.h"
#include "snapshotters/overlay/kernel.h"
#include "snapshotters/overlay/overlay_internal.h"

#define UPPERDIR_LABEL "containerd.io/snapshot/overlay.upperdir"

static void overlay_close(void *self)
{
	struct overlay *o = self;

	if (!o)
		return;
	layers_close(o->layers);
	metastore_close(o->store);
	mount_opts_done(&o->mount_opts);
	free(o);
}

static int overlay_check(const char *root, const void *conf, struct err *err)
{
	if (layers_check_root(root, err) < 0)
		return -1;
	return mount_opts_check(conf, err);
}

static int open_parts(struct overlay *o, const char *root, struct err *err)
{
	CLEANUP(free_ptr) char *database = NULL;
	struct kernel_abilities kernel = {0};

	if (asprintf(&database, "%s/metadata.db", root) < 0) {
		database = NULL;
		return ctx_no_memory(err);
	}
	if (kernel_probe(root, &kernel, err) < 0 ||
	    mount_opts_init(&o->mount_opts, o->conf, &kernel, err) < 0 ||
	    metastore_open(database, &o->store, err) < 0)
		return -1;
	return layers_open(root, o->store, &o->layers, err);
}

static int overlay_open(const char *root, const void *conf, void **ret_self, struct err *err)
{
	struct overlay *o = calloc(1, sizeof(*o));

	if (!o)
		return ctx_no_memory(err);
	o->conf = conf;
	if (open_parts(o, root, err) < 0) {
		overlay_close(o);
		return -1;
	}
	*ret_self = o;
	return 0;
}

/*
 * Tried in a directory of its own on the file system where @root is or will be: some file systems have
 * ID-mapped mounts and others not.
 */
static bool can_idmap(const char *root)
{
	struct kernel_abilities kernel = {0};
	CLEANUP(free_ptr) char *dir = NULL;
	struct err err = ERR_INIT;
	size_t len = strlen(root);

	if (asprintf(&dir, "%s/lighter-XXXXXX", root) < 0) {
		dir = NULL;
		return false;
	}
	while (!mkdtemp(dir)) {
		while (len > 0 && dir[--len] != '/')
			;
		if (len == 0)
			return false;
		strcpy(dir + len, "/lighter-XXXXXX");
	}
	if (kernel_probe(dir, &kernel, &err) < 0)
		log_event(LOG_WARN, "overlay mounts do not work there", LOG_ERR(&err));
	(void)rmdir(dir);
	return kernel.idmap;
}

static size_t overlay_capabilities(const char *root, const void *conf,
				   const char *ret_names[SNAPSHOTTER_CAPABILITIES_MAX])
{
	const struct overlay_conf *c = conf;
	size_t n = 0;

	if (strcmp(c->remap_ids, "always") == 0 ||
	    (strcmp(c->remap_ids, "auto") == 0 && can_idmap(root)))
		ret_names[n++] = "remap-ids";
	if (!c->slow_chown)
		ret_names[n++] = "only-remap-ids";
	if (c->rebase)
		ret_names[n++] = "rebase";
	return n;
}

/* --- user namespaces ----------------------------------------------------------------------------- */

/*
 * Labels of an extraction (those with a snapshot.ref) come from the annotations of whoever made the image:
 * an ID mapping there would give the layer's root to a user of the image's choice.
 */
int overlay_mapped_root(const struct strmap *labels, struct mapped_root *ret_root, struct err *err)
{
	const char *uids = strmap_get(labels, SNAPSHOT_LABEL_UID_MAPPING);
	const char *gids = strmap_get(labels, SNAPSHOT_LABEL_GID_MAPPING);
	struct mapped_root root = {0};

	if ((uids || gids) && !strmap_get(labels, SNAPSHOT_LABEL_REF)) {
		if (!uids || !gids)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "labels %s and %s must be given together",
				       SNAPSHOT_LABEL_UID_MAPPING, SNAPSHOT_LABEL_GID_MAPPING);
		if (idmap_root(uids, "uid", &root.uid, err) < 0 ||
		    idmap_root(gids, "gid", &root.gid, err) < 0)
			return -1;
		root.wanted = true;
	}
	*ret_root = root;
	return 0;
}

/*
 * A client that was not told of remap-ids copies the image and chowns every file of it, and then names the
 * mapping all the same: its image is owned by the mapped root already and must not be mapped once more.
 */
int overlay_is_remapped(struct overlay *o, const struct mapped_root *root, uint64_t parent_id,
			bool *ret_remapped, struct err *err)
{
	uid_t uid;
	gid_t gid;

	*ret_remapped = false;
	if (!root->wanted || !o->mount_opts.remap_ids)
		return 0;
	if (parent_id) {
		if (layers_owner(o->layers, parent_id, &uid, &gid, err) < 0)
			return -1;
		if (uid == root->uid && gid == root->gid && uid != 0)
			return 0;
	}
	*ret_remapped = true;
	return 0;
}

/*
 * A step on the directory of @key failed. When the snapshot was removed meanwhile, with its directory, then
 * that is the answer, and not what was missing on disk. Return: -1, always.
 */
int overlay_gone_or_failed(struct overlay *o, struct ctx *ctx, const char *key, struct err *err)
{
	struct err gone = ERR_INIT;
	struct record record;

	if (key[0] != '\0' && metastore_get(o->store, ctx, key, &record, &gone) < 0 &&
	    gone.code == ERR_NOT_FOUND)
		*err = gone;
	return -1;
}

/* --- mounts, cleanup ---------------------------------------------------------------------------- */

static int overlay_mounts(void *self, struct ctx *ctx, const char *key, struct mounts *ret_mounts,
			  struct err *err)
{
	struct overlay *o = self;
	struct mapped_root root = {0};
	struct record record = {0};
	struct chain chain = {0};
	struct mount_case what;

	if (metastore_get_chain(o->store, ctx, key, &record, &chain, err) < 0)
		return -1;
	if (record.info.kind == SNAPSHOT_COMMITTED)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "snapshot '%s' is committed: it has no mounts", key);
	what = (struct mount_case){
		.id = record.info.id,
		.kind = record.info.kind,
		.labels = &record.info.labels,
		.parents = chain.ids,
		.n_parents = chain.n,
	};
	if (overlay_mapped_root(&record.info.labels, &root, err) < 0)
		return -1;
	if (overlay_is_remapped(o, &root, record.parent_id, &what.remapped, err) < 0)
		return overlay_gone_or_failed(o, ctx, key, err);
	return mount_opts_mounts(&o->mount_opts, o->layers, ctx, &what, ret_mounts, err);
}

static int overlay_cleanup(void *self, struct ctx *ctx, struct err *err)
{
	struct overlay *o = self;

	return layers_cleanup(o->layers, ctx, err);
}

/* --- stat, walk, usage ------------------------------------------------------------------- */

int overlay_add_upperdir(struct overlay *o, struct arena *arena, struct info *info, struct err *err)
{
	const char *path;

	if (!o->conf->upperdir_label)
		return 0;
	path = layers_fs_path(o->layers, arena, info->id);
	if (!path)
		return ctx_no_memory(err);
	return strmap_set(&info->labels, arena, UPPERDIR_LABEL, path, err);
}

static int overlay_stat(void *self, struct ctx *ctx, const char *key, struct info *ret_info,
			struct err *err)
{
	struct overlay *o = self;
	struct record record;

	if (metastore_get(o->store, ctx, key, &record, err) < 0 ||
	    overlay_add_upperdir(o, ctx->arena, &record.info, err) < 0)
		return -1;
	*ret_info = record.info;
	return 0;
}

struct labelled_walk {
	struct overlay *overlay;
	snapshot_walk_fn fn;
	void *arg;
};

/* The label is added to what filters have let pass, since they do not see it in containerd either. */
static int walk_labelled(void *arg, const struct info *info, struct err *err)
{
	struct labelled_walk *walk = arg;
	struct info labelled = *info;
	struct arena arena;
	int result = -1;

	arena_init(&arena, 2 * LABELS_MAX_BYTES);
	labelled.labels = (struct strmap){0};
	for (size_t i = 0; i < info->labels.n; i++)
		if (strmap_append(&labelled.labels, &arena, info->labels.entries[i].key,
				  info->labels.entries[i].value, err) < 0)
			goto done;
	if (overlay_add_upperdir(walk->overlay, &arena, &labelled, err) < 0)
		goto done;
	result = walk->fn(walk->arg, &labelled, err);
done:
	arena_done(&arena);
	return result;
}

static int overlay_walk(void *self, struct ctx *ctx, const struct filters *filters,
			uint64_t after_id, snapshot_walk_fn fn, void *arg, struct err *err)
{
	struct overlay *o = self;
	struct labelled_walk walk = {.overlay = o, .fn = fn, .arg = arg};

	if (!o->conf->upperdir_label)
		return metastore_walk(o->store, ctx, filters, after_id, fn, arg, err);
	return metastore_walk(o->store, ctx, filters, after_id, walk_labelled, &walk, err);
}

static int overlay_usage(void *self, struct ctx *ctx, const char *key, struct usage *ret_usage,
			 struct err *err)
{
	struct overlay *o = self;
	struct record record;

	if (metastore_get(o->store, ctx, key, &record, err) < 0)
		return -1;
	if (record.info.kind != SNAPSHOT_ACTIVE) {
		*ret_usage = record.usage;
		return 0;
	}
	if (layers_usage(o->layers, ctx, record.info.id, ret_usage, err) < 0)
		return overlay_gone_or_failed(o, ctx, key, err);
	return 0;
}

const struct snapshotter_ops overlay_ops = {
	.name = "overlay",
	.summary = "an overlayfs snapshotter for containerd, served out of process",
	.options = overlay_options,
	.conf_size = sizeof(struct overlay_conf),
	.capabilities = overlay_capabilities,
	.check = overlay_check,
	.open = overlay_open,
	.close = overlay_close,
	.prepare = overlay_prepare,
	.view = overlay_view,
	.mounts = overlay_mounts,
	.commit = overlay_commit,
	.remove = overlay_remove,
	.stat = overlay_stat,
	.update = overlay_update,
	.walk = overlay_walk,
	.usage = overlay_usage,
	.cleanup = overlay_cleanup,
	.begin = overlay_begin,
	.lead = overlay_lead,
};
