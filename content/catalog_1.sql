-- SPDX-License-Identifier: Apache-2.0
-- Version 1 of the catalog: what the documents among the blobs say. Other processes read it: by catalog_reader.h, or
-- by themselves if they look at application_id (0x6c746363, "ltcc") and user_version (1).
--
-- A digest is one byte that names the algorithm (1: sha256, 2: sha512), then its bytes. Annotations are a JSON object
-- whose members are strings. All of it can be made anew from the blobs.

-- Blobs that begin as a JSON object does.
CREATE TABLE documents (
	id INTEGER PRIMARY KEY, -- a later one has a higher one
	digest BLOB UNIQUE NOT NULL,
	kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 3), -- 0: of no interest; 1: index; 2: manifest; 3: configuration
	media_type TEXT, -- as the document says itself
	artifact_type TEXT,
	annotations TEXT,
	n_layers INTEGER NOT NULL -- of a manifest: layers that are unpacked; of a configuration: diff IDs
);

-- What indexes and manifests point at.
CREATE TABLE descriptors (
	document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
	position INTEGER NOT NULL, -- from 0, as in "manifests" or "layers"; -1: the manifest's "config"
	layer_index INTEGER, -- from 0 among the manifest's layers that are unpacked; else NULL
	digest BLOB NOT NULL,
	media_type TEXT NOT NULL,
	size_bytes INTEGER NOT NULL,
	artifact_type TEXT,
	annotations TEXT,
	PRIMARY KEY (document, position)
) WITHOUT ROWID;
CREATE INDEX descriptors_by_digest ON descriptors (digest);

-- The layers of configurations. Those of a manifest are these only if its n_layers is the same.
CREATE TABLE chains (
	document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
	position INTEGER NOT NULL, -- from 0
	diff_id BLOB NOT NULL,
	chain_id BLOB NOT NULL,
	PRIMARY KEY (document, position)
) WITHOUT ROWID;
CREATE INDEX chains_by_chain_id ON chains (chain_id);

-- One row. complete: 0 while blobs are still to be looked at, after a start or a failure.
CREATE TABLE state (
	id INTEGER PRIMARY KEY CHECK (id = 0),
	complete INTEGER NOT NULL
);
INSERT INTO state VALUES (0, 0);
