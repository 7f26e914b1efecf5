/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of a metastore for tests, which wait for the end of each: submit, lead where that is said, wait.
 */
#ifndef LIGHTER_TESTS_SUPPORT_METASTORE_WAIT_H
#define LIGHTER_TESTS_SUPPORT_METASTORE_WAIT_H

#include "snapshotters/metastore.h"

/* Return: what metastore_submit_*() of the same name tells as the result: 0, 1 where it says so, or -1. */
ERR_CHECKED int metastore_create(struct metastore *store, struct ctx *ctx,
				 const struct metastore_new *new_snapshot, struct err *err);
ERR_CHECKED int metastore_commit(struct metastore *store, struct ctx *ctx,
				 const struct commit_req *req, uint64_t id,
				 const struct usage *usage, struct err *err);
ERR_CHECKED int metastore_update(struct metastore *store, struct ctx *ctx,
				 const struct update_req *req, struct info *ret_info,
				 struct err *err);

#endif
