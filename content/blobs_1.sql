-- SPDX-License-Identifier: Apache-2.0
-- Version 1. A digest is one byte that names the algorithm (enum digest_algorithm), then its bytes. Without
-- rowid, a blob takes one page of a commit.
CREATE TABLE blobs (
	digest BLOB PRIMARY KEY NOT NULL CHECK (length(digest) IN (33, 65)),
	size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
	created_ns INTEGER NOT NULL,
	updated_ns INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE labels (
	digest BLOB NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL CHECK (length(value) > 0),
	PRIMARY KEY (digest, name)
) WITHOUT ROWID;
