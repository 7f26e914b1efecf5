/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/db_internal.h"

/* Of the WAL's index, which sqlite maps in pieces of so much; the second one is for a WAL of 4062 frames. */
#define SHM_BYTES (32 * 1024)

int db_shm_hold(const char *path, int *ret_fd, struct err *err)
{
	CLEANUP(free_ptr) char *shm = NULL;
	CLEANUP(close_fd) int fd = -1;

	if (asprintf(&shm, "%s-shm", path) < 0)
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

/*
 * The byte of the index that every process that has the database open holds a lock of (sqlite's os_unix.c,
 * UNIX_SHM_DMS): who could lock it for writing is alone.
 */
#define SHM_ALONE_BYTE   128
#define WAL_HEADER_BYTES 32

void db_wal_void(const char *path, int shm_fd)
{
	static const char zeros[WAL_HEADER_BYTES];
	struct flock alone = {.l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = SHM_ALONE_BYTE,
			      .l_len = 1};
	CLEANUP(free_ptr) char *wal = NULL;
	CLEANUP(close_fd) int fd = -1;

	if (shm_fd < 0 || fcntl(shm_fd, F_SETLK, &alone) < 0 || asprintf(&wal, "%s-wal", path) < 0)
		return;
	fd = open(wal, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	/* Who puts an older copy of the database back would otherwise have the newer log replayed on it. */
	if (fd >= 0 && pwrite(fd, zeros, sizeof(zeros), 0) == (ssize_t)sizeof(zeros))
		(void)fdatasync(fd);
	CRASH_POINT("db.log-voided");
}
