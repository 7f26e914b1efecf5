/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root with a metastore and layers on it, for the tests of layers.c; each .c of these includes it once.
 */
#ifndef LIGHTER_TESTS_SNAPSHOTTERS_OVERLAY_LAYERS_FIXTURE_H
#define LIGHTER_TESTS_SNAPSHOTTERS_OVERLAY_LAYERS_FIXTURE_H

#include "tests/support/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshotters/overlay/layers.h"
#include "snapshotters/overlay/stock.h"
#include "tests/support/metastore_wait.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

struct fixture {
	struct temp_root *root;
	struct metastore *store;
	struct layers *layers;
	struct arena arena;
	struct ctx ctx;
};

/* Does <root>/snapshots/@name exist? */
static inline bool is_there(struct fixture *f, const char *name)
{
	char path[4096];
	struct stat st;

	/* By path: what a test mounts is not seen through a descriptor from before its mount namespace. */
	snprintf(path, sizeof(path), "%s/snapshots/%s", f->root->path, name);
	return lstat(path, &st) == 0;
}

static inline void make_file(struct fixture *f, const char *name)
{
	int fd = openat(f->root->fd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "data", 4), 4);
	close(fd);
}

static inline bool is_swept(void *arg)
{
	return !is_there(arg, "swept");
}

static inline void open_all(struct fixture *f)
{
	struct err err = ERR_INIT;
	char *path = temp_root_path(f->root, "metadata.db");

	/* The sweep after a start must have passed before a test makes garbage of its own. */
	if (mkdirat(f->root->fd, "snapshots", 0700) < 0)
		assert_int_equal(errno, EEXIST);
	make_file(f, "snapshots/swept");
	assert_ok(metastore_open(path, &f->store, &err), &err);
	assert_ok(layers_open(f->root->path, f->store, &f->layers, &err), &err);
	wait_until(is_swept, f, "the sweep after the start");
	free(path);
}

static inline void close_all(struct fixture *f)
{
	layers_close(f->layers);
	metastore_close(f->store);
	f->layers = NULL;
	f->store = NULL;
}

static inline int setup_closed(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->root = temp_root_new();
	arena_init(&f->arena, 1u << 20);
	f->ctx = (struct ctx){.arena = &f->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	*state = f;
	return 0;
}

static inline int setup(void **state)
{
	setup_closed(state);
	open_all(*state);
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	close_all(f);
	arena_done(&f->arena);
	temp_root_free(f->root);
	free(f);
	return 0;
}

static inline bool id_is_there(struct fixture *f, uint64_t id)
{
	char name[32];

	snprintf(name, sizeof(name), "%" PRIu64, id);
	return is_there(f, name);
}

static inline unsigned int count_snapshot_dirs(struct fixture *f)
{
	char *path = temp_root_path(f->root, "snapshots");
	DIR *dir = opendir(path);
	struct dirent *entry;
	unsigned int n = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	free(path);
	return n;
}

static inline uint64_t take(struct fixture *f)
{
	struct err err = ERR_INIT;
	uint64_t id = 0;

	assert_ok(layers_take(f->layers, &f->ctx, &id, &err), &err);
	assert_true(id > 0);
	return id;
}

/* Gives the taken @id a row. */
static inline void add_row(struct fixture *f, uint64_t id, const char *key)
{
	struct snapshot_req req = {.key = key, .parent = ""};
	struct metastore_new row = {.id = id, .kind = SNAPSHOT_ACTIVE, .req = &req};
	struct err err = ERR_INIT;

	assert_ok(metastore_create(f->store, &f->ctx, &row, &err), &err);
	layers_keep(f->layers, id);
}

static inline void cleanup(struct fixture *f)
{
	struct err err = ERR_INIT;

	assert_ok(layers_cleanup(f->layers, &f->ctx, &err), &err);
}

#endif
