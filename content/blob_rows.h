/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of blobs, and of their labels: the truth about which blobs exist. Any thread.
 */
#ifndef LIGHTER_CONTENT_BLOB_ROWS_H
#define LIGHTER_CONTENT_BLOB_ROWS_H

#include "base/db.h"
#include "content/content_store.h"

struct blob_rows;

/** blob_rows_open() - open or make the database @path; errors as db_open()'s */
ERR_CHECKED int blob_rows_open(const char *path, struct blob_rows **ret_rows, struct err *err);
void blob_rows_close(struct blob_rows *rows);

/** blob_rows_open_to_read() - the existing database @path, beside the daemon or without it; see db_options.read_only */
ERR_CHECKED int blob_rows_open_to_read(const char *path, struct blob_rows **ret_rows,
				       struct err *err);

/**
 * blob_rows_get() - one blob
 * Return: 0; or -1, with ERR_NOT_FOUND when there is none.
 */
ERR_CHECKED int blob_rows_get(struct blob_rows *rows, struct ctx *ctx, const struct digest *digest,
			      struct blob_info *ret_info, struct err *err);

/** blob_rows_size() - as blob_rows_get(), of the size alone. Return: 1 with a row, 0 without, -1. */
ERR_CHECKED int blob_rows_size(struct blob_rows *rows, const struct digest *digest,
			       uint64_t *ret_size_bytes, struct err *err);

/**
 * blob_rows_add() - a blob exists; durable when this returns
 * @info: its times are set here
 * @is_json: it begins as a JSON object does
 * @barrier, @barrier_arg: as for db_write()
 * Return: 0; or -1, with ERR_ALREADY_EXISTS when there is such a row.
 */
ERR_CHECKED int blob_rows_add(struct blob_rows *rows, const struct blob_info *info, bool is_json,
			      int (*barrier)(void *barrier_arg, struct err *err), void *barrier_arg,
			      struct err *err);

/**
 * blob_rows_add_bytes() - the same, with the blob's bytes, until blob_rows_forget_bytes()
 * @ret_id: names the bytes
 */
ERR_CHECKED int blob_rows_add_bytes(struct blob_rows *rows, const struct blob_info *info,
				    bool is_json, const void *bytes, int64_t *ret_id,
				    struct err *err);

/** blob_rows_forget_bytes() - drop what @n ids name; ids that name nothing are no error */
ERR_CHECKED int blob_rows_forget_bytes(struct blob_rows *rows, const int64_t *ids, size_t n,
				       struct err *err);

/** blob_rows_holds_bytes() - are there bytes of that blob? Return: 1, 0 or -1. */
ERR_CHECKED int blob_rows_holds_bytes(struct blob_rows *rows, const struct digest *digest,
				      struct err *err);

/** blob_rows_read_bytes() - call @fn with those of a blob, if there are any. Return: 1 if so; 0 if not; -1. */
ERR_CHECKED int blob_rows_read_bytes(struct blob_rows *rows, const struct digest *digest,
				     int (*fn)(void *arg, const void *bytes, size_t size,
					       struct err *err),
				     void *arg, struct err *err);

/* @exists: there is a row of that blob, of that size. Return: as for blob_walk_fn. */
typedef int (*blob_bytes_fn)(void *arg, int64_t id, const struct digest *digest, bool exists,
			     const void *bytes, size_t size, struct err *err);

/** blob_rows_walk_bytes() - all bytes that are held. Return: 0 at the end, 1 when @fn stopped it; -1. */
ERR_CHECKED int blob_rows_walk_bytes(struct blob_rows *rows, blob_bytes_fn fn, void *arg,
				     struct err *err);

/** blob_rows_update() - change labels; see struct blob_update */
ERR_CHECKED int blob_rows_update(struct blob_rows *rows, struct ctx *ctx,
				 const struct blob_update *req, struct blob_info *ret_info,
				 struct err *err);

/**
 * blob_rows_remove() - it exists no more
 * @ret_may_be_json: NULL, or set unless it is known not to begin as a JSON object does
 * Return: 0; 1 when there was no row; -1.
 */
ERR_CHECKED int blob_rows_remove(struct blob_rows *rows, const struct digest *digest,
				 bool *ret_may_be_json, struct err *err);

/** blob_rows_walk() - see struct content_store_ops, walk() */
ERR_CHECKED int blob_rows_walk(struct blob_rows *rows, struct ctx *ctx,
			       const struct filters *filters, const struct digest *after,
			       blob_walk_fn fn, void *arg, struct err *err);

/** blob_rows_totals() - how many there are behind @after (NULL: all), and how many bytes they have together */
ERR_CHECKED int blob_rows_totals(struct blob_rows *rows, const struct digest *after,
				 uint64_t *ret_n, uint64_t *ret_bytes, struct err *err);

/** blob_rows_may_be_json() - is there such a blob, not known to begin otherwise than a JSON object does? 1, 0; or -1 */
ERR_CHECKED int blob_rows_may_be_json(struct blob_rows *rows, const struct digest *digest,
				      struct err *err);

/**
 * blob_rows_list_json() - digests of the blobs that may be JSON objects, in the order of walk()
 * @after: the last one that is known already; NULL: from the start
 * @ret_digests: room for @max. Return: how many there are, less than @max at the end; or -1.
 */
ERR_CHECKED int blob_rows_list_json(struct blob_rows *rows, const struct digest *after,
				    struct digest *ret_digests, int max, struct err *err);

#endif
