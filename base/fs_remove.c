/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_remove_tree(). A descriptor is held for each level on the way down, LEVELS_MAX of them. A directory
 * below that is renamed up into the top of the tree and waits there for its turn, so that depth
 * costs neither descriptors nor memory, and each level is visited once.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/fs_internal.h"

#define LEVELS_MAX 16

/**
 * struct level - a directory being emptied
 * @n_gone: entries deleted since the directory was last read from its start
 */
struct level {
	struct fs_reader reader;
	uint64_t n_gone;
	char name[NAME_MAX + 1];
};

/**
 * struct removal - one fs_remove_tree()
 * @dirfd: where the top is; borrowed
 * @levels: [0] is the top; allocated as far down as the tree has gone
 * @n_levels: those that are open
 * @n_moved: gives directories moved to the top their names
 */
struct removal {
	const struct ctx *ctx;
	int dirfd;
	struct level *levels[LEVELS_MAX];
	size_t n_levels;
	uint64_t n_moved;
};

static void removal_done(struct removal *r)
{
	while (r->n_levels > 0)
		close_fd(&r->levels[--r->n_levels]->reader.fd);
	for (size_t i = 0; i < LEVELS_MAX; i++)
		free(r->levels[i]);
}

/* Reports errno for @name in the innermost open directory. */
static int fail(const struct removal *r, const char *name, struct err *err)
{
	char path[ERR_MSG_MAX_BYTES] = "";
	size_t len = 0;
	int errnum = errno == EXDEV ? EBUSY : errno;

	for (size_t i = 0; i < r->n_levels && len < sizeof(path); i++)
		len += (size_t)snprintf(path + len, sizeof(path) - len, "%s/", r->levels[i]->name);
	return err_sysno(err, errnum, "remove '%s%s'%s", path, name,
			 errnum == EBUSY ? ", a mount point or in use" : "");
}

static int parent_fd(const struct removal *r)
{
	return r->n_levels ? r->levels[r->n_levels - 1]->reader.fd : r->dirfd;
}

static void count_gone(struct removal *r)
{
	if (r->n_levels)
		r->levels[r->n_levels - 1]->n_gone++;
}

static int move_to_top(struct removal *r, const char *name, struct err *err)
{
	int top = r->levels[0]->reader.fd;
	char moved[32];

	for (;;) {
		snprintf(moved, sizeof(moved), ".deep-%llu", (unsigned long long)r->n_moved++);
		if (renameat(parent_fd(r), name, top, moved) == 0 || errno == ENOENT)
			break;
		/* The name is taken by something of the tree's own. */
		if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
			return fail(r, name, err);
	}
	count_gone(r);
	return 0;
}

/* Opens the non-empty directory @name as the new innermost level. */
static int descend(struct removal *r, const char *name, struct err *err)
{
	struct level *level;
	int fd;

	if (r->n_levels == LEVELS_MAX)
		return move_to_top(r, name, err);
	if (!r->levels[r->n_levels]) {
		r->levels[r->n_levels] = malloc(sizeof(*level));
		if (!r->levels[r->n_levels])
			return fail(r, name, err);
	}
	level = r->levels[r->n_levels];
	fd = fs_step(parent_fd(r), name);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return fail(r, name, err);
	fs_reader_start(&level->reader, fd);
	level->n_gone = 0;
	snprintf(level->name, sizeof(level->name), "%s", name);
	r->n_levels++;
	return 0;
}

/*
 * Deletes @name of the innermost directory if that takes one call, or else makes it the innermost
 * directory. rmdir() comes before open(): it is all that an empty directory takes, and the kernel
 * answers EBUSY for a mount point.
 */
static int remove_entry(struct removal *r, const char *name, unsigned char type, struct err *err)
{
	int dirfd = parent_fd(r);

	if (type != DT_DIR) {
		if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT) {
			count_gone(r);
			return 0;
		}
		if (errno != EISDIR)
			return fail(r, name, err);
	}
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
		count_gone(r);
		return 0;
	}
	if (errno == ENOTEMPTY || errno == EEXIST)
		return descend(r, name, err);
	return fail(r, name, err);
}

/* Deletes the innermost directory, which has been read to its end. */
static int ascend(struct removal *r, struct err *err)
{
	struct level *level = r->levels[--r->n_levels];

	if (unlinkat(parent_fd(r), level->name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
		close_fd(&level->reader.fd);
		count_gone(r);
		return 0;
	}
	/*
	 * Some file systems skip entries when others are deleted meanwhile, and directories may have
	 * moved to the top: read it again, as long as that leads on.
	 */
	if ((errno == ENOTEMPTY || errno == EEXIST) && level->n_gone > 0 &&
	    fs_reader_seek(&level->reader, 0) == 0) {
		level->n_gone = 0;
		r->n_levels++;
		return 0;
	}
	fail(r, level->name, err);
	r->n_levels++;
	return -1;
}

static int run(struct removal *r, struct err *err)
{
	const struct dirent64 *entry;
	int rc;

	while (r->n_levels > 0) {
		struct level *level = r->levels[r->n_levels - 1];

		if (r->ctx && ctx_check(r->ctx, err) < 0)
			return -1;
		rc = fs_reader_next(&level->reader, &entry);
		if (rc < 0)
			return fail(r, "", err);
		rc = rc > 0 ? remove_entry(r, entry->d_name, entry->d_type, err) : ascend(r, err);
		if (rc < 0)
			return -1;
	}
	return 0;
}

/* Above all not "..", which would delete what lies beside the tree. */
static bool is_entry_name(const char *name)
{
	return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       !strchr(name, '/');
}

int fs_remove_tree(const struct ctx *ctx, int dirfd, const char *name, struct err *err)
{
	CLEANUP(removal_done) struct removal r = {.ctx = ctx, .dirfd = dirfd};

	if (!is_entry_name(name))
		return err_set(err, ERR_INVALID_ARGUMENT, "remove '%s': not a name in a directory",
			       name);
	if (ctx && ctx_check(ctx, err) < 0)
		return -1;
	if (remove_entry(&r, name, DT_UNKNOWN, err) < 0)
		return -1;
	return run(&r, err);
}
