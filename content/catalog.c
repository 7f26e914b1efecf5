/* SPDX-License-Identifier: Apache-2.0 */
#include "content/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/db.h"
#include "content/catalog_internal.h"
#include "content/catalog_sql.h"
#include "content/digest_key.h"

/* Who writes looks up little. */
#define N_READERS 2

struct catalog {
	struct db *db;
};

int catalog_open(const char *path, struct catalog **ret_catalog, struct err *err)
{
	const struct db_options options = {
		.path = path,
		.migrations = catalog_migrations,
		.n_migrations = ARRAY_LEN(catalog_migrations),
		.n_readers = N_READERS,
		.application_id = CATALOG_APPLICATION_ID,
		.relaxed = true,
	};
	struct catalog *catalog = calloc(1, sizeof(*catalog));

	_Static_assert(ARRAY_LEN(catalog_migrations) == CATALOG_VERSION, "readers know a version");
	if (!catalog)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the catalog");
	if (db_open(&options, &catalog->db, err) < 0) {
		free(catalog);
		return -1;
	}
	*ret_catalog = catalog;
	return 0;
}

void catalog_close(struct catalog *catalog)
{
	if (!catalog)
		return;
	db_close(catalog->db);
	free(catalog);
}

static int run(struct db_stmt *stmt, struct err *err)
{
	int row = db_step(stmt, err);

	db_reset(stmt);
	return row < 0 ? -1 : 0;
}

static void bind_optional(struct db_stmt *stmt, int i, const char *text)
{
	if (text)
		db_bind_text(stmt, i, text);
	else
		db_bind_null(stmt, i);
}

/* --- putting, dropping ------------------------------------------------------------------------------ */

static int delete_document(struct db_conn *conn, const struct digest_key *key, struct err *err)
{
	static const char sql[] = "DELETE FROM documents WHERE digest = ?1";
	struct db_stmt *stmt;

	/* What it says goes with it, by the foreign keys. */
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	return run(stmt, err);
}

static int insert_document(struct db_conn *conn, const struct digest_key *key,
			   const struct oci_document *document, int64_t *ret_id, struct err *err)
{
	static const char sql[] =
		"INSERT INTO documents (digest, kind, media_type, artifact_type, annotations, "
		"n_layers) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	db_bind_int(stmt, 2, document->kind);
	bind_optional(stmt, 3, document->media_type);
	bind_optional(stmt, 4, document->artifact_type);
	bind_optional(stmt, 5, document->annotations);
	db_bind_int(stmt, 6, (int64_t)document->n_layers);
	if (run(stmt, err) < 0)
		return -1;
	*ret_id = db_last_insert_id(conn);
	return 0;
}

static int insert_descriptor(struct db_conn *conn, int64_t id, int64_t position,
			     const struct oci_descriptor *descriptor, struct err *err)
{
	static const char sql[] =
		"INSERT INTO descriptors (document, position, layer_index, digest, media_type, "
		"size_bytes, artifact_type, annotations) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
	const struct digest_key key = digest_key_of(&descriptor->digest);
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, id);
	db_bind_int(stmt, 2, position);
	if (descriptor->layer_index >= 0)
		db_bind_int(stmt, 3, descriptor->layer_index);
	else
		db_bind_null(stmt, 3);
	digest_key_bind(stmt, 4, &key);
	db_bind_text(stmt, 5, descriptor->media_type);
	db_bind_int(stmt, 6, (int64_t)descriptor->size_bytes);
	bind_optional(stmt, 7, descriptor->artifact_type);
	bind_optional(stmt, 8, descriptor->annotations);
	return run(stmt, err);
}

static int insert_descriptors(struct db_conn *conn, int64_t id, const struct oci_document *document,
			      struct err *err)
{
	if (document->kind == OCI_MANIFEST &&
	    insert_descriptor(conn, id, CATALOG_CONFIG_POSITION, &document->config, err) < 0)
		return -1;
	for (size_t i = 0; i < document->n_entries; i++)
		if (insert_descriptor(conn, id, (int64_t)i, &document->entries[i], err) < 0)
			return -1;
	return 0;
}

static int insert_chains(struct db_conn *conn, int64_t id, const struct oci_document *document,
			 struct err *err)
{
	static const char sql[] = "INSERT INTO chains (document, position, diff_id, chain_id) "
				  "VALUES (?1, ?2, ?3, ?4)";

	for (size_t i = 0; document->kind == OCI_CONFIG && i < document->n_layers; i++) {
		const struct digest_key diff_id = digest_key_of(&document->diff_ids[i]);
		const struct digest_key chain_id = digest_key_of(&document->chain_ids[i]);
		struct db_stmt *stmt;

		if (db_prepare(conn, sql, &stmt, err) < 0)
			return -1;
		db_bind_int(stmt, 1, id);
		db_bind_int(stmt, 2, (int64_t)i);
		digest_key_bind(stmt, 3, &diff_id);
		digest_key_bind(stmt, 4, &chain_id);
		if (run(stmt, err) < 0)
			return -1;
	}
	return 0;
}

struct put {
	struct digest_key key;
	const struct oci_document *document;
};

static int put_rows(struct db_conn *conn, void *arg, struct err *err)
{
	const struct put *put = arg;
	int64_t id;

	if (delete_document(conn, &put->key, err) < 0 ||
	    insert_document(conn, &put->key, put->document, &id, err) < 0 ||
	    insert_descriptors(conn, id, put->document, err) < 0)
		return -1;
	return insert_chains(conn, id, put->document, err);
}

int catalog_put(struct catalog *catalog, const struct digest *digest,
		const struct oci_document *document, struct err *err)
{
	struct put put = {digest_key_of(digest), document};

	return db_write(catalog->db, put_rows, &put, NULL, NULL, err);
}

static int drop_rows(struct db_conn *conn, void *arg, struct err *err)
{
	return delete_document(conn, arg, err);
}

int catalog_drop(struct catalog *catalog, const struct digest *digest, struct err *err)
{
	struct digest_key key = digest_key_of(digest);

	return db_write(catalog->db, drop_rows, &key, NULL, NULL, err);
}

/* --- what has been looked at ---------------------------------------------------------------------------- */

static int find_row(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT 1 FROM documents WHERE digest = ?1";

	return digest_key_exists(conn, sql, arg, err);
}

int catalog_has(struct catalog *catalog, const struct digest *digest, struct err *err)
{
	struct digest_key key = digest_key_of(digest);

	return db_read(catalog->db, find_row, &key, err);
}

static int list_rows(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] =
		"SELECT digest FROM documents WHERE digest > ?1 ORDER BY digest LIMIT ?2";

	return digest_list_read(conn, sql, arg, err);
}

int catalog_list(struct catalog *catalog, const struct digest *after, struct digest *ret_digests,
		 int max, struct err *err)
{
	struct digest_list list = {.digests = ret_digests, .max = max};

	if (after)
		list.after = digest_key_of(after);
	return db_read(catalog->db, list_rows, &list, err);
}

/* --- its state --------------------------------------------------------------------------------------- */

static int set_complete(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "UPDATE state SET complete = ?1 WHERE complete != ?1";
	const bool *complete = arg;
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, *complete);
	return run(stmt, err);
}

int catalog_set_complete(struct catalog *catalog, bool complete, struct err *err)
{
	return db_write(catalog->db, set_complete, &complete, NULL, NULL, err);
}

static int check_rows(struct db_conn *conn, void *arg, struct err *err)
{
	struct db_stmt *stmt;
	const char *text;

	(void)arg;
	if (db_prepare(conn, "PRAGMA quick_check(1)", &stmt, err) < 0 || db_step(stmt, err) < 0)
		return -1;
	text = db_column_text(stmt, 0);
	if (text && strcmp(text, "ok") == 0)
		return 0;
	return err_set(err, ERR_DATA_LOSS, "the catalog is damaged: %.200s", text ? text : "");
}

int catalog_check(struct catalog *catalog, struct err *err)
{
	return db_read(catalog->db, check_rows, NULL, err);
}
