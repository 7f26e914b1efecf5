/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog, as it is written: what the documents among the blobs say, in a database that others read (by
 * catalog_reader.h). It can be made anew from the blobs, so that no write waits for the disk. Any thread.
 */
#ifndef LIGHTER_CONTENT_CATALOG_H
#define LIGHTER_CONTENT_CATALOG_H

#include "base/digest.h"
#include "base/err.h"
#include "content/oci.h"

struct catalog;

/** catalog_open() - open or make the database @path; errors as db_open()'s */
ERR_CHECKED int catalog_open(const char *path, struct catalog **ret_catalog, struct err *err);
void catalog_close(struct catalog *catalog);

/** catalog_put() - what the document @digest says; in place of what was known of it */
ERR_CHECKED int catalog_put(struct catalog *catalog, const struct digest *digest,
			    const struct oci_document *document, struct err *err);

/** catalog_drop() - forget what it said; nothing known of it is no error */
ERR_CHECKED int catalog_drop(struct catalog *catalog, const struct digest *digest, struct err *err);

/** catalog_has() - has it been looked at? Return: 1 or 0; or -1. */
ERR_CHECKED int catalog_has(struct catalog *catalog, const struct digest *digest, struct err *err);

/**
 * catalog_list() - digests of what was looked at, in an order that does not change
 * @after: the last one that is known already; NULL: from the start
 * @ret_digests: room for @max. Return: how many there are, less than @max at the end; or -1.
 */
ERR_CHECKED int catalog_list(struct catalog *catalog, const struct digest *after,
			     struct digest *ret_digests, int max, struct err *err);

/** catalog_set_complete() - tell readers whether all documents have been looked at */
ERR_CHECKED int catalog_set_complete(struct catalog *catalog, bool complete, struct err *err);

/** catalog_check() - read all of it. Return: 0, or -1, with ERR_DATA_LOSS when it is damaged. */
ERR_CHECKED int catalog_check(struct catalog *catalog, struct err *err);

#endif
