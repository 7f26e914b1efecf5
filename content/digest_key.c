/* SPDX-License-Identifier: Apache-2.0 */
#include "content/digest_key.h"

#include <string.h>

struct digest_key digest_key_of(const struct digest *digest)
{
	struct digest_key key = {.len = 1 + digest_size(digest->algorithm)};

	key.bytes[0] = (uint8_t)digest->algorithm;
	memcpy(key.bytes + 1, digest->bytes, key.len - 1);
	return key;
}

void digest_key_bind(struct db_stmt *stmt, int i, const struct digest_key *key)
{
	db_bind_blob(stmt, i, key->bytes, key->len);
}

int digest_key_read(struct db_stmt *stmt, int i, struct digest *ret_digest, struct err *err)
{
	struct digest digest = {0};
	size_t len;
	const uint8_t *bytes = db_column_blob(stmt, i, &len);

	if (len > 1)
		digest.algorithm = (enum digest_algorithm)bytes[0];
	if (len < 2 || digest_size(digest.algorithm) != len - 1)
		return err_set(err, ERR_DATA_LOSS, "the database holds a digest of %zu bytes", len);
	memcpy(digest.bytes, bytes + 1, len - 1);
	*ret_digest = digest;
	return 0;
}

int digest_key_exists(struct db_conn *conn, const char *sql, const struct digest_key *key,
		      struct err *err)
{
	struct db_stmt *stmt;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, key);
	return db_step(stmt, err);
}

int digest_list_read(struct db_conn *conn, const char *sql, const struct digest_list *list,
		     struct err *err)
{
	struct db_stmt *stmt;
	int row, n = 0;

	if (db_prepare(conn, sql, &stmt, err) < 0)
		return -1;
	digest_key_bind(stmt, 1, &list->after);
	db_bind_int(stmt, 2, list->max);
	while ((row = db_step(stmt, err)) == 1 && n < list->max)
		if (digest_key_read(stmt, 0, &list->digests[n++], err) < 0)
			return -1;
	return row < 0 ? -1 : n;
}
