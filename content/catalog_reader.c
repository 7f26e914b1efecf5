/* SPDX-License-Identifier: Apache-2.0 */
#include "content/catalog_reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/db_follow.h"
#include "base/json.h"
#include "content/catalog_internal.h"
#include "content/digest_key.h"

/* What read_descriptor() reads. */
#define DESCRIPTOR_COLUMNS(table_)                                                                 \
	table_ ".position, " table_ ".layer_index, " table_ ".digest, " table_                     \
	       ".media_type, " table_ ".size_bytes, " table_ ".artifact_type, " table_             \
	       ".annotations"
#define N_DESCRIPTOR_COLUMNS 7

struct catalog_reader {
	struct db_follower *db;
};

int catalog_reader_new(const char *path, struct catalog_reader **ret_reader, struct err *err)
{
	const struct db_follow_options options = {path, CATALOG_APPLICATION_ID, CATALOG_VERSION};
	struct catalog_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the catalog");
	if (db_follower_new(&options, &reader->db, err) < 0) {
		free(reader);
		return -1;
	}
	*ret_reader = reader;
	return 0;
}

void catalog_reader_free(struct catalog_reader *reader)
{
	if (!reader)
		return;
	db_follower_free(reader->db);
	free(reader);
}

static int no_memory(struct err *err)
{
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an answer of the catalog");
}

static int damaged(const char *what, struct err *err)
{
	return err_set(err, ERR_DATA_LOSS, "the catalog holds %s", what);
}

/* --- columns -------------------------------------------------------------------------------------------- */

static int read_text(struct db_stmt *row, int i, struct arena *arena, const char **ret_text,
		     struct err *err)
{
	const char *text = db_column_text(row, i);

	*ret_text = text ? arena_strdup(arena, text) : NULL;
	return text && !*ret_text ? no_memory(err) : 0;
}

/* DESCRIPTOR_COLUMNS, from column @i on. */
static int read_descriptor(struct db_stmt *row, int i, struct arena *arena, int *ret_position,
			   struct oci_descriptor *ret_descriptor, struct err *err)
{
	struct oci_descriptor descriptor = {.layer_index = -1};

	if (!db_column_is_null(row, i + 1))
		descriptor.layer_index = (int)db_column_int(row, i + 1);
	if (digest_key_read(row, i + 2, &descriptor.digest, err) < 0 ||
	    read_text(row, i + 3, arena, &descriptor.media_type, err) < 0 ||
	    read_text(row, i + 5, arena, &descriptor.artifact_type, err) < 0 ||
	    read_text(row, i + 6, arena, &descriptor.annotations, err) < 0)
		return -1;
	if (!descriptor.media_type)
		return damaged("a descriptor without a type", err);
	descriptor.size_bytes = (uint64_t)db_column_int(row, i + 4);
	*ret_position = (int)db_column_int(row, i);
	*ret_descriptor = descriptor;
	return 0;
}

/* --- state ---------------------------------------------------------------------------------------------- */

static int read_state(struct db_conn *conn, void *arg, struct err *err)
{
	struct db_stmt *stmt;

	(void)arg;
	if (db_prepare(conn, "SELECT complete FROM state", &stmt, err) < 0 ||
	    db_step(stmt, err) < 0)
		return -1;
	return db_column_int(stmt, 0) == 1;
}

int catalog_is_complete(struct catalog_reader *reader, struct err *err)
{
	return db_follow(reader->db, read_state, NULL, err);
}

/* --- a document ----------------------------------------------------------------------------------------- */

/**
 * struct lookup - a question, and its answer
 * @key: what is asked for
 */
struct lookup {
	struct digest_key key;
	struct arena *arena;
	struct oci_document *document;
	struct catalog_mention *mentions;
	struct catalog_layer *layers;
	size_t n;
};

/* Return: the number of rows that the SELECT count(*) @sql gives for @id; or -1. */
static int64_t count_rows(struct db_conn *conn, const char *sql, int64_t id, struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	db_bind_int(stmt, 1, id);
	if (db_step(stmt, err) < 0)
		return -1;
	return db_column_int(stmt, 0);
}

static int read_entries(struct db_conn *conn, int64_t id, struct lookup *lookup, struct err *err)
{
	static const char sql[] = "SELECT " DESCRIPTOR_COLUMNS(
		"d") " FROM descriptors d WHERE d.document = ?1 ORDER BY d.position";
	static const char count_sql[] = "SELECT count(*) FROM descriptors WHERE document = ?1";
	struct oci_document *document = lookup->document;
	int64_t n = count_rows(conn, count_sql, id, err);
	struct db_stmt *stmt;
	int row;

	if (n < 0 || db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	document->entries = arena_array(lookup->arena, (size_t)n, sizeof(*document->entries));
	if (!document->entries)
		return no_memory(err);
	db_bind_int(stmt, 1, id);
	while ((row = db_step(stmt, err)) == 1) {
		struct oci_descriptor descriptor;
		int position;

		if (read_descriptor(stmt, 0, lookup->arena, &position, &descriptor, err) < 0)
			return -1;
		if (position == CATALOG_CONFIG_POSITION)
			document->config = descriptor;
		else if ((size_t)position != document->n_entries || position >= n)
			return damaged("gaps", err);
		else
			document->entries[document->n_entries++] = descriptor;
	}
	return row;
}

static int read_chains(struct db_conn *conn, int64_t id, struct lookup *lookup, struct err *err)
{
	static const char sql[] =
		"SELECT diff_id, chain_id FROM chains WHERE document = ?1 ORDER BY position";
	static const char count_sql[] = "SELECT count(*) FROM chains WHERE document = ?1";
	struct oci_document *document = lookup->document;
	int64_t n = count_rows(conn, count_sql, id, err);
	struct db_stmt *stmt;

	if (n < 0 || db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	if ((size_t)n != document->n_layers)
		return damaged("gaps", err);
	document->diff_ids = arena_array(lookup->arena, (size_t)n, sizeof(struct digest));
	document->chain_ids = arena_array(lookup->arena, (size_t)n, sizeof(struct digest));
	if (!document->diff_ids || !document->chain_ids)
		return no_memory(err);
	db_bind_int(stmt, 1, id);
	for (int64_t i = 0; i < n; i++)
		if (db_step(stmt, err) < 0 ||
		    digest_key_read(stmt, 0, &document->diff_ids[i], err) < 0 ||
		    digest_key_read(stmt, 1, &document->chain_ids[i], err) < 0)
			return -1;
	return 0;
}

static int read_document(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT id, kind, media_type, artifact_type, annotations, "
				  "n_layers FROM documents WHERE digest = ?1";
	struct lookup *lookup = arg;
	struct oci_document *document = lookup->document;
	struct db_stmt *stmt;
	int64_t id;
	int row;

	*document = (struct oci_document){0};
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &lookup->key);
	row = db_step(stmt, err);
	if (row <= 0)
		return row < 0 ? -1 : 1;
	id = db_column_int(stmt, 0);
	document->kind = (enum oci_kind)db_column_int(stmt, 1);
	document->n_layers = (size_t)db_column_int(stmt, 5);
	if (read_text(stmt, 2, lookup->arena, &document->media_type, err) < 0 ||
	    read_text(stmt, 3, lookup->arena, &document->artifact_type, err) < 0 ||
	    read_text(stmt, 4, lookup->arena, &document->annotations, err) < 0)
		return -1;
	if (document->kind == OCI_OTHER)
		return 0;
	return document->kind == OCI_CONFIG ? read_chains(conn, id, lookup, err)
					    : read_entries(conn, id, lookup, err);
}

int catalog_document(struct catalog_reader *reader, const struct digest *digest,
		     struct arena *arena, struct oci_document *ret_document, struct err *err)
{
	struct oci_document document;
	struct lookup lookup = {.key = digest_key_of(digest),
				.arena = arena,
				.document = &document};
	int r = db_follow(reader->db, read_document, &lookup, err);

	if (r == 0)
		*ret_document = document;
	return r;
}

/* --- mentions, chains ------------------------------------------------------------------------------------ */

static int read_mentions(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT " DESCRIPTOR_COLUMNS(
		"d") ", o.digest, o.kind FROM descriptors d "
		     "JOIN documents o ON o.id = d.document "
		     "WHERE d.digest = ?1 ORDER BY d.document DESC LIMIT ?2";
	struct lookup *lookup = arg;
	struct db_stmt *stmt;
	int row;

	lookup->n = 0;
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &lookup->key);
	db_bind_int(stmt, 2, CATALOG_ANSWERS_MAX);
	while ((row = db_step(stmt, err)) == 1 && lookup->n < CATALOG_ANSWERS_MAX) {
		struct catalog_mention *mention = &lookup->mentions[lookup->n++];

		if (read_descriptor(stmt, 0, lookup->arena, &mention->position,
				    &mention->descriptor, err) < 0 ||
		    digest_key_read(stmt, N_DESCRIPTOR_COLUMNS, &mention->document, err) < 0)
			return -1;
		mention->kind = (enum oci_kind)db_column_int(stmt, N_DESCRIPTOR_COLUMNS + 1);
	}
	if (row < 0)
		return -1;
	return lookup->n == 0;
}

int catalog_mentions(struct catalog_reader *reader, const struct digest *digest,
		     struct arena *arena, struct catalog_mention **ret_mentions, size_t *ret_n,
		     struct err *err)
{
	struct lookup lookup = {.key = digest_key_of(digest), .arena = arena};
	int r;

	lookup.mentions = arena_array(arena, CATALOG_ANSWERS_MAX, sizeof(*lookup.mentions));
	if (!lookup.mentions)
		return no_memory(err);
	r = db_follow(reader->db, read_mentions, &lookup, err);
	if (r == 0) {
		*ret_mentions = lookup.mentions;
		*ret_n = lookup.n;
	}
	return r;
}

/* From the chain to its configuration, to the manifests that name that, to their layer of the same place. */
static int read_layers(struct db_conn *conn, void *arg, struct err *err)
{
	static const char sql[] = "SELECT " DESCRIPTOR_COLUMNS(
		"l") ", m.digest, c.digest, h.diff_id FROM chains h "
		     "JOIN documents c ON c.id = h.document "
		     "JOIN descriptors r ON r.digest = c.digest AND r.position = -1 "
		     "JOIN documents m ON m.id = r.document AND m.n_layers = c.n_layers "
		     "JOIN descriptors l ON l.document = m.id AND l.layer_index = h.position "
		     "WHERE h.chain_id = ?1 ORDER BY m.id DESC LIMIT ?2";
	struct lookup *lookup = arg;
	struct db_stmt *stmt;
	int row;

	lookup->n = 0;
	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &lookup->key);
	db_bind_int(stmt, 2, CATALOG_ANSWERS_MAX);
	while ((row = db_step(stmt, err)) == 1 && lookup->n < CATALOG_ANSWERS_MAX) {
		struct catalog_layer *layer = &lookup->layers[lookup->n++];

		if (read_descriptor(stmt, 0, lookup->arena, &layer->position, &layer->layer, err) <
			    0 ||
		    digest_key_read(stmt, N_DESCRIPTOR_COLUMNS, &layer->manifest, err) < 0 ||
		    digest_key_read(stmt, N_DESCRIPTOR_COLUMNS + 1, &layer->config, err) < 0 ||
		    digest_key_read(stmt, N_DESCRIPTOR_COLUMNS + 2, &layer->diff_id, err) < 0)
			return -1;
	}
	if (row < 0)
		return -1;
	return lookup->n == 0;
}

int catalog_chain(struct catalog_reader *reader, const struct digest *chain_id, struct arena *arena,
		  struct catalog_layer **ret_layers, size_t *ret_n, struct err *err)
{
	struct lookup lookup = {.key = digest_key_of(chain_id), .arena = arena};
	int r;

	lookup.layers = arena_array(arena, CATALOG_ANSWERS_MAX, sizeof(*lookup.layers));
	if (!lookup.layers)
		return no_memory(err);
	r = db_follow(reader->db, read_layers, &lookup, err);
	if (r == 0) {
		*ret_layers = lookup.layers;
		*ret_n = lookup.n;
	}
	return r;
}

/* --- annotations ------------------------------------------------------------------------------------------ */

struct annotations {
	struct strmap map;
	struct arena *arena;
};

static int add_annotation(void *arg, const char *name, const struct json *value, struct err *err)
{
	struct annotations *annotations = arg;
	char *key = arena_strdup(annotations->arena, name), *copy;

	if (!json_string(value))
		return damaged("an annotation that is no text", err);
	copy = arena_strdup(annotations->arena, json_string(value));
	if (!key || !copy)
		return no_memory(err);
	return strmap_append(&annotations->map, annotations->arena, key, copy, err);
}

int catalog_annotations(const char *text, struct arena *arena, struct strmap *ret_annotations,
			struct err *err)
{
	static const struct json_limits limits = {OCI_ANNOTATIONS_MAX, 1, OCI_ANNOTATIONS_MAX};
	struct annotations annotations = {.arena = arena};
	struct json *document;
	int r;

	if (text) {
		if (json_parse(text, strlen(text), &limits, &document, err) < 0)
			return -1;
		r = json_each_member(document, add_annotation, &annotations, err);
		json_free(document);
		if (r < 0)
			return -1;
		strmap_sort(&annotations.map);
	}
	*ret_annotations = annotations.map;
	return 0;
}
