/* SPDX-License-Identifier: Apache-2.0 */
#include "content/late_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "base/thread.h"

/* At most so much waits: who comes then syncs for himself. */
#define BLOBS_MAX    512
#define BYTES_MAX    ((size_t)8 << 20)
/* Worth a sync; fewer wait for so long. */
#define BLOBS_WORTH  128
#define DELAY_NS     (200 * INT64_C(1000000))
#define NSEC_PER_SEC INT64_C(1000000000)

struct item {
	int fd;
	int64_t id;
	size_t size;
};

/**
 * struct late_sync - see late_sync.h
 * @n_reserved, @n_bytes: of blobs that wait, are being synced, or are about to be added
 * @items: @n that wait; @first_ns: since when
 */
struct late_sync {
	struct blob_files *files;
	struct blob_rows *rows;
	pthread_t thread;

	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t changed;
	bool stopping;
	size_t n_reserved;
	size_t n_bytes;
	struct item items[BLOBS_MAX];
	size_t n;
	int64_t first_ns;
};

/* --- adding --------------------------------------------------------------------------------------- */

bool late_sync_reserve(struct late_sync *late, size_t size)
{
	LOCK_GUARD(&late->mutex);
	if (size > LATE_SYNC_MAX_BYTES || late->n_reserved == BLOBS_MAX ||
	    late->n_bytes + size > BYTES_MAX)
		return false;
	late->n_reserved++;
	late->n_bytes += size;
	return true;
}

void late_sync_release(struct late_sync *late, size_t size)
{
	LOCK_GUARD(&late->mutex);
	late->n_reserved--;
	late->n_bytes -= size;
}

void late_sync_add(struct late_sync *late, int fd, int64_t id, size_t size)
{
	LOCK_GUARD(&late->mutex);
	if (late->n == 0)
		late->first_ns = monotonic_ns();
	late->items[late->n++] = (struct item){fd, id, size};
	/* The first begins the delay, the last ends it. */
	if (late->n == 1 || late->n == BLOBS_WORTH)
		pthread_cond_signal(&late->changed);
}

/* --- syncing -------------------------------------------------------------------------------------- */

/*
 * All are given to the disk before the first is waited for: the one journal commit that this waits for then
 * holds the others too. Of one that cannot be synced the database keeps the bytes, for the next start.
 */
static void sync_files(struct late_sync *late, struct item *items, size_t n)
{
	int64_t ids[BLOBS_MAX];
	size_t n_done = 0;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < n; i++)
		(void)sync_file_range(items[i].fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	for (size_t i = 0; i < n; i++) {
		if (fsync(items[i].fd) == 0)
			ids[n_done++] = items[i].id;
		else
			log_event(LOG_ERROR,
				  "the file of a blob cannot be synced, and is written anew "
				  "at the next start",
				  LOG_STR("error", strerror(errno)));
		close_fd(&items[i].fd);
	}
	CRASH_POINT("late-sync.synced");
	if (blob_files_sync_dirs(late->files, &err) < 0 ||
	    blob_rows_forget_bytes(late->rows, ids, n_done, &err) < 0)
		log_event(LOG_WARN, "the database keeps the bytes of blobs that have been synced",
			  LOG_ERR(&err));
	CRASH_POINT("late-sync.forgotten");
}

/* The lock is held. Waits for enough, or long enough. */
static void wait_for_work(struct late_sync *late)
{
	while (!late->stopping && late->n < BLOBS_WORTH) {
		int64_t until_ns = late->first_ns + DELAY_NS;
		const struct timespec until = {.tv_sec = until_ns / NSEC_PER_SEC,
					       .tv_nsec = until_ns % NSEC_PER_SEC};

		if (late->n == 0)
			pthread_cond_wait(&late->changed, &late->mutex);
		else if (pthread_cond_timedwait(&late->changed, &late->mutex, &until) == ETIMEDOUT)
			return;
	}
}

static void *work(void *arg)
{
	struct late_sync *late = arg;
	struct item items[BLOBS_MAX];

	pthread_mutex_lock(&late->mutex);
	for (;;) {
		size_t n, n_bytes = 0;

		wait_for_work(late);
		n = late->n;
		if (n == 0 && late->stopping)
			break;
		memcpy(items, late->items, n * sizeof(*items));
		late->n = 0;
		pthread_mutex_unlock(&late->mutex);
		for (size_t i = 0; i < n; i++)
			n_bytes += items[i].size;
		sync_files(late, items, n);
		pthread_mutex_lock(&late->mutex);
		late->n_reserved -= n;
		late->n_bytes -= n_bytes;
	}
	pthread_mutex_unlock(&late->mutex);
	return NULL;
}

int late_sync_start(struct blob_files *files, struct blob_rows *rows, struct late_sync **ret_late,
		    struct err *err)
{
	struct late_sync *late = calloc(1, sizeof(*late));
	pthread_condattr_t attr;

	*ret_late = NULL;
	if (!late)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to sync blobs");
	late->files = files;
	late->rows = rows;
	pthread_mutex_init(&late->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&late->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (thread_start(&late->thread, "late-sync", work, late, err) < 0) {
		pthread_cond_destroy(&late->changed);
		pthread_mutex_destroy(&late->mutex);
		free(late);
		return -1;
	}
	*ret_late = late;
	return 0;
}

void late_sync_stop(struct late_sync *late)
{
	if (!late)
		return;
	pthread_mutex_lock(&late->mutex);
	late->stopping = true;
	pthread_cond_signal(&late->changed);
	pthread_mutex_unlock(&late->mutex);
	pthread_join(late->thread, NULL);
	pthread_cond_destroy(&late->changed);
	pthread_mutex_destroy(&late->mutex);
	free(late);
}

/* --- at the start --------------------------------------------------------------------------------- */

struct restore {
	struct blob_files *files;
	struct blob_rows *rows;
	int64_t ids[BLOBS_MAX];
	size_t n;
};

/* One whose file is being written anew. That of a blob that is gone, or of other bytes, is not. */
static int restore_one(void *arg, int64_t id, const struct digest *digest, bool exists,
		       const void *bytes, size_t size, struct err *err)
{
	struct restore *restore = arg;
	CLEANUP(close_fd) int fd = -1;
	char text[DIGEST_TEXT_BYTES];
	struct digest found;

	if (restore->n == BLOBS_MAX)
		return 1;
	restore->ids[restore->n++] = id;
	if (!exists)
		return 0;
	if (digest_of(digest->algorithm, bytes, size, &found, err) < 0)
		return -1;
	if (!digest_equal(digest, &found)) {
		log_event(LOG_ERROR, "the database holds other bytes than those of a blob",
			  LOG_STR("digest", digest_format(digest, text)));
		return 0;
	}
	/* Mostly all is well, as the process was killed and the machine was not; then no room is needed. */
	if (!blob_files_holds(restore->files, digest, bytes, size, &fd) &&
	    blob_files_write(restore->files, digest, bytes, size, &fd, err) < 0)
		return -1;
	return fsync(fd) < 0 ? err_sys(err, "sync 'blobs/%s'", blob_path(digest, text)) : 0;
}

int late_sync_restore(struct blob_files *files, struct blob_rows *rows, struct err *err)
{
	struct restore restore = {.files = files, .rows = rows};
	uint64_t n_restored = 0;
	int r;

	do {
		restore.n = 0;
		r = blob_rows_walk_bytes(rows, restore_one, &restore, err);
		if (r < 0 || blob_files_sync_dirs(files, err) < 0 ||
		    blob_rows_forget_bytes(rows, restore.ids, restore.n, err) < 0)
			return -1;
		n_restored += restore.n;
	} while (r > 0);
	if (n_restored)
		log_event(LOG_INFO,
			  "small blobs that had not been synced were compared, and synced",
			  LOG_INT("blobs", (int64_t)n_restored));
	return 0;
}
