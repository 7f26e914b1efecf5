/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_disk_usage(). The innermost LEVELS_OPEN directories are held open. To go back to one further up,
 * ".." is opened, must be the very directory that was left, and is read on from where it was left:
 * a few bytes per level instead of a descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/fs_internal.h"

#define LEVELS_OPEN       16
/* What a container can make us hold: 16 MiB for its deepest tree, 64 MiB for its hard links. */
#define DEPTH_MAX         (1024u * 1024)
#define LINKED_INODES_MAX (4u * 1024 * 1024)
/* A directory of few entries may still be long to read, where it has shrunk from many (ext4 keeps its blocks). */
#define FEW_DIR_BYTES     (64 * 1024)

/**
 * struct place - a directory on the way from the top to where the count is
 * @next: where to read on
 */
struct place {
	uint64_t ino;
	off_t next;
};

/**
 * struct inode_set - inodes of several names, seen already
 * @slots: 0 is free; their number is a power of two, at least twice @n
 */
struct inode_set {
	uint64_t *slots;
	size_t n_slots;
	size_t n;
};

/**
 * struct count - one fs_disk_usage()
 * @dev: the file system that is counted
 * @readers: of the directory at depth d: [d % LEVELS_OPEN]; allocated when first needed
 * @names: of the same directories, for messages
 * @places: [d] for each depth
 * @depth: of the innermost directory
 * @oldest: the outermost depth that is still open
 * @entries_left: how many more may be looked at
 * @few: and no directory of more than FEW_DIR_BYTES
 */
struct count {
	const struct ctx *ctx;
	const char *name;
	dev_t dev;
	struct fs_reader *readers[LEVELS_OPEN];
	char (*names)[NAME_MAX + 1];
	struct place *places;
	size_t n_places;
	size_t depth;
	size_t oldest;
	size_t entries_left;
	bool few;
	struct inode_set linked;
	struct fs_usage usage;
};

static struct fs_reader *reader_at(struct count *c, size_t depth)
{
	return c->readers[depth % LEVELS_OPEN];
}

static void count_done(struct count *c)
{
	for (size_t i = 0; i < LEVELS_OPEN; i++) {
		if (c->readers[i])
			close_fd(&c->readers[i]->fd);
		free(c->readers[i]);
	}
	free(c->names);
	free(c->places);
	free(c->linked.slots);
}

/* Reports errno for @name in the innermost directory, of whose path the last levels are known. */
static int fail(struct count *c, const char *name, struct err *err)
{
	int errnum = errno;
	char path[ERR_MSG_MAX_BYTES];
	size_t first = c->oldest > 0 ? c->oldest : 1;
	size_t len =
		(size_t)snprintf(path, sizeof(path), "%s/%s", c->name, first > 1 ? ".../" : "");

	for (size_t d = first; d <= c->depth && len < sizeof(path); d++)
		len += (size_t)snprintf(path + len, sizeof(path) - len, "%s/",
					c->names[d % LEVELS_OPEN]);
	return err_sysno(err, errnum, "count '%s%s'", path, name);
}

static size_t slot_of(const struct inode_set *set, uint64_t ino)
{
	/* Multiplication spreads neighbouring numbers; its upper half is the well-mixed one. */
	size_t i = (size_t)((ino * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (set->n_slots - 1);

	while (set->slots[i] != 0 && set->slots[i] != ino)
		i = (i + 1) & (set->n_slots - 1);
	return i;
}

static int inode_set_grow(struct inode_set *set)
{
	struct inode_set larger = {.n = set->n, .n_slots = set->n_slots ? set->n_slots * 2 : 64};

	larger.slots = calloc(larger.n_slots, sizeof(*larger.slots));
	if (!larger.slots)
		return -1;
	for (size_t i = 0; i < set->n_slots; i++) {
		if (set->slots[i] != 0)
			larger.slots[slot_of(&larger, set->slots[i])] = set->slots[i];
	}
	free(set->slots);
	*set = larger;
	return 0;
}

/* Return: 1 when @ino is new, 0 when it was there, -1 with errno. */
static int inode_set_add(struct inode_set *set, uint64_t ino)
{
	size_t i;

	if (set->n * 2 >= set->n_slots) {
		if (set->n >= LINKED_INODES_MAX) {
			errno = ENOMEM;
			return -1;
		}
		if (inode_set_grow(set) < 0)
			return -1;
	}
	i = slot_of(set, ino);
	if (set->slots[i] == ino)
		return 0;
	set->slots[i] = ino;
	set->n++;
	return 1;
}

static void add(struct count *c, uint64_t blocks)
{
	c->usage.size_bytes += blocks * 512;
	c->usage.inodes++;
}

/* Makes room for a place and a reader at @depth. */
static int reserve(struct count *c, size_t depth)
{
	struct fs_reader **reader = &c->readers[depth % LEVELS_OPEN];

	if (depth >= DEPTH_MAX) {
		errno = ENOMEM;
		return -1;
	}
	if (depth >= c->n_places) {
		size_t n = c->n_places ? c->n_places * 2 : LEVELS_OPEN;
		struct place *places = reallocarray(c->places, n, sizeof(*places));

		if (!places)
			return -1;
		c->places = places;
		c->n_places = n;
	}
	if (!*reader) {
		*reader = malloc(sizeof(**reader));
		if (!*reader)
			return -1;
		(*reader)->fd = -1;
	}
	if (depth > 0 && !c->names) {
		c->names = calloc(LEVELS_OPEN, sizeof(*c->names));
		if (!c->names)
			return -1;
	}
	return 0;
}

/*
 * Counts the directory that is open as @fd and makes it the innermost. Takes @fd, also on failure.
 * Return: 0, 1 when it may not be looked at, -1.
 */
static int enter(struct count *c, int fd, size_t depth, const char *name, struct err *err)
{
	CLEANUP(close_fd) int owned = fd;
	struct fs_reader *reader;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(c, name, err);
	if (depth == 0)
		c->dev = st.st_dev;
	add(c, (uint64_t)st.st_blocks);
	/* A btrfs subvolume lies below the same mount, and is a file system of its own for all that. */
	if (st.st_dev != c->dev)
		return 0;
	if (c->few && st.st_size > FEW_DIR_BYTES)
		return 1;
	if (reserve(c, depth) < 0)
		return fail(c, name, err);

	reader = reader_at(c, depth);
	if (depth >= c->oldest + LEVELS_OPEN) {
		/* The reader at hand is the outermost open one's: note where that one was. */
		c->places[c->oldest].next = reader->next;
		close_fd(&reader->fd);
		c->oldest++;
	}
	fs_reader_start(reader, take_fd(&owned));
	c->places[depth].ino = st.st_ino;
	if (depth > 0)
		snprintf(c->names[depth % LEVELS_OPEN], sizeof(*c->names), "%s", name);
	c->depth = depth;
	return 0;
}

static int vanished(int errnum)
{
	/* A name that stands for something else now than when it was read has vanished too. */
	return errnum == ENOENT || errnum == ENOTDIR || errnum == ELOOP;
}

static int count_directory(struct count *c, const char *name, struct err *err)
{
	int fd = fs_step(reader_at(c, c->depth)->fd, name);

	if (fd < 0)
		return vanished(errno) || errno == EXDEV ? 0 : fail(c, name, err);
	return enter(c, fd, c->depth + 1, name, err);
}

static int count_entry(struct count *c, const char *name, unsigned char type, struct err *err)
{
	struct statx st;

	if (type == DT_DIR)
		return count_directory(c, name, err);
	if (statx(reader_at(c, c->depth)->fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		  STATX_TYPE | STATX_NLINK | STATX_INO | STATX_BLOCKS, &st) < 0)
		return vanished(errno) ? 0 : fail(c, name, err);
	if (S_ISDIR(st.stx_mode))
		return count_directory(c, name, err);
	/* Something mounted over this name. */
	if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT ||
	    makedev(st.stx_dev_major, st.stx_dev_minor) != c->dev)
		return 0;
	if (st.stx_nlink > 1) {
		int is_new = inode_set_add(&c->linked, st.stx_ino);

		if (is_new < 0)
			return fail(c, name, err);
		if (!is_new)
			return 0;
	}
	add(c, st.stx_blocks);
	return 0;
}

/* Goes back to the directory above the innermost. */
static int leave(struct count *c, struct err *err)
{
	CLEANUP(close_fd) int child_fd = reader_at(c, c->depth)->fd;
	struct fs_reader *above;
	struct stat st;

	reader_at(c, c->depth)->fd = -1;
	c->depth--;
	if (c->depth >= c->oldest)
		return 0;

	above = reader_at(c, c->depth);
	c->oldest = c->depth;
	fs_reader_start(above, fs_step(child_fd, ".."));
	if (c->depth > 0)
		snprintf(c->names[c->depth % LEVELS_OPEN], sizeof(*c->names), "...");
	if (above->fd < 0 && !vanished(errno))
		return fail(c, "", err);
	if (above->fd < 0 || fstat(above->fd, &st) < 0 || st.st_dev != c->dev ||
	    st.st_ino != c->places[c->depth].ino)
		return err_set(err, ERR_UNAVAILABLE,
			       "count '%s': a directory was moved while it was counted", c->name);
	if (fs_reader_seek(above, c->places[c->depth].next) < 0)
		return fail(c, "", err);
	return 0;
}

/* Return: 0, 1 when there is more than may be looked at, -1. */
static int run(struct count *c, struct err *err)
{
	const struct dirent64 *entry;

	for (;;) {
		int rc = fs_reader_next(reader_at(c, c->depth), &entry);

		if (rc < 0)
			return fail(c, "", err);
		if (rc == 0 && c->depth == 0)
			return 0;
		if (c->ctx && ctx_check(c->ctx, err) < 0)
			return -1;
		if (rc > 0 && c->entries_left-- == 0)
			return 1;
		rc = rc > 0 ? count_entry(c, entry->d_name, entry->d_type, err) : leave(c, err);
		if (rc != 0)
			return rc;
	}
}

static int count_tree(struct count *c, int dirfd, struct fs_usage *ret_usage, struct err *err)
{
	int fd, rc;

	if (c->ctx && ctx_check(c->ctx, err) < 0)
		return -1;
	if (fs_open_dir(dirfd, c->name, &fd, err) < 0)
		return -1;
	rc = enter(c, fd, 0, "", err);
	if (rc == 0)
		rc = run(c, err);
	if (rc == 0)
		*ret_usage = c->usage;
	return rc;
}

int fs_disk_usage(const struct ctx *ctx, int dirfd, const char *name, struct fs_usage *ret_usage,
		  struct err *err)
{
	CLEANUP(count_done)
	struct count c = {.ctx = ctx, .name = name, .entries_left = SIZE_MAX};

	return count_tree(&c, dirfd, ret_usage, err);
}

int fs_disk_usage_of_few(int dirfd, const char *name, size_t max_entries,
			 struct fs_usage *ret_usage, struct err *err)
{
	CLEANUP(count_done)
	struct count c = {.name = name, .entries_left = max_entries, .few = true};

	return count_tree(&c, dirfd, ret_usage, err);
}
