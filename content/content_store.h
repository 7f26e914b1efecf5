/* SPDX-License-Identifier: Apache-2.0 */
/*
 * THE contract of a content store, and the only page its author must read: blobs, which are bytes known by
 * their digest and never change, and ingests, which are blobs being written, known by a reference of their
 * writer's choice. There are no namespaces here.
 *
 * Lifecycle: open() once, then any of the others from many threads at once, then close() when no call is
 * under way and no blob or ingest is open. kill -9 may come instead, at any time.
 *
 * Ownership: arguments are borrowed for the call; results are made in ctx->arena.
 *
 * Errors (containerd acts on the code):
 *	NOT_FOUND		the digest, or the reference given to status, is unknown
 *	ALREADY_EXISTS		a blob of that digest exists; the ingest that was to become it is gone
 *	OUT_OF_RANGE		a write that does not continue where the bytes held end
 *	FAILED_PRECONDITION	commit of bytes that have another size or digest; they are kept
 *	RESOURCE_EXHAUSTED	no room: what was written so far is kept, and can be continued
 *	UNAVAILABLE		somebody else writes to that reference
 *	ABORTED			the ingest was aborted meanwhile
 *	INVALID_ARGUMENT	a mask path other than labels[.KEY]; a reference that is empty or too long
 *	DATA_LOSS		the blob should be there, and its bytes are not
 */
#ifndef LIGHTER_CONTENT_CONTENT_STORE_H
#define LIGHTER_CONTENT_CONTENT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/conf.h"
#include "base/ctx.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/filter.h"
#include "base/strmap.h"

/* Caps on what a client may make us keep. */
#define CONTENT_REF_MAX_BYTES (64u << 10)

/** struct blob_info - what Info and List tell; times are nanoseconds since 1970 */
struct blob_info {
	struct digest digest;
	uint64_t size_bytes;
	int64_t created_ns;
	int64_t updated_ns;
	struct strmap labels;
};

/**
 * struct blob_update - which labels to change
 * @labels: sorted; may hold empty values, which mean removal
 * @paths: @n_paths elements of the field mask; none, or "labels", replaces all labels;
 *         "labels.KEY" sets or removes that one
 */
struct blob_update {
	struct digest digest;
	struct strmap labels;
	const char **paths;
	size_t n_paths;
};

/**
 * struct ingest_info - an ingest
 * @offset_bytes: how many bytes are held
 * @total_bytes: how many there will be; 0: not known
 */
struct ingest_info {
	const char *ref;
	uint64_t offset_bytes;
	uint64_t total_bytes;
	int64_t started_ns;
	int64_t updated_ns;
};

/**
 * struct ingest_commit - what the bytes held must be to become a blob
 * @total_bytes: their number; 0: any
 * @expected: their digest; NULL: any
 * @labels: of the blob; sorted, without empty values
 */
struct ingest_commit {
	uint64_t total_bytes;
	const struct digest *expected;
	struct strmap labels;
};

struct blob; /* open for reading */
struct ingest; /* open for writing */

/* Return: 0 to go on, 1 to stop, -1 to fail. What they are told is gone when they return. */
typedef int (*blob_walk_fn)(void *arg, const struct blob_info *info, struct err *err);
typedef int (*ingest_walk_fn)(void *arg, const struct ingest_info *info, struct err *err);

/**
 * struct content_store_ops - a store
 * @name: "content": names the socket, the configuration table, log lines and metrics
 * @summary: what the daemon is, one line for --help
 * @options: rows of the configuration table [NAME]; the target is a zeroed block of @conf_size bytes
 * @open: make or take up the state below @root, which exists, is ours alone and locked
 *
 * @info: one blob
 * @update: change its labels; answers the new state
 * @walk: call @fn for every blob that passes @filters and whose digest is behind @after (NULL: for all), in an
 *        order that does not change. Return: 0 at the end, 1 when @fn stopped it.
 * @remove: forget a blob; one that is unknown is no error. Who has it open keeps its bytes.
 *
 * @blob_open: for read_at(). With @may_wait unset, whatever has to wait for the disk is not done.
 *             Return: 0 with @ret_size_bytes; 1: would have to wait; or -1.
 * @read_at: fill @buf with the @size bytes at @offset, all of which are in the blob. Return: as blob_open().
 * @blob_close: any thread
 *
 * @status: of an ingest, open or not
 * @walk_ingests: all that pass @filters, in any order; @fn must not call the store. Return: as walk().
 * @abort: forget an ingest; one that is unknown is no error. Who has it open is told with the next call.
 *
 * @ingest_open: begin or take up the ingest @ref, for one writer at a time; waits a little for another to end.
 *               @total_bytes: 0: not known. Another total than was given before begins anew, without bytes.
 *               @expected: NULL, or what the digest will be. Return: as blob_open().
 * @ingest_expect: to be told of a digest later. ALREADY_EXISTS when such a blob is there.
 * @ingest_state: where it stands, with the digest of the bytes held
 * @ingest_write: @offset: where the @n pieces go: where the bytes held end; or 0, which drops them first. On
 *                failure some may have been written: see ingest_state(). Return: as blob_open().
 * @ingest_commit: the bytes become a blob: verified, durable, with its labels; all of it or nothing.
 *                 @ret_digest: the blob's. The ingest is gone then, and still to be closed.
 * @ingest_close: the ingest stays, with the bytes it holds
 * Of one open ingest, one call at a time is made.
 */
struct content_store_ops {
	const char *name;
	const char *summary;
	const struct conf_option *options;
	size_t conf_size;

	int (*open)(const char *root, const void *conf, void **ret_self, struct err *err);
	void (*close)(void *self); /* accepts NULL */

	int (*info)(void *self, struct ctx *ctx, const struct digest *digest,
		    struct blob_info *ret_info, struct err *err);
	int (*update)(void *self, struct ctx *ctx, const struct blob_update *req,
		      struct blob_info *ret_info, struct err *err);
	int (*walk)(void *self, struct ctx *ctx, const struct filters *filters,
		    const struct digest *after, blob_walk_fn fn, void *arg, struct err *err);
	int (*remove)(void *self, struct ctx *ctx, const struct digest *digest, struct err *err);

	int (*blob_open)(void *self, struct ctx *ctx, const struct digest *digest, bool may_wait,
			 struct blob **ret_blob, uint64_t *ret_size_bytes, struct err *err);
	int (*read_at)(void *self, struct blob *blob, uint64_t offset, void *buf, size_t size,
		       bool may_wait, struct err *err);
	void (*blob_close)(void *self, struct blob *blob);

	int (*status)(void *self, struct ctx *ctx, const char *ref, struct ingest_info *ret_info,
		      struct err *err);
	int (*walk_ingests)(void *self, struct ctx *ctx, const struct filters *filters,
			    ingest_walk_fn fn, void *arg, struct err *err);
	int (*abort)(void *self, struct ctx *ctx, const char *ref, struct err *err);

	int (*ingest_open)(void *self, struct ctx *ctx, const char *ref, uint64_t total_bytes,
			   const struct digest *expected, bool may_wait, struct ingest **ret_ingest,
			   struct err *err);
	int (*ingest_expect)(void *self, struct ctx *ctx, struct ingest *ingest,
			     const struct digest *expected, struct err *err);
	int (*ingest_state)(void *self, struct ingest *ingest, struct ingest_info *ret_info,
			    struct digest *ret_digest, struct err *err);
	int (*ingest_write)(void *self, struct ctx *ctx, struct ingest *ingest, uint64_t offset,
			    const struct iovec *pieces, size_t n, bool may_wait, struct err *err);
	int (*ingest_commit)(void *self, struct ctx *ctx, struct ingest *ingest,
			     const struct ingest_commit *req, struct digest *ret_digest,
			     struct err *err);
	void (*ingest_close)(void *self, struct ingest *ingest);
};

/** content_ref_check() - is @ref a usable reference? */
ERR_CHECKED int content_ref_check(const char *ref, struct err *err);

/** blob_matches(), ingest_matches() - does it pass @filters? NULL filters pass all. */
bool blob_matches(const struct filters *filters, const struct blob_info *info);
bool ingest_matches(const struct filters *filters, const struct ingest_info *info);

#endif
