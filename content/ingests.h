/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs being written. Each has a number; its bytes are in ingests/<id>, its reference in ingests/<id>.ref, so
 * that no reference becomes a path. Both stand there from the first byte on, written but not synced: they
 * survive the process, not a power cut. A small one is in memory as long as there is a writer, who mostly commits
 * it at once, and gets its files when the writer goes. Any thread.
 */
#ifndef LIGHTER_CONTENT_INGESTS_H
#define LIGHTER_CONTENT_INGESTS_H

#include "content/content_store.h"

/* Caps on ingests at any time, and on their references together. */
#define INGESTS_MAX           65536
#define INGESTS_REF_MAX_BYTES (64u << 20)

struct ingests;

/**
 * ingests_open() - take up what lies in @root_fd/ingests, which is made when missing
 *
 * Files whose other half is missing or damaged, and what a commit has left behind, are deleted.
 */
ERR_CHECKED int ingests_open(int root_fd, struct ingests **ret_ingests, struct err *err);
void ingests_close(struct ingests *ingests);

/* See struct content_store_ops; @algorithm: of the running digest, 0: sha256, or what it was so far. */
ERR_CHECKED int ingest_open(struct ingests *ingests, struct ctx *ctx, const char *ref,
			    uint64_t total_bytes, enum digest_algorithm algorithm, bool may_wait,
			    struct ingest **ret_ingest, struct err *err);
ERR_CHECKED int ingest_state(struct ingest *ingest, struct ingest_info *ret_info,
			     struct digest *ret_digest, struct err *err);
ERR_CHECKED int ingest_write(struct ingest *ingest, uint64_t offset, const struct iovec *pieces,
			     size_t n, bool may_wait, struct err *err);
void ingest_close(struct ingest *ingest);

ERR_CHECKED int ingests_status(struct ingests *ingests, struct ctx *ctx, const char *ref,
			       struct ingest_info *ret_info, struct err *err);
ERR_CHECKED int ingests_walk(struct ingests *ingests, const struct filters *filters,
			     ingest_walk_fn fn, void *arg, struct err *err);

/** ingests_abort() - whoever writes or commits it is waited for, and told with the next call */
void ingests_abort(struct ingests *ingests, const char *ref);

/** ingest_expect() - the running digest is to be of this algorithm, as far as that is still cheap */
void ingest_expect(struct ingest *ingest, enum digest_algorithm algorithm);

/**
 * struct ingest_source - the verified bytes of an ingest
 * @memory: they; or NULL: then they are in the file @dirfd/@name, open as @fd
 */
struct ingest_source {
	uint64_t size_bytes;
	const void *memory;
	int dirfd;
	const char *name;
	int fd;
};

/* What ingest_commit_fn returns to be called again with a file. */
#define INGEST_COMMIT_FROM_FILE 2

/**
 * ingest_commit_fn - make a blob of verified bytes
 * @ret_broken: set when the bytes can be trusted no more, so that the ingest must go although this failed
 * Return: 0: done, and the ingest goes; 1: the same, but the blob was there; INGEST_COMMIT_FROM_FILE;
 *         -1: the bytes stay.
 */
typedef int (*ingest_commit_fn)(void *arg, const struct digest *digest,
				const struct ingest_source *source, bool *ret_broken,
				struct err *err);

/** ingest_commit() - verify what is held, and let @fn make a blob of it; nobody aborts it meanwhile */
ERR_CHECKED int ingest_commit(struct ingest *ingest, struct ctx *ctx,
			      const struct ingest_commit *req, ingest_commit_fn fn, void *arg,
			      struct digest *ret_digest, struct err *err);

/** ingest_drop() - forget it and its bytes; still to be closed */
void ingest_drop(struct ingest *ingest);

#endif
