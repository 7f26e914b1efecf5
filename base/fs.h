/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and directories, always relative to an open directory, never through a symbolic link that
 * somebody else may have put there. Any thread.
 */
#ifndef LIGHTER_BASE_FS_H
#define LIGHTER_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/ctx.h"
#include "base/err.h"

/** fs_open_dir() - open a directory (O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); @dirfd may be AT_FDCWD */
ERR_CHECKED int fs_open_dir(int dirfd, const char *name, int *ret_fd, struct err *err);

/**
 * fs_make_dirs() - mkdir -p of an absolute path; missing parts get @mode; made parts are durable
 *
 * A symbolic link on the way is followed only out of a directory in which root and we alone may write.
 */
ERR_CHECKED int fs_make_dirs(const char *path, mode_t mode, struct err *err);

/** fs_write_all() - write(), however often that takes. Return: 0, or -1 with errno. */
int fs_write_all(int fd, const void *bytes, size_t size);

/** fs_sync() - fsync(); @what names it in the error */
ERR_CHECKED int fs_sync(int fd, const char *what, struct err *err);

/**
 * fs_is_ordered() - does the file system of @fd commit its metadata in the order in which it was changed?
 *
 * ext4 with a journal and xfs do: an fsync of what was changed last makes every change of names before it
 * durable. Elsewhere every directory is to be synced by itself.
 */
bool fs_is_ordered(int fd);

/**
 * fs_write_file() - atomically (re)place a file: temporary name, write, fsync, rename, fsync of @dirfd
 * @name: one name, without '/'
 *
 * A failure leaves no temporary file; being killed may leave one, ".tmp-" and 16 hex digits.
 */
ERR_CHECKED int fs_write_file(int dirfd, const char *name, mode_t mode, const void *data,
			      size_t size, struct err *err);

/**
 * fs_read_file() - the whole of a small file
 * @cap_bytes: larger files are refused with ERR_RESOURCE_EXHAUSTED
 * @ret_data: yours to free(); followed by a NUL byte that @ret_size does not count
 */
ERR_CHECKED int fs_read_file(int dirfd, const char *name, size_t cap_bytes, char **ret_data,
			     size_t *ret_size, struct err *err);

/**
 * fs_remove_tree() - delete @name below @dirfd and everything in it, of any depth, in bounded memory and
 *                    descriptors; a mount point inside is not entered but reported (EBUSY)
 * @ctx: checked between entries; what is gone stays gone. NULL: never stops.
 * @name: one name; "", ".", ".." and what contains '/' is ERR_INVALID_ARGUMENT, and nothing is touched
 * Return: 0, also when nothing of that name is there; or -1.
 */
ERR_CHECKED int fs_remove_tree(const struct ctx *ctx, int dirfd, const char *name, struct err *err);

/**
 * struct fs_usage - what a tree takes on disk
 * @size_bytes: st_blocks * 512 of every inode, each counted once
 * @inodes: number of inodes, the root directory included
 */
struct fs_usage {
	uint64_t size_bytes;
	uint64_t inodes;
};

/**
 * fs_disk_usage() - count @name below @dirfd, of any depth, without following links or entering other
 *                   file systems; entries that vanish meanwhile are skipped
 *
 * ERR_UNAVAILABLE when a directory was moved away under it; ERR_RESOURCE_EXHAUSTED beyond a million levels
 * or four million hard-linked inodes.
 * Source of the rule: containerd, continuity/fs diskUsage: a hard-linked inode counts once.
 */
ERR_CHECKED int fs_disk_usage(const struct ctx *ctx, int dirfd, const char *name,
			      struct fs_usage *ret_usage, struct err *err);

/**
 * fs_disk_usage_of_few() - fs_disk_usage(), given up when the tree has more than @max_entries entries, or a directory
 *                          that is long to read for what it has held
 * Return: 0, 1 when it was given up, -1.
 */
ERR_CHECKED int fs_disk_usage_of_few(int dirfd, const char *name, size_t max_entries,
				     struct fs_usage *ret_usage, struct err *err);

typedef int (*fs_entry_fn)(void *arg, const char *name, unsigned char type, struct err *err);

/** fs_each_entry() - call @fn for each entry but "." and ".." of a directory (type: d_type); stops at != 0 */
ERR_CHECKED int fs_each_entry(int dirfd, const char *name, fs_entry_fn fn, void *arg,
			      struct err *err);

/** fs_is_empty() - has a directory no entries? Return: 1 if so, 0 if there are some, -1 on failure. */
ERR_CHECKED int fs_is_empty(int dirfd, const char *name, struct err *err);

#endif
