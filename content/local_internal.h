/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What local.c shares with adopt.c and import.c.
 */
#ifndef LIGHTER_CONTENT_LOCAL_INTERNAL_H
#define LIGHTER_CONTENT_LOCAL_INTERNAL_H

#include "content/blob_files.h"
#include "content/blob_rows.h"
#include "content/content_store.h"
#include "content/digest_locks.h"
#include "content/late_sync.h"

/* Files on their way in from elsewhere; what lies there at a start was left by an import that was cut off. */
#define LOCAL_IMPORT_DIR "import"

/** struct local - a store; each part locks for itself */
struct local {
	int root_fd;
	struct blob_rows *rows;
	struct blob_files *files;
	struct late_sync *late;
	struct ingests *ingests;
	struct digest_locks locks;
	struct cataloger *cataloger;
	struct adopt *adopt;
};

/**
 * local_publish() - make a blob of a verified file
 * @dirfd, @name: the file, open as @fd; it keeps that name too
 * @ret_broken: see blob_files_add()
 * Return: 0; 1: there is such a blob already; -1: nothing of it is there.
 */
ERR_CHECKED int local_publish(struct local *store, const struct blob_info *info, int dirfd,
			      const char *name, int fd, bool *ret_broken, struct err *err);

#endif
