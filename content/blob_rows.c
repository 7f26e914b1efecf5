/* SPDX-License-Identifier: Apache-2.0 */
#include "content/blob_rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/labels.h"
#include "content/blobs_sql.h"
#include "content/digest_key.h"

/* "ltct": tells our databases from other sqlite files. */
#define APPLICATION_ID   0x6c746374
/* More than there are workers by default: hardly ever does a reader wait for another to be done. */
#define N_READERS        24
/* What one row of a walk may take: all labels, with room for bookkeeping. */
#define WALK_ARENA_BYTES (4 * LABELS_MAX_BYTES)
#define LABEL_PATH       "labels."

struct blob_rows {
	struct db *db;
};

static int run(struct db_stmt *stmt, struct err *err)
{
	int row = db_step(stmt, err);

	db_reset(stmt);
	return row < 0 ? -1 : 0;
}

static int not_found(const struct digest *digest, struct err *err)
{
	char text[DIGEST_TEXT_BYTES];

	return err_set(err, ERR_NOT_FOUND, "content %s: not found", digest_format(digest, text));
}

/* --- opening ------------------------------------------------------------------------------------- */

static int open_rows(const char *path, bool read_only, struct blob_rows **ret_rows, struct err *err)
{
	const struct db_options options = {
		.path = path,
		.migrations = blob_migrations,
		.n_migrations = ARRAY_LEN(blob_migrations),
		.n_readers = N_READERS,
		.application_id = APPLICATION_ID,
		.read_only = read_only,
	};
	struct blob_rows *rows = calloc(1, sizeof(*rows));

	if (!rows)
		return err_sys(err, "open '%s'", path);
	if (db_open(&options, &rows->db, err) < 0) {
		free(rows);
		return -1;
	}
	*ret_rows = rows;
	return 0;
}

int blob_rows_open(const char *path, struct blob_rows **ret_rows, struct err *err)
{
	return open_rows(path, false, ret_rows, err);
}

int blob_rows_open_to_read(const char *path, struct blob_rows **ret_rows, struct err *err)
{
	return open_rows(path, true, ret_rows, err);
}

void blob_rows_close(struct blob_rows *rows)
{
	if (!rows)
		return;
	db_close(rows->db);
	free(rows);
}

/* --- reading ------------------------------------------------------------------------------------- */

/* Adds the label in columns @name and @name + 1 of the row; they come in order. */
static int read_label(struct db_stmt *stmt, int name, struct arena *arena, struct strmap *labels,
		      struct err *err)
{
	const char *key = arena_strdup(arena, db_column_text(stmt, name));
	const char *value = arena_strdup(arena, db_column_text(stmt, name + 1));

	if (!key || !value)
		return ctx_no_memory(err);
	return strmap_append(labels, arena, key, value, err);
}

static int read_labels(struct db_conn *conn, struct arena *arena, const struct digest_key *key,
		       struct strmap *ret_labels, struct err *err)
{
	static const char sql[] = "SELECT name, value FROM labels WHERE digest = ?1 ORDER BY name";
	struct strmap labels = {0};
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	while ((row = db_step(stmt, err)) == 1)
		if (read_label(stmt, 0, arena, &labels, err) < 0)
			return -1;
	if (row < 0)
		return -1;
	*ret_labels = labels;
	return 0;
}

/* Return: 1 with a row, 0 without, -1. Labels are not read. */
static int find(struct db_conn *conn, const struct digest *digest, const struct digest_key *key,
		struct blob_info *ret_info, struct err *err)
{
	static const char sql[] =
		"SELECT size_bytes, created_ns, updated_ns FROM blobs WHERE digest = ?1";
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	row = db_step(stmt, err);
	if (row == 1)
		*ret_info = (struct blob_info){
			.digest = *digest,
			.size_bytes = (uint64_t)db_column_int(stmt, 0),
			.created_ns = db_column_int(stmt, 1),
			.updated_ns = db_column_int(stmt, 2),
		};
	db_reset(stmt);
	return row;
}

struct get {
	struct arena *arena; /* NULL: without labels */
	const struct digest *digest;
	struct blob_info info;
};

static int read_one(struct db_conn *conn, void *arg, struct err *err)
{
	struct get *get = arg;
	const struct digest_key key = digest_key_of(get->digest);
	int row = find(conn, get->digest, &key, &get->info, err);

	if (row == 1 && get->arena &&
	    read_labels(conn, get->arena, &key, &get->info.labels, err) < 0)
		return -1;
	return row;
}

int blob_rows_get(struct blob_rows *rows, struct ctx *ctx, const struct digest *digest,
		  struct blob_info *ret_info, struct err *err)
{
	struct get get = {.arena = ctx->arena, .digest = digest};
	int row = db_read(rows->db, read_one, &get, err);

	if (row == 0)
		return not_found(digest, err);
	if (row < 0)
		return -1;
	*ret_info = get.info;
	return 0;
}

int blob_rows_size(struct blob_rows *rows, const struct digest *digest, uint64_t *ret_size_bytes,
		   struct err *err)
{
	struct get get = {.digest = digest};
	int row = db_read(rows->db, read_one, &get, err);

	if (row == 1)
		*ret_size_bytes = get.info.size_bytes;
	return row;
}

/* --- adding, removing ----------------------------------------------------------------------------- */

static int set_label(struct db_conn *conn, const struct digest_key *key, const char *name,
		     const char *value, struct err *err)
{
	static const char sql[] =
		"INSERT OR REPLACE INTO labels (digest, name, value) VALUES (?1, ?2, ?3)";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	db_bind_text(stmt, 2, name);
	db_bind_text(stmt, 3, value);
	return run(stmt, err);
}

static int set_labels(struct db_conn *conn, const struct digest_key *key,
		      const struct strmap *labels, struct err *err)
{
	for (size_t i = 0; i < labels->n; i++) {
		const struct strmap_entry *label = &labels->entries[i];

		if (label->value[0] && set_label(conn, key, label->key, label->value, err) < 0)
			return -1;
	}
	return 0;
}

/** struct addition - @bytes: to be held too; NULL: none */
struct addition {
	const struct blob_info *info;
	const void *bytes;
	bool is_json;
	int64_t now_ns;
	int64_t bytes_id;
};

static int add_bytes(struct db_conn *conn, const struct digest_key *key, struct addition *addition,
		     struct err *err)
{
	static const char sql[] = "INSERT INTO unsynced (digest, bytes) VALUES (?1, ?2)";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	db_bind_blob(stmt, 2, addition->bytes, (size_t)addition->info->size_bytes);
	if (run(stmt, err) < 0)
		return -1;
	addition->bytes_id = db_last_insert_id(conn);
	return 0;
}

static int add_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"INSERT OR IGNORE INTO blobs (digest, size_bytes, created_ns, updated_ns, is_json) "
		"VALUES (?1, ?2, ?3, ?3, ?4)";
	struct addition *addition = arg;
	const struct digest_key key = digest_key_of(&addition->info->digest);
	char text[DIGEST_TEXT_BYTES];
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &key);
	db_bind_int(stmt, 2, (int64_t)addition->info->size_bytes);
	db_bind_int(stmt, 3, addition->now_ns);
	db_bind_int(stmt, 4, addition->is_json);
	if (run(stmt, err) < 0)
		return -1;
	if (db_n_changed(conn) == 0)
		return err_set(err, ERR_ALREADY_EXISTS, "content %s: already exists",
			       digest_format(&addition->info->digest, text));
	if (addition->bytes && add_bytes(conn, &key, addition, err) < 0)
		return -1;
	return set_labels(conn, &key, &addition->info->labels, err);
}

int blob_rows_add(struct blob_rows *rows, const struct blob_info *info, bool is_json,
		  int (*barrier)(void *barrier_arg, struct err *err), void *barrier_arg,
		  struct err *err)
{
	struct addition addition = {.info = info, .is_json = is_json, .now_ns = realtime_ns()};

	return db_write(rows->db, add_row, &addition, barrier, barrier_arg, err);
}

int blob_rows_add_bytes(struct blob_rows *rows, const struct blob_info *info, bool is_json,
			const void *bytes, int64_t *ret_id, struct err *err)
{
	struct addition addition = {.info = info,
				    .bytes = bytes,
				    .is_json = is_json,
				    .now_ns = realtime_ns()};

	if (db_write(rows->db, add_row, &addition, NULL, NULL, err) < 0)
		return -1;
	*ret_id = addition.bytes_id;
	return 0;
}

struct removal {
	struct digest_key key;
	bool may_be_json;
};

static int remove_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"DELETE FROM blobs WHERE digest = ?1 RETURNING ifnull(is_json, 1)";
	struct removal *removal = arg;
	struct db_stmt *stmt;
	int row;

	/* Its labels go with it, by the foreign key. */
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &removal->key);
	row = db_step(stmt, err);
	if (row == 1)
		removal->may_be_json = db_column_int(stmt, 0);
	db_reset(stmt);
	return row < 0 ? -1 : row == 0;
}

int blob_rows_remove(struct blob_rows *rows, const struct digest *digest, bool *ret_may_be_json,
		     struct err *err)
{
	struct removal removal = {.key = digest_key_of(digest)};
	int r = db_write(rows->db, remove_row, &removal, NULL, NULL, err);

	if (r == 0 && ret_may_be_json)
		*ret_may_be_json = removal.may_be_json;
	return r;
}

/* --- bytes ---------------------------------------------------------------------------------------- */

struct forget {
	const int64_t *ids;
	size_t n;
};

static int forget_rows(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "DELETE FROM unsynced WHERE id = ?1";
	const struct forget *forget = arg;
	struct db_stmt *stmt;

	for (size_t i = 0; i < forget->n; i++) {
		if (db_prepare(conn, sql, &stmt, err) < 0)
			return -1;
		db_bind_int(stmt, 1, forget->ids[i]);
		if (run(stmt, err) < 0)
			return -1;
	}
	return 0;
}

int blob_rows_forget_bytes(struct blob_rows *rows, const int64_t *ids, size_t n, struct err *err)
{
	struct forget forget = {ids, n};

	return n ? db_write(rows->db, forget_rows, &forget, NULL, NULL, err) : 0;
}

/* There are few, and none as a rule: a table scan is no matter. */
static int find_bytes(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT 1 FROM unsynced WHERE digest = ?1";
	const struct digest_key key = digest_key_of(arg);
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &key);
	row = db_step(stmt, err);
	db_reset(stmt);
	return row;
}

int blob_rows_holds_bytes(struct blob_rows *rows, const struct digest *digest, struct err *err)
{
	struct digest copy = *digest;

	return db_read(rows->db, find_bytes, &copy, err);
}

struct bytes_read {
	struct digest_key key;
	int (*fn)(void *arg, const void *bytes, size_t size, struct err *err);
	void *arg;
};

static int read_bytes(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"SELECT u.bytes FROM unsynced u JOIN blobs b ON b.digest = u.digest "
		"WHERE u.digest = ?1 LIMIT 1";
	struct bytes_read *read = arg;
	struct db_stmt *stmt;
	const void *bytes;
	size_t size;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &read->key);
	row = db_step(stmt, err);
	if (row == 1) {
		bytes = db_column_blob(stmt, 0, &size);
		row = read->fn(read->arg, bytes, size, err) < 0 ? -1 : 1;
	}
	db_reset(stmt);
	return row;
}

int blob_rows_read_bytes(struct blob_rows *rows, const struct digest *digest,
			 int (*fn)(void *arg, const void *bytes, size_t size, struct err *err),
			 void *arg, struct err *err)
{
	struct bytes_read read = {digest_key_of(digest), fn, arg};

	return db_read(rows->db, read_bytes, &read, err);
}

struct bytes_walk {
	blob_bytes_fn fn;
	void *arg;
};

static int walk_bytes(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT u.id, u.digest, u.bytes, b.size_bytes FROM unsynced u "
				  "LEFT JOIN blobs b ON b.digest = u.digest ORDER BY u.id";
	const struct bytes_walk *walk = arg;
	struct db_stmt *stmt;
	int result = 0, row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	while (result == 0 && (row = db_step(stmt, err)) != 0) {
		struct digest digest;
		const void *bytes;
		size_t size;
		bool exists;

		if (row < 0 || digest_key_read(stmt, 1, &digest, err) < 0)
			return -1;
		bytes = db_column_blob(stmt, 2, &size);
		exists = !db_column_is_null(stmt, 3) && db_column_int(stmt, 3) == (int64_t)size;
		result = walk->fn(walk->arg, db_column_int(stmt, 0), &digest, exists, bytes, size,
				  err);
	}
	return result;
}

int blob_rows_walk_bytes(struct blob_rows *rows, blob_bytes_fn fn, void *arg, struct err *err)
{
	struct bytes_walk walk = {fn, arg};

	return db_read(rows->db, walk_bytes, &walk, err);
}

/* --- update -------------------------------------------------------------------------------------- */

struct update {
	struct arena *arena;
	const struct blob_update *req;
	int64_t now_ns;
	struct blob_info info;
};

static int check_paths(const struct blob_update *req, struct err *err)
{
	for (size_t i = 0; i < req->n_paths; i++) {
		const char *path = req->paths[i];

		if (strcmp(path, "labels") != 0 &&
		    (strncmp(path, LABEL_PATH, strlen(LABEL_PATH)) != 0 ||
		     path[strlen(LABEL_PATH)] == '\0'))
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "field '%.200s' cannot be changed: invalid argument", path);
	}
	return 0;
}

static bool replaces_all(const struct blob_update *req)
{
	for (size_t i = 0; i < req->n_paths; i++)
		if (strcmp(req->paths[i], "labels") == 0)
			return true;
	return req->n_paths == 0;
}

static int replace_labels(struct db_conn *conn, const struct digest_key *key,
			  const struct strmap *labels, struct err *err)
{
	static const char sql[] = "DELETE FROM labels WHERE digest = ?1";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	if (run(stmt, err) < 0)
		return -1;
	return set_labels(conn, key, labels, err);
}

static int change_label(struct db_conn *conn, const struct digest_key *key,
			const struct strmap *labels, const char *name, struct err *err)
{
	static const char sql[] = "DELETE FROM labels WHERE digest = ?1 AND name = ?2";
	const char *value = strmap_get(labels, name);
	struct db_stmt *stmt;

	if (value && value[0])
		return set_label(conn, key, name, value, err);
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	db_bind_text(stmt, 2, name);
	return run(stmt, err);
}

static int change_labels(struct db_conn *conn, const struct digest_key *key,
			 const struct blob_update *req, struct err *err)
{
	/* All values come from the one request: beside "labels" single ones change nothing more. */
	if (replaces_all(req))
		return replace_labels(conn, key, &req->labels, err);
	for (size_t i = 0; i < req->n_paths; i++)
		if (change_label(conn, key, &req->labels, req->paths[i] + strlen(LABEL_PATH), err) <
		    0)
			return -1;
	return 0;
}

static int update_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "UPDATE blobs SET updated_ns = ?2 WHERE digest = ?1";
	struct update *update = arg;
	const struct digest_key key = digest_key_of(&update->req->digest);
	int row = find(conn, &update->req->digest, &key, &update->info, err);
	struct db_stmt *stmt;

	if (row < 0)
		return -1;
	if (row == 0)
		return not_found(&update->req->digest, err);
	if (change_labels(conn, &key, update->req, err) < 0 ||
	    db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &key);
	db_bind_int(stmt, 2, update->now_ns);
	if (run(stmt, err) < 0 ||
	    read_labels(conn, update->arena, &key, &update->info.labels, err) < 0)
		return -1;
	update->info.updated_ns = update->now_ns;
	return labels_check(&update->info.labels, err);
}

int blob_rows_update(struct blob_rows *rows, struct ctx *ctx, const struct blob_update *req,
		     struct blob_info *ret_info, struct err *err)
{
	struct update update = {.arena = ctx->arena, .req = req, .now_ns = realtime_ns()};

	if (check_paths(req, err) < 0 ||
	    db_write(rows->db, update_row, &update, NULL, NULL, err) < 0)
		return -1;
	*ret_info = update.info;
	return 0;
}

/* --- walk ---------------------------------------------------------------------------------------- */

struct walk {
	struct ctx *ctx;
	const struct filters *filters;
	struct digest_key after; /* of length 0: from the start */
	blob_walk_fn fn;
	void *arg;
};

static int walk_row(struct db_conn *conn, struct walk *walk, struct db_stmt *row,
		    struct arena *arena, struct err *err)
{
	struct blob_info info = {
		.size_bytes = (uint64_t)db_column_int(row, 1),
		.created_ns = db_column_int(row, 2),
		.updated_ns = db_column_int(row, 3),
	};
	struct digest_key key;

	if (ctx_check(walk->ctx, err) < 0 || digest_key_read(row, 0, &info.digest, err) < 0)
		return -1;
	key = digest_key_of(&info.digest);
	/* Under containerd there are none, so that this look-up finds one page in the cache. */
	if (read_labels(conn, arena, &key, &info.labels, err) < 0)
		return -1;
	return blob_matches(walk->filters, &info) ? walk->fn(walk->arg, &info, err) : 0;
}

static int walk_rows(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT digest, size_bytes, created_ns, updated_ns FROM blobs "
				  "WHERE digest > ?1 ORDER BY digest";
	struct walk *walk = arg;
	struct db_stmt *rows;
	struct arena arena;
	int result = 0, row;

	if (db_prepare(conn, sql, &rows, err) < 0)
		return -1;
	digest_key_bind(rows, 1, &walk->after);
	arena_init(&arena, WALK_ARENA_BYTES);
	while (result == 0 && (row = db_step(rows, err)) != 0) {
		result = row < 0 ? -1 : walk_row(conn, walk, rows, &arena, err);
		arena_done(&arena);
	}
	return result;
}

int blob_rows_walk(struct blob_rows *rows, struct ctx *ctx, const struct filters *filters,
		   const struct digest *after, blob_walk_fn fn, void *arg, struct err *err)
{
	struct walk walk = {.ctx = ctx, .filters = filters, .fn = fn, .arg = arg};

	if (after)
		walk.after = digest_key_of(after);
	return db_read(rows->db, walk_rows, &walk, err);
}

/* --- totals -------------------------------------------------------------------------------------- */

struct totals {
	struct digest_key after;
	uint64_t n, bytes;
};

static int read_totals(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"SELECT count(*), coalesce(sum(size_bytes), 0) FROM blobs WHERE digest > ?1";
	struct totals *totals = arg;
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &totals->after);
	if (db_step(stmt, err) < 0)
		return -1;
	totals->n = (uint64_t)db_column_int(stmt, 0);
	totals->bytes = (uint64_t)db_column_int(stmt, 1);
	return 0;
}

int blob_rows_totals(struct blob_rows *rows, const struct digest *after, uint64_t *ret_n,
		     uint64_t *ret_bytes, struct err *err)
{
	struct totals totals = {0};

	if (after)
		totals.after = digest_key_of(after);
	if (db_read(rows->db, read_totals, &totals, err) < 0)
		return -1;
	*ret_n = totals.n;
	*ret_bytes = totals.bytes;
	return 0;
}

/* --- those that may be documents ------------------------------------------------------------------ */

static int find_json(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT 1 FROM blobs WHERE digest = ?1 AND is_json IS NOT 0";

	return digest_key_exists(conn, sql, arg, err);
}

int blob_rows_may_be_json(struct blob_rows *rows, const struct digest *digest, struct err *err)
{
	struct digest_key key = digest_key_of(digest);

	return db_read(rows->db, find_json, &key, err);
}

static int list_json(struct db_conn *conn, void *arg, struct err *err)
{
	/* Without an index, which every blob would pay for: this reads all rows, a hundred on a page. */
	static const char sql[] = "SELECT digest FROM blobs WHERE digest > ?1 AND is_json IS NOT 0 "
				  "ORDER BY digest LIMIT ?2";

	return digest_list_read(conn, sql, arg, err);
}

int blob_rows_list_json(struct blob_rows *rows, const struct digest *after,
			struct digest *ret_digests, int max, struct err *err)
{
	struct digest_list list = {.digests = ret_digests, .max = max};

	if (after)
		list.after = digest_key_of(after);
	return db_read(rows->db, list_json, &list, err);
}
