/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over the blobs of another content directory. What is a blob here already is passed over, so that an import
 * which was cut off is simply made again.
 */
#ifndef LIGHTER_CONTENT_IMPORT_H
#define LIGHTER_CONTENT_IMPORT_H

#include "base/ctx.h"
#include "base/progress.h"
#include "content/blob_rows.h"
#include "content/source.h"
#include "content/take.h"

struct local;

/**
 * struct import_counts - what became of the files of a source
 * @n_taken, @taken_bytes: blobs now, by how they were taken (enum take_mode)
 * @n_present, @present_bytes: that were blobs before
 * @n_refused: told of one by one
 */
struct import_counts {
	uint64_t n_taken[TAKE_COPY + 1], taken_bytes[TAKE_COPY + 1];
	uint64_t n_present, present_bytes;
	uint64_t n_refused;
};

/** import_refused_fn - the file @name of the source stays there, and is no blob here, for @why. Any thread. */
typedef void (*import_refused_fn)(void *arg, const char *name, const char *why);

/**
 * struct import_options - how
 * @n_threads: 1 to IMPORT_THREADS_MAX
 * @refused, @refused_arg: to be told
 * @progress: counts, and cancels
 */
struct import_options {
	enum take_mode mode;
	unsigned int n_threads;
	import_refused_fn refused;
	void *refused_arg;
	struct progress *progress;
};

#define IMPORT_THREADS_MAX 64

/**
 * import_run() - make blobs of all that @source holds
 * @ret_counts: set in any case
 * Return: 0, also when some were refused; or -1: what was taken stays. ERR_FAILED_PRECONDITION when @source is the
 * store itself; ERR_CANCELLED when it was cancelled.
 */
ERR_CHECKED int import_run(struct local *store, const struct source *source,
			   const struct import_options *options, struct import_counts *ret_counts,
			   struct err *err);

/**
 * struct import_survey - what an import would find
 * @n_new, @new_bytes: blobs that are not here
 */
struct import_survey {
	uint64_t n_new, new_bytes;
	uint64_t n_present, present_bytes;
	uint64_t n_refused;
};

/** import_survey() - look at names and sizes only. @rows: NULL: nothing is here yet. */
ERR_CHECKED int import_survey(struct blob_rows *rows, const struct source *source,
			      const struct import_options *options,
			      struct import_survey *ret_survey, struct err *err);

#endif
