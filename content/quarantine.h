/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a damaged blob out of the store, so that it can be had again, without losing its bytes: they get a name in
 * quarantine/ first. Through the daemon if one runs, as it alone may change what it serves; else in its place.
 * One thread.
 */
#ifndef LIGHTER_CONTENT_QUARANTINE_H
#define LIGHTER_CONTENT_QUARANTINE_H

#include "content/blob_rows.h"
#include "rpc/run.h"

/**
 * struct quarantine - where
 * @db_path: of the database
 * @rows: to be read, see blob_rows_open_to_read(). No read may be open: others are put in their place when the store is
 *        opened here, as closing it would take the locks that sqlite holds for them.
 */
struct quarantine {
	const struct run_command_call *call;
	int root_fd;
	const char *db_path;
	struct blob_rows **rows;
};

/**
 * quarantine_blob() - put it aside
 * @info: as its row says
 * @fd: its file, open; -1: it has none
 * Return: 0: there is no such blob any more; 1: it was made anew meanwhile, and stays; -1: it is there still,
 * and *@rows are NULL if they could not be opened again.
 */
ERR_CHECKED int quarantine_blob(const struct quarantine *quarantine, const struct blob_info *info,
				int fd, struct err *err);

#endif
