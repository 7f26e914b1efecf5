/* SPDX-License-Identifier: Apache-2.0 */
#include "content/adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/thread.h"
#include "content/blob_files.h"
#include "content/file_digest.h"
#include "content/local_internal.h"

static const char *const algorithms[] = {"sha256", "sha512"};

struct adopt {
	struct local *store;
	pthread_t thread;
	atomic_bool stopping;
	int fd; /* of the directory of one algorithm */
	const char *algorithm;
	uint64_t n_adopted, n_refused;
};

/* --- moving aside ---------------------------------------------------------------------------------- */

struct move {
	int from_fd;
	int to_fd;
	bool allowed;
	uint64_t n;
};

static int move_file(void *arg, const char *name, unsigned char type, struct err *err)
{
	struct move *move = arg;

	(void)type;
	if (!move->allowed)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "there are blobs, but no database, and 'content.adopt' is off");
	if (renameat(move->from_fd, name, move->to_fd, name) < 0)
		return err_sys(err, "move '%s' to be adopted", name);
	move->n++;
	return 0;
}

static int make_dir(int parent_fd, const char *name, int *ret_fd, struct err *err)
{
	if (mkdirat(parent_fd, name, 0700) < 0 && errno != EEXIST)
		return err_sys(err, "make directory '%s'", name);
	return fs_open_dir(parent_fd, name, ret_fd, err);
}

static int move_algorithm(int blobs_fd, int adopt_fd, const char *algorithm, struct move *move,
			  struct err *err)
{
	CLEANUP(close_fd) int from_fd = -1;
	CLEANUP(close_fd) int to_fd = -1;

	from_fd = openat(blobs_fd, algorithm, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (from_fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, "open 'blobs/%s'", algorithm);
	if (make_dir(adopt_fd, algorithm, &to_fd, err) < 0)
		return -1;
	move->from_fd = from_fd;
	move->to_fd = to_fd;
	if (fs_each_entry(from_fd, ".", move_file, move, err) < 0)
		return -1;
	/* Before there is a database, which makes garbage of what still lies there. */
	return fs_sync(to_fd, algorithm, err);
}

int adopt_set_aside(int root_fd, bool allowed, struct err *err)
{
	CLEANUP(close_fd) int blobs_fd = -1;
	CLEANUP(close_fd) int adopt_fd = -1;
	struct move move = {.allowed = allowed};

	blobs_fd = openat(root_fd, "blobs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (blobs_fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, "open 'blobs'");
	if (make_dir(root_fd, "adopt", &adopt_fd, err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++)
		if (move_algorithm(blobs_fd, adopt_fd, algorithms[i], &move, err) < 0)
			return -1;
	if (fs_sync(adopt_fd, "adopt", err) < 0 || fs_sync(root_fd, "root", err) < 0)
		return -1;
	if (move.n)
		log_event(LOG_WARN, "the database is missing: blobs are verified and adopted",
			  LOG_INT("blobs", (int64_t)move.n));
	return 0;
}

/* --- verifying -------------------------------------------------------------------------------------- */

/* Return: 1 when the bytes are what @digest says, 0 when they are not; or -1. */
static int verify(struct adopt *adopt, int fd, const struct digest *digest, struct err *err)
{
	const struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &adopt->stopping};
	const struct file_digest_options options = {.ctx = &ctx, .copy_fd = -1};
	struct digest found;
	uint64_t size_bytes;

	if (file_digest(fd, digest->algorithm, &options, &found, &size_bytes, err) != 0)
		return -1;
	return digest_equal(&found, digest);
}

/* Return: 1 when it is a blob now, or was one; 0 when it is not what its name says; or -1. */
static int adopt_one(struct adopt *adopt, const char *name, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	struct blob_info info = {0};
	bool broken = false;
	struct stat st;
	int r;

	if (blob_path_parse(adopt->algorithm, name, &info.digest) < 0)
		return 0;
	fd = openat(adopt->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ELOOP ? 0 : err_sys(err, "open");
	if (fstat(fd, &st) < 0)
		return err_sys(err, "look at it");
	if (!S_ISREG(st.st_mode))
		return 0;
	r = verify(adopt, fd, &info.digest, err);
	if (r <= 0)
		return r;
	info.size_bytes = (uint64_t)st.st_size;
	r = local_publish(adopt->store, &info, adopt->fd, name, fd, &broken, err);
	return r < 0 ? -1 : 1;
}

static int adopt_file(void *arg, const char *name, unsigned char type, struct err *err)
{
	struct adopt *adopt = arg;
	struct err failure = ERR_INIT;
	int r;

	(void)type;
	if (atomic_load(&adopt->stopping))
		return 1;
	r = adopt_one(adopt, name, &failure);
	if (r < 0) {
		/* It stays for the next start. */
		if (failure.code != ERR_CANCELLED)
			log_event(LOG_ERROR, "a file could not be adopted", LOG_STR("file", name),
				  LOG_ERR(&failure));
		return 0;
	}
	if (r == 0)
		log_event(LOG_WARN, "a file is not what its name says, and is removed",
			  LOG_STR("algorithm", adopt->algorithm), LOG_STR("file", name));
	*(r ? &adopt->n_adopted : &adopt->n_refused) += 1;
	return fs_remove_tree(NULL, adopt->fd, name, err);
}

static int adopt_all(struct adopt *adopt, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		CLEANUP(close_fd) int dir_fd = -1;
		CLEANUP(close_fd) int fd = -1;
		int r;

		if (fs_open_dir(adopt->store->root_fd, "adopt", &dir_fd, err) < 0)
			return -1;
		fd = openat(dir_fd, algorithms[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return err_sys(err, "open 'adopt/%s'", algorithms[i]);
		adopt->fd = fd;
		adopt->algorithm = algorithms[i];
		r = fs_each_entry(fd, ".", adopt_file, adopt, err);
		if (r != 0)
			return r;
		/* Not while something that could not be adopted is left in it. */
		(void)unlinkat(dir_fd, algorithms[i], AT_REMOVEDIR);
	}
	(void)unlinkat(adopt->store->root_fd, "adopt", AT_REMOVEDIR);
	return 0;
}

static void *work(void *arg)
{
	struct adopt *adopt = arg;
	struct err err = ERR_INIT;

	if (adopt_all(adopt, &err) < 0)
		log_event(LOG_ERROR, "adopting ended early", LOG_ERR(&err));
	if (adopt->n_adopted || adopt->n_refused)
		log_event(LOG_INFO, "blobs were adopted",
			  LOG_INT("blobs", (int64_t)adopt->n_adopted),
			  LOG_INT("refused", (int64_t)adopt->n_refused));
	return NULL;
}

int adopt_start(struct local *store, struct adopt **ret_adopt, struct err *err)
{
	struct adopt *adopt;

	*ret_adopt = NULL;
	if (faccessat(store->root_fd, "adopt", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(err, "look for 'adopt'");
	adopt = calloc(1, sizeof(*adopt));
	if (!adopt)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to adopt blobs");
	adopt->store = store;
	if (thread_start(&adopt->thread, "adopt", work, adopt, err) < 0) {
		free(adopt);
		return -1;
	}
	*ret_adopt = adopt;
	return 0;
}

void adopt_stop(struct adopt *adopt)
{
	if (!adopt)
		return;
	atomic_store(&adopt->stopping, true);
	pthread_join(adopt->thread, NULL);
	free(adopt);
}
