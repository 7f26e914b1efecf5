/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/content/blobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "content/blob_files.h"
#include "tests/support/test.h"

struct digest blobs_digest(const char *text)
{
	struct digest digest;
	struct err err;

	assert_ok(digest_of(DIGEST_SHA256, text, strlen(text), &digest, &err), &err);
	return digest;
}

const char *blobs_path(const char *dir, const char *text, char *buf)
{
	struct digest digest = blobs_digest(text);
	char path[BLOB_PATH_MAX];

	snprintf(buf, 512, "%s/blobs/%s", dir, blob_path(&digest, path));
	return buf;
}

static void make(int fd, const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s%s", dir, name);
	assert_true(mkdirat(fd, path, 0700) == 0 || errno == EEXIST);
}

void blobs_make_dir(int fd, const char *dir)
{
	make(fd, dir, "");
	make(fd, dir, "/blobs");
	make(fd, dir, "/blobs/sha256");
	make(fd, dir, "/blobs/sha512");
}

void blobs_write(int fd, const char *path, const char *text)
{
	int file_fd;

	(void)unlinkat(fd, path, 0);
	file_fd = openat(fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	assert_true(file_fd >= 0);
	assert_int_equal(write(file_fd, text, strlen(text)), strlen(text));
	assert_int_equal(close(file_fd), 0);
}

void blobs_add(int fd, const char *dir, const char *text)
{
	char path[512];

	blobs_write(fd, blobs_path(dir, text, path), text);
}
