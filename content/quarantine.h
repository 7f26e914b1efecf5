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

/** struct quarantine - @rows: to be read, see blob_rows_open_to_read() */
struct quarantine {
	const struct run_command_call *call;
	int root_fd;
	struct blob_rows *rows;
};

/**
 * quarantine_blob() - put it aside
 * @info: as its row says
 * @fd: its file, open; -1: it has none
 * Return: 0: there is no such blob any more; 1: it was made anew meanwhile, and stays; -1: it is there still.
 */
ERR_CHECKED int quarantine_blob(const struct quarantine *quarantine, const struct blob_info *info,
				int fd, struct err *err);

#endif
