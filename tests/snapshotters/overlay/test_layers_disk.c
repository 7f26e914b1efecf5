/* SPDX-License-Identifier: Apache-2.0 */
/* What layers.c makes of a disk that is full. Needs root, to mount one. */
#include "tests/snapshotters/overlay/layers_fixture.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* Puts @name of the root onto the disk that is mounted at "disk" there. */
static void put_on_disk(struct fixture *f, const char *name)
{
	char *path = temp_root_path(f->root, name), source[4096];

	snprintf(source, sizeof(source), "%s/disk/%s", f->root->path, name);
	(void)mkdirat(f->root->fd, name, 0700);
	assert_int_equal(mkdir(source, 0700), 0);
	assert_int_equal(mount(source, path, NULL, MS_BIND, NULL), 0);
	free(path);
}

static void take_off_disk(struct fixture *f, const char *name)
{
	char *path = temp_root_path(f->root, name);

	assert_int_equal(umount(path), 0);
	free(path);
}

/* A tmpfs of 64 inodes, far fewer than a stock of spares needs. */
static void a_full_disk_is_resource_exhausted_until_there_is_room(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	uint64_t ids[STOCK_SPARES_MAX], id;
	size_t n = 0;

	require_private_mounts();
	(void)mkdirat(f->root->fd, "disk", 0700);
	char *path = temp_root_path(f->root, "disk");
	assert_int_equal(mount("tmpfs", path, "tmpfs", 0, "nr_inodes=64"), 0);
	put_on_disk(f, "snapshots");
	put_on_disk(f, "work");
	open_all(f);

	while (n < ARRAY_LEN(ids) && layers_take(f->layers, &f->ctx, &ids[n], &err) == 0)
		n++;
	assert_true(n < ARRAY_LEN(ids));
	assert_int_equal(err.code, ERR_RESOURCE_EXHAUSTED);

	assert_int_equal(mount("tmpfs", path, "tmpfs", MS_REMOUNT, "nr_inodes=100000"), 0);
	id = take(f);
	assert_true(id_is_there(f, id));
	layers_drop(f->layers, id, true);
	while (n > 0)
		layers_drop(f->layers, ids[--n], true);
	close_all(f);
	assert_int_equal(count_snapshot_dirs(f), 0);
	take_off_disk(f, "work");
	take_off_disk(f, "snapshots");
	assert_int_equal(umount(path), 0);
	free(path);
}

static void directories_on_two_file_systems_are_refused(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;

	require_private_mounts();
	(void)mkdirat(f->root->fd, "work", 0700);
	char *path = temp_root_path(f->root, "work"),
	     *database = temp_root_path(f->root, "metadata.db");
	assert_int_equal(mount("tmpfs", path, "tmpfs", 0, NULL), 0);
	assert_ok(metastore_open(database, &f->store, &err), &err);
	assert_fails(layers_open(f->root->path, f->store, &f->layers, &err), &err,
		     ERR_FAILED_PRECONDITION);
	f->layers = NULL;
	assert_int_equal(umount(path), 0);
	free(database);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_full_disk_is_resource_exhausted_until_there_is_room, setup_closed,
			teardown),
		cmocka_unit_test_setup_teardown(directories_on_two_file_systems_are_refused,
						setup_closed, teardown),
	};

	return cmocka_run_group_tests(tests, private_mounts_setup, NULL);
}
