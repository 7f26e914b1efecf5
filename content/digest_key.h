/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A digest as our databases have it: one byte that names the algorithm (enum digest_algorithm), then its bytes.
 */
#ifndef LIGHTER_CONTENT_DIGEST_KEY_H
#define LIGHTER_CONTENT_DIGEST_KEY_H

#include "base/db.h"
#include "base/digest.h"

#define DIGEST_KEY_MAX_BYTES (1 + DIGEST_MAX_BYTES)

struct digest_key {
	uint8_t bytes[DIGEST_KEY_MAX_BYTES];
	size_t len;
};

struct digest_key digest_key_of(const struct digest *digest);

/** digest_key_bind() - as value @i; @key is borrowed until the statement is reset */
void digest_key_bind(struct db_stmt *stmt, int i, const struct digest_key *key);

/** digest_key_read() - the digest in column @i of the row. Return: 0, or -1 with ERR_DATA_LOSS. */
ERR_CHECKED int digest_key_read(struct db_stmt *stmt, int i, struct digest *ret_digest,
				struct err *err);

/** digest_key_exists() - has @sql, with @key as ?1, a row? Return: 1, 0 or -1. @sql as for db_prepare(). */
ERR_CHECKED int digest_key_exists(struct db_conn *conn, const char *sql,
				  const struct digest_key *key, struct err *err);

/**
 * struct digest_list - some of the digests of a table, for a db_read_fn
 * @after: of length 0: from the start
 * @digests: room for @max
 */
struct digest_list {
	struct digest_key after;
	struct digest *digests;
	int max;
};

/** digest_list_read() - fill it by @sql, which gets ?1: after, ?2: max. Return: how many; or -1. */
ERR_CHECKED int digest_list_read(struct db_conn *conn, const char *sql,
				 const struct digest_list *list, struct err *err);

#endif
