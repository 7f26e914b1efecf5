/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a whole file once: its digest, and a copy if one is wanted. Any thread.
 */
#ifndef LIGHTER_CONTENT_FILE_DIGEST_H
#define LIGHTER_CONTENT_FILE_DIGEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/ctx.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/pace.h"

/**
 * struct file_digest_options - how
 * @ctx: looked at between two pieces
 * @pace: how fast; NULL: as fast as it goes
 * @done_bytes: counts what was read; NULL: nobody counts
 * @direct: from the disk, past the page cache, where the file system can; nobody else may use the descriptor meanwhile.
 *          Elsewhere the cache lets go of the file afterwards. Unset: as any reader.
 * @copy_fd: where the bytes are written to, from its start; -1: nowhere
 */
struct file_digest_options {
	const struct ctx *ctx;
	struct pace *pace;
	_Atomic uint64_t *done_bytes;
	bool direct;
	int copy_fd;
};

/**
 * file_digest() - of the file open as @fd, from its start to its end
 * @ret_size_bytes: how many bytes there were
 * Return: 0; 1 when the file cannot be read, as @err says; -1 for all else, and what @ctx says among it.
 */
ERR_CHECKED int file_digest(int fd, enum digest_algorithm algorithm,
			    const struct file_digest_options *options, struct digest *ret_digest,
			    uint64_t *ret_size_bytes, struct err *err);

#endif
