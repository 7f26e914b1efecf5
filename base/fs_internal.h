/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fs*.c share: reading a directory without the allocations of opendir(), and stepping down into
 * one without leaving the mount.
 */
#ifndef LIGHTER_BASE_FS_INTERNAL_H
#define LIGHTER_BASE_FS_INTERNAL_H

#include <dirent.h>
#include <stdalign.h>
#include <stddef.h>
#include <sys/types.h>

/* Holds some 250 entries with names of usual length. */
#define FS_READER_BYTES 8192

/**
 * struct fs_reader - a position in an open directory
 * @fd: the directory; borrowed
 * @pos, @len: what of @buf is still to be given out
 * @next: where the directory goes on after the last entry given out, for fs_reader_seek()
 */
struct fs_reader {
	int fd;
	size_t pos;
	size_t len;
	off_t next;
	alignas(struct dirent64) char buf[FS_READER_BYTES];
};

/** fs_reader_start() - read the directory @fd from its current position */
void fs_reader_start(struct fs_reader *reader, int fd);

/** fs_reader_seek() - go on at @next of an earlier reader of this directory; 0 is the start */
int fs_reader_seek(struct fs_reader *reader, off_t next);

/**
 * fs_reader_next() - the next entry but "." and ".."
 * @ret_entry: valid until the next call
 * Return: 1; 0 at the end, also of a directory deleted meanwhile; or -1 with errno.
 */
int fs_reader_next(struct fs_reader *reader, const struct dirent64 **ret_entry);

/**
 * fs_step() - open the directory @name (or "..") of @dirfd, for reading
 * Return: descriptor; or -1 with errno, EXDEV when a mount point is in the way, ENOTDIR or ELOOP when it
 * is no directory.
 */
int fs_step(int dirfd, const char *name);

#endif
