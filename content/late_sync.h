/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small blobs are durable in the database before they are in their files: a commit then costs one sync that many
 * share, where a new file takes a commit of the file system's journal of its own. A thread syncs the files
 * later, many at a time, and has the database forget the bytes. What it had not come to is written anew at
 * the start. Any thread.
 */
#ifndef LIGHTER_CONTENT_LATE_SYNC_H
#define LIGHTER_CONTENT_LATE_SYNC_H

#include "content/blob_files.h"

/* Of a blob that may be kept so. */
#define LATE_SYNC_MAX_BYTES ((size_t)64 << 10)

struct late_sync;

/** late_sync_restore() - at the start, before files and rows are compared: write the files that were not synced */
ERR_CHECKED int late_sync_restore(struct blob_files *files, struct blob_rows *rows,
				  struct err *err);

/** late_sync_start() - what it is given is borrowed */
ERR_CHECKED int late_sync_start(struct blob_files *files, struct blob_rows *rows,
				struct late_sync **ret_late, struct err *err);

/** late_sync_stop() - when all is synced, or cannot be. Accepts NULL. */
void late_sync_stop(struct late_sync *late);

/** late_sync_reserve() - may a blob of @size bytes be kept so? Then late_sync_add() or _release() must follow. */
bool late_sync_reserve(struct late_sync *late, size_t size);
void late_sync_release(struct late_sync *late, size_t size);

/**
 * late_sync_add() - sync it later
 * @fd: the file; taken
 * @id: what blob_rows_add() told
 */
void late_sync_add(struct late_sync *late, int fd, int64_t id, size_t size);

#endif
