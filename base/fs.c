/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs_internal.h"

#define DIR_FLAGS        (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
/* What fs_read_file() reads first from a file that, as those of /proc do, claims to be empty. */
#define READ_FIRST_BYTES 4096

void fs_reader_start(struct fs_reader *reader, int fd)
{
	reader->fd = fd;
	reader->pos = 0;
	reader->len = 0;
	reader->next = 0;
}

int fs_reader_seek(struct fs_reader *reader, off_t next)
{
	reader->pos = 0;
	reader->len = 0;
	reader->next = next;
	return lseek(reader->fd, next, SEEK_SET) < 0 ? -1 : 0;
}

int fs_reader_next(struct fs_reader *reader, const struct dirent64 **ret_entry)
{
	const struct dirent64 *entry;

	do {
		if (reader->pos == reader->len) {
			ssize_t n = getdents64(reader->fd, reader->buf, sizeof(reader->buf));

			/* ENOENT: somebody deleted the directory while we hold it open. */
			if (n < 0 && errno != ENOENT)
				return -1;
			if (n <= 0)
				return 0;
			reader->pos = 0;
			reader->len = (size_t)n;
		}
		entry = (const struct dirent64 *)(const void *)(reader->buf + reader->pos);
		reader->pos += entry->d_reclen;
		reader->next = entry->d_off;
	} while (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);

	*ret_entry = entry;
	return 1;
}

int fs_step(int dirfd, const char *name)
{
	/* The kernel refuses the mount point in the same step that would enter it: no race. */
	struct open_how how = {
		.flags = DIR_FLAGS,
		.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS,
	};

	return (int)syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
}

int fs_open_dir(int dirfd, const char *name, int *ret_fd, struct err *err)
{
	int fd = openat(dirfd, name, DIR_FLAGS);

	if (fd < 0)
		return err_sys(err, "open directory '%s'", name);
	*ret_fd = fd;
	return 0;
}

int fs_sync(int fd, const char *what, struct err *err)
{
	if (fsync(fd) < 0)
		return err_sys(err, "sync '%s'", what);
	return 0;
}

/* Durable are the new directory's mode, then its name in the parent. */
static int make_dir(int parent_fd, const char *name, mode_t mode, const char *path, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	CLEANUP(close_fd) int readable_parent_fd = -1;

	if (mkdirat(parent_fd, name, mode) < 0) {
		/* Somebody may have been faster; what stands there is looked at by the caller. */
		return errno == EEXIST ? 0 : err_sys(err, "make directory '%s'", path);
	}
	if (fs_open_dir(parent_fd, name, &fd, err) < 0 ||
	    fs_open_dir(parent_fd, ".", &readable_parent_fd, err) < 0)
		return err_wrap(err, "make directory '%s'", path);
	/* The mode asked for, whatever the umask. */
	if (fchmod(fd, mode) < 0)
		return err_sys(err, "set mode of directory '%s'", path);
	if (fs_sync(fd, path, err) < 0)
		return -1;
	return fs_sync(readable_parent_fd, path, err);
}

/*
 * Links such as /var/run are the administrator's, and followed. A directory in which others may write
 * may hold links of theirs: none is followed there.
 */
static int may_follow_links(int dirfd)
{
	struct stat st;

	if (fstat(dirfd, &st) < 0)
		return 0;
	return (st.st_uid == 0 || st.st_uid == geteuid()) && !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static int enter_dir(int parent_fd, const char *name)
{
	int fd = openat(parent_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int saved;

	if (fd >= 0 || (errno != ENOTDIR && errno != ELOOP))
		return fd;
	saved = errno;
	if (may_follow_links(parent_fd))
		return openat(parent_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	errno = saved;
	return -1;
}

int fs_make_dirs(const char *path, mode_t mode, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	char name[NAME_MAX + 1];
	const char *rest = path;

	if (path[0] != '/')
		return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not an absolute path", path);
	fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, "open '/'");

	for (;;) {
		size_t len;
		int next;

		rest += strspn(rest, "/");
		len = strcspn(rest, "/");
		if (len == 0)
			return 0;
		if (len > NAME_MAX)
			return err_sysno(err, ENAMETOOLONG, "make directory '%s'", path);
		memcpy(name, rest, len);
		name[len] = '\0';
		rest += len;

		next = enter_dir(fd, name);
		if (next < 0 && errno == ENOENT) {
			if (make_dir(fd, name, mode, path, err) < 0)
				return -1;
			next = enter_dir(fd, name);
		}
		if (next < 0)
			return err_sys(err, "make directory '%s': enter '%s'", path, name);
		close_fd(&fd);
		fd = next;
	}
}

int fs_write_all(int fd, const void *bytes, size_t size)
{
	const char *data = bytes;

	while (size > 0) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Fills the temporary file and renames it; the caller removes it when this fails. */
static int fill_and_rename(int fd, int dirfd, const char *temp, const char *name, mode_t mode,
			   const void *data, size_t size, struct err *err)
{
	if (fchmod(fd, mode) < 0)
		return err_sys(err, "set mode");
	if (fs_write_all(fd, data, size) < 0)
		return err_sys(err, "write %zu bytes", size);
	if (fs_sync(fd, temp, err) < 0)
		return -1;
	if (renameat(dirfd, temp, dirfd, name) < 0)
		return err_sys(err, "rename '%s'", temp);
	return 0;
}

int fs_write_file(int dirfd, const char *name, mode_t mode, const void *data, size_t size,
		  struct err *err)
{
	CLEANUP(close_fd) int dir_to_sync = -1;
	CLEANUP(close_fd) int fd = -1;
	uint64_t random;
	char temp[32];

	if (name[0] == '\0' || strchr(name, '/'))
		return err_set(err, ERR_INVALID_ARGUMENT, "write '%s': not a name in a directory",
			       name);
	/* Opened first: once the file has its name, running out of descriptors must not matter. */
	if (fs_open_dir(dirfd, ".", &dir_to_sync, err) < 0)
		return err_wrap(err, "write '%s'", name);
	do {
		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			return err_sys(err, "write '%s': getrandom", name);
		snprintf(temp, sizeof(temp), ".tmp-%016" PRIx64, random);
		fd = openat(dir_to_sync, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd < 0)
		return err_sys(err, "write '%s': create '%s'", name, temp);

	if (fill_and_rename(fd, dir_to_sync, temp, name, mode, data, size, err) < 0) {
		/* The first failure is the one to report. */
		(void)unlinkat(dir_to_sync, temp, 0);
		return err_wrap(err, "write '%s'", name);
	}
	return fs_sync(dir_to_sync, name, err);
}

int fs_read_file(int dirfd, const char *name, size_t cap_bytes, char **ret_data, size_t *ret_size,
		 struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	CLEANUP(free_ptr) char *data = NULL;
	size_t size = 0, room = READ_FIRST_BYTES;
	struct stat st;

	/* Without O_NONBLOCK, a FIFO of that name would hold us until somebody writes. */
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, "read '%s'", name);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INTERNAL, "read '%s': not a regular file", name);
	if ((uint64_t)st.st_size > cap_bytes)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "read '%s': larger than %zu bytes",
			       name, cap_bytes);
	/* One byte more than is said to be there, so that the read after it finds the end. */
	if (st.st_size > 0)
		room = (size_t)st.st_size + 1;

	for (;;) {
		char *larger;
		ssize_t n;

		larger = room < SIZE_MAX / 2 ? realloc(data, room + 1) : NULL;
		if (!larger)
			return err_sysno(err, ENOMEM, "read '%s'", name);
		data = larger;
		while (size < room) {
			n = read(fd, data + size, room - size);
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return err_sys(err, "read '%s'", name);
			if (n == 0) {
				data[size] = '\0';
				*ret_data = take_ptr(data);
				*ret_size = size;
				return 0;
			}
			size += (size_t)n;
			if (size > cap_bytes)
				return err_set(err, ERR_RESOURCE_EXHAUSTED,
					       "read '%s': larger than %zu bytes", name, cap_bytes);
		}
		room *= 2;
	}
}

int fs_each_entry(int dirfd, const char *name, fs_entry_fn fn, void *arg, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	const struct dirent64 *entry;
	struct fs_reader reader;
	int rc;

	if (fs_open_dir(dirfd, name, &fd, err) < 0)
		return -1;
	fs_reader_start(&reader, fd);
	while ((rc = fs_reader_next(&reader, &entry)) > 0) {
		rc = fn(arg, entry->d_name, entry->d_type, err);
		if (rc != 0)
			return rc;
	}
	return rc < 0 ? err_sys(err, "read directory '%s'", name) : 0;
}

static int found_entry(void *arg, const char *name, unsigned char type, struct err *err)
{
	(void)arg;
	(void)name;
	(void)type;
	(void)err;
	return 1;
}

int fs_is_empty(int dirfd, const char *name, struct err *err)
{
	int found = fs_each_entry(dirfd, name, found_entry, NULL, err);

	return found < 0 ? -1 : !found;
}
