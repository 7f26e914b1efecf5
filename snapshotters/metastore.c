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
#define APPLICATION_ID          0x6c747373
/* More than there are workers by default: hardly ever does a reader wait for another to be done. */
#define N_READERS               24
/* Ids that may be lost at a restart, for not having to note each. */
#define IDS_AT_A_TIME           1024
/* All labels of a row, with a NUL after each name and value. */
#define PACKED_LABELS_MAX_BYTES (LABELS_MAX_BYTES + 2 * LABELS_MAX)
/* What one row of a walk may take: a key, its parent's, and all labels, with room for bookkeeping. */
#define WALK_ARENA_BYTES        (4 * LABELS_MAX_BYTES)

struct metastore {
	struct db *db;
	atomic_uint_fast64_t next_id;
};

#define COLUMNS                                                                                    \
	"s.id, s.key, p.key, s.parent_id, s.kind, s.created_ns, s.updated_ns, s.size_bytes, "      \
	"s.inodes, s.labels "
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

/* The text at *@pos, which ends before @end. Return: NULL when it does not. */
static const char *next_text(const char **pos, const char *end)
{
	const char *text = *pos, *nul = memchr(text, '\0', (size_t)(end - text));

	if (!nul)
		return NULL;
	*pos = nul + 1;
	return text;
}

static int damaged_labels(struct db_stmt *stmt, struct err *err)
{
	return err_set(err, ERR_DATA_LOSS, "labels of snapshot '%s' are damaged",
		       db_column_text(stmt, 1));
}

/* The labels in column @i, as bind_labels() makes them. What is beyond our caps nobody has been let write. */
static int read_labels(struct db_stmt *stmt, int i, struct arena *arena, struct strmap *ret_labels,
		       struct err *err)
{
	size_t size;
	const void *packed = db_column_blob(stmt, i, &size);
	const char *pos, *end, *key, *value;
	struct strmap labels = {0};

	if (!size)
		return 0;
	if (size > PACKED_LABELS_MAX_BYTES)
		return damaged_labels(stmt, err);
	pos = arena_memdup(arena, packed, size);
	if (!pos)
		return ctx_no_memory(err);
	for (end = pos + size; pos < end;) {
		key = next_text(&pos, end);
		value = key ? next_text(&pos, end) : NULL;
		if (!value || labels.n == LABELS_MAX)
			return damaged_labels(stmt, err);
		if (strmap_append(&labels, arena, key, value, err) < 0)
			return -1;
	}
	*ret_labels = labels;
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
	    copy_text(arena, db_column_text(stmt, 2), &record.info.parent, err) < 0 ||
	    read_labels(stmt, 9, arena, &record.info.labels, err) < 0)
		return -1;
	*ret_record = record;
	return 0;
}

/* Return: 1 with a row of @key, 0 without, -1. */
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

static char *add_text(char *to, const char *text)
{
	size_t size = strlen(text) + 1;

	memcpy(to, text, size);
	return to + size;
}

/* Binds @labels, without those that have an empty value, as a blob in @arena. */
static int bind_labels(struct db_stmt *stmt, int i, struct arena *arena,
		       const struct strmap *labels, struct err *err)
{
	char *packed = NULL, *end;
	size_t size = 0;

	for (size_t k = 0; k < labels->n; k++)
		size += strlen(labels->entries[k].key) + strlen(labels->entries[k].value) + 2;
	if (size) {
		packed = arena_alloc(arena, size);
		if (!packed)
			return ctx_no_memory(err);
	}
	end = packed;
	for (size_t k = 0; k < labels->n; k++) {
		if (labels->entries[k].value[0] == '\0')
			continue;
		end = add_text(end, labels->entries[k].key);
		end = add_text(end, labels->entries[k].value);
	}
	db_bind_blob(stmt, i, packed, (size_t)(end - packed));
	return 0;
}

/* --- opening ------------------------------------------------------------------------------------- */

static int read_last_id(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT last_id FROM ids";
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

	if (find_existing(conn, get->arena, get->key, &get->record, err) < 0)
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

/* A parent must be there, and be committed. */
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

/*
 * The row was refused: why?
 * Return: 1 when the parent is another row now, or -1.
 */
static int explain_create(struct db_conn *conn, struct metastore_change *change, struct err *err)
{
	const struct metastore_new *row = &change->create;
	struct record parent = {0}, taken;
	int found = find(conn, change->arena, row->req->key, &taken, err);

	if (found < 0)
		return -1;
	if (found)
		return already_exists(row->req->key, err);
	if (row->req->parent[0] != '\0' && check_parent(conn, change->arena, row->req->parent,
							ERR_INVALID_ARGUMENT, &parent, err) < 0)
		return -1;
	if (parent.info.id != row->parent_id)
		return 1;
	return err_set(err, ERR_INTERNAL, "snapshot '%s' cannot be added", row->req->key);
}

/* After this, and a restart, @id is not given out again. Hardly ever is there anything to change. */
static int note_id(struct db_conn *conn, uint64_t id, struct err *err)
{
	static const char sql[] = "UPDATE ids SET last_id = ?1 + ?2 WHERE last_id < ?1";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)id);
	db_bind_int(stmt, 2, IDS_AT_A_TIME);
	return run(stmt, err);
}

/* Most requests keep the rules, and then the one statement is enough to know. */
static int create_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"INSERT INTO snapshots (id, key, parent_id, kind, created_ns, updated_ns, labels) "
		"SELECT ?1, ?2, ?3, ?4, ?5, ?5, ?8 WHERE ?3 IS NULL OR EXISTS "
		"(SELECT 1 FROM snapshots WHERE id = ?3 AND key = ?6 AND kind = ?7)";
	struct metastore_change *change = arg;
	const struct metastore_new *row = &change->create;
	struct db_stmt *stmt;

	if (note_id(conn, row->id, err) < 0 || db_prepare(conn, sql, &stmt, err) < 0 ||
	    bind_labels(stmt, 8, change->arena, &row->req->labels, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)row->id);
	db_bind_text(stmt, 2, row->req->key);
	if (row->req->parent[0] != '\0')
		db_bind_int(stmt, 3, (int64_t)row->parent_id);
	else
		db_bind_null(stmt, 3);
	db_bind_int(stmt, 4, row->kind);
	db_bind_int(stmt, 5, change->now_ns);
	db_bind_text(stmt, 6, row->req->parent);
	db_bind_int(stmt, 7, SNAPSHOT_COMMITTED);
	if (run(stmt, err) < 0)
		return err->code == ERR_ABORTED ? explain_create(conn, change, err) : -1;
	return db_n_changed(conn) == 0 ? explain_create(conn, change, err) : 0;
}

static void begin(struct metastore_change *change, struct ctx *ctx, db_write_fn fn)
{
	change->arena = ctx->arena;
	change->now_ns = realtime_ns();
	change->job.fn = fn;
	change->job.arg = change;
}

bool metastore_submit_create(struct metastore *store, struct ctx *ctx,
			     const struct metastore_new *new_snapshot,
			     struct metastore_change *change)
{
	begin(change, ctx, create_row);
	change->create = *new_snapshot;
	return db_submit(store->db, &change->job);
}

void metastore_lead(struct metastore *store)
{
	db_lead(store->db);
}

/* --- commit -------------------------------------------------------------------------------------- */

/* The parent that a layer gets which was unpacked before it had one (containerd 2.2, "rebase"). */
static int settle_parent(struct db_conn *conn, struct metastore_change *change,
			 const struct record *active, uint64_t *ret_parent_id, struct err *err)
{
	const char *wanted = change->commit.req->parent;
	struct record parent;

	*ret_parent_id = active->parent_id;
	if (wanted[0] == '\0' || strcmp(wanted, active->info.parent) == 0)
		return 0;
	if (active->parent_id)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "snapshot '%s' has the parent '%s', not '%s'", active->info.name,
			       active->info.parent, wanted);
	if (check_parent(conn, change->arena, wanted, ERR_FAILED_PRECONDITION, &parent, err) < 0)
		return -1;
	*ret_parent_id = parent.info.id;
	return 0;
}

/*
 * All the rules of a commit, one by one. Most commits keep them, give no parent, and another name: then the one
 * statement that changes the row is enough to know.
 * Return: 0 with the parent that the row gets; 1 when the key is another row now; or -1.
 */
static int check_commit(struct db_conn *conn, struct metastore_change *change,
			uint64_t *ret_parent_id, struct err *err)
{
	const struct commit_req *req = change->commit.req;
	struct record active, taken;
	int found;

	if (find_existing(conn, change->arena, req->key, &active, err) < 0)
		return -1;
	if (active.info.kind != SNAPSHOT_ACTIVE)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "snapshot '%s' is %s, not active: failed precondition",
			       active.info.name,
			       active.info.kind == SNAPSHOT_VIEW ? "a view" : "committed");
	found = find(conn, change->arena, req->name, &taken, err);
	if (found < 0)
		return -1;
	if (found)
		return already_exists(req->name, err);
	if (settle_parent(conn, change, &active, ret_parent_id, err) < 0)
		return -1;
	return active.info.id != change->commit.id ? 1 : 0;
}

static int explain_commit(struct db_conn *conn, struct metastore_change *change, struct err *err)
{
	uint64_t parent_id;
	int result = check_commit(conn, change, &parent_id, err);

	if (result != 0)
		return result;
	return err_set(err, ERR_INTERNAL, "snapshot '%s' cannot be changed",
		       change->commit.req->key);
}

static int commit_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"UPDATE snapshots SET key = ?2, kind = ?3, parent_id = coalesce(?4, parent_id), "
		"created_ns = ?5, updated_ns = ?5, size_bytes = ?6, inodes = ?7, labels = ?10 "
		"WHERE id = ?1 AND key = ?8 AND kind = ?9";
	struct metastore_change *change = arg;
	const struct commit_req *req = change->commit.req;
	uint64_t parent_id = 0;
	struct db_stmt *stmt;
	int result;

	if (req->parent[0] != '\0' || strcmp(req->name, req->key) == 0) {
		result = check_commit(conn, change, &parent_id, err);
		if (result != 0)
			return result;
	}
	if (db_prepare(conn, sql, &stmt, err) < 0 ||
	    bind_labels(stmt, 10, change->arena, &req->labels, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)change->commit.id);
	db_bind_text(stmt, 2, req->name);
	db_bind_int(stmt, 3, SNAPSHOT_COMMITTED);
	if (parent_id)
		db_bind_int(stmt, 4, (int64_t)parent_id);
	else
		db_bind_null(stmt, 4);
	db_bind_int(stmt, 5, change->now_ns);
	db_bind_int(stmt, 6, (int64_t)change->commit.usage.size_bytes);
	db_bind_int(stmt, 7, (int64_t)change->commit.usage.inodes);
	db_bind_text(stmt, 8, req->key);
	db_bind_int(stmt, 9, SNAPSHOT_ACTIVE);
	if (run(stmt, err) < 0)
		return err->code == ERR_ABORTED ? explain_commit(conn, change, err) : -1;
	return db_n_changed(conn) == 0 ? explain_commit(conn, change, err) : 0;
}

bool metastore_submit_commit(struct metastore *store, struct ctx *ctx, const struct commit_req *req,
			     uint64_t id, const struct usage *usage,
			     struct metastore_change *change)
{
	begin(change, ctx, commit_row);
	change->commit.req = req;
	change->commit.id = id;
	change->commit.usage = *usage;
	return db_submit(store->db, &change->job);
}

/* --- remove -------------------------------------------------------------------------------------- */

/* Nothing was removed, as @err says for now: why? */
static int explain_removal(struct db_conn *conn, struct metastore_change *change, struct err *err)
{
	static const char sql[] = "SELECT key FROM snapshots WHERE parent_id = ?1 LIMIT 1";
	struct record record;
	struct db_stmt *stmt;

	if (find_existing(conn, change->arena, change->key, &record, err) < 0 ||
	    db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)record.info.id);
	if (db_step(stmt, err) == 1)
		return err_set(
			err, ERR_FAILED_PRECONDITION,
			"cannot remove snapshot '%s': '%s' stands on it: failed precondition",
			change->key, db_column_text(stmt, 0));
	return -1;
}

/* The foreign key keeps what something stands on. */
static int remove_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "DELETE FROM snapshots WHERE key = ?1 RETURNING id";
	struct metastore_change *change = arg;
	struct db_stmt *stmt;
	int row;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_text(stmt, 1, change->key);
	row = db_step(stmt, err);
	if (row == 1) {
		change->removed_id = (uint64_t)db_column_int(stmt, 0);
		return db_step(stmt, err) == 0 ? 0 : -1;
	}
	if (row == 0)
		return not_found(change->key, err);
	return err->code == ERR_ABORTED ? explain_removal(conn, change, err) : -1;
}

static void begin_remove(struct ctx *ctx, const char *key, struct metastore_change *change)
{
	begin(change, ctx, remove_row);
	change->key = key;
}

int metastore_remove(struct metastore *store, struct ctx *ctx, const char *key, uint64_t *ret_id,
		     struct err *err)
{
	struct metastore_change change = {0};

	begin_remove(ctx, key, &change);
	if (db_write(store->db, change.job.fn, change.job.arg, NULL, NULL, err) < 0)
		return -1;
	*ret_id = change.removed_id;
	return 0;
}

bool metastore_submit_remove(struct metastore *store, struct ctx *ctx, const char *key,
			     struct metastore_change *change)
{
	begin_remove(ctx, key, change);
	return db_submit(store->db, &change->job);
}

/* --- update -------------------------------------------------------------------------------------- */

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

static bool replaces_all(const struct update_req *req)
{
	for (size_t i = 0; i < req->n_paths; i++)
		if (strcmp(req->paths[i], "labels") == 0)
			return true;
	return req->n_paths == 0;
}

/* @labels: those that the snapshot has, and is to have. */
static int change_labels(const struct update_req *req, struct arena *arena, struct strmap *labels,
			 struct err *err)
{
	/* All values come from the one request: beside "labels" single ones change nothing more. */
	if (replaces_all(req)) {
		*labels = (struct strmap){0};
		for (size_t i = 0; i < req->labels.n; i++) {
			const struct strmap_entry *entry = &req->labels.entries[i];

			if (entry->value[0] != '\0' &&
			    strmap_append(labels, arena, entry->key, entry->value, err) < 0)
				return -1;
		}
		return 0;
	}
	for (size_t i = 0; i < req->n_paths; i++) {
		const char *name = req->paths[i] + strlen(LABEL_PATH);
		const char *value = strmap_get(&req->labels, name);

		if (!value || value[0] == '\0')
			strmap_unset(labels, name);
		else if (strmap_set(labels, arena, name, value, err) < 0)
			return -1;
	}
	return 0;
}

static int update_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "UPDATE snapshots SET updated_ns = ?2, labels = ?3 WHERE id = ?1";
	struct metastore_change *change = arg;
	const struct update_req *req = change->update_req;
	struct record record = {0};
	struct db_stmt *stmt;

	if (find_existing(conn, change->arena, req->name, &record, err) < 0 ||
	    change_labels(req, change->arena, &record.info.labels, err) < 0 ||
	    labels_check(&record.info.labels, err) < 0)
		return -1;
	if (db_prepare(conn, sql, &stmt, err) < 0 ||
	    bind_labels(stmt, 3, change->arena, &record.info.labels, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)record.info.id);
	db_bind_int(stmt, 2, change->now_ns);
	if (run(stmt, err) < 0)
		return -1;
	record.info.updated_ns = change->now_ns;
	change->info = record.info;
	return 0;
}

int metastore_submit_update(struct metastore *store, struct ctx *ctx, const struct update_req *req,
			    struct metastore_change *change, struct err *err)
{
	if (check_paths(req, err) < 0)
		return -1;
	begin(change, ctx, update_row);
	change->update_req = req;
	return db_submit(store->db, &change->job);
}

/* --- walk ---------------------------------------------------------------------------------------- */

struct walk {
	struct ctx *ctx;
	const struct filters *filters;
	uint64_t after_id;
	snapshot_walk_fn fn;
	void *arg;
};

static int walk_rows(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT " COLUMNS FROM "WHERE s.id > ?1 ORDER BY s.id";
	struct walk *walk = arg;
	int has_row, result = 0;
	struct record record;
	struct db_stmt *stmt;
	struct arena arena;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, (int64_t)walk->after_id);
	arena_init(&arena, WALK_ARENA_BYTES);
	while (result == 0 && (has_row = db_step(stmt, err)) != 0) {
		result = -1;
		if (has_row == 1 && ctx_check(walk->ctx, err) == 0 &&
		    read_columns(stmt, &arena, &record, err) == 0)
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
