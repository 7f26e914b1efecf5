/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/overlay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "snapshotters/metastore.h"
#include "snapshotters/overlay/config.h"
#include "snapshotters/overlay/idmap.h"
#include "snapshotters/overlay/kernel.h"
#include "snapshotters/overlay/layers.h"
#include "snapshotters/overlay/mount_opts.h"

#define UPPERDIR_LABEL "containerd.io/snapshot/overlay.upperdir"

/*
 * How often an operation looks again when the name it was given came to mean another snapshot between its
 * look and its transaction. Each try loses to a call that succeeded.
 */
#define TRIES_MAX 16

struct overlay {
	const struct overlay_conf *conf;
	struct metastore *store;
	struct layers *layers;
	struct mount_opts mount_opts;
};

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

/**
 * struct mapped_root - the host ids of a container's root, by the labels of its snapshot
 * @wanted: both labels are there, and to be trusted
 */
struct mapped_root {
	bool wanted;
	uint32_t uid;
	uint32_t gid;
};

/*
 * Labels of an extraction (those with a snapshot.ref) come from the annotations of whoever made the image:
 * an ID mapping there would give the layer's root to a user of the image's choice.
 */
static int read_mapped_root(const struct strmap *labels, struct mapped_root *ret_root,
			    struct err *err)
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
static int is_remapped(struct overlay *o, const struct mapped_root *root, uint64_t parent_id,
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

/* --- prepare and view ---------------------------------------------------------------------------- */

struct parent {
	uint64_t id; /* 0: none */
	struct chain ancestors;
};

static int find_parent(struct overlay *o, struct ctx *ctx, const char *name,
		       struct parent *ret_parent, struct err *err)
{
	struct parent parent = {0};
	struct record record;

	if (name[0] != '\0') {
		if (metastore_get_chain(o->store, ctx, name, &record, &parent.ancestors, err) < 0)
			return err_wrap(err, "parent");
		if (record.info.kind != SNAPSHOT_COMMITTED)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "parent '%s' is not a committed snapshot", name);
		parent.id = record.info.id;
	}
	*ret_parent = parent;
	return 0;
}

/* The new root directory belongs to whom the parent's belongs, or to the container's root. */
static int set_owner(struct overlay *o, uint64_t id, const struct parent *parent,
		     const struct mapped_root *root, bool *ret_clean, struct err *err)
{
	uid_t uid = root->uid;
	gid_t gid = root->gid;

	if (!root->wanted && parent->id && layers_owner(o->layers, parent->id, &uid, &gid, err) < 0)
		return -1;
	if (uid == 0 && gid == 0 && *ret_clean)
		return 0;
	*ret_clean = false;
	if (layers_chown(o->layers, id, uid, gid, err) < 0)
		return -1;
	CRASH_POINT("prepare.chowned");
	return 0;
}

/* Every ancestor, nearest first, the parent among them. */
static int join_chain(struct ctx *ctx, const struct parent *parent, struct mount_case *what,
		      struct err *err)
{
	uint64_t *ids;

	if (!parent->id)
		return 0;
	ids = arena_array(ctx->arena, parent->ancestors.n + 1, sizeof(*ids));
	if (!ids)
		return ctx_no_memory(err);
	ids[0] = parent->id;
	if (parent->ancestors.n)
		memcpy(ids + 1, parent->ancestors.ids, parent->ancestors.n * sizeof(*ids));
	what->parents = ids;
	what->n_parents = parent->ancestors.n + 1;
	return 0;
}

/*
 * A step on the directory of @key failed. When the snapshot was removed meanwhile, with its directory, then
 * that is the answer, and not what was missing on disk. Return: -1, always.
 */
static int gone_or_failed(struct overlay *o, struct ctx *ctx, const char *key, struct err *err)
{
	struct err gone = ERR_INIT;
	struct record record;

	if (key[0] != '\0' && metastore_get(o->store, ctx, key, &record, &gone) < 0 &&
	    gone.code == ERR_NOT_FOUND)
		*err = gone;
	return -1;
}

/* Everything that can fail before the row is written, and then the row. */
static int try_create(struct overlay *o, struct ctx *ctx, const struct snapshot_req *req,
		      enum snapshot_kind kind, uint64_t id, bool *clean, struct mounts *ret_mounts,
		      struct err *err)
{
	struct metastore_new row = {.id = id, .kind = kind, .req = req};
	struct mount_case what = {.id = id, .kind = kind, .labels = &req->labels};
	struct mapped_root root = {0};
	struct parent parent = {0};

	if (read_mapped_root(&req->labels, &root, err) < 0 ||
	    find_parent(o, ctx, req->parent, &parent, err) < 0)
		return -1;
	if (is_remapped(o, &root, parent.id, &what.remapped, err) < 0 ||
	    set_owner(o, id, &parent, &root, clean, err) < 0)
		return gone_or_failed(o, ctx, req->parent, err);
	if (join_chain(ctx, &parent, &what, err) < 0 ||
	    mount_opts_mounts(&o->mount_opts, o->layers, ctx, &what, ret_mounts, err) < 0 ||
	    ctx_check(ctx, err) < 0)
		return -1;
	row.parent_id = parent.id;
	CRASH_POINT("prepare.before-row");
	return metastore_create(o->store, ctx, &row, err);
}

/*
 * Does this failure tell for sure that no row was written? When a commit to the database fails, what the
 * disk holds of it is not known.
 */
static bool is_refusal(const struct err *err)
{
	switch (err->code) {
	case ERR_NOT_FOUND:
	case ERR_ALREADY_EXISTS:
	case ERR_INVALID_ARGUMENT:
	case ERR_CANCELLED:
	case ERR_DEADLINE_EXCEEDED:
		return true;
	default:
		return false;
	}
}

static int create(struct overlay *o, struct ctx *ctx, const struct snapshot_req *req,
		  enum snapshot_kind kind, struct mounts *ret_mounts, struct err *err)
{
	struct mounts mounts = {0};
	bool clean = true;
	uint64_t id = 0;
	bool is_refused;
	int result = 1;

	if (layers_take(o->layers, ctx, &id, err) < 0)
		return -1;
	CRASH_POINT("prepare.directory-taken");
	for (int i = 0; i < TRIES_MAX && result == 1; i++)
		result = try_create(o, ctx, req, kind, id, &clean, &mounts, err);
	is_refused = result == 1 || (result < 0 && is_refusal(err));
	if (result == 1)
		result = err_set(err, ERR_UNAVAILABLE, "parent '%s' keeps changing", req->parent);
	if (result < 0) {
		if (is_refused)
			layers_drop(o->layers, id, clean);
		else
			layers_keep(o->layers, id); /* a cleanup sees whether there is a row */
		return -1;
	}
	CRASH_POINT("prepare.row-written");
	layers_keep(o->layers, id);
	*ret_mounts = mounts;
	return 0;
}

static int overlay_prepare(void *self, struct ctx *ctx, const struct snapshot_req *req,
			   struct mounts *ret_mounts, struct err *err)
{
	return create(self, ctx, req, SNAPSHOT_ACTIVE, ret_mounts, err);
}

static int overlay_view(void *self, struct ctx *ctx, const struct snapshot_req *req,
			struct mounts *ret_mounts, struct err *err)
{
	return create(self, ctx, req, SNAPSHOT_VIEW, ret_mounts, err);
}

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
	if (read_mapped_root(&record.info.labels, &root, err) < 0)
		return -1;
	if (is_remapped(o, &root, record.parent_id, &what.remapped, err) < 0)
		return gone_or_failed(o, ctx, key, err);
	return mount_opts_mounts(&o->mount_opts, o->layers, ctx, &what, ret_mounts, err);
}

/* --- commit, remove, cleanup --------------------------------------------------------------------- */

static int try_commit(struct overlay *o, struct ctx *ctx, const struct commit_req *req,
		      struct err *err)
{
	struct usage usage = {0};
	struct record record = {0};

	if (metastore_get(o->store, ctx, req->key, &record, err) < 0)
		return -1;
	/* What is not active is refused by the metastore, which knows all the rules. */
	if (record.info.kind == SNAPSHOT_ACTIVE &&
	    layers_usage(o->layers, ctx, record.info.id, &usage, err) < 0)
		return gone_or_failed(o, ctx, req->key, err);
	if (ctx_check(ctx, err) < 0)
		return -1;
	CRASH_POINT("commit.before-row");
	return metastore_commit(o->store, ctx, req, record.info.id, &usage, err);
}

static int overlay_commit(void *self, struct ctx *ctx, const struct commit_req *req,
			  struct err *err)
{
	int result = 1;

	for (int i = 0; i < TRIES_MAX && result == 1; i++)
		result = try_commit(self, ctx, req, err);
	if (result == 1)
		return err_set(err, ERR_UNAVAILABLE, "snapshot '%s' keeps changing", req->key);
	CRASH_POINT("commit.row-written");
	return result;
}

static int overlay_remove(void *self, struct ctx *ctx, const char *key, struct err *err)
{
	struct overlay *o = self;
	struct err failure = ERR_INIT;
	uint64_t id = 0;

	if (metastore_remove(o->store, ctx, key, &id, err) < 0)
		return -1;
	CRASH_POINT("remove.row-deleted");
	if (o->conf->sync_remove && layers_remove(o->layers, ctx, id, &failure) < 0)
		log_event(LOG_WARN,
			  "the directory of a removed snapshot stays until the next cleanup",
			  LOG_STR("key", key), LOG_INT("id", (int64_t)id), LOG_ERR(&failure));
	return 0;
}

static int overlay_cleanup(void *self, struct ctx *ctx, struct err *err)
{
	struct overlay *o = self;

	return layers_cleanup(o->layers, ctx, err);
}

/* --- stat, update, walk, usage ------------------------------------------------------------------- */

static int add_upperdir(struct overlay *o, struct arena *arena, struct info *info, struct err *err)
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
	    add_upperdir(o, ctx->arena, &record.info, err) < 0)
		return -1;
	*ret_info = record.info;
	return 0;
}

static int overlay_update(void *self, struct ctx *ctx, const struct update_req *req,
			  struct info *ret_info, struct err *err)
{
	struct overlay *o = self;
	struct info info;

	if (metastore_update(o->store, ctx, req, &info, err) < 0)
		return -1;
	CRASH_POINT("update.row-written");
	if (add_upperdir(o, ctx->arena, &info, err) < 0)
		return -1;
	*ret_info = info;
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
	if (add_upperdir(walk->overlay, &arena, &labelled, err) < 0)
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
		return gone_or_failed(o, ctx, key, err);
	return 0;
}

const struct snapshotter_ops overlay_ops = {
	.name = "overlay",
	.summary = "an overlayfs snapshotter for containerd, served out of process",
	.options = overlay_options,
	.conf_size = sizeof(struct overlay_conf),
	.capabilities = overlay_capabilities,
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
};
