/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where layers lie: "<root>/snapshots/<id>" is a layer's own files, "<root>/work/<id>" overlay's scratch for it. Beside one
 * another rather than below a directory of their own: each directory less is a third of what a new layer costs.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_LAYER_NAME_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_LAYER_NAME_H

#include <inttypes.h>
#include <stdio.h>

/* "18446744073709551615" and its NUL, rounded up. */
#define LAYER_NAME_MAX 32

/**
 * struct layer_dir - one of the two directories that hold a name for each layer
 * @path: for messages, and for mounts
 */
struct layer_dir {
	char *path;
	int fd;
};

/** struct layer_dirs - both, on one file system; @fs has the mode 0700, so that what is in it is not for everybody */
struct layer_dirs {
	struct layer_dir fs;
	struct layer_dir work;
};

/** layer_name() - write the name of layer @id, in either directory, to @name of LAYER_NAME_MAX */
static inline void layer_name(char *name, uint64_t id)
{
	snprintf(name, LAYER_NAME_MAX, "%" PRIu64, id);
}

#endif
