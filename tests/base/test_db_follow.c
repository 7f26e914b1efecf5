/* SPDX-License-Identifier: Apache-2.0 */
#include "base/db_follow.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define APPLICATION_ID 0x6c746573

static const char *const migrations[] = {"CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)"};

struct fixture {
	struct temp_root *root;
	char *path;
	struct db *db; /* the writer, where it is this process */
	struct db_follower *follower;
	struct err err;
};

static int open_writer(const char *path, struct db **ret_db, struct err *err)
{
	const struct db_options options = {.path = path,
					   .migrations = migrations,
					   .n_migrations = 1,
					   .n_readers = 1,
					   .application_id = APPLICATION_ID,
					   .relaxed = true};

	return db_open(&options, ret_db, err);
}

static void make(struct fixture *f)
{
	assert_ok(open_writer(f->path, &f->db, &f->err), &f->err);
}

/* As who makes a database anew does. */
static void delete_files(struct fixture *f)
{
	static const char *const names[] = {"test.db", "test.db-wal", "test.db-shm"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_true(unlinkat(f->root->fd, names[i], 0) == 0 || errno == ENOENT);
}

static void make_anew(struct fixture *f)
{
	db_close(f->db);
	f->db = NULL;
	delete_files(f);
	make(f);
}

static struct db_follower *new_follower(struct fixture *f, int32_t application_id, int64_t version)
{
	const struct db_follow_options options = {f->path, application_id, version};
	struct db_follower *follower = NULL;

	assert_ok(db_follower_new(&options, &follower, &f->err), &f->err);
	return follower;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->root = temp_root_new();
	f->path = temp_root_path(f->root, "test.db");
	f->follower = new_follower(f, APPLICATION_ID, 1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	db_follower_free(f->follower);
	db_close(f->db);
	temp_root_free(f->root);
	free(f->path);
	free(f);
	return 0;
}

static int insert(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"INSERT INTO t (data) VALUES (randomblob(500)), (randomblob(500))";
	struct db_stmt *stmt;

	(void)arg;
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	return db_step(stmt, err);
}

/* Two rows. */
static void add(struct fixture *f)
{
	assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
}

static int count(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT count(*), sum(length(data)) FROM t";
	int64_t *n = arg;
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0 || db_step(stmt, err) < 0)
		return -1;
	*n = db_column_int(stmt, 0);
	return db_column_int(stmt, 1) == *n * 500 ? 5 : 6;
}

static int64_t n_rows(struct fixture *f)
{
	int64_t n = -1;
	int r = db_follow(f->follower, count, &n, &f->err);

	assert_ok(r, &f->err);
	/* What the function returned is returned. */
	assert_int_equal(r, 5);
	return n;
}

static int last(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT max(id) FROM t";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0 || db_step(stmt, err) < 0)
		return -1;
	*(int64_t *)arg = db_column_int(stmt, 0);
	return 0;
}

/* As n_rows(), without looking at each. */
static int64_t last_row(struct fixture *f)
{
	int64_t n = -1;

	assert_ok(db_follow(f->follower, last, &n, &f->err), &f->err);
	return n;
}

static void assert_unreadable(struct fixture *f, enum err_code code)
{
	int64_t n;

	assert_fails(db_follow(f->follower, count, &n, &f->err), &f->err, code);
}

static void one_that_is_not_there_is_not_found_until_it_is(void **state)
{
	struct fixture *f = *state;
	int fd;

	assert_unreadable(f, ERR_NOT_FOUND);
	/* Made, and empty so far: its writer is not disturbed. */
	fd = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_unreadable(f, ERR_NOT_FOUND);
	make(f);
	assert_int_equal(n_rows(f), 0);
	db_close(f->db);
	f->db = NULL;
	delete_files(f);
	assert_unreadable(f, ERR_NOT_FOUND);
	make(f);
	assert_int_equal(n_rows(f), 0);
}

static void nor_is_one_whose_directory_is_not_there(void **state)
{
	struct fixture *f = *state;

	free(f->path);
	f->path = temp_root_path(f->root, "no/such/test.db");
	db_follower_free(f->follower);
	f->follower = new_follower(f, APPLICATION_ID, 1);
	assert_unreadable(f, ERR_NOT_FOUND);
}

static void what_is_committed_is_read(void **state)
{
	struct fixture *f = *state;

	make(f);
	for (int i = 0; i < 50; i++) {
		add(f);
		assert_int_equal(n_rows(f), 2 * (i + 1));
	}
	/* Moved from the log into the file, and after a clean end of the writer. */
	assert_ok(db_checkpoint(f->db, &f->err), &f->err);
	assert_int_equal(n_rows(f), 100);
	db_close(f->db);
	f->db = NULL;
	assert_int_equal(n_rows(f), 100);
	make(f);
	add(f);
	assert_int_equal(n_rows(f), 102);
}

static void readers_do_not_make_the_log_grow(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	make(f);
	for (int i = 0; i < 5000; i++) {
		add(f);
		if (i % 10 == 0)
			assert_int_equal(last_row(f), 2 * (i + 1));
	}
	assert_int_equal(fstatat(f->root->fd, "test.db-wal", &st, 0), 0);
	/* 5000 commits of two frames each would be 40 MiB and more. */
	assert_true(st.st_size < 20 << 20);
}

static void one_that_is_made_anew_is_read_from_then_on(void **state)
{
	struct fixture *f = *state;

	make(f);
	add(f);
	assert_int_equal(n_rows(f), 2);
	make_anew(f);
	assert_int_equal(n_rows(f), 0);
	add(f);
	add(f);
	assert_int_equal(n_rows(f), 4);
	make_anew(f);
	add(f);
	assert_int_equal(n_rows(f), 2);
}

/** struct replacing - a reader under which the database is made anew, the first @n_times */
struct replacing {
	struct fixture *f;
	int n_times;
	int n_runs;
	int64_t n_rows;
};

static int count_and_replace(struct db_conn *conn, void *arg, struct err *err)
{
	struct replacing *replacing = arg;

	if (replacing->n_runs++ < replacing->n_times) {
		make_anew(replacing->f);
		add(replacing->f);
	}
	return count(conn, &replacing->n_rows, err) < 0 ? -1 : 0;
}

static void nothing_is_told_of_one_that_was_replaced_meanwhile(void **state)
{
	struct fixture *f = *state;
	struct replacing replacing = {.f = f, .n_times = 2};

	make(f);
	for (int i = 0; i < 10; i++)
		add(f);
	assert_ok(db_follow(f->follower, count_and_replace, &replacing, &f->err), &f->err);
	assert_int_equal(replacing.n_runs, 3);
	assert_int_equal(replacing.n_rows, 2);
	/* Not without end. */
	replacing = (struct replacing){.f = f, .n_times = 1000};
	assert_fails(db_follow(f->follower, count_and_replace, &replacing, &f->err), &f->err,
		     ERR_UNAVAILABLE);
	assert_true(replacing.n_runs < 100);
	assert_int_equal(n_rows(f), 2);
}

static void others_are_refused(void **state)
{
	struct fixture *f = *state;
	int64_t n;

	make(f);
	db_follower_free(f->follower);
	f->follower = new_follower(f, APPLICATION_ID, 2);
	assert_unreadable(f, ERR_FAILED_PRECONDITION);
	db_follower_free(f->follower);
	f->follower = new_follower(f, APPLICATION_ID + 1, 1);
	assert_unreadable(f, ERR_FAILED_PRECONDITION);
	/* Refused again, and not taken for known. */
	assert_fails(db_follow(f->follower, count, &n, &f->err), &f->err, ERR_FAILED_PRECONDITION);
}

static void damage_is_told_and_gets_well(void **state)
{
	static char garbage[8192] = "SQLite format 3, or is it?";
	struct fixture *f = *state;
	int fd;

	assert_int_equal(mkdirat(f->root->fd, "test.db", 0700), 0);
	assert_unreadable(f, ERR_DATA_LOSS);
	assert_int_equal(unlinkat(f->root->fd, "test.db", AT_REMOVEDIR), 0);
	fd = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, garbage, sizeof(garbage)), sizeof(garbage));
	close(fd);
	assert_unreadable(f, ERR_DATA_LOSS);
	make_anew(f);
	add(f);
	assert_int_equal(n_rows(f), 2);
}

static void who_follows_cannot_write(void **state)
{
	struct fixture *f = *state;

	make(f);
	assert_fails(db_follow(f->follower, insert, NULL, &f->err), &f->err,
		     ERR_FAILED_PRECONDITION);
	assert_int_equal(n_rows(f), 0);
}

/* --- two processes -------------------------------------------------------------------------------------- */

#define N_KILLS          6
#define ACKS_BEFORE_KILL 700

/** struct writer - a process that writes once it is told to by @go_fd, and says so on @ack_fd */
struct writer {
	pid_t pid;
	int go_fd;
	int ack_fd;
};

/* Until it is killed. */
static void writer_main(const char *path, int go_fd, int ack_fd)
{
	struct err err = ERR_INIT;
	struct db *db;
	char go;

	if (read(go_fd, &go, 1) != 1 || open_writer(path, &db, &err) < 0)
		_exit(1);
	while (db_write(db, insert, NULL, NULL, NULL, &err) == 0 && write(ack_fd, "", 1) == 1) {
	}
	_exit(1);
}

static struct writer fork_writer(const char *path)
{
	int go[2], acks[2];
	struct writer writer;

	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	assert_int_equal(pipe2(acks, O_CLOEXEC), 0);
	/* It does not run far ahead. */
	assert_true(fcntl(acks[0], F_SETPIPE_SZ, 4096) >= 0);
	writer.pid = fork();
	assert_true(writer.pid >= 0);
	if (writer.pid == 0)
		writer_main(path, go[0], acks[1]);
	close(go[0]);
	close(acks[1]);
	writer.go_fd = go[1];
	writer.ack_fd = acks[0];
	return writer;
}

static void a_writer_that_is_killed_takes_nothing_along(void **state)
{
	struct fixture *f = *state;
	struct writer writers[N_KILLS];
	int64_t n_acked = 0, n_seen = 0;

	/* All of them now: sqlite's connections do not cross a fork. */
	for (int i = 0; i < N_KILLS; i++)
		writers[i] = fork_writer(f->path);
	for (int i = 0; i < N_KILLS; i++) {
		int64_t enough = n_acked + 2 * (ACKS_BEFORE_KILL + i * 100);
		struct writer *writer = &writers[i];
		int status;
		char ack;

		assert_int_equal(write(writer->go_fd, "", 1), 1);
		/* More than was told may be there, but never half a commit. */
		for (bool killed = false; read(writer->ack_fd, &ack, 1) == 1;) {
			n_acked += 2;
			if (!killed && n_acked >= enough)
				killed = kill(writer->pid, SIGKILL) == 0;
			if (n_acked % 20 == 0) {
				n_seen = last_row(f);
				assert_true(n_seen >= n_acked && n_seen % 2 == 0);
			}
		}
		close(writer->go_fd);
		close(writer->ack_fd);
		assert_int_equal(waitpid(writer->pid, &status, 0), writer->pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		/* Nobody writes: by who was there before, and by one that has to recover the log. */
		n_seen = n_rows(f);
		assert_true(n_seen >= n_acked && n_seen % 2 == 0);
		if (i % 2) {
			db_follower_free(f->follower);
			f->follower = new_follower(f, APPLICATION_ID, 1);
			/* Of a commit that was in the log already, the killed one may not have told others. */
			n_acked = n_rows(f);
			assert_true(n_acked == n_seen || n_acked == n_seen + 2);
			n_seen = n_acked;
		}
		n_acked = n_seen;
	}
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_writer_that_is_killed_takes_nothing_along),
		TEST(one_that_is_not_there_is_not_found_until_it_is),
		TEST(nor_is_one_whose_directory_is_not_there),
		TEST(what_is_committed_is_read),
		TEST(readers_do_not_make_the_log_grow),
		TEST(one_that_is_made_anew_is_read_from_then_on),
		TEST(nothing_is_told_of_one_that_was_replaced_meanwhile),
		TEST(others_are_refused),
		TEST(damage_is_told_and_gets_well),
		TEST(who_follows_cannot_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
