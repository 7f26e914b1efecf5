/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fake_snapshotter.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "tests/support/test.h"

/* How often a held call looks whether its caller has gone. */
#define HOLD_POLL_NS 10000000
#define WAIT_MAX_NS  (60 * INT64_C(1000000000))

#define SNAPSHOT_ARENA_BYTES (8u << 20)
#define WALK_ARENA_BYTES     (1u << 30)

/* @arena holds the strings of @info, and is replaced with them. */
struct fake_snapshot {
	struct fake_snapshot *next; /* ascending by id */
	struct info info;
	struct arena arena;
	struct usage usage;
};

struct call_state {
	unsigned int n_calls;
	unsigned int n_fail;
	enum err_code fail_code;
	bool is_held;
	unsigned int n_held;
};

struct fake {
	pthread_mutex_t mutex; /* guards all below */
	pthread_cond_t changed;
	struct fake_snapshot *list;
	uint64_t last_id;
	struct call_state calls[FAKE_N_CALLS];
	char *last_ns;
	char *root;
	char *note;
};

/* --- failing and waiting -------------------------------------------------------------------------- */

static void wait_changed(struct fake *fake)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += HOLD_POLL_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_cond_timedwait(&fake->changed, &fake->mutex, &until);
}

/* Every operation begins here, the mutex being held. */
static int enter(struct fake *fake, struct ctx *ctx, enum fake_call call, struct err *err)
{
	struct call_state *state = &fake->calls[call];
	int result = 0;

	state->n_calls++;
	free(fake->last_ns);
	fake->last_ns = strdup(ctx->ns ? ctx->ns : "");
	if (state->is_held) {
		state->n_held++;
		pthread_cond_broadcast(&fake->changed);
		while (state->is_held && result == 0) {
			wait_changed(fake);
			result = ctx_check(ctx, err);
		}
		state->n_held--;
	}
	if (result < 0)
		return -1;
	if (state->n_fail) {
		state->n_fail--;
		return err_set(err, state->fail_code, "failing on request");
	}
	return 0;
}

void fake_fail(void *self, enum fake_call call, enum err_code code, unsigned int n)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	fake->calls[call].fail_code = code;
	fake->calls[call].n_fail = n;
}

void fake_hold(void *self, enum fake_call call)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	fake->calls[call].is_held = true;
}

void fake_release(void *self, enum fake_call call)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	fake->calls[call].is_held = false;
	pthread_cond_broadcast(&fake->changed);
}

void fake_wait_held(void *self, enum fake_call call, unsigned int n)
{
	struct fake *fake = self;
	int64_t until = monotonic_ns() + WAIT_MAX_NS;
	bool is_reached;

	pthread_mutex_lock(&fake->mutex);
	while (fake->calls[call].n_held < n && monotonic_ns() < until)
		wait_changed(fake);
	is_reached = fake->calls[call].n_held >= n;
	pthread_mutex_unlock(&fake->mutex);
	if (!is_reached)
		fail_msg("no %u calls came to be held", n);
}

unsigned int fake_n_calls(void *self, enum fake_call call)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	return fake->calls[call].n_calls;
}

char *fake_last_ns(void *self)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	return strdup(fake->last_ns ? fake->last_ns : "");
}

/* --- the table of snapshots ------------------------------------------------------------------------ */

static struct fake_snapshot *find(struct fake *fake, const char *name)
{
	struct fake_snapshot *s = fake->list;

	while (s && strcmp(s->info.name, name) != 0)
		s = s->next;
	return s;
}

static struct fake_snapshot *find_or_say(struct fake *fake, const char *name, struct err *err)
{
	struct fake_snapshot *s = find(fake, name);

	if (!s)
		err_set(err, ERR_NOT_FOUND, "snapshot '%s' does not exist", name);
	return s;
}

static bool has_children(struct fake *fake, const char *name)
{
	for (struct fake_snapshot *s = fake->list; s; s = s->next) {
		if (strcmp(s->info.parent, name) == 0)
			return true;
	}
	return false;
}

/* Gives @s the strings of @info, which may be its own. */
static int replace_info(struct fake_snapshot *s, const struct info *info, struct err *err)
{
	struct arena arena;
	struct info copy;

	arena_init(&arena, SNAPSHOT_ARENA_BYTES);
	if (info_copy(&arena, info, &copy, err) < 0) {
		arena_done(&arena);
		return -1;
	}
	arena_done(&s->arena);
	s->arena = arena;
	s->info = copy;
	return 0;
}

static void free_snapshot(struct fake_snapshot *s)
{
	arena_done(&s->arena);
	free(s);
}

static int tell_info(struct fake *fake, struct ctx *ctx, const struct fake_snapshot *s,
		     struct info *ret_info, struct err *err)
{
	struct info info;

	if (info_copy(ctx->arena, &s->info, &info, err) < 0)
		return -1;
	if (fake->note[0]) {
		const char *note = arena_strdup(ctx->arena, fake->note);

		if (!note)
			return ctx_no_memory(err);
		if (strmap_set(&info.labels, ctx->arena, FAKE_NOTE_LABEL, note, err) < 0)
			return -1;
	}
	*ret_info = info;
	return 0;
}

/* As overlay would: a bind mount without parents, and otherwise one of overlay. */
static int tell_mounts(struct fake *fake, struct ctx *ctx, const struct fake_snapshot *s,
		       struct mounts *ret_mounts, struct err *err)
{
	struct mount *mount = arena_zalloc(ctx->arena, sizeof(*mount));
	const char *dir =
		arena_printf(ctx->arena, "%s/%llu", fake->root, (unsigned long long)s->info.id);
	bool is_view = s->info.kind == SNAPSHOT_VIEW;

	if (!mount || !dir)
		return ctx_no_memory(err);
	mount->target = "";
	if (!s->info.parent[0]) {
		mount->type = "bind";
		mount->source = dir;
		if (mount_add_option(mount, ctx->arena, is_view ? "ro" : "rw", err) < 0 ||
		    mount_add_option(mount, ctx->arena, "rbind", err) < 0)
			return -1;
	} else {
		const char *upper = arena_printf(ctx->arena, "upperdir=%s/fs", dir);
		const char *lower =
			arena_printf(ctx->arena, "lowerdir=%s/%llu/fs", fake->root,
				     (unsigned long long)find(fake, s->info.parent)->info.id);

		if (!upper || !lower)
			return ctx_no_memory(err);
		mount->type = "overlay";
		mount->source = "overlay";
		if (!is_view && mount_add_option(mount, ctx->arena, upper, err) < 0)
			return -1;
		if (mount_add_option(mount, ctx->arena, lower, err) < 0)
			return -1;
	}
	*ret_mounts = (struct mounts){.items = mount, .n = 1};
	return 0;
}

/* --- the operations --------------------------------------------------------------------------------- */

static void fake_close(void *self)
{
	struct fake *fake = self;

	if (!fake)
		return;
	while (fake->list) {
		struct fake_snapshot *s = fake->list;

		fake->list = s->next;
		free_snapshot(s);
	}
	pthread_cond_destroy(&fake->changed);
	pthread_mutex_destroy(&fake->mutex);
	free(fake->last_ns);
	free(fake->root);
	free(fake->note);
	free(fake);
}

static int fake_open(const char *root, const void *conf_arg, void **ret_self, struct err *err)
{
	const struct fake_conf *conf = conf_arg;
	pthread_condattr_t attr;
	struct fake *fake;

	if (conf && conf->fail_open)
		return err_set(err, ERR_INTERNAL, "failing on request");
	fake = calloc(1, sizeof(*fake));
	if (!fake)
		return err_sys(err, "fake snapshotter");
	pthread_mutex_init(&fake->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&fake->changed, &attr);
	pthread_condattr_destroy(&attr);
	fake->root = strdup(root);
	fake->note = strdup(conf && conf->note ? conf->note : "");
	if (!fake->root || !fake->note) {
		fake_close(fake);
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "fake snapshotter: no memory");
	}
	*ret_self = fake;
	return 0;
}

static int create(struct fake *fake, struct ctx *ctx, const struct snapshot_req *req,
		  enum snapshot_kind kind, struct mounts *ret_mounts, struct err *err)
{
	struct fake_snapshot *s, **link = &fake->list;
	struct info info = {
		.id = fake->last_id + 1,
		.name = req->key,
		.parent = req->parent,
		.kind = kind,
		.labels = req->labels,
	};

	if (req->parent[0]) {
		const struct fake_snapshot *parent = find_or_say(fake, req->parent, err);

		if (!parent)
			return err_wrap(err, "parent");
		if (parent->info.kind != SNAPSHOT_COMMITTED)
			return err_set(err, ERR_INVALID_ARGUMENT, "parent '%s' is not committed",
				       req->parent);
	}
	if (find(fake, req->key))
		return err_set(err, ERR_ALREADY_EXISTS, "snapshot '%s' exists", req->key);

	s = calloc(1, sizeof(*s));
	if (!s)
		return err_sys(err, "snapshot '%s'", req->key);
	info.created_ns = info.updated_ns = realtime_ns();
	if (replace_info(s, &info, err) < 0 || tell_mounts(fake, ctx, s, ret_mounts, err) < 0) {
		free_snapshot(s);
		return -1;
	}
	fake->last_id++;
	while (*link)
		link = &(*link)->next;
	*link = s;
	return 0;
}

static int fake_prepare(void *self, struct ctx *ctx, const struct snapshot_req *req,
			struct mounts *ret_mounts, struct err *err)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_PREPARE, err) < 0)
		return -1;
	return create(fake, ctx, req, SNAPSHOT_ACTIVE, ret_mounts, err);
}

static int fake_view(void *self, struct ctx *ctx, const struct snapshot_req *req,
		     struct mounts *ret_mounts, struct err *err)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_VIEW, err) < 0)
		return -1;
	return create(fake, ctx, req, SNAPSHOT_VIEW, ret_mounts, err);
}

static int fake_mounts(void *self, struct ctx *ctx, const char *key, struct mounts *ret_mounts,
		       struct err *err)
{
	struct fake *fake = self;
	const struct fake_snapshot *s;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_MOUNTS, err) < 0)
		return -1;
	s = find_or_say(fake, key, err);
	if (!s)
		return -1;
	if (s->info.kind == SNAPSHOT_COMMITTED)
		return err_set(err, ERR_FAILED_PRECONDITION, "snapshot '%s' is committed", key);
	return tell_mounts(fake, ctx, s, ret_mounts, err);
}

/* The parent that the committed snapshot will have: the active one's, or the one that commit brings. */
static int commit_parent(struct fake *fake, const struct commit_req *req,
			 const struct fake_snapshot *s, const char **ret_parent, struct err *err)
{
	const struct fake_snapshot *parent;

	if (!req->parent[0]) {
		*ret_parent = s->info.parent;
		return 0;
	}
	if (s->info.parent[0] && strcmp(s->info.parent, req->parent) != 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "its parent is '%s', not '%s'",
			       s->info.parent, req->parent);
	parent = find_or_say(fake, req->parent, err);
	if (!parent)
		return err_wrap(err, "parent");
	if (parent->info.kind != SNAPSHOT_COMMITTED)
		return err_set(err, ERR_FAILED_PRECONDITION, "parent '%s' is not committed",
			       req->parent);
	*ret_parent = req->parent;
	return 0;
}

static int fake_commit(void *self, struct ctx *ctx, const struct commit_req *req, struct err *err)
{
	struct fake *fake = self;
	struct fake_snapshot *s;
	struct info info;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_COMMIT, err) < 0)
		return -1;
	s = find_or_say(fake, req->key, err);
	if (!s)
		return -1;
	if (s->info.kind != SNAPSHOT_ACTIVE)
		return err_set(err, ERR_FAILED_PRECONDITION, "snapshot '%s' is not active",
			       req->key);
	if (find(fake, req->name))
		return err_set(err, ERR_ALREADY_EXISTS, "snapshot '%s' exists", req->name);
	info = (struct info){
		.id = s->info.id,
		.name = req->name,
		.kind = SNAPSHOT_COMMITTED,
		.labels = req->labels,
	};
	if (commit_parent(fake, req, s, &info.parent, err) < 0)
		return -1;
	info.created_ns = info.updated_ns = realtime_ns();
	if (replace_info(s, &info, err) < 0)
		return -1;
	s->usage = (struct usage){.size_bytes = 4096, .inodes = 1};
	return 0;
}

static int fake_remove(void *self, struct ctx *ctx, const char *key, struct err *err)
{
	struct fake *fake = self;
	struct fake_snapshot *s, **link = &fake->list;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_REMOVE, err) < 0)
		return -1;
	s = find_or_say(fake, key, err);
	if (!s)
		return -1;
	if (has_children(fake, key))
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "cannot remove snapshot '%s': it has children", key);
	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	free_snapshot(s);
	return 0;
}

static int fake_stat(void *self, struct ctx *ctx, const char *key, struct info *ret_info,
		     struct err *err)
{
	struct fake *fake = self;
	const struct fake_snapshot *s;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_STAT, err) < 0)
		return -1;
	s = find_or_say(fake, key, err);
	return s ? tell_info(fake, ctx, s, ret_info, err) : -1;
}

/* Applies one path of the mask to @labels, which start as the snapshot's. */
static int apply_path(struct ctx *ctx, const struct update_req *req, const char *path,
		      struct strmap *labels, struct err *err)
{
	static const char prefix[] = "labels.";
	const char *key, *value;

	if (strcmp(path, "labels") == 0) {
		*labels = (struct strmap){0};
		for (size_t i = 0; i < req->labels.n; i++) {
			if (strmap_append(labels, ctx->arena, req->labels.entries[i].key,
					  req->labels.entries[i].value, err) < 0)
				return -1;
		}
		return 0;
	}
	if (strncmp(path, prefix, sizeof(prefix) - 1) != 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "field '%s' cannot be changed", path);
	key = path + sizeof(prefix) - 1;
	value = strmap_get(&req->labels, key);
	if (value)
		return strmap_set(labels, ctx->arena, key, value, err);
	strmap_unset(labels, key);
	return 0;
}

static int fake_update(void *self, struct ctx *ctx, const struct update_req *req,
		       struct info *ret_info, struct err *err)
{
	struct fake *fake = self;
	struct fake_snapshot *s;
	struct info info;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_UPDATE, err) < 0)
		return -1;
	s = find_or_say(fake, req->name, err);
	if (!s || info_copy(ctx->arena, &s->info, &info, err) < 0)
		return -1;
	if (req->n_paths == 0 && apply_path(ctx, req, "labels", &info.labels, err) < 0)
		return -1;
	for (size_t i = 0; i < req->n_paths; i++) {
		if (apply_path(ctx, req, req->paths[i], &info.labels, err) < 0)
			return -1;
	}
	labels_drop_empty(&info.labels);
	info.updated_ns = realtime_ns();
	if (labels_check(&info.labels, err) < 0 || replace_info(s, &info, err) < 0)
		return -1;
	return tell_info(fake, ctx, s, ret_info, err);
}

/*
 * The call back may call us (containerd's suite stats inside a walk), so it is told copies, without the
 * mutex.
 */
static int fake_walk(void *self, struct ctx *ctx, const struct filters *filters, uint64_t after_id,
		     snapshot_walk_fn fn, void *arg, struct err *err)
{
	struct fake *fake = self;
	struct ctx copy_ctx = *ctx;
	struct arena arena;
	struct info *infos;
	size_t n = 0, max = 0;
	int result = 0;

	arena_init(&arena, WALK_ARENA_BYTES);
	copy_ctx.arena = &arena;

	pthread_mutex_lock(&fake->mutex);
	if (enter(fake, ctx, FAKE_WALK, err) < 0) {
		pthread_mutex_unlock(&fake->mutex);
		return -1;
	}
	for (struct fake_snapshot *s = fake->list; s; s = s->next)
		max++;
	infos = arena_array(&arena, max, sizeof(*infos));
	if (!infos)
		result = ctx_no_memory(err);
	for (struct fake_snapshot *s = fake->list; s && result == 0; s = s->next) {
		if (s->info.id <= after_id)
			continue;
		result = tell_info(fake, &copy_ctx, s, &infos[n], err);
		if (result == 0 && snapshot_matches(filters, &infos[n]))
			n++;
	}
	pthread_mutex_unlock(&fake->mutex);

	for (size_t i = 0; i < n && result == 0; i++)
		result = fn(arg, &infos[i], err);
	arena_done(&arena);
	return result;
}

static int fake_usage(void *self, struct ctx *ctx, const char *key, struct usage *ret_usage,
		      struct err *err)
{
	struct fake *fake = self;
	const struct fake_snapshot *s;

	LOCK_GUARD(&fake->mutex);
	if (enter(fake, ctx, FAKE_USAGE, err) < 0)
		return -1;
	s = find_or_say(fake, key, err);
	if (!s)
		return -1;
	if (s->info.kind == SNAPSHOT_ACTIVE)
		*ret_usage = (struct usage){.size_bytes = 4096, .inodes = 1};
	else
		*ret_usage = s->usage;
	return 0;
}

static int fake_cleanup(void *self, struct ctx *ctx, struct err *err)
{
	struct fake *fake = self;

	LOCK_GUARD(&fake->mutex);
	return enter(fake, ctx, FAKE_CLEANUP, err);
}

static const struct conf_option options[] = {
	CONF_BOOL(struct fake_conf, fail_open, "false", "fail when asked to open the root"),
	CONF_STRING(struct fake_conf, note, "\"\"", "TEXT",
		    "text that every snapshot is labelled with"),
	CONF_END,
};

#define FAKE_OPS(cleanup_)                                                                         \
	{                                                                                          \
		.name = "fake", .summary = "snapshots in memory, for tests", .options = options,   \
		.conf_size = sizeof(struct fake_conf), .open = fake_open, .close = fake_close,     \
		.prepare = fake_prepare, .view = fake_view, .mounts = fake_mounts,                 \
		.commit = fake_commit, .remove = fake_remove, .stat = fake_stat,                   \
		.update = fake_update, .walk = fake_walk, .usage = fake_usage,                     \
		.cleanup = (cleanup_),                                                             \
	}

const struct snapshotter_ops fake_snapshotter_ops = FAKE_OPS(fake_cleanup);
const struct snapshotter_ops fake_snapshotter_ops_without_cleanup = FAKE_OPS(NULL);
