/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/snapshotters/overlay/layers_fixture.h"

#include <errno.h>
#include <pthread.h>

#include "tests/support/fault.h"

static void a_taken_directory_is_empty_with_the_right_modes(void **state)
{
	struct fixture *f = *state;
	uint64_t id = take(f);
	const char *fs = layers_fs_path(f->layers, &f->arena, id);
	const char *work = layers_work_path(f->layers, &f->arena, id);
	struct stat st;

	assert_int_equal(stat(fs, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(st.st_nlink, 2);
	assert_int_equal(stat(work, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0711);
	layers_drop(f->layers, id, true);
}

static void no_id_is_taken_twice(void **state)
{
	struct fixture *f = *state;
	uint64_t ids[3 * STOCK_SPARES_MAX];

	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		ids[i] = take(f);
		for (size_t j = 0; j < i; j++)
			assert_true(ids[i] != ids[j]);
	}
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		layers_drop(f->layers, ids[i], true);
}

struct taker {
	struct fixture *f;
	pthread_t thread;
	uint64_t ids[50];
	bool failed;
};

static void *take_many(void *arg)
{
	struct taker *taker = arg;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	struct err err = ERR_INIT;

	for (size_t i = 0; i < ARRAY_LEN(taker->ids); i++)
		if (layers_take(taker->f->layers, &ctx, &taker->ids[i], &err) < 0)
			taker->failed = true;
	return NULL;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static void many_takers_at_once_get_different_ids(void **state)
{
	struct fixture *f = *state;
	struct taker takers[8] = {0};
	uint64_t all[8 * 50];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(takers); i++) {
		takers[i].f = f;
		assert_int_equal(pthread_create(&takers[i].thread, NULL, take_many, &takers[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(takers); i++) {
		pthread_join(takers[i].thread, NULL);
		assert_false(takers[i].failed);
		memcpy(all + n, takers[i].ids, sizeof(takers[i].ids));
		n += ARRAY_LEN(takers[i].ids);
	}
	qsort(all, n, sizeof(*all), compare_ids);
	for (size_t i = 1; i < n; i++)
		assert_true(all[i - 1] < all[i]);
	for (size_t i = 0; i < n; i++)
		layers_drop(f->layers, all[i], true);
}

static void a_clean_stop_leaves_only_what_rows_name(void **state)
{
	struct fixture *f = *state;
	uint64_t id = take(f), dropped = take(f);

	add_row(f, id, "kept");
	layers_drop(f->layers, dropped, true);
	close_all(f);
	assert_int_equal(count_snapshot_dirs(f), 1);
	assert_true(id_is_there(f, id));
	open_all(f);
}

static bool is_gone(void *arg)
{
	return !is_there(arg, "1000000");
}

static void the_start_removes_garbage_and_gives_its_ids_to_nobody(void **state)
{
	struct fixture *f = *state;
	uint64_t id = take(f);

	add_row(f, id, "key");
	close_all(f);
	assert_int_equal(mkdirat(f->root->fd, "snapshots/1000000", 0700), 0);
	make_file(f, "snapshots/1000000/file");
	open_all(f);
	id = take(f);
	assert_true(id > 1000000);
	wait_until(is_gone, f, "garbage is removed");
	layers_drop(f->layers, id, true);
}

static void a_database_that_was_emptied_is_refused_and_nothing_deleted(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	char *path = temp_root_path(f->root, "metadata.db");

	(void)mkdirat(f->root->fd, "snapshots", 0700);
	(void)mkdirat(f->root->fd, "work", 0700);
	/* What a crash may leave of a first start: that alone is no reason. */
	assert_int_equal(mkdirat(f->root->fd, "snapshots/1", 0700), 0);
	assert_int_equal(mkdirat(f->root->fd, "work/2", 0700), 0);
	open_all(f);
	close_all(f);

	assert_int_equal(mkdirat(f->root->fd, "snapshots/3", 0700), 0);
	make_file(f, "snapshots/3/file");
	assert_ok(metastore_open(path, &f->store, &err), &err);
	assert_fails(layers_open(f->root->path, f->store, &f->layers, &err), &err,
		     ERR_FAILED_PRECONDITION);
	assert_contains(err.msg, "snapshots/3");
	assert_true(is_there(f, "3/file"));
	f->layers = NULL;
	free(path);
}

static void cleanup_removes_what_no_row_names(void **state)
{
	struct fixture *f = *state;
	uint64_t kept = take(f), taken = take(f);
	struct err err = ERR_INIT;
	uint64_t removed = take(f), id;
	char path[64];

	add_row(f, kept, "kept");
	add_row(f, removed, "removed");
	snprintf(path, sizeof(path), "snapshots/%" PRIu64 "/file", removed);
	make_file(f, path);
	assert_int_equal(mkdirat(f->root->fd, "snapshots/new-1", 0700), 0);
	make_file(f, "snapshots/stray");
	make_file(f, "snapshots/007");
	make_file(f, "snapshots/99999999999999999999999");
	make_file(f, "snapshots/18446744073709551615");
	assert_ok(metastore_remove(f->store, &f->ctx, "removed", &id, &err), &err);
	assert_int_equal(id, removed);
	assert_true(id_is_there(f, removed));

	cleanup(f);
	assert_false(id_is_there(f, removed));
	assert_false(is_there(f, "new-1"));
	assert_false(is_there(f, "stray"));
	assert_false(is_there(f, "007"));
	assert_false(is_there(f, "99999999999999999999999"));
	assert_false(is_there(f, "18446744073709551615"));
	assert_true(id_is_there(f, kept));
	assert_true(id_is_there(f, taken));
	/* Spares are no garbage: what is taken next is there. */
	id = take(f);
	assert_true(id_is_there(f, id));
	layers_drop(f->layers, id, true);
	layers_drop(f->layers, taken, true);
}

static void cleanup_stops_when_its_caller_has_gone(void **state)
{
	struct fixture *f = *state;
	atomic_bool cancelled = true;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &cancelled, .ns = ""};
	struct err err = ERR_INIT;

	assert_int_equal(mkdirat(f->root->fd, "snapshots/new-1", 0700), 0);
	assert_fails(layers_cleanup(f->layers, &ctx, &err), &err, ERR_CANCELLED);
	cleanup(f);
	assert_false(is_there(f, "new-1"));
}

static void remove_deletes_at_once(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	uint64_t id = take(f), row;

	add_row(f, id, "key");
	assert_ok(metastore_remove(f->store, &f->ctx, "key", &row, &err), &err);
	assert_ok(layers_remove(f->layers, &f->ctx, row, &err), &err);
	assert_false(id_is_there(f, id));
}

static void usage_counts_the_root_and_each_inode_once(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	uint64_t id = take(f);
	const char *fs = layers_fs_path(f->layers, &f->arena, id);
	struct usage empty, usage;
	struct stat st;
	char path[64];

	assert_ok(layers_usage(f->layers, &f->ctx, id, &empty, &err), &err);
	assert_int_equal(empty.inodes, 1);
	assert_int_equal(stat(fs, &st), 0);
	assert_int_equal(empty.size_bytes, (uint64_t)st.st_blocks * 512);

	snprintf(path, sizeof(path), "snapshots/%" PRIu64 "/a", id);
	make_file(f, path);
	assert_int_equal(linkat(f->root->fd, path, f->root->fd, "hard-link", 0), 0);
	assert_ok(layers_usage(f->layers, &f->ctx, id, &usage, &err), &err);
	assert_int_equal(usage.inodes, 2);
	assert_int_equal(unlinkat(f->root->fd, path, 0), 0);
	layers_drop(f->layers, id, false);
}

struct dropped {
	struct fixture *f;
	uint64_t id;
};

static bool is_removed(void *arg)
{
	struct dropped *dropped = arg;

	return !id_is_there(dropped->f, dropped->id);
}

static void a_dirty_drop_does_not_come_back(void **state)
{
	struct fixture *f = *state;
	uint64_t id = take(f);
	struct dropped dropped = {f, id};

	layers_drop(f->layers, id, false);
	wait_until(is_removed, &dropped, "the removal of what was dropped");
	for (int i = 0; i < 2 * STOCK_SPARES_MAX; i++) {
		uint64_t next = take(f);

		assert_true(next != id);
		layers_drop(f->layers, next, false);
	}
}

static void a_failed_sync_gives_no_directory_and_the_next_call_tries_again(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	uint64_t ids[2 * STOCK_SPARES_MAX], id;
	size_t n = 0;

	/* Whichever way this file system is synced. */
	fault_after(FAULT_FSYNC, 0, EIO);
	fault_after(FAULT_SYNCFS, 0, EIO);
	/* What was in stock before is durable, and may be taken. */
	while (n < ARRAY_LEN(ids) && layers_take(f->layers, &f->ctx, &ids[n], &err) == 0)
		n++;
	assert_true(fault_clear() > 0);
	assert_true(n < ARRAY_LEN(ids));
	assert_int_equal(err.code, ERR_INTERNAL);
	assert_int_equal(err.sys_errno, EIO);
	assert_contains(err.msg, "no directory for a new snapshot");

	id = take(f);
	assert_true(id_is_there(f, id));
	layers_drop(f->layers, id, true);
	while (n > 0)
		layers_drop(f->layers, ids[--n], true);
	/* What had been made and could not be synced is not left behind. */
	close_all(f);
	assert_int_equal(count_snapshot_dirs(f), 0);
	open_all(f);
}

static void a_wait_for_a_directory_ends_with_its_caller(void **state)
{
	struct fixture *f = *state;
	struct ctx ctx = {.deadline_ns = 0, .ns = ""};
	struct err err = ERR_INIT;
	uint64_t ids[4 * STOCK_SPARES_MAX];
	size_t n = 0;

	/* A caller whose time is over gets what is in stock, and never waits for more. */
	while (n < ARRAY_LEN(ids) && layers_take(f->layers, &ctx, &ids[n], &err) == 0)
		n++;
	if (n < ARRAY_LEN(ids))
		assert_int_equal(err.code, ERR_DEADLINE_EXCEEDED);
	while (n > 0)
		layers_drop(f->layers, ids[--n], true);
}

static void a_root_that_mount_options_cannot_carry_is_refused(void **state)
{
	static const char *const bad[] = {"/tmp/a:b", "/tmp/a,b", "/tmp/a\\b", "relative"};
	struct fixture *f = *state;
	struct err good = ERR_INIT;

	assert_ok(layers_check_root(f->root->path, &good), &good);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err err = ERR_INIT;

		assert_fails(layers_check_root(bad[i], &err), &err, ERR_INVALID_ARGUMENT);
		assert_contains(err.msg, bad[i]);
	}
}

static void chown_is_seen_by_owner(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	uint64_t id = take(f);
	uid_t uid = 1;
	gid_t gid = 1;

	/* Without root, to ourselves: the change itself needs root, the path does not. */
	assert_ok(layers_chown(f->layers, id, geteuid() ? geteuid() : 1234,
			       geteuid() ? getegid() : 4321, &err),
		  &err);
	assert_ok(layers_owner(f->layers, id, &uid, &gid, &err), &err);
	assert_int_equal(uid, geteuid() ? geteuid() : 1234);
	assert_int_equal(gid, geteuid() ? getegid() : 4321);
	layers_drop(f->layers, id, false);
}

#define LAYERS_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LAYERS_TEST(a_taken_directory_is_empty_with_the_right_modes),
		LAYERS_TEST(no_id_is_taken_twice),
		LAYERS_TEST(many_takers_at_once_get_different_ids),
		LAYERS_TEST(a_clean_stop_leaves_only_what_rows_name),
		LAYERS_TEST(the_start_removes_garbage_and_gives_its_ids_to_nobody),
		cmocka_unit_test_setup_teardown(
			a_database_that_was_emptied_is_refused_and_nothing_deleted, setup_closed,
			teardown),
		LAYERS_TEST(cleanup_removes_what_no_row_names),
		LAYERS_TEST(cleanup_stops_when_its_caller_has_gone),
		LAYERS_TEST(remove_deletes_at_once),
		LAYERS_TEST(usage_counts_the_root_and_each_inode_once),
		LAYERS_TEST(a_dirty_drop_does_not_come_back),
		LAYERS_TEST(a_failed_sync_gives_no_directory_and_the_next_call_tries_again),
		LAYERS_TEST(a_wait_for_a_directory_ends_with_its_caller),
		LAYERS_TEST(a_root_that_mount_options_cannot_carry_is_refused),
		LAYERS_TEST(chown_is_seen_by_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
