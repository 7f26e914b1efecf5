/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/thread.h"
#include "snapshotters/overlay/id_set.h"
#include "snapshotters/overlay/layer_name.h"
#include "snapshotters/overlay/stock.h"

/**
 * struct layers - see layers.h
 * @sweeper: removes what an earlier run has left, while calls are served already
 * @stopping: tells it to end
 * @lock: guards @cleaning: one cleanup at a time, as two would trip over each other's entries
 */
struct layers {
	struct layer_dirs dirs;
	char *empty_path;
	struct metastore *store;
	struct stock *stock;
	pthread_t sweeper;
	bool sweeper_runs;
	atomic_bool stopping;

	pthread_mutex_t lock;
	pthread_cond_t cleaned;
	bool cleaning;
};

/*
 * Looked at in some tens of microseconds: what is committed has been written just before, and is in memory. Where it
 * is not, as after a restart between the two, the polling thread waits for a read of the disk for each of them at
 * worst; to leave all of them to a worker would cost every Commit of an image its wake-up.
 */
#define FEW_ENTRIES 16

/* --- opening and closing ------------------------------------------------------------------------- */

/* Far above what a store gives out in its life, and below what sqlite would take for negative. */
#define ID_MAX (INT64_MAX / 2)

/* The id that a directory's name stands for; 0 for any other name. */
static uint64_t parse_id(const char *name)
{
	uint64_t id = 0;

	if (name[0] < '1' || name[0] > '9')
		return 0;
	for (; *name; name++) {
		if (*name < '0' || *name > '9' || __builtin_mul_overflow(id, 10u, &id) ||
		    __builtin_add_overflow(id, (uint64_t)(*name - '0'), &id) || id > ID_MAX)
			return 0;
	}
	return id;
}

struct listing {
	struct id_set ids;
	char **others;
	size_t n_others;
};

static void listing_done(struct listing *listing)
{
	id_set_done(&listing->ids);
	for (size_t i = 0; i < listing->n_others; i++)
		free(listing->others[i]);
	free(listing->others);
}

static int list_entry(void *arg, const char *name, unsigned char type, struct err *err)
{
	struct listing *listing = arg;
	uint64_t id = parse_id(name);
	char **others;

	(void)type;
	if (id) {
		/* Directories come in hash order: append, and sort when all are here. */
		if (listing->ids.n == listing->ids.capacity) {
			size_t capacity = listing->ids.capacity ? listing->ids.capacity * 2 : 1024;
			uint64_t *ids = reallocarray(listing->ids.ids, capacity, sizeof(*ids));

			if (!ids)
				return err_sys(err, "list directories");
			listing->ids.ids = ids;
			listing->ids.capacity = capacity;
		}
		listing->ids.ids[listing->ids.n++] = id;
		return 0;
	}
	others = reallocarray(listing->others, listing->n_others + 1, sizeof(*others));
	if (!others)
		return err_sys(err, "list directories");
	listing->others = others;
	others[listing->n_others] = strdup(name);
	if (!others[listing->n_others])
		return err_sys(err, "list directories");
	listing->n_others++;
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static int list_layers(const struct layer_dir *dir, struct listing *listing, struct err *err)
{
	if (fs_each_entry(dir->fd, ".", list_entry, listing, err) < 0)
		return -1;
	if (listing->ids.n)
		qsort(listing->ids.ids, listing->ids.n, sizeof(*listing->ids.ids), compare_ids);
	return 0;
}

/*
 * A database that has never held a snapshot, beside layers that hold files, has been emptied or belongs
 * elsewhere. All of these would be garbage to it, so nothing is served before somebody has looked.
 */
static int refuse_strange_layers(struct layers *layers, const struct listing *listing,
				 struct err *err)
{
	char name[LAYER_NAME_MAX];

	for (size_t i = 0; i < listing->ids.n; i++) {
		int is_empty;

		layer_name(name, listing->ids.ids[i]);
		is_empty = fs_is_empty(layers->dirs.fs.fd, name, err);
		if (is_empty == 0)
			return err_set(err, ERR_FAILED_PRECONDITION,
				       "'%s/%s' holds files, but metadata.db has never known a "
				       "snapshot: bring back the database that belongs to it, or "
				       "remove the directories",
				       layers->dirs.fs.path, name);
		if (is_empty < 0)
			return -1;
	}
	return 0;
}

/* Ids on disk are not given out again, and every row must have its directory. */
static int take_stock(struct layers *layers, struct err *err)
{
	CLEANUP(listing_done) struct listing listing = {0};
	CLEANUP(listing_done) struct listing works = {0};
	CLEANUP(id_set_done) struct id_set rows = {0};
	size_t n_lost = 0;
	uint64_t lost = 0;

	if (list_layers(&layers->dirs.fs, &listing, err) < 0 ||
	    list_layers(&layers->dirs.work, &works, err) < 0 ||
	    metastore_ids(layers->store, &rows.ids, &rows.n, err) < 0)
		return -1;
	if (metastore_is_virgin(layers->store) && refuse_strange_layers(layers, &listing, err) < 0)
		return -1;
	if (listing.ids.n)
		metastore_skip_ids(layers->store, listing.ids.ids[listing.ids.n - 1]);
	if (works.ids.n)
		metastore_skip_ids(layers->store, works.ids.ids[works.ids.n - 1]);
	for (size_t i = 0; i < rows.n; i++) {
		if (!id_set_has(&listing.ids, rows.ids[i]) ||
		    !id_set_has(&works.ids, rows.ids[i])) {
			lost = rows.ids[i];
			n_lost++;
		}
	}
	if (n_lost)
		log_event(LOG_ERROR,
			  "snapshots have lost their directories: remove them, pull again",
			  LOG_INT("snapshots", (int64_t)n_lost), LOG_INT("last_id", (int64_t)lost),
			  LOG_STR("dir", layers->dirs.fs.path));
	return 0;
}

/* 0700: layers hold set-uid files of any age, and are for those who mount them alone. */
static int open_dir(const char *root, const char *name, struct layer_dir *dir, struct err *err)
{
	if (asprintf(&dir->path, "%s/%s", root, name) < 0) {
		dir->path = NULL;
		return err_sysno(err, ENOMEM, "open layers");
	}
	if (fs_make_dirs(dir->path, 0700, err) < 0)
		return -1;
	return fs_open_dir(AT_FDCWD, dir->path, &dir->fd, err);
}

int layers_check_root(const char *root, struct err *err)
{
	if (root[0] != '/')
		return err_set(err, ERR_INVALID_ARGUMENT, "root '%s' is not an absolute path",
			       root);
	/* Mount options separate paths by these, and containerd's mounter knows no escape. */
	if (strpbrk(root, ":,\\"))
		return err_set(
			err, ERR_INVALID_ARGUMENT,
			"root '%s' holds a ':', ',' or '\\', which mount options cannot carry",
			root);
	return 0;
}

static int make_paths(struct layers *layers, const char *root, struct err *err)
{
	if (asprintf(&layers->empty_path, "%s/empty", root) < 0) {
		layers->empty_path = NULL;
		return err_sysno(err, ENOMEM, "open layers");
	}
	if (fs_make_dirs(layers->empty_path, 0755, err) < 0 ||
	    open_dir(root, "work", &layers->dirs.work, err) < 0)
		return -1;
	return open_dir(root, "snapshots", &layers->dirs.fs, err);
}

/* Overlayfs wants both on one mount, and what is synced in the one must last in the other. */
static int check_one_file_system(const struct layer_dirs *dirs, struct err *err)
{
	struct stat fs, work;

	if (fstat(dirs->fs.fd, &fs) < 0 || fstat(dirs->work.fd, &work) < 0)
		return err_sys(err, "look at '%s'", dirs->fs.path);
	if (fs.st_dev != work.st_dev)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "'%s' and '%s' are not on one file system", dirs->fs.path,
			       dirs->work.path);
	return 0;
}

static void *sweeper_main(void *arg)
{
	struct layers *layers = arg;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &layers->stopping, .ns = ""};
	struct err err = ERR_INIT;

	if (layers_cleanup(layers, &ctx, &err) < 0 && !layers->stopping)
		log_event(LOG_WARN, "garbage of an earlier run stays until the next cleanup",
			  LOG_ERR(&err));
	return NULL;
}

static int start_threads(struct layers *layers, struct err *err)
{
	if (stock_start(layers->stock, err) < 0 ||
	    thread_start(&layers->sweeper, "sweeper", sweeper_main, layers, err) < 0)
		return -1;
	layers->sweeper_runs = true;
	return 0;
}

int layers_open(const char *root, struct metastore *store, struct layers **ret_layers,
		struct err *err)
{
	struct layers *layers = calloc(1, sizeof(*layers));

	if (!layers)
		return err_sys(err, "open layers");
	layers->dirs.fs.fd = -1;
	layers->dirs.work.fd = -1;
	layers->store = store;
	pthread_mutex_init(&layers->lock, NULL);
	thread_cond_init(&layers->cleaned);
	if (make_paths(layers, root, err) < 0 || check_one_file_system(&layers->dirs, err) < 0 ||
	    take_stock(layers, err) < 0 ||
	    stock_open(&layers->dirs, store, &layers->stock, err) < 0 ||
	    start_threads(layers, err) < 0) {
		layers_close(layers);
		return -1;
	}
	*ret_layers = layers;
	return 0;
}

void layers_close(struct layers *layers)
{
	if (!layers)
		return;
	layers->stopping = true;
	if (layers->sweeper_runs)
		pthread_join(layers->sweeper, NULL);
	stock_close(layers->stock);
	close_fd(&layers->dirs.fs.fd);
	close_fd(&layers->dirs.work.fd);
	pthread_cond_destroy(&layers->cleaned);
	pthread_mutex_destroy(&layers->lock);
	free(layers->empty_path);
	free(layers->dirs.fs.path);
	free(layers->dirs.work.path);
	free(layers);
}

/* --- taking -------------------------------------------------------------------------------------- */

int layers_take(struct layers *layers, const struct ctx *ctx, uint64_t *ret_id, struct err *err)
{
	return stock_take(layers->stock, ctx, ret_id, err);
}

bool layers_take_ready(struct layers *layers, uint64_t *ret_id)
{
	return stock_take_ready(layers->stock, ret_id);
}

void layers_keep(struct layers *layers, uint64_t id)
{
	stock_unmark(layers->stock, id);
}

void layers_drop(struct layers *layers, uint64_t id, bool clean)
{
	stock_drop(layers->stock, id, clean);
}

int layers_chown(struct layers *layers, uint64_t id, uid_t uid, gid_t gid, struct err *err)
{
	char name[LAYER_NAME_MAX];
	CLEANUP(close_fd) int fd = -1;

	layer_name(name, id);
	if (fs_open_dir(layers->dirs.fs.fd, name, &fd, err) < 0)
		return -1;
	if (fchown(fd, uid, gid) < 0)
		return err_sys(err, "give '%s/%s' to %u:%u", layers->dirs.fs.path, name, uid, gid);
	return fs_sync(fd, name, err);
}

/* --- what is there ------------------------------------------------------------------------------- */

int layers_owner(struct layers *layers, uint64_t id, uid_t *ret_uid, gid_t *ret_gid,
		 struct err *err)
{
	char name[LAYER_NAME_MAX];
	struct stat st;

	layer_name(name, id);
	if (fstatat(layers->dirs.fs.fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, "look at '%s/%s'", layers->dirs.fs.path, name);
	*ret_uid = st.st_uid;
	*ret_gid = st.st_gid;
	return 0;
}

static int report_usage(struct layers *layers, const char *name, int counted,
			const struct fs_usage *usage, struct usage *ret_usage, struct err *err)
{
	if (counted < 0)
		return err_wrap(err, "disk usage of '%s/%s'", layers->dirs.fs.path, name);
	if (counted == 0)
		*ret_usage = (struct usage){usage->size_bytes, usage->inodes};
	return counted;
}

int layers_usage(struct layers *layers, const struct ctx *ctx, uint64_t id, struct usage *ret_usage,
		 struct err *err)
{
	char name[LAYER_NAME_MAX];
	struct fs_usage usage = {0};

	layer_name(name, id);
	return report_usage(layers, name, fs_disk_usage(ctx, layers->dirs.fs.fd, name, &usage, err),
			    &usage, ret_usage, err);
}

int layers_usage_of_few(struct layers *layers, uint64_t id, struct usage *ret_usage,
			struct err *err)
{
	char name[LAYER_NAME_MAX];
	struct fs_usage usage = {0};

	layer_name(name, id);
	return report_usage(layers, name,
			    fs_disk_usage_of_few(layers->dirs.fs.fd, name, FEW_ENTRIES, &usage,
						 err),
			    &usage, ret_usage, err);
}

static const char *layer_path(const struct layer_dir *dir, struct arena *arena, uint64_t id)
{
	return arena_printf(arena, "%s/%" PRIu64, dir->path, id);
}

const char *layers_fs_path(const struct layers *layers, struct arena *arena, uint64_t id)
{
	return layer_path(&layers->dirs.fs, arena, id);
}

const char *layers_work_path(const struct layers *layers, struct arena *arena, uint64_t id)
{
	return layer_path(&layers->dirs.work, arena, id);
}

const char *layers_empty_path(const struct layers *layers)
{
	return layers->empty_path;
}

/* --- removing ------------------------------------------------------------------------------------ */

int layers_remove(struct layers *layers, const struct ctx *ctx, uint64_t id, struct err *err)
{
	char name[LAYER_NAME_MAX];
	int result;

	/* Marked as busy, a cleanup at the same time leaves it to us. */
	if (!stock_mark(layers->stock, id))
		return err_sysno(err, ENOMEM, "remove layer %" PRIu64, id);
	layer_name(name, id);
	CRASH_POINT("remove.before-directory");
	result = fs_remove_tree(ctx, layers->dirs.fs.fd, name, err);
	if (result == 0)
		result = fs_remove_tree(ctx, layers->dirs.work.fd, name, err);
	CRASH_POINT("remove.directory-gone");
	stock_unmark(layers->stock, id);
	return result;
}

/* How often a waiting call looks whether its caller has gone. */
#define WAIT_SLICE_NS 100000000

static int begin_cleanup(struct layers *layers, const struct ctx *ctx, struct err *err)
{
	LOCK_GUARD(&layers->lock);

	while (layers->cleaning) {
		struct timespec until = monotonic_in(WAIT_SLICE_NS);

		if (ctx_check(ctx, err) < 0)
			return -1;
		pthread_cond_timedwait(&layers->cleaned, &layers->lock, &until);
	}
	layers->cleaning = true;
	return 0;
}

static void end_cleanup(struct layers *layers)
{
	LOCK_GUARD(&layers->lock);

	layers->cleaning = false;
	pthread_cond_signal(&layers->cleaned);
}

/**
 * struct sweep - one cleanup
 * @first: why the first of @n_failed could not be removed
 */
struct sweep {
	const struct ctx *ctx;
	size_t n_removed;
	size_t n_failed;
	struct err first;
};

static void remove_entry(struct sweep *sweep, const struct layer_dir *dir, const char *name)
{
	struct err failure = ERR_INIT;

	if (fs_remove_tree(sweep->ctx, dir->fd, name, &failure) == 0)
		sweep->n_removed++;
	else if (sweep->n_failed++ == 0)
		sweep->first = failure;
}

static int remove_garbage_of(struct layers *layers, const struct layer_dir *dir,
			     struct sweep *sweep, struct err *err)
{
	CLEANUP(listing_done) struct listing listing = {0};
	CLEANUP(id_set_done) struct id_set busy = {0};
	CLEANUP(id_set_done) struct id_set rows = {0};
	char name[LAYER_NAME_MAX];

	/*
	 * The order matters: a directory goes from busy to its row, never back. One that is listed here and
	 * was about to be put to use stands in the one or the other when these are read, in this order.
	 */
	if (list_layers(dir, &listing, err) < 0)
		return -1;
	if (!stock_copy_busy(layers->stock, &busy))
		return err_sysno(err, ENOMEM, "list directories in use");
	if (metastore_ids(layers->store, &rows.ids, &rows.n, err) < 0)
		return -1;
	for (size_t i = 0; i < listing.ids.n; i++) {
		uint64_t id = listing.ids.ids[i];

		if (id_set_has(&rows, id) || id_set_has(&busy, id))
			continue;
		if (ctx_check(sweep->ctx, err) < 0)
			return -1;
		layer_name(name, id);
		CRASH_POINT("cleanup.before-directory");
		remove_entry(sweep, dir, name);
		CRASH_POINT("cleanup.directory-gone");
	}
	for (size_t i = 0; i < listing.n_others; i++) {
		if (ctx_check(sweep->ctx, err) < 0)
			return -1;
		remove_entry(sweep, dir, listing.others[i]);
	}
	return 0;
}

static int remove_garbage(struct layers *layers, const struct ctx *ctx, struct err *err)
{
	struct sweep sweep = {.ctx = ctx, .first = ERR_INIT};

	if (remove_garbage_of(layers, &layers->dirs.fs, &sweep, err) < 0 ||
	    remove_garbage_of(layers, &layers->dirs.work, &sweep, err) < 0)
		return -1;
	if (sweep.n_removed)
		log_event(LOG_DEBUG, "cleaned up",
			  LOG_INT("directories", (int64_t)sweep.n_removed));
	if (sweep.n_failed) {
		*err = sweep.first;
		return err_wrap(err, "%zu of %zu unused directories cannot be removed",
				sweep.n_failed, sweep.n_failed + sweep.n_removed);
	}
	return 0;
}

int layers_cleanup(struct layers *layers, const struct ctx *ctx, struct err *err)
{
	int result;

	if (begin_cleanup(layers, ctx, err) < 0)
		return -1;
	result = remove_garbage(layers, ctx, err);
	end_cleanup(layers);
	return result;
}
