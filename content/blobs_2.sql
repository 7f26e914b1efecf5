-- SPDX-License-Identifier: Apache-2.0
-- Version 2. The bytes of small blobs whose files have not been synced yet (late_sync.h): with them, one sync of
-- the log makes row and bytes durable. A row whose blob is gone means nothing.
CREATE TABLE unsynced (
	id INTEGER PRIMARY KEY,
	digest BLOB NOT NULL,
	bytes BLOB NOT NULL
);
