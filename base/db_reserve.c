/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/db_internal.h"
#include "base/fs.h"

/* Of the WAL's index, which sqlite maps in pieces of so much; the second one is for a WAL of 4062 frames. */
#define SHM_BYTES (32 * 1024)

static char *beside(const char *path, const char *suffix)
{
	char *name;

	return asprintf(&name, "%s%s", path, suffix) < 0 ? NULL : name;
}

/* Overwrites the first @size bytes, which takes no room, and makes that durable. */
static int wipe(int fd, off_t size)
{
	static const char zeros[64 * 1024];
	ssize_t n;

	for (off_t at = 0; at < size; at += n) {
		size_t want =
			size - at < (off_t)sizeof(zeros) ? (size_t)(size - at) : sizeof(zeros);

		n = pwrite(fd, zeros, want, at);
		if (n < 0)
			return -1;
	}
	return fdatasync(fd);
}

void db_reserve_take(const char *path)
{
	CLEANUP(free_ptr) char *reserve = beside(path, "-reserve");
	CLEANUP(free_ptr) char *wal = beside(path, "-wal");
	CLEANUP(close_fd) int fd = -1;
	struct stat st;

	if (!reserve || !wal)
		return;
	/* A WAL that is in use has room of its own. */
	if (stat(path, &st) < 0 || st.st_size == 0 || (stat(wal, &st) == 0 && st.st_size > 0)) {
		(void)unlink(reserve);
		return;
	}
	fd = open(reserve, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 2 * SHM_BYTES ||
	    ftruncate(fd, st.st_size - 2 * SHM_BYTES) < 0 ||
	    wipe(fd, st.st_size - 2 * SHM_BYTES) < 0 || rename(reserve, wal) < 0)
		(void)unlink(reserve);
}

void db_reserve_keep(const char *path)
{
	CLEANUP(free_ptr) char *reserve = beside(path, "-reserve");
	CLEANUP(free_ptr) char *wal = beside(path, "-wal");
	CLEANUP(close_fd) int fd = -1;

	/* Where that fails, the WAL is found as a kill would have left it. */
	if (!reserve || !wal || rename(wal, reserve) < 0)
		return;
	CRASH_POINT("db.log-kept");
	/* Where nothing can be written, sqlite wants one, if an empty one, to read. */
	fd = open(wal, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

int db_shm_hold(const char *path, int *ret_fd, struct err *err)
{
	CLEANUP(free_ptr) char *shm = beside(path, "-shm");
	CLEANUP(close_fd) int fd = -1;

	if (!shm)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a path");
	fd = open(shm, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, "open '%s'", shm);
	/* A file system that cannot do this may still have room. */
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, SHM_BYTES) < 0 &&
	    (errno == ENOSPC || errno == EDQUOT))
		return err_sys(err, "make room for '%s'", shm);
	*ret_fd = take_fd(&fd);
	return 0;
}
