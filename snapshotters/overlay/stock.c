/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/stock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/thread.h"
#include "snapshotters/overlay/layer_name.h"

/* Refill when this many are missing: few journal commits, each for many directories. */
#define REFILL_BELOW         (STOCK_SPARES_MAX - 16)
#define BATCH_MIN            8
#define BATCH_MAX            32
/* syncfs() of this much takes some tenths of a second on a slow disk. */
#define SYNCFS_MAX_DIRTY_KIB (32 * 1024)
/* How often a waiting call looks whether its caller has gone. */
#define WAIT_SLICE_NS        100000000

/**
 * struct stock - see stock.h
 * @dirs: borrowed
 * @ordered: one fsync makes everything durable that was done before it (see fs_is_ordered())
 * @lock: guards what is below it
 * @wanted: the maker has something to do; @made: it has done something
 * @spares: a stack of ids ready to be taken
 * @busy: ids whose directories may exist without a row: spares, taken ones, ones being made or removed
 * @unwanted: those of them that came back and cannot be taken again; the maker removes them
 * @n_rounds: how often the maker has tried; @round_err: what became of the last try
 */
struct stock {
	const struct layer_dirs *dirs;
	bool ordered;
	struct metastore *store;
	pthread_t maker;
	bool maker_runs;

	pthread_mutex_t lock;
	pthread_cond_t wanted;
	pthread_cond_t made;
	bool stopping;
	uint64_t spares[STOCK_SPARES_MAX];
	size_t n_spares;
	struct id_set busy;
	struct id_set unwanted;
	unsigned int n_waiters;
	uint64_t n_rounds;
	struct err round_err;
};

/* --- making directories durable ------------------------------------------------------------------ */

static int sync_layer(const struct layer_dir *dir, uint64_t id, struct err *err)
{
	char name[LAYER_NAME_MAX];
	CLEANUP(close_fd) int fd = -1;

	layer_name(name, id);
	if (fs_open_dir(dir->fd, name, &fd, err) < 0)
		return -1;
	return fs_sync(fd, name, err);
}

/* Is there so little unwritten data on the machine that writing all of it is soon done? */
static bool is_little_dirty(void)
{
	static const char field[] = "\nDirty:";
	CLEANUP(free_ptr) char *text = NULL;
	struct err err = ERR_INIT;
	const char *line;
	size_t size;

	if (fs_read_file(AT_FDCWD, "/proc/meminfo", 65536, &text, &size, &err) < 0)
		return false;
	line = strstr(text, field);
	return line && strtoul(line + strlen(field), NULL, 10) < SYNCFS_MAX_DIRTY_KIB;
}

static int sync_each(struct stock *stock, const uint64_t *ids, size_t n, struct err *err)
{
	const struct layer_dirs *dirs = stock->dirs;

	for (size_t i = 0; i < n; i++)
		if (sync_layer(&dirs->fs, ids[i], err) < 0 ||
		    sync_layer(&dirs->work, ids[i], err) < 0)
			return -1;
	if (fs_sync(dirs->work.fd, dirs->work.path, err) < 0)
		return -1;
	return fs_sync(dirs->fs.fd, dirs->fs.path, err);
}

/*
 * One journal commit where there is a journal. Elsewhere (ext4 without one, btrfs, ...) one syncfs() is the
 * cheapest way to a whole batch, but it also writes what others have left unwritten on that file system: where
 * that may be much, each directory is synced by itself.
 */
static int sync_batch(struct stock *stock, const uint64_t *ids, size_t n, struct err *err)
{
	if (stock->ordered)
		return sync_layer(&stock->dirs->fs, ids[n - 1], err);
	if (n > 1 && is_little_dirty()) {
		if (syncfs(stock->dirs->fs.fd) < 0)
			return err_sys(err, "sync the file system of '%s'", stock->dirs->fs.path);
		return 0;
	}
	return sync_each(stock, ids, n, err);
}

static int make_dir(const struct layer_dir *dir, const char *name, mode_t mode, struct err *err)
{
	if (mkdirat(dir->fd, name, mode) < 0)
		return err_sys(err, "make directory '%s/%s'", dir->path, name);
	return 0;
}

/* The one that is synced for all of them is made last. */
static int make_layer(struct stock *stock, uint64_t id, struct err *err)
{
	char name[LAYER_NAME_MAX];

	layer_name(name, id);
	if (make_dir(&stock->dirs->work, name, 0711, err) < 0)
		return -1;
	CRASH_POINT("spares.directory-made");
	return make_dir(&stock->dirs->fs, name, 0755, err);
}

static void remove_dir(const struct layer_dir *dir, const char *name)
{
	struct err err = ERR_INIT;

	if (unlinkat(dir->fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return;
	err_sys(&err, "remove '%s/%s'", dir->path, name);
	log_event(LOG_WARN, "a spare directory stays until the next cleanup", LOG_ERR(&err));
}

/* Removes an empty layer, or what there is of one. Whatever stays is garbage, for the next cleanup. */
static void remove_spare(struct stock *stock, uint64_t id)
{
	char name[LAYER_NAME_MAX];

	layer_name(name, id);
	remove_dir(&stock->dirs->fs, name);
	remove_dir(&stock->dirs->work, name);
}

/* --- the maker ----------------------------------------------------------------------------------- */

static int make_batch(struct stock *stock, uint64_t first, size_t n, struct err *err)
{
	uint64_t ids[BATCH_MAX];

	for (size_t i = 0; i < n; i++) {
		ids[i] = first + i;
		if (make_layer(stock, ids[i], err) < 0)
			return -1;
	}
	CRASH_POINT("spares.made");
	if (sync_batch(stock, ids, n, err) < 0)
		return -1;
	CRASH_POINT("spares.synced");
	return 0;
}

/* Called with the lock held; it is free while directories are made. */
static void refill(struct stock *stock)
{
	size_t missing = STOCK_SPARES_MAX - stock->n_spares, n = missing, n_marked = 0, n_used = 0;
	struct err err = ERR_INIT;
	uint64_t first;
	int result = 0;

	if (n > BATCH_MAX)
		n = BATCH_MAX;
	/* Somebody waits: a smaller batch comes sooner. */
	if (stock->n_waiters && n > 2 * stock->n_waiters)
		n = 2 * stock->n_waiters > BATCH_MIN ? 2 * stock->n_waiters : BATCH_MIN;
	if (n > missing)
		n = missing;

	assert(n > 0);
	first = metastore_reserve_ids(stock->store, (unsigned int)n);
	while (n_marked < n && id_set_add(&stock->busy, first + n_marked))
		n_marked++;
	if (n_marked < n)
		result = err_sysno(&err, ENOMEM, "make spare directories");

	if (result == 0) {
		pthread_mutex_unlock(&stock->lock);
		result = make_batch(stock, first, n, &err);
		if (result < 0)
			for (size_t i = 0; i < n; i++)
				remove_spare(stock, first + i);
		pthread_mutex_lock(&stock->lock);
	}
	while (result == 0 && n_used < n && stock->n_spares < STOCK_SPARES_MAX)
		stock->spares[stock->n_spares++] = first + n_used++;
	/* Calls that were given up have refilled the stock meanwhile. */
	if (result == 0 && n_used < n) {
		pthread_mutex_unlock(&stock->lock);
		for (size_t i = n_used; i < n; i++)
			remove_spare(stock, first + i);
		pthread_mutex_lock(&stock->lock);
	}
	for (size_t i = n_used; i < n_marked; i++)
		id_set_remove(&stock->busy, first + i);
	stock->round_err = err;
	stock->n_rounds++;
	pthread_cond_broadcast(&stock->made);
}

/* Called with the lock held; it is free while directories are removed. */
static void remove_unwanted(struct stock *stock)
{
	struct id_set ids = stock->unwanted;

	stock->unwanted = (struct id_set){0};
	pthread_mutex_unlock(&stock->lock);
	for (size_t i = 0; i < ids.n; i++)
		remove_spare(stock, ids.ids[i]);
	pthread_mutex_lock(&stock->lock);
	for (size_t i = 0; i < ids.n; i++)
		id_set_remove(&stock->busy, ids.ids[i]);
	id_set_done(&ids);
}

static void *maker_main(void *arg)
{
	struct stock *stock = arg;

	pthread_mutex_lock(&stock->lock);
	while (!stock->stopping) {
		/*
		 * After a failure only a caller who needs one makes us try again: an idle daemon on a full
		 * disk does not spin, and the first call after room was made succeeds.
		 */
		bool failed = stock->round_err.code != ERR_OK;

		/* Waiters for whom there are spares by now have only not run yet. */
		if (stock->n_waiters > stock->n_spares ||
		    (stock->n_spares < REFILL_BELOW && !failed))
			refill(stock);
		else if (stock->unwanted.n)
			remove_unwanted(stock);
		else
			pthread_cond_wait(&stock->wanted, &stock->lock);
	}
	pthread_mutex_unlock(&stock->lock);
	return NULL;
}

int stock_start(struct stock *stock, struct err *err)
{
	if (thread_start(&stock->maker, "stock", maker_main, stock, err) < 0)
		return -1;
	stock->maker_runs = true;
	return 0;
}

/* --- opening and closing ------------------------------------------------------------------------- */

int stock_open(const struct layer_dirs *dirs, struct metastore *store, struct stock **ret_stock,
	       struct err *err)
{
	struct stock *stock = calloc(1, sizeof(*stock));

	if (!stock)
		return err_sys(err, "keep directories in stock");
	stock->dirs = dirs;
	stock->store = store;
	stock->ordered = fs_is_ordered(dirs->fs.fd);
	pthread_mutex_init(&stock->lock, NULL);
	thread_cond_init(&stock->wanted);
	thread_cond_init(&stock->made);
	*ret_stock = stock;
	return 0;
}

void stock_close(struct stock *stock)
{
	if (!stock)
		return;
	if (stock->maker_runs) {
		pthread_mutex_lock(&stock->lock);
		stock->stopping = true;
		pthread_cond_signal(&stock->wanted);
		pthread_mutex_unlock(&stock->lock);
		pthread_join(stock->maker, NULL);
	}
	for (size_t i = 0; i < stock->n_spares; i++)
		remove_spare(stock, stock->spares[i]);
	for (size_t i = 0; i < stock->unwanted.n; i++)
		remove_spare(stock, stock->unwanted.ids[i]);
	id_set_done(&stock->unwanted);
	id_set_done(&stock->busy);
	pthread_cond_destroy(&stock->made);
	pthread_cond_destroy(&stock->wanted);
	pthread_mutex_destroy(&stock->lock);
	free(stock);
}

/* --- taking -------------------------------------------------------------------------------------- */

/* Waits for @made for a moment, with the lock held. */
static void wait_a_slice(struct stock *stock)
{
	struct timespec until = monotonic_in(WAIT_SLICE_NS);

	pthread_cond_timedwait(&stock->made, &stock->lock, &until);
}

/* Takes a spare, of which there is one, with the lock held. */
static uint64_t pop(struct stock *stock)
{
	uint64_t id = stock->spares[--stock->n_spares];

	if (stock->n_spares < REFILL_BELOW)
		pthread_cond_signal(&stock->wanted);
	return id;
}

int stock_take(struct stock *stock, const struct ctx *ctx, uint64_t *ret_id, struct err *err)
{
	LOCK_GUARD(&stock->lock);
	uint64_t round = stock->n_rounds;

	while (!stock->n_spares) {
		/* A round that was under way when we came may have failed before there was room. */
		if (stock->n_rounds >= round + 2 && stock->round_err.code != ERR_OK) {
			*err = stock->round_err;
			return err_wrap(err, "no directory for a new snapshot");
		}
		if (ctx_check(ctx, err) < 0)
			return -1;
		stock->n_waiters++;
		pthread_cond_signal(&stock->wanted);
		wait_a_slice(stock);
		stock->n_waiters--;
	}
	*ret_id = pop(stock);
	return 0;
}

bool stock_take_ready(struct stock *stock, uint64_t *ret_id)
{
	LOCK_GUARD(&stock->lock);

	/* Who waits has come first. */
	if (!stock->n_spares || stock->n_waiters)
		return false;
	*ret_id = pop(stock);
	return true;
}

void stock_unmark(struct stock *stock, uint64_t id)
{
	LOCK_GUARD(&stock->lock);

	id_set_remove(&stock->busy, id);
}

/* Callers tell others of changes, and must not wait for the disk: what is to be removed is left to the maker. */
void stock_drop(struct stock *stock, uint64_t id, bool clean)
{
	LOCK_GUARD(&stock->lock);

	if (clean && stock->n_spares < STOCK_SPARES_MAX) {
		stock->spares[stock->n_spares++] = id;
		pthread_cond_signal(&stock->made);
		return;
	}
	/* Without memory it is garbage, for the next cleanup. */
	if (id_set_add(&stock->unwanted, id))
		pthread_cond_signal(&stock->wanted);
	else
		id_set_remove(&stock->busy, id);
}

bool stock_mark(struct stock *stock, uint64_t id)
{
	LOCK_GUARD(&stock->lock);

	return id_set_add(&stock->busy, id);
}

bool stock_copy_busy(struct stock *stock, struct id_set *ret_busy)
{
	LOCK_GUARD(&stock->lock);

	return id_set_copy(ret_busy, &stock->busy);
}
