/* SPDX-License-Identifier: Apache-2.0 */
#include "content/blob_files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/log.h"

/* Open files kept. A pull reads the layers of one image, a few at a time. */
#define CACHE_MAX 64

/* Of a blob, until it takes the place of the one that there is. */
#define NEW_FILE "new"

#define DIR_MODE 0700

static const char *const algorithms[] = {"sha256", "sha512"};

/**
 * struct blob_files - see blob_files.h
 * @fd: the directory blobs
 * @dirs: one for each algorithm, to be synced
 * @ordered: one fsync makes everything durable that was done before it (see fs_is_ordered())
 * @mutex: guards what follows
 * @cache: @n_cached files, the one used last first
 * @n_removed: how often one was removed, so that who looked before does not keep what is gone
 */
struct blob_files {
	int fd;
	int dirs[ARRAY_LEN(algorithms)];
	bool ordered;
	struct blob_rows *rows;

	pthread_mutex_t mutex;
	struct blob *cache;
	unsigned int n_cached;
	unsigned long n_removed;

	atomic_bool in_doubt; /* see blob_files_doubt() */
};

const char *blob_path(const struct digest *digest, char *buf)
{
	/* "alg:hex" with the one character changed. */
	*strchr(digest_format(digest, buf), ':') = '/';
	return buf;
}

int blob_path_parse(const char *algorithm, const char *hex, struct digest *ret_digest)
{
	char text[DIGEST_TEXT_BYTES];
	struct err err;

	if (snprintf(text, sizeof(text), "%s:%s", algorithm, hex) >= (int)sizeof(text))
		return -1;
	return digest_parse(text, ret_digest, &err);
}

/* --- opening ------------------------------------------------------------------------------------- */

static int make_dir(int parent_fd, const char *name, int *ret_fd, struct err *err)
{
	if (mkdirat(parent_fd, name, DIR_MODE) == 0) {
		if (fsync(parent_fd) < 0)
			return err_sys(err, "sync the directory of '%s'", name);
	} else if (errno != EEXIST) {
		return err_sys(err, "make directory '%s'", name);
	}
	return fs_open_dir(parent_fd, name, ret_fd, err);
}

int blob_files_make_dirs(int root_fd, struct err *err)
{
	CLEANUP(close_fd) int blobs_fd = -1;

	if (make_dir(root_fd, "blobs", &blobs_fd, err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		CLEANUP(close_fd) int fd = -1;

		if (make_dir(blobs_fd, algorithms[i], &fd, err) < 0)
			return -1;
	}
	return 0;
}

int blob_files_open(int root_fd, struct blob_rows *rows, struct blob_files **ret_files,
		    struct err *err)
{
	struct blob_files *files = calloc(1, sizeof(*files));

	if (!files)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the blobs");
	files->fd = -1;
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++)
		files->dirs[i] = -1;
	files->rows = rows;
	pthread_mutex_init(&files->mutex, NULL);
	if (fs_open_dir(root_fd, "blobs", &files->fd, err) < 0) {
		blob_files_close(files);
		return -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++)
		if (fs_open_dir(files->fd, algorithms[i], &files->dirs[i], err) < 0) {
			blob_files_close(files);
			return -1;
		}
	files->ordered = fs_is_ordered(files->dirs[0]) && fs_is_ordered(files->dirs[1]);
	*ret_files = files;
	return 0;
}

void blob_files_close(struct blob_files *files)
{
	if (!files)
		return;
	(void)blob_files_drop_idle(files);
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++)
		close_fd(&files->dirs[i]);
	close_fd(&files->fd);
	pthread_mutex_destroy(&files->mutex);
	free(files);
}

/* --- open files ---------------------------------------------------------------------------------- */

void blob_unref(struct blob *blob)
{
	if (!blob || atomic_fetch_sub_explicit(&blob->refs, 1, memory_order_acq_rel) > 1)
		return;
	close_fd(&blob->fd);
	free(blob->bytes);
	free(blob);
}

/* The lock is held. Return: the link that points to the blob of @digest, or the last one. */
static struct blob **find_link(struct blob_files *files, const struct digest *digest)
{
	struct blob **link = &files->cache;

	while (*link && !digest_equal(&(*link)->digest, digest))
		link = &(*link)->next;
	return link;
}

/* Takes it out of the cache, whose reference is the caller's then. The lock is held. */
static struct blob *take_out(struct blob_files *files, struct blob **link)
{
	struct blob *blob = *link;

	*link = blob->next;
	files->n_cached--;
	return blob;
}

static void put_first(struct blob_files *files, struct blob *blob)
{
	blob->next = files->cache;
	files->cache = blob;
	files->n_cached++;
}

/* Return: it with a reference, or NULL; and how many were removed so far. */
static struct blob *find_open(struct blob_files *files, const struct digest *digest,
			      unsigned long *ret_n_removed)
{
	struct blob **link, *blob = NULL;

	LOCK_GUARD(&files->mutex);
	*ret_n_removed = files->n_removed;
	link = find_link(files, digest);
	if (*link) {
		blob = take_out(files, link);
		put_first(files, blob);
		atomic_fetch_add_explicit(&blob->refs, 1, memory_order_relaxed);
	}
	return blob;
}

/* Keeps @blob open, unless one was removed since @n_removed was looked up: it might be this. */
static void keep_open(struct blob_files *files, struct blob *blob, unsigned long n_removed)
{
	struct blob *oldest = NULL, **link;

	pthread_mutex_lock(&files->mutex);
	link = find_link(files, &blob->digest);
	if (!*link && files->n_removed == n_removed) {
		if (files->n_cached == CACHE_MAX) {
			for (link = &files->cache; (*link)->next;)
				link = &(*link)->next;
			oldest = take_out(files, link);
		}
		put_first(files, blob);
		atomic_fetch_add_explicit(&blob->refs, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&files->mutex);
	blob_unref(oldest);
}

bool blob_files_drop_idle(struct blob_files *files)
{
	struct blob *dropped;

	pthread_mutex_lock(&files->mutex);
	dropped = files->cache;
	files->cache = NULL;
	files->n_cached = 0;
	pthread_mutex_unlock(&files->mutex);
	if (!dropped)
		return false;
	while (dropped) {
		struct blob *blob = dropped;

		dropped = blob->next;
		blob_unref(blob);
	}
	return true;
}

static int open_file(struct blob_files *files, const struct digest *digest, int *ret_fd)
{
	char path[BLOB_PATH_MAX];
	int fd;

	blob_path(digest, path);
	fd = openat(files->fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && blob_files_drop_idle(files))
		fd = openat(files->fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	*ret_fd = fd;
	return fd < 0 ? -1 : 0;
}

static int not_found(const struct digest *digest, struct err *err)
{
	char text[DIGEST_TEXT_BYTES];

	return err_set(err, ERR_NOT_FOUND, "content %s: not found", digest_format(digest, text));
}

/* The file of a row that says @size_bytes. */
static int open_checked(struct blob_files *files, const struct digest *digest, uint64_t size_bytes,
			int *ret_fd, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	char text[DIGEST_TEXT_BYTES];
	uint64_t size_now;
	struct stat st;
	int row;

	if (open_file(files, digest, &fd) < 0) {
		if (errno != ENOENT)
			return err_sys(err, "open content %s", digest_format(digest, text));
		/* Removed since its row was read? */
		row = blob_rows_size(files->rows, digest, &size_now, err);
		if (row <= 0)
			return row < 0 ? -1 : not_found(digest, err);
		return err_set(err, ERR_DATA_LOSS, "content %s: its file is gone",
			       digest_format(digest, text));
	}
	if (fstat(fd, &st) < 0)
		return err_sys(err, "look at content %s", digest_format(digest, text));
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size_bytes)
		return err_set(err, ERR_DATA_LOSS, "content %s: its file has another size",
			       digest_format(digest, text));
	*ret_fd = take_fd(&fd);
	return 0;
}

void blob_files_doubt(struct blob_files *files)
{
	atomic_store(&files->in_doubt, true);
}

static int copy_held(void *arg, const void *bytes, size_t size, struct err *err)
{
	struct blob *blob = arg;

	blob->bytes = malloc(size + 1);
	if (!blob->bytes)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a blob");
	memcpy(blob->bytes, bytes, size);
	blob->size_bytes = size;
	return 0;
}

/* A blob whose bytes the database holds. Return: 1 with @ret_blob; 0: it does not; -1. */
static int get_held(struct blob_files *files, const struct digest *digest, struct blob **ret_blob,
		    struct err *err)
{
	struct blob *blob = calloc(1, sizeof(*blob));
	int r;

	if (!blob)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a blob");
	blob->digest = *digest;
	blob->fd = -1;
	atomic_store_explicit(&blob->refs, 1, memory_order_relaxed);
	r = blob_rows_read_bytes(files->rows, digest, copy_held, blob, err);
	if (r > 0)
		*ret_blob = blob;
	else
		blob_unref(blob);
	return r;
}

int blob_files_get(struct blob_files *files, const struct digest *digest, bool may_wait,
		   struct blob **ret_blob, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	bool in_doubt = atomic_load(&files->in_doubt);
	unsigned long n_removed;
	struct blob *blob;
	uint64_t size_bytes;
	int row;

	if (in_doubt && !may_wait)
		return 1;
	row = in_doubt ? get_held(files, digest, ret_blob, err) : 0;
	if (row != 0)
		return row < 0 ? -1 : 0;
	blob = find_open(files, digest, &n_removed);
	if (blob) {
		*ret_blob = blob;
		return 0;
	}
	if (!may_wait)
		return 1;
	row = blob_rows_size(files->rows, digest, &size_bytes, err);
	if (row <= 0)
		return row < 0 ? -1 : not_found(digest, err);
	if (open_checked(files, digest, size_bytes, &fd, err) < 0)
		return -1;
	blob = calloc(1, sizeof(*blob));
	if (!blob)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an open file");
	blob->digest = *digest;
	blob->fd = take_fd(&fd);
	blob->size_bytes = size_bytes;
	atomic_store_explicit(&blob->refs, 1, memory_order_relaxed);
	keep_open(files, blob, n_removed);
	*ret_blob = blob;
	return 0;
}

int blob_read(const struct blob *blob, uint64_t offset, void *buf, size_t size, bool may_wait,
	      struct err *err)
{
	char text[DIGEST_TEXT_BYTES];
	char *to = buf;

	if (blob->bytes) {
		memcpy(buf, (const char *)blob->bytes + offset, size);
		return 0;
	}
	while (size > 0) {
		struct iovec piece = {to, size};
		ssize_t n = preadv2(blob->fd, &piece, 1, (off_t)offset, may_wait ? 0 : RWF_NOWAIT);

		/* What is not in the page cache; or the file system cannot tell. */
		if (n < 0 && !may_wait && (errno == EAGAIN || errno == EOPNOTSUPP))
			return 1;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, "read content %s", digest_format(&blob->digest, text));
		if (n == 0)
			return err_set(err, ERR_DATA_LOSS, "content %s ends at byte %llu",
				       digest_format(&blob->digest, text),
				       (unsigned long long)offset);
		to += n;
		offset += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

/* --- adding, removing ----------------------------------------------------------------------------- */

static int link_file(struct blob_files *files, const char *path, int from_fd, const char *name)
{
	if (linkat(from_fd, name, files->fd, path, 0) == 0)
		return 0;
	if (errno != EEXIST || unlinkat(files->fd, path, 0) < 0)
		return -1;
	return linkat(from_fd, name, files->fd, path, 0);
}

int blob_files_add(struct blob_files *files, const struct digest *digest, int from_fd,
		   const char *name, int fd, bool *ret_broken, struct err *err)
{
	char path[BLOB_PATH_MAX];

	blob_path(digest, path);
	if (link_file(files, path, from_fd, name) < 0)
		return err_sys(err, "link '%s' to 'blobs/%s'", name, path);
	CRASH_POINT("commit.linked");
	/*
	 * After the link, which changed the inode too: where metadata is committed in order, this one fsync
	 * makes bytes and name durable.
	 */
	if (fsync(fd) < 0) {
		(err_sys)(err, "sync '%s'", name);
		(void)unlinkat(files->fd, path, 0);
		*ret_broken = true;
		return -1;
	}
	CRASH_POINT("commit.synced");
	return 0;
}

/* A file of its own in any case: of one that has lost its row somebody may still be reading. */
static int make_file(struct blob_files *files, const char *path)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(files->fd, path, flags, 0600);

	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && blob_files_drop_idle(files))
		fd = openat(files->fd, path, flags, 0600);
	if (fd >= 0 || errno != EEXIST || unlinkat(files->fd, path, 0) < 0)
		return fd;
	return openat(files->fd, path, flags, 0600);
}

int blob_files_write(struct blob_files *files, const struct digest *digest, const void *bytes,
		     size_t size, int *ret_fd, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	char path[BLOB_PATH_MAX];

	blob_path(digest, path);
	fd = make_file(files, path);
	if (fd < 0)
		return err_sys(err, "make 'blobs/%s'", path);
	if (fs_write_all(fd, bytes, size) < 0) {
		(err_sys)(err, "write 'blobs/%s'", path);
		(void)unlinkat(files->fd, path, 0);
		return -1;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

int blob_files_replace(struct blob_files *files, const struct digest *digest, const void *bytes,
		       size_t size, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	char path[BLOB_PATH_MAX];

	blob_path(digest, path);
	fd = openat(files->fd, NEW_FILE, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, "make 'blobs/" NEW_FILE "'");
	if (fs_write_all(fd, bytes, size) < 0 ||
	    renameat(files->fd, NEW_FILE, files->fd, path) < 0) {
		(err_sys)(err, "write 'blobs/%s' anew", path);
		(void)unlinkat(files->fd, NEW_FILE, 0);
		return -1;
	}
	/* After the rename, so that it makes the name durable too, as in blob_files_add(). */
	return fsync(fd) < 0 ? err_sys(err, "sync 'blobs/%s'", path) : 0;
}

int blob_files_sync_dirs(struct blob_files *files, struct err *err)
{
	for (size_t i = 0; !files->ordered && i < ARRAY_LEN(algorithms); i++)
		if (fs_sync(files->dirs[i], algorithms[i], err) < 0)
			return -1;
	return 0;
}

static int sync_dir(void *arg, struct err *err)
{
	const int *fd = arg;

	return fs_sync(*fd, "the directory of the blobs", err);
}

/* The name is in a directory of its own algorithm; one sync serves all who commit to it at the time. */
int (*blob_files_barrier(struct blob_files *files, const struct digest *digest,
			 void **ret_arg))(void *arg, struct err *err)
{
	*ret_arg = &files->dirs[digest->algorithm == DIGEST_SHA512];
	return files->ordered ? NULL : sync_dir;
}

int blob_files_remove(struct blob_files *files, const struct digest *digest, struct err *err)
{
	char path[BLOB_PATH_MAX];
	struct blob *blob = NULL, **link;

	blob_path(digest, path);
	/* A directory is somebody else's, and the next start says that it lies there. */
	if (unlinkat(files->fd, path, 0) < 0 && errno != ENOENT && errno != EISDIR)
		return err_sys(err, "delete 'blobs/%s'", path);
	pthread_mutex_lock(&files->mutex);
	files->n_removed++;
	link = find_link(files, digest);
	if (*link)
		blob = take_out(files, link);
	pthread_mutex_unlock(&files->mutex);
	blob_unref(blob);
	return 0;
}

/* --- at the start --------------------------------------------------------------------------------- */

struct settle {
	struct blob_files *files;
	size_t algorithm;
	uint64_t n_discarded;
	uint64_t n_lost;
};

static int warn_of_foreign(const char *algorithm, const char *name)
{
	log_event(LOG_WARN, "a file that is none of ours lies among the blobs",
		  LOG_STR("directory", algorithm), LOG_STR("file", name));
	return 0;
}

static int settle_file(void *arg, const char *name, unsigned char type, struct err *err)
{
	struct settle *settle = arg;
	const char *algorithm = algorithms[settle->algorithm];
	struct digest digest;
	uint64_t size_bytes;
	int row;

	(void)type;
	if (blob_path_parse(algorithm, name, &digest) < 0)
		return warn_of_foreign(algorithm, name);
	row = blob_rows_size(settle->files->rows, &digest, &size_bytes, err);
	if (row != 0)
		return row < 0 ? -1 : 0;
	if (unlinkat(settle->files->dirs[settle->algorithm], name, 0) < 0)
		return errno == EISDIR ? warn_of_foreign(algorithm, name)
				       : err_sys(err, "delete 'blobs/%s/%s'", algorithm, name);
	settle->n_discarded++;
	return 0;
}

/* Rows whose files are not what they say: collected first, since the walk holds the database. */
struct lost {
	struct settle *settle;
	struct digest *digests;
	size_t n;
	size_t capacity;
};

static int note_lost(struct lost *lost, const struct digest *digest, struct err *err)
{
	if (lost->n == lost->capacity) {
		size_t capacity = lost->capacity ? lost->capacity * 2 : 64;
		struct digest *digests = reallocarray(lost->digests, capacity, sizeof(*digests));

		if (!digests)
			return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for lost blobs");
		lost->digests = digests;
		lost->capacity = capacity;
	}
	lost->digests[lost->n++] = *digest;
	return 0;
}

static int settle_row(void *arg, const struct blob_info *info, struct err *err)
{
	struct lost *lost = arg;
	char path[BLOB_PATH_MAX];
	struct stat st;

	blob_path(&info->digest, path);
	if (fstatat(lost->settle->files->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			return err_sys(err, "look at 'blobs/%s'", path);
		return note_lost(lost, &info->digest, err);
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != info->size_bytes)
		return note_lost(lost, &info->digest, err);
	return 0;
}

/*
 * Somebody else's hand: a row is only written for a durable file, or with the bytes of which late_sync_restore() has made
 * the file by now. The blob can be had again; say so.
 */
static int forget_lost(struct blob_files *files, const struct lost *lost, struct err *err)
{
	for (size_t i = 0; i < lost->n; i++) {
		char text[DIGEST_TEXT_BYTES];
		int held = blob_rows_holds_bytes(files->rows, &lost->digests[i], err);

		if (held < 0)
			return -1;
		if (held) /* late_sync_restore() could not write it, and has said so */
			continue;
		log_event(LOG_ERROR, "the file of a blob is gone or has another size: forgotten",
			  LOG_STR("digest", digest_format(&lost->digests[i], text)));
		if (blob_rows_remove(files->rows, &lost->digests[i], NULL, err) < 0 ||
		    blob_files_remove(files, &lost->digests[i], err) < 0)
			return -1;
	}
	return 0;
}

int blob_files_settle(struct blob_files *files, struct err *err)
{
	struct settle settle = {.files = files};
	struct lost lost = {.settle = &settle};
	struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	int r = 0;

	arena_init(&arena, 1u << 20);
	for (settle.algorithm = 0; r == 0 && settle.algorithm < ARRAY_LEN(algorithms);
	     settle.algorithm++)
		r = fs_each_entry(files->fd, algorithms[settle.algorithm], settle_file, &settle,
				  err);
	if (r == 0)
		r = blob_rows_walk(files->rows, &ctx, NULL, NULL, settle_row, &lost, err);
	if (r == 0)
		r = forget_lost(files, &lost, err);
	free(lost.digests);
	arena_done(&arena);
	if (r == 0 && settle.n_discarded)
		log_event(LOG_INFO, "files of commits that were not finished were removed",
			  LOG_INT("files", (int64_t)settle.n_discarded));
	return r;
}
