/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/metastore.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/crash_point.h"
#include "base/db.h"
#include "snapshotters/metastore_sql.h"

/* "ltss": tells our databases from other sqlite files. */
#define APPLICATION_ID   0x6c747373
/* More than there are workers by default: hardly ever does a reader wait for another to be done. */
#define N_READERS        24
/* What one row of a walk may take: a key, its parent's, and all labels, with room for bookkeeping. */
#define WALK_ARENA_BYTES (4 * LABELS_MAX_BYTES)

struct metastore {
	struct db *db;
	atomic_uint_fast64_t next_id;
};

#define COLUMNS                                                                                    \
	"s.id, s.key, p.key, s.parent_id, s.kind, s.created_ns, s.updated_ns, s.size_bytes, "      \
	"s.inodes "
#define FROM "FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent_id "

/* --- rows ---------------------------------------------------------------------------------------- */

static int copy_text(struct arena *arena, const char *text, const char **ret_copy, struct err *err)
{
	const char *copy = text ? arena_strdup(arena, text) : "";

	if (!copy)
		return ctx_no_memory(err);
	*ret_copy = copy;
	return 0;
}

static int read_columns(struct db_stmt *stmt, struct arena *arena, struct record *ret_record,
			struct err *err)
{
	struct record record = {
		.info.id = (uint64_t)db_column_int(stmt, 0),
		.parent_id = (uint64_t)db_column_int(stmt, 3),
		.info.kind = (enum snapshot_kind)db_column_int(stmt, 4),
		.info.created_ns = db_column_int(stmt, 5),
		.info.updated_ns = db_column_int(stmt, 6),
		.usage.size_bytes = (uint64_t)db_column_int(stmt, 7),
		.usage.inodes = (uint64_t)db_column_int(stmt, 8),
	};

	if (copy_text(arena, db_column_text(stmt, 1), &record.info.name, err) < 0 ||
	    copy_text(arena, db_column_text(stmt, 2), &record.info.parent, err) < 0)
		return -1;
	*ret_record = record;
	return 0;
}

/* Adds the label in columns @name and @name + 1 of the row; they come in order. */
static int read_label(struct db_stmt *stmt, int name, struct arena *arena, struct strmap *labels,
		      struct err *err)
{
	const char *key, *value;

	if (copy_text(arena, db_column_text(stmt, name), &key, err) < 0 ||
	    copy_text(arena, db_column_text(stmt, name + 1), &value, err) < 0)
		return -1;
	return strmap_append(labels, arena, key, value, err);
}

static int read_labels(struct db_conn *conn, struct arena *arena, uint64_t id,
		       struct strmap *ret_labels, struct err *err)
{
	static const char sql[] =
		"SELECT name, value FROM labels WHERE snapshot_id = ?1 ORDER BY name";
	struct strmap labels = {0};
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)id);
	while ((row = db_step(stmt, err)) == 1)
		if (read_label(stmt, 0, arena, &labels, err) < 0)
			return -1;
	if (row < 0)
		return -1;
	*ret_labels = labels;
	return 0;
}

/* Return: 1 with a row of @key, 0 without, -1. Labels are not read. */
static int find(struct db_conn *conn, struct arena *arena, const char *key,
		struct record *ret_record, struct err *err)
{
	static const char sql[] = "SELECT " COLUMNS FROM "WHERE s.key = ?1";
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_text(stmt, 1, key);
	row = db_step(stmt, err);
	if (row == 1 && read_columns(stmt, arena, ret_record, err) < 0)
		return -1;
	db_reset(stmt);
	return row;
}

static int not_found(const char *key, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "snapshot '%s' does not exist: not found", key);
}

static int already_exists(const char *key, struct err *err)
{
	return err_set(err, ERR_ALREADY_EXISTS, "snapshot '%s': already exists", key);
}

/* As find(), where it must be there. */
static int find_existing(struct db_conn *conn, struct arena *arena, const char *key,
			 struct record *ret_record, struct err *err)
{
	int row = find(conn, arena, key, ret_record, err);

	if (row == 0)
		return not_found(key, err);
	return row < 0 ? -1 : 0;
}

static int run(struct db_stmt *stmt, struct err *err)
{
	int row = db_step(stmt, err);

	db_reset(stmt);
	return row < 0 ? -1 : 0;
}

static int insert_labels(struct db_conn *conn, uint64_t id, const struct strmap *labels,
			 struct err *err)
{
	static const char sql[] =
		"INSERT OR REPLACE INTO labels (snapshot_id, name, value) VALUES (?1, ?2, ?3)";
	struct db_stmt *stmt;

	if (!labels->n)
		return 0;
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	for (size_t i = 0; i < labels->n; i++) {
		if (labels->entries[i].value[0] == '\0')
			continue;
		db_bind_int(stmt, 1, (int64_t)id);
		db_bind_text(stmt, 2, labels->entries[i].key);
		db_bind_text(stmt, 3, labels->entries[i].value);
		if (run(stmt, err) < 0)
			return -1;
	}
	return 0;
}

static int delete_labels(struct db_conn *conn, uint64_t id, struct err *err)
{
	static const char sql[] = "DELETE FROM labels WHERE snapshot_id = ?1";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)id);
	return run(stmt, err);
}

static int delete_label(struct db_conn *conn, uint64_t id, const char *name, struct err *err)
{
	static const char sql[] = "DELETE FROM labels WHERE snapshot_id = ?1 AND name = ?2";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)id);
	db_bind_text(stmt, 2, name);
	return run(stmt, err);
}

/* --- opening ------------------------------------------------------------------------------------- */

static int read_last_id(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name "
				  "= 'snapshots'), 0), "
				  "coalesce((SELECT max(id) FROM snapshots), 0))";
	uint64_t *last = arg;
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	row = db_step(stmt, err);
	if (row < 0)
		return -1;
	*last = row ? (uint64_t)db_column_int(stmt, 0) : 0;
	return 0;
}

int metastore_open(const char *path, struct metastore **ret_store, struct err *err)
{
	struct db_options options = {
		.path = path,
		.migrations = metastore_migrations,
		.n_migrations = ARRAY_LEN(metastore_migrations),
		.n_readers = N_READERS,
		.application_id = APPLICATION_ID,
	};
	struct metastore *store = calloc(1, sizeof(*store));
	uint64_t last = 0;

	if (!store)
		return err_sys(err, "open '%s'", path);
	if (db_open(&options, &store->db, err) < 0 ||
	    db_read(store->db, read_last_id, &last, err) < 0) {
		metastore_close(store);
		return -1;
	}
	atomic_store(&store->next_id, last + 1);
	*ret_store = store;
	return 0;
}

void metastore_close(struct metastore *store)
{
	if (!store)
		return;
	db_close(store->db);
	free(store);
}

bool metastore_is_virgin(struct metastore *store)
{
	return atomic_load(&store->next_id) == 1;
}

uint64_t metastore_reserve_ids(struct metastore *store, unsigned int n)
{
	return atomic_fetch_add(&store->next_id, n);
}

void metastore_skip_ids(struct metastore *store, uint64_t last)
{
	uint_fast64_t next = atomic_load(&store->next_id);

	while (next <= last && !atomic_compare_exchange_weak(&store->next_id, &next, last + 1))
		;
}

/* --- get ----------------------------------------------------------------------------------------- */

struct get {
	struct arena *arena;
	const char *key;
	struct record record;
	struct chain chain;
	bool wants_chain;
};

/* The parent of @id, 0 for none. Rows by id one after the other cost a third of a recursive query. */
static int read_parent_id(struct db_stmt *stmt, uint64_t id, uint64_t *ret_parent_id,
			  struct err *err)
{
	int row;

	db_bind_int(stmt, 1, (int64_t)id);
	row = db_step(stmt, err);
	if (row < 0)
		return -1;
	*ret_parent_id = row ? (uint64_t)db_column_int(stmt, 0) : 0;
	db_reset(stmt);
	return 0;
}

static int read_chain(struct db_conn *conn, struct get *get, struct err *err)
{
	static const char sql[] = "SELECT parent_id FROM snapshots WHERE id = ?1";
	uint64_t id = get->record.parent_id;
	size_t capacity = 0;
	struct db_stmt *stmt;

	if (!id)
		return 0;
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	while (id) {
		if (get->chain.n == capacity) {
			uint64_t *ids;

			capacity = capacity ? capacity * 2 : 16;
			ids = arena_array(get->arena, capacity, sizeof(*ids));
			if (!ids)
				return ctx_no_memory(err);
			if (get->chain.n)
				memcpy(ids, get->chain.ids, get->chain.n * sizeof(*ids));
			get->chain.ids = ids;
		}
		get->chain.ids[get->chain.n++] = id;
		if (read_parent_id(stmt, id, &id, err) < 0)
			return -1;
	}
	return 0;
}

static int read_one(struct db_conn *conn, void *arg, struct err *err)
{
	struct get *get = arg;

	if (find_existing(conn, get->arena, get->key, &get->record, err) < 0 ||
	    read_labels(conn, get->arena, get->record.info.id, &get->record.info.labels, err) < 0)
		return -1;
	return get->wants_chain ? read_chain(conn, get, err) : 0;
}

int metastore_get(struct metastore *store, struct ctx *ctx, const char *key,
		  struct record *ret_record, struct err *err)
{
	struct get get = {.arena = ctx->arena, .key = key};

	if (db_read(store->db, read_one, &get, err) < 0)
		return -1;
	*ret_record = get.record;
	return 0;
}

int metastore_get_chain(struct metastore *store, struct ctx *ctx, const char *key,
			struct record *ret_record, struct chain *ret_chain, struct err *err)
{
	struct get get = {.arena = ctx->arena, .key = key, .wants_chain = true};

	if (db_read(store->db, read_one, &get, err) < 0)
		return -1;
	*ret_record = get.record;
	*ret_chain = get.chain;
	return 0;
}

/* --- create -------------------------------------------------------------------------------------- */

struct create {
	struct arena *arena;
	const struct metastore_new *row;
	int64_t now_ns;
};

/* A parent must be there, be committed, and still be the row that the caller has seen. */
static int check_parent(struct db_conn *conn, struct arena *arena, const char *name,
			enum err_code not_committed, struct record *ret_parent, struct err *err)
{
	int row = find(conn, arena, name, ret_parent, err);

	if (row < 0)
		return -1;
	if (row == 0)
		return err_set(err, ERR_NOT_FOUND, "parent '%s' does not exist: not found", name);
	if (ret_parent->info.kind != SNAPSHOT_COMMITTED)
		return err_set(err, not_committed, "parent '%s' is not a committed snapshot", name);
	return 0;
}

static int create_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"INSERT INTO snapshots (id, key, parent_id, kind, created_ns, updated_ns) "
		"VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
	struct create *create = arg;
	const struct metastore_new *row = create->row;
	struct record parent = {0}, taken;
	struct db_stmt *stmt;
	int found = find(conn, create->arena, row->req->key, &taken, err);

	if (found < 0)
		return -1;
	if (found)
		return already_exists(row->req->key, err);
	if (row->req->parent[0] != '\0' && check_parent(conn, create->arena, row->req->parent,
							ERR_INVALID_ARGUMENT, &parent, err) < 0)
		return -1;
	if (parent.info.id != row->parent_id)
		return 1;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)row->id);
	db_bind_text(stmt, 2, row->req->key);
	if (row->parent_id)
		db_bind_int(stmt, 3, (int64_t)row->parent_id);
	else
		db_bind_null(stmt, 3);
	db_bind_int(stmt, 4, row->kind);
	db_bind_int(stmt, 5, create->now_ns);
	if (run(stmt, err) < 0)
		return -1;
	return insert_labels(conn, row->id, &row->req->labels, err);
}

int metastore_create(struct metastore *store, struct ctx *ctx,
		     const struct metastore_new *new_snapshot, struct err *err)
{
	struct create create = {
		.arena = ctx->arena,
		.row = new_snapshot,
		.now_ns = realtime_ns(),
	};

	return db_write(store->db, create_row, &create, new_snapshot->barrier,
			new_snapshot->barrier_arg, err);
}

/* --- commit -------------------------------------------------------------------------------------- */

struct commit {
	struct arena *arena;
	const struct commit_req *req;
	uint64_t id;
	const struct usage *usage;
	int64_t now_ns;
};

/* The parent that a layer gets which was unpacked before it had one (containerd 2.2, "rebase"). */
static int settle_parent(struct db_conn *conn, struct commit *commit, const struct record *active,
			 uint64_t *ret_parent_id, struct err *err)
{
	const char *wanted = commit->req->parent;
	struct record parent;

	*ret_parent_id = active->parent_id;
	if (wanted[0] == '\0' || strcmp(wanted, active->info.parent) == 0)
		return 0;
	if (active->parent_id)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "snapshot '%s' has the parent '%s', not '%s'", active->info.name,
			       active->info.parent, wanted);
	if (check_parent(conn, commit->arena, wanted, ERR_FAILED_PRECONDITION, &parent, err) < 0)
		return -1;
	*ret_parent_id = parent.info.id;
	return 0;
}

static int commit_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"UPDATE snapshots SET key = ?2, kind = ?3, parent_id = ?4, created_ns = ?5, "
		"updated_ns = ?5, size_bytes = ?6, inodes = ?7 WHERE id = ?1";
	struct commit *commit = arg;
	struct record active, taken;
	uint64_t parent_id;
	struct db_stmt *stmt;
	int found;

	if (find_existing(conn, commit->arena, commit->req->key, &active, err) < 0)
		return -1;
	if (active.info.kind != SNAPSHOT_ACTIVE)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "snapshot '%s' is %s, not active: failed precondition",
			       active.info.name,
			       active.info.kind == SNAPSHOT_VIEW ? "a view" : "committed");
	found = find(conn, commit->arena, commit->req->name, &taken, err);
	if (found < 0)
		return -1;
	if (found)
		return already_exists(commit->req->name, err);
	if (settle_parent(conn, commit, &active, &parent_id, err) < 0)
		return -1;
	if (active.info.id != commit->id)
		return 1;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)commit->id);
	db_bind_text(stmt, 2, commit->req->name);
	db_bind_int(stmt, 3, SNAPSHOT_COMMITTED);
	if (parent_id)
		db_bind_int(stmt, 4, (int64_t)parent_id);
	else
		db_bind_null(stmt, 4);
	db_bind_int(stmt, 5, commit->now_ns);
	db_bind_int(stmt, 6, (int64_t)commit->usage->size_bytes);
	db_bind_int(stmt, 7, (int64_t)commit->usage->inodes);
	if (run(stmt, err) < 0 || delete_labels(conn, commit->id, err) < 0)
		return -1;
	return insert_labels(conn, commit->id, &commit->req->labels, err);
}

int metastore_commit(struct metastore *store, struct ctx *ctx, const struct commit_req *req,
		     uint64_t id, const struct usage *usage, struct err *err)
{
	struct commit commit = {
		.arena = ctx->arena,
		.req = req,
		.id = id,
		.usage = usage,
		.now_ns = realtime_ns(),
	};

	return db_write(store->db, commit_row, &commit, NULL, NULL, err);
}

/* --- remove -------------------------------------------------------------------------------------- */

struct removal {
	struct arena *arena;
	const char *key;
	uint64_t id;
};

static int remove_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char child_sql[] = "SELECT key FROM snapshots WHERE parent_id = ?1 LIMIT 1";
	static const char sql[] = "DELETE FROM snapshots WHERE id = ?1";
	struct removal *removal = arg;
	struct record record;
	struct db_stmt *stmt;
	int row;

	if (find_existing(conn, removal->arena, removal->key, &record, err) < 0)
		return -1;
	if (db_prepare(conn, child_sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)record.info.id);
	row = db_step(stmt, err);
	if (row == 1)
		return err_set(
			err, ERR_FAILED_PRECONDITION,
			"cannot remove snapshot '%s': '%s' stands on it: failed precondition",
			removal->key, db_column_text(stmt, 0));
	if (row < 0)
		return -1;
	/* Its labels go with it, by the foreign key. */
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)record.info.id);
	if (run(stmt, err) < 0)
		return -1;
	removal->id = record.info.id;
	return 0;
}

int metastore_remove(struct metastore *store, struct ctx *ctx, const char *key, uint64_t *ret_id,
		     struct err *err)
{
	struct removal removal = {.arena = ctx->arena, .key = key};

	if (db_write(store->db, remove_row, &removal, NULL, NULL, err) < 0)
		return -1;
	*ret_id = removal.id;
	return 0;
}

/* --- update -------------------------------------------------------------------------------------- */

struct update {
	struct arena *arena;
	const struct update_req *req;
	int64_t now_ns;
	struct info info;
};

#define LABEL_PATH "labels."

static int check_paths(const struct update_req *req, struct err *err)
{
	for (size_t i = 0; i < req->n_paths; i++) {
		const char *path = req->paths[i];

		if (strcmp(path, "labels") != 0 &&
		    (strncmp(path, LABEL_PATH, strlen(LABEL_PATH)) != 0 ||
		     path[strlen(LABEL_PATH)] == '\0'))
			return err_set(
				err, ERR_INVALID_ARGUMENT,
				"field '%s' of snapshot '%s' cannot be changed: invalid argument",
				path, req->name);
	}
	return 0;
}

static int replace_labels(struct db_conn *conn, struct update *update, uint64_t id, struct err *err)
{
	if (delete_labels(conn, id, err) < 0)
		return -1;
	return insert_labels(conn, id, &update->req->labels, err);
}

static int change_label(struct db_conn *conn, struct update *update, uint64_t id, const char *name,
			struct err *err)
{
	const char *value = strmap_get(&update->req->labels, name);
	struct strmap_entry entry = {name, value};

	if (!value || value[0] == '\0')
		return delete_label(conn, id, name, err);
	return insert_labels(conn, id, &(struct strmap){&entry, 1, 1}, err);
}

static bool replaces_all(const struct update_req *req)
{
	for (size_t i = 0; i < req->n_paths; i++)
		if (strcmp(req->paths[i], "labels") == 0)
			return true;
	return req->n_paths == 0;
}

static int change_labels(struct db_conn *conn, struct update *update, uint64_t id, struct err *err)
{
	const struct update_req *req = update->req;

	/* All values come from the one request: beside "labels" single ones change nothing more. */
	if (replaces_all(req))
		return replace_labels(conn, update, id, err);
	for (size_t i = 0; i < req->n_paths; i++)
		if (change_label(conn, update, id, req->paths[i] + strlen(LABEL_PATH), err) < 0)
			return -1;
	return 0;
}

static int update_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "UPDATE snapshots SET updated_ns = ?2 WHERE id = ?1";
	struct update *update = arg;
	const struct update_req *req = update->req;
	struct record record;
	struct db_stmt *stmt;

	if (find_existing(conn, update->arena, req->name, &record, err) < 0)
		return -1;
	if (change_labels(conn, update, record.info.id, err) < 0)
		return -1;
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)record.info.id);
	db_bind_int(stmt, 2, update->now_ns);
	if (run(stmt, err) < 0 ||
	    read_labels(conn, update->arena, record.info.id, &record.info.labels, err) < 0 ||
	    labels_check(&record.info.labels, err) < 0)
		return -1;
	record.info.updated_ns = update->now_ns;
	update->info = record.info;
	return 0;
}

int metastore_update(struct metastore *store, struct ctx *ctx, const struct update_req *req,
		     struct info *ret_info, struct err *err)
{
	struct update update = {.arena = ctx->arena, .req = req, .now_ns = realtime_ns()};

	if (check_paths(req, err) < 0 ||
	    db_write(store->db, update_row, &update, NULL, NULL, err) < 0)
		return -1;
	*ret_info = update.info;
	return 0;
}

/* --- walk ---------------------------------------------------------------------------------------- */

struct walk {
	struct ctx *ctx;
	const struct filters *filters;
	uint64_t after_id;
	snapshot_walk_fn fn;
	void *arg;
};

/*
 * Two statements side by side, both in order of ids: one look-up of labels per walk rather than per row.
 * @has_label: the label statement stands on a row that has not been used yet.
 */
static int take_labels(struct db_stmt *stmt, int *has_label, struct arena *arena, struct info *info,
		       struct err *err)
{
	while (*has_label == 1) {
		uint64_t id = (uint64_t)db_column_int(stmt, 0);

		if (id > info->id)
			return 0;
		if (id == info->id && read_label(stmt, 1, arena, &info->labels, err) < 0)
			return -1;
		*has_label = db_step(stmt, err);
	}
	return *has_label;
}

static int walk_rows(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT " COLUMNS FROM "WHERE s.id > ?1 ORDER BY s.id";
	static const char label_sql[] = "SELECT snapshot_id, name, value FROM labels "
					"WHERE snapshot_id > ?1 ORDER BY snapshot_id, name";
	struct walk *walk = arg;
	struct db_stmt *rows, *labels;
	int has_row, has_label, result = 0;
	struct record record;
	struct arena arena;

	if (db_prepare(conn, sql, &rows, err) < 0 || db_prepare(conn, label_sql, &labels, err) < 0)
		return -1;
	db_bind_int(rows, 1, (int64_t)walk->after_id);
	db_bind_int(labels, 1, (int64_t)walk->after_id);
	has_label = db_step(labels, err);
	if (has_label < 0)
		return -1;
	arena_init(&arena, WALK_ARENA_BYTES);
	while (result == 0 && (has_row = db_step(rows, err)) != 0) {
		result = -1;
		if (has_row == 1 && ctx_check(walk->ctx, err) == 0 &&
		    read_columns(rows, &arena, &record, err) == 0 &&
		    take_labels(labels, &has_label, &arena, &record.info, err) >= 0)
			result = snapshot_matches(walk->filters, &record.info)
					 ? walk->fn(walk->arg, &record.info, err)
					 : 0;
		arena_done(&arena);
	}
	return result;
}

int metastore_walk(struct metastore *store, struct ctx *ctx, const struct filters *filters,
		   uint64_t after_id, snapshot_walk_fn fn, void *arg, struct err *err)
{
	struct walk walk = {
		.ctx = ctx,
		.filters = filters,
		.after_id = after_id,
		.fn = fn,
		.arg = arg,
	};

	if (after_id > INT64_MAX)
		return 0;
	return db_read(store->db, walk_rows, &walk, err);
}

struct ids {
	uint64_t *ids;
	size_t n;
	size_t capacity;
};

static int read_ids(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT id FROM snapshots ORDER BY id";
	struct ids *list = arg;
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	while ((row = db_step(stmt, err)) == 1) {
		if (list->n == list->capacity) {
			size_t capacity = list->capacity ? list->capacity * 2 : 1024;
			uint64_t *ids = reallocarray(list->ids, capacity, sizeof(*ids));

			if (!ids)
				return err_sys(err, "list snapshots");
			list->ids = ids;
			list->capacity = capacity;
		}
		list->ids[list->n++] = (uint64_t)db_column_int(stmt, 0);
	}
	return row;
}

int metastore_ids(struct metastore *store, uint64_t **ret_ids, size_t *ret_n, struct err *err)
{
	struct ids list = {0};

	if (db_read(store->db, read_ids, &list, err) < 0) {
		free(list.ids);
		return -1;
	}
	*ret_ids = list.ids;
	*ret_n = list.n;
	return 0;
}
