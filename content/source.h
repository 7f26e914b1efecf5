/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where blobs are imported from: a content directory of containerd (or of another lighter-content, or an OCI image
 * layout), as far as all of them are alike: blobs/<algorithm>/<hex>. It may be anybody's: nothing in it is followed
 * out of it, and nothing but regular files is opened. Any thread.
 */
#ifndef LIGHTER_CONTENT_SOURCE_H
#define LIGHTER_CONTENT_SOURCE_H

#include <stdint.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "base/err.h"

/* Where containerd keeps its own content, below its root. */
#define SOURCE_CONTAINERD_DIR "io.containerd.content.v1.content"

/**
 * struct source - an open directory; starts as SOURCE_INIT
 * @blobs_fd: its blobs/
 * @n_ingests: blobs that were being written there, which nobody takes
 */
struct source {
	int blobs_fd;
	uint64_t n_ingests;
};

#define SOURCE_INIT                                                                                \
	{                                                                                          \
		.blobs_fd = -1                                                                     \
	}

/**
 * source_open() - @dir is that directory, or the root of containerd that holds it
 * Return: 0; or -1, with ERR_FAILED_PRECONDITION when it is neither.
 */
ERR_CHECKED int source_open(const char *dir, struct source *ret_source, struct err *err);
void source_close(struct source *source);

/**
 * struct source_file - what lies in it
 * @name: "sha256/<hex>", or what else is there; anything, and not for a terminal as it is
 * @problem: NULL: it may be a blob; else why it cannot be one, and what follows is not set
 * @size_bytes: when it was looked at
 */
struct source_file {
	const char *name;
	const char *problem;
	struct digest digest;
	uint64_t size_bytes;
};

typedef int (*source_walk_fn)(void *arg, const struct source_file *file, struct err *err);

/** source_walk() - call @fn for each; what vanishes meanwhile is passed over. Return: as fs_each_entry(). */
ERR_CHECKED int source_walk(const struct source *source, source_walk_fn fn, void *arg,
			    struct err *err);

/**
 * source_open_file() - open a blob of it to read
 * Return: 0; 1 when it is gone; or -1.
 */
ERR_CHECKED int source_open_file(const struct source *source, const struct digest *digest,
				 int *ret_fd, struct stat *ret_stat, struct err *err);

#endif
