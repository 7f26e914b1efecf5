-- SPDX-License-Identifier: Apache-2.0
-- Version 1. kind: 1 view, 2 active, 3 committed (values of containerd.services.snapshots.v1.Kind).
-- Ids are given out by the metastore and never used twice, so that a directory or a device of an old
-- snapshot is never taken for that of a new one.
CREATE TABLE snapshots (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	key TEXT NOT NULL UNIQUE CHECK (length(key) > 0),
	parent_id INTEGER REFERENCES snapshots (id) ON DELETE RESTRICT,
	kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
	created_ns INTEGER NOT NULL,
	updated_ns INTEGER NOT NULL,
	size_bytes INTEGER NOT NULL DEFAULT 0 CHECK (size_bytes >= 0),
	inodes INTEGER NOT NULL DEFAULT 0 CHECK (inodes >= 0)
);

-- Children of a snapshot: asked for by every removal, and by the foreign key.
CREATE INDEX snapshots_by_parent ON snapshots (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE labels (
	snapshot_id INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL CHECK (length(value) > 0),
	PRIMARY KEY (snapshot_id, name)
) WITHOUT ROWID;
