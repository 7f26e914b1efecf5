/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/snapshotter_suite.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proxy/snapshotter_proxy.h"
#include "rpc/server.h"
#include "tests/support/snapshot_server.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define CASE_ARENA_BYTES   (256u << 20)
#define WORKER_ARENA_BYTES (64u << 20)
#define N_THREADS          8

/* --- one case's surroundings ----------------------------------------------------------------------- */

/*
 * @self is what the case talks to: the backend itself, or the proxy in front of the server in front of it.
 */
struct fixture {
	const struct snapshotter_suite *suite;
	struct temp_root *root;
	char *state_path;
	char *socket_path;
	const struct snapshotter_ops *ops;
	void *self;
	void *backend;
	struct snapshot_server *server;
	struct arena arena;
	struct ctx ctx;
};

static void open_backend(struct fixture *fx)
{
	const struct snapshotter_suite *suite = fx->suite;
	struct err err = ERR_INIT;

	assert_ok(suite->ops->open(fx->state_path, suite->conf, &fx->backend, &err), &err);
	fx->ops = suite->ops;
	fx->self = fx->backend;
	if (suite->through_socket) {
		const struct snapshotter_proxy_conf conf = {
			.address = fx->socket_path,
			.snapshotter = (char *)"suite",
		};

		fx->server = snapshot_server_start(fx->socket_path, suite->ops, fx->backend, 0);
		fx->ops = &snapshotter_proxy_ops;
		assert_ok(fx->ops->open(fx->state_path, &conf, &fx->self, &err), &err);
	}
}

static void close_backend(struct fixture *fx)
{
	if (fx->suite->through_socket) {
		fx->ops->close(fx->self);
		snapshot_server_stop(fx->server);
		(void)unlink(fx->socket_path);
	}
	fx->suite->ops->close(fx->backend);
	fx->backend = NULL;
	fx->self = NULL;
	fx->server = NULL;
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->suite = *state;
	fx->root = temp_root_new();
	fx->state_path = temp_root_path(fx->root, "state");
	fx->socket_path = temp_root_path(fx->root, "socket");
	assert_int_equal(mkdir(fx->state_path, 0700), 0);
	arena_init(&fx->arena, CASE_ARENA_BYTES);
	fx->ctx = (struct ctx){
		.arena = &fx->arena,
		.deadline_ns = CTX_NO_DEADLINE,
		.ns = "suite",
	};
	open_backend(fx);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	close_backend(fx);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx->state_path);
	free(fx->socket_path);
	free(fx);
	return 0;
}

/* --- calls, with their outcome as a value ------------------------------------------------------------ */

static enum err_code code_of(int result, const struct err *err)
{
	if (result == 0)
		return ERR_OK;
	assert_int_equal(result, -1);
	assert_int_not_equal(err->code, ERR_OK);
	assert_true(err->msg[0] != '\0');
	return err->code;
}

#define assert_code(call, want)                                                                    \
	do {                                                                                       \
		enum err_code got_ = (call);                                                       \
		if (got_ != (want))                                                                \
			fail_msg("%s gave %s, not %s", #call, err_code_name(got_),                 \
				 err_code_name(want));                                             \
	} while (0)

static enum err_code prepare_labelled(struct fixture *fx, const char *key, const char *parent,
				      const struct strmap *labels)
{
	struct snapshot_req req = {.key = key, .parent = parent};
	struct mounts mounts = {0};
	struct err err = ERR_INIT;

	if (labels)
		req.labels = *labels;
	return code_of(fx->ops->prepare(fx->self, &fx->ctx, &req, &mounts, &err), &err);
}

static enum err_code prepare(struct fixture *fx, const char *key, const char *parent)
{
	return prepare_labelled(fx, key, parent, NULL);
}

static enum err_code view(struct fixture *fx, const char *key, const char *parent)
{
	const struct snapshot_req req = {.key = key, .parent = parent};
	struct mounts mounts = {0};
	struct err err = ERR_INIT;

	return code_of(fx->ops->view(fx->self, &fx->ctx, &req, &mounts, &err), &err);
}

static enum err_code commit_on(struct fixture *fx, const char *name, const char *key,
			       const char *parent)
{
	const struct commit_req req = {.name = name, .key = key, .parent = parent};
	struct err err = ERR_INIT;

	return code_of(fx->ops->commit(fx->self, &fx->ctx, &req, &err), &err);
}

static enum err_code commit(struct fixture *fx, const char *name, const char *key)
{
	return commit_on(fx, name, key, "");
}

static enum err_code remove_key(struct fixture *fx, const char *key)
{
	struct err err = ERR_INIT;

	return code_of(fx->ops->remove(fx->self, &fx->ctx, key, &err), &err);
}

static enum err_code get_mounts(struct fixture *fx, const char *key, struct mounts *ret_mounts)
{
	struct err err = ERR_INIT;

	return code_of(fx->ops->mounts(fx->self, &fx->ctx, key, ret_mounts, &err), &err);
}

static enum err_code stat_key(struct fixture *fx, const char *key, struct info *ret_info)
{
	struct info info = {0};
	struct err err = ERR_INIT;
	enum err_code code = code_of(fx->ops->stat(fx->self, &fx->ctx, key, &info, &err), &err);

	if (code == ERR_OK && ret_info)
		*ret_info = info;
	return code;
}

static enum err_code usage_of(struct fixture *fx, const char *key, struct usage *ret_usage)
{
	struct err err = ERR_INIT;

	return code_of(fx->ops->usage(fx->self, &fx->ctx, key, ret_usage, &err), &err);
}

static enum err_code update(struct fixture *fx, const struct update_req *req, struct info *ret_info)
{
	struct err err = ERR_INIT;

	return code_of(fx->ops->update(fx->self, &fx->ctx, req, ret_info, &err), &err);
}

static void make_active(struct fixture *fx, const char *key, const char *parent)
{
	assert_code(prepare(fx, key, parent), ERR_OK);
}

static void make_view(struct fixture *fx, const char *key, const char *parent)
{
	assert_code(view(fx, key, parent), ERR_OK);
}

static void make_committed(struct fixture *fx, const char *name, const char *parent)
{
	make_active(fx, "being committed", parent);
	assert_code(commit(fx, name, "being committed"), ERR_OK);
}

static struct info must_stat(struct fixture *fx, const char *key)
{
	struct info info = {0};

	assert_code(stat_key(fx, key, &info), ERR_OK);
	return info;
}

static void assert_absent(struct fixture *fx, const char *key)
{
	assert_code(stat_key(fx, key, NULL), ERR_NOT_FOUND);
}

static void assert_kind(struct fixture *fx, const char *key, enum snapshot_kind kind,
			const char *parent)
{
	struct info info = must_stat(fx, key);

	assert_string_equal(info.name, key);
	assert_string_equal(info.parent, parent);
	assert_int_equal(info.kind, kind);
}

/* --- labels ------------------------------------------------------------------------------------------ */

/* Labels from "key=value" strings up to a NULL; the first "=" divides. */
static struct strmap labels_from(struct fixture *fx, const char *const *pairs)
{
	struct strmap labels = {0};
	struct err err = ERR_INIT;

	for (; *pairs; pairs++) {
		const char *divider = strchr(*pairs, '=');
		const char *key = arena_memdup(&fx->arena, *pairs, (size_t)(divider - *pairs));

		assert_non_null(key);
		assert_ok(strmap_append(&labels, &fx->arena, key, divider + 1, &err), &err);
	}
	strmap_sort(&labels);
	return labels;
}

#define LABELS(fx, ...) labels_from((fx), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void assert_same_labels(const struct strmap *actual, const struct strmap *expected)
{
	assert_int_equal(actual->n, expected->n);
	for (size_t i = 0; i < actual->n; i++) {
		assert_string_equal(actual->entries[i].key, expected->entries[i].key);
		assert_string_equal(actual->entries[i].value, expected->entries[i].value);
	}
}

/*
 * Backends may add labels of their own to what they tell; the cases speak of those that were given. They
 * look at labels whose key begins with "t." only.
 */
static struct strmap own_labels(struct fixture *fx, const struct strmap *labels)
{
	struct strmap own = {0};
	struct err err = ERR_INIT;

	for (size_t i = 0; i < labels->n; i++) {
		const struct strmap_entry *label = &labels->entries[i];

		if (strncmp(label->key, "t.", 2) == 0)
			assert_ok(strmap_append(&own, &fx->arena, label->key, label->value, &err),
				  &err);
	}
	return own;
}

static void assert_labels(struct fixture *fx, const char *key, struct strmap expected)
{
	struct info info = must_stat(fx, key);
	struct strmap own = own_labels(fx, &info.labels);

	assert_same_labels(&own, &expected);
}

static void assert_same_info(const struct info *a, const struct info *b)
{
	assert_string_equal(a->name, b->name);
	assert_string_equal(a->parent, b->parent);
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->created_ns, b->created_ns);
	assert_int_equal(a->updated_ns, b->updated_ns);
	assert_same_labels(&a->labels, &b->labels);
}

/* --- mounts ------------------------------------------------------------------------------------------ */

static void assert_same_mounts(const struct mounts *a, const struct mounts *b)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		assert_string_equal(a->items[i].type, b->items[i].type);
		assert_string_equal(a->items[i].source, b->items[i].source);
		assert_int_equal(a->items[i].n_options, b->items[i].n_options);
		for (size_t j = 0; j < a->items[i].n_options; j++)
			assert_string_equal(a->items[i].options[j], b->items[i].options[j]);
	}
}

/* The rest of the option that begins with @prefix, or NULL. */
static const char *find_option(const struct mount *mount, const char *prefix)
{
	for (size_t i = 0; i < mount->n_options; i++) {
		if (strncmp(mount->options[i], prefix, strlen(prefix)) == 0)
			return mount->options[i] + strlen(prefix);
	}
	return NULL;
}

static bool has_option(const struct mount *mount, const char *option)
{
	const char *rest = find_option(mount, option);

	return rest && !rest[0];
}

/* As containerd 2.4 decides it: by the last mount. */
static bool is_read_only(const struct mounts *mounts)
{
	const struct mount *last = &mounts->items[mounts->n - 1];

	if (strcmp(last->type, "overlay") == 0)
		return has_option(last, "ro") || !find_option(last, "upperdir=");
	return has_option(last, "ro");
}

static void assert_is_directory(const char *path)
{
	struct stat st;

	assert_int_equal(path[0], '/');
	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		fail_msg("'%s' is not a directory", path);
}

static void assert_mount_is_there(const struct mount *mount)
{
	const char *upper = find_option(mount, "upperdir=");
	const char *work = find_option(mount, "workdir=");
	const char *lower = find_option(mount, "lowerdir=");

	if (strcmp(mount->type, "bind") == 0)
		assert_is_directory(mount->source);
	if (upper)
		assert_is_directory(upper);
	if (work)
		assert_is_directory(work);
	while (lower && *lower) {
		char path[4096];
		size_t len = strcspn(lower, ":");

		assert_true(len < sizeof(path));
		memcpy(path, lower, len);
		path[len] = '\0';
		assert_is_directory(path);
		lower += len + (lower[len] == ':');
	}
}

static struct mounts must_get_mounts(struct fixture *fx, const char *key)
{
	struct mounts mounts = {0};

	assert_code(get_mounts(fx, key, &mounts), ERR_OK);
	assert_true(mounts.n > 0);
	if (fx->suite->has_directories) {
		for (size_t i = 0; i < mounts.n; i++)
			assert_mount_is_there(&mounts.items[i]);
	}
	return mounts;
}

/* --- making ------------------------------------------------------------------------------------------ */

static void prepare_makes_an_active_snapshot(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = LABELS(fx, "t.a=1", "t.b/c.d=x y");
	int64_t before = realtime_ns();
	struct info info;

	assert_code(prepare_labelled(fx, "a", "", &labels), ERR_OK);
	assert_kind(fx, "a", SNAPSHOT_ACTIVE, "");
	assert_labels(fx, "a", labels);
	info = must_stat(fx, "a");
	assert_int_equal(info.created_ns, info.updated_ns);
	assert_true(info.created_ns >= before && info.created_ns <= realtime_ns());
}

static void view_makes_a_view(void **state)
{
	struct fixture *fx = *state;
	struct info info;

	make_committed(fx, "base", "");
	make_view(fx, "v", "base");
	make_view(fx, "empty", "");
	assert_kind(fx, "v", SNAPSHOT_VIEW, "base");
	assert_kind(fx, "empty", SNAPSHOT_VIEW, "");
	info = must_stat(fx, "v");
	assert_int_equal(info.created_ns, info.updated_ns);
}

static void snapshots_name_their_parents(void **state)
{
	struct fixture *fx = *state;

	make_committed(fx, "1", "");
	make_committed(fx, "2", "1");
	make_committed(fx, "3", "2");
	make_active(fx, "top", "3");
	assert_kind(fx, "1", SNAPSHOT_COMMITTED, "");
	assert_kind(fx, "2", SNAPSHOT_COMMITTED, "1");
	assert_kind(fx, "3", SNAPSHOT_COMMITTED, "2");
	assert_kind(fx, "top", SNAPSHOT_ACTIVE, "3");
}

static void keys_are_opaque(void **state)
{
	static const char *const keys[] = {
		"default/1/extract-576612288-yVX_ sha256:305458",
		"../../etc/passwd",
		"..",
		".",
		"/",
		"//",
		"a\nb",
		"a\tb",
		"A",
		"a",
		" a",
		"a ",
		"%s%n",
		"'; drop table snapshots; --",
		"caf\xc3\xa9",
		"cafe\xcc\x81",
		"\xf0\x9f\x9a\xa2",
	};
	struct fixture *fx = *state;
	char longest[SNAPSHOT_KEY_MAX_BYTES + 1];

	memset(longest, 'k', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		make_active(fx, keys[i], "");
	make_active(fx, longest, "");
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_kind(fx, keys[i], SNAPSHOT_ACTIVE, "");
	assert_kind(fx, longest, SNAPSHOT_ACTIVE, "");
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_code(remove_key(fx, keys[i]), ERR_OK);
	assert_code(remove_key(fx, longest), ERR_OK);
}

/* --- mounts ------------------------------------------------------------------------------------------ */

static void mounts_are_what_prepare_gave(void **state)
{
	static const char *const parents[] = {"", "1", "2"};
	struct fixture *fx = *state;

	make_committed(fx, "1", "");
	make_committed(fx, "2", "1");
	for (size_t i = 0; i < ARRAY_LEN(parents); i++) {
		const struct snapshot_req active = {.key = "a", .parent = parents[i]};
		const struct snapshot_req a_view = {.key = "v", .parent = parents[i]};
		struct mounts given = {0}, again;
		struct err err = ERR_INIT;

		assert_ok(fx->ops->prepare(fx->self, &fx->ctx, &active, &given, &err), &err);
		assert_true(given.n > 0);
		assert_false(is_read_only(&given));
		for (int times = 0; times < 2; times++) {
			again = must_get_mounts(fx, "a");
			assert_same_mounts(&again, &given);
		}
		assert_ok(fx->ops->view(fx->self, &fx->ctx, &a_view, &given, &err), &err);
		assert_true(given.n > 0);
		assert_true(is_read_only(&given));
		for (int times = 0; times < 2; times++) {
			again = must_get_mounts(fx, "v");
			assert_same_mounts(&again, &given);
		}
		assert_code(remove_key(fx, "a"), ERR_OK);
		assert_code(remove_key(fx, "v"), ERR_OK);
	}
}

static void committed_snapshots_have_no_mounts(void **state)
{
	struct fixture *fx = *state;
	struct mounts mounts = {0};

	make_committed(fx, "c", "");
	assert_code(get_mounts(fx, "c", &mounts), ERR_FAILED_PRECONDITION);
	assert_int_equal(mounts.n, 0);
}

static void a_chain_of_128_has_mounts(void **state)
{
	struct fixture *fx = *state;
	char names[2][32] = {"", ""};

	for (int i = 0; i < 128; i++) {
		snprintf(names[i % 2], sizeof(names[0]), "layer %d", i);
		make_committed(fx, names[i % 2], i ? names[(i + 1) % 2] : "");
	}
	make_active(fx, "top", "layer 127");
	make_view(fx, "top view", "layer 127");
	(void)must_get_mounts(fx, "top");
	(void)must_get_mounts(fx, "top view");
}

/* --- commit ------------------------------------------------------------------------------------------ */

static void commit_turns_the_active_into_the_committed(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = LABELS(fx, "t.active=1");
	struct commit_req req = {.name = "c", .key = "a", .parent = ""};
	struct err err = ERR_INIT;
	struct info before, after;

	make_committed(fx, "base", "");
	assert_code(prepare_labelled(fx, "a", "base", &labels), ERR_OK);
	before = must_stat(fx, "a");
	req.labels = LABELS(fx, "t.committed=2");
	assert_ok(fx->ops->commit(fx->self, &fx->ctx, &req, &err), &err);

	assert_absent(fx, "a");
	assert_kind(fx, "c", SNAPSHOT_COMMITTED, "base");
	/* Those of the request, and nothing of the active one's. */
	assert_labels(fx, "c", req.labels);
	after = must_stat(fx, "c");
	assert_int_equal(after.created_ns, after.updated_ns);
	assert_true(after.created_ns > before.created_ns);
	assert_true(after.created_ns <= realtime_ns());
}

static void only_active_snapshots_can_be_committed(void **state)
{
	struct fixture *fx = *state;

	make_committed(fx, "c", "");
	make_view(fx, "v", "c");
	assert_code(commit(fx, "x", "v"), ERR_FAILED_PRECONDITION);
	assert_code(commit(fx, "x", "c"), ERR_FAILED_PRECONDITION);
	assert_absent(fx, "x");
	assert_kind(fx, "v", SNAPSHOT_VIEW, "c");
	assert_kind(fx, "c", SNAPSHOT_COMMITTED, "");
}

static void a_commit_may_bring_the_parent(void **state)
{
	struct fixture *fx = *state;

	make_committed(fx, "base", "");
	make_active(fx, "a", "");
	assert_code(commit_on(fx, "c", "a", "base"), ERR_OK);
	assert_kind(fx, "c", SNAPSHOT_COMMITTED, "base");
	assert_code(remove_key(fx, "base"), ERR_FAILED_PRECONDITION);

	make_active(fx, "same", "base");
	assert_code(commit_on(fx, "d", "same", "base"), ERR_OK);
	assert_kind(fx, "d", SNAPSHOT_COMMITTED, "base");

	make_active(fx, "on it", "c");
	(void)must_get_mounts(fx, "on it");
}

static void a_commit_with_a_wrong_parent_is_refused(void **state)
{
	struct fixture *fx = *state;

	make_committed(fx, "base", "");
	make_committed(fx, "other", "");
	make_active(fx, "active", "");
	make_view(fx, "view", "");
	make_active(fx, "a", "base");
	make_active(fx, "free", "");

	assert_code(commit_on(fx, "c", "a", "other"), ERR_INVALID_ARGUMENT);
	assert_code(commit_on(fx, "c", "free", "active"), ERR_FAILED_PRECONDITION);
	assert_code(commit_on(fx, "c", "free", "view"), ERR_FAILED_PRECONDITION);
	assert_code(commit_on(fx, "c", "free", "free"), ERR_FAILED_PRECONDITION);
	assert_code(commit_on(fx, "c", "free", "unknown"), ERR_NOT_FOUND);
	assert_code(commit_on(fx, "c", "free", "c"), ERR_NOT_FOUND);
	assert_absent(fx, "c");
	assert_kind(fx, "a", SNAPSHOT_ACTIVE, "base");
	assert_kind(fx, "free", SNAPSHOT_ACTIVE, "");
}

/* --- refusals ---------------------------------------------------------------------------------------- */

static void unknown_keys_are_not_found(void **state)
{
	struct fixture *fx = *state;
	const struct update_req req = {.name = "unknown"};
	struct mounts mounts = {0};
	struct usage usage = {0};
	struct info info = {0};

	/* In an empty store, and in one that holds something. */
	for (int round = 0; round < 2; round++) {
		assert_code(stat_key(fx, "unknown", NULL), ERR_NOT_FOUND);
		assert_code(get_mounts(fx, "unknown", &mounts), ERR_NOT_FOUND);
		assert_code(usage_of(fx, "unknown", &usage), ERR_NOT_FOUND);
		assert_code(update(fx, &req, &info), ERR_NOT_FOUND);
		assert_code(remove_key(fx, "unknown"), ERR_NOT_FOUND);
		assert_code(commit(fx, "c", "unknown"), ERR_NOT_FOUND);
		assert_code(prepare(fx, "a", "unknown"), ERR_NOT_FOUND);
		assert_code(view(fx, "v", "unknown"), ERR_NOT_FOUND);
		assert_absent(fx, "a");
		assert_absent(fx, "v");
		assert_absent(fx, "c");
		make_committed(fx, round ? "something else" : "something", "");
	}
}

static void parents_must_be_committed(void **state)
{
	struct fixture *fx = *state;

	make_committed(fx, "base", "");
	make_active(fx, "active", "base");
	make_view(fx, "view", "base");
	assert_code(prepare(fx, "a", "active"), ERR_INVALID_ARGUMENT);
	assert_code(prepare(fx, "a", "view"), ERR_INVALID_ARGUMENT);
	assert_code(view(fx, "a", "active"), ERR_INVALID_ARGUMENT);
	assert_code(view(fx, "a", "view"), ERR_INVALID_ARGUMENT);
	assert_absent(fx, "a");
	/* A refused key is free. */
	make_active(fx, "a", "base");
}

static void all_kinds_share_one_space_of_keys(void **state)
{
	static const char *const taken[] = {"active", "view", "committed"};
	struct fixture *fx = *state;
	struct info before[ARRAY_LEN(taken)], after;

	make_committed(fx, "committed", "");
	make_active(fx, "active", "committed");
	make_view(fx, "view", "committed");
	make_active(fx, "a", "");
	for (size_t i = 0; i < ARRAY_LEN(taken); i++)
		before[i] = must_stat(fx, taken[i]);

	for (size_t i = 0; i < ARRAY_LEN(taken); i++) {
		assert_code(prepare(fx, taken[i], ""), ERR_ALREADY_EXISTS);
		assert_code(prepare(fx, taken[i], "committed"), ERR_ALREADY_EXISTS);
		assert_code(view(fx, taken[i], "committed"), ERR_ALREADY_EXISTS);
		assert_code(commit(fx, taken[i], "a"), ERR_ALREADY_EXISTS);
		assert_kind(fx, "a", SNAPSHOT_ACTIVE, "");
		after = must_stat(fx, taken[i]);
		assert_same_info(&after, &before[i]);
	}
	/* Its own key is taken, too. */
	assert_code(commit(fx, "a", "a"), ERR_ALREADY_EXISTS);
	assert_kind(fx, "a", SNAPSHOT_ACTIVE, "");
}

static void a_cancelled_call_that_is_refused_leaves_no_trace(void **state)
{
	struct fixture *fx = *state;
	const atomic_bool cancelled = true;
	enum err_code code;

	if (fx->suite->through_socket) {
		print_message("skipped: a client that has gone cannot know what the server did\n");
		skip();
	}
	make_active(fx, "a", "");
	fx->ctx.cancelled = &cancelled;
	code = prepare(fx, "b", "");
	fx->ctx.cancelled = NULL;
	if (code != ERR_OK) {
		assert_int_equal(code, ERR_CANCELLED);
		assert_absent(fx, "b");
	}
	fx->ctx.cancelled = &cancelled;
	code = commit(fx, "c", "a");
	fx->ctx.cancelled = NULL;
	if (code != ERR_OK) {
		assert_int_equal(code, ERR_CANCELLED);
		assert_absent(fx, "c");
		assert_kind(fx, "a", SNAPSHOT_ACTIVE, "");
	}
}

/* --- remove ------------------------------------------------------------------------------------------ */

static void remove_refuses_a_parent_with_children(void **state)
{
	static const char *const children[] = {"active child", "view child", "committed child"};
	struct fixture *fx = *state;

	make_committed(fx, "base", "");
	for (size_t i = 0; i < ARRAY_LEN(children); i++) {
		struct err err = ERR_INIT;

		if (i == 0)
			make_active(fx, children[i], "base");
		else if (i == 1)
			make_view(fx, children[i], "base");
		else
			make_committed(fx, children[i], "base");
		assert_fails(fx->ops->remove(fx->self, &fx->ctx, "base", &err), &err,
			     ERR_FAILED_PRECONDITION);
		assert_contains(err.msg, "remove");
		assert_kind(fx, "base", SNAPSHOT_COMMITTED, "");
		assert_code(remove_key(fx, children[i]), ERR_OK);
	}
	assert_code(remove_key(fx, "base"), ERR_OK);
	assert_absent(fx, "base");
}

static void a_removed_key_is_free_at_once(void **state)
{
	struct fixture *fx = *state;

	make_committed(fx, "1", "");
	make_committed(fx, "2", "1");
	make_active(fx, "k", "1");
	assert_code(remove_key(fx, "k"), ERR_OK);
	assert_absent(fx, "k");
	assert_code(remove_key(fx, "k"), ERR_NOT_FOUND);
	make_view(fx, "k", "2");
	assert_kind(fx, "k", SNAPSHOT_VIEW, "2");
	assert_code(remove_key(fx, "k"), ERR_OK);
	make_committed(fx, "k", "");
	assert_kind(fx, "k", SNAPSHOT_COMMITTED, "");
	assert_code(remove_key(fx, "k"), ERR_OK);
	make_active(fx, "k", "2");
	(void)must_get_mounts(fx, "k");
}

static void a_new_snapshot_inherits_nothing_of_a_removed_one(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = LABELS(fx, "t.old=1");
	struct info old, new;

	assert_code(prepare_labelled(fx, "k", "", &labels), ERR_OK);
	old = must_stat(fx, "k");
	assert_code(remove_key(fx, "k"), ERR_OK);
	make_active(fx, "k", "");
	new = must_stat(fx, "k");
	assert_labels(fx, "k", (struct strmap){0});
	assert_true(new.created_ns > old.created_ns);
}

static void cleanup_works_or_is_not_offered(void **state)
{
	struct fixture *fx = *state;
	struct err err = ERR_INIT;
	enum err_code code;

	make_committed(fx, "kept", "");
	make_active(fx, "kept too", "kept");
	make_active(fx, "gone", "kept");
	assert_code(remove_key(fx, "gone"), ERR_OK);
	if (!fx->ops->cleanup)
		return;
	for (int times = 0; times < 2; times++) {
		code = code_of(fx->ops->cleanup(fx->self, &fx->ctx, &err), &err);
		assert_true(code == ERR_OK || code == ERR_UNIMPLEMENTED);
	}
	assert_kind(fx, "kept", SNAPSHOT_COMMITTED, "");
	(void)must_get_mounts(fx, "kept too");
}

/* --- update ------------------------------------------------------------------------------------------ */

static void update_labels(struct fixture *fx, const char *key, struct strmap labels,
			  const char *const *paths, size_t n_paths)
{
	const struct update_req req = {
		.name = key,
		.labels = labels,
		.paths = (const char **)paths,
		.n_paths = n_paths,
	};
	struct info before = must_stat(fx, key), told = {0}, after;

	assert_code(update(fx, &req, &told), ERR_OK);
	after = must_stat(fx, key);
	assert_same_info(&told, &after);
	assert_int_equal(after.created_ns, before.created_ns);
	assert_true(after.updated_ns > before.updated_ns && after.updated_ns <= realtime_ns());
	assert_int_equal(after.kind, before.kind);
	assert_string_equal(after.parent, before.parent);
}

#define PATHS(...)                                                                                 \
	(const char *const[]){__VA_ARGS__},                                                        \
		sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)

static void update_without_mask_replaces_the_labels(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = LABELS(fx, "t.a=1", "t.b=2");

	assert_code(prepare_labelled(fx, "k", "", &labels), ERR_OK);
	update_labels(fx, "k", LABELS(fx, "t.b=3", "t.c=4", "t.empty="), NULL, 0);
	assert_labels(fx, "k", LABELS(fx, "t.b=3", "t.c=4"));
	update_labels(fx, "k", LABELS(fx, "t.d=5"), PATHS("labels"));
	assert_labels(fx, "k", LABELS(fx, "t.d=5"));
	update_labels(fx, "k", (struct strmap){0}, NULL, 0);
	assert_labels(fx, "k", (struct strmap){0});
}

static void update_with_mask_changes_what_it_names(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = LABELS(fx, "t.a=1", "t.b=2", "t.b.c/d=3");

	assert_code(prepare_labelled(fx, "k", "", &labels), ERR_OK);
	/* Sets one, and leaves what else the request holds. */
	update_labels(fx, "k", LABELS(fx, "t.a=x", "t.b=y"), PATHS("labels.t.a"));
	assert_labels(fx, "k", LABELS(fx, "t.a=x", "t.b=2", "t.b.c/d=3"));
	/* The rest of the path is the key, dots and slashes and all. */
	update_labels(fx, "k", LABELS(fx, "t.b.c/d=z", "t.new=n"),
		      PATHS("labels.t.b.c/d", "labels.t.new"));
	assert_labels(fx, "k", LABELS(fx, "t.a=x", "t.b=2", "t.b.c/d=z", "t.new=n"));
	/* What the request lacks, or has empty, is deleted. */
	update_labels(fx, "k", LABELS(fx, "t.b="), PATHS("labels.t.a", "labels.t.b"));
	assert_labels(fx, "k", LABELS(fx, "t.b.c/d=z", "t.new=n"));
	update_labels(fx, "k", (struct strmap){0}, PATHS("labels.t.unknown"));
	assert_labels(fx, "k", LABELS(fx, "t.b.c/d=z", "t.new=n"));
}

static void update_works_on_every_kind(void **state)
{
	static const char *const keys[] = {"active", "view", "committed"};
	struct fixture *fx = *state;

	make_committed(fx, "committed", "");
	make_active(fx, "active", "committed");
	make_view(fx, "view", "committed");
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		update_labels(fx, keys[i], LABELS(fx, "t.a=1"), NULL, 0);
		assert_labels(fx, keys[i], LABELS(fx, "t.a=1"));
	}
}

static void update_refuses_other_fields_and_changes_nothing(void **state)
{
	static const char *const paths[] = {"parent",     "name",       "kind",
					    "created_at", "updated_at", "",
					    "labelsx",    "labels/a",   "Labels"};
	struct fixture *fx = *state;
	struct strmap labels = LABELS(fx, "t.a=1");
	struct info before, after;

	assert_code(prepare_labelled(fx, "k", "", &labels), ERR_OK);
	before = must_stat(fx, "k");
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		const char *mask[] = {"labels.t.a", paths[i]};
		const struct update_req req = {
			.name = "k",
			.labels = LABELS(fx, "t.a=2"),
			.paths = mask,
			.n_paths = ARRAY_LEN(mask),
		};
		struct info info = {0};

		assert_code(update(fx, &req, &info), ERR_INVALID_ARGUMENT);
		after = must_stat(fx, "k");
		assert_same_info(&after, &before);
	}
}

/* One call's labels are bounded; many calls, each of them good, must not get round that. */
static void labels_stay_bounded_over_many_updates(void **state)
{
	struct fixture *fx = *state;
	size_t n_max = LABELS_MAX_BYTES / 4000 + 1;
	enum err_code code = ERR_OK;
	char value[4000 + 1];
	struct info info;

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	make_active(fx, "k", "");
	for (size_t i = 0; i < n_max && code == ERR_OK; i += 100) {
		const char *paths[100];
		struct update_req req = {.name = "k", .paths = paths, .n_paths = 100};
		struct err err = ERR_INIT;
		struct info told = {0};

		for (size_t j = 0; j < 100; j++) {
			paths[j] = arena_printf(&fx->arena, "labels.t.%zu", i + j);
			assert_non_null(paths[j]);
			assert_ok(strmap_append(&req.labels, &fx->arena,
						paths[j] + strlen("labels."), value, &err),
				  &err);
		}
		strmap_sort(&req.labels);
		code = update(fx, &req, &told);
	}
	assert_int_equal(code, ERR_INVALID_ARGUMENT);
	info = must_stat(fx, "k");
	assert_int_equal(own_labels(fx, &info.labels).n % 100, 0);
}

/* --- walk -------------------------------------------------------------------------------------------- */

struct seen {
	struct fixture *fx;
	struct info infos[512];
	size_t n;
	size_t stop_after;
	bool fails;
	bool does_stat;
};

static int see(void *arg, const struct info *info, struct err *err)
{
	struct seen *seen = arg;

	assert_true(seen->n < ARRAY_LEN(seen->infos));
	if (info_copy(&seen->fx->arena, info, &seen->infos[seen->n], err) < 0)
		return -1;
	if (seen->does_stat) {
		struct info same = must_stat(seen->fx, info->name);

		assert_same_info(&same, info);
	}
	seen->n++;
	if (seen->fails)
		return err_set(err, ERR_DATA_LOSS, "had enough");
	return seen->stop_after && seen->n == seen->stop_after;
}

static int walk(struct seen *seen, const char *filter, uint64_t after_id, struct err *err)
{
	struct fixture *fx = seen->fx;
	struct filters *filters = NULL;
	int result;

	assert_ok(filters_parse(&filter, 1, &filters, err), err);
	result = fx->ops->walk(fx->self, &fx->ctx, filters, after_id, see, seen, err);
	filters_free(filters);
	return result;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct info *)a)->name, ((const struct info *)b)->name);
}

/* The names that pass @filter, in order, each with a blank behind it. */
static void assert_walk(struct fixture *fx, const char *filter, const char *expected)
{
	struct seen *seen = calloc(1, sizeof(*seen));
	struct err err = ERR_INIT;
	char names[1024] = "";

	assert_non_null(seen);
	seen->fx = fx;
	assert_ok(walk(seen, filter, 0, &err), &err);
	qsort(seen->infos, seen->n, sizeof(seen->infos[0]), compare_names);
	for (size_t i = 0; i < seen->n; i++) {
		size_t len = strlen(names);

		snprintf(names + len, sizeof(names) - len, "%s ", seen->infos[i].name);
	}
	if (strcmp(names, expected) != 0)
		fail_msg("'%s' gives '%s', not '%s'", filter, names, expected);
	free(seen);
}

static void an_empty_store_lists_nothing(void **state)
{
	struct fixture *fx = *state;

	assert_walk(fx, "", "");
	assert_walk(fx, "name==x", "");
	make_active(fx, "a", "");
	assert_code(remove_key(fx, "a"), ERR_OK);
	assert_walk(fx, "", "");
}

static void walk_shows_what_passes_the_filters(void **state)
{
	struct fixture *fx = *state;
	struct strmap active = LABELS(fx, "t.which=active", "t.kind=x");
	struct commit_req req = {.name = "target", .key = "r", .parent = ""};
	struct err err = ERR_INIT;

	make_committed(fx, "base", "");
	make_committed(fx, "mid", "base");
	assert_code(prepare_labelled(fx, "act", "base", &active), ERR_OK);
	make_view(fx, "vue", "mid");
	make_active(fx, "r", "base");
	req.labels = LABELS(fx, "containerd.io/snapshot.ref=sha256:abc");
	assert_ok(fx->ops->commit(fx->self, &fx->ctx, &req, &err), &err);

	assert_walk(fx, "", "act base mid target vue ");
	assert_walk(fx, "kind==active", "act ");
	assert_walk(fx, "kind==view", "vue ");
	assert_walk(fx, "kind==committed", "base mid target ");
	assert_walk(fx, "kind!=committed", "act vue ");
	assert_walk(fx, "name==mid", "mid ");
	assert_walk(fx, "name~=\"^[bm]\"", "base mid ");
	assert_walk(fx, "parent==base", "act mid target ");
	assert_walk(fx, "parent==\"\"", "base ");
	assert_walk(fx, "parent", "act base mid target vue ");
	assert_walk(fx, "kind==committed,parent==base", "mid target ");
	assert_walk(fx, "labels.\"t.which\"", "act ");
	assert_walk(fx, "labels.t.which==active,kind==active", "act ");
	assert_walk(fx, "labels.t.which==active,kind==view", "");
	assert_walk(fx, "labels.\"containerd.io/snapshot.ref\"==sha256:abc,parent==\"base\"",
		    "target ");
	assert_walk(fx, "labels.\"containerd.io/snapshot.ref\"==sha256:abc,parent==\"mid\"", "");
	assert_walk(fx, "labels.\"containerd.io/snapshot.ref\"==\"\"", "");
	assert_walk(fx, "nofield!=x", "act base mid target vue ");
	assert_walk(fx, "nofield", "");
}

static void walk_follows_updates_of_labels(void **state)
{
	struct fixture *fx = *state;
	static const char filter[] = "labels.\"containerd.io/snapshot.ref\"==sha256:abc";

	make_active(fx, "k", "");
	update_labels(fx, "k", LABELS(fx, "containerd.io/snapshot.ref=sha256:abc"), NULL, 0);
	assert_walk(fx, filter, "k ");
	update_labels(fx, "k", LABELS(fx, "containerd.io/snapshot.ref=sha256:def"), NULL, 0);
	assert_walk(fx, filter, "");
	update_labels(fx, "k", LABELS(fx, "containerd.io/snapshot.ref=sha256:abc"), NULL, 0);
	assert_code(remove_key(fx, "k"), ERR_OK);
	assert_walk(fx, filter, "");
}

static void walk_tells_what_stat_tells_and_allows_it_inside(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = LABELS(fx, "t.a=1", "t.b=2");
	struct seen *seen = calloc(1, sizeof(*seen));
	struct err err = ERR_INIT;

	assert_non_null(seen);
	seen->fx = fx;
	seen->does_stat = true;
	make_committed(fx, "base", "");
	assert_code(prepare_labelled(fx, "a", "base", &labels), ERR_OK);
	make_view(fx, "v", "base");
	assert_ok(walk(seen, "", 0, &err), &err);
	assert_int_equal(seen->n, 3);
	free(seen);
}

static void walk_goes_on_behind_an_id(void **state)
{
	struct fixture *fx = *state;
	struct seen *all = calloc(1, sizeof(*all)), *page = calloc(1, sizeof(*page));
	struct err err = ERR_INIT;
	size_t n = 0;
	int result;

	assert_non_null(all);
	assert_non_null(page);
	for (int i = 0; i < 250; i++) {
		char key[32];

		snprintf(key, sizeof(key), "key %d", i);
		make_active(fx, key, "");
	}
	all->fx = fx;
	assert_ok(walk(all, "", 0, &err), &err);
	assert_int_equal(all->n, 250);
	for (size_t i = 0; i < all->n; i++) {
		assert_true(all->infos[i].id > (i ? all->infos[i - 1].id : 0));
	}

	do {
		memset(page, 0, sizeof(*page));
		page->fx = fx;
		page->stop_after = 70;
		result = walk(page, "", n ? all->infos[n - 1].id : 0, &err);
		assert_true(result >= 0);
		for (size_t i = 0; i < page->n; i++, n++)
			assert_same_info(&page->infos[i], &all->infos[n]);
	} while (result == 1);
	assert_int_equal(n, 250);
	assert_int_equal(page->n, 250 - 3 * 70);
	free(all);
	free(page);
}

static void walk_passes_on_the_failure_of_its_call_back(void **state)
{
	struct fixture *fx = *state;
	struct seen *seen = calloc(1, sizeof(*seen));
	struct err err = ERR_INIT;

	assert_non_null(seen);
	seen->fx = fx;
	seen->fails = true;
	make_active(fx, "a", "");
	make_active(fx, "b", "");
	assert_fails(walk(seen, "", 0, &err), &err, ERR_DATA_LOSS);
	assert_int_equal(seen->n, 1);
	free(seen);
	/* The backend is none the worse for it. */
	assert_code(remove_key(fx, "a"), ERR_OK);
}

/* --- usage ------------------------------------------------------------------------------------------- */

/* Where what is written into a snapshot goes, without mounting it. */
static const char *writable_directory(const struct mounts *mounts)
{
	const struct mount *last = &mounts->items[mounts->n - 1];

	if (strcmp(last->type, "bind") == 0)
		return last->source;
	return find_option(last, "upperdir=");
}

static void write_file(const char *dir, const char *name, size_t size)
{
	CLEANUP(close_fd) int fd = -1;
	char path[4096];
	char block[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	memset(block, 'x', sizeof(block));
	for (size_t done = 0; done < size; done += sizeof(block))
		assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	/* So that it has its blocks, on file systems that allocate late. */
	assert_int_equal(fsync(fd), 0);
}

static void usage_is_of_one_snapshot_alone(void **state)
{
	struct fixture *fx = *state;
	struct usage empty = {0}, full = {0}, committed = {0}, child = {0};
	struct mounts mounts;
	const char *dir;
	char from[4096], to[4096];

	make_active(fx, "a", "");
	assert_code(usage_of(fx, "a", &empty), ERR_OK);
	assert_int_equal(empty.inodes, 1);
	if (fx->suite->has_directories) {
		mounts = must_get_mounts(fx, "a");
		dir = writable_directory(&mounts);
		assert_non_null(dir);
		write_file(dir, "file", 1 << 20);
		snprintf(from, sizeof(from), "%s/file", dir);
		snprintf(to, sizeof(to), "%s/link", dir);
		assert_int_equal(link(from, to), 0);
		assert_code(usage_of(fx, "a", &full), ERR_OK);
		assert_int_equal(full.inodes, 2);
		assert_true(full.size_bytes >= empty.size_bytes + (1 << 20));
		assert_true(full.size_bytes < empty.size_bytes + (2 << 20));
	} else {
		full = empty;
	}
	assert_code(commit(fx, "c", "a"), ERR_OK);
	assert_code(usage_of(fx, "c", &committed), ERR_OK);
	assert_int_equal(committed.size_bytes, full.size_bytes);
	assert_int_equal(committed.inodes, full.inodes);
	make_active(fx, "child", "c");
	assert_code(usage_of(fx, "child", &child), ERR_OK);
	assert_int_equal(child.size_bytes, empty.size_bytes);
	assert_int_equal(child.inodes, 1);
	make_view(fx, "v", "c");
	assert_code(usage_of(fx, "v", &child), ERR_OK);
}

/* --- restart ----------------------------------------------------------------------------------------- */

static void what_was_told_survives_a_restart(void **state)
{
	static const char *const keys[] = {"base", "mid", "a", "v"};
	struct fixture *fx = *state;
	struct info infos[ARRAY_LEN(keys)], info;
	struct usage usages[ARRAY_LEN(keys)], usage;
	struct mounts active_mounts, view_mounts, mounts;
	struct strmap labels = LABELS(fx, "t.a=1");

	if (!fx->suite->is_persistent) {
		print_message("skipped: this backend keeps nothing\n");
		skip();
	}
	make_committed(fx, "base", "");
	make_committed(fx, "mid", "base");
	assert_code(prepare_labelled(fx, "a", "mid", &labels), ERR_OK);
	make_view(fx, "v", "mid");
	make_active(fx, "gone", "base");
	assert_code(remove_key(fx, "gone"), ERR_OK);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		infos[i] = must_stat(fx, keys[i]);
		assert_code(usage_of(fx, keys[i], &usages[i]), ERR_OK);
	}
	active_mounts = must_get_mounts(fx, "a");
	view_mounts = must_get_mounts(fx, "v");

	close_backend(fx);
	open_backend(fx);

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		info = must_stat(fx, keys[i]);
		assert_same_info(&info, &infos[i]);
		assert_code(usage_of(fx, keys[i], &usage), ERR_OK);
		assert_int_equal(usage.size_bytes, usages[i].size_bytes);
		assert_int_equal(usage.inodes, usages[i].inodes);
	}
	mounts = must_get_mounts(fx, "a");
	assert_same_mounts(&mounts, &active_mounts);
	mounts = must_get_mounts(fx, "v");
	assert_same_mounts(&mounts, &view_mounts);
	assert_absent(fx, "gone");
	assert_walk(fx, "", "a base mid v ");

	/* New ones are not taken for old ones. */
	make_active(fx, "new", "mid");
	mounts = must_get_mounts(fx, "new");
	assert_string_not_equal(writable_directory(&mounts), writable_directory(&active_mounts));
	assert_code(commit(fx, "top", "a"), ERR_OK);
	assert_code(remove_key(fx, "mid"), ERR_FAILED_PRECONDITION);
}

/* --- many at once ------------------------------------------------------------------------------------- */

/* cmocka's assertions belong to the main thread: workers count, and the case looks at the counts. */
struct worker {
	struct fixture *fx;
	unsigned int number;
	unsigned int n_ok;
	unsigned int n_refused;
	unsigned int n_wrong;
	pthread_t thread;
};

static void count(struct worker *worker, int result, const struct err *err, enum err_code refusal)
{
	if (result == 0)
		worker->n_ok++;
	else if (err->code == refusal)
		worker->n_refused++;
	else
		worker->n_wrong++;
}

static struct ctx worker_ctx(struct arena *arena)
{
	arena_init(arena, WORKER_ARENA_BYTES);
	return (struct ctx){.arena = arena, .deadline_ns = CTX_NO_DEADLINE, .ns = "suite"};
}

static void run_workers(struct fixture *fx, struct worker *workers, void *(*fn)(void *))
{
	for (unsigned int i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){.fx = fx, .number = i};
		assert_int_equal(pthread_create(&workers[i].thread, NULL, fn, &workers[i]), 0);
	}
	for (unsigned int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
}

static void *prepare_the_same_keys(void *arg)
{
	struct worker *worker = arg;
	struct fixture *fx = worker->fx;

	for (int i = 0; i < 20; i++) {
		struct snapshot_req req = {.parent = ""};
		struct mounts mounts = {0};
		struct err err = ERR_INIT;
		struct arena arena;
		struct ctx ctx = worker_ctx(&arena);
		char key[32];

		snprintf(key, sizeof(key), "key %d", i);
		req.key = key;
		count(worker, fx->ops->prepare(fx->self, &ctx, &req, &mounts, &err), &err,
		      ERR_ALREADY_EXISTS);
		arena_done(&arena);
	}
	return NULL;
}

static void of_many_at_once_one_gets_the_key(void **state)
{
	struct fixture *fx = *state;
	struct worker workers[N_THREADS];
	unsigned int n_ok = 0, n_refused = 0;

	run_workers(fx, workers, prepare_the_same_keys);
	for (unsigned int i = 0; i < N_THREADS; i++) {
		n_ok += workers[i].n_ok;
		n_refused += workers[i].n_refused;
		assert_int_equal(workers[i].n_wrong, 0);
	}
	assert_int_equal(n_ok, 20);
	assert_int_equal(n_refused, 20 * (N_THREADS - 1));
}

static void *build_and_tear_down(void *arg)
{
	struct worker *worker = arg;
	struct fixture *fx = worker->fx;

	for (int i = 0; i < 20; i++) {
		char key[32], name[32];
		struct snapshot_req req = {.key = key, .parent = "base"};
		struct commit_req commit_req = {.name = name, .key = key, .parent = ""};
		struct mounts mounts = {0};
		struct usage usage = {0};
		struct err err = ERR_INIT;
		struct arena arena;
		struct ctx ctx = worker_ctx(&arena);

		snprintf(key, sizeof(key), "key %u %d", worker->number, i);
		snprintf(name, sizeof(name), "name %u %d", worker->number, i);
		count(worker, fx->ops->prepare(fx->self, &ctx, &req, &mounts, &err), &err, ERR_OK);
		count(worker, fx->ops->mounts(fx->self, &ctx, key, &mounts, &err), &err, ERR_OK);
		count(worker, fx->ops->commit(fx->self, &ctx, &commit_req, &err), &err, ERR_OK);
		count(worker, fx->ops->usage(fx->self, &ctx, name, &usage, &err), &err, ERR_OK);
		if (i % 2)
			count(worker, fx->ops->remove(fx->self, &ctx, name, &err), &err, ERR_OK);
		arena_done(&arena);
	}
	return NULL;
}

static void different_keys_do_not_disturb_each_other(void **state)
{
	struct fixture *fx = *state;
	struct worker workers[N_THREADS];
	struct seen *seen = calloc(1, sizeof(*seen));
	struct err err = ERR_INIT;

	assert_non_null(seen);
	make_committed(fx, "base", "");
	run_workers(fx, workers, build_and_tear_down);
	for (unsigned int i = 0; i < N_THREADS; i++) {
		assert_int_equal(workers[i].n_wrong, 0);
		assert_int_equal(workers[i].n_ok, 20 * 4 + 10);
	}
	seen->fx = fx;
	assert_ok(walk(seen, "parent==base,kind==committed", 0, &err), &err);
	assert_int_equal(seen->n, N_THREADS * 10);
	free(seen);
}

/* Even numbers put children on the parent, odd ones remove the parent and make it anew. */
static void *fight_over_a_parent(void *arg)
{
	struct worker *worker = arg;
	struct fixture *fx = worker->fx;
	char key[32];

	snprintf(key, sizeof(key), "key %u", worker->number);
	for (int i = 0; i < 30; i++) {
		struct snapshot_req child = {.key = key, .parent = "parent"};
		struct snapshot_req fresh = {.key = key, .parent = ""};
		struct commit_req made = {.name = "parent", .key = key, .parent = ""};
		struct mounts mounts = {0};
		struct info info = {0};
		struct err err = ERR_INIT;
		struct arena arena;
		struct ctx ctx = worker_ctx(&arena);
		int result;

		if (worker->number % 2 == 0) {
			result = fx->ops->prepare(fx->self, &ctx, &child, &mounts, &err);
			count(worker, result, &err, ERR_NOT_FOUND);
			/* While the child is there, so is its parent. */
			if (result == 0) {
				result = fx->ops->stat(fx->self, &ctx, "parent", &info, &err);
				count(worker, result, &err, ERR_OK);
				result = fx->ops->mounts(fx->self, &ctx, key, &mounts, &err);
				count(worker, result, &err, ERR_OK);
				result = fx->ops->remove(fx->self, &ctx, key, &err);
				count(worker, result, &err, ERR_OK);
			}
		} else {
			result = fx->ops->remove(fx->self, &ctx, "parent", &err);
			if (result < 0 && err.code == ERR_FAILED_PRECONDITION)
				err.code = ERR_NOT_FOUND; /* has children: as good */
			count(worker, result, &err, ERR_NOT_FOUND);
			result = fx->ops->prepare(fx->self, &ctx, &fresh, &mounts, &err);
			count(worker, result, &err, ERR_OK);
			result = fx->ops->commit(fx->self, &ctx, &made, &err);
			count(worker, result, &err, ERR_ALREADY_EXISTS);
			if (result < 0) {
				result = fx->ops->remove(fx->self, &ctx, key, &err);
				count(worker, result, &err, ERR_OK);
			}
		}
		arena_done(&arena);
	}
	return NULL;
}

static void a_child_never_outlives_its_parent(void **state)
{
	struct fixture *fx = *state;
	struct worker workers[N_THREADS];

	make_committed(fx, "parent", "");
	run_workers(fx, workers, fight_over_a_parent);
	for (unsigned int i = 0; i < N_THREADS; i++)
		assert_int_equal(workers[i].n_wrong, 0);
	assert_walk(fx, "kind==active", "");
}

/* --- all of it ---------------------------------------------------------------------------------------- */

int snapshotter_suite_run(const char *name, const struct snapshotter_suite *suite)
{
#define CASE(fn_)                                                                                  \
	{                                                                                          \
		.name = #fn_, .test_func = fn_, .setup_func = setup, .teardown_func = teardown,    \
		.initial_state = (void *)(uintptr_t)suite                                          \
	}
	const struct CMUnitTest cases[] = {
		CASE(prepare_makes_an_active_snapshot),
		CASE(view_makes_a_view),
		CASE(snapshots_name_their_parents),
		CASE(keys_are_opaque),
		CASE(mounts_are_what_prepare_gave),
		CASE(committed_snapshots_have_no_mounts),
		CASE(a_chain_of_128_has_mounts),
		CASE(commit_turns_the_active_into_the_committed),
		CASE(only_active_snapshots_can_be_committed),
		CASE(a_commit_may_bring_the_parent),
		CASE(a_commit_with_a_wrong_parent_is_refused),
		CASE(unknown_keys_are_not_found),
		CASE(parents_must_be_committed),
		CASE(all_kinds_share_one_space_of_keys),
		CASE(a_cancelled_call_that_is_refused_leaves_no_trace),
		CASE(remove_refuses_a_parent_with_children),
		CASE(a_removed_key_is_free_at_once),
		CASE(a_new_snapshot_inherits_nothing_of_a_removed_one),
		CASE(cleanup_works_or_is_not_offered),
		CASE(update_without_mask_replaces_the_labels),
		CASE(update_with_mask_changes_what_it_names),
		CASE(update_works_on_every_kind),
		CASE(update_refuses_other_fields_and_changes_nothing),
		CASE(labels_stay_bounded_over_many_updates),
		CASE(an_empty_store_lists_nothing),
		CASE(walk_shows_what_passes_the_filters),
		CASE(walk_follows_updates_of_labels),
		CASE(walk_tells_what_stat_tells_and_allows_it_inside),
		CASE(walk_goes_on_behind_an_id),
		CASE(walk_passes_on_the_failure_of_its_call_back),
		CASE(usage_is_of_one_snapshot_alone),
		CASE(what_was_told_survives_a_restart),
		CASE(of_many_at_once_one_gets_the_key),
		CASE(different_keys_do_not_disturb_each_other),
		CASE(a_child_never_outlives_its_parent),
	};

	return _cmocka_run_group_tests(name, cases, ARRAY_LEN(cases), NULL, NULL);
}
