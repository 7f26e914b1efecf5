/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of one ingest: its file, how much of it is held, and their running digest. One thread at a time.
 */
#ifndef LIGHTER_CONTENT_INGEST_BYTES_H
#define LIGHTER_CONTENT_INGEST_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/ctx.h"
#include "base/digest.h"
#include "base/err.h"

/* So much is held in memory, at most. */
#define INGEST_MEMORY_BYTES ((size_t)64 << 10)

/**
 * struct ingest_bytes - see above
 * @memory: the bytes, while there is no file; NULL: there are none, or they are in the file
 * @fd: open while somebody writes, once the file exists; else -1
 * @exists: there is a file
 * @held_bytes: its length
 * @running: digest of so much; NULL: to be computed anew. It stays when the file is closed.
 * @digest, @digest_known: what @running gave last, and whether that is still so
 * @flushed_bytes: so much was given to the disk
 * @reserved_bytes: so much has room on the disk
 */
struct ingest_bytes {
	uint8_t *memory;
	int fd;
	bool exists;
	uint64_t held_bytes;
	enum digest_algorithm algorithm;
	struct digest_state *running;
	struct digest digest;
	bool digest_known;
	uint64_t flushed_bytes;
	uint64_t reserved_bytes;
};

void ingest_bytes_init(struct ingest_bytes *bytes);
void ingest_bytes_done(struct ingest_bytes *bytes);

/**
 * ingest_bytes_open() - for writing; computes the digest of what is held unless it is known
 * @ctx: checked meanwhile
 * @algorithm: to be used; 0: as before, or sha256
 */
ERR_CHECKED int ingest_bytes_open(struct ingest_bytes *bytes, struct ctx *ctx, int dirfd,
				  const char *name, enum digest_algorithm algorithm,
				  struct err *err);
void ingest_bytes_close(struct ingest_bytes *bytes);

/** ingest_bytes_give_back() - what a process that was killed had reserved behind the end of the file @name, like @st */
void ingest_bytes_give_back(int dirfd, const char *name, const struct stat *st);

/** ingest_bytes_expect() - use @algorithm, if there are no bytes yet */
void ingest_bytes_expect(struct ingest_bytes *bytes, enum digest_algorithm algorithm);

/**
 * ingest_bytes_hold() - get ready to hold bytes in memory
 * Of up to INGEST_MEMORY_BYTES, when there are neither bytes nor a file.
 */
ERR_CHECKED int ingest_bytes_hold(struct ingest_bytes *bytes, struct err *err);

/**
 * ingest_bytes_spill() - write what is held in memory to the file, which has been made
 *
 * It is not in memory then. If that fails, it is, and nothing is in the file.
 */
ERR_CHECKED int ingest_bytes_spill(struct ingest_bytes *bytes, struct err *err);

/** ingest_bytes_forget() - drop what is held in memory */
void ingest_bytes_forget(struct ingest_bytes *bytes);

/** ingest_bytes_create() - make the file */
ERR_CHECKED int ingest_bytes_create(struct ingest_bytes *bytes, int dirfd, const char *name,
				    struct err *err);

/**
 * ingest_bytes_append() - write @n pieces behind what is held
 * @total_bytes: how many there will be in the end; 0: not known
 * What could be written before a failure is held.
 */
ERR_CHECKED int ingest_bytes_append(struct ingest_bytes *bytes, const struct iovec *pieces,
				    size_t n, uint64_t total_bytes, struct err *err);

/** ingest_bytes_truncate() - drop what is held */
ERR_CHECKED int ingest_bytes_truncate(struct ingest_bytes *bytes, struct err *err);

/** ingest_bytes_trim() - give back room that was reserved beyond what is held */
ERR_CHECKED int ingest_bytes_trim(struct ingest_bytes *bytes, struct err *err);

/** ingest_bytes_digest() - of what is held */
ERR_CHECKED int ingest_bytes_digest(struct ingest_bytes *bytes, struct digest *ret_digest,
				    struct err *err);

/** ingest_bytes_digest_as() - the same with another algorithm (0: whichever it is), by reading it all again */
ERR_CHECKED int ingest_bytes_digest_as(struct ingest_bytes *bytes, struct ctx *ctx,
				       enum digest_algorithm algorithm, struct digest *ret_digest,
				       struct err *err);

#endif
