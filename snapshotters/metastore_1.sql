-- SPDX-License-Identifier: Apache-2.0
-- Version 1. kind: 1 view, 2 active, 3 committed (values of containerd.services.snapshots.v1.Kind).
-- Ids are given out by the metastore and never used twice, so that a directory or a device of an old
-- snapshot is never taken for that of a new one. labels: name NUL value NUL, and so on, by name.
CREATE TABLE snapshots (
	id INTEGER PRIMARY KEY,
	key TEXT NOT NULL UNIQUE CHECK (length(key) > 0),
	parent_id INTEGER REFERENCES snapshots (id) ON DELETE RESTRICT,
	kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
	created_ns INTEGER NOT NULL,
	updated_ns INTEGER NOT NULL,
	size_bytes INTEGER NOT NULL DEFAULT 0 CHECK (size_bytes >= 0),
	inodes INTEGER NOT NULL DEFAULT 0 CHECK (inodes >= 0),
	labels BLOB NOT NULL
);

-- Children of a snapshot: asked for by every removal, and by the foreign key.
CREATE INDEX snapshots_by_parent ON snapshots (parent_id) WHERE parent_id IS NOT NULL;

-- No row has or had an id above last_id. It is raised by many at a time.
CREATE TABLE ids (
	only INTEGER PRIMARY KEY CHECK (only = 1),
	last_id INTEGER NOT NULL
);
INSERT INTO ids (only, last_id) VALUES (1, 0);
