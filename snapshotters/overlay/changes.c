/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prepare, View, Commit, Remove, Update: each looks, makes its row, and is told when the row is on disk. What the
 * name of a row or of a parent means can change between the look and the transaction; then the snapshot that was
 * looked at has been removed while the call was under way, and NOT_FOUND is as true as what came after.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "snapshotters/overlay/overlay_internal.h"

/**
 * struct pending - a change under way, in the arena of its call
 * @id: of the directory that was taken for a new snapshot; 0: none
 * @clean: it is as it was taken. If not, it has another owner; it is empty, as nobody has been told of it yet.
 */
struct pending {
	struct overlay *overlay;
	struct snapshot_change *change;
	struct metastore_change row;
	uint64_t id;
	bool clean;
};

static struct pending *pending_of(struct db_job *job)
{
	return (struct pending *)((char *)job - offsetof(struct pending, row.job));
}

static struct pending *new_pending(struct overlay *o, struct snapshot_change *change,
				   void (*done)(struct db_job *job))
{
	struct pending *pending = arena_zalloc(change->ctx->arena, sizeof(*pending));

	if (!pending) {
		ctx_no_memory(&change->err);
		return NULL;
	}
	pending->overlay = o;
	pending->change = change;
	pending->row.job.done = done;
	pending->row.job.err = &change->err;
	return pending;
}

static enum change_begun ended(struct snapshot_change *change, int result)
{
	change->result = result;
	return CHANGE_ENDED;
}

static enum change_begun submitted(bool leads)
{
	return leads ? CHANGE_LEADS : CHANGE_PENDING;
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
static int find_owner(struct overlay *o, const struct parent *parent,
		      const struct mapped_root *root, uid_t *ret_uid, gid_t *ret_gid,
		      struct err *err)
{
	*ret_uid = root->uid;
	*ret_gid = root->gid;
	if (root->wanted || !parent->id)
		return 0;
	return layers_owner(o->layers, parent->id, ret_uid, ret_gid, err);
}

static int set_owner(struct pending *pending, uid_t uid, gid_t gid, struct err *err)
{
	if (uid == 0 && gid == 0)
		return 0;
	pending->clean = false;
	if (layers_chown(pending->overlay->layers, pending->id, uid, gid, err) < 0)
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

static enum snapshot_kind kind_of(const struct snapshot_change *change)
{
	return change->kind == CHANGE_VIEW ? SNAPSHOT_VIEW : SNAPSHOT_ACTIVE;
}

/* Everything that can fail before the row is written. Return: 0, -1, or 1 when it would have to wait. */
static int make_ready(struct pending *pending, bool may_wait, struct parent *parent,
		      struct err *err)
{
	struct overlay *o = pending->overlay;
	struct snapshot_change *change = pending->change;
	const struct snapshot_req *req = change->create;
	struct mount_case what = {.kind = kind_of(change), .labels = &req->labels};
	struct mapped_root root = {0};
	uid_t uid = 0;
	gid_t gid = 0;

	if (overlay_mapped_root(&req->labels, &root, err) < 0 ||
	    find_parent(o, change->ctx, req->parent, parent, err) < 0)
		return -1;
	if (overlay_is_remapped(o, &root, parent->id, &what.remapped, err) < 0 ||
	    find_owner(o, parent, &root, &uid, &gid, err) < 0)
		return overlay_gone_or_failed(o, change->ctx, req->parent, err);

	if (!may_wait && (uid != 0 || gid != 0 || !layers_take_ready(o->layers, &pending->id)))
		return 1;
	if (may_wait && layers_take(o->layers, change->ctx, &pending->id, err) < 0)
		return -1;
	CRASH_POINT("prepare.directory-taken");
	pending->clean = true;
	what.id = pending->id;
	if (set_owner(pending, uid, gid, err) < 0 ||
	    join_chain(change->ctx, parent, &what, err) < 0 ||
	    mount_opts_mounts(&o->mount_opts, o->layers, change->ctx, &what, &change->mounts, err) <
		    0)
		return -1;
	return ctx_check(change->ctx, err);
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

static void create_done(struct db_job *job)
{
	struct pending *pending = pending_of(job);
	struct snapshot_change *change = pending->change;
	struct layers *layers = pending->overlay->layers;

	change->result = job->result;
	if (job->result == 1)
		change->result =
			err_set(&change->err, ERR_NOT_FOUND, "parent '%s' was removed: not found",
				change->create->parent);
	if (change->result == 0)
		CRASH_POINT("prepare.row-written");
	if (change->result < 0 && is_refusal(&change->err))
		layers_drop(layers, pending->id, pending->clean);
	else /* after other failures a cleanup sees whether there is a row */
		layers_keep(layers, pending->id);
	change->done(change);
}

static enum change_begun begin_create(struct overlay *o, struct snapshot_change *change,
				      bool may_wait)
{
	struct pending *pending = new_pending(o, change, create_done);
	struct metastore_new row = {.kind = kind_of(change), .req = change->create};
	struct parent parent = {0};
	int ready;

	if (!pending)
		return ended(change, -1);
	ready = make_ready(pending, may_wait, &parent, &change->err);
	if (ready < 0) {
		if (pending->id)
			layers_drop(o->layers, pending->id, pending->clean);
		return ended(change, -1);
	}
	if (ready > 0)
		return CHANGE_WOULD_WAIT;
	row.id = pending->id;
	row.parent_id = parent.id;
	CRASH_POINT("prepare.before-row");
	return submitted(metastore_submit_create(o->store, change->ctx, &row, &pending->row));
}

/* --- commit -------------------------------------------------------------------------------------- */

static void commit_done(struct db_job *job)
{
	struct pending *pending = pending_of(job);
	struct snapshot_change *change = pending->change;

	change->result = job->result;
	if (job->result == 1)
		change->result =
			err_set(&change->err, ERR_NOT_FOUND, "snapshot '%s' was removed: not found",
				change->commit->key);
	if (change->result == 0)
		CRASH_POINT("commit.row-written");
	change->done(change);
}

/* Return: 0, -1, or 1 when it would have to wait. */
static int measure(struct overlay *o, struct snapshot_change *change, bool may_wait,
		   struct record *ret_record, struct usage *ret_usage, struct err *err)
{
	struct ctx *ctx = change->ctx;
	int counted;

	if (metastore_get(o->store, ctx, change->commit->key, ret_record, err) < 0)
		return -1;
	/* What is not active is refused by the metastore, which knows all the rules. */
	if (ret_record->info.kind != SNAPSHOT_ACTIVE)
		return 0;
	counted = may_wait ? layers_usage(o->layers, ctx, ret_record->info.id, ret_usage, err)
			   : layers_usage_of_few(o->layers, ret_record->info.id, ret_usage, err);
	if (counted < 0)
		return overlay_gone_or_failed(o, ctx, change->commit->key, err);
	return counted;
}

static enum change_begun begin_commit(struct overlay *o, struct snapshot_change *change,
				      bool may_wait)
{
	struct pending *pending = new_pending(o, change, commit_done);
	struct usage usage = {0};
	struct record record = {0};
	int measured;

	if (!pending)
		return ended(change, -1);
	measured = measure(o, change, may_wait, &record, &usage, &change->err);
	if (measured < 0 || ctx_check(change->ctx, &change->err) < 0)
		return ended(change, -1);
	if (measured > 0)
		return CHANGE_WOULD_WAIT;
	CRASH_POINT("commit.before-row");
	return submitted(metastore_submit_commit(o->store, change->ctx, change->commit,
						 record.info.id, &usage, &pending->row));
}

/* --- remove -------------------------------------------------------------------------------------- */

static void remove_done(struct db_job *job)
{
	struct snapshot_change *change = pending_of(job)->change;

	change->result = job->result;
	if (change->result == 0)
		CRASH_POINT("remove.row-deleted");
	change->done(change);
}

static int remove_with_directory(struct overlay *o, struct ctx *ctx, const char *key,
				 struct err *err)
{
	struct err failure = ERR_INIT;
	uint64_t id = 0;

	if (metastore_remove(o->store, ctx, key, &id, err) < 0)
		return -1;
	CRASH_POINT("remove.row-deleted");
	if (layers_remove(o->layers, ctx, id, &failure) < 0)
		log_event(LOG_WARN,
			  "the directory of a removed snapshot stays until the next cleanup",
			  LOG_STR("key", key), LOG_INT("id", (int64_t)id), LOG_ERR(&failure));
	return 0;
}

static enum change_begun begin_remove(struct overlay *o, struct snapshot_change *change,
				      bool may_wait)
{
	struct pending *pending;

	if (o->conf->sync_remove && !may_wait)
		return CHANGE_WOULD_WAIT;
	if (o->conf->sync_remove)
		return ended(change,
			     remove_with_directory(o, change->ctx, change->key, &change->err));
	pending = new_pending(o, change, remove_done);
	if (!pending)
		return ended(change, -1);
	return submitted(
		metastore_submit_remove(o->store, change->ctx, change->key, &pending->row));
}

/* --- update -------------------------------------------------------------------------------------- */

static void update_done(struct db_job *job)
{
	struct pending *pending = pending_of(job);
	struct snapshot_change *change = pending->change;

	change->result = job->result;
	change->info = pending->row.info;
	if (change->result == 0) {
		CRASH_POINT("update.row-written");
		change->result = overlay_add_upperdir(pending->overlay, change->ctx->arena,
						      &change->info, &change->err);
	}
	change->done(change);
}

static enum change_begun begin_update(struct overlay *o, struct snapshot_change *change)
{
	struct pending *pending = new_pending(o, change, update_done);
	int leads;

	if (!pending)
		return ended(change, -1);
	leads = metastore_submit_update(o->store, change->ctx, change->update, &pending->row,
					&change->err);
	if (leads < 0)
		return ended(change, -1);
	return submitted(leads);
}

/* --- entries of overlay_ops ---------------------------------------------------------------------- */

enum change_begun overlay_begin(void *self, struct snapshot_change *change, bool may_wait)
{
	change->err = (struct err)ERR_INIT;
	switch (change->kind) {
	case CHANGE_PREPARE:
	case CHANGE_VIEW:
		return begin_create(self, change, may_wait);
	case CHANGE_COMMIT:
		return begin_commit(self, change, may_wait);
	case CHANGE_REMOVE:
		return begin_remove(self, change, may_wait);
	case CHANGE_UPDATE:
		break;
	}
	return begin_update(self, change);
}

void overlay_lead(void *self)
{
	struct overlay *o = self;

	metastore_lead(o->store);
}

static int create(void *self, enum snapshot_change_kind kind, struct ctx *ctx,
		  const struct snapshot_req *req, struct mounts *ret_mounts, struct err *err)
{
	struct snapshot_change change = {.kind = kind, .ctx = ctx, .create = req};

	if (snapshot_change_wait(&overlay_ops, self, &change, err) < 0)
		return -1;
	*ret_mounts = change.mounts;
	return 0;
}

int overlay_prepare(void *self, struct ctx *ctx, const struct snapshot_req *req,
		    struct mounts *ret_mounts, struct err *err)
{
	return create(self, CHANGE_PREPARE, ctx, req, ret_mounts, err);
}

int overlay_view(void *self, struct ctx *ctx, const struct snapshot_req *req,
		 struct mounts *ret_mounts, struct err *err)
{
	return create(self, CHANGE_VIEW, ctx, req, ret_mounts, err);
}

int overlay_commit(void *self, struct ctx *ctx, const struct commit_req *req, struct err *err)
{
	struct snapshot_change change = {.kind = CHANGE_COMMIT, .ctx = ctx, .commit = req};

	return snapshot_change_wait(&overlay_ops, self, &change, err);
}

int overlay_remove(void *self, struct ctx *ctx, const char *key, struct err *err)
{
	struct snapshot_change change = {.kind = CHANGE_REMOVE, .ctx = ctx, .key = key};

	return snapshot_change_wait(&overlay_ops, self, &change, err);
}

int overlay_update(void *self, struct ctx *ctx, const struct update_req *req, struct info *ret_info,
		   struct err *err)
{
	struct snapshot_change change = {.kind = CHANGE_UPDATE, .ctx = ctx, .update = req};

	if (snapshot_change_wait(&overlay_ops, self, &change, err) < 0)
		return -1;
	*ret_info = change.info;
	return 0;
}
