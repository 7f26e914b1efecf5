/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is each blob what its name says? Files are read again, and compared with the rows, beside a daemon that goes on or
 * without one. What comes and goes meanwhile is no damage. One thread.
 */
#ifndef LIGHTER_CONTENT_VERIFY_H
#define LIGHTER_CONTENT_VERIFY_H

#include "base/pace.h"
#include "base/progress.h"
#include "content/blob_rows.h"
#include "content/verify_state.h"

/* So many blobs in a row that cannot be read, or are missing, are no affair of theirs, but of the disk. */
#define VERIFY_UNREADABLE_MAX 8

/**
 * struct verify_options - how
 * @found: a blob is not as it should be, for @why
 * @put_aside: take such a blob out of the store; @fd: its file, -1: it has none. NULL: they stay. It may put others in
 *             place of the rows, of which no read is open. Return: 0, also when it could not; -1: it ends here.
 * @stray: the file @name in blobs/ is no blob's, for @why; that is no damage
 * @arg: for all of these
 * @settled_ns: a file without a row that changed no longer ago may be a commit under way
 * @save_ns: how often it is noted how far it has come
 */
struct verify_options {
	struct progress *progress;
	struct pace pace;
	void (*found)(void *arg, enum verify_kind kind, const struct digest *digest,
		      const char *why);
	int (*put_aside)(void *arg, const struct blob_info *info, int fd, struct err *err);
	void (*stray)(void *arg, const char *name, const char *why);
	void *arg;
	int64_t settled_ns;
	int64_t save_ns;
};

/**
 * verify_all() - all blobs, on from where @state says, or from the start
 * @state_dir_fd: where that is kept, see verify_state_lock(); -1: nowhere
 * Return: 0 when it came to the end: @state->last is this pass then; or -1. ERR_CANCELLED when it was cancelled: @state
 * is saved then.
 */
ERR_CHECKED int verify_all(int root_fd, struct blob_rows **rows,
			   const struct verify_options *options, int state_dir_fd,
			   struct verify_state *state, struct err *err);

/**
 * verify_some() - @n blobs
 * @ret_pass: what was found
 * Return: 0; or -1, with ERR_NOT_FOUND when there is no such blob.
 */
ERR_CHECKED int verify_some(int root_fd, struct blob_rows **rows,
			    const struct verify_options *options, const struct digest *digests,
			    size_t n, struct verify_pass *ret_pass, struct err *err);

#endif
