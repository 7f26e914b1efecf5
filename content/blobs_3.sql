-- SPDX-License-Identifier: Apache-2.0
-- Version 3. Does the blob begin as a JSON object does, so that the catalog is to look at it? NULL: nobody has
-- looked; what came with earlier versions.
ALTER TABLE blobs ADD COLUMN is_json INTEGER CHECK (is_json IN (0, 1));
