/* SPDX-License-Identifier: Apache-2.0 */
#include "base/db_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* Only another process (somebody's sqlite3 shell) can hold a lock we wait for. */
#define BUSY_TIMEOUT_MS 5000

/**
 * struct db_stmt - a prepared statement
 * @sql: the key: its address
 * @next: in its bucket
 * @next_used: in the list of what must be reset at the end of the call back
 * @used: is in that list
 * @bind_status: first failure of a bind since the last reset
 */
struct db_stmt {
	struct db_conn *conn;
	const char *sql;
	sqlite3_stmt *handle;
	struct db_stmt *next;
	struct db_stmt *next_used;
	bool used;
	int bind_status;
};

/* ---- errors ---- */

/* sqlite does not note the errno of a COMMIT that fails; the WAL's file handle does. */
static int errno_of(sqlite3 *handle)
{
	int sys = sqlite3_system_errno(handle);
	sqlite3_file *file = NULL;

	if (sys == 0 &&
	    sqlite3_file_control(handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file) ==
		    SQLITE_OK &&
	    file && file->pMethods)
		(void)file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &sys);
	return sys;
}

int db_conn_report(struct db_conn *conn, int status, const char *what, struct err *err)
{
	sqlite3 *handle = conn->handle;
	const char *text = sqlite3_errstr(status);
	enum err_code code = ERR_INTERNAL;
	int sys = 0;

	if (handle && sqlite3_extended_errcode(handle) == status)
		text = sqlite3_errmsg(handle);

	switch (status & 0xff) {
	case SQLITE_FULL:
		code = ERR_RESOURCE_EXHAUSTED;
		sys = ENOSPC;
		break;
	case SQLITE_NOMEM:
		code = ERR_RESOURCE_EXHAUSTED;
		sys = ENOMEM;
		break;
	case SQLITE_TOOBIG:
		code = ERR_RESOURCE_EXHAUSTED;
		break;
	case SQLITE_READONLY:
		code = ERR_FAILED_PRECONDITION;
		break;
	case SQLITE_CONSTRAINT:
		code = ERR_ABORTED;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		code = ERR_UNAVAILABLE;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		code = ERR_DATA_LOSS;
		break;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		if (status == SQLITE_IOERR_NOMEM)
			sys = ENOMEM;
		else if (handle)
			sys = errno_of(handle);
		/* IOERR_CORRUPTFS among them: sqlite calls every EIO of a read so, and that is a broken disk. */
		if (sys)
			return err_sysno(err, sys, "database '%s': %s: %s", conn->path, what, text);
		break;
	default:
		break;
	}
	err_set(err, code, "database '%s': %s: %s", conn->path, what, text);
	err->sys_errno = sys;
	return -1;
}

int db_conn_error(struct db_conn *conn, const char *what, struct err *err)
{
	return db_conn_report(conn, sqlite3_extended_errcode(conn->handle), what, err);
}

int db_no_memory(struct err *err)
{
	return err_sysno(err, ENOMEM, "database");
}

/* ---- statements ---- */

static struct db_stmt **bucket_of(struct db_conn *conn, const char *sql)
{
	return &conn->buckets[((uintptr_t)sql >> 3) * 2654435761u % DB_STMT_BUCKETS];
}

static struct db_stmt *stmt_get(struct db_conn *conn, const char *sql, struct err *err)
{
	struct db_stmt **bucket = bucket_of(conn, sql), *stmt;
	int status;

	for (stmt = *bucket; stmt; stmt = stmt->next)
		if (stmt->sql == sql)
			return stmt;

	stmt = calloc(1, sizeof(*stmt));
	if (!stmt) {
		db_no_memory(err);
		return NULL;
	}
	stmt->conn = conn;
	stmt->sql = sql;
	status = sqlite3_prepare_v3(conn->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt->handle,
				    NULL);
	if (status != SQLITE_OK || !stmt->handle) {
		db_conn_error(conn, sql, err);
		free(stmt);
		return NULL;
	}
	stmt->next = *bucket;
	*bucket = stmt;
	return stmt;
}

int db_prepare(struct db_conn *conn, const char *sql, struct db_stmt **ret_stmt, struct err *err)
{
	struct db_stmt *stmt = stmt_get(conn, sql, err);

	if (!stmt)
		return -1;
	if (stmt->used) {
		db_reset(stmt);
	} else {
		stmt->used = true;
		stmt->next_used = conn->used;
		conn->used = stmt;
	}
	*ret_stmt = stmt;
	return 0;
}

/* The status of a failed step has been reported by then, so that of the reset tells nothing new. */
void db_reset(struct db_stmt *stmt)
{
	(void)sqlite3_reset(stmt->handle);
	(void)sqlite3_clear_bindings(stmt->handle);
	stmt->bind_status = SQLITE_OK;
}

void db_conn_reset(struct db_conn *conn)
{
	struct db_stmt *stmt;

	while ((stmt = conn->used)) {
		conn->used = stmt->next_used;
		stmt->used = false;
		db_reset(stmt);
	}
}

int db_conn_run(struct db_conn *conn, const char *sql, struct err *err)
{
	struct db_stmt *stmt = stmt_get(conn, sql, err);
	int status;

	if (!stmt)
		return SQLITE_ERROR;
	status = sqlite3_step(stmt->handle);
	if (status == SQLITE_DONE) {
		status = SQLITE_OK;
	} else {
		status = sqlite3_extended_errcode(conn->handle);
		db_conn_report(conn, status, sql, err);
	}
	(void)sqlite3_reset(stmt->handle);
	return status;
}

static void note_bind(struct db_stmt *stmt, int status)
{
	if (stmt->bind_status == SQLITE_OK)
		stmt->bind_status = status;
}

void db_bind_int(struct db_stmt *stmt, int i, int64_t value)
{
	note_bind(stmt, sqlite3_bind_int64(stmt->handle, i, value));
}

void db_bind_text(struct db_stmt *stmt, int i, const char *text)
{
	note_bind(stmt, sqlite3_bind_text(stmt->handle, i, text, -1, SQLITE_STATIC));
}

void db_bind_blob(struct db_stmt *stmt, int i, const void *data, size_t size)
{
	/* A NULL pointer would bind an SQL NULL, which an empty blob is not. */
	note_bind(stmt,
		  sqlite3_bind_blob64(stmt->handle, i, data ? data : "", size, SQLITE_STATIC));
}

void db_bind_null(struct db_stmt *stmt, int i)
{
	note_bind(stmt, sqlite3_bind_null(stmt->handle, i));
}

int db_step(struct db_stmt *stmt, struct err *err)
{
	struct db_conn *conn = stmt->conn;
	int status;

	if (stmt->bind_status != SQLITE_OK)
		return db_conn_report(conn, stmt->bind_status, "bind", err);
	status = sqlite3_step(stmt->handle);
	if (status == SQLITE_ROW)
		return 1;
	if (status == SQLITE_DONE)
		return 0;
	return db_conn_error(conn, "step", err);
}

int64_t db_column_int(struct db_stmt *stmt, int i)
{
	return sqlite3_column_int64(stmt->handle, i);
}

const char *db_column_text(struct db_stmt *stmt, int i)
{
	return (const char *)sqlite3_column_text(stmt->handle, i);
}

const void *db_column_blob(struct db_stmt *stmt, int i, size_t *ret_size)
{
	const void *data = sqlite3_column_blob(stmt->handle, i);

	*ret_size = (size_t)sqlite3_column_bytes(stmt->handle, i);
	return data;
}

bool db_column_is_null(struct db_stmt *stmt, int i)
{
	return sqlite3_column_type(stmt->handle, i) == SQLITE_NULL;
}

int64_t db_last_insert_id(struct db_conn *conn)
{
	return sqlite3_last_insert_rowid(conn->handle);
}

int64_t db_n_changed(struct db_conn *conn)
{
	return sqlite3_changes64(conn->handle);
}

/* ---- connections ---- */

int db_conn_exec(struct db_conn *conn, const char *sql, struct err *err)
{
	if (sqlite3_exec(conn->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
		return db_conn_error(conn, sql, err);
	return 0;
}

void db_conn_close(struct db_conn *conn)
{
	struct db_stmt *stmt;
	int status;

	if (!conn)
		return;
	for (size_t i = 0; i < DB_STMT_BUCKETS; i++) {
		while ((stmt = conn->buckets[i])) {
			conn->buckets[i] = stmt->next;
			(void)sqlite3_finalize(stmt->handle);
			free(stmt);
		}
	}
	status = sqlite3_close(conn->handle);
	assert(status == SQLITE_OK);
	(void)status;
	free(conn);
}

/* @pragmas: SQL to begin with */
static int open_conn(const char *path, int flags, const char *pragmas, struct db_conn **ret_conn,
		     struct err *err)
{
	struct db_conn *conn = calloc(1, sizeof(*conn));
	int status, on = 1, chunk = DB_CHUNK_PAGES * DB_PAGE_BYTES;

	if (!conn)
		return db_no_memory(err);
	conn->path = path;
	status = sqlite3_open_v2(path, &conn->handle,
				 flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (status != SQLITE_OK) {
		db_conn_report(conn, status, "open", err);
		goto fail;
	}
	(void)sqlite3_busy_timeout(conn->handle, BUSY_TIMEOUT_MS);
	(void)sqlite3_db_config(conn->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	(void)sqlite3_db_config(conn->handle, SQLITE_DBCONFIG_ENABLE_FKEY, 1, NULL);
	(void)sqlite3_db_config(conn->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	(void)sqlite3_file_control(conn->handle, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
	(void)sqlite3_file_control(conn->handle, "main", SQLITE_FCNTL_CHUNK_SIZE, &chunk);
	(void)sqlite3_wal_autocheckpoint(conn->handle, 0);
	/* This reads the file for the first time. */
	status = sqlite3_exec(conn->handle, pragmas, NULL, NULL, NULL);
	if (status != SQLITE_OK) {
		db_conn_report(conn, status, "open", err);
		goto fail;
	}
	*ret_conn = conn;
	return 0;

fail:
	db_conn_close(conn);
	return -1;
}

int db_conn_open(const char *path, struct db_conn **ret_conn, struct err *err)
{
	return open_conn(
		path, SQLITE_OPEN_READWRITE,
		"PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY; PRAGMA synchronous=FULL",
		ret_conn, err);
}

int db_conn_open_foreign(const char *path, struct db_conn **ret_conn, struct err *err)
{
	return open_conn(path, SQLITE_OPEN_READONLY,
			 "PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY; "
			 "PRAGMA query_only=ON; PRAGMA cache_size=-128",
			 ret_conn, err);
}

int db_conn_query_int(struct db_conn *conn, const char *sql, int64_t *ret_value, struct err *err)
{
	struct db_stmt *stmt = stmt_get(conn, sql, err);
	int rc = 0;

	if (!stmt)
		return -1;
	if (sqlite3_step(stmt->handle) == SQLITE_ROW)
		*ret_value = sqlite3_column_int64(stmt->handle, 0);
	else
		rc = db_conn_error(conn, sql, err);
	(void)sqlite3_reset(stmt->handle);
	return rc;
}
