/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of our own with the bytes of one that is somebody else's. Any thread.
 *
 * A reflink is best: it takes no room, and what happens to one file does not happen to the other. A hard link takes no
 * room either, but is the same file: who truncates one has truncated both, and it is only made of what nobody but root
 * or ourselves can write. A copy works always.
 */
#ifndef LIGHTER_CONTENT_TAKE_H
#define LIGHTER_CONTENT_TAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "base/err.h"
#include "content/file_digest.h"

/* The first that works, or one of them alone. */
enum take_mode { TAKE_AUTO, TAKE_REFLINK, TAKE_LINK, TAKE_COPY };

/**
 * struct taker - how, and what was found out so far
 * @dir_fd: where the files are made
 * @no_reflink, @no_link: not between these two file systems
 */
struct taker {
	enum take_mode mode;
	int dir_fd;
	atomic_bool no_reflink, no_link;
};

/** take_mode_parse() - "auto", "reflink", "link", "copy". Return: 0, or -1 when it is none of them. */
int take_mode_parse(const char *text, enum take_mode *ret_mode);

/**
 * struct taken - a file that was made
 * @fd: open, to be read
 * @how: TAKE_AUTO never
 * @digest, @size_bytes: what was found in it
 */
struct taken {
	int fd;
	enum take_mode how;
	struct digest digest;
	uint64_t size_bytes;
};

/**
 * take_file() - make @name out of the file open as @from_fd, and compute its digest; nothing is synced
 * @st: of that file
 * @ctx, @done_bytes: as for file_digest()
 * Return: 0; 1 when that file cannot be taken, as @err says, but others may; -1 when there is no use in going on. Nothing
 * of that name is there then.
 */
ERR_CHECKED int take_file(struct taker *taker, int from_fd, const struct stat *st, const char *name,
			  enum digest_algorithm algorithm, const struct ctx *ctx,
			  _Atomic uint64_t *done_bytes, struct taken *ret_taken, struct err *err);

#endif
