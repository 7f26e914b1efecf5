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
