/* SPDX-License-Identifier: Apache-2.0 */
#include "content/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/log.h"
#include "content/adopt.h"
#include "content/blob_files.h"
#include "content/blob_rows.h"
#include "content/cataloger.h"
#include "content/config.h"
#include "content/digest_locks.h"
#include "content/ingests.h"
#include "content/local_internal.h"

#define DB_NAME      "metadata.db"
#define CATALOG_NAME "catalog.db"

/* --- open, close ---------------------------------------------------------------------------------- */

/*
 * Without the database nobody knows which files are blobs: they are moved aside, to be verified. When it is there,
 * the directory of the blobs must be too: were it only not mounted yet, all rows would be taken for lost.
 */
static int look_around(struct local *store, const struct content_conf *conf, struct err *err)
{
	if (faccessat(store->root_fd, DB_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		if (faccessat(store->root_fd, "blobs/sha256", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			return err_sys(err, "there is '" DB_NAME "', but not 'blobs/sha256'");
		return 0;
	}
	if (errno != ENOENT)
		return err_sys(err, "look for '" DB_NAME "'");
	return adopt_set_aside(store->root_fd, conf->adopt, err);
}

static int open_parts(struct local *store, const char *root, const struct content_conf *conf,
		      struct err *err)
{
	CLEANUP(free_ptr) char *db_path = NULL;
	CLEANUP(free_ptr) char *catalog_path = NULL;

	store->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->root_fd < 0)
		return err_sys(err, "open '%s'", root);
	if (asprintf(&db_path, "%s/" DB_NAME, root) < 0 ||
	    asprintf(&catalog_path, "%s/" CATALOG_NAME, root) < 0)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a path");
	if (look_around(store, conf, err) < 0 ||
	    fs_remove_tree(NULL, store->root_fd, LOCAL_IMPORT_DIR, err) < 0)
		return -1;
	/* The directories first: with a database and without them, we would refuse to start. */
	if (blob_files_make_dirs(store->root_fd, err) < 0 ||
	    blob_rows_open(db_path, &store->rows, err) < 0 ||
	    blob_files_open(store->root_fd, store->rows, &store->files, err) < 0 ||
	    late_sync_restore(store->files, store->rows, err) < 0 ||
	    blob_files_settle(store->files, err) < 0 ||
	    late_sync_start(store->files, store->rows, &store->late, err) < 0 ||
	    ingests_open(store->root_fd, &store->ingests, err) < 0 ||
	    cataloger_start(store, catalog_path, &store->cataloger, err) < 0)
		return -1;
	return adopt_start(store, &store->adopt, err);
}

static void local_close(void *self)
{
	struct local *store = self;

	if (!store)
		return;
	adopt_stop(store->adopt);
	cataloger_stop(store->cataloger);
	ingests_close(store->ingests);
	late_sync_stop(store->late);
	blob_files_close(store->files);
	blob_rows_close(store->rows);
	close_fd(&store->root_fd);
	digest_locks_done(&store->locks);
	free(store);
}

static int local_open(const char *root, const void *conf, void **ret_self, struct err *err)
{
	struct local *store = calloc(1, sizeof(*store));

	if (!store)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the store");
	store->root_fd = -1;
	digest_locks_init(&store->locks);
	if (open_parts(store, root, conf, err) < 0) {
		local_close(store);
		return -1;
	}
	*ret_self = store;
	return 0;
}

/* --- blobs ---------------------------------------------------------------------------------------- */

static int local_info(void *self, struct ctx *ctx, const struct digest *digest,
		      struct blob_info *ret_info, struct err *err)
{
	struct local *store = self;

	return blob_rows_get(store->rows, ctx, digest, ret_info, err);
}

static int local_update(void *self, struct ctx *ctx, const struct blob_update *req,
			struct blob_info *ret_info, struct err *err)
{
	struct local *store = self;

	return blob_rows_update(store->rows, ctx, req, ret_info, err);
}

static int local_walk(void *self, struct ctx *ctx, const struct filters *filters,
		      const struct digest *after, blob_walk_fn fn, void *arg, struct err *err)
{
	struct local *store = self;

	return blob_rows_walk(store->rows, ctx, filters, after, fn, arg, err);
}

static int local_remove(void *self, struct ctx *ctx, const struct digest *digest, struct err *err)
{
	struct local *store = self;
	bool may_be_json = false;
	struct digest_lock lock;
	int r;

	(void)ctx;
	digest_lock(&store->locks, digest, &lock);
	r = blob_rows_remove(store->rows, digest, &may_be_json, err);
	CRASH_POINT("remove.row-deleted");
	if (may_be_json)
		cataloger_forget(store->cataloger, digest);
	/* Without a row the file is garbage, which the next start removes if this cannot. */
	if (r == 0)
		r = blob_files_remove(store->files, digest, err);
	digest_unlock(&store->locks, &lock);
	return r < 0 ? -1 : 0;
}

static int local_blob_open(void *self, struct ctx *ctx, const struct digest *digest, bool may_wait,
			   struct blob **ret_blob, uint64_t *ret_size_bytes, struct err *err)
{
	struct local *store = self;
	int r = blob_files_get(store->files, digest, may_wait, ret_blob, err);

	(void)ctx;
	if (r == 0)
		*ret_size_bytes = (*ret_blob)->size_bytes;
	return r;
}

static int local_read_at(void *self, struct blob *blob, uint64_t offset, void *buf, size_t size,
			 bool may_wait, struct err *err)
{
	(void)self;
	return blob_read(blob, offset, buf, size, may_wait, err);
}

static void local_blob_close(void *self, struct blob *blob)
{
	(void)self;
	blob_unref(blob);
}

/* --- ingests -------------------------------------------------------------------------------------- */

static int local_status(void *self, struct ctx *ctx, const char *ref, struct ingest_info *ret_info,
			struct err *err)
{
	struct local *store = self;

	return ingests_status(store->ingests, ctx, ref, ret_info, err);
}

static int local_walk_ingests(void *self, struct ctx *ctx, const struct filters *filters,
			      ingest_walk_fn fn, void *arg, struct err *err)
{
	struct local *store = self;

	(void)ctx;
	return ingests_walk(store->ingests, filters, fn, arg, err);
}

static int local_abort(void *self, struct ctx *ctx, const char *ref, struct err *err)
{
	struct local *store = self;

	(void)ctx;
	(void)err;
	ingests_abort(store->ingests, ref);
	return 0;
}

static int exists(const struct digest *digest, struct err *err)
{
	char text[DIGEST_TEXT_BYTES];

	return err_set(err, ERR_ALREADY_EXISTS, "content %s: already exists",
		       digest_format(digest, text));
}

static int local_ingest_open(void *self, struct ctx *ctx, const char *ref, uint64_t total_bytes,
			     const struct digest *expected, bool may_wait,
			     struct ingest **ret_ingest, struct err *err)
{
	struct local *store = self;

	if (content_ref_check(ref, err) < 0)
		return -1;
	return ingest_open(store->ingests, ctx, ref, total_bytes,
			   expected ? expected->algorithm : 0, may_wait, ret_ingest, err);
}

static int local_ingest_expect(void *self, struct ctx *ctx, struct ingest *ingest,
			       const struct digest *expected, struct err *err)
{
	struct local *store = self;
	uint64_t size_bytes;
	int r = blob_rows_size(store->rows, expected, &size_bytes, err);

	(void)ctx;
	if (r < 0)
		return -1;
	if (r > 0) {
		ingest_drop(ingest);
		return exists(expected, err);
	}
	ingest_expect(ingest, expected->algorithm);
	return 0;
}

static int local_ingest_state(void *self, struct ingest *ingest, struct ingest_info *ret_info,
			      struct digest *ret_digest, struct err *err)
{
	(void)self;
	return ingest_state(ingest, ret_info, ret_digest, err);
}

static int local_ingest_write(void *self, struct ctx *ctx, struct ingest *ingest, uint64_t offset,
			      const struct iovec *pieces, size_t n, bool may_wait, struct err *err)
{
	(void)self;
	(void)ctx;
	return ingest_write(ingest, offset, pieces, n, may_wait, err);
}

/* Without a row the file goes again; left over, it would go at the next start. */
static void undo_file(struct local *store, const struct digest *digest)
{
	struct err err;

	if (blob_files_remove(store->files, digest, &err) < 0)
		log_event(LOG_WARN, "the file of a failed commit stays", LOG_ERR(&err));
}

/* The row of a file that has its name. */
static int add_row(struct local *store, const struct blob_info *info, bool is_json, struct err *err)
{
	int (*barrier)(void *arg, struct err *err);
	void *arg;
	int r;

	barrier = blob_files_barrier(store->files, &info->digest, &arg);
	r = blob_rows_add(store->rows, info, is_json, barrier, arg, err);
	CRASH_POINT("commit.row-written");
	if (r < 0)
		undo_file(store, &info->digest);
	return r;
}

int local_publish(struct local *store, const struct blob_info *info, int dirfd, const char *name,
		  int fd, bool *ret_broken, struct err *err)
{
	const struct ingest_source source = {.size_bytes = info->size_bytes, .fd = fd};
	bool may_be_json = cataloger_may_be_json(&source);
	struct digest_lock lock;
	uint64_t size_bytes;
	int r;

	digest_lock(&store->locks, &info->digest, &lock);
	r = blob_rows_size(store->rows, &info->digest, &size_bytes, err);
	if (r == 0)
		r = blob_files_add(store->files, &info->digest, dirfd, name, fd, ret_broken, err);
	if (r == 0)
		r = add_row(store, info, may_be_json, err);
	if (r == 0 && may_be_json)
		cataloger_learn(store->cataloger, &info->digest, &source);
	digest_unlock(&store->locks, &lock);
	return r;
}

/* The same for a small blob, whose bytes are in memory alone; room for it is reserved. */
static int publish_small(struct local *store, const struct blob_info *info, const void *bytes,
			 struct err *err)
{
	const struct ingest_source source = {.size_bytes = info->size_bytes, .memory = bytes};
	bool may_be_json = cataloger_may_be_json(&source);
	size_t size = (size_t)info->size_bytes;
	CLEANUP(close_fd) int fd = -1;
	struct digest_lock lock;
	uint64_t size_bytes;
	int64_t id = 0;
	int r;

	digest_lock(&store->locks, &info->digest, &lock);
	r = blob_rows_size(store->rows, &info->digest, &size_bytes, err);
	if (r == 0)
		r = blob_files_write(store->files, &info->digest, bytes, size, &fd, err);
	CRASH_POINT("commit.file-written");
	if (r == 0) {
		r = blob_rows_add_bytes(store->rows, info, may_be_json, bytes, &id, err);
		CRASH_POINT("commit.row-written");
		if (r < 0)
			undo_file(store, &info->digest);
		else if (may_be_json)
			cataloger_learn(store->cataloger, &info->digest, &source);
	}
	digest_unlock(&store->locks, &lock);
	if (r == 0)
		late_sync_add(store->late, take_fd(&fd), id, size);
	else
		late_sync_release(store->late, size);
	return r;
}

struct commit {
	struct local *store;
	const struct ingest_commit *req;
};

static int make_blob(void *arg, const struct digest *digest, const struct ingest_source *source,
		     bool *ret_broken, struct err *err)
{
	struct commit *commit = arg;
	const struct blob_info info = {
		.digest = *digest,
		.size_bytes = source->size_bytes,
		.labels = commit->req->labels,
	};
	int r;

	if (!source->memory)
		r = local_publish(commit->store, &info, source->dirfd, source->name, source->fd,
				  ret_broken, err);
	else if (late_sync_reserve(commit->store->late, (size_t)source->size_bytes))
		r = publish_small(commit->store, &info, source->memory, err);
	else
		return INGEST_COMMIT_FROM_FILE;
	if (r > 0)
		(void)exists(digest, err);
	return r;
}

static int local_ingest_commit(void *self, struct ctx *ctx, struct ingest *ingest,
			       const struct ingest_commit *req, struct digest *ret_digest,
			       struct err *err)
{
	struct commit commit = {.store = self, .req = req};

	return ingest_commit(ingest, ctx, req, make_blob, &commit, ret_digest, err) == 0 ? 0 : -1;
}

static void local_ingest_close(void *self, struct ingest *ingest)
{
	(void)self;
	ingest_close(ingest);
}

const struct content_store_ops local_content_ops = {
	.name = "content",
	.summary = "Content store for containerd, out of process.",
	.options = content_options,
	.conf_size = sizeof(struct content_conf),
	.open = local_open,
	.close = local_close,
	.info = local_info,
	.update = local_update,
	.walk = local_walk,
	.remove = local_remove,
	.blob_open = local_blob_open,
	.read_at = local_read_at,
	.blob_close = local_blob_close,
	.status = local_status,
	.walk_ingests = local_walk_ingests,
	.abort = local_abort,
	.ingest_open = local_ingest_open,
	.ingest_expect = local_ingest_expect,
	.ingest_state = local_ingest_state,
	.ingest_write = local_ingest_write,
	.ingest_commit = local_ingest_commit,
	.ingest_close = local_ingest_close,
};
