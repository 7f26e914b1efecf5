/* SPDX-License-Identifier: Apache-2.0 */
/* The database on file systems that are really full, or read-only. */
#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/db.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

#define DISK_BYTES (16u << 20)

static const char *const migrations[] = {"CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)"};

static struct db *open_db(const char *path)
{
	const struct db_options options = {.path = path,
					   .migrations = migrations,
					   .n_migrations = 1,
					   .n_readers = 1,
					   .application_id = 1};
	struct err err = ERR_INIT;
	struct db *db = NULL;

	assert_ok(db_open(&options, &db, &err), &err);
	return db;
}

/* @sql: a string constant, which gives no rows. */
static int run_sql(struct db_conn *conn, const char *sql, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	return db_step(stmt, err);
}

static int insert(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	return run_sql(conn, "INSERT INTO t (data) VALUES (randomblob(100000))", err);
}

static int delete_all(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	return run_sql(conn, "DELETE FROM t", err);
}

static int count(struct db_conn *conn, void *arg, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, "SELECT count(*), sum(length(data)) FROM t", &stmt, err) < 0 ||
	    db_step(stmt, err) < 0)
		return -1;
	assert_int_equal(db_column_int(stmt, 1), db_column_int(stmt, 0) * 100000);
	*(int64_t *)arg = db_column_int(stmt, 0);
	return 0;
}

static int64_t n_rows(struct db *db)
{
	struct err err = ERR_INIT;
	int64_t n = -1;

	assert_ok(db_read(db, count, &n, &err), &err);
	return n;
}

/* Take all room there is. */
static void fill(const char *path)
{
	static const char zeros[65536];
	CLEANUP(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	size_t size = sizeof(zeros);

	assert_true(fd >= 0);
	while (size > 0)
		if (write(fd, zeros, size) < 0) {
			assert_int_equal(errno, ENOSPC);
			size /= 2;
		}
}

static int64_t write_until_full(struct db *db)
{
	struct err err = ERR_INIT;
	int64_t n = 0;

	while (db_write(db, insert, NULL, NULL, NULL, &err) == 0)
		n++;
	assert_int_equal(err.code, ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(err.sys_errno, ENOSPC);
	return n;
}

static void full_disk_is_reported_and_survived(void **state)
{
	struct temp_root *root = *state;
	CLEANUP(free_ptr) char *dir = temp_root_path(root, "disk");
	CLEANUP(free_ptr) char *path = temp_root_path(root, "disk/test.db");
	CLEANUP(free_ptr) char *filler = temp_root_path(root, "disk/filler");
	CLEANUP(free_ptr) char *options = NULL;
	struct err err = ERR_INIT;
	struct db *db;
	int64_t n;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "disk", 0700), 0);
	mount_tmpfs(dir, DISK_BYTES);
	db = open_db(path);
	n = write_until_full(db);
	assert_true(n > 10);
	assert_int_equal(n_rows(db), n);
	fill(filler);
	n += write_until_full(db);
	assert_int_equal(n_rows(db), n);
	db_close(db);

	/* It starts on a full disk too. */
	db = open_db(path);
	assert_int_equal(n_rows(db), n);
	/* What the log had taken may be free after a start: how much of it comes back is not promised. */
	fill(filler);
	n += write_until_full(db);
	assert_fails(db_write(db, insert, NULL, NULL, NULL, &err), &err, ERR_RESOURCE_EXHAUSTED);
	db_close(db);
	/* Room for all rows once more: so much does a transaction that deletes them need in the log. */
	assert_int_equal(unlink(filler), 0);
	assert_true(asprintf(&options, "size=%d", 2 * DISK_BYTES) > 0);
	assert_int_equal(mount("tmpfs", dir, "tmpfs", MS_REMOUNT, options), 0);
	db = open_db(path);
	assert_ok(db_write(db, delete_all, NULL, NULL, NULL, &err), &err);
	for (int64_t i = 0; i < n; i++)
		assert_ok(db_write(db, insert, NULL, NULL, NULL, &err), &err);
	assert_int_equal(n_rows(db), n);
	db_close(db);
	assert_int_equal(umount2(dir, 0), 0);
}

static int delete_one(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	return run_sql(conn, "DELETE FROM t WHERE id = (SELECT max(id) FROM t)", err);
}

static int insert_small(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	return run_sql(conn, "INSERT INTO t (data) VALUES (randomblob(3000))", err);
}

static void rows_can_be_removed_on_a_full_disk(void **state)
{
	struct temp_root *root = *state;
	CLEANUP(free_ptr) char *dir = temp_root_path(root, "disk");
	CLEANUP(free_ptr) char *path = temp_root_path(root, "disk/test.db");
	CLEANUP(free_ptr) char *filler = temp_root_path(root, "disk/filler");
	struct err err = ERR_INIT;
	struct db *db;
	int n = 0;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "disk", 0700), 0);
	mount_tmpfs(dir, DISK_BYTES);
	db = open_db(path);
	fill(filler);
	/* More than the log can hold in all, so that it must start anew on the way. */
	for (int round = 0; round < 50; round++) {
		int in_round = 0;

		while (db_write(db, insert_small, NULL, NULL, NULL, &err) == 0)
			in_round++;
		assert_int_equal(err.code, ERR_RESOURCE_EXHAUSTED);
		assert_true(in_round > 0);
		for (int i = 0; i < in_round; i++)
			assert_ok(db_write(db, delete_one, NULL, NULL, NULL, &err), &err);
		n += 2 * in_round;
	}
	assert_true(n > 5000);
	db_close(db);
	assert_int_equal(umount2(dir, 0), 0);
}

static void ignore_end(struct db_job *job)
{
	(void)job;
}

/* Removals in one group with what needs room must not be refused with it, but make room for it. */
static void removals_are_not_refused_for_what_needs_room(void **state)
{
	struct temp_root *root = *state;
	CLEANUP(free_ptr) char *dir = temp_root_path(root, "disk");
	CLEANUP(free_ptr) char *path = temp_root_path(root, "disk/test.db");
	CLEANUP(free_ptr) char *filler = temp_root_path(root, "disk/filler");
	struct db_job jobs[40];
	struct err errs[ARRAY_LEN(jobs)], err = ERR_INIT;
	struct db *db;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "disk", 0700), 0);
	mount_tmpfs(dir, DISK_BYTES);
	db = open_db(path);
	fill(filler);
	while (db_write(db, insert_small, NULL, NULL, NULL, &err) == 0)
		;
	assert_int_equal(err.code, ERR_RESOURCE_EXHAUSTED);
	for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
		/* An insertion takes more than the removals give. */
		jobs[i] = (struct db_job){.fn = i % 2 ? delete_one : insert,
					  .done = ignore_end,
					  .err = &errs[i]};
		errs[i] = (struct err)ERR_INIT;
		assert_int_equal(db_submit(db, &jobs[i]), i == 0);
	}
	db_lead(db);
	for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
		if (i % 2)
			assert_ok(jobs[i].result, &errs[i]);
		else
			assert_fails(jobs[i].result, &errs[i], ERR_RESOURCE_EXHAUSTED);
	}
	db_close(db);
	assert_int_equal(umount2(dir, 0), 0);
}

/* Closed, it holds no less room than open: what others take meanwhile is not missing for removals. */
static void rows_can_be_removed_when_the_disk_filled_up_meanwhile(void **state)
{
	struct temp_root *root = *state;
	CLEANUP(free_ptr) char *dir = temp_root_path(root, "disk");
	CLEANUP(free_ptr) char *path = temp_root_path(root, "disk/test.db");
	CLEANUP(free_ptr) char *filler = temp_root_path(root, "disk/filler");
	struct err err = ERR_INIT;
	struct db *db;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "disk", 0700), 0);
	mount_tmpfs(dir, DISK_BYTES);
	db = open_db(path);
	for (int i = 0; i < 8; i++)
		assert_ok(db_write(db, insert, NULL, NULL, NULL, &err), &err);
	for (int i = 8; i > 0; i--) {
		db_close(db);
		fill(filler);
		db = open_db(path);
		fill(filler);
		assert_int_equal(n_rows(db), i);
		assert_ok(db_write(db, delete_one, NULL, NULL, NULL, &err), &err);
	}
	assert_int_equal(n_rows(db), 0);
	db_close(db);
	assert_int_equal(umount2(dir, 0), 0);
}

static void read_only_file_system_is_refused(void **state)
{
	struct temp_root *root = *state;
	CLEANUP(free_ptr) char *dir = temp_root_path(root, "disk");
	CLEANUP(free_ptr) char *path = temp_root_path(root, "disk/test.db");
	CLEANUP(free_ptr) char *other = temp_root_path(root, "disk/other.db");
	struct db_options options = {.path = path,
				     .migrations = migrations,
				     .n_migrations = 1,
				     .n_readers = 1,
				     .application_id = 1};
	struct err err = ERR_INIT;
	struct db *db = NULL;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "disk", 0700), 0);
	mount_tmpfs(dir, DISK_BYTES);
	db_close(open_db(path));
	assert_int_equal(mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_fails(db_open(&options, &db, &err), &err, ERR_FAILED_PRECONDITION);
	options.path = other;
	assert_fails(db_open(&options, &db, &err), &err, ERR_FAILED_PRECONDITION);
	assert_int_equal(umount2(dir, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(full_disk_is_reported_and_survived, temp_root_setup,
						temp_root_teardown),
		cmocka_unit_test_setup_teardown(rows_can_be_removed_on_a_full_disk, temp_root_setup,
						temp_root_teardown),
		cmocka_unit_test_setup_teardown(removals_are_not_refused_for_what_needs_room,
						temp_root_setup, temp_root_teardown),
		cmocka_unit_test_setup_teardown(
			rows_can_be_removed_when_the_disk_filled_up_meanwhile, temp_root_setup,
			temp_root_teardown),
		cmocka_unit_test_setup_teardown(read_only_file_system_is_refused, temp_root_setup,
						temp_root_teardown),
	};

	return cmocka_run_group_tests(tests, private_mounts_setup, NULL);
}
