/* SPDX-License-Identifier: Apache-2.0 */
#include "content/source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs.h"
#include "content/blob_files.h"

/* "sha256/" and a name */
#define NAME_BYTES (2 * (NAME_MAX + 1))

/* --- finding it ------------------------------------------------------------------------------------ */

/* Return: 1 with a directory, 0 when nothing of that name is there; or -1. */
static int enter(int dir_fd, const char *dir, const char *name, int *ret_fd, struct err *err)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd >= 0) {
		*ret_fd = fd;
		return 1;
	}
	if (errno == ENOENT)
		return 0;
	if ((errno == ENOTDIR || errno == ELOOP) &&
	    fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "'%s/%s' is a symbolic link: give the directory that it leads to",
			       dir, name);
	return err_sys(err, "open '%s/%s'", dir, name);
}

static int count_entry(void *arg, const char *name, unsigned char type, struct err *err)
{
	(void)name;
	(void)type;
	(void)err;
	++*(uint64_t *)arg;
	return 0;
}

/* Only to be told of, so that a failure is none. */
static uint64_t count_ingests(int dir_fd)
{
	struct err ignored;
	uint64_t n = 0;

	return fs_each_entry(dir_fd, "ingest", count_entry, &n, &ignored) < 0 ? 0 : n;
}

int source_open(const char *dir, struct source *ret_source, struct err *err)
{
	CLEANUP(close_fd) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(close_fd) int own_fd = -1;
	int blobs_fd = -1, r;

	if (dir_fd < 0) {
		(void)err_sys(err, "open '%s'", dir);
		/* A wrong name does not get right by itself. */
		if (err->sys_errno == ENOENT || err->sys_errno == ENOTDIR ||
		    err->sys_errno == ELOOP || err->sys_errno == ENAMETOOLONG)
			err->code = ERR_FAILED_PRECONDITION;
		return -1;
	}
	r = enter(dir_fd, dir, "blobs", &blobs_fd, err);
	if (r == 0) {
		r = enter(dir_fd, dir, SOURCE_CONTAINERD_DIR, &own_fd, err);
		if (r == 1)
			r = enter(own_fd, SOURCE_CONTAINERD_DIR, "blobs", &blobs_fd, err);
	}
	if (r < 0)
		return -1;
	if (r == 0)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "'%s' is no content directory: there is no 'blobs' in it, nor in "
			       "'" SOURCE_CONTAINERD_DIR "'",
			       dir);
	ret_source->blobs_fd = blobs_fd;
	ret_source->n_ingests = count_ingests(own_fd >= 0 ? own_fd : dir_fd);
	return 0;
}

void source_close(struct source *source)
{
	close_fd(&source->blobs_fd);
}

/* --- walking it ------------------------------------------------------------------------------------ */

struct walk {
	const struct source *source;
	const char *algorithm;
	int dir_fd;
	source_walk_fn fn;
	void *arg;
};

static int pass_problem(const struct walk *walk, const char *name, const char *problem,
			struct err *err)
{
	const struct source_file file = {.name = name, .problem = problem};

	return walk->fn(walk->arg, &file, err);
}

static int walk_file(void *arg, const char *entry, unsigned char type, struct err *err)
{
	const struct walk *walk = arg;
	struct source_file file = {0};
	char name[NAME_BYTES];
	struct stat st;

	(void)type;
	snprintf(name, sizeof(name), "%s/%s", walk->algorithm, entry);
	file.name = name;
	if (blob_path_parse(walk->algorithm, entry, &file.digest) < 0)
		return pass_problem(walk, name, "is not named after a digest", err);
	if (fstatat(walk->dir_fd, entry, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT)
			return 0;
		return err_sys(err, "look at 'blobs/%s'", name);
	}
	if (!S_ISREG(st.st_mode))
		return pass_problem(walk, name, "is no regular file", err);
	file.size_bytes = (uint64_t)st.st_size;
	return walk->fn(walk->arg, &file, err);
}

static bool is_known(const char *name)
{
	return strcmp(name, "sha256") == 0 || strcmp(name, "sha512") == 0;
}

static int walk_algorithm(void *arg, const char *entry, unsigned char type, struct err *err)
{
	struct walk *walk = arg;
	CLEANUP(close_fd) int fd = -1;
	int r;

	(void)type;
	if (!is_known(entry))
		return pass_problem(walk, entry, "is no algorithm that is known here", err);
	r = enter(walk->source->blobs_fd, "blobs", entry, &fd, err);
	if (r <= 0)
		return r;
	walk->algorithm = entry;
	walk->dir_fd = fd;
	return fs_each_entry(fd, ".", walk_file, walk, err);
}

int source_walk(const struct source *source, source_walk_fn fn, void *arg, struct err *err)
{
	struct walk walk = {.source = source, .fn = fn, .arg = arg};

	return fs_each_entry(source->blobs_fd, ".", walk_algorithm, &walk, err);
}

int source_open_file(const struct source *source, const struct digest *digest, int *ret_fd,
		     struct stat *ret_stat, struct err *err)
{
	CLEANUP(close_fd) int dir_fd = -1;
	CLEANUP(close_fd) int fd = -1;
	char path[BLOB_PATH_MAX], *name;
	struct stat st;

	blob_path(digest, path);
	name = strchr(path, '/') + 1;
	name[-1] = '\0';
	/* In two steps, so that neither follows a link. */
	if (fs_open_dir(source->blobs_fd, path, &dir_fd, err) < 0)
		return -1;
	/* Looked at first: opening a device may do something. */
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 1 : err_sys(err, "look at it");
	if (S_ISREG(st.st_mode))
		fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (S_ISREG(st.st_mode) && fd < 0)
		return errno == ENOENT ? 1 : err_sys(err, "open");
	if (fd >= 0 && fstat(fd, &st) < 0)
		return err_sys(err, "look at it");
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_FAILED_PRECONDITION, "is no regular file");
	*ret_fd = take_fd(&fd);
	*ret_stat = st;
	return 0;
}
