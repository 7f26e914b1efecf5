/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/cleanup.h"
#include "base/db.h"
#include "tests/base/test_db_fault.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

#define APPLICATION_ID 0x6c746573
#define N_CALLERS      8
/* More commits than the WAL holds before it is moved into the database. */
#define MANY_COMMITS   3000

static const char *const migrations[] = {
	"CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB);"
	"CREATE TABLE child (parent INTEGER NOT NULL REFERENCES t (id))",
	"ALTER TABLE t ADD COLUMN added INTEGER NOT NULL DEFAULT 7",
};

static struct db_options options_for(const char *path)
{
	return (struct db_options){.path = path,
				   .migrations = migrations,
				   .n_migrations = 2,
				   .n_readers = 2,
				   .application_id = APPLICATION_ID};
}

/** struct fixture - an open database in a directory of its own */
struct fixture {
	struct temp_root *root;
	char *path;
	char *wal_path;
	struct db *db;
	struct err err;
};

static void open_db(struct fixture *f)
{
	struct db_options options = options_for(f->path);

	assert_ok(db_open(&options, &f->db, &f->err), &f->err);
}

static void reopen_db(struct fixture *f)
{
	db_close(f->db);
	f->db = NULL;
	open_db(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->root = temp_root_new();
	f->path = temp_root_path(f->root, "test.db");
	f->wal_path = temp_root_path(f->root, "test.db-wal");
	open_db(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	db_fault_clear();
	db_close(f->db);
	temp_root_free(f->root);
	free(f->wal_path);
	free(f->path);
	free(f);
	return 0;
}

static int run_sql(struct db_conn *conn, const char *sql, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	return db_step(stmt, err);
}

/* ---- reading and writing ---- */

static int insert(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "INSERT INTO t (name) VALUES (?)";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_text(stmt, 1, arg);
	return db_step(stmt, err);
}

static int count(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT count(*) FROM t";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0 || db_step(stmt, err) < 0)
		return -1;
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

static int write_name(struct fixture *f, const char *name)
{
	return db_write(f->db, insert, (void *)(uintptr_t)name, NULL, NULL, &f->err);
}

static void write_is_read_by_the_next_read(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(n_rows(f->db), 0);
	assert_ok(write_name(f, "a"), &f->err);
	assert_int_equal(n_rows(f->db), 1);
	reopen_db(f);
	assert_int_equal(n_rows(f->db), 1);
}

static void copy_file(const char *from, const char *to)
{
	CLEANUP(close_fd) int in = open(from, O_RDONLY | O_CLOEXEC);
	CLEANUP(close_fd) int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char buf[65536];
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	assert_int_equal(n, 0);
}

struct values {
	int64_t number;
	const char *text;
	const void *data;
	size_t size;
};

static const char values_sql[] = "SELECT ?, ?, ?, ?";

static int echo(struct db_conn *conn, void *arg, struct err *err)
{
	struct values *values = arg;
	struct db_stmt *stmt;
	size_t size;

	if (db_prepare(conn, values_sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, values->number);
	db_bind_text(stmt, 2, values->text);
	db_bind_blob(stmt, 3, values->data, values->size);
	db_bind_null(stmt, 4);
	if (db_step(stmt, err) != 1)
		return -1;
	assert_int_equal(db_column_int(stmt, 0), values->number);
	assert_string_equal(db_column_text(stmt, 1), values->text);
	assert_memory_equal(db_column_blob(stmt, 2, &size), values->data, values->size);
	assert_int_equal(size, values->size);
	assert_false(db_column_is_null(stmt, 2));
	assert_true(db_column_is_null(stmt, 3));
	assert_null(db_column_text(stmt, 3));
	return db_step(stmt, err);
}

static void values_come_back_as_they_were_bound(void **state)
{
	struct fixture *f = *state;
	struct values values[] = {
		{INT64_MAX, "text", "\0\1\2", 3},
		{INT64_MIN, "", "\0", 1},
		{-62135596800, "\xc3\xa9 \xe2\x82\xac", "12345678", 8},
	};

	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		assert_ok(db_read(f->db, echo, &values[i], &f->err), &f->err);
}

static int bind_empty_blob(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, "SELECT typeof(?)", &stmt, err) < 0)
		return -1;
	db_bind_blob(stmt, 1, NULL, 0);
	assert_int_equal(db_step(stmt, err), 1);
	assert_string_equal(db_column_text(stmt, 0), "blob");
	return 0;
}

static void empty_blob_is_not_null(void **state)
{
	struct fixture *f = *state;

	assert_ok(db_read(f->db, bind_empty_blob, NULL, &f->err), &f->err);
}

static int bind_out_of_range(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, "SELECT ?", &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 2, 1);
	return db_step(stmt, err);
}

static void failed_bind_is_reported_by_the_step(void **state)
{
	struct fixture *f = *state;

	assert_fails(db_read(f->db, bind_out_of_range, NULL, &f->err), &f->err, ERR_INTERNAL);
}

static int insert_twice_and_tell(struct db_conn *conn, void *arg, struct err *err)
{
	int64_t *told = arg;

	if (insert(conn, (void *)(uintptr_t) "a", err) < 0 ||
	    insert(conn, (void *)(uintptr_t) "b", err) < 0)
		return -1;
	told[0] = db_last_insert_id(conn);
	if (run_sql(conn, "UPDATE t SET name = name || 'x'", err) < 0)
		return -1;
	told[1] = db_n_changed(conn);
	return 0;
}

static void changes_are_counted(void **state)
{
	struct fixture *f = *state;
	int64_t told[2];

	assert_ok(db_write(f->db, insert_twice_and_tell, told, NULL, NULL, &f->err), &f->err);
	assert_int_equal(told[0], 2);
	assert_int_equal(told[1], 2);
}

struct outcome {
	int result;
};

static int insert_then(struct db_conn *conn, void *arg, struct err *err)
{
	struct outcome *outcome = arg;

	if (insert(conn, NULL, err) < 0)
		return -1;
	if (outcome->result < 0)
		return err_set(err, ERR_NOT_FOUND, "on purpose");
	return outcome->result;
}

static void failed_write_is_undone(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome = {-1};

	assert_fails(db_write(f->db, insert_then, &outcome, NULL, NULL, &f->err), &f->err,
		     ERR_NOT_FOUND);
	assert_string_equal(f->err.msg, "on purpose");
	assert_int_equal(n_rows(f->db), 0);
}

static void positive_outcome_is_returned_and_undone(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome = {3};

	assert_int_equal(db_write(f->db, insert_then, &outcome, NULL, NULL, &f->err), 3);
	assert_int_equal(n_rows(f->db), 0);
}

static void violated_constraint_is_aborted(void **state)
{
	struct fixture *f = *state;

	assert_ok(write_name(f, "a"), &f->err);
	assert_fails(write_name(f, "a"), &f->err, ERR_ABORTED);
	assert_int_equal(n_rows(f->db), 1);
}

static int insert_orphan(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	return run_sql(conn, "INSERT INTO child VALUES (4711)", err);
}

static void foreign_keys_are_enforced(void **state)
{
	struct fixture *f = *state;

	assert_fails(db_write(f->db, insert_orphan, NULL, NULL, NULL, &f->err), &f->err,
		     ERR_ABORTED);
}

static void reader_cannot_write(void **state)
{
	struct fixture *f = *state;

	assert_fails(db_read(f->db, insert, NULL, &f->err), &f->err, ERR_FAILED_PRECONDITION);
	assert_int_equal(n_rows(f->db), 0);
}

static int leave_select_open(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT id FROM t ORDER BY id";
	struct db_stmt *stmt, **seen = arg, *again;

	if (db_prepare(conn, sql, &stmt, err) < 0 || db_step(stmt, err) != 1)
		return -1;
	assert_int_equal(db_column_int(stmt, 0), 1);
	assert_true(!*seen || *seen == stmt);
	*seen = stmt;
	/* Asking for it again starts it anew. */
	if (db_prepare(conn, sql, &again, err) < 0 || db_step(again, err) != 1)
		return -1;
	assert_ptr_equal(again, stmt);
	assert_int_equal(db_column_int(stmt, 0), 1);
	return 0;
}

static void statement_is_prepared_once_and_reset_at_the_end(void **state)
{
	struct fixture *f = *state;
	struct db_stmt *seen = NULL;

	assert_ok(write_name(f, "a"), &f->err);
	assert_ok(write_name(f, "b"), &f->err);
	for (int i = 0; i < 3; i++)
		assert_ok(db_write(f->db, leave_select_open, &seen, NULL, NULL, &f->err), &f->err);
	/* A statement that still ran would keep this from taking all of the WAL. */
	seen = NULL;
	assert_ok(db_read(f->db, leave_select_open, &seen, &f->err), &f->err);
	assert_ok(db_checkpoint(f->db, &f->err), &f->err);
}

static int bad_sql(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	return run_sql(conn, "SELEKT", err);
}

static void wrong_sql_is_our_fault(void **state)
{
	struct fixture *f = *state;

	assert_fails(db_read(f->db, bad_sql, NULL, &f->err), &f->err, ERR_INTERNAL);
	assert_non_null(strstr(f->err.msg, "syntax"));
	assert_non_null(strstr(f->err.msg, f->path));
}

struct two_counts {
	struct fixture *f;
	int64_t before, after;
};

static void *write_one(void *arg)
{
	struct fixture *f = arg;
	struct err err = ERR_INIT;

	assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &err), &err);
	return NULL;
}

static int count_around_a_write(struct db_conn *conn, void *arg, struct err *err)
{
	struct two_counts *counts = arg;
	pthread_t writer;

	if (count(conn, &counts->before, err) < 0)
		return -1;
	assert_int_equal(pthread_create(&writer, NULL, write_one, counts->f), 0);
	pthread_join(writer, NULL);
	return count(conn, &counts->after, err);
}

static void read_sees_one_moment(void **state)
{
	struct fixture *f = *state;
	struct two_counts counts = {.f = f};

	assert_ok(db_read(f->db, count_around_a_write, &counts, &f->err), &f->err);
	assert_int_equal(counts.before, 0);
	assert_int_equal(counts.after, 0);
	assert_int_equal(n_rows(f->db), 1);
}

struct reads {
	struct fixture *f;
	atomic_uint *n_inside;
	unsigned int n_max;
};

static int look_around(struct db_conn *conn, void *arg, struct err *err)
{
	struct reads *reads = arg;
	int64_t n;

	assert_in_range(atomic_fetch_add(reads->n_inside, 1), 0, reads->n_max - 1);
	if (count(conn, &n, err) < 0)
		return -1;
	atomic_fetch_sub(reads->n_inside, 1);
	return 0;
}

static void *read_many(void *arg)
{
	struct reads *reads = arg;
	struct err err = ERR_INIT;

	for (int i = 0; i < 200; i++)
		assert_ok(db_read(reads->f->db, look_around, reads, &err), &err);
	return NULL;
}

static void readers_share_their_connections(void **state)
{
	struct fixture *f = *state;
	atomic_uint n_inside = 0;
	struct reads reads = {f, &n_inside, 2};
	pthread_t threads[N_CALLERS];

	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_many, &reads), 0);
	for (size_t i = 0; i < N_CALLERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(n_inside, 0);
}

/* ---- groups ---- */

typedef int (*barrier_fn)(void *arg, struct err *err);

/** struct crowd - callers of which the first holds up the others, so that these queue up behind it */
struct crowd {
	struct fixture *f;
	atomic_uint n_started;
	atomic_uint n_barriers;
};

/** struct member - one caller; @result and @err are what db_write() gave */
struct member {
	struct crowd *crowd;
	pthread_t thread;
	db_write_fn fn;
	barrier_fn barrier;
	void *barrier_arg;
	char name[32];
	int result;
	struct err err;
	unsigned int n_runs;
};

static int member_insert(struct db_conn *conn, void *arg, struct err *err)
{
	struct member *member = arg;

	member->n_runs++;
	return insert(conn, member->name, err);
}

static int member_insert_and_fail(struct db_conn *conn, void *arg, struct err *err)
{
	if (member_insert(conn, arg, err) < 0)
		return -1;
	return err_set(err, ERR_NOT_FOUND, "on purpose");
}

static int member_hold_up(struct db_conn *conn, void *arg, struct err *err)
{
	struct member *member = arg;

	while (atomic_load(&member->crowd->n_started) < N_CALLERS)
		sched_yield();
	/* They are between this count and the queue: let them get there. */
	for (int i = 0; i < 200; i++)
		sched_yield();
	return member_insert(conn, arg, err);
}

static void *member_main(void *arg)
{
	struct member *member = arg;

	atomic_fetch_add(&member->crowd->n_started, 1);
	member->result = db_write(member->crowd->f->db, member->fn, member, member->barrier,
				  member->barrier_arg, &member->err);
	return NULL;
}

static int good_barrier(void *arg, UNUSED struct err *err)
{
	struct crowd *crowd = arg;

	atomic_fetch_add(&crowd->n_barriers, 1);
	return 0;
}

static int bad_barrier(UNUSED void *arg, struct err *err)
{
	return err_set(err, ERR_DATA_LOSS, "barrier on purpose");
}

static void crowd_init(struct crowd *crowd, struct fixture *f, struct member *members, int round)
{
	*crowd = (struct crowd){.f = f};
	for (size_t i = 0; i < N_CALLERS; i++) {
		members[i] = (struct member){.crowd = crowd, .fn = member_insert};
		snprintf(members[i].name, sizeof(members[i].name), "%d/%zu", round, i);
	}
	members[0].fn = member_hold_up;
}

static void crowd_run(struct member *members)
{
	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(pthread_create(&members[i].thread, NULL, member_main, &members[i]),
				 0);
	for (size_t i = 0; i < N_CALLERS; i++)
		pthread_join(members[i].thread, NULL);
}

static void waiting_callers_share_one_barrier_and_commit(void **state)
{
	struct fixture *f = *state;
	struct member members[N_CALLERS];
	struct crowd crowd;
	unsigned int n_barriers = N_CALLERS;
	int round;

	/* Whether all of them are queued in time is up to the scheduler: it will be so once. */
	for (round = 0; round < 10000 && n_barriers > 2; round++) {
		crowd_init(&crowd, f, members, round);
		for (size_t i = 0; i < N_CALLERS; i++) {
			members[i].barrier = good_barrier;
			members[i].barrier_arg = &crowd;
		}
		crowd_run(members);
		for (size_t i = 0; i < N_CALLERS; i++)
			assert_ok(members[i].result, &members[i].err);
		n_barriers = crowd.n_barriers;
	}
	assert_in_range(n_barriers, 1, 2);
	assert_int_equal(n_rows(f->db), round * N_CALLERS);
}

static void failure_of_one_caller_spares_the_others(void **state)
{
	struct fixture *f = *state;
	struct member members[N_CALLERS];
	struct crowd crowd;

	for (int round = 0; round < 20; round++) {
		crowd_init(&crowd, f, members, round);
		members[3].fn = members[5].fn = member_insert_and_fail;
		crowd_run(members);
		for (size_t i = 0; i < N_CALLERS; i++) {
			if (i == 3 || i == 5)
				assert_fails(members[i].result, &members[i].err, ERR_NOT_FOUND);
			else
				assert_ok(members[i].result, &members[i].err);
		}
		assert_int_equal(n_rows(f->db), (round + 1) * (N_CALLERS - 2));
	}
}

static void failed_barrier_fails_those_who_gave_it(void **state)
{
	struct fixture *f = *state;
	struct member members[N_CALLERS];
	struct crowd crowd;

	for (int round = 0; round < 20; round++) {
		crowd_init(&crowd, f, members, round);
		members[1].barrier = members[6].barrier = bad_barrier;
		members[2].barrier = good_barrier;
		members[2].barrier_arg = &crowd;
		/* Refused by its function before any barrier: keeps that refusal, and needs none. */
		members[4].fn = member_insert_and_fail;
		members[4].barrier = bad_barrier;
		crowd_run(members);
		for (size_t i = 0; i < N_CALLERS; i++) {
			if (i == 4)
				assert_fails(members[i].result, &members[i].err, ERR_NOT_FOUND);
			else if (i == 1 || i == 6)
				assert_fails(members[i].result, &members[i].err, ERR_DATA_LOSS);
			else
				assert_ok(members[i].result, &members[i].err);
			assert_true(members[i].n_runs >= 1);
		}
		/* What it has made durable stays so when the transaction is repeated. */
		assert_int_equal(crowd.n_barriers, 1);
		assert_int_equal(n_rows(f->db), (round + 1) * (N_CALLERS - 3));
	}
}

/* ---- writes that nobody waits for ---- */

/** struct submission - @n_done: how often @job was told of, among others */
struct submission {
	struct db_job job;
	struct member member;
	struct fixture *f;
	atomic_uint *n_done;
	struct submission *next;
	atomic_bool leads_again;
};

static struct submission *submission_of(struct db_job *job)
{
	return (struct submission *)((char *)job - offsetof(struct submission, job));
}

static void count_done(struct db_job *job)
{
	atomic_fetch_add(submission_of(job)->n_done, 1);
}

static void submission_init(struct submission *s, struct fixture *f, atomic_uint *n_done, size_t i)
{
	*s = (struct submission){.f = f, .n_done = n_done};
	snprintf(s->member.name, sizeof(s->member.name), "%zu", i);
	s->job = (struct db_job){.fn = member_insert,
				 .arg = &s->member,
				 .done = count_done,
				 .err = &s->member.err};
}

static void submitted_writes_end_by_one_commit_when_somebody_leads(void **state)
{
	struct fixture *f = *state;
	struct submission s[N_CALLERS];
	struct crowd crowd = {.f = f};
	atomic_uint n_done = 0;

	for (size_t i = 0; i < N_CALLERS; i++) {
		submission_init(&s[i], f, &n_done, i);
		s[i].job.barrier = good_barrier;
		s[i].job.barrier_arg = &crowd;
	}
	/* One undoes what it did, which the others must not notice. */
	s[2].job.fn = member_insert_and_fail;
	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(db_submit(f->db, &s[i].job), i == 0);
	assert_int_equal(n_done, 0);
	assert_int_equal(n_rows(f->db), 0);
	db_lead(f->db);
	assert_int_equal(n_done, N_CALLERS);
	assert_int_equal(crowd.n_barriers, 1);
	assert_int_equal(n_rows(f->db), N_CALLERS - 1);
	for (size_t i = 0; i < N_CALLERS; i++) {
		if (i == 2)
			assert_fails(s[i].job.result, &s[i].member.err, ERR_NOT_FOUND);
		else
			assert_ok(s[i].job.result, &s[i].member.err);
	}
	/* The next one has to lead again. */
	submission_init(&s[0], f, &n_done, N_CALLERS);
	assert_true(db_submit(f->db, &s[0].job));
	db_lead(f->db);
	assert_int_equal(n_rows(f->db), N_CALLERS);
}

/* What comes while a group is written has a leader already. */
static int submit_next(void *arg, UNUSED struct err *err)
{
	struct submission *s = arg;

	atomic_store(&s->leads_again, db_submit(s->f->db, &s->next->job));
	return 0;
}

static bool all_are_done(void *arg)
{
	return atomic_load((atomic_uint *)arg) == 2;
}

static void what_is_submitted_meanwhile_is_led_by_somebody_else(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 100; i++) {
		struct submission first, second;
		atomic_uint n_done = 0;

		submission_init(&first, f, &n_done, (size_t)i);
		submission_init(&second, f, &n_done, (size_t)i + 1000);
		first.next = &second;
		first.job.barrier = submit_next;
		first.job.barrier_arg = &first;
		assert_true(db_submit(f->db, &first.job));
		db_lead(f->db);
		wait_until(all_are_done, &n_done, "both are told");
		assert_false(first.leads_again);
		assert_ok(second.job.result, &second.member.err);
		assert_int_equal(n_rows(f->db), 2 * (i + 1));
	}
}

/* Who promised to lead may be waiting for us. */
static void a_writer_who_waits_does_not_wait_for_a_promised_leader(void **state)
{
	struct fixture *f = *state;
	struct submission s;
	atomic_uint n_done = 0;

	submission_init(&s, f, &n_done, 0);
	assert_true(db_submit(f->db, &s.job));
	assert_ok(write_name(f, "waits"), &f->err);
	assert_int_equal(n_done, 1);
	assert_int_equal(n_rows(f->db), 2);
	db_lead(f->db);
	assert_int_equal(n_rows(f->db), 2);
}

static void large_crowds_are_committed_in_groups(void **state)
{
	struct fixture *f = *state;
	struct submission *s = calloc(1000, sizeof(*s));
	struct crowd crowd = {.f = f};
	atomic_uint n_done = 0;

	assert_non_null(s);
	for (size_t i = 0; i < 1000; i++) {
		submission_init(&s[i], f, &n_done, i);
		s[i].job.barrier = good_barrier;
		s[i].job.barrier_arg = &crowd;
		(void)db_submit(f->db, &s[i].job);
	}
	db_lead(f->db);
	while (atomic_load(&n_done) < 1000)
		sched_yield();
	assert_in_range(crowd.n_barriers, 10, 1000);
	assert_int_equal(n_rows(f->db), 1000);
	free(s);
}

static void *write_many(void *arg)
{
	struct fixture *f = arg;
	struct err err = ERR_INIT;

	for (int i = 0; i < MANY_COMMITS / N_CALLERS; i++)
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &err), &err);
	return NULL;
}

static off_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

static void log_is_written_over_rather_than_grown(void **state)
{
	struct fixture *f = *state;
	off_t size = size_of(f->wal_path);

	assert_true(size > 1 << 20);
	for (int i = 0; i < MANY_COMMITS; i++)
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
	assert_int_equal(size_of(f->wal_path), size);
	assert_int_equal(n_rows(f->db), MANY_COMMITS);
	/* It did get into the database file. */
	assert_true(size_of(f->path) > MANY_COMMITS);
	db_close(f->db);
	f->db = NULL;
	assert_int_equal(size_of(f->wal_path), size);
	open_db(f);
	assert_int_equal(n_rows(f->db), MANY_COMMITS);
}

/* The log's blocks are kept for the next start, what it held is not: an older copy of the file may be put back. */
static void log_that_is_kept_says_nothing(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *copy = temp_root_path(f->root, "copy");

	assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
	db_close(f->db);
	copy_file(f->path, copy);
	open_db(f);
	for (int i = 0; i < 10; i++)
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
	db_close(f->db);
	copy_file(copy, f->path);
	open_db(f);
	assert_int_equal(n_rows(f->db), 1);
	reopen_db(f);
	assert_int_equal(n_rows(f->db), 1);
}

/* Readers keep a transaction open between reads, and under one the log cannot start anew. */
static void log_is_written_over_between_reads_too(void **state)
{
	struct fixture *f = *state;
	off_t size = size_of(f->wal_path);

	for (int i = 0; i < MANY_COMMITS; i++) {
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
		assert_int_equal(n_rows(f->db), i + 1);
	}
	assert_int_equal(size_of(f->wal_path), size);
}

static void many_writers_and_checkpoints_lose_nothing(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[N_CALLERS];

	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, f), 0);
	for (int i = 0; i < 20; i++)
		assert_ok(db_checkpoint(f->db, &f->err), &f->err);
	for (size_t i = 0; i < N_CALLERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(n_rows(f->db), MANY_COMMITS / N_CALLERS * N_CALLERS);
	reopen_db(f);
	assert_int_equal(n_rows(f->db), MANY_COMMITS / N_CALLERS * N_CALLERS);
}

/* ---- writes that nobody waits for ---- */

/**
 * struct order - one such write; a name for its row
 * @n_runs, @n_done: of its function, of its end
 * @next: submitted by this one's barrier or end; @next_leads: what that answered
 * @again: how often it is to submit itself once more; @leader: whom it then asks to lead
 */
struct order {
	struct db_job job; /* first: a struct db_job * of ours is a struct order * */
	struct fixture *f;
	struct err err;
	char name[32];
	unsigned int n_runs;
	atomic_uint n_done;
	struct order *next;
	atomic_bool next_leads;
	unsigned int again;
	struct leader *leader;
};

static int order_insert(struct db_conn *conn, void *arg, struct err *err)
{
	struct order *order = arg;

	order->n_runs++;
	return insert(conn, order->name, err);
}

static int order_insert_and_fail(struct db_conn *conn, void *arg, struct err *err)
{
	if (order_insert(conn, arg, err) < 0)
		return -1;
	return err_set(err, ERR_NOT_FOUND, "on purpose");
}

static int order_insert_and_refuse(struct db_conn *conn, void *arg, struct err *err)
{
	return order_insert(conn, arg, err) < 0 ? -1 : 3;
}

static int order_fail(UNUSED struct db_conn *conn, void *arg, struct err *err)
{
	((struct order *)arg)->n_runs++;
	return err_set(err, ERR_NOT_FOUND, "on purpose");
}

static void order_done(struct db_job *job)
{
	atomic_fetch_add(&((struct order *)job)->n_done, 1);
}

static void order_init(struct order *order, struct fixture *f, const char *name)
{
	*order = (struct order){.f = f};
	order->job = (struct db_job){.fn = order_insert,
				     .arg = order,
				     .done = order_done,
				     .err = &order->err};
	snprintf(order->name, sizeof(order->name), "%s", name);
}

static void orders_init(struct order *orders, size_t n, struct fixture *f)
{
	for (size_t i = 0; i < n; i++) {
		order_init(&orders[i], f, "");
		snprintf(orders[i].name, sizeof(orders[i].name), "order %zu", i);
	}
}

static bool order_is_done(void *arg)
{
	return atomic_load(&((struct order *)arg)->n_done) > 0;
}

static void one_lead_ends_all_that_was_submitted(void **state)
{
	struct fixture *f = *state;
	struct order orders[N_CALLERS], later;
	struct crowd crowd = {.f = f};

	orders_init(orders, N_CALLERS, f);
	for (size_t i = 0; i < N_CALLERS; i++) {
		orders[i].job.barrier = good_barrier;
		orders[i].job.barrier_arg = &crowd;
		assert_int_equal(db_submit(f->db, &orders[i].job), i == 0);
	}
	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(orders[i].n_runs + orders[i].n_done, 0);
	assert_int_equal(n_rows(f->db), 0);

	db_lead(f->db);
	assert_int_equal(crowd.n_barriers, 1);
	for (size_t i = 0; i < N_CALLERS; i++) {
		assert_ok(orders[i].job.result, &orders[i].err);
		assert_int_equal(orders[i].n_runs, 1);
		assert_int_equal(orders[i].n_done, 1);
	}
	assert_int_equal(n_rows(f->db), N_CALLERS);

	/* Nobody leads any more. */
	order_init(&later, f, "later");
	assert_true(db_submit(f->db, &later.job));
	db_lead(f->db);
	assert_ok(later.job.result, &later.err);
	assert_ok(write_name(f, "last"), &f->err);
	assert_int_equal(n_rows(f->db), N_CALLERS + 2);
}

static void failures_of_some_spare_the_others_they_were_submitted_with(void **state)
{
	struct fixture *f = *state;
	struct order orders[N_CALLERS];
	struct crowd crowd = {.f = f};

	orders_init(orders, N_CALLERS, f);
	orders[0].job.fn = order_insert_and_fail;
	orders[2].job.fn = order_fail;
	orders[3].job.fn = order_insert_and_refuse;
	orders[5].job.barrier = bad_barrier;
	orders[6].job.barrier = good_barrier;
	orders[6].job.barrier_arg = &crowd;
	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(db_submit(f->db, &orders[i].job), i == 0);
	db_lead(f->db);
	for (size_t i = 0; i < N_CALLERS; i++) {
		assert_int_equal(orders[i].n_done, 1);
		if (i == 0 || i == 2)
			assert_fails(orders[i].job.result, &orders[i].err, ERR_NOT_FOUND);
		else if (i == 3)
			assert_int_equal(orders[i].job.result, 3);
		else if (i == 5)
			assert_fails(orders[i].job.result, &orders[i].err, ERR_DATA_LOSS);
		else
			assert_ok(orders[i].job.result, &orders[i].err);
	}
	assert_int_equal(crowd.n_barriers, 1);
	assert_int_equal(n_rows(f->db), N_CALLERS - 4);
	reopen_db(f);
	assert_int_equal(n_rows(f->db), N_CALLERS - 4);
}

/* The changes of those before it and after it stay, though the transaction has to be made once more. */
static void a_change_that_is_undone_takes_no_other_with_it(void **state)
{
	struct fixture *f = *state;
	struct order orders[3];

	orders_init(orders, ARRAY_LEN(orders), f);
	orders[1].job.fn = order_insert_and_fail;
	for (size_t i = 0; i < ARRAY_LEN(orders); i++)
		assert_int_equal(db_submit(f->db, &orders[i].job), i == 0);
	db_lead(f->db);
	assert_ok(orders[0].job.result, &orders[0].err);
	assert_fails(orders[1].job.result, &orders[1].err, ERR_NOT_FOUND);
	assert_ok(orders[2].job.result, &orders[2].err);
	/* By their names, of which each may be there once. */
	assert_ok(write_name(f, orders[1].name), &f->err);
	assert_fails(write_name(f, orders[0].name), &f->err, ERR_ABORTED);
	assert_fails(write_name(f, orders[2].name), &f->err, ERR_ABORTED);
	assert_int_equal(n_rows(f->db), 3);
}

/* A group in which all are refused commits nothing, and no barrier is needed. */
static void group_of_refusals_needs_no_barrier(void **state)
{
	struct fixture *f = *state;
	struct order orders[2];
	struct crowd crowd = {.f = f};

	orders_init(orders, ARRAY_LEN(orders), f);
	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		orders[i].job.fn = i ? order_insert_and_fail : order_fail;
		orders[i].job.barrier = good_barrier;
		orders[i].job.barrier_arg = &crowd;
		assert_int_equal(db_submit(f->db, &orders[i].job), i == 0);
	}
	db_lead(f->db);
	for (size_t i = 0; i < ARRAY_LEN(orders); i++)
		assert_fails(orders[i].job.result, &orders[i].err, ERR_NOT_FOUND);
	assert_int_equal(crowd.n_barriers, 0);
	assert_int_equal(n_rows(f->db), 0);
}

static int submit_next_in_barrier(void *arg, UNUSED struct err *err)
{
	struct order *order = arg;

	order->next_leads = db_submit(order->f->db, &order->next->job);
	return 0;
}

static void what_is_submitted_while_others_are_committed_ends_by_itself(void **state)
{
	struct fixture *f = *state;
	struct order orders[N_CALLERS];

	orders_init(orders, N_CALLERS, f);
	for (size_t i = 0; i + 1 < N_CALLERS; i++) {
		orders[i].next = &orders[i + 1];
		orders[i].job.barrier = submit_next_in_barrier;
		orders[i].job.barrier_arg = &orders[i];
	}
	assert_true(db_submit(f->db, &orders[0].job));
	db_lead(f->db);
	for (size_t i = 0; i < N_CALLERS; i++) {
		wait_until(order_is_done, &orders[i], "the end of what a barrier has submitted");
		assert_ok(orders[i].job.result, &orders[i].err);
		assert_int_equal(orders[i].n_done, 1);
		assert_false(orders[i].next_leads);
	}
	assert_int_equal(n_rows(f->db), N_CALLERS);
}

static void submit_next_at_the_end(struct db_job *job)
{
	struct order *order = (struct order *)job;

	order->next_leads = db_submit(order->f->db, &order->next->job);
	order_done(job);
}

/* Its barrier submits @next, so that there is somebody to lead when it is told, and its end @next's @next. */
static void what_is_submitted_at_the_end_of_another_ends_too(void **state)
{
	struct fixture *f = *state;
	struct order orders[3];

	for (int round = 0; round < 100; round++) {
		for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
			order_init(&orders[i], f, "");
			snprintf(orders[i].name, sizeof(orders[i].name), "%d/%zu", round, i);
		}
		orders[0].next = &orders[1];
		orders[0].job.barrier = submit_next_in_barrier;
		orders[0].job.barrier_arg = &orders[0];
		orders[1].next = &orders[2];
		orders[1].job.done = submit_next_at_the_end;
		assert_true(db_submit(f->db, &orders[0].job));
		db_lead(f->db);
		assert_false(orders[0].next_leads);
		wait_until(order_is_done, &orders[1], "what the barrier has submitted");
		/* Whoever was told to must lead; who was not, need not. */
		if (orders[1].next_leads)
			db_lead(f->db);
		wait_until(order_is_done, &orders[2], "what the end has submitted");
		for (size_t i = 0; i < ARRAY_LEN(orders); i++)
			assert_ok(orders[i].job.result, &orders[i].err);
	}
	assert_int_equal(n_rows(f->db), 100 * ARRAY_LEN(orders));
}

#define N_AGAIN 200

/** struct leader - a thread that leads when somebody was told that it is needed */
struct leader {
	struct fixture *f;
	pthread_t thread;
	sem_t wanted;
	atomic_bool ended;
};

static void *lead_when_wanted(void *arg)
{
	struct leader *leader = arg;

	for (;;) {
		while (sem_wait(&leader->wanted) < 0 && errno == EINTR) {
		}
		if (atomic_load(&leader->ended))
			return NULL;
		db_lead(leader->f->db);
	}
}

static void submit_for(struct leader *leader, struct order *order)
{
	if (db_submit(leader->f->db, &order->job))
		sem_post(&leader->wanted);
}

static void submit_again_at_the_end(struct db_job *job)
{
	struct order *order = (struct order *)job;

	if (order->again-- == 0) {
		order_done(job);
		return;
	}
	snprintf(order->name, sizeof(order->name), "%p %u", (void *)order, order->again);
	submit_for(order->leader, order);
}

static void every_one_of_many_ends_once_whoever_leads(void **state)
{
	struct fixture *f = *state;
	struct leader leader = {.f = f};
	struct order orders[N_CALLERS];
	pthread_t waiters[2];

	sem_init(&leader.wanted, 0, 0);
	assert_int_equal(pthread_create(&leader.thread, NULL, lead_when_wanted, &leader), 0);
	orders_init(orders, N_CALLERS, f);
	/* Among those who wait, and lead when it falls to them. */
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++)
		assert_int_equal(pthread_create(&waiters[i], NULL, write_many, f), 0);
	for (size_t i = 0; i < N_CALLERS; i++) {
		orders[i].job.done = submit_again_at_the_end;
		orders[i].leader = &leader;
		orders[i].again = N_AGAIN;
		submit_for(&leader, &orders[i]);
	}
	for (size_t i = 0; i < N_CALLERS; i++) {
		wait_until(order_is_done, &orders[i], "the last of many submissions");
		assert_ok(orders[i].job.result, &orders[i].err);
		assert_int_equal(orders[i].n_done, 1);
		assert_int_equal(orders[i].n_runs, N_AGAIN + 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++)
		pthread_join(waiters[i], NULL);
	atomic_store(&leader.ended, true);
	sem_post(&leader.wanted);
	pthread_join(leader.thread, NULL);
	sem_destroy(&leader.wanted);
	assert_int_equal(n_rows(f->db), N_CALLERS * (N_AGAIN + 1) +
						ARRAY_LEN(waiters) * (MANY_COMMITS / N_CALLERS));
}

static void failed_commit_fails_all_that_were_submitted(void **state)
{
	struct fixture *f = *state;
	struct order orders[N_CALLERS];

	orders_init(orders, N_CALLERS, f);
	orders[3].job.fn = order_fail;
	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(db_submit(f->db, &orders[i].job), i == 0);
	db_fault_from(DB_FAULT_SYNC_EIO, 0);
	db_lead(f->db);
	assert_true(db_fault_clear() > 0);
	for (size_t i = 0; i < N_CALLERS; i++) {
		assert_int_equal(orders[i].n_done, 1);
		assert_fails(orders[i].job.result, &orders[i].err, ERR_INTERNAL);
	}
	assert_int_equal(n_rows(f->db), 0);
	assert_ok(write_name(f, "a"), &f->err);
	assert_int_equal(n_rows(f->db), 1);
}

/* ---- a disk that fails ---- */

/* Rows that a start would find if the process were killed now. */
static int64_t n_rows_after_a_crash(struct fixture *f)
{
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "crashed.db");
	CLEANUP(free_ptr) char *wal_path = temp_root_path(f->root, "crashed.db-wal");
	struct db_options options = options_for(path);
	struct db *db;
	int64_t n;

	copy_file(f->path, path);
	copy_file(f->wal_path, wal_path);
	assert_ok(db_open(&options, &db, &f->err), &f->err);
	n = n_rows(db);
	db_close(db);
	return n;
}

/* Another process, in the middle of a read; it says so, and stays. */
static void read_and_stay(const char *path, int say_fd)
{
	sqlite3 *other;

	if (sqlite3_open(path, &other) != SQLITE_OK ||
	    sqlite3_exec(other, "BEGIN; SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) !=
		    SQLITE_OK ||
	    write(say_fd, "r", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

/* It keeps the log's index alive across a restart: what is in the log then must be what that says. */
static void a_reader_of_another_process_may_stay_over_a_restart(void **state)
{
	struct fixture *f = *state;
	int said[2], status;
	char c;
	pid_t pid;

	for (int i = 0; i < 50; i++)
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
	/* No connection of ours crosses the fork. */
	db_close(f->db);
	f->db = NULL;
	assert_int_equal(pipe(said), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		read_and_stay(f->path, said[1]);
	assert_int_equal(read(said[0], &c, 1), 1);
	open_db(f);
	for (int i = 0; i < 3; i++) {
		for (int k = 0; k < 10; k++)
			assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
		assert_int_equal(n_rows_after_a_crash(f), 50 + (i + 1) * 10);
		reopen_db(f);
		assert_int_equal(n_rows(f->db), 50 + (i + 1) * 10);
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(said[0]);
	close(said[1]);
	reopen_db(f);
	assert_int_equal(n_rows(f->db), 80);
}

static int insert_a_lot(struct db_conn *conn, UNUSED void *arg, struct err *err)
{
	return run_sql(
		conn,
		"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)"
		"INSERT INTO t (data) SELECT randomblob(1000) FROM n",
		err);
}

struct disk_failure {
	enum db_fault fault;
	enum err_code want;
	int want_errno;
};

static const struct disk_failure disk_failures[] = {
	{DB_FAULT_WRITE_ENOSPC, ERR_RESOURCE_EXHAUSTED, ENOSPC},
	{DB_FAULT_WRITE_SHORT, ERR_RESOURCE_EXHAUSTED, ENOSPC},
	{DB_FAULT_WRITE_EIO, ERR_INTERNAL, EIO},
	{DB_FAULT_SYNC_EIO, ERR_INTERNAL, EIO},
	{DB_FAULT_SYNC_EDQUOT, ERR_RESOURCE_EXHAUSTED, EDQUOT},
};

/*
 * Fail at the first write or sync of a commit, then at the second, until none is left to fail.
 * @fresh: the commit is the first one in the log, which starts with syncing the log's header
 * Return: how many failed.
 */
static int fail_commits(struct fixture *f, const struct disk_failure *failure, bool fresh)
{
	int64_t n = n_rows(f->db);

	for (int n_failed = 0;; n_failed++) {
		int result;

		if (fresh) {
			reopen_db(f);
		} else {
			assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
			n++;
		}
		/* A full disk stays full: once would be forgiven, see the next test. */
		if (failure->want_errno == ENOSPC)
			db_fault_from(failure->fault, (unsigned int)n_failed);
		else
			db_fault_once(failure->fault, (unsigned int)n_failed);
		result = db_write(f->db, insert_a_lot, NULL, NULL, NULL, &f->err);
		if (db_fault_clear() == 0) {
			assert_ok(result, &f->err);
			assert_int_equal(n_rows(f->db), n + 50);
			return n_failed;
		}
		assert_fails(result, &f->err, failure->want);
		assert_int_equal(f->err.sys_errno, failure->want_errno);
		assert_int_equal(n_rows(f->db), n);
		assert_int_equal(n_rows_after_a_crash(f), n);
		/* Usable at once, without being opened anew by the caller. */
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
		n++;
		assert_int_equal(n_rows(f->db), n);
		assert_int_equal(n_rows_after_a_crash(f), n);
	}
}

static void failed_commit_leaves_no_trace(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(disk_failures); i++) {
		bool is_sync = disk_failures[i].fault == DB_FAULT_SYNC_EIO ||
			       disk_failures[i].fault == DB_FAULT_SYNC_EDQUOT;
		int64_t n;

		assert_true(fail_commits(f, &disk_failures[i], true) >= (is_sync ? 2 : 20));
		assert_true(fail_commits(f, &disk_failures[i], false) >= (is_sync ? 1 : 20));
		n = n_rows(f->db);
		reopen_db(f);
		assert_int_equal(n_rows(f->db), n);
	}
}

static void commits_of_a_relaxed_database_wait_for_no_disk(void **state)
{
	struct fixture *f = *state;
	struct db_options options = options_for(f->path);
	int64_t n;

	db_close(f->db);
	f->db = NULL;
	options.relaxed = true;
	assert_ok(db_open(&options, &f->db, &f->err), &f->err);
	/* The first one begins the log anew, which is synced. */
	assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
	n = n_rows(f->db);
	db_fault_from(DB_FAULT_SYNC_EIO, 0);
	for (int i = 0; i < 100; i++)
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
	assert_int_equal(db_fault_clear(), 0);
	assert_int_equal(n_rows(f->db), n + 100);
	assert_int_equal(n_rows_after_a_crash(f), n + 100);
	/* When they are moved into the database file it is asked, though. */
	db_fault_from(DB_FAULT_SYNC_EIO, 0);
	assert_int_equal(db_checkpoint(f->db, &f->err), -1);
	assert_true(db_fault_clear() > 0);
}

static void full_log_is_emptied_before_a_commit_fails(void **state)
{
	struct fixture *f = *state;
	unsigned int after = 0;

	do {
		db_fault_once(DB_FAULT_WRITE_ENOSPC, after++);
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
		assert_int_equal(n_rows(f->db), after);
	} while (db_fault_clear() > 0);
	assert_true(after > 1);
}

static void disk_that_stays_broken_fails_every_write_until_it_is_well(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(disk_failures); i++) {
		int64_t n = n_rows(f->db);

		db_fault_from(disk_failures[i].fault, 0);
		for (int j = 0; j < 3; j++)
			assert_fails(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err,
				     disk_failures[i].want);
		assert_int_equal(n_rows(f->db), n);
		db_fault_clear();
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
		assert_int_equal(n_rows(f->db), n + 1);
		reopen_db(f);
		assert_int_equal(n_rows(f->db), n + 1);
	}
}

static void failed_commit_fails_all_of_its_callers(void **state)
{
	struct fixture *f = *state;
	struct member members[N_CALLERS];
	struct crowd crowd;

	for (int round = 0; round < 20; round++) {
		crowd_init(&crowd, f, members, round);
		db_fault_from(DB_FAULT_SYNC_EIO, 0);
		crowd_run(members);
		db_fault_clear();
		for (size_t i = 0; i < N_CALLERS; i++)
			assert_fails(members[i].result, &members[i].err, ERR_INTERNAL);
		assert_int_equal(n_rows(f->db), 0);
	}
	assert_ok(write_name(f, "a"), &f->err);
	reopen_db(f);
	assert_int_equal(n_rows(f->db), 1);
}

/** struct onlooker - reads without a pause until it is told to stop */
struct onlooker {
	struct db *db;
	pthread_t thread;
	atomic_bool stop;
};

static void *look_on(void *arg)
{
	struct onlooker *onlooker = arg;

	while (!atomic_load(&onlooker->stop))
		(void)n_rows(onlooker->db);
	return NULL;
}

/* To get well the log is emptied, under which no read may stay open. */
static void broken_disk_gets_well_also_under_readers(void **state)
{
	struct fixture *f = *state;
	struct onlooker onlooker = {.db = f->db};

	assert_int_equal(pthread_create(&onlooker.thread, NULL, look_on, &onlooker), 0);
	for (int i = 0; i < 20; i++) {
		db_fault_once(DB_FAULT_SYNC_EIO, 0);
		assert_fails(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err,
			     ERR_INTERNAL);
		db_fault_clear();
		assert_ok(db_write(f->db, insert, NULL, NULL, NULL, &f->err), &f->err);
	}
	atomic_store(&onlooker.stop, true);
	pthread_join(onlooker.thread, NULL);
	assert_int_equal(n_rows(f->db), 20);
}

static void failed_checkpoint_loses_nothing(void **state)
{
	struct fixture *f = *state;

	assert_ok(db_write(f->db, insert_a_lot, NULL, NULL, NULL, &f->err), &f->err);
	for (size_t i = 0; i < ARRAY_LEN(disk_failures); i++) {
		db_fault_from(disk_failures[i].fault, 0);
		assert_fails(db_checkpoint(f->db, &f->err), &f->err, disk_failures[i].want);
		assert_true(db_fault_clear() > 0);
		assert_int_equal(n_rows(f->db), 50);
		assert_int_equal(n_rows_after_a_crash(f), 50);
	}
	assert_ok(db_checkpoint(f->db, &f->err), &f->err);
	reopen_db(f);
	assert_int_equal(n_rows(f->db), 50);
}

/* ---- opening ---- */

static void assert_open_fails(const struct db_options *options, enum err_code want)
{
	struct err err = ERR_INIT;
	struct db *db = NULL;

	assert_fails(db_open(options, &db, &err), &err, want);
	assert_null(db);
	assert_contains(err.msg, options->path);
}

static void file_is_for_its_owner_alone(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(f->wal_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static int read_added_column(struct db_conn *conn, void *arg, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, "SELECT added FROM t", &stmt, err) < 0 || db_step(stmt, err) < 0)
		return -1;
	*(int64_t *)arg = db_column_int(stmt, 0);
	return 0;
}

static void older_database_is_migrated(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "old.db");
	struct db_options options = options_for(path);
	struct db *db;
	int64_t added = 0;

	options.n_migrations = 1;
	assert_ok(db_open(&options, &db, &f->err), &f->err);
	assert_ok(db_write(db, insert, NULL, NULL, NULL, &f->err), &f->err);
	db_close(db);
	options.n_migrations = 2;
	assert_ok(db_open(&options, &db, &f->err), &f->err);
	assert_ok(db_read(db, read_added_column, &added, &f->err), &f->err);
	assert_int_equal(added, 7);
	db_close(db);
}

static void failed_migration_changes_nothing(void **state)
{
	struct fixture *f = *state;
	const char *const bad[] = {migrations[0], migrations[1],
				   "DELETE FROM t; CREATE TABLE u (x); NONSENSE"};
	struct db_options options = options_for(f->path);

	assert_ok(write_name(f, "a"), &f->err);
	db_close(f->db);
	f->db = NULL;
	options.migrations = bad;
	options.n_migrations = 3;
	assert_open_fails(&options, ERR_INTERNAL);
	open_db(f);
	assert_int_equal(n_rows(f->db), 1);
}

static void newer_database_is_refused(void **state)
{
	struct fixture *f = *state;
	struct db_options options = options_for(f->path);

	db_close(f->db);
	f->db = NULL;
	options.n_migrations = 1;
	assert_open_fails(&options, ERR_FAILED_PRECONDITION);
}

static void database_of_another_application_is_refused(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "foreign.db");
	struct db_options options = options_for(f->path);

	options.application_id++;
	assert_open_fails(&options, ERR_FAILED_PRECONDITION);

	/* Made with plain sqlite: it has no application id, but it has tables. */
	db_fault_make_foreign(path);
	options.path = path;
	assert_open_fails(&options, ERR_FAILED_PRECONDITION);
}

static void refused_file_stays_as_it_is(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "notes.txt");
	CLEANUP(free_ptr) char *copy = temp_root_path(f->root, "copy");
	CLEANUP(free_ptr) char *command = NULL;
	struct db_options options = options_for(path);
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	for (int i = 0; i < 1000; i++)
		fprintf(file, "line %d of what is no database\n", i);
	fclose(file);
	copy_file(path, copy);
	assert_open_fails(&options, ERR_DATA_LOSS);
	assert_true(asprintf(&command, "cmp '%s' '%s'", path, copy) > 0);
	assert_int_equal(system(command), 0);
}

static void directory_in_its_place_is_refused(void **state)
{
	struct fixture *f = *state;
	struct db_options options = options_for(f->root->path);

	assert_open_fails(&options, ERR_DATA_LOSS);
}

static void missing_directory_is_an_error(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "nowhere/test.db");
	struct db_options options = options_for(path);

	assert_open_fails(&options, ERR_INTERNAL);
}

static void truncated_database_is_refused(void **state)
{
	struct fixture *f = *state;
	struct db_options options = options_for(f->path);

	assert_ok(db_write(f->db, insert_a_lot, NULL, NULL, NULL, &f->err), &f->err);
	db_close(f->db);
	f->db = NULL;
	assert_int_equal(truncate(f->path, 8192), 0);
	assert_open_fails(&options, ERR_DATA_LOSS);
	assert_int_equal(size_of(f->path), 8192);
}

static void log_without_its_database_is_refused(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "lost.db");
	CLEANUP(free_ptr) char *wal_path = temp_root_path(f->root, "lost.db-wal");
	struct db_options options = options_for(path);

	assert_ok(write_name(f, "a"), &f->err);
	copy_file(f->wal_path, wal_path);
	assert_open_fails(&options, ERR_DATA_LOSS);
	assert_int_equal(access(wal_path, F_OK), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void damage_inside_is_data_loss(void **state)
{
	struct fixture *f = *state;
	static const char junk[4096] = {[0] = 0x55, [100] = 0x55};
	CLEANUP(close_fd) int fd = -1;
	int64_t n;
	off_t size;

	assert_ok(db_write(f->db, insert_a_lot, NULL, NULL, NULL, &f->err), &f->err);
	db_close(f->db);
	f->db = NULL;
	size = size_of(f->path);
	fd = open(f->path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	/* The first page holds the schema, which opening reads. */
	for (off_t at = 4096; at < size; at += 4096)
		assert_int_equal(pwrite(fd, junk, sizeof(junk), at), sizeof(junk));
	open_db(f);
	assert_fails(db_read(f->db, count, &n, &f->err), &f->err, ERR_DATA_LOSS);
	assert_fails(write_name(f, "a"), &f->err, ERR_DATA_LOSS);
}

/* The bytes may be there all the same: what is lost is said only of what was seen to be lost. */
static void disk_that_cannot_be_read_is_an_internal_error(void **state)
{
	struct fixture *f = *state;
	int64_t n = 0;

	assert_ok(db_write(f->db, insert_a_lot, NULL, NULL, NULL, &f->err), &f->err);
	db_close(f->db);
	f->db = NULL;
	open_db(f);
	db_fault_from(DB_FAULT_READ_EIO, 0);
	assert_fails(db_read(f->db, count, &n, &f->err), &f->err, ERR_INTERNAL);
	assert_int_equal(f->err.sys_errno, EIO);
	assert_contains(f->err.msg, strerror(EIO));
	assert_true(db_fault_clear() > 0);
	assert_ok(db_read(f->db, count, &n, &f->err), &f->err);
	assert_true(n > 0);
}

static void empty_file_becomes_a_database(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "empty.db");
	struct db_options options = options_for(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct db *db;

	assert_true(fd >= 0);
	close(fd);
	assert_ok(db_open(&options, &db, &f->err), &f->err);
	assert_int_equal(n_rows(db), 0);
	db_close(db);
}

static void close_accepts_null(UNUSED void **state)
{
	db_close(NULL);
}

/* ---- kill -9 ---- */

#define N_KILLS          5
#define ACKS_BEFORE_KILL 1500

struct acker {
	struct db *db;
	int fd;
	int64_t first;
};

static int insert_number(struct db_conn *conn, void *arg, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, "INSERT INTO t (id) VALUES (?)", &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, *(int64_t *)arg);
	return db_step(stmt, err);
}

static void *write_and_acknowledge(void *arg)
{
	struct acker *acker = arg;
	struct err err = ERR_INIT;

	for (int64_t i = acker->first;; i++)
		if (db_write(acker->db, insert_number, &i, NULL, NULL, &err) < 0 ||
		    write(acker->fd, &i, sizeof(i)) != sizeof(i))
			_exit(1);
}

static void child_main(const char *path, bool relaxed, int fd, int round)
{
	struct db_options options = options_for(path);
	struct err err = ERR_INIT;
	struct acker ackers[4];
	pthread_t thread;
	struct db *db;

	options.relaxed = relaxed;
	if (db_open(&options, &db, &err) < 0)
		_exit(1);
	for (size_t i = 0; i < ARRAY_LEN(ackers); i++) {
		ackers[i] = (struct acker){db, fd,
					   (round * (int64_t)ARRAY_LEN(ackers) + (int64_t)i) << 32};
		if (i > 0 && pthread_create(&thread, NULL, write_and_acknowledge, &ackers[i]) != 0)
			_exit(1);
	}
	write_and_acknowledge(&ackers[0]);
}

static int count_number(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT 1 FROM t WHERE id = ?";
	const int64_t *number = arg;
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, *number);
	return db_step(stmt, err);
}

static void kill_and_count(struct fixture *f, bool relaxed)
{
	static int64_t acked[N_KILLS * ACKS_BEFORE_KILL * 100];
	size_t n = 0;

	/* No thread may run while this process forks. */
	db_close(f->db);
	f->db = NULL;
	for (int round = 0; round < N_KILLS; round++) {
		size_t enough = n + ACKS_BEFORE_KILL + (size_t)round * 300;
		int pipe_fds[2], status;
		bool killed = false;
		pid_t pid;

		assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			child_main(f->path, relaxed, pipe_fds[1], round);
		close(pipe_fds[1]);
		while (n < ARRAY_LEN(acked) &&
		       read(pipe_fds[0], &acked[n], sizeof(acked[n])) == sizeof(acked[n])) {
			if (++n >= enough && !killed) {
				assert_int_equal(kill(pid, SIGKILL), 0);
				killed = true;
			}
		}
		close(pipe_fds[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

		open_db(f);
		for (size_t i = 0; i < n; i++)
			if (db_read(f->db, count_number, &acked[i], &f->err) != 1)
				fail_msg("row %lld is gone", (long long)acked[i]);
		db_close(f->db);
		f->db = NULL;
	}
}

static void acknowledged_rows_survive_kill_9(void **state)
{
	kill_and_count(*state, false);
}

static void those_of_a_relaxed_database_do_too(void **state)
{
	kill_and_count(*state, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ---- beside another process ---- */

static struct db *open_read_only(struct fixture *f)
{
	struct db_options options = options_for(f->path);
	struct db *db = NULL;

	options.read_only = true;
	assert_ok(db_open(&options, &db, &f->err), &f->err);
	return db;
}

static void a_reader_sees_what_another_process_commits(void **state)
{
	struct fixture *f = *state;
	struct stat before, after;
	int pipe_fds[2], status;
	int64_t n = -1;
	char byte = 0;
	struct db *db;
	pid_t pid;

	/* Closed in the parent, so that the two have no lock in common. */
	db_close(f->db);
	f->db = NULL;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pipe_fds), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(pipe_fds[0]);
		open_db(f);
		for (int i = 0; i < 2; i++) {
			if (db_write(f->db, insert, i ? (char *)"two" : (char *)"one", NULL, NULL,
				     &f->err) < 0 ||
			    write(pipe_fds[1], &byte, 1) != 1 || read(pipe_fds[1], &byte, 1) != 1)
				_exit(1);
		}
		/* No read of the other stands in the way, though its connection is open. */
		_exit(db_checkpoint(f->db, &f->err) < 0 ? 2 : 0);
	}
	close(pipe_fds[1]);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	assert_int_equal(stat(f->wal_path, &before), 0);
	db = open_read_only(f);
	assert_int_equal(db_read(db, count, &n, &f->err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(write(pipe_fds[0], &byte, 1), 1);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	assert_int_equal(db_read(db, count, &n, &f->err), 0);
	assert_int_equal(n, 2);
	assert_int_equal(write(pipe_fds[0], &byte, 1), 1);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	/* The writer ended without closing; that is not the reader's to mend. */
	db_close(db);
	assert_int_equal(stat(f->wal_path, &after), 0);
	assert_int_equal(after.st_size, before.st_size);
	close(pipe_fds[0]);
	open_db(f);
	assert_int_equal(db_read(f->db, count, &n, &f->err), 0);
	assert_int_equal(n, 2);
}

static void a_reader_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct db_options options = options_for(f->path);
	struct db *db = open_read_only(f);
	int64_t n = -1;
	bool broken;

	broken = db_read(db, insert, (char *)"x", &f->err) >= 0;
	assert_false(broken);
	assert_int_equal(db_read(db, count, &n, &f->err), 0);
	assert_int_equal(n, 0);
	db_close(db);

	/* What is missing is not made, nor what is old brought up to date. */
	db_close(f->db);
	f->db = NULL;
	options.read_only = true;
	options.n_migrations = 1;
	assert_fails(db_open(&options, &db, &f->err), &f->err, ERR_FAILED_PRECONDITION);
	assert_contains(f->err.msg, "newer than 1");
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(unlink(f->wal_path), 0);
	assert_fails(db_open(&options, &db, &f->err), &f->err, ERR_INTERNAL);
	assert_int_equal(access(f->path, F_OK), -1);
	options.read_only = false;
	assert_ok(db_open(&options, &f->db, &f->err), &f->err);
	db_close(f->db);
	f->db = NULL;
	options = options_for(f->path);
	options.read_only = true;
	assert_fails(db_open(&options, &db, &f->err), &f->err, ERR_FAILED_PRECONDITION);
	assert_contains(f->err.msg, "has version 1, older than 2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(acknowledged_rows_survive_kill_9),
		TEST(those_of_a_relaxed_database_do_too),
		TEST(write_is_read_by_the_next_read),
		TEST(values_come_back_as_they_were_bound),
		TEST(empty_blob_is_not_null),
		TEST(failed_bind_is_reported_by_the_step),
		TEST(changes_are_counted),
		TEST(failed_write_is_undone),
		TEST(positive_outcome_is_returned_and_undone),
		TEST(violated_constraint_is_aborted),
		TEST(foreign_keys_are_enforced),
		TEST(reader_cannot_write),
		TEST(statement_is_prepared_once_and_reset_at_the_end),
		TEST(wrong_sql_is_our_fault),
		TEST(read_sees_one_moment),
		TEST(readers_share_their_connections),
		TEST(waiting_callers_share_one_barrier_and_commit),
		TEST(failure_of_one_caller_spares_the_others),
		TEST(failed_barrier_fails_those_who_gave_it),
		TEST(submitted_writes_end_by_one_commit_when_somebody_leads),
		TEST(what_is_submitted_meanwhile_is_led_by_somebody_else),
		TEST(a_writer_who_waits_does_not_wait_for_a_promised_leader),
		TEST(large_crowds_are_committed_in_groups),
		TEST(log_is_written_over_rather_than_grown),
		TEST(a_reader_of_another_process_may_stay_over_a_restart),
		TEST(log_that_is_kept_says_nothing),
		TEST(log_is_written_over_between_reads_too),
		TEST(many_writers_and_checkpoints_lose_nothing),
		TEST(one_lead_ends_all_that_was_submitted),
		TEST(failures_of_some_spare_the_others_they_were_submitted_with),
		TEST(a_change_that_is_undone_takes_no_other_with_it),
		TEST(group_of_refusals_needs_no_barrier),
		TEST(what_is_submitted_while_others_are_committed_ends_by_itself),
		TEST(what_is_submitted_at_the_end_of_another_ends_too),
		TEST(every_one_of_many_ends_once_whoever_leads),
		TEST(failed_commit_fails_all_that_were_submitted),
		TEST(failed_commit_leaves_no_trace),
		TEST(commits_of_a_relaxed_database_wait_for_no_disk),
		TEST(full_log_is_emptied_before_a_commit_fails),
		TEST(disk_that_stays_broken_fails_every_write_until_it_is_well),
		TEST(failed_commit_fails_all_of_its_callers),
		TEST(broken_disk_gets_well_also_under_readers),
		TEST(failed_checkpoint_loses_nothing),
		TEST(file_is_for_its_owner_alone),
		TEST(older_database_is_migrated),
		TEST(failed_migration_changes_nothing),
		TEST(newer_database_is_refused),
		TEST(database_of_another_application_is_refused),
		TEST(refused_file_stays_as_it_is),
		TEST(directory_in_its_place_is_refused),
		TEST(missing_directory_is_an_error),
		TEST(truncated_database_is_refused),
		TEST(log_without_its_database_is_refused),
		TEST(damage_inside_is_data_loss),
		TEST(disk_that_cannot_be_read_is_an_internal_error),
		TEST(empty_file_becomes_a_database),
		cmocka_unit_test(close_accepts_null),
		TEST(a_reader_sees_what_another_process_commits),
		TEST(a_reader_changes_nothing),
	};

	db_fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
