/* SPDX-License-Identifier: Apache-2.0 */
/* What layers.c makes of a disk that is full. Needs root, to mount one. */
#include "tests/snapshotters/overlay/layers_fixture.h"

#include <sys/mount.h>
#include <sys/statvfs.h>

/* A tmpfs of 64 inodes, far fewer than a stock of spares needs. */
static void a_full_disk_is_resource_exhausted_until_there_is_room(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	uint64_t ids[STOCK_SPARES_MAX], id;
	size_t n = 0;

	require_private_mounts();
	(void)mkdirat(f->root->fd, "snapshots", 0700);
	char *path = temp_root_path(f->root, "snapshots");
	assert_int_equal(mount("tmpfs", path, "tmpfs", 0, "nr_inodes=64"), 0);
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
	umount(path);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_full_disk_is_resource_exhausted_until_there_is_room, setup_closed,
			teardown),
	};

	return cmocka_run_group_tests(tests, private_mounts_setup, NULL);
}
