/* SPDX-License-Identifier: Apache-2.0 */
#include "base/db_follow.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/db_internal.h"

/* How often in a row a database may be replaced under a reader. */
#define TRIES_MAX 5

/**
 * struct db_follower - see db_follow.h
 * @mutex: guards what follows
 * @conn: to the file @dev, @ino, which cannot get another meaning while it is open; NULL: not connected
 * @identified: it is what it should be
 */
struct db_follower {
	char *path;
	int32_t application_id;
	int64_t version;

	pthread_mutex_t mutex;
	struct db_conn *conn;
	bool identified;
	dev_t dev;
	ino_t ino;
};

static const char begin_sql[] = "BEGIN";
static const char end_sql[] = "COMMIT";

int db_follower_new(const struct db_follow_options *options, struct db_follower **ret_follower,
		    struct err *err)
{
	struct db_follower *follower = calloc(1, sizeof(*follower));

	if (!follower)
		return db_no_memory(err);
	follower->path = strdup(options->path);
	if (!follower->path) {
		free(follower);
		return db_no_memory(err);
	}
	follower->application_id = options->application_id;
	follower->version = options->version;
	pthread_mutex_init(&follower->mutex, NULL);
	*ret_follower = follower;
	return 0;
}

/* The lock is held, here and below. */
static void disconnect(struct db_follower *follower)
{
	db_conn_close(follower->conn);
	follower->conn = NULL;
	follower->identified = false;
}

void db_follower_free(struct db_follower *follower)
{
	if (!follower)
		return;
	disconnect(follower);
	pthread_mutex_destroy(&follower->mutex);
	free(follower->path);
	free(follower);
}

static int not_there(struct db_follower *follower, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "database '%s' is not there", follower->path);
}

/*
 * By its name, never by a descriptor: closing one would drop the locks that a connection of this process, be it
 * another one, has on the file (fcntl(2)).
 */
static bool is_the_one(const struct db_follower *follower)
{
	struct stat st;

	return stat(follower->path, &st) == 0 && st.st_dev == follower->dev &&
	       st.st_ino == follower->ino;
}

static int check_identity(struct db_follower *follower, struct err *err)
{
	int64_t application_id, version;

	if (db_conn_query_int(follower->conn, "PRAGMA application_id", &application_id, err) < 0 ||
	    db_conn_query_int(follower->conn, "PRAGMA user_version", &version, err) < 0)
		return -1;
	/* Its writer sets both with the tables. */
	if (application_id == 0 && version == 0)
		return not_there(follower, err);
	if (application_id != follower->application_id || version != follower->version)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "database '%s' has application id %#llx and version %lld, not %#llx "
			       "and %lld",
			       follower->path, (unsigned long long)application_id & 0xffffffff,
			       (long long)version,
			       (unsigned long long)follower->application_id & 0xffffffff,
			       (long long)follower->version);
	return 0;
}

/* Return: 1 when there is none to connect to, or it is being made. */
static int connect_to(struct db_follower *follower, struct err *err)
{
	struct stat st;

	if (follower->conn && is_the_one(follower))
		return 0;
	disconnect(follower);
	if (stat(follower->path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR
			       ? 1
			       : err_sys(err, "database '%s'", follower->path);
	follower->dev = st.st_dev;
	follower->ino = st.st_ino;
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_DATA_LOSS, "database '%s' is not a file", follower->path);
	/* Who opened an empty one now could stand in the way of its making. */
	if (st.st_size == 0)
		return 1;
	return db_conn_open_foreign(follower->path, &follower->conn, err);
}

static int read_once(struct db_follower *follower, db_read_fn fn, void *arg, struct err *err)
{
	struct err ignored = ERR_INIT;
	int r = 0;

	if (db_conn_run(follower->conn, begin_sql, err) != SQLITE_OK)
		return -1;
	if (!follower->identified)
		r = check_identity(follower, err);
	if (r == 0) {
		follower->identified = true;
		r = fn(follower->conn, arg, err);
	}
	db_conn_reset(follower->conn);
	/* Nothing was changed, so that it does not matter how this ends. */
	if (db_conn_run(follower->conn, end_sql, &ignored) != SQLITE_OK && r >= 0)
		disconnect(follower);
	return r;
}

int db_follow(struct db_follower *follower, db_read_fn fn, void *arg, struct err *err)
{
	LOCK_GUARD(&follower->mutex);
	for (int i = 0; i < TRIES_MAX; i++) {
		int r = connect_to(follower, err);

		if (r > 0)
			return not_there(follower, err);
		if (r == 0)
			r = read_once(follower, fn, arg, err);
		/* What has lost its name while it was read may have been read with another one's log. */
		if (is_the_one(follower)) {
			/* Opened anew, it may be well. */
			if (r < 0)
				disconnect(follower);
			return r;
		}
		disconnect(follower);
	}
	return err_set(err, ERR_UNAVAILABLE, "database '%s' is replaced again and again",
		       follower->path);
}
