/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of blobs lie: blobs/<algorithm>/<hex>. Files in use are kept open for a while, since who
 * applies a layer reads it in calls of 32 KiB, each of which names the blob anew. Any thread.
 */
#ifndef LIGHTER_CONTENT_BLOB_FILES_H
#define LIGHTER_CONTENT_BLOB_FILES_H

#include <stdatomic.h>

#include "content/blob_rows.h"
#include "content/content_store.h"

/* "sha512/" + 128 + NUL */
#define BLOB_PATH_MAX DIGEST_TEXT_BYTES

/**
 * struct blob - an open file; or bytes that the database holds
 * @refs: the cache's, if it is in there, and the users'
 * @bytes: NULL, or they; there is no @fd then
 * @size_bytes: as its row says, and its file
 */
struct blob {
	struct digest digest;
	int fd;
	void *bytes;
	uint64_t size_bytes;
	atomic_uint refs;
	struct blob *next; /* in the cache: used longer ago */
};

struct blob_files;

/** blob_path() - "<algorithm>/<hex>" below blobs/ in @buf of BLOB_PATH_MAX. Return: @buf. */
const char *blob_path(const struct digest *digest, char *buf);

/** blob_path_parse() - the digest that "@algorithm/@hex" stands for. Return: 0, or -1 when it is none. */
int blob_path_parse(const char *algorithm, const char *hex, struct digest *ret_digest);

/** blob_files_make_dirs() - make @root_fd/blobs and what belongs into it, where missing; durable */
ERR_CHECKED int blob_files_make_dirs(int root_fd, struct err *err);

/** blob_files_open() - the files below @root_fd/blobs, whose directories are there; @rows: borrowed */
ERR_CHECKED int blob_files_open(int root_fd, struct blob_rows *rows, struct blob_files **ret_files,
				struct err *err);
void blob_files_close(struct blob_files *files);

/** blob_files_get() - see struct content_store_ops, blob_open(); blob_unref() must follow */
ERR_CHECKED int blob_files_get(struct blob_files *files, const struct digest *digest, bool may_wait,
			       struct blob **ret_blob, struct err *err);
void blob_unref(struct blob *blob);

/** blob_read() - see struct content_store_ops, read_at() */
ERR_CHECKED int blob_read(const struct blob *blob, uint64_t offset, void *buf, size_t size,
			  bool may_wait, struct err *err);

/**
 * blob_files_add() - give the file @from_fd/@name, open as @fd, the name of @digest too, and make it durable,
 *                    name and content
 *
 * A file that has the name already has no row, and is replaced. Between this and the row, the caller holds
 * off others of the same digest.
 * @ret_broken: set when the file could not be synced: the kernel has then given up on what it did not write,
 *              and would say of a second try that it went well
 */
ERR_CHECKED int blob_files_add(struct blob_files *files, const struct digest *digest, int from_fd,
			       const char *name, int fd, bool *ret_broken, struct err *err);

/**
 * blob_files_write() - make the file of @digest from memory; not synced
 * @ret_fd: the file. One that is there already has no row, and is replaced.
 */
ERR_CHECKED int blob_files_write(struct blob_files *files, const struct digest *digest,
				 const void *bytes, size_t size, int *ret_fd, struct err *err);

/**
 * blob_files_replace() - as blob_files_write(), of one that may have a file, which is replaced at once; synced
 * On failure that file is as it was.
 */
ERR_CHECKED int blob_files_replace(struct blob_files *files, const struct digest *digest,
				   const void *bytes, size_t size, struct err *err);

/** blob_files_doubt() - some files may not hold what was written: what the database holds is read from there */
void blob_files_doubt(struct blob_files *files);

/** blob_files_sync_dirs() - where that is not done by syncing files: make names durable */
ERR_CHECKED int blob_files_sync_dirs(struct blob_files *files, struct err *err);

/**
 * blob_files_barrier() - for blob_rows_add(), of what blob_files_add() has left to be done for @digest
 * @ret_arg: what the function returned is to be called with
 * Return: NULL when nothing is.
 */
int (*blob_files_barrier(struct blob_files *files, const struct digest *digest,
			 void **ret_arg))(void *arg, struct err *err);

/** blob_files_remove() - delete the file; its row is gone. That it is not there is no error. */
ERR_CHECKED int blob_files_remove(struct blob_files *files, const struct digest *digest,
				  struct err *err);

/** blob_files_settle() - at the start: make files and rows agree; see README.md */
ERR_CHECKED int blob_files_settle(struct blob_files *files, struct err *err);

/** blob_files_drop_idle() - close what is kept open unused, when descriptors run out. Return: any? */
bool blob_files_drop_idle(struct blob_files *files);

#endif
