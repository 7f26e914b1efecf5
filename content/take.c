/* SPDX-License-Identifier: Apache-2.0 */
#include "content/take.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/compiler.h"

static const char *const mode_names[] = {"auto", "reflink", "link", "copy"};

int take_mode_parse(const char *text, enum take_mode *ret_mode)
{
	for (size_t i = 0; i < ARRAY_LEN(mode_names); i++) {
		if (strcmp(text, mode_names[i]) != 0)
			continue;
		*ret_mode = (enum take_mode)i;
		return 0;
	}
	return -1;
}

static bool may(const struct taker *taker, enum take_mode how, const atomic_bool *not_here)
{
	return taker->mode == how ||
	       (taker->mode == TAKE_AUTO && !atomic_load_explicit(not_here, memory_order_relaxed));
}

static int make_file(struct taker *taker, const char *name, int *ret_fd, struct err *err)
{
	int fd = openat(taker->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			0600);

	if (fd < 0)
		return err_sys(err, "make '%s'", name);
	*ret_fd = fd;
	return 0;
}

/* Return: 0 with the file; 1 when it does not work here; or -1. */
static int try_reflink(struct taker *taker, int from_fd, const char *name, int *ret_fd,
		       struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	int saved;

	if (make_file(taker, name, &fd, err) < 0)
		return -1;
	if (ioctl(fd, FICLONE, from_fd) == 0) {
		*ret_fd = take_fd(&fd);
		return 0;
	}
	saved = errno;
	(void)unlinkat(taker->dir_fd, name, 0);
	if (saved != EOPNOTSUPP && saved != EXDEV && saved != EINVAL && saved != ENOTTY &&
	    saved != ETXTBSY)
		return err_sysno(err, saved, "reflink");
	if (taker->mode == TAKE_REFLINK)
		return err_sysno(err, saved, "there are no reflinks from there to here");
	atomic_store_explicit(&taker->no_reflink, true, memory_order_relaxed);
	return 1;
}

/* Could somebody write to it, whom we do not trust with what is in it? */
static bool is_ours_alone(const struct stat *st)
{
	return (st->st_uid == 0 || st->st_uid == geteuid()) &&
	       (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Return: 0 with the file, which is the same; 1: not this one; 2: it does not work here. */
static int try_link(struct taker *taker, int from_fd, const struct stat *st, const char *name,
		    struct err *err)
{
	char path[64];

	if (!is_ours_alone(st)) {
		(void)err_set(err, ERR_PERMISSION_DENIED,
			      "others can write to it, so that it is not linked to");
		return 1;
	}
	/* By what is open, not by its name, which may have become another file's. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", from_fd);
	if (linkat(AT_FDCWD, path, taker->dir_fd, name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	/* EPERM: an immutable one, or one of others that the kernel protects. */
	if (errno == EMLINK || errno == ENOENT || errno == EPERM) {
		(void)err_sys(err, "link");
		return 1;
	}
	(void)err_sys(err, "there are no hard links from there to here");
	atomic_store_explicit(&taker->no_link, true, memory_order_relaxed);
	return 2;
}

/* Return: as take_file(). */
static int compute(int fd, enum digest_algorithm algorithm,
		   const struct file_digest_options *options, struct taken *taken, struct err *err)
{
	return file_digest(fd, algorithm, options, &taken->digest, &taken->size_bytes, err);
}

static int copy(struct taker *taker, int from_fd, const struct stat *st, const char *name,
		enum digest_algorithm algorithm, struct file_digest_options *options,
		struct taken *taken, struct err *err)
{
	int r;

	if (make_file(taker, name, &taken->fd, err) < 0)
		return -1;
	/* In one piece on the disk, and told at once if it does not fit; where that is not known, writing will tell. */
	if (st->st_size > 0 && fallocate(taken->fd, 0, 0, st->st_size) < 0 && errno != EOPNOTSUPP &&
	    errno != EINTR)
		return err_sys(err, "make room for %llu bytes", (unsigned long long)st->st_size);
	options->copy_fd = taken->fd;
	options->direct = false;
	r = compute(from_fd, algorithm, options, taken, err);
	(void)posix_fadvise(from_fd, 0, 0, POSIX_FADV_DONTNEED);
	/* It was longer when it was looked at. */
	if (r == 0 && ftruncate(taken->fd, (off_t)taken->size_bytes) < 0)
		r = err_sys(err, "set the length of the copy");
	return r;
}

static int take(struct taker *taker, int from_fd, const struct stat *st, const char *name,
		enum digest_algorithm algorithm, struct file_digest_options *options,
		struct taken *taken, struct err *err)
{
	int r;

	if (may(taker, TAKE_REFLINK, &taker->no_reflink)) {
		r = try_reflink(taker, from_fd, name, &taken->fd, err);
		taken->how = TAKE_REFLINK;
		if (r <= 0)
			return r < 0 ? -1 : compute(taken->fd, algorithm, options, taken, err);
	}
	if (may(taker, TAKE_LINK, &taker->no_link)) {
		r = try_link(taker, from_fd, st, name, err);
		taken->how = TAKE_LINK;
		if (r == 0) {
			taken->fd = fcntl(from_fd, F_DUPFD_CLOEXEC, 3);
			if (taken->fd < 0)
				return err_sys(err, "open '%s'", name);
			return compute(taken->fd, algorithm, options, taken, err);
		}
		if (taker->mode == TAKE_LINK)
			return r == 1 ? 1 : -1;
	}
	taken->how = TAKE_COPY;
	return copy(taker, from_fd, st, name, algorithm, options, taken, err);
}

int take_file(struct taker *taker, int from_fd, const struct stat *st, const char *name,
	      enum digest_algorithm algorithm, const struct ctx *ctx, _Atomic uint64_t *done_bytes,
	      struct taken *ret_taken, struct err *err)
{
	struct file_digest_options options = {.ctx = ctx,
					      .done_bytes = done_bytes,
					      .direct = true,
					      .copy_fd = -1};
	struct taken taken = {.fd = -1};
	int r = take(taker, from_fd, st, name, algorithm, &options, &taken, err);

	if (r == 0) {
		*ret_taken = taken;
		return 0;
	}
	close_fd(&taken.fd);
	(void)unlinkat(taker->dir_fd, name, 0);
	return r;
}
