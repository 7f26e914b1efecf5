/* SPDX-License-Identifier: Apache-2.0 */
#include "content/ingest_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Written with one call and hashed while still in the processor's cache; gRPC's pieces have some 20 KiB. */
#define BATCH_PIECES  64
#define READ_BYTES    ((size_t)256 << 10)
/* Room is reserved in steps of so much, never beyond the total: a client cannot take the disk by a number. */
#define RESERVE_BYTES ((uint64_t)64 << 20)
/* Smaller ones are allocated as a whole when they are given to the disk. */
#define RESERVE_FROM  ((uint64_t)8 << 20)
/* So much is collected before the disk gets it. */
#define FLUSH_BYTES   ((uint64_t)8 << 20)

void ingest_bytes_init(struct ingest_bytes *bytes)
{
	*bytes = (struct ingest_bytes){.fd = -1};
}

void ingest_bytes_done(struct ingest_bytes *bytes)
{
	ingest_bytes_close(bytes);
	digest_state_free(bytes->running);
	bytes->running = NULL;
	free(bytes->memory);
	bytes->memory = NULL;
}

/* --- the digest ----------------------------------------------------------------------------------- */

static void forget_digest(struct ingest_bytes *bytes)
{
	digest_state_free(bytes->running);
	bytes->running = NULL;
	bytes->digest_known = false;
}

/* A new digest of the first @held_bytes of @fd. */
static int digest_file(int fd, uint64_t held_bytes, struct ctx *ctx,
		       enum digest_algorithm algorithm, struct digest_state **ret_state,
		       struct err *err)
{
	CLEANUP(free_ptr) char *buf = NULL;
	struct digest_state *state;
	uint64_t done = 0;

	if (digest_state_new(algorithm, &state, err) < 0)
		return -1;
	if (held_bytes)
		buf = malloc(READ_BYTES);
	if (held_bytes && !buf) {
		digest_state_free(state);
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to read an ingest");
	}
	while (done < held_bytes) {
		size_t want =
			held_bytes - done < READ_BYTES ? (size_t)(held_bytes - done) : READ_BYTES;
		ssize_t n = pread(fd, buf, want, (off_t)done);
		int r = 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = err_sys(err, "read the bytes held");
		else if (n == 0)
			r = err_set(err, ERR_DATA_LOSS, "of %llu bytes held %llu are there",
				    (unsigned long long)held_bytes, (unsigned long long)done);
		else if (ctx_check(ctx, err) < 0 ||
			 digest_state_add(state, buf, (size_t)n, err) < 0)
			r = -1;
		if (r < 0) {
			digest_state_free(state);
			return -1;
		}
		done += (uint64_t)n;
	}
	*ret_state = state;
	return 0;
}

int ingest_bytes_digest(struct ingest_bytes *bytes, struct digest *ret_digest, struct err *err)
{
	if (!bytes->digest_known) {
		if (!bytes->running)
			return err_set(err, ERR_INTERNAL,
				       "the digest of the bytes held is unknown");
		if (digest_state_peek(bytes->running, &bytes->digest, err) < 0)
			return -1;
		bytes->digest_known = true;
	}
	*ret_digest = bytes->digest;
	return 0;
}

int ingest_bytes_digest_as(struct ingest_bytes *bytes, struct ctx *ctx,
			   enum digest_algorithm algorithm, struct digest *ret_digest,
			   struct err *err)
{
	struct digest_state *state;
	int r;

	if (!algorithm || algorithm == bytes->algorithm)
		return ingest_bytes_digest(bytes, ret_digest, err);
	if (bytes->memory)
		return digest_of(algorithm, bytes->memory, (size_t)bytes->held_bytes, ret_digest,
				 err);
	if (digest_file(bytes->fd, bytes->held_bytes, ctx, algorithm, &state, err) < 0)
		return -1;
	r = digest_state_peek(state, ret_digest, err);
	digest_state_free(state);
	return r;
}

/* Only where nothing is held can one begin; else it is computed when the ingest is opened. */
static int start_digest(struct ingest_bytes *bytes, struct err *err)
{
	if (bytes->running)
		return 0;
	if (bytes->held_bytes)
		return err_set(err, ERR_INTERNAL, "the digest of the bytes held is unknown");
	return digest_state_new(bytes->algorithm, &bytes->running, err);
}

void ingest_bytes_expect(struct ingest_bytes *bytes, enum digest_algorithm algorithm)
{
	struct err err;

	if (bytes->held_bytes || algorithm == bytes->algorithm)
		return;
	forget_digest(bytes);
	bytes->algorithm = algorithm;
	/* Without memory, who asks for the digest next is told. */
	if (start_digest(bytes, &err) < 0)
		bytes->running = NULL;
}

/* --- open, create, close --------------------------------------------------------------------------- */

static int digest_memory(struct ingest_bytes *bytes, struct err *err)
{
	if (digest_state_new(bytes->algorithm, &bytes->running, err) < 0) {
		bytes->running = NULL;
		return -1;
	}
	if (digest_state_add(bytes->running, bytes->memory, (size_t)bytes->held_bytes, err) == 0)
		return 0;
	forget_digest(bytes);
	return -1;
}

int ingest_bytes_open(struct ingest_bytes *bytes, struct ctx *ctx, int dirfd, const char *name,
		      enum digest_algorithm algorithm, struct err *err)
{
	if (algorithm && bytes->algorithm != algorithm) {
		forget_digest(bytes);
		bytes->algorithm = algorithm;
	}
	if (!bytes->algorithm)
		bytes->algorithm = DIGEST_SHA256;
	if (bytes->exists) {
		bytes->fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
		if (bytes->fd < 0)
			return err_sys(err, "open 'ingests/%s'", name);
	}
	if (bytes->running)
		return 0;
	if (bytes->memory)
		return digest_memory(bytes, err);
	return digest_file(bytes->fd, bytes->held_bytes, ctx, bytes->algorithm, &bytes->running,
			   err);
}

int ingest_bytes_create(struct ingest_bytes *bytes, int dirfd, const char *name, struct err *err)
{
	int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, "make 'ingests/%s'", name);
	bytes->fd = fd;
	bytes->exists = true;
	return 0;
}

int ingest_bytes_hold(struct ingest_bytes *bytes, struct err *err)
{
	bytes->memory = malloc(INGEST_MEMORY_BYTES);
	return bytes->memory ? 0 : err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an ingest");
}

void ingest_bytes_forget(struct ingest_bytes *bytes)
{
	free(bytes->memory);
	bytes->memory = NULL;
	bytes->held_bytes = 0;
	forget_digest(bytes);
}

int ingest_bytes_spill(struct ingest_bytes *bytes, struct err *err)
{
	uint64_t done = 0;
	int r = 0;

	while (r == 0 && done < bytes->held_bytes) {
		const struct iovec rest = {bytes->memory + done,
					   (size_t)(bytes->held_bytes - done)};
		ssize_t n = pwritev(bytes->fd, &rest, 1, (off_t)done);

		if (n >= 0)
			done += (uint64_t)n;
		else if (errno != EINTR)
			r = err_sys(err, "write at byte %llu", (unsigned long long)done);
	}
	if (r < 0) {
		/* Memory has it all; of a kill, this file would be what is left. */
		(void)!ftruncate(bytes->fd, 0);
		return -1;
	}
	free(bytes->memory);
	bytes->memory = NULL;
	return 0;
}

void ingest_bytes_give_back(int dirfd, const char *name, const struct stat *st)
{
	CLEANUP(close_fd) int fd = -1;

	/* What the file system itself rounds up is less. */
	if (st->st_blocks * 512 <= st->st_size + (1 << 20))
		return;
	fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || ftruncate(fd, st->st_size) < 0)
		return;
}

void ingest_bytes_close(struct ingest_bytes *bytes)
{
	struct err ignored;

	/* Nobody may go on for long: many that were left would hold what nobody sees. */
	if (bytes->fd >= 0 && ingest_bytes_trim(bytes, &ignored) < 0)
		bytes->reserved_bytes = 0;
	close_fd(&bytes->fd);
	bytes->fd = -1;
}

/* --- writing -------------------------------------------------------------------------------------- */

/* It only saves time: what it cannot do the write can, or has a reason not to. */
static void reserve(struct ingest_bytes *bytes, size_t len, uint64_t total_bytes)
{
	uint64_t need = bytes->held_bytes + len;
	uint64_t step;

	if (total_bytes < RESERVE_FROM || need <= bytes->reserved_bytes || need > total_bytes)
		return;
	if (bytes->reserved_bytes < bytes->held_bytes)
		bytes->reserved_bytes = bytes->held_bytes;
	step = total_bytes - bytes->reserved_bytes;
	if (step > RESERVE_BYTES)
		step = RESERVE_BYTES;
	if (fallocate(bytes->fd, FALLOC_FL_KEEP_SIZE, (off_t)bytes->reserved_bytes, (off_t)step) ==
	    0)
		bytes->reserved_bytes += step;
}

/*
 * Give the disk its work early, so that a commit finds little left to sync: what there is of a whole blob at once, and
 * before it is hashed. An error shows itself then: here nothing waits.
 */
static void flush(struct ingest_bytes *bytes, uint64_t total_bytes)
{
	uint64_t len = bytes->held_bytes - bytes->flushed_bytes;

	if (len == 0 || (len < FLUSH_BYTES && bytes->held_bytes != total_bytes))
		return;
	(void)sync_file_range(bytes->fd, (off_t)bytes->flushed_bytes, (off_t)len,
			      SYNC_FILE_RANGE_WRITE);
	bytes->flushed_bytes = bytes->held_bytes;
}

/* Adds to the digest the first @len bytes of @pieces. */
static int hash(struct ingest_bytes *bytes, const struct iovec *pieces, size_t len, struct err *err)
{
	for (; len > 0; pieces++) {
		size_t here = pieces->iov_len < len ? pieces->iov_len : len;

		if (digest_state_add(bytes->running, pieces->iov_base, here, err) < 0)
			return -1;
		len -= here;
	}
	return 0;
}

/* Drops the first @len bytes of @n pieces. Return: the first piece that is left. */
static size_t drop_front(struct iovec *pieces, size_t n, size_t len)
{
	size_t i = 0;

	while (i < n && len >= pieces[i].iov_len)
		len -= pieces[i++].iov_len;
	if (i < n) {
		pieces[i].iov_base = (char *)pieces[i].iov_base + len;
		pieces[i].iov_len -= len;
	}
	return i;
}

/* Written first and hashed then, so that the digest is of what is held, whatever happens. */
static int append_batch(struct ingest_bytes *bytes, struct iovec *pieces, size_t n,
			uint64_t total_bytes, struct err *err)
{
	size_t i = drop_front(pieces, n, 0);

	while (i < n) {
		ssize_t written =
			pwritev(bytes->fd, pieces + i, (int)(n - i), (off_t)bytes->held_bytes);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return err_sys(err, "write at byte %llu",
				       (unsigned long long)bytes->held_bytes);
		bytes->held_bytes += (uint64_t)written;
		bytes->digest_known = false;
		flush(bytes, total_bytes);
		if (hash(bytes, pieces + i, (size_t)written, err) < 0) {
			forget_digest(bytes);
			return -1;
		}
		i += drop_front(pieces + i, n - i, (size_t)written);
	}
	return 0;
}

/* There is room for them. */
static int append_memory(struct ingest_bytes *bytes, const struct iovec *pieces, size_t n,
			 struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (digest_state_add(bytes->running, pieces[i].iov_base, pieces[i].iov_len, err) <
		    0) {
			forget_digest(bytes);
			return -1;
		}
		if (pieces[i].iov_len)
			memcpy(bytes->memory + bytes->held_bytes, pieces[i].iov_base,
			       pieces[i].iov_len);
		bytes->held_bytes += pieces[i].iov_len;
		bytes->digest_known = false;
	}
	return 0;
}

int ingest_bytes_append(struct ingest_bytes *bytes, const struct iovec *pieces, size_t n,
			uint64_t total_bytes, struct err *err)
{
	struct iovec batch[BATCH_PIECES];
	size_t len = 0;
	int r = start_digest(bytes, err);

	if (bytes->memory)
		return r < 0 ? -1 : append_memory(bytes, pieces, n, err);
	for (size_t i = 0; i < n; i++)
		len += pieces[i].iov_len;
	reserve(bytes, len, total_bytes);
	for (size_t i = 0; r == 0 && i < n; i += BATCH_PIECES) {
		size_t n_batch = n - i < BATCH_PIECES ? n - i : BATCH_PIECES;

		for (size_t k = 0; k < n_batch; k++)
			batch[k] = pieces[i + k];
		r = append_batch(bytes, batch, n_batch, total_bytes, err);
	}
	return r;
}

int ingest_bytes_truncate(struct ingest_bytes *bytes, struct err *err)
{
	if (!bytes->memory && ftruncate(bytes->fd, 0) < 0)
		return err_sys(err, "drop the bytes held");
	bytes->held_bytes = 0;
	bytes->flushed_bytes = 0;
	bytes->reserved_bytes = 0;
	forget_digest(bytes);
	return start_digest(bytes, err);
}

int ingest_bytes_trim(struct ingest_bytes *bytes, struct err *err)
{
	if (bytes->reserved_bytes <= bytes->held_bytes)
		return 0;
	if (ftruncate(bytes->fd, (off_t)bytes->held_bytes) < 0)
		return err_sys(err, "give back reserved room");
	bytes->reserved_bytes = 0;
	return 0;
}
