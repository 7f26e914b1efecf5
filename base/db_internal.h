/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection, and its statements: what db.c and db_follow.c build on db_conn.c. The three are the only users of sqlite.
 */
#ifndef LIGHTER_BASE_DB_INTERNAL_H
#define LIGHTER_BASE_DB_INTERNAL_H

#include <sqlite3.h>

#include "base/db.h"

#define DB_PAGE_BYTES   4096
/* The database file grows by this much at a time. */
#define DB_CHUNK_PAGES  64
#define DB_STMT_BUCKETS 32

/**
 * struct db_conn - a connection
 * @path: of the database; borrowed
 * @next_free: for the list of readers that nobody uses
 * @reads: a read transaction is open; @generation: of the database, when it was begun
 * @used: statements to be reset at the end of the call back
 * @buckets: all statements, by the address of their SQL
 */
struct db_conn {
	const char *path;
	struct db_conn *next_free;
	bool reads;
	unsigned int generation;
	sqlite3 *handle;
	struct db_stmt *used;
	struct db_stmt *buckets[DB_STMT_BUCKETS];
};

/** db_conn_open() - connect to the existing file @path, which is borrowed; closing it leaves the WAL alone */
ERR_CHECKED int db_conn_open(const char *path, struct db_conn **ret_conn, struct err *err);

/**
 * db_conn_open_foreign() - connect to a database that another process writes, only to read it
 *
 * Whoever comes first after a kill of the writer recovers its log: sqlite does so in the file -shm, which is why that
 * must be writable.
 */
ERR_CHECKED int db_conn_open_foreign(const char *path, struct db_conn **ret_conn, struct err *err);

/** db_conn_close() - finalize the statements, and close. Accepts NULL. */
void db_conn_close(struct db_conn *conn);

/** db_conn_report() - sqlite's extended @status as an error; @what was done. Return: -1, always. */
int db_conn_report(struct db_conn *conn, int status, const char *what, struct err *err);

/** db_conn_error() - db_conn_report() of the status of the last call */
int db_conn_error(struct db_conn *conn, const char *what, struct err *err);

/** db_no_memory() - Return: -1, always, with ERR_RESOURCE_EXHAUSTED. */
int db_no_memory(struct err *err);

/** db_conn_exec() - run SQL text once */
ERR_CHECKED int db_conn_exec(struct db_conn *conn, const char *sql, struct err *err);

/**
 * db_conn_run() - run a statement of ours that gives no rows (BEGIN and the like); @sql as for db_prepare()
 * Return: sqlite's extended status; @err is filled unless that is SQLITE_OK.
 */
ERR_CHECKED int db_conn_run(struct db_conn *conn, const char *sql, struct err *err);

/** db_conn_query_int() - the one number that @sql gives; @sql as for db_prepare() */
ERR_CHECKED int db_conn_query_int(struct db_conn *conn, const char *sql, int64_t *ret_value,
				  struct err *err);

/** db_conn_reset() - reset the statements that were used since the last time */
void db_conn_reset(struct db_conn *conn);

/**
 * db_shm_hold() - let all of the log's index have its blocks
 *
 * sqlite maps it, and writes only one byte of each page to make it longer: where blocks are smaller than pages (ext4 of
 * less than 512 MiB), a full disk would end the process by SIGBUS. At the start after a kill it still can: sqlite
 * cuts the index, and fills it before anybody could make room.
 * @ret_fd: to be closed after all connections (closing it drops their locks, see fcntl(2))
 * Return: 0; or -1, mostly with ERR_RESOURCE_EXHAUSTED: the database must not be used then.
 */
ERR_CHECKED int db_shm_hold(const char *path, int *ret_fd, struct err *err);

/**
 * db_wal_void() - have the log of @path, which holds nothing that the file does not, say nothing any more
 * @shm_fd: of db_shm_hold(); no connection of this process is open any more
 * Its blocks stay. Where another process has it open, so does what it says: it is as a kill would have left it.
 */
void db_wal_void(const char *path, int shm_fd);

#endif
