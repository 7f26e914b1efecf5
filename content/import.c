/* SPDX-License-Identifier: Apache-2.0 */
#include "content/import.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/pool.h"
#include "content/local_internal.h"

/* "18446744073709551615" and NUL */
#define TEMP_NAME_BYTES 24

/**
 * struct job - one file of the source, on its way through a worker
 * @next: while nobody uses it
 */
struct job {
	struct pool_job pool_job;
	struct import *import;
	struct job *next;
	struct digest digest;
	uint64_t size_bytes;
};

/**
 * struct import - one import
 * @free_jobs: counts those in @jobs
 * @mutex: guards what follows; the counts, too
 * @failure: why no more are begun; the first one counts
 */
struct import {
	struct local *store;
	const struct source *source;
	const struct import_options *options;
	struct ctx ctx;
	struct taker taker;
	_Atomic uint64_t n_temps;
	struct pool *pool;
	sem_t free_jobs;

	pthread_mutex_t mutex;
	struct job *jobs;
	struct import_counts counts;
	struct err failure;
	bool failed;
};

/* --- one file -------------------------------------------------------------------------------------- */

static void refuse(struct import *import, const char *name, const char *why)
{
	pthread_mutex_lock(&import->mutex);
	import->counts.n_refused++;
	pthread_mutex_unlock(&import->mutex);
	import->options->refused(import->options->refused_arg, name, why);
}

static void refuse_digest(struct import *import, const struct digest *digest, const char *why)
{
	char path[BLOB_PATH_MAX];

	refuse(import, blob_path(digest, path), why);
}

static void count_present(struct import *import, uint64_t size_bytes)
{
	LOCK_GUARD(&import->mutex);
	import->counts.n_present++;
	import->counts.present_bytes += size_bytes;
}

static void count_taken(struct import *import, const struct taken *taken)
{
	LOCK_GUARD(&import->mutex);
	import->counts.n_taken[taken->how]++;
	import->counts.taken_bytes[taken->how] += taken->size_bytes;
}

/* Return: 0; 1 when it was refused; or -1. */
static int publish(struct import *import, const struct digest *digest, const char *name,
		   const struct taken *taken, struct err *err)
{
	const struct blob_info info = {.digest = *digest, .size_bytes = taken->size_bytes};
	bool broken = false;
	int r;

	if (!digest_equal(&taken->digest, digest)) {
		refuse_digest(import, digest, "is damaged: its bytes are not what its name says");
		return 1;
	}
	r = local_publish(import->store, &info, import->taker.dir_fd, name, taken->fd, &broken,
			  err);
	CRASH_POINT("import.published");
	if (r < 0)
		return -1;
	if (r == 1)
		count_present(import, taken->size_bytes);
	else
		count_taken(import, taken);
	/* Whoever reads it next is not here, and the bytes are on the disk. */
	(void)posix_fadvise(taken->fd, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

/* Return: 0; or -1 when there is no use in going on. */
static int take_open(struct import *import, const struct digest *digest, int from_fd,
		     const struct stat *st, struct err *err)
{
	struct taken taken = {.fd = -1};
	char name[TEMP_NAME_BYTES];
	int r;

	snprintf(name, sizeof(name), "%" PRIu64, ++import->n_temps);
	r = take_file(&import->taker, from_fd, st, name, digest->algorithm, &import->ctx,
		      &import->options->progress->done_bytes, &taken, err);
	if (r > 0)
		refuse_digest(import, digest, err->msg);
	if (r != 0)
		return r < 0 ? -1 : 0;
	CRASH_POINT("import.taken");
	r = publish(import, digest, name, &taken, err);
	close_fd(&taken.fd);
	if (unlinkat(import->taker.dir_fd, name, 0) < 0 && r >= 0)
		return err_sys(err, "delete '" LOCAL_IMPORT_DIR "/%s'", name);
	return r < 0 ? -1 : 0;
}

static int import_one(struct import *import, const struct job *job, struct err *err)
{
	const struct digest *digest = &job->digest;
	CLEANUP(close_fd) int fd = -1;
	struct err why = ERR_INIT;
	uint64_t size_bytes;
	struct stat st;
	int r;

	r = blob_rows_size(import->store->rows, digest, &size_bytes, err);
	if (r > 0) {
		count_present(import, size_bytes);
		import->options->progress->done_bytes += job->size_bytes;
	}
	if (r != 0)
		return r < 0 ? -1 : 0;
	r = source_open_file(import->source, digest, &fd, &st, &why);
	/* Descriptors or memory are ours; what is wrong with the file is not. */
	if (r < 0 && why.code == ERR_RESOURCE_EXHAUSTED) {
		*err = why;
		return -1;
	}
	if (r < 0)
		refuse_digest(import, digest, why.msg);
	return r == 0 ? take_open(import, digest, fd, &st, err) : 0;
}

/* --- all of them ----------------------------------------------------------------------------------- */

static void fail(struct import *import, const struct err *err)
{
	LOCK_GUARD(&import->mutex);
	if (!import->failed)
		import->failure = *err;
	import->failed = true;
}

static bool has_failed(struct import *import)
{
	LOCK_GUARD(&import->mutex);
	return import->failed;
}

static void run_job(struct pool_job *pool_job)
{
	struct job *job = (struct job *)((char *)pool_job - offsetof(struct job, pool_job));
	struct import *import = job->import;
	struct err err = ERR_INIT;

	if (!has_failed(import)) {
		char text[DIGEST_TEXT_BYTES];

		if (ctx_check(&import->ctx, &err) < 0) {
			fail(import, &err);
		} else if (import_one(import, job, &err) < 0) {
			(void)err_wrap(&err, "import %s", digest_format(&job->digest, text));
			fail(import, &err);
		}
		import->options->progress->done_items++;
	}
	pthread_mutex_lock(&import->mutex);
	job->next = import->jobs;
	import->jobs = job;
	pthread_mutex_unlock(&import->mutex);
	sem_post(&import->free_jobs);
}

static struct job *take_job(struct import *import)
{
	struct job *job;

	while (sem_wait(&import->free_jobs) < 0 && errno == EINTR) {
	}
	pthread_mutex_lock(&import->mutex);
	job = import->jobs;
	import->jobs = job->next;
	pthread_mutex_unlock(&import->mutex);
	return job;
}

static int begin_file(void *arg, const struct source_file *file, struct err *err)
{
	struct import *import = arg;
	struct job *job;

	if (has_failed(import))
		return 1;
	if (file->problem) {
		refuse(import, file->name, file->problem);
		return 0;
	}
	job = take_job(import);
	job->digest = file->digest;
	job->size_bytes = file->size_bytes;
	return pool_submit(import->pool, &job->pool_job, err);
}

static int run_jobs(struct import *import, struct err *err)
{
	size_t n_jobs = 2 * (size_t)import->options->n_threads;
	CLEANUP(free_ptr) struct job *jobs = calloc(n_jobs, sizeof(*jobs));
	int r;

	if (!jobs)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an import");
	for (size_t i = 0; i < n_jobs; i++) {
		jobs[i].pool_job.run = run_job;
		jobs[i].import = import;
		jobs[i].next = import->jobs;
		import->jobs = &jobs[i];
	}
	sem_init(&import->free_jobs, 0, (unsigned int)n_jobs);
	r = pool_new("import", import->options->n_threads, n_jobs, &import->pool, err);
	if (r == 0)
		r = source_walk(import->source, begin_file, import, err);
	/* Waits for those under way. */
	pool_free(import->pool);
	sem_destroy(&import->free_jobs);
	if (import->failed) {
		*err = import->failure;
		return -1;
	}
	return r < 0 ? -1 : 0;
}

static int check_other(const struct local *store, const struct source *source, struct err *err)
{
	struct stat ours, theirs;

	if (fstatat(store->root_fd, "blobs", &ours, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fstat(source->blobs_fd, &theirs) < 0)
		return err_sys(err, "look at 'blobs'");
	if (ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "that is the directory of this store itself");
	return 0;
}

int import_run(struct local *store, const struct source *source,
	       const struct import_options *options, struct import_counts *ret_counts,
	       struct err *err)
{
	struct import import = {
		.store = store,
		.source = source,
		.options = options,
		.ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &options->progress->cancelled},
		.taker = {.mode = options->mode, .dir_fd = -1},
	};
	int r;

	*ret_counts = (struct import_counts){0};
	if (check_other(store, source, err) < 0)
		return -1;
	/* What an earlier one left there went when the store was opened. */
	if (mkdirat(store->root_fd, LOCAL_IMPORT_DIR, 0700) < 0)
		return err_sys(err, "make directory '" LOCAL_IMPORT_DIR "'");
	r = fs_open_dir(store->root_fd, LOCAL_IMPORT_DIR, &import.taker.dir_fd, err);
	if (r == 0) {
		pthread_mutex_init(&import.mutex, NULL);
		r = run_jobs(&import, err);
		pthread_mutex_destroy(&import.mutex);
		close_fd(&import.taker.dir_fd);
	}
	/* A file that is left in it goes with the next start. */
	(void)unlinkat(store->root_fd, LOCAL_IMPORT_DIR, AT_REMOVEDIR);
	*ret_counts = import.counts;
	return r;
}

/* --- looking only ---------------------------------------------------------------------------------- */

struct survey {
	struct blob_rows *rows;
	const struct import_options *options;
	struct import_survey found;
};

static int survey_file(void *arg, const struct source_file *file, struct err *err)
{
	struct survey *survey = arg;
	uint64_t size_bytes;
	int row = 0;

	if (atomic_load(&survey->options->progress->cancelled))
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (file->problem) {
		survey->found.n_refused++;
		if (survey->options->refused)
			survey->options->refused(survey->options->refused_arg, file->name,
						 file->problem);
		return 0;
	}
	if (survey->rows)
		row = blob_rows_size(survey->rows, &file->digest, &size_bytes, err);
	if (row < 0)
		return -1;
	*(row ? &survey->found.n_present : &survey->found.n_new) += 1;
	*(row ? &survey->found.present_bytes : &survey->found.new_bytes) += file->size_bytes;
	return 0;
}

int import_survey(struct blob_rows *rows, const struct source *source,
		  const struct import_options *options, struct import_survey *ret_survey,
		  struct err *err)
{
	struct survey survey = {.rows = rows, .options = options};

	if (source_walk(source, survey_file, &survey, err) < 0)
		return -1;
	*ret_survey = survey.found;
	return 0;
}
