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
 * @failed: a file could not be synced
 */
struct late_sync {
	struct blob_files *files;
	struct blob_rows *rows;
	pthread_t thread;

	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t changed;
	bool stopping;
	bool failed;
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
	if (late->failed || size > LATE_SYNC_MAX_BYTES || late->n_reserved == BLOBS_MAX ||
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

/* Return: how many bytes those had of which the database has forgotten the bytes; @ret_n: how many they were. */
static size_t forget(struct late_sync *late, const struct item *items, size_t n, size_t *ret_n)
{
	struct err err = ERR_INIT;
	int64_t ids[BLOBS_MAX];
	size_t bytes = 0;

	for (size_t i = 0; i < n; i++) {
		ids[i] = items[i].id;
		bytes += items[i].size;
	}
	*ret_n = n;
	if (blob_files_sync_dirs(late->files, &err) == 0 &&
	    blob_rows_forget_bytes(late->rows, ids, n, &err) == 0)
		return bytes;
	log_event(LOG_WARN, "the database keeps the bytes of small blobs until the next start",
		  LOG_ERR(&err));
	*ret_n = 0;
	return 0;
}

/* From now on nothing is kept so: who commits then is told of what is wrong with the disk. */
static void give_up(struct late_sync *late, int errnum)
{
	log_event(
		LOG_ERROR,
		"the file of a small blob cannot be synced: the database keeps its bytes, and the "
		"next start writes it anew",
		LOG_STR("error", strerror(errnum)));
	blob_files_doubt(late->files);
	LOCK_GUARD(&late->mutex);
	late->failed = true;
}

/*
 * All are given to the disk before the first is waited for: the one journal commit that this waits for then
 * holds the others too. Of one that cannot be synced the database keeps the bytes, for the next start; such ones go on
 * counting as reserved, so that they are not more and more.
 */
static size_t sync_files(struct late_sync *late, struct item *items, size_t n, size_t *ret_n)
{
	size_t n_synced = 0, bytes;

	for (size_t i = 0; i < n; i++)
		(void)sync_file_range(items[i].fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	for (size_t i = 0; i < n; i++) {
		bool synced = fsync(items[i].fd) == 0;

		if (!synced)
			give_up(late, errno);
		close_fd(&items[i].fd);
		if (synced)
			items[n_synced++] = items[i];
	}
	CRASH_POINT("late-sync.synced");
	bytes = forget(late, items, n_synced, ret_n);
	CRASH_POINT("late-sync.forgotten");
	return bytes;
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
		size_t n, n_bytes;

		wait_for_work(late);
		n = late->n;
		if (n == 0 && late->stopping)
			break;
		memcpy(items, late->items, n * sizeof(*items));
		late->n = 0;
		pthread_mutex_unlock(&late->mutex);
		n_bytes = sync_files(late, items, n, &n);
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

	*ret_late = NULL;
	if (!late)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to sync blobs");
	late->files = files;
	late->rows = rows;
	pthread_mutex_init(&late->mutex, NULL);
	thread_cond_init(&late->changed);
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
	int64_t ids[BLOBS_MAX];
	size_t n;
	uint64_t n_restored;
	uint64_t n_left;
	struct err why;
};

/*
 * One whose file is written anew: what the kernel has of it may never reach the disk, if that failed before. That of a
 * blob that is gone, or of other bytes, is not. Where that fails the bytes stay in the database, and are read from there: who
 * could not start could not make room.
 */
static int restore_one(void *arg, int64_t id, const struct digest *digest, bool exists,
		       const void *bytes, size_t size, struct err *err)
{
	struct restore *restore = arg;
	char text[DIGEST_TEXT_BYTES];
	struct digest found;

	if (restore->n == BLOBS_MAX)
		return 1;
	if (exists && digest_of(digest->algorithm, bytes, size, &found, err) < 0)
		return -1;
	if (exists && digest_equal(digest, &found)) {
		if (blob_files_replace(restore->files, digest, bytes, size, err) < 0) {
			restore->n_left++;
			restore->why = *err;
			return 0;
		}
		restore->n_restored++;
	} else if (exists) {
		log_event(LOG_ERROR, "the database holds other bytes than those of a blob",
			  LOG_STR("digest", digest_format(digest, text)));
	}
	restore->ids[restore->n++] = id;
	return 0;
}

int late_sync_restore(struct blob_files *files, struct blob_rows *rows, struct err *err)
{
	struct restore restore = {.files = files};
	int r;

	do {
		restore.n = 0;
		restore.n_left = 0;
		r = blob_rows_walk_bytes(rows, restore_one, &restore, err);
		if (r < 0 || (restore.n && blob_files_sync_dirs(files, err) < 0) ||
		    blob_rows_forget_bytes(rows, restore.ids, restore.n, err) < 0)
			return -1;
	} while (r > 0);
	if (restore.n_restored)
		log_event(LOG_INFO, "small blobs that had not been synced were written anew",
			  LOG_INT("blobs", (int64_t)restore.n_restored));
	if (restore.n_left) {
		blob_files_doubt(files);
		log_event(LOG_WARN,
			  "small blobs that had not been synced cannot be written anew: the "
			  "database keeps them",
			  LOG_INT("blobs", (int64_t)restore.n_left), LOG_ERR(&restore.why));
	}
	return 0;
}
