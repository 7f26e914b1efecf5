/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sqlite, as all of our daemons use it: WAL, synchronous=FULL, one writing connection on which the work of
 * many callers is committed with one fsync (group commit), readers on connections of their own.
 *
 * A caller who waits and finds nobody writing leads, as does who is told to by db_submit(): it takes all that is
 * queued and commits it on the connection. A single caller so never waits for another thread to wake. What came
 * meanwhile is led by a thread of its own. Another moves the WAL into the database file.
 *
 * When db_write() has returned 0, its rows survive a power cut (unless the database is relaxed). The WAL is kept and written over rather
 * than truncated, since growing a file costs a journal commit of the file system per fsync (measured on
 * ext4: 130 us against 265 us). It stays when the database is
 * closed, too, so that there is room for it on a disk that is full by then; but it says nothing any more.
 */
#ifndef LIGHTER_BASE_DB_H
#define LIGHTER_BASE_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/ctx.h"
#include "base/err.h"

struct db; /* a database file; any thread */
struct db_conn; /* a connection; one thread at a time, lent for the length of a call back */
struct db_stmt; /* a statement of a connection, prepared once and kept */

/**
 * struct db_options - how to open
 * @path: database file, made with mode 0600 when missing; its directory must exist
 * @migrations: SQL scripts; number i brings the schema from version i (PRAGMA user_version) to i + 1
 * @n_migrations: a database of a higher version is refused with ERR_FAILED_PRECONDITION
 * @n_readers: connections for db_read(), opened when needed; 1 to 32
 * @application_id: PRAGMA application_id that tells our file from others; a mismatch is refused
 * @read_only: only db_read(), beside another process that writes, or while nobody does. The file must exist, with
 *             the newest version; nothing in it is changed, and no read is kept open in the way of the writer.
 * @relaxed: no commit waits for the disk. What db_write() has answered survives the end of the process, kill -9
 *           too; a power cut may take the last of it away, and leaves the rest whole. For what can be made anew.
 */
struct db_options {
	const char *path;
	const char *const *migrations;
	size_t n_migrations;
	unsigned int n_readers;
	int32_t application_id;
	bool read_only;
	bool relaxed;
};

/**
 * db_open() - open or make a database, bring its schema up to date (one transaction per migration)
 *
 * A file that is no database, or is seen to be damaged, gives ERR_DATA_LOSS and stays as it is; so does a
 * log (PATH-wal) whose database is gone. Damage that only reading shows gives ERR_DATA_LOSS then.
 */
ERR_CHECKED int db_open(const struct db_options *options, struct db **ret_db, struct err *err);

/** db_close() - finish what is queued, checkpoint, close. Accepts NULL. No call may be under way. */
void db_close(struct db *db);

/**
 * db_write_fn - one caller's changes, inside a savepoint of the group's transaction
 *
 * Runs on the thread of any caller of db_write(), one at a time; its own caller waits meanwhile, so what
 * @arg points to may be used freely. Short, no I/O of its own, no waiting. May run more than once (when the
 * group's transaction must be repeated without another caller's failed work), so it only fills results
 * it sets anew each time. Return: 0 to keep the changes, -1 (or a positive outcome) to undo them.
 */
typedef int (*db_write_fn)(struct db_conn *conn, void *arg, struct err *err);

/**
 * db_write() - run @fn in a transaction and wait until it is durable
 * @barrier: NULL, or called (once for all callers of a group who gave this function with this @barrier_arg,
 *           on the thread of any of them) after the changes are made and before they are committed: what
 *           the rows stand for on disk is made durable there. Its failure fails those callers, not others.
 *           Not called when @fn undid its changes.
 * Return: what @fn returned; or -1 when the commit failed, and then nothing of it is there. Once queued,
 * a call is carried through: it does not end early for a deadline.
 */
ERR_CHECKED int db_write(struct db *db, db_write_fn fn, void *arg,
			 int (*barrier)(void *barrier_arg, struct err *err), void *barrier_arg,
			 struct err *err);

/**
 * struct db_job - a write that nobody waits for
 * @fn, @arg, @barrier, @barrier_arg: as for db_write()
 * @done: called once, on any thread, when the changes are durable or have failed; @job is the caller's again.
 *        It must not wait: others are told after it. It may submit again.
 * @result: what db_write() would return; @err: filled as there
 */
struct db_job {
	db_write_fn fn;
	void *arg;
	int (*barrier)(void *barrier_arg, struct err *err);
	void *barrier_arg;
	void (*done)(struct db_job *job);
	int result;
	struct err *err;

	/* db.c's own: the queue; @result stands in repetitions of the transaction; the barrier has been run */
	struct db_job *next;
	bool settled;
	bool barrier_done;
};

/**
 * db_submit() - queue @job
 * Return: true when somebody must call db_lead() soon, since nobody else will see to what is queued.
 */
bool db_submit(struct db *db, struct db_job *job);

/** db_lead() - commit what is queued, and tell; after db_submit() said so, on any thread that may wait */
void db_lead(struct db *db);

typedef int (*db_read_fn)(struct db_conn *conn, void *arg, struct err *err);

/**
 * db_read() - run @fn with a reader connection, in one read transaction (a consistent snapshot)
 *
 * Waits while all readers are in use, so @fn calls neither db_read() nor db_write(). What it returns is
 * returned.
 */
ERR_CHECKED int db_read(struct db *db, db_read_fn fn, void *arg, struct err *err);

/**
 * db_prepare() - the statement for @sql on this connection
 * @sql: a string constant: its address is the key of the connection's statement cache
 *
 * The statement comes reset and with no values bound, and is reset again when db_read()/the savepoint ends.
 */
ERR_CHECKED int db_prepare(struct db_conn *conn, const char *sql, struct db_stmt **ret_stmt,
			   struct err *err);

/* Bind value @i (1-based). Text and blobs are borrowed until the statement is reset. */
void db_bind_int(struct db_stmt *stmt, int i, int64_t value);
void db_bind_text(struct db_stmt *stmt, int i, const char *text);
void db_bind_blob(struct db_stmt *stmt, int i, const void *data, size_t size);
void db_bind_null(struct db_stmt *stmt, int i);

/**
 * db_step() - run up to the next row
 * Return: 1 with a row, 0 when done; -1 on error: a violated constraint is ERR_ABORTED, for the caller to
 * translate; a full disk ERR_RESOURCE_EXHAUSTED; damage ERR_DATA_LOSS; a disk that fails ERR_INTERNAL.
 */
ERR_CHECKED int db_step(struct db_stmt *stmt, struct err *err);

/* The row's column @i (0-based). Text and blobs are valid until the next step or reset. */
int64_t db_column_int(struct db_stmt *stmt, int i);
const char *db_column_text(struct db_stmt *stmt, int i); /* NULL for an SQL NULL */
const void *db_column_blob(struct db_stmt *stmt, int i, size_t *ret_size);
bool db_column_is_null(struct db_stmt *stmt, int i);

/** db_reset() - end a statement's run, so that it can be bound and run again */
void db_reset(struct db_stmt *stmt);

/** db_last_insert_id() - rowid of the connection's last INSERT */
int64_t db_last_insert_id(struct db_conn *conn);

/** db_n_changed() - rows changed by the connection's last INSERT, UPDATE or DELETE */
int64_t db_n_changed(struct db_conn *conn);

/**
 * db_checkpoint() - move what the WAL holds into the database file; for tests and quiet moments
 * Return: 0, or -1; with ERR_UNAVAILABLE when a reader stood in the way for too long.
 */
ERR_CHECKED int db_checkpoint(struct db *db, struct err *err);

#endif
