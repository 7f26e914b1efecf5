/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a verification has come, kept in the root as verify/state, so that the next run goes on there; and that no two
 * of them run at the same time. One thread.
 */
#ifndef LIGHTER_CONTENT_VERIFY_STATE_H
#define LIGHTER_CONTENT_VERIFY_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

/* So many are remembered by name; all are counted. */
#define VERIFY_PROBLEMS_MAX 256

/* What may be wrong with a blob. */
enum verify_kind {
	VERIFY_DAMAGED, /* other bytes */
	VERIFY_SIZE, /* another number of bytes */
	VERIFY_MISSING, /* a row without a file */
	VERIFY_UNREADABLE, /* the disk does not say what its bytes are */
	VERIFY_N_KINDS,
};

/** verify_kind_name() - "damaged" and so on */
const char *verify_kind_name(enum verify_kind kind);

/** struct verify_problem - one blob */
struct verify_problem {
	enum verify_kind kind;
	struct digest digest;
};

/**
 * struct verify_pass - one look at all blobs
 * @begun_ns, @ended_ns: since 1970; 0: not (yet)
 * @n_problems: blobs with one
 */
struct verify_pass {
	int64_t begun_ns, ended_ns;
	uint64_t n_blobs, bytes, n_problems;
};

/**
 * struct verify_state - what is kept
 * @last: the last one that came to its end
 * @now: the one under way, if @now.begun_ns; up to @after, if @has_after
 * @problems: the first of @now.n_problems, up to VERIFY_PROBLEMS_MAX
 */
struct verify_state {
	struct verify_pass last;
	struct verify_pass now;
	bool has_after;
	struct digest after;
	struct verify_problem problems[VERIFY_PROBLEMS_MAX];
};

/** verify_state_add() - note a problem of the pass under way */
void verify_state_add(struct verify_state *state, enum verify_kind kind,
		      const struct digest *digest);

/**
 * verify_state_lock() - be the only one
 * @ret_dir_fd: the directory verify/, made when missing
 * @ret_lock_fd: to be closed when done
 * Return: 0; or -1, with ERR_UNAVAILABLE when another process verifies.
 */
ERR_CHECKED int verify_state_lock(int root_fd, int *ret_dir_fd, int *ret_lock_fd, struct err *err);

/**
 * verify_state_load() - what was saved in @dir_fd
 * Return: 0; 1 when nothing was; or -1, with ERR_DATA_LOSS when it cannot be read as what it should be. *@ret_state is
 * empty unless it is 0.
 */
ERR_CHECKED int verify_state_load(int dir_fd, struct verify_state *ret_state, struct err *err);

/** verify_state_save() - durably */
ERR_CHECKED int verify_state_save(int dir_fd, const struct verify_state *state, struct err *err);

#endif
