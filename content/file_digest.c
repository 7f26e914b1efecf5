/* SPDX-License-Identifier: Apache-2.0 */
#include "content/file_digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* One read. Few are under way at a time, so that it should be worth the disk's while. */
#define PIECE_BYTES ((size_t)1 << 20)
/* What reads past the page cache must be aligned to; 4 KiB is enough for every disk there is. */
#define ALIGN_BYTES ((size_t)4096)

/* Enough for all of a small file, so that not every one of many touches a mebibyte. */
static size_t piece_size(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size >= PIECE_BYTES)
		return PIECE_BYTES;
	/* One more block, so that the read of the end finds it. */
	return ((size_t)st.st_size / ALIGN_BYTES + 1) * ALIGN_BYTES;
}

static void set_direct(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	/* Where that does not work, reads go through the cache. */
	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

/* Return: as read(2). */
static ssize_t read_piece(int fd, void *buf, size_t size, uint64_t offset)
{
	for (;;) {
		ssize_t n = pread(fd, buf, size, (off_t)offset);
		int flags;

		if (n >= 0 || (errno != EINTR && errno != EINVAL))
			return n;
		if (errno == EINTR)
			continue;
		/* The file system wants another alignment, or does not read past the cache after all. */
		flags = fcntl(fd, F_GETFL);
		if (flags < 0 || !(flags & O_DIRECT)) {
			errno = EINVAL;
			return -1;
		}
		set_direct(fd, false);
	}
}

static int write_piece(int fd, const char *data, size_t size, uint64_t offset, struct err *err)
{
	while (size > 0) {
		ssize_t n = pwrite(fd, data, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, "write the copy");
		data += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int take_piece(const struct file_digest_options *options, struct digest_state *state,
		      const void *data, size_t size, uint64_t offset, struct err *err)
{
	if (digest_state_add(state, data, size, err) < 0)
		return -1;
	if (options->copy_fd >= 0 && write_piece(options->copy_fd, data, size, offset, err) < 0)
		return -1;
	if (options->done_bytes)
		atomic_fetch_add_explicit(options->done_bytes, size, memory_order_relaxed);
	if (options->pace && pace_take(options->pace, size, options->ctx, err) < 0)
		return -1;
	return ctx_check(options->ctx, err);
}

static int read_all(int fd, const struct file_digest_options *options, struct digest_state *state,
		    uint64_t *ret_size_bytes, struct err *err)
{
	size_t size = piece_size(fd);
	CLEANUP(free_ptr) void *buf = aligned_alloc(ALIGN_BYTES, size);
	uint64_t offset = 0;
	ssize_t n;

	if (!buf)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to read a file");
	while ((n = read_piece(fd, buf, size, offset)) > 0) {
		if (take_piece(options, state, buf, (size_t)n, offset, err) < 0)
			return -1;
		offset += (uint64_t)n;
	}
	if (n < 0) {
		(void)err_sys(err, "read at byte %llu", (unsigned long long)offset);
		return 1;
	}
	*ret_size_bytes = offset;
	return 0;
}

int file_digest(int fd, enum digest_algorithm algorithm, const struct file_digest_options *options,
		struct digest *ret_digest, uint64_t *ret_size_bytes, struct err *err)
{
	struct digest_state *state = NULL;
	uint64_t size_bytes = 0;
	int r;

	if (digest_state_new(algorithm, &state, err) < 0)
		return -1;
	if (options->direct)
		set_direct(fd, true);
	else
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	r = read_all(fd, options, state, &size_bytes, err);
	if (r == 0 && digest_state_peek(state, ret_digest, err) < 0)
		r = -1;
	digest_state_free(state);
	if (options->direct) {
		int flags = fcntl(fd, F_GETFL);

		if (flags >= 0 && !(flags & O_DIRECT))
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		set_direct(fd, false);
	}
	if (r == 0)
		*ret_size_bytes = size_bytes;
	return r;
}
