/* SPDX-License-Identifier: Apache-2.0 */
#include "base/db_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "base/thread.h"

#define WAL_HEADER_BYTES  32
#define WAL_FRAME_BYTES   (24 + DB_PAGE_BYTES)
/* Frames in the WAL from which on they are moved to the database file. */
#define CHECKPOINT_FRAMES 1000
/* The WAL's size on disk: what is written while a checkpoint runs needs room too. */
#define WAL_KEEP_BYTES                                                                             \
	(WAL_HEADER_BYTES + (CHECKPOINT_FRAMES + 250) * (sqlite3_int64)WAL_FRAME_BYTES)

#define GROUP_MAX_JOBS 64

/* One leads, one tells. */
#define N_RELIEFS 2

#define WRITER_CACHE "PRAGMA cache_size=-512"
#define READER_CACHE "PRAGMA cache_size=-128"
#define READERS_MAX  32

/*
 * Locks are listed in the order in which they are taken.
 *
 * A reader that nobody uses keeps its read transaction open, so that the next to use it need not begin one (two
 * locks of the file, and reading pages anew) unless something was committed since. As the WAL cannot start anew
 * under an open one, they are ended before a checkpoint, and not kept once the WAL is due for one.
 */
struct db {
	char *path;
	bool relaxed;
	unsigned int n_readers_max;
	atomic_uint generation; /* counts commits */
	atomic_bool keeps_reads;

	/* Held over a group's transaction, and by whoever needs that none is under way. */
	pthread_mutex_t write_lock;
	struct db_conn *writer;
	int64_t room_pages; /* that the database file has on disk, as far as we know */
	bool suspect; /* a write or sync failed: what the WAL holds behind its last commit is unknown */

	/* Two checkpoints at once would refuse one another. */
	pthread_mutex_t checkpoint_lock;
	struct db_conn *checkpoint_conn;

	pthread_mutex_t queue_lock;
	struct db_job *queue;
	struct db_job **queue_tail;
	bool working; /* a thread is at work on a group, and will see to what is queued meanwhile */
	bool promised; /* somebody was told to call db_lead(); writers who wait do not rely on it */
	bool relief_called; /* the lead was handed to whichever relief comes first */
	unsigned int n_idle_reliefs;
	pthread_cond_t relief_wanted;
	int wal_frames;
	int checkpoint_at; /* frames that wake the checkpointer */
	bool stopping;
	pthread_cond_t checkpoint_wanted;

	pthread_mutex_t readers_lock;
	pthread_cond_t reader_free;
	struct db_conn *free_readers;
	unsigned int n_readers;
	unsigned int n_draining; /* checkpoints under way: no read transaction is kept */

	int shm_fd;
	pthread_t checkpointer;
	bool checkpointer_runs;
	pthread_t reliefs[N_RELIEFS];
	unsigned int n_reliefs;
};

static const char begin_write_sql[] = "BEGIN IMMEDIATE";
static const char begin_read_sql[] = "BEGIN";
static const char commit_sql[] = "COMMIT";
static const char rollback_sql[] = "ROLLBACK";
static const char page_count_sql[] = "PRAGMA page_count";
static const char savepoint_sql[] = "SAVEPOINT job";
static const char release_sql[] = "RELEASE job";
static const char rollback_to_sql[] = "ROLLBACK TO job";

/* Economies, and no meaning in a path that begins "file:". Too late when the process has used sqlite
 * otherwise before, and then nothing is lost. */
static void configure_sqlite(void)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	(void)sqlite3_config(SQLITE_CONFIG_URI, 0);
}

static int note_wal_frames(void *arg, UNUSED sqlite3 *handle, UNUSED const char *schema,
			   int n_frames)
{
	struct db *db = arg;

	pthread_mutex_lock(&db->queue_lock);
	db->wal_frames = n_frames;
	if (n_frames < db->checkpoint_at - CHECKPOINT_FRAMES)
		db->checkpoint_at = CHECKPOINT_FRAMES;
	atomic_store(&db->keeps_reads, n_frames < CHECKPOINT_FRAMES);
	if (n_frames >= db->checkpoint_at)
		pthread_cond_signal(&db->checkpoint_wanted);
	pthread_mutex_unlock(&db->queue_lock);
	return SQLITE_OK;
}

static int open_writer(struct db *db, struct db_conn **ret_conn, struct err *err)
{
	struct db_conn *conn;
	char limit[64];

	if (db_conn_open(db->path, &conn, err) < 0)
		return -1;
	/* Debian's sqlite zeroes what is deleted, which would put more pages into every commit. */
	snprintf(limit, sizeof(limit), "PRAGMA journal_size_limit=%lld", (long long)WAL_KEEP_BYTES);
	if (db_conn_exec(conn, WRITER_CACHE "; PRAGMA secure_delete=OFF", err) < 0 ||
	    db_conn_exec(conn, limit, err) < 0 ||
	    (db->relaxed && db_conn_exec(conn, "PRAGMA synchronous=NORMAL", err) < 0)) {
		db_conn_close(conn);
		return -1;
	}
	(void)sqlite3_wal_hook(conn->handle, note_wal_frames, db);
	*ret_conn = conn;
	return 0;
}

static int open_reader(struct db *db, struct db_conn **ret_conn, struct err *err)
{
	struct db_conn *conn;

	if (db_conn_open(db->path, &conn, err) < 0)
		return -1;
	if (db_conn_exec(conn, READER_CACHE "; PRAGMA query_only=ON", err) < 0) {
		db_conn_close(conn);
		return -1;
	}
	*ret_conn = conn;
	return 0;
}

/*
 * Write zeros behind what the WAL holds, so that commits write into a file of constant size. sqlite takes
 * a frame of zeros for the end. Without room for it we go on: the WAL then grows as it is used, as it does where no
 * commit waits for it.
 */
static void grow_wal(const struct db *db, struct db_conn *conn)
{
	static const char zeros[64 * 1024];
	sqlite3_file *file = NULL;
	sqlite3_int64 size;

	if (db->relaxed)
		return;
	if (sqlite3_file_control(conn->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file) !=
		    SQLITE_OK ||
	    !file || !file->pMethods || file->pMethods->xFileSize(file, &size) != SQLITE_OK)
		return;
	if (size >= WAL_KEEP_BYTES)
		return;
	while (size < WAL_KEEP_BYTES) {
		sqlite3_int64 n = WAL_KEEP_BYTES - size;

		if (n > (sqlite3_int64)sizeof(zeros))
			n = sizeof(zeros);
		if (file->pMethods->xWrite(file, zeros, (int)n, size) != SQLITE_OK)
			return;
		size += n;
	}
	(void)file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
}

/* ---- opening ---- */

static int sync_parent(const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	CLEANUP(free_ptr)
	char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	CLEANUP(close_fd) int fd = -1;

	if (!dir)
		return db_no_memory(err);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_sys(err, "sync directory '%s'", dir);
	return 0;
}

/*
 * Make the file if there is none. It is never opened here when it exists: closing it would drop the locks
 * that another connection of this process holds (fcntl(2)).
 */
static int make_file(struct db *db, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	CLEANUP(free_ptr) char *wal = NULL;
	struct stat st;

	if (asprintf(&wal, "%s-wal", db->path) < 0) {
		wal = NULL;
		return db_no_memory(err);
	}
	if (stat(db->path, &st) < 0) {
		if (errno != ENOENT)
			return err_sys(err, "database '%s'", db->path);
		st.st_size = 0;
	} else if (!S_ISREG(st.st_mode)) {
		return err_set(err, ERR_DATA_LOSS, "database '%s' is not a file", db->path);
	}
	/* sqlite would delete the log as a leftover, and with it what it may hold of a lost database. */
	if (st.st_size == 0 && stat(wal, &st) == 0 && st.st_size > 0)
		return err_set(err, ERR_DATA_LOSS,
			       "database '%s' is missing or empty, but its log '%s' is not",
			       db->path, wal);

	fd = open(db->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? 0 : err_sys(err, "make database '%s'", db->path);
	return sync_parent(db->path, err);
}

static int check_identity(struct db_conn *conn, const struct db_options *options,
			  int64_t *ret_version, struct err *err)
{
	int64_t application_id, n_objects;

	if (db_conn_query_int(conn, "SELECT count(*) FROM sqlite_schema", &n_objects, err) < 0 ||
	    db_conn_query_int(conn, "PRAGMA application_id", &application_id, err) < 0 ||
	    db_conn_query_int(conn, "PRAGMA user_version", ret_version, err) < 0)
		return -1;
	if (application_id != options->application_id &&
	    (application_id != 0 || n_objects != 0 || *ret_version != 0))
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "database '%s' belongs to something else (application id %#llx)",
			       options->path, (unsigned long long)application_id & 0xffffffff);
	if (*ret_version < 0 || (uint64_t)*ret_version > options->n_migrations)
		return err_set(
			err, ERR_FAILED_PRECONDITION,
			"database '%s' has version %lld, newer than %zu, the newest known here",
			options->path, (long long)*ret_version, options->n_migrations);
	if (!options->read_only && sqlite3_db_readonly(conn->handle, "main") == 1) {
		if (access(options->path, W_OK) < 0)
			return err_sys(err, "write to database '%s'", options->path);
		return err_set(err, ERR_FAILED_PRECONDITION, "database '%s' is read-only",
			       options->path);
	}
	return 0;
}

static int use_wal(struct db_conn *conn, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	const char *mode;
	int rc = 0;

	if (sqlite3_prepare_v2(conn->handle, "PRAGMA journal_mode=WAL", -1, &stmt, NULL) !=
		    SQLITE_OK ||
	    sqlite3_step(stmt) != SQLITE_ROW) {
		rc = db_conn_error(conn, "journal_mode=WAL", err);
	} else {
		mode = (const char *)sqlite3_column_text(stmt, 0);
		if (!mode || strcmp(mode, "wal") != 0)
			rc = err_set(err, ERR_FAILED_PRECONDITION,
				     "database '%s': its file system cannot hold a write-ahead log",
				     conn->path);
	}
	(void)sqlite3_finalize(stmt);
	return rc;
}

static int migrate(struct db_conn *conn, const struct db_options *options, int64_t version,
		   struct err *err)
{
	char stamp[128];

	do {
		bool has_script = (uint64_t)version < options->n_migrations;
		int64_t next = has_script ? version + 1 : version;

		snprintf(stamp, sizeof(stamp),
			 "PRAGMA application_id=%d; PRAGMA user_version=%lld; COMMIT",
			 options->application_id, (long long)next);
		if (db_conn_exec(conn, begin_write_sql, err) < 0)
			return -1;
		if ((has_script && db_conn_exec(conn, options->migrations[version], err) < 0) ||
		    db_conn_exec(conn, stamp, err) < 0) {
			(void)sqlite3_exec(conn->handle, rollback_sql, NULL, NULL, NULL);
			return err_wrap(err, "bring database to version %lld", (long long)next);
		}
		version = next;
	} while ((uint64_t)version < options->n_migrations);
	return 0;
}

static void *checkpointer_main(void *arg);
static void *relief_main(void *arg);

static int open_all(struct db *db, const struct db_options *options, struct err *err)
{
	int64_t version, ignored;

	if (make_file(db, err) < 0 || open_writer(db, &db->writer, err) < 0 ||
	    check_identity(db->writer, options, &version, err) < 0 || use_wal(db->writer, err) < 0)
		return -1;
	/* The first read makes the log's index, which has to be held before anything is written. */
	if (db_conn_query_int(db->writer, "PRAGMA user_version", &ignored, err) < 0 ||
	    db_shm_hold(db->path, &db->shm_fd, err) < 0)
		return -1;
	if ((version == 0 || (uint64_t)version < options->n_migrations) &&
	    migrate(db->writer, options, version, err) < 0)
		return -1;
	grow_wal(db, db->writer);

	/* The read makes the connection hold the WAL open, which reopen_writer() relies on. */
	if (open_reader(db, &db->checkpoint_conn, err) < 0 ||
	    db_conn_query_int(db->checkpoint_conn, "PRAGMA user_version", &ignored, err) < 0)
		return -1;
	if (thread_start(&db->checkpointer, "db-checkpoint", checkpointer_main, db, err) < 0)
		return -1;
	db->checkpointer_runs = true;
	/* Commits that do not wait for the disk are over before another thread would be awake. */
	for (; !db->relaxed && db->n_reliefs < N_RELIEFS; db->n_reliefs++)
		if (thread_start(&db->reliefs[db->n_reliefs], "db-writer", relief_main, db, err) <
		    0)
			return -1;
	return 0;
}

/* One reader, to be used by the first db_read(); the writer is another process, and so are its threads. */
static int open_to_read(struct db *db, const struct db_options *options, struct err *err)
{
	struct db_conn *conn;
	int64_t version;

	atomic_store(&db->keeps_reads, false);
	if (open_reader(db, &conn, err) < 0)
		return -1;
	db->free_readers = conn;
	db->n_readers = 1;
	if (check_identity(conn, options, &version, err) < 0)
		return -1;
	if ((uint64_t)version < options->n_migrations || version == 0)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "database '%s' has version %lld, older than %zu; whoever writes it "
			       "brings it up to date when it starts",
			       db->path, (long long)version, options->n_migrations);
	return 0;
}

int db_open(const struct db_options *options, struct db **ret_db, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct db *db;

	assert(options->n_readers >= 1 && options->n_readers <= READERS_MAX);
	pthread_once(&once, configure_sqlite);

	db = calloc(1, sizeof(*db));
	if (!db)
		return db_no_memory(err);
	pthread_mutex_init(&db->write_lock, NULL);
	pthread_mutex_init(&db->checkpoint_lock, NULL);
	pthread_mutex_init(&db->queue_lock, NULL);
	pthread_mutex_init(&db->readers_lock, NULL);
	pthread_cond_init(&db->checkpoint_wanted, NULL);
	pthread_cond_init(&db->relief_wanted, NULL);
	pthread_cond_init(&db->reader_free, NULL);
	db->queue_tail = &db->queue;
	db->checkpoint_at = CHECKPOINT_FRAMES;
	atomic_init(&db->keeps_reads, true);
	db->shm_fd = -1;
	db->n_readers_max = options->n_readers;
	db->relaxed = options->relaxed;
	db->path = strdup(options->path);
	if (!db->path) {
		db_close(db);
		return db_no_memory(err);
	}
	if ((options->read_only ? open_to_read(db, options, err) : open_all(db, options, err)) <
	    0) {
		db_close(db);
		return -1;
	}
	*ret_db = db;
	return 0;
}

static int reopen_writer(struct db *db, struct err *err);
static int checkpoint_all(struct db *db, int mode, struct err *err);

void db_close(struct db *db)
{
	struct err ignored = ERR_INIT;
	struct db_conn *conn;
	bool moved;

	if (!db)
		return;
	assert(!db->queue && !db->working);
	pthread_mutex_lock(&db->queue_lock);
	db->stopping = true;
	pthread_cond_signal(&db->checkpoint_wanted);
	pthread_cond_broadcast(&db->relief_wanted);
	pthread_mutex_unlock(&db->queue_lock);
	if (db->checkpointer_runs)
		pthread_join(db->checkpointer, NULL);
	while (db->n_reliefs > 0)
		pthread_join(db->reliefs[--db->n_reliefs], NULL);
	while ((conn = db->free_readers)) {
		db->free_readers = conn->next_free;
		db_conn_close(conn);
	}
	/* The last chance to get rid of what callers were told had failed. */
	if (db->suspect)
		(void)reopen_writer(db, &ignored);
	db_conn_close(db->checkpoint_conn);
	/*
	 * Everything is moved into the database file, unless that was refused, or the WAL holds what must not be
	 * taken for committed. The WAL's blocks stay: without room for one, who starts on a full disk could not even
	 * delete rows.
	 */
	moved = db->checkpointer_runs && !db->suspect &&
		checkpoint_all(db, SQLITE_CHECKPOINT_FULL, &ignored) == 0;
	/* Of what can be made anew, the last connection empties the WAL. */
	if (moved && db->relaxed)
		(void)sqlite3_db_config(db->writer->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0,
					NULL);
	db_conn_close(db->writer);
	if (moved && !db->relaxed)
		db_wal_void(db->path, db->shm_fd);
	close_fd(&db->shm_fd);
	pthread_cond_destroy(&db->reader_free);
	pthread_cond_destroy(&db->checkpoint_wanted);
	pthread_cond_destroy(&db->relief_wanted);
	pthread_mutex_destroy(&db->readers_lock);
	pthread_mutex_destroy(&db->queue_lock);
	pthread_mutex_destroy(&db->checkpoint_lock);
	pthread_mutex_destroy(&db->write_lock);
	free(db->path);
	free(db);
}

/* ---- writing ---- */

static int end_read(struct db_conn *conn)
{
	struct err ignored = ERR_INIT;

	/* Nothing was changed, so there is nothing that could fail to be kept. */
	if (conn->reads && !sqlite3_get_autocommit(conn->handle) &&
	    db_conn_run(conn, commit_sql, &ignored) != SQLITE_OK)
		return -1;
	conn->reads = false;
	return 0;
}

/* From now on, until keep_reads_again(). */
static void end_idle_reads(struct db *db)
{
	LOCK_GUARD(&db->readers_lock);
	db->n_draining++;
	/* One that cannot be ended is closed when it is used next. */
	for (struct db_conn *conn = db->free_readers; conn; conn = conn->next_free)
		(void)end_read(conn);
}

static void keep_reads_again(struct db *db)
{
	LOCK_GUARD(&db->readers_lock);
	db->n_draining--;
}

static int checkpoint_passive(struct db *db, struct err *err)
{
	int status;

	LOCK_GUARD(&db->checkpoint_lock);
	end_idle_reads(db);
	status = sqlite3_wal_checkpoint_v2(db->checkpoint_conn->handle, NULL,
					   SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	keep_reads_again(db);
	/* Busy means that readers stand in the way: there will be a next time. */
	if (status == SQLITE_OK || (status & 0xff) == SQLITE_BUSY)
		return 0;
	return db_conn_report(db->checkpoint_conn, status, "checkpoint", err);
}

/* Move all of the WAL, which needs @mode, on the writing connection. Its transaction must be over. */
static int checkpoint_all(struct db *db, int mode, struct err *err)
{
	int status;

	LOCK_GUARD(&db->checkpoint_lock);
	end_idle_reads(db);
	status = sqlite3_wal_checkpoint_v2(db->writer->handle, NULL, mode, NULL, NULL);
	keep_reads_again(db);
	if (status != SQLITE_OK)
		return db_conn_report(db->writer, status, "checkpoint", err);
	return 0;
}

/*
 * After a failed write or sync the WAL may hold, behind its last commit, all of a transaction whose callers
 * were told that it failed; the next start would take it for committed. Empty the WAL, so that it cannot
 * come back. The new connection is opened before the old one goes, and the checkpointer has one of its own:
 * were there a moment without any, the next to open the WAL would find that transaction.
 */
static int reopen_writer(struct db *db, struct err *err)
{
	struct db_conn *conn;
	int64_t ignored;

	if (open_writer(db, &conn, err) < 0)
		return -1;
	if (db_conn_query_int(conn, "PRAGMA user_version", &ignored, err) < 0) {
		db_conn_close(conn);
		return -1;
	}
	db_conn_close(db->writer);
	db->writer = conn;

	if (checkpoint_all(db, SQLITE_CHECKPOINT_TRUNCATE, err) < 0)
		return -1;
	grow_wal(db, conn);
	db->suspect = false;
	return 0;
}

static void roll_back(struct db *db)
{
	struct err err = ERR_INIT;

	db_conn_reset(db->writer);
	if (sqlite3_get_autocommit(db->writer->handle))
		return;
	if (db_conn_run(db->writer, rollback_sql, &err) != SQLITE_OK)
		db->suspect = true;
}

/*
 * Let the database file have room for all pages before they are committed. Otherwise a checkpoint could fail
 * on a full disk, the WAL could not start anew, and soon nothing could be written any more: not even the
 * removals that would make room.
 */
static int make_room(struct db *db, struct err *err)
{
	sqlite3_int64 size;
	int64_t n_pages;

	if (db_conn_query_int(db->writer, page_count_sql, &n_pages, err) < 0)
		return -1;
	if (n_pages <= db->room_pages)
		return 0;
	size = (n_pages + DB_CHUNK_PAGES - 1) / DB_CHUNK_PAGES * DB_CHUNK_PAGES * DB_PAGE_BYTES;
	if (sqlite3_file_control(db->writer->handle, "main", SQLITE_FCNTL_SIZE_HINT, &size) !=
	    SQLITE_OK)
		return db_conn_report(db->writer, SQLITE_FULL, "make room", err);
	db->room_pages = size / DB_PAGE_BYTES;
	return 0;
}

static void settle(struct db_job *job, const struct err *err)
{
	job->result = -1;
	job->settled = true;
	if (job->err != err)
		*job->err = *err;
}

static void settle_all(struct db_job *group, const struct err *err)
{
	for (struct db_job *job = group; job; job = job->next)
		if (!job->settled)
			settle(job, err);
}

/*
 * Make one job's changes. @guarded: in a savepoint, so that they can be undone without those of the others.
 * Return: 0; 1 when a change must be undone and there is no savepoint; 2 when the transaction has been lost for lack
 * of room; -1 when it has been lost otherwise, and the job is settled then.
 */
static int run_job(struct db *db, struct db_job *job, bool guarded)
{
	struct db_conn *conn = db->writer;
	sqlite3_int64 n_changed = sqlite3_total_changes64(conn->handle);
	struct err err = ERR_INIT;

	if (guarded && db_conn_run(conn, savepoint_sql, &err) != SQLITE_OK) {
		settle(job, &err);
		return -1;
	}
	job->result = job->fn(conn, job->arg, job->err);
	db_conn_reset(conn);

	/* sqlite rolls everything back by itself on a full disk, an I/O error, or without memory. */
	if (sqlite3_get_autocommit(conn->handle)) {
		if (job->result >= 0)
			err_set(job->err, ERR_INTERNAL, "database '%s': the transaction was lost",
				db->path);
		if (job->err->code == ERR_RESOURCE_EXHAUSTED)
			return 2;
		settle(job, job->err);
		db->suspect = true;
		return -1;
	}
	/* A statement that failed has undone itself, and does not count. */
	if (!guarded)
		return job->result != 0 && sqlite3_total_changes64(conn->handle) != n_changed;
	if ((job->result != 0 && db_conn_run(conn, rollback_to_sql, &err) != SQLITE_OK) ||
	    db_conn_run(conn, release_sql, &err) != SQLITE_OK) {
		settle(job, &err);
		return -1;
	}
	return 0;
}

/* Return: 0, or -1 when one failed; those who gave it are settled then. */
static int run_barriers(struct db_job *group)
{
	for (struct db_job *job = group; job; job = job->next) {
		struct err err = ERR_INIT;
		bool failed;

		if (job->settled || job->result != 0 || !job->barrier || job->barrier_done)
			continue;
		failed = job->barrier(job->barrier_arg, &err) != 0;
		for (struct db_job *other = job; other; other = other->next) {
			if (other->barrier != job->barrier ||
			    other->barrier_arg != job->barrier_arg)
				continue;
			other->barrier_done = true;
			if (failed && !other->settled && other->result == 0)
				settle(other, &err);
		}
		if (failed)
			return -1;
	}
	return 0;
}

/**
 * struct attempts - what repetitions of a group's transaction have to remember
 * @guarded: jobs run in savepoints, which few groups need: only where one both changes something and fails
 * @log_emptied: room has been made in the WAL for this group before
 * @split: there is no room for all of it: each job has to try by itself, since some may need none
 */
struct attempts {
	bool guarded;
	bool log_emptied;
	bool split;
};

/*
 * The disk is full, and the WAL cannot grow; but what it holds may be moved to make room in it, once for each group.
 * Return: has it been?
 */
static bool empty_log(struct db *db, struct attempts *attempts)
{
	struct err err = ERR_INIT;

	if (attempts->log_emptied)
		return false;
	attempts->log_emptied = true;
	roll_back(db);
	return checkpoint_passive(db, &err) == 0;
}

/* Return: 0; or -1 when the transaction must be repeated. */
static int run_jobs(struct db *db, struct db_job *group, struct attempts *attempts,
		    bool *ret_changed)
{
	bool changed = false;

	for (struct db_job *job = group; job; job = job->next) {
		int rc;

		if (job->settled)
			continue;
		rc = run_job(db, job, attempts->guarded);
		if (rc == 1)
			attempts->guarded = true;
		if (rc == 2 && !empty_log(db, attempts))
			settle(job, job->err);
		if (rc != 0)
			return -1;
		changed |= job->result == 0;
	}
	*ret_changed = changed;
	return 0;
}

static size_t n_unsettled(const struct db_job *group)
{
	size_t n = 0;

	for (; group; group = group->next)
		n += !group->settled;
	return n;
}

/* There is no room, as @err says: for the one job, or for the group as it is. */
static void refuse_for_room(struct db_job *group, struct attempts *attempts, const struct err *err)
{
	if (n_unsettled(group) > 1)
		attempts->split = true;
	else
		settle_all(group, err);
}

/*
 * One attempt at the transaction, with the jobs that are not settled yet.
 * Return: 0 when all is settled, or @attempts->split; -1 when it must be repeated without those that are settled now.
 */
static int try_group(struct db *db, struct db_job *group, struct attempts *attempts)
{
	struct err err = ERR_INIT;
	bool changed = false;
	int status;

	if (n_unsettled(group) == 0)
		return 0;
	if ((db->suspect && reopen_writer(db, &err) < 0) ||
	    db_conn_run(db->writer, begin_write_sql, &err) != SQLITE_OK) {
		settle_all(group, &err);
		return 0;
	}
	if (run_jobs(db, group, attempts, &changed) < 0)
		goto again;
	if (!changed) {
		roll_back(db);
		return 0;
	}
	if (make_room(db, &err) < 0) {
		refuse_for_room(group, attempts, &err);
		roll_back(db);
		return 0;
	}
	if (run_barriers(group) < 0)
		goto again;

	CRASH_POINT("db.before-commit");
	status = db_conn_run(db->writer, commit_sql, &err);
	CRASH_POINT("db.committed");
	if (status == SQLITE_OK) {
		atomic_fetch_add(&db->generation, 1);
		return 0;
	}
	if ((status & 0xff) == SQLITE_FULL && empty_log(db, attempts))
		return -1;
	/*
	 * A refusal too was founded on changes of the group that are not there now. When the disk was full, the
	 * frame that ends the transaction is not in the WAL.
	 */
	if ((status & 0xff) == SQLITE_FULL) {
		refuse_for_room(group, attempts, &err);
	} else {
		settle_all(group, &err);
		db->suspect = true;
	}
	roll_back(db);
	return 0;

again:
	roll_back(db);
	return -1;
}

/* A group of its own, out of the one that it is in. */
static void run_alone(struct db *db, struct db_job *job)
{
	struct attempts attempts = {.log_emptied = true};
	struct db_job *next = job->next;

	job->next = NULL;
	while (try_group(db, job, &attempts) < 0) {
	}
	job->next = next;
}

static void run_group(struct db *db, struct db_job *group)
{
	struct attempts attempts = {0};
	struct err err = ERR_INIT;

	LOCK_GUARD(&db->write_lock);
	while (try_group(db, group, &attempts) < 0) {
	}
	for (struct db_job *job = group; attempts.split && job; job = job->next)
		run_alone(db, job);
	/* Before the callers are told that it failed. If that fails too, the next group tries again. */
	if (db->suspect)
		(void)reopen_writer(db, &err);
}

/* The first of the queue: a group that is too large would not fit into the writer's cache, nor into the log. */
static struct db_job *take_group(struct db *db)
{
	struct db_job *group, *last;

	LOCK_GUARD(&db->queue_lock);
	group = last = db->queue;
	for (unsigned int n = 1; last && last->next && n < GROUP_MAX_JOBS; n++)
		last = last->next;
	db->queue = last ? last->next : NULL;
	if (!db->queue)
		db->queue_tail = &db->queue;
	if (last)
		last->next = NULL;
	return group;
}

/* Who leads on: nobody, as nothing is queued; the relief, at once; or who asks, when it has told its group. */
enum next_leader { LEADER_NONE, LEADER_RELIEF, LEADER_SAME };

static enum next_leader next_leader(struct db *db)
{
	LOCK_GUARD(&db->queue_lock);
	if (!db->queue) {
		db->working = false;
		return LEADER_NONE;
	}
	if (!db->n_idle_reliefs)
		return LEADER_SAME;
	db->relief_called = true;
	pthread_cond_signal(&db->relief_wanted);
	return LEADER_RELIEF;
}

/* For the one thread that is at work. */
static void lead(struct db *db)
{
	enum next_leader next;

	do {
		struct db_job *job = take_group(db), *following;

		run_group(db, job);
		next = next_leader(db);
		for (; job; job = following) {
			following = job->next;
			job->done(job);
		}
	} while (next == LEADER_SAME);
}

/* Return: is there work that nobody is at? Then it is the caller's. */
static bool take_lead(struct db *db)
{
	LOCK_GUARD(&db->queue_lock);
	db->promised = false;
	if (db->working || !db->queue)
		return false;
	db->working = true;
	return true;
}

void db_lead(struct db *db)
{
	if (take_lead(db))
		lead(db);
}

/*
 * Callers who lead have better things to do than to lead for others without end; and while one thread tells a group,
 * another commits the next.
 */
static void *relief_main(void *arg)
{
	struct db *db = arg;

	pthread_mutex_lock(&db->queue_lock);
	for (;;) {
		db->n_idle_reliefs++;
		while (!db->relief_called && !db->stopping)
			pthread_cond_wait(&db->relief_wanted, &db->queue_lock);
		db->n_idle_reliefs--;
		if (!db->relief_called)
			break;
		db->relief_called = false;
		pthread_mutex_unlock(&db->queue_lock);
		lead(db);
		pthread_mutex_lock(&db->queue_lock);
	}
	pthread_mutex_unlock(&db->queue_lock);
	return NULL;
}

static void append(struct db *db, struct db_job *job)
{
	job->next = NULL;
	job->settled = false;
	job->barrier_done = false;
	*db->queue_tail = job;
	db->queue_tail = &job->next;
}

bool db_submit(struct db *db, struct db_job *job)
{
	LOCK_GUARD(&db->queue_lock);
	append(db, job);
	if (db->working || db->promised)
		return false;
	db->promised = true;
	return true;
}

/*
 * Who waits leads, unless somebody is at work: whoever promised to may be waiting for a thread, which this one is.
 * Return: is the lead the caller's?
 */
static bool submit_and_lead(struct db *db, struct db_job *job)
{
	LOCK_GUARD(&db->queue_lock);
	append(db, job);
	if (db->working)
		return false;
	db->working = true;
	return true;
}

/** struct waiter - a db_write() that waits, on its caller's stack */
struct waiter {
	struct db_job job;
	sem_t wake;
};

static void wake_waiter(struct db_job *job)
{
	sem_post(&((struct waiter *)((char *)job - offsetof(struct waiter, job)))->wake);
}

int db_write(struct db *db, db_write_fn fn, void *arg,
	     int (*barrier)(void *barrier_arg, struct err *err), void *barrier_arg, struct err *err)
{
	struct waiter waiter = {
		.job =
			{
				.fn = fn,
				.arg = arg,
				.barrier = barrier,
				.barrier_arg = barrier_arg,
				.done = wake_waiter,
				.err = err,
			},
	};

	sem_init(&waiter.wake, 0, 0);
	if (submit_and_lead(db, &waiter.job))
		lead(db);
	while (sem_wait(&waiter.wake) < 0 && errno == EINTR) {
	}
	sem_destroy(&waiter.wake);
	return waiter.job.result;
}

/* ---- reading ---- */

static struct db_conn *take_reader(struct db *db, struct err *err)
{
	struct db_conn *conn;

	pthread_mutex_lock(&db->readers_lock);
	while (!db->free_readers && db->n_readers == db->n_readers_max)
		pthread_cond_wait(&db->reader_free, &db->readers_lock);
	conn = db->free_readers;
	if (conn)
		db->free_readers = conn->next_free;
	else
		db->n_readers++;
	pthread_mutex_unlock(&db->readers_lock);
	if (conn || open_reader(db, &conn, err) == 0)
		return conn;

	pthread_mutex_lock(&db->readers_lock);
	db->n_readers--;
	pthread_cond_signal(&db->reader_free);
	pthread_mutex_unlock(&db->readers_lock);
	return NULL;
}

/* @good: its read transaction may be kept. */
static void give_reader(struct db *db, struct db_conn *conn, bool good)
{
	pthread_mutex_lock(&db->readers_lock);
	good = (good && atomic_load(&db->keeps_reads) && !db->n_draining) || end_read(conn) == 0;
	if (good) {
		conn->next_free = db->free_readers;
		db->free_readers = conn;
	} else {
		db->n_readers--;
	}
	pthread_cond_signal(&db->reader_free);
	pthread_mutex_unlock(&db->readers_lock);
	if (!good)
		db_conn_close(conn);
}

/* Lets @conn see what is committed by now. */
static int begin_read(struct db *db, struct db_conn *conn, struct err *err)
{
	unsigned int generation = atomic_load(&db->generation);

	if (conn->reads && conn->generation == generation)
		return 0;
	if (end_read(conn) < 0)
		return err_set(err, ERR_INTERNAL, "database '%s': a read cannot be ended",
			       db->path);
	if (db_conn_run(conn, begin_read_sql, err) != SQLITE_OK)
		return -1;
	conn->reads = true;
	conn->generation = generation;
	return 0;
}

int db_read(struct db *db, db_read_fn fn, void *arg, struct err *err)
{
	struct db_conn *conn = take_reader(db, err);
	int result;

	if (!conn)
		return -1;
	if (begin_read(db, conn, err) < 0) {
		give_reader(db, conn, false);
		return -1;
	}
	result = fn(conn, arg, err);
	db_conn_reset(conn);
	give_reader(db, conn, result == 0);
	return result;
}

/* ---- checkpoints ---- */

/*
 * Writers go on during the bulk of the work. They append to the WAL meanwhile, so that alone would never
 * come to its end: the rest, a few frames, is moved while they wait, and their next commit starts the WAL
 * anew.
 */
static int checkpoint(struct db *db, struct err *err)
{
	if (checkpoint_passive(db, err) < 0)
		return -1;
	LOCK_GUARD(&db->write_lock);
	return checkpoint_passive(db, err);
}

static void *checkpointer_main(void *arg)
{
	struct db *db = arg;
	bool failing = false;

	pthread_mutex_lock(&db->queue_lock);
	for (;;) {
		struct err err = ERR_INIT;

		while (!db->stopping && db->wal_frames < db->checkpoint_at)
			pthread_cond_wait(&db->checkpoint_wanted, &db->queue_lock);
		if (db->stopping)
			break;
		pthread_mutex_unlock(&db->queue_lock);

		if (checkpoint(db, &err) == 0) {
			failing = false;
		} else if (!failing) {
			failing = true;
			log_event(LOG_WARN, "the database's log could not be moved, and grows",
				  LOG_STR("database", db->path), LOG_ERR(&err));
		}

		pthread_mutex_lock(&db->queue_lock);
		/* If it cannot start anew, for a long reader or an error, try again later. */
		db->checkpoint_at = db->wal_frames + CHECKPOINT_FRAMES;
	}
	pthread_mutex_unlock(&db->queue_lock);
	return NULL;
}

int db_checkpoint(struct db *db, struct err *err)
{
	LOCK_GUARD(&db->write_lock);
	if (db->suspect && reopen_writer(db, err) < 0)
		return -1;
	return checkpoint_all(db, SQLITE_CHECKPOINT_FULL, err);
}
