/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, parents, kinds, labels and usage of snapshots, in sqlite: the truth about what exists. What it
 * does not name is garbage; what it names must exist. Any thread. Error codes are those of snapshotter.h.
 */
#ifndef LIGHTER_SNAPSHOTTERS_METASTORE_H
#define LIGHTER_SNAPSHOTTERS_METASTORE_H

#include "base/ctx.h"
#include "base/db.h"
#include "base/err.h"
#include "snapshotters/snapshot.h"
#include "snapshotters/snapshotter.h"

struct metastore;

/**
 * struct record - one row
 * @parent_id: 0: no parent
 * @usage: as recorded at commit; zero before
 */
struct record {
	struct info info;
	uint64_t parent_id;
	struct usage usage;
};

/** struct chain - ids of a snapshot's ancestors, nearest first */
struct chain {
	uint64_t *ids;
	size_t n;
};

/** metastore_open() - open or make the database file @path */
ERR_CHECKED int metastore_open(const char *path, struct metastore **ret_store, struct err *err);
void metastore_close(struct metastore *store);

/** metastore_is_virgin() - has there never been a snapshot, as far as the database knows? Before ids are reserved. */
bool metastore_is_virgin(struct metastore *store);

/**
 * metastore_reserve_ids() - @n ids that no snapshot has or had, in a row
 * Return: the first. Ids that are not used for a row before the process ends may be given again by the next.
 */
uint64_t metastore_reserve_ids(struct metastore *store, unsigned int n);

/** metastore_skip_ids() - never give out ids up to and including @last (they were seen on disk) */
void metastore_skip_ids(struct metastore *store, uint64_t last);

/** metastore_get() - the row of @key. Its strings are in @ctx->arena. */
ERR_CHECKED int metastore_get(struct metastore *store, struct ctx *ctx, const char *key,
			      struct record *ret_record, struct err *err);

/** metastore_get_chain() - the row of @key and its ancestors, read as of one moment */
ERR_CHECKED int metastore_get_chain(struct metastore *store, struct ctx *ctx, const char *key,
				    struct record *ret_record, struct chain *ret_chain,
				    struct err *err);

/**
 * struct metastore_new - a snapshot to be added
 * @id: from metastore_reserve_ids()
 * @parent_id: committed row that req->parent named when the caller looked, 0 for none
 */
struct metastore_new {
	uint64_t id;
	enum snapshot_kind kind;
	const struct snapshot_req *req;
	uint64_t parent_id;
};

/**
 * struct metastore_change - a change that nobody waits for: durable once it is told of
 * @job: its @done and @err are set by the caller before; @result: 0, -1, or 1 as the change says
 * @removed_id, @info: results of remove and update
 *
 * The rest is the metastore's, zeroed by the caller. Arguments are borrowed until @done.
 */
struct metastore_change {
	struct db_job job;
	uint64_t removed_id;
	struct info info;

	struct arena *arena;
	int64_t now_ns;
	struct metastore_new create;
	struct {
		const struct commit_req *req;
		uint64_t id;
		struct usage usage;
	} commit;
	const char *key;
	const struct update_req *update_req;
};

/*
 * metastore_submit_*() - begin a change, and tell of its end by change->job.done
 * Return: true (1) when somebody must call metastore_lead() soon, on a thread that may wait.
 */

/**
 * metastore_submit_create() - add an active or view snapshot
 * Result 1: the name req->parent no longer means the row @new_snapshot->parent_id.
 */
bool metastore_submit_create(struct metastore *store, struct ctx *ctx,
			     const struct metastore_new *new_snapshot,
			     struct metastore_change *change);

/**
 * metastore_submit_commit() - turn an active snapshot into a committed one
 * @id: the row that req->key named when the caller measured @usage
 * Created and updated are set anew. Labels are those of the request.
 * Result 1: req->key no longer means the row @id.
 */
bool metastore_submit_commit(struct metastore *store, struct ctx *ctx, const struct commit_req *req,
			     uint64_t id, const struct usage *usage,
			     struct metastore_change *change);

/** metastore_submit_remove() - delete the row of @key */
bool metastore_submit_remove(struct metastore *store, struct ctx *ctx, const char *key,
			     struct metastore_change *change);

/**
 * metastore_submit_update() - change labels, set updated
 * Return: also -1 when the request is wrong in itself, and then @done is not called.
 */
ERR_CHECKED int metastore_submit_update(struct metastore *store, struct ctx *ctx,
					const struct update_req *req,
					struct metastore_change *change, struct err *err);

/** metastore_lead() - carry through what has been submitted, and tell */
void metastore_lead(struct metastore *store);

/**
 * metastore_remove() - delete the row of @key and wait until it is gone for good, for who goes on from there
 * @ret_id: the id it had
 */
ERR_CHECKED int metastore_remove(struct metastore *store, struct ctx *ctx, const char *key,
				 uint64_t *ret_id, struct err *err);

/** metastore_walk() - as snapshotter_ops.walk; @fn runs in a read transaction, and must not wait */
ERR_CHECKED int metastore_walk(struct metastore *store, struct ctx *ctx,
			       const struct filters *filters, uint64_t after_id,
			       snapshot_walk_fn fn, void *arg, struct err *err);

/** metastore_ids() - the ids of all rows, ascending; @ret_ids is yours to free() */
ERR_CHECKED int metastore_ids(struct metastore *store, uint64_t **ret_ids, size_t *ret_n,
			      struct err *err);

#endif
