/* SPDX-License-Identifier: Apache-2.0 */
/*
 * db_commit DIRECTORY [SECONDS]: durable commits per second of base/db.h, and how long one takes, at 1, 8
 * and 32 callers. Each commit inserts a row of about 100 bytes with a unique text, and deletes an older one.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ctx.h"
#include "base/db.h"

#define CALLERS_MAX 32
#define SAMPLES_MAX 2000000
#define KEEP_ROWS   100

static const char *const migrations[] = {
	"CREATE TABLE t (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, at INTEGER NOT NULL)",
};

struct caller {
	pthread_t thread;
	struct db *db;
	unsigned int number;
	int64_t until_ns;
	int64_t *samples_ns;
	size_t n_samples;
};

struct row {
	char key[96];
	char old[96];
};

static int write_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char insert_sql[] = "INSERT INTO t (key, at) VALUES (?, ?)";
	static const char delete_sql[] = "DELETE FROM t WHERE key = ?";
	const struct row *row = arg;
	struct db_stmt *stmt;

	if (db_prepare(conn, insert_sql, &stmt, err) < 0)
		return -1;
	db_bind_text(stmt, 1, row->key);
	db_bind_int(stmt, 2, 1);
	if (db_step(stmt, err) < 0 || db_prepare(conn, delete_sql, &stmt, err) < 0)
		return -1;
	db_bind_text(stmt, 1, row->old);
	return db_step(stmt, err);
}

static void *caller_main(void *arg)
{
	struct caller *caller = arg;
	struct err err = ERR_INIT;
	struct row row;
	int64_t begin = monotonic_ns();

	for (unsigned long i = KEEP_ROWS; begin < caller->until_ns; i++) {
		int64_t end;

		snprintf(row.key, sizeof(row.key),
			 "default/%u/%lu sha256:0123456789abcdef0123456789abcdef0123456789abcdef",
			 caller->number, i);
		snprintf(row.old, sizeof(row.old),
			 "default/%u/%lu sha256:0123456789abcdef0123456789abcdef0123456789abcdef",
			 caller->number, i - KEEP_ROWS);
		if (db_write(caller->db, write_row, &row, NULL, NULL, &err) < 0) {
			fprintf(stderr, "db_commit: %s\n", err.msg);
			exit(1);
		}
		end = monotonic_ns();
		if (caller->n_samples < SAMPLES_MAX / CALLERS_MAX)
			caller->samples_ns[caller->n_samples++] = end - begin;
		begin = end;
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void run(const char *dir, unsigned int n_callers, double seconds)
{
	static int64_t samples[SAMPLES_MAX];
	static struct caller callers[CALLERS_MAX];
	struct db_options options = {.migrations = migrations,
				     .n_migrations = 1,
				     .n_readers = 1,
				     .application_id = 0x62656e63};
	struct err err = ERR_INIT;
	struct db *db;
	char path[4096];
	size_t n = 0;
	int64_t begin;
	double took;

	snprintf(path, sizeof(path), "%s/db_commit.%u.%u.db", dir, (unsigned int)getpid(),
		 n_callers);
	options.path = path;
	if (db_open(&options, &db, &err) < 0) {
		fprintf(stderr, "db_commit: %s\n", err.msg);
		exit(1);
	}
	begin = monotonic_ns();
	for (unsigned int i = 0; i < n_callers; i++) {
		callers[i] = (struct caller){.db = db,
					     .number = i,
					     .until_ns = begin + (int64_t)(seconds * 1e9),
					     .samples_ns = malloc(SAMPLES_MAX / CALLERS_MAX *
								  sizeof(int64_t))};
		if (!callers[i].samples_ns ||
		    pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]) != 0)
			exit(1);
	}
	for (unsigned int i = 0; i < n_callers; i++) {
		pthread_join(callers[i].thread, NULL);
		memcpy(samples + n, callers[i].samples_ns, callers[i].n_samples * sizeof(int64_t));
		n += callers[i].n_samples;
		free(callers[i].samples_ns);
	}
	took = (double)(monotonic_ns() - begin) / 1e9;
	db_close(db);
	qsort(samples, n, sizeof(samples[0]), by_value);
	printf("callers %2u  commits/s %8.0f  p50 %6.0f us  p99 %6.0f us  max %6.0f us\n",
	       n_callers, (double)n / took, (double)samples[n / 2] / 1e3,
	       (double)samples[n * 99 / 100] / 1e3, (double)samples[n - 1] / 1e3);
	unlink(path);
	strcat(path, "-wal");
	unlink(path);
	memcpy(path + strlen(path) - 3, "shm", 3);
	unlink(path);
}

int main(int argc, char **argv)
{
	static const unsigned int callers[] = {1, 8, 32};
	double seconds = argc > 2 ? atof(argv[2]) : 3;

	if (argc < 2) {
		fprintf(stderr, "usage: db_commit DIRECTORY [SECONDS]\n");
		return 2;
	}
	for (size_t i = 0; i < ARRAY_LEN(callers); i++)
		run(argv[1], callers[i], seconds);
	return 0;
}
