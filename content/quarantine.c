/* SPDX-License-Identifier: Apache-2.0 */
#include "content/quarantine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/labels.h"
#include "content/blob_files.h"
#include "content/local.h"
#include "proxy/content_proxy.h"

#define DIR_NAME       "quarantine"
/* The same blob may be damaged again and again. */
#define COPIES_MAX     100
/* For a daemon that answers within milliseconds. */
#define CALL_NS        (30 * INT64_C(1000000000))
#define ARENA_BYTES    (4 * LABELS_MAX_BYTES)
#define NAME_MAX_BYTES (BLOB_PATH_MAX + 8)

/* --- the bytes ------------------------------------------------------------------------------------- */

static int make_dir(int parent_fd, const char *name, int *ret_fd, struct err *err)
{
	if (mkdirat(parent_fd, name, 0700) < 0 && errno != EEXIST)
		return err_sys(err, "make directory '%s'", name);
	if (fs_sync(parent_fd, "the directory above it", err) < 0)
		return -1;
	return fs_open_dir(parent_fd, name, ret_fd, err);
}

/* Has @name the very file already? */
static bool is_same(int dir_fd, const char *name, const struct stat *file)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == file->st_dev &&
	       st.st_ino == file->st_ino;
}

static int link_bytes(int dir_fd, const char *hex, int fd, struct err *err)
{
	char from[64], name[NAME_MAX_BYTES];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(err, "look at the file");
	/* By what was read, not by a name that may be another file's by now. */
	snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	snprintf(name, sizeof(name), "%s", hex);
	for (int i = 1; i <= COPIES_MAX; i++) {
		if (linkat(AT_FDCWD, from, dir_fd, name, AT_SYMLINK_FOLLOW) == 0 ||
		    (errno == EEXIST && is_same(dir_fd, name, &st)))
			return fs_sync(dir_fd, DIR_NAME, err);
		if (errno != EEXIST)
			return err_sys(err, "link '%s'", name);
		snprintf(name, sizeof(name), "%s.%d", hex, i);
	}
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "there are %d of that name already",
		       COPIES_MAX);
}

/* "quarantine/<algorithm>/<hex>" gets the file, durably. */
static int keep_bytes(const struct quarantine *quarantine, const struct digest *digest, int fd,
		      struct err *err)
{
	CLEANUP(close_fd) int dir_fd = -1;
	CLEANUP(close_fd) int algorithm_fd = -1;
	char path[BLOB_PATH_MAX], *hex;

	blob_path(digest, path);
	hex = strchr(path, '/');
	*hex++ = '\0';
	if (make_dir(quarantine->root_fd, DIR_NAME, &dir_fd, err) < 0 ||
	    make_dir(dir_fd, path, &algorithm_fd, err) < 0 ||
	    link_bytes(algorithm_fd, hex, fd, err) < 0)
		return err_wrap(err, "keep the bytes in '" DIR_NAME "'");
	return 0;
}

/* --- the blob -------------------------------------------------------------------------------------- */

/* Return: 1 if the blob has that file still (or none, with -1), 0 if it has got another; or -1. */
static int has_file_still(const struct quarantine *quarantine, const struct digest *digest, int fd,
			  struct err *err)
{
	char path[BLOB_PATH_MAX], name[NAME_MAX_BYTES];
	struct stat file, now;

	snprintf(name, sizeof(name), "blobs/%s", blob_path(digest, path));
	if (fd >= 0 && fstat(fd, &file) < 0)
		return err_sys(err, "look at the file");
	if (fstatat(quarantine->root_fd, name, &now, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 1 : err_sys(err, "look at '%s'", name);
	return fd >= 0 && file.st_dev == now.st_dev && file.st_ino == now.st_ino;
}

/* With a store, ours or the daemon's. Return: as quarantine_blob(). */
static int remove_from(const struct quarantine *quarantine, const struct content_store_ops *ops,
		       void *store, struct ctx *ctx, const struct digest *digest, int fd,
		       struct err *err)
{
	int there = has_file_still(quarantine, digest, fd, err);

	if (there <= 0)
		return there < 0 ? -1 : 1;
	return ops->remove(store, ctx, digest, err);
}

static int remove_opened(const struct quarantine *quarantine, struct ctx *ctx,
			 const struct digest *digest, int fd, struct err *err)
{
	const struct content_store_ops *ops = &local_content_ops;
	void *store;
	int r;

	if (ops->open(quarantine->call->root, quarantine->call->program_conf, &store, err) < 0)
		return -1;
	r = remove_from(quarantine, ops, store, ctx, digest, fd, err);
	ops->close(store);
	return r;
}

/*
 * All descriptors of a file share its locks in one process, and closing one drops them: the store's would leave our
 * reader without those that tell the next daemon of it. So there is no reader meanwhile.
 */
static int remove_here(const struct quarantine *quarantine, struct ctx *ctx,
		       const struct digest *digest, int fd, struct err *err)
{
	struct err failure = ERR_INIT;
	int r;

	blob_rows_close(*quarantine->rows);
	*quarantine->rows = NULL;
	r = remove_opened(quarantine, ctx, digest, fd, err);
	if (blob_rows_open_to_read(quarantine->db_path, quarantine->rows, &failure) < 0) {
		*err = failure;
		return -1;
	}
	return r;
}

/* The daemon at the socket may be another one: what it knows of the blob must be what the row says. */
static int check_daemon(const struct content_store_ops *ops, void *store, struct ctx *ctx,
			const struct blob_info *info, struct err *err)
{
	struct blob_info its;

	if (ops->info(store, ctx, &info->digest, &its, err) < 0)
		return -1;
	if (its.created_ns != info->created_ns || its.size_bytes != info->size_bytes)
		return err_set(err, ERR_FAILED_PRECONDITION, "it serves another root");
	return 0;
}

static int remove_there(const struct quarantine *quarantine, struct ctx *ctx,
			const struct blob_info *info, int fd, struct err *err)
{
	struct content_proxy_conf conf = {.address = (char *)(uintptr_t)quarantine->call->address};
	const struct content_store_ops *ops = &content_proxy_ops;
	void *store;
	int r;

	if (ops->open("", &conf, &store, err) < 0)
		return -1;
	r = check_daemon(ops, store, ctx, info, err);
	if (r == 0)
		r = remove_from(quarantine, ops, store, ctx, &info->digest, fd, err);
	ops->close(store);
	if (r < 0)
		return err_wrap(err, "ask the daemon at '%s'", conf.address);
	return r;
}

static int remove_blob(const struct quarantine *quarantine, const struct blob_info *info, int fd,
		       struct err *err)
{
	struct run_root root = RUN_ROOT_INIT;
	struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = monotonic_ns() + CALL_NS, .ns = ""};
	int r;

	arena_init(&arena, ARENA_BYTES);
	if (run_root_take(quarantine->call, &root, err) == 0) {
		r = remove_here(quarantine, &ctx, &info->digest, fd, err);
		run_root_done(&root);
	} else if (err->code == ERR_UNAVAILABLE) {
		r = remove_there(quarantine, &ctx, info, fd, err);
	} else {
		r = -1;
	}
	arena_done(&arena);
	return r;
}

int quarantine_blob(const struct quarantine *quarantine, const struct blob_info *info, int fd,
		    struct err *err)
{
	uint64_t size_bytes;
	int r;

	if (fd >= 0 && keep_bytes(quarantine, &info->digest, fd, err) < 0)
		return -1;
	CRASH_POINT("quarantine.kept");
	r = remove_blob(quarantine, info, fd, err);
	CRASH_POINT("quarantine.removed");
	if (r != 0)
		return r;
	/* Whoever was asked: this is what counts. */
	r = blob_rows_size(*quarantine->rows, &info->digest, &size_bytes, err);
	if (r > 0)
		return err_set(err, ERR_INTERNAL, "it was removed, and is there still");
	return r;
}
