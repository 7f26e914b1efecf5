/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/log.h"
#include "snapshotters/overlay/id_set.h"

/* Refill when this many are missing: few journal commits, each for many directories. */
#define REFILL_BELOW   (LAYERS_SPARES_MAX - 16)
#define BATCH_MIN      8
#define BATCH_MAX      32
/* How often a waiting call looks whether its caller has gone. */
#define WAIT_SLICE_NS  100000000
/* "18446744073709551615/work" */
#define LAYER_NAME_MAX 32

/**
 * struct layers - see layers.h
 * @fd: <root>/snapshots
 * @ordered: one fsync makes everything durable that was done before it (see is_ordered())
 * @lock: guards what is below it
 * @wanted: the maker has something to do; @made: it has done something, or a cleanup ended
 * @spares: a stack of ids ready to be taken
 * @busy: ids whose directories may exist without a row: spares, taken ones, ones being made or removed
 * @n_rounds: how often the maker has tried; @round_err: what became of the last try
 */
struct layers {
	char *path;
	char *empty_path;
	int fd;
	bool ordered;
	struct metastore *store;
	pthread_t maker;
	bool maker_runs;
	atomic_bool stopping;

	pthread_mutex_t lock;
	pthread_cond_t wanted;
	pthread_cond_t made;
	uint64_t spares[LAYERS_SPARES_MAX];
	size_t n_spares;
	struct id_set busy;
	unsigned int n_waiters;
	uint64_t n_rounds;
	struct err round_err;
	bool cleaning;
};

static void layer_name(char *name, uint64_t id, const char *part)
{
	snprintf(name, LAYER_NAME_MAX, "%" PRIu64 "%s", id, part);
}

/* --- making directories durable ------------------------------------------------------------------ */

/* Has the ext4 on @dev a journal? jbd2 shows each of its journals as /proc/fs/jbd2/<disk>-<inode>. */
static bool has_ext4_journal(dev_t dev)
{
	char link[64], target[512];
	const char *disk;
	ssize_t len;
	CLEANUP(close_dir) DIR *dir = NULL;
	struct dirent *entry;

	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	len = readlink(link, target, sizeof(target) - 1);
	dir = opendir("/proc/fs/jbd2");
	if (len < 0 || !dir)
		return false;
	target[len] = '\0';
	disk = strrchr(target, '/');
	disk = disk ? disk + 1 : target;
	while ((entry = readdir(dir))) {
		size_t n = strlen(disk);

		if (strncmp(entry->d_name, disk, n) == 0 && entry->d_name[n] == '-')
			return true;
	}
	return false;
}

/*
 * ext4 and xfs commit their metadata in the order in which it was changed: an fsync of the directory that
 * was changed last covers every mkdir before it (kernel, Documentation/filesystems/ext4/journal.rst;
 * xfs-delayed-logging-design.rst). Elsewhere every directory is synced by itself.
 */
static bool is_ordered(int fd)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0)
		return false;
	if ((unsigned long)fs.f_type == XFS_SUPER_MAGIC)
		return true;
	return (unsigned long)fs.f_type == EXT4_SUPER_MAGIC && has_ext4_journal(st.st_dev);
}

static int sync_dir(struct layers *layers, uint64_t id, const char *part, struct err *err)
{
	char name[LAYER_NAME_MAX];
	CLEANUP(close_fd) int fd = -1;

	layer_name(name, id, part);
	if (fs_open_dir(layers->fd, name, &fd, err) < 0)
		return -1;
	return fs_sync(fd, name, err);
}

static int sync_batch(struct layers *layers, const uint64_t *ids, size_t n, struct err *err)
{
	for (size_t i = layers->ordered ? n - 1 : 0; i < n; i++) {
		if (!layers->ordered && (sync_dir(layers, ids[i], "/fs", err) < 0 ||
					 sync_dir(layers, ids[i], "/work", err) < 0))
			return -1;
		if (sync_dir(layers, ids[i], "", err) < 0)
			return -1;
	}
	if (layers->ordered)
		return 0;
	return fs_sync(layers->fd, layers->path, err);
}

static int make_dir(struct layers *layers, const char *name, mode_t mode, struct err *err)
{
	/* chmod, since the mode must not depend on the umask of whoever started us. */
	if (mkdirat(layers->fd, name, mode) < 0 || fchmodat(layers->fd, name, mode, 0) < 0)
		return err_sys(err, "make directory '%s/%s'", layers->path, name);
	return 0;
}

static int make_layer(struct layers *layers, uint64_t id, struct err *err)
{
	char name[LAYER_NAME_MAX];

	layer_name(name, id, "");
	if (make_dir(layers, name, 0700, err) < 0)
		return -1;
	CRASH_POINT("spares.directory-made");
	layer_name(name, id, "/fs");
	if (make_dir(layers, name, 0755, err) < 0)
		return -1;
	layer_name(name, id, "/work");
	return make_dir(layers, name, 0711, err);
}

/* Removes an empty layer, or what there is of one. Whatever stays is garbage, for the next cleanup. */
static void remove_spare(struct layers *layers, uint64_t id)
{
	static const char *const parts[] = {"/work", "/fs", ""};
	char name[LAYER_NAME_MAX];

	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		layer_name(name, id, parts[i]);
		if (unlinkat(layers->fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
			log_event(LOG_WARN, "a spare directory stays until the next cleanup",
				  LOG_STR("dir", name), LOG_STR("error", strerror(errno)));
	}
}

/* --- the maker ----------------------------------------------------------------------------------- */

static int make_batch(struct layers *layers, uint64_t first, size_t n, struct err *err)
{
	uint64_t ids[BATCH_MAX];

	for (size_t i = 0; i < n; i++) {
		ids[i] = first + i;
		if (make_layer(layers, ids[i], err) < 0)
			return -1;
	}
	CRASH_POINT("spares.made");
	if (sync_batch(layers, ids, n, err) < 0)
		return -1;
	CRASH_POINT("spares.synced");
	return 0;
}

/* Called with the lock held; it is free while directories are made. */
static void refill(struct layers *layers)
{
	size_t missing = LAYERS_SPARES_MAX - layers->n_spares, n = missing, n_marked = 0;
	struct err err = ERR_INIT;
	uint64_t first;
	int result = 0;

	if (n > BATCH_MAX)
		n = BATCH_MAX;
	/* Somebody waits: a smaller batch comes sooner. */
	if (layers->n_waiters && n > 2 * layers->n_waiters)
		n = 2 * layers->n_waiters > BATCH_MIN ? 2 * layers->n_waiters : BATCH_MIN;
	if (n > missing)
		n = missing;

	first = metastore_reserve_ids(layers->store, (unsigned int)n);
	while (n_marked < n && id_set_add(&layers->busy, first + n_marked))
		n_marked++;
	if (n_marked < n)
		result = err_sysno(&err, ENOMEM, "make spare directories");

	if (result == 0) {
		pthread_mutex_unlock(&layers->lock);
		result = make_batch(layers, first, n, &err);
		if (result < 0)
			for (size_t i = 0; i < n; i++)
				remove_spare(layers, first + i);
		pthread_mutex_lock(&layers->lock);
	}
	for (size_t i = 0; i < n_marked; i++) {
		/* Calls that were given up may have refilled the stock meanwhile: then these are garbage. */
		if (result == 0 && layers->n_spares < LAYERS_SPARES_MAX)
			layers->spares[layers->n_spares++] = first + i;
		else
			id_set_remove(&layers->busy, first + i);
	}
	layers->round_err = err;
	layers->n_rounds++;
	pthread_cond_broadcast(&layers->made);
}

static void *maker_main(void *arg)
{
	struct layers *layers = arg;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &layers->stopping, .ns = ""};
	struct err err = ERR_INIT;

	pthread_setname_np(pthread_self(), "layers");
	pthread_mutex_lock(&layers->lock);
	while (!layers->stopping && layers->n_spares < LAYERS_SPARES_MAX) {
		refill(layers);
		if (layers->round_err.code != ERR_OK)
			break;
	}
	pthread_mutex_unlock(&layers->lock);

	if (layers_cleanup(layers, &ctx, &err) < 0 && !layers->stopping)
		log_event(LOG_WARN, "garbage of an earlier run stays until the next cleanup",
			  LOG_ERR(&err));

	pthread_mutex_lock(&layers->lock);
	while (!layers->stopping) {
		/*
		 * After a failure only a caller who needs one makes us try again: an idle daemon on a full
		 * disk does not spin, and the first call after room was made succeeds.
		 */
		bool failed = layers->round_err.code != ERR_OK;

		if (layers->n_waiters || (layers->n_spares < REFILL_BELOW && !failed))
			refill(layers);
		else
			pthread_cond_wait(&layers->wanted, &layers->lock);
	}
	pthread_mutex_unlock(&layers->lock);
	return NULL;
}

static int start_maker(struct layers *layers, struct err *err)
{
	sigset_t all, before;
	int failed;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	failed = pthread_create(&layers->maker, NULL, maker_main, layers);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		return err_sysno(err, failed, "start the thread that makes directories");
	layers->maker_runs = true;
	return 0;
}

/* --- opening and closing ------------------------------------------------------------------------- */

/* The id that a directory's name stands for; 0 for any other name. */
static uint64_t parse_id(const char *name)
{
	uint64_t id = 0;

	if (name[0] < '1' || name[0] > '9')
		return 0;
	for (; *name; name++) {
		if (*name < '0' || *name > '9' || __builtin_mul_overflow(id, 10u, &id) ||
		    __builtin_add_overflow(id, (uint64_t)(*name - '0'), &id))
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

static int list_layers(struct layers *layers, struct listing *listing, struct err *err)
{
	if (fs_each_entry(layers->fd, ".", list_entry, listing, err) < 0)
		return -1;
	if (listing->ids.n)
		qsort(listing->ids.ids, listing->ids.n, sizeof(*listing->ids.ids), compare_ids);
	return 0;
}

/* Ids on disk are not given out again, and every row must have its directory. */
static int take_stock(struct layers *layers, struct err *err)
{
	CLEANUP(listing_done) struct listing listing = {0};
	CLEANUP(id_set_done) struct id_set rows = {0};
	size_t n_lost = 0;
	uint64_t lost = 0;

	if (list_layers(layers, &listing, err) < 0 ||
	    metastore_ids(layers->store, &rows.ids, &rows.n, err) < 0)
		return -1;
	if (listing.ids.n)
		metastore_skip_ids(layers->store, listing.ids.ids[listing.ids.n - 1]);
	for (size_t i = 0; i < rows.n; i++) {
		if (!id_set_has(&listing.ids, rows.ids[i])) {
			lost = rows.ids[i];
			n_lost++;
		}
	}
	if (n_lost)
		log_event(LOG_ERROR,
			  "snapshots have lost their directories: remove them, pull again",
			  LOG_INT("snapshots", (int64_t)n_lost), LOG_INT("last_id", (int64_t)lost),
			  LOG_STR("dir", layers->path));
	return 0;
}

static int make_paths(struct layers *layers, const char *root, struct err *err)
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
	if (asprintf(&layers->path, "%s/snapshots", root) < 0) {
		layers->path = NULL;
		return err_sysno(err, ENOMEM, "open layers");
	}
	if (asprintf(&layers->empty_path, "%s/empty", root) < 0) {
		layers->empty_path = NULL;
		return err_sysno(err, ENOMEM, "open layers");
	}
	/* 0700: layers hold set-uid files of any age, and are for those who mount them alone. */
	if (fs_make_dirs(layers->path, 0700, err) < 0 ||
	    fs_make_dirs(layers->empty_path, 0755, err) < 0)
		return -1;
	return fs_open_dir(AT_FDCWD, layers->path, &layers->fd, err);
}

int layers_open(const char *root, struct metastore *store, struct layers **ret_layers,
		struct err *err)
{
	struct layers *layers = calloc(1, sizeof(*layers));
	pthread_condattr_t monotonic;

	if (!layers)
		return err_sys(err, "open layers");
	layers->fd = -1;
	layers->store = store;
	pthread_mutex_init(&layers->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&layers->wanted, &monotonic);
	pthread_cond_init(&layers->made, &monotonic);
	pthread_condattr_destroy(&monotonic);

	if (make_paths(layers, root, err) < 0 || take_stock(layers, err) < 0)
		goto fail;
	layers->ordered = is_ordered(layers->fd);
	if (start_maker(layers, err) < 0)
		goto fail;
	*ret_layers = layers;
	return 0;

fail:
	layers_close(layers);
	return -1;
}

void layers_close(struct layers *layers)
{
	if (!layers)
		return;
	if (layers->maker_runs) {
		pthread_mutex_lock(&layers->lock);
		layers->stopping = true;
		pthread_cond_signal(&layers->wanted);
		pthread_mutex_unlock(&layers->lock);
		pthread_join(layers->maker, NULL);
	}
	for (size_t i = 0; i < layers->n_spares; i++)
		remove_spare(layers, layers->spares[i]);
	if (layers->fd >= 0)
		close(layers->fd);
	id_set_done(&layers->busy);
	pthread_cond_destroy(&layers->made);
	pthread_cond_destroy(&layers->wanted);
	pthread_mutex_destroy(&layers->lock);
	free(layers->empty_path);
	free(layers->path);
	free(layers);
}

/* --- taking -------------------------------------------------------------------------------------- */

/* Waits for @made for a moment, with the lock held. */
static void wait_a_slice(struct layers *layers)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += WAIT_SLICE_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&layers->made, &layers->lock, &until);
}

int layers_take(struct layers *layers, const struct ctx *ctx, uint64_t *ret_id, struct err *err)
{
	LOCK_GUARD(&layers->lock);
	uint64_t round = layers->n_rounds;

	while (!layers->n_spares) {
		/* A round that was under way when we came may have failed before there was room. */
		if (layers->n_rounds >= round + 2 && layers->round_err.code != ERR_OK) {
			*err = layers->round_err;
			return err_wrap(err, "no directory for a new snapshot");
		}
		if (ctx_check(ctx, err) < 0)
			return -1;
		layers->n_waiters++;
		pthread_cond_signal(&layers->wanted);
		wait_a_slice(layers);
		layers->n_waiters--;
	}
	*ret_id = layers->spares[--layers->n_spares];
	if (layers->n_spares < REFILL_BELOW)
		pthread_cond_signal(&layers->wanted);
	return 0;
}

int layers_chown(struct layers *layers, uint64_t id, uid_t uid, gid_t gid, struct err *err)
{
	char name[LAYER_NAME_MAX];
	CLEANUP(close_fd) int fd = -1;

	layer_name(name, id, "/fs");
	if (fs_open_dir(layers->fd, name, &fd, err) < 0)
		return -1;
	if (fchown(fd, uid, gid) < 0)
		return err_sys(err, "give '%s/%s' to %u:%u", layers->path, name, uid, gid);
	return fs_sync(fd, name, err);
}

static void set_idle(struct layers *layers, uint64_t id)
{
	LOCK_GUARD(&layers->lock);

	id_set_remove(&layers->busy, id);
}

void layers_keep(struct layers *layers, uint64_t id)
{
	set_idle(layers, id);
}

void layers_drop(struct layers *layers, uint64_t id, bool clean)
{
	if (clean) {
		LOCK_GUARD(&layers->lock);

		if (layers->n_spares < LAYERS_SPARES_MAX) {
			layers->spares[layers->n_spares++] = id;
			pthread_cond_signal(&layers->made);
			return;
		}
	}
	remove_spare(layers, id);
	set_idle(layers, id);
}

/* --- what is there ------------------------------------------------------------------------------- */

int layers_owner(struct layers *layers, uint64_t id, uid_t *ret_uid, gid_t *ret_gid,
		 struct err *err)
{
	char name[LAYER_NAME_MAX];
	struct stat st;

	layer_name(name, id, "/fs");
	if (fstatat(layers->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, "look at '%s/%s'", layers->path, name);
	*ret_uid = st.st_uid;
	*ret_gid = st.st_gid;
	return 0;
}

int layers_usage(struct layers *layers, const struct ctx *ctx, uint64_t id, struct usage *ret_usage,
		 struct err *err)
{
	char name[LAYER_NAME_MAX];
	struct fs_usage usage;

	layer_name(name, id, "/fs");
	if (fs_disk_usage(ctx, layers->fd, name, &usage, err) < 0)
		return err_wrap(err, "disk usage of '%s/%s'", layers->path, name);
	ret_usage->size_bytes = usage.size_bytes;
	ret_usage->inodes = usage.inodes;
	return 0;
}

static const char *layer_path(const struct layers *layers, struct arena *arena, uint64_t id,
			      const char *part)
{
	return arena_printf(arena, "%s/%" PRIu64 "/%s", layers->path, id, part);
}

const char *layers_fs_path(const struct layers *layers, struct arena *arena, uint64_t id)
{
	return layer_path(layers, arena, id, "fs");
}

const char *layers_work_path(const struct layers *layers, struct arena *arena, uint64_t id)
{
	return layer_path(layers, arena, id, "work");
}

const char *layers_empty_path(const struct layers *layers)
{
	return layers->empty_path;
}

/* --- removing ------------------------------------------------------------------------------------ */

int layers_remove(struct layers *layers, const struct ctx *ctx, uint64_t id, struct err *err)
{
	char name[LAYER_NAME_MAX];
	bool marked;
	int result;

	/* Marked as busy, a cleanup at the same time leaves it to us. */
	pthread_mutex_lock(&layers->lock);
	marked = id_set_add(&layers->busy, id);
	pthread_mutex_unlock(&layers->lock);
	if (!marked)
		return err_sysno(err, ENOMEM, "remove layer %" PRIu64, id);
	layer_name(name, id, "");
	CRASH_POINT("remove.before-directory");
	result = fs_remove_tree(ctx, layers->fd, name, err);
	CRASH_POINT("remove.directory-gone");
	set_idle(layers, id);
	return result;
}

/* One cleanup at a time: two would trip over each other's entries. */
static int begin_cleanup(struct layers *layers, const struct ctx *ctx, struct err *err)
{
	LOCK_GUARD(&layers->lock);

	while (layers->cleaning) {
		if (ctx_check(ctx, err) < 0)
			return -1;
		wait_a_slice(layers);
	}
	layers->cleaning = true;
	return 0;
}

static void end_cleanup(struct layers *layers)
{
	LOCK_GUARD(&layers->lock);

	layers->cleaning = false;
	pthread_cond_broadcast(&layers->made);
}

static void note_failure(size_t *n_failed, struct err *first, const struct err *failure)
{
	if ((*n_failed)++ == 0)
		*first = *failure;
}

static int copy_busy(struct layers *layers, struct id_set *ret_busy, struct err *err)
{
	LOCK_GUARD(&layers->lock);

	if (!id_set_copy(ret_busy, &layers->busy))
		return err_sysno(err, ENOMEM, "list directories in use");
	return 0;
}

static int remove_garbage(struct layers *layers, const struct ctx *ctx, struct err *err)
{
	CLEANUP(listing_done) struct listing listing = {0};
	CLEANUP(id_set_done) struct id_set busy = {0};
	CLEANUP(id_set_done) struct id_set rows = {0};
	struct err failure = ERR_INIT, first = ERR_INIT;
	size_t n_failed = 0, n_removed = 0;
	char name[LAYER_NAME_MAX];

	/*
	 * The order matters: a directory goes from busy to its row, never back. One that is listed here and
	 * was about to be put to use stands in the one or the other when these are read, in this order.
	 */
	if (list_layers(layers, &listing, err) < 0 || copy_busy(layers, &busy, err) < 0 ||
	    metastore_ids(layers->store, &rows.ids, &rows.n, err) < 0)
		return -1;
	for (size_t i = 0; i < listing.ids.n; i++) {
		uint64_t id = listing.ids.ids[i];

		if (id_set_has(&rows, id) || id_set_has(&busy, id))
			continue;
		if (ctx_check(ctx, err) < 0)
			return -1;
		layer_name(name, id, "");
		CRASH_POINT("cleanup.before-directory");
		if (fs_remove_tree(ctx, layers->fd, name, &failure) < 0)
			note_failure(&n_failed, &first, &failure);
		else
			n_removed++;
		CRASH_POINT("cleanup.directory-gone");
	}
	for (size_t i = 0; i < listing.n_others; i++) {
		if (ctx_check(ctx, err) < 0)
			return -1;
		if (fs_remove_tree(ctx, layers->fd, listing.others[i], &failure) < 0)
			note_failure(&n_failed, &first, &failure);
		else
			n_removed++;
	}
	if (n_removed)
		log_event(LOG_DEBUG, "cleaned up", LOG_INT("directories", (int64_t)n_removed));
	if (n_failed) {
		*err = first;
		return err_wrap(err, "%zu of %zu unused directories cannot be removed", n_failed,
				n_failed + n_removed);
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
