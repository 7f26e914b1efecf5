/* SPDX-License-Identifier: Apache-2.0 */
/*
 * THE contract of a snapshotter backend, and the only page its author must read.
 *
 * Lifecycle: open() once, then any of the others from many threads at once, then close() when no call is
 * under way. close() may be called in any state that open() can leave, and kill -9 may come instead.
 *
 * Ownership: arguments are borrowed for the call; results are made in ctx->arena (borrowed pointers to
 * what lives longer than the call are fine too).
 *
 * Errors (containerd acts on the code; contract of its storage package):
 *	NOT_FOUND		the key, or the parent given, is unknown
 *	ALREADY_EXISTS		the key or name is taken, in any kind
 *	INVALID_ARGUMENT	the parent is not committed; a mask path other than labels[.KEY];
 *				commit with a parent that differs from the active one's
 *	FAILED_PRECONDITION	commit of what is not active; mounts of a committed one; removal of one with
 *				children (its message contains the word "remove"); commit with a parent that
 *				is not committed
 *	UNIMPLEMENTED		cleanup, where it is not offered
 * A refused call leaves no trace. A call that has returned 0 survives a power cut.
 */
#ifndef LIGHTER_SNAPSHOTTERS_SNAPSHOTTER_H
#define LIGHTER_SNAPSHOTTERS_SNAPSHOTTER_H

#include "base/conf.h"
#include "base/ctx.h"
#include "base/err.h"
#include "snapshotters/snapshot.h"

/** snapshot_walk_fn - told one snapshot; @info is gone when it returns. Return: 0 to go on, 1 to stop, -1 to fail. */
typedef int (*snapshot_walk_fn)(void *arg, const struct info *info, struct err *err);

/** enum snapshot_change_kind - the calls that change something, and which members of a change they use */
enum snapshot_change_kind {
	CHANGE_PREPARE, /* create -> mounts */
	CHANGE_VIEW, /* create -> mounts */
	CHANGE_COMMIT, /* commit */
	CHANGE_REMOVE, /* key */
	CHANGE_UPDATE, /* update -> info */
};

/**
 * struct snapshot_change - one of these calls, of a caller who does not wait for its end
 * @kind, @ctx, and the request that belongs to @kind: from the caller, and left as they are until the end
 * @mounts, @info, @result, @err: what the function that waits would have given
 * @done: called once when begin() has said so, on any thread, maybe before begin() returns. It must not wait.
 */
struct snapshot_change {
	enum snapshot_change_kind kind;
	struct ctx *ctx;
	const struct snapshot_req *create;
	const struct commit_req *commit;
	const char *key;
	const struct update_req *update;

	struct mounts mounts;
	struct info info;
	int result;
	struct err err;

	void (*done)(struct snapshot_change *change);
};

/**
 * enum change_begun - what begin() answers
 * @CHANGE_ENDED: it is over already; done() is not called
 * @CHANGE_PENDING: done() will be called
 * @CHANGE_LEADS: likewise, but only once somebody calls lead(), on a thread that may wait; the sooner the better
 * @CHANGE_WOULD_WAIT: nothing was done, as it would have to wait: try again with @may_wait
 */
enum change_begun { CHANGE_ENDED, CHANGE_PENDING, CHANGE_LEADS, CHANGE_WOULD_WAIT };

/* More than containerd knows. */
#define SNAPSHOTTER_CAPABILITIES_MAX 8

/**
 * struct snapshotter_ops - one entry per RPC of containerd.services.snapshots.v1, in proto order
 * @name: "overlay": names socket, configuration table, log lines and metrics
 * @summary: what the daemon is, one line for --help
 * @options: rows of the configuration table [NAME]; the target is a zeroed block of @conf_size bytes
 *
 * @capabilities: NULL, or what a client may be told that this backend can do at @root under @conf, for the list
 *        "capabilities" of its [proxy_plugins] entry ("remap-ids", ...). May look at the machine; changes
 *        nothing of it. Constant strings. Return: how many of @ret_names are set.
 * @check: NULL, or refuse a @conf or the path @root that open() cannot work with. Changes nothing of the machine,
 *        where @root may not exist yet; what cannot be found out with the rights that there are is let pass.
 * @open: make or take up the state below @root, which exists, is ours alone and locked. @conf: the target of
 *        @options, valid until close(). Recovery belongs here; what takes long is left to a thread.
 * @prepare, @view: a new active or view snapshot on @req->parent ("" or committed) and its mounts
 * @mounts: what prepare gave; after a restart too
 * @commit: the active @req->key becomes the committed @req->name with the labels of the request
 * @remove: forget a snapshot without children; its space may be freed later
 * @stat: one snapshot
 * @update: change labels; answers the new state
 * @walk: call @fn for every snapshot with id > @after_id that passes @filters, ascending by id. What is changed
 *        by others meanwhile is seen entirely or not at all. Return: 0 at the end, 1 when @fn stopped it.
 * @usage: disk usage of one snapshot alone; honours cancellation
 * @cleanup: free what remove left; NULL: UNIMPLEMENTED
 * @begin: NULL; or prepare, view, commit, remove and update once more, for callers who do not wait: many calls then
 *         end by one commit to the disk, and no thread waits for each. Outcomes are the same.
 * @lead: carry through what was begun; with @begin
 */
struct snapshotter_ops {
	const char *name;
	const char *summary;
	const struct conf_option *options;
	size_t conf_size;

	size_t (*capabilities)(const char *root, const void *conf,
			       const char *ret_names[SNAPSHOTTER_CAPABILITIES_MAX]);
	int (*check)(const char *root, const void *conf, struct err *err);
	int (*open)(const char *root, const void *conf, void **ret_self, struct err *err);
	void (*close)(void *self); /* accepts NULL */
	int (*prepare)(void *self, struct ctx *ctx, const struct snapshot_req *req,
		       struct mounts *ret_mounts, struct err *err);
	int (*view)(void *self, struct ctx *ctx, const struct snapshot_req *req,
		    struct mounts *ret_mounts, struct err *err);
	int (*mounts)(void *self, struct ctx *ctx, const char *key, struct mounts *ret_mounts,
		      struct err *err);
	int (*commit)(void *self, struct ctx *ctx, const struct commit_req *req, struct err *err);
	int (*remove)(void *self, struct ctx *ctx, const char *key, struct err *err);
	int (*stat)(void *self, struct ctx *ctx, const char *key, struct info *ret_info,
		    struct err *err);
	int (*update)(void *self, struct ctx *ctx, const struct update_req *req,
		      struct info *ret_info, struct err *err);
	int (*walk)(void *self, struct ctx *ctx, const struct filters *filters, uint64_t after_id,
		    snapshot_walk_fn fn, void *arg, struct err *err);
	int (*usage)(void *self, struct ctx *ctx, const char *key, struct usage *ret_usage,
		     struct err *err);
	int (*cleanup)(void *self, struct ctx *ctx, struct err *err);
	enum change_begun (*begin)(void *self, struct snapshot_change *change, bool may_wait);
	void (*lead)(void *self);
};

/**
 * snapshot_change_wait() - begin() @change, lead() if need be, and wait for its end
 * Return: change->result, with @err filled from it.
 */
ERR_CHECKED int snapshot_change_wait(const struct snapshotter_ops *ops, void *self,
				     struct snapshot_change *change, struct err *err);

#endif
