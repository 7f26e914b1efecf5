/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the catalog in step with the blobs: what a document says is in it when its commit is answered, and gone from
 * it when its removal is. At the start, and after a failure, a thread compares the two and makes up for what is
 * missing. Nothing here makes a commit or a removal fail: the catalog can be made anew. Any thread.
 */
#ifndef LIGHTER_CONTENT_CATALOGER_H
#define LIGHTER_CONTENT_CATALOGER_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/digest.h"
#include "base/err.h"

struct cataloger;
struct ingest_source;
struct local;

/** cataloger_may_be_json() - do the bytes begin as a JSON object does? When in doubt, yes. */
bool cataloger_may_be_json(const struct ingest_source *source);

/**
 * cataloger_start() - open the catalog @path, and begin to compare it with the blobs of @store
 *
 * One that is damaged, of another version, or no catalog at all is deleted and made anew.
 */
ERR_CHECKED int cataloger_start(struct local *store, const char *path,
				struct cataloger **ret_cataloger, struct err *err);

/** cataloger_stop() - leave off, wait for that, and close the catalog. Accepts NULL. */
void cataloger_stop(struct cataloger *cataloger);

/**
 * cataloger_learn() - the blob @digest exists now, and may be a document
 * The caller holds off others of the same digest, here and below.
 */
void cataloger_learn(struct cataloger *cataloger, const struct digest *digest,
		     const struct ingest_source *source);

/** cataloger_forget() - the blob @digest exists no more */
void cataloger_forget(struct cataloger *cataloger, const struct digest *digest);

#endif
