/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "snapshotters/metastore.h"
#include "tests/support/metastore_wait.h"
#include "tests/support/temp_root.h"

#define ARENA_BYTES   (64u << 20)
#define N_THREADS     8
#define N_LISTED      10000
#define CHAIN_LEN     128
/* As in metastore.c. */
#define IDS_AT_A_TIME 1024

/** struct fixture - a store in a directory of its own, and what a call carries */
struct fixture {
	struct temp_root *root;
	char *path;
	struct metastore *store;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static void open_store(struct fixture *f)
{
	assert_ok(metastore_open(f->path, &f->store, &f->err), &f->err);
}

static void reopen_store(struct fixture *f)
{
	metastore_close(f->store);
	f->store = NULL;
	open_store(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->root = temp_root_new();
	f->path = temp_root_path(f->root, "metadata.db");
	arena_init(&f->arena, ARENA_BYTES);
	f->ctx = (struct ctx){.arena = &f->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	open_store(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	metastore_close(f->store);
	arena_done(&f->arena);
	temp_root_free(f->root);
	free(f->path);
	free(f);
	return 0;
}

/* ---- calls in short ---- */

/* Labels from pairs, up to a NULL: labels(f, "a", "1", "b", "2", NULL). */
static struct strmap labels(struct fixture *f, ...)
{
	struct strmap map = {0};
	const char *key;
	va_list args;

	va_start(args, f);
	while ((key = va_arg(args, const char *)))
		assert_ok(strmap_append(&map, &f->arena, key, va_arg(args, const char *), &f->err),
			  &f->err);
	va_end(args);
	strmap_sort(&map);
	return map;
}

static uint64_t id_of(struct fixture *f, const char *key)
{
	struct record record;
	struct err err = ERR_INIT;

	if (metastore_get(f->store, &f->ctx, key, &record, &err) < 0)
		return 0;
	return record.info.id;
}

static struct record get(struct fixture *f, const char *key)
{
	struct record record = {0};

	assert_ok(metastore_get(f->store, &f->ctx, key, &record, &f->err), &f->err);
	assert_string_equal(record.info.name, key);
	return record;
}

static void assert_absent(struct fixture *f, const char *key)
{
	struct record record;

	assert_fails(metastore_get(f->store, &f->ctx, key, &record, &f->err), &f->err,
		     ERR_NOT_FOUND);
	assert_contains(f->err.msg, key);
}

static int create_with(struct fixture *f, enum snapshot_kind kind, const char *key,
		       const char *parent, struct strmap map)
{
	const struct snapshot_req req = {.key = key, .parent = parent, .labels = map};
	const struct metastore_new row = {.id = metastore_reserve_ids(f->store, 1),
					  .kind = kind,
					  .req = &req,
					  .parent_id = id_of(f, parent)};

	return metastore_create(f->store, &f->ctx, &row, &f->err);
}

static int prepare(struct fixture *f, const char *key, const char *parent)
{
	return create_with(f, SNAPSHOT_ACTIVE, key, parent, (struct strmap){0});
}

static int view(struct fixture *f, const char *key, const char *parent)
{
	return create_with(f, SNAPSHOT_VIEW, key, parent, (struct strmap){0});
}

static int commit_with(struct fixture *f, const char *name, const char *key, const char *parent,
		       struct strmap map)
{
	const struct commit_req req = {.name = name, .key = key, .parent = parent, .labels = map};
	const struct usage usage = {.size_bytes = 4096, .inodes = 1};

	return metastore_commit(f->store, &f->ctx, &req, id_of(f, key), &usage, &f->err);
}

static int commit(struct fixture *f, const char *name, const char *key)
{
	return commit_with(f, name, key, "", (struct strmap){0});
}

static int remove_key(struct fixture *f, const char *key)
{
	uint64_t id;

	return metastore_remove(f->store, &f->ctx, key, &id, &f->err);
}

static int update_path(struct fixture *f, const char *name, const char *path, struct strmap map,
		       struct info *ret_info)
{
	const char *paths[] = {path};
	const struct update_req req = {.name = name,
				       .labels = map,
				       .paths = paths,
				       .n_paths = path ? 1 : 0};

	return metastore_update(f->store, &f->ctx, &req, ret_info, &f->err);
}

/* A committed snapshot. */
static void layer(struct fixture *f, const char *name, const char *parent)
{
	CLEANUP(free_ptr) char *key = NULL;

	assert_true(asprintf(&key, "extract %s", name) > 0);
	assert_ok(prepare(f, key, parent), &f->err);
	assert_ok(commit(f, name, key), &f->err);
}

/* One of each kind: "active", "view" on "committed". */
static void one_of_each(struct fixture *f)
{
	layer(f, "committed", "");
	assert_ok(prepare(f, "active", ""), &f->err);
	assert_ok(view(f, "view", "committed"), &f->err);
}

static void assert_labels(const struct strmap *map, size_t n, ...)
{
	va_list args;

	va_start(args, n);
	for (size_t i = 0; i < map->n && i < n; i++) {
		assert_string_equal(map->entries[i].key, va_arg(args, const char *));
		assert_string_equal(map->entries[i].value, va_arg(args, const char *));
	}
	va_end(args);
	assert_int_equal(map->n, n);
}

static void assert_same(const struct record *a, const struct record *b)
{
	assert_int_equal(a->info.id, b->info.id);
	assert_string_equal(a->info.name, b->info.name);
	assert_string_equal(a->info.parent, b->info.parent);
	assert_int_equal(a->info.kind, b->info.kind);
	assert_int_equal(a->info.created_ns, b->info.created_ns);
	assert_int_equal(a->info.updated_ns, b->info.updated_ns);
	assert_int_equal(a->parent_id, b->parent_id);
	assert_int_equal(a->usage.size_bytes, b->usage.size_bytes);
	assert_int_equal(a->usage.inodes, b->usage.inodes);
	assert_int_equal(a->info.labels.n, b->info.labels.n);
	for (size_t i = 0; i < a->info.labels.n; i++) {
		assert_string_equal(a->info.labels.entries[i].key, b->info.labels.entries[i].key);
		assert_string_equal(a->info.labels.entries[i].value,
				    b->info.labels.entries[i].value);
	}
}

/* ---- states ---- */

static void snapshots_go_through_their_states(void **state)
{
	struct fixture *f = *state;
	struct record record;
	uint64_t id;

	assert_ok(prepare(f, "a", ""), &f->err);
	record = get(f, "a");
	id = record.info.id;
	assert_int_equal(record.info.kind, SNAPSHOT_ACTIVE);
	assert_string_equal(record.info.parent, "");
	assert_int_equal(record.parent_id, 0);
	assert_int_equal(record.info.labels.n, 0);
	assert_int_equal(record.usage.size_bytes, 0);
	assert_int_equal(record.usage.inodes, 0);

	assert_ok(commit(f, "base", "a"), &f->err);
	assert_absent(f, "a");
	record = get(f, "base");
	assert_int_equal(record.info.id, id);
	assert_int_equal(record.info.kind, SNAPSHOT_COMMITTED);
	assert_int_equal(record.usage.size_bytes, 4096);
	assert_int_equal(record.usage.inodes, 1);

	assert_ok(view(f, "v", "base"), &f->err);
	record = get(f, "v");
	assert_int_equal(record.info.kind, SNAPSHOT_VIEW);
	assert_string_equal(record.info.parent, "base");
	assert_int_equal(record.parent_id, id);

	assert_int_equal(metastore_remove(f->store, &f->ctx, "v", &id, &f->err), 0);
	assert_int_equal(id, record.info.id);
	assert_absent(f, "v");
	/* The key is free at once, for another kind too. */
	assert_ok(prepare(f, "v", ""), &f->err);
	assert_ok(remove_key(f, "v"), &f->err);
	assert_ok(remove_key(f, "base"), &f->err);
	assert_absent(f, "base");
}

static void parents_are_told_by_their_names_now(void **state)
{
	struct fixture *f = *state;
	struct record record;

	layer(f, "one", "");
	layer(f, "two", "one");
	assert_ok(prepare(f, "three", "two"), &f->err);
	record = get(f, "three");
	assert_string_equal(record.info.parent, "two");
	assert_int_equal(record.parent_id, id_of(f, "two"));
	assert_string_equal(get(f, "two").info.parent, "one");
}

static void keys_are_opaque(void **state)
{
	struct fixture *f = *state;
	static char longest[SNAPSHOT_KEY_MAX_BYTES + 1];
	const char *keys[] = {
		"default/1/extract-576612288-yVX_ sha256:305458",
		"../../etc/passwd",
		"it's; DROP TABLE snapshots; --",
		"%s%n?1",
		"\xc3\xa9t\xc3\xa9 \xf0\x9f\x94\xa5",
		" ",
		"A",
		"a",
		"a ",
		longest,
	};

	memset(longest, 'x', sizeof(longest) - 1);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_ok(prepare(f, keys[i], ""), &f->err);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_int_equal(get(f, keys[i]).info.id, i + 1);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_ok(remove_key(f, keys[i]), &f->err);
}

/* ---- refusals ---- */

static void unknown_key_is_not_found(void **state)
{
	struct fixture *f = *state;
	struct record record;
	struct chain chain;
	struct info info;

	one_of_each(f);
	assert_absent(f, "nobody");
	assert_fails(metastore_get_chain(f->store, &f->ctx, "nobody", &record, &chain, &f->err),
		     &f->err, ERR_NOT_FOUND);
	assert_fails(commit(f, "name", "nobody"), &f->err, ERR_NOT_FOUND);
	assert_fails(remove_key(f, "nobody"), &f->err, ERR_NOT_FOUND);
	assert_fails(update_path(f, "nobody", NULL, (struct strmap){0}, &info), &f->err,
		     ERR_NOT_FOUND);
	assert_absent(f, "name");
}

static void unknown_parent_is_not_found(void **state)
{
	struct fixture *f = *state;

	assert_fails(prepare(f, "a", "nobody"), &f->err, ERR_NOT_FOUND);
	assert_contains(f->err.msg, "nobody");
	assert_fails(view(f, "a", "nobody"), &f->err, ERR_NOT_FOUND);
	assert_absent(f, "a");
}

static void parent_must_be_committed(void **state)
{
	struct fixture *f = *state;

	one_of_each(f);
	assert_fails(prepare(f, "a", "active"), &f->err, ERR_INVALID_ARGUMENT);
	assert_fails(prepare(f, "a", "view"), &f->err, ERR_INVALID_ARGUMENT);
	assert_fails(view(f, "a", "active"), &f->err, ERR_INVALID_ARGUMENT);
	assert_fails(view(f, "a", "view"), &f->err, ERR_INVALID_ARGUMENT);
	assert_absent(f, "a");
}

static void taken_key_already_exists_in_any_kind(void **state)
{
	struct fixture *f = *state;
	const char *keys[] = {"active", "view", "committed"};

	one_of_each(f);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		struct record before = get(f, keys[i]), after;

		assert_fails(prepare(f, keys[i], ""), &f->err, ERR_ALREADY_EXISTS);
		assert_fails(view(f, keys[i], "committed"), &f->err, ERR_ALREADY_EXISTS);
		after = get(f, keys[i]);
		assert_same(&after, &before);
	}
}

static void commit_under_a_taken_name_leaves_the_active_one(void **state)
{
	struct fixture *f = *state;
	const char *names[] = {"other", "view", "committed", "active"};

	one_of_each(f);
	assert_ok(prepare(f, "other", ""), &f->err);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct record before = get(f, "active"), after;

		assert_fails(commit(f, names[i], "active"), &f->err, ERR_ALREADY_EXISTS);
		after = get(f, "active");
		assert_same(&after, &before);
	}
}

static void only_an_active_one_is_committed(void **state)
{
	struct fixture *f = *state;

	one_of_each(f);
	assert_fails(commit(f, "name", "view"), &f->err, ERR_FAILED_PRECONDITION);
	assert_fails(commit(f, "name", "committed"), &f->err, ERR_FAILED_PRECONDITION);
	assert_absent(f, "name");
	assert_int_equal(get(f, "view").info.kind, SNAPSHOT_VIEW);
}

static void parent_with_children_stays(void **state)
{
	struct fixture *f = *state;

	one_of_each(f);
	assert_fails(remove_key(f, "committed"), &f->err, ERR_FAILED_PRECONDITION);
	assert_contains(f->err.msg, "remove");
	get(f, "committed");
	assert_ok(remove_key(f, "view"), &f->err);
	assert_ok(remove_key(f, "committed"), &f->err);
}

static void commit_may_bring_the_parent(void **state)
{
	struct fixture *f = *state;
	const struct strmap none = {0};

	one_of_each(f);
	layer(f, "other", "");
	assert_ok(prepare(f, "child", "committed"), &f->err);
	assert_fails(commit_with(f, "name", "child", "other", none), &f->err, ERR_INVALID_ARGUMENT);
	assert_fails(commit_with(f, "name", "child", "nobody", none), &f->err,
		     ERR_INVALID_ARGUMENT);
	assert_string_equal(get(f, "child").info.parent, "committed");
	assert_ok(commit_with(f, "name", "child", "committed", none), &f->err);

	assert_fails(commit_with(f, "name2", "active", "view", none), &f->err,
		     ERR_FAILED_PRECONDITION);
	assert_fails(commit_with(f, "name2", "active", "active", none), &f->err,
		     ERR_FAILED_PRECONDITION);
	assert_fails(commit_with(f, "name2", "active", "nobody", none), &f->err, ERR_NOT_FOUND);
	assert_absent(f, "name2");
	assert_ok(commit_with(f, "name2", "active", "name", none), &f->err);
	assert_string_equal(get(f, "name2").info.parent, "name");
	assert_fails(remove_key(f, "name"), &f->err, ERR_FAILED_PRECONDITION);
}

static void create_on_a_parent_that_was_replaced_says_so(void **state)
{
	struct fixture *f = *state;
	const struct snapshot_req req = {.key = "a", .parent = "base"};
	struct metastore_new row = {.kind = SNAPSHOT_ACTIVE, .req = &req};

	layer(f, "base", "");
	row.id = metastore_reserve_ids(f->store, 1);
	row.parent_id = id_of(f, "base");
	assert_ok(remove_key(f, "base"), &f->err);
	layer(f, "base", "");
	assert_int_equal(metastore_create(f->store, &f->ctx, &row, &f->err), 1);
	assert_absent(f, "a");
	row.parent_id = id_of(f, "base");
	assert_int_equal(metastore_create(f->store, &f->ctx, &row, &f->err), 0);
}

static void commit_of_a_key_that_was_replaced_says_so(void **state)
{
	struct fixture *f = *state;
	const struct commit_req req = {.name = "name", .key = "a", .parent = ""};
	const struct usage usage = {4096, 1};
	uint64_t id;

	assert_ok(prepare(f, "a", ""), &f->err);
	id = id_of(f, "a");
	assert_ok(remove_key(f, "a"), &f->err);
	assert_ok(prepare(f, "a", ""), &f->err);
	assert_int_equal(metastore_commit(f->store, &f->ctx, &req, id, &usage, &f->err), 1);
	assert_absent(f, "name");
	assert_int_equal(get(f, "a").info.kind, SNAPSHOT_ACTIVE);
}

static void call_without_memory_leaves_no_trace(void **state)
{
	struct fixture *f = *state;
	struct strmap map = labels(f, "a", "1", NULL);
	struct arena *arena = f->ctx.arena, small;
	struct record before, after;
	struct info info;

	one_of_each(f);
	before = get(f, "active");
	arena_init(&small, 1);
	f->ctx.arena = &small;
	assert_fails(metastore_get(f->store, &f->ctx, "active", &after, &f->err), &f->err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_fails(update_path(f, "active", NULL, map, &info), &f->err, ERR_RESOURCE_EXHAUSTED);
	f->ctx.arena = arena;
	after = get(f, "active");
	assert_same(&after, &before);

	/* What makes room needs none. */
	f->ctx.arena = &small;
	assert_ok(remove_key(f, "active"), &f->err);
	f->ctx.arena = arena;
	arena_done(&small);
	assert_absent(f, "active");
}

/* ---- labels ---- */

static void labels_are_kept_in_order_without_empty_ones(void **state)
{
	struct fixture *f = *state;
	struct record record;

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "",
			      labels(f, "b", "2", "", "no name", "a", "1", "c", "",
				     "containerd.io/snapshot.ref", "sha256:1", NULL)),
		  &f->err);
	record = get(f, "a");
	assert_labels(&record.info.labels, 4, "", "no name", "a", "1", "b", "2",
		      "containerd.io/snapshot.ref", "sha256:1");
}

static void commit_replaces_the_labels(void **state)
{
	struct fixture *f = *state;
	struct record record;

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", labels(f, "old", "1", "x", "1", NULL)),
		  &f->err);
	assert_ok(commit_with(f, "base", "a", "", labels(f, "x", "2", "none", "", NULL)), &f->err);
	record = get(f, "base");
	assert_labels(&record.info.labels, 1, "x", "2");

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", labels(f, "old", "1", NULL)), &f->err);
	assert_ok(commit(f, "base2", "a"), &f->err);
	assert_int_equal(get(f, "base2").info.labels.n, 0);
}

static void labels_go_with_their_snapshot(void **state)
{
	struct fixture *f = *state;

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", labels(f, "old", "1", NULL)), &f->err);
	assert_ok(remove_key(f, "a"), &f->err);
	assert_ok(prepare(f, "a", ""), &f->err);
	assert_int_equal(get(f, "a").info.labels.n, 0);
}

static void update_without_a_mask_replaces_all_labels(void **state)
{
	struct fixture *f = *state;
	const char *paths[] = {NULL, "labels"};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct record before, after;
		struct info info;

		assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "",
				      labels(f, "old", "1", "x", "1", NULL)),
			  &f->err);
		before = get(f, "a");
		assert_ok(update_path(f, "a", paths[i],
				      labels(f, "x", "2", "y", "3", "empty", "", NULL), &info),
			  &f->err);
		after = get(f, "a");
		assert_labels(&info.labels, 2, "x", "2", "y", "3");
		assert_labels(&after.info.labels, 2, "x", "2", "y", "3");
		assert_int_equal(info.id, before.info.id);
		assert_string_equal(info.name, "a");
		assert_string_equal(info.parent, "");
		assert_int_equal(info.kind, SNAPSHOT_ACTIVE);
		assert_int_equal(info.created_ns, before.info.created_ns);
		assert_int_equal(info.updated_ns, after.info.updated_ns);
		assert_ok(update_path(f, "a", paths[i], (struct strmap){0}, &info), &f->err);
		assert_int_equal(info.labels.n, 0);
		assert_ok(remove_key(f, "a"), &f->err);
	}
}

static void update_with_a_mask_changes_that_label_only(void **state)
{
	struct fixture *f = *state;
	struct info info;

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", labels(f, "k", "1", "x", "1", NULL)),
		  &f->err);
	assert_ok(update_path(f, "a", "labels.k", labels(f, "k", "2", "x", "2", NULL), &info),
		  &f->err);
	assert_labels(&info.labels, 2, "k", "2", "x", "1");
	/* Dots and slashes belong to the key. */
	assert_ok(update_path(f, "a", "labels.containerd.io/snapshot/a.b c",
			      labels(f, "containerd.io/snapshot/a.b c", "3", NULL), &info),
		  &f->err);
	assert_labels(&info.labels, 3, "containerd.io/snapshot/a.b c", "3", "k", "2", "x", "1");
	/* Not in the request, or empty there: removed. What is not there may be removed. */
	assert_ok(update_path(f, "a", "labels.k", labels(f, "z", "1", NULL), &info), &f->err);
	assert_ok(update_path(f, "a", "labels.containerd.io/snapshot/a.b c",
			      labels(f, "containerd.io/snapshot/a.b c", "", NULL), &info),
		  &f->err);
	assert_ok(update_path(f, "a", "labels.nothing", (struct strmap){0}, &info), &f->err);
	assert_labels(&info.labels, 1, "x", "1");
}

static void update_takes_several_paths(void **state)
{
	struct fixture *f = *state;
	const char *paths[] = {"labels.a", "labels.b"};
	struct update_req req = {.name = "a", .paths = paths, .n_paths = 2};
	struct info info;

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", labels(f, "a", "1", "c", "1", NULL)),
		  &f->err);
	req.labels = labels(f, "b", "2", "c", "2", NULL);
	assert_ok(metastore_update(f->store, &f->ctx, &req, &info, &f->err), &f->err);
	assert_labels(&info.labels, 2, "b", "2", "c", "1");
}

/* Done once for each path, these would be 16 million insertions in a transaction that all writers wait for. */
static void update_that_names_all_labels_often_does_it_once(void **state)
{
	struct fixture *f = *state;
	struct update_req req = {.name = "a"};
	struct info info;

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", labels(f, "old", "1", NULL)), &f->err);
	req.paths = arena_array(&f->arena, LABELS_MAX, sizeof(*req.paths));
	for (size_t i = 0; i < LABELS_MAX; i++) {
		assert_ok(strmap_append(&req.labels, &f->arena, arena_printf(&f->arena, "%06zu", i),
					"1", &f->err),
			  &f->err);
		req.paths[req.n_paths++] = i % 2 ? "labels" : "labels.000001";
	}
	assert_ok(metastore_update(f->store, &f->ctx, &req, &info, &f->err), &f->err);
	assert_int_equal(info.labels.n, LABELS_MAX);
	assert_null(strmap_get(&info.labels, "old"));
}

static void update_of_anything_else_is_refused(void **state)
{
	struct fixture *f = *state;
	const char *paths[] = {"parent", "name", "kind", "created_at", "labelsx", "labels.", ""};
	struct record before, after;
	struct info info;

	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", labels(f, "k", "1", NULL)), &f->err);
	before = get(f, "a");
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		const char *mixed[] = {"labels.k", paths[i]};
		const struct update_req req = {.name = "a", .paths = mixed, .n_paths = 2};

		assert_fails(update_path(f, "a", paths[i], labels(f, "k", "2", NULL), &info),
			     &f->err, ERR_INVALID_ARGUMENT);
		assert_fails(metastore_update(f->store, &f->ctx, &req, &info, &f->err), &f->err,
			     ERR_INVALID_ARGUMENT);
	}
	after = get(f, "a");
	assert_same(&after, &before);
}

static void labels_cannot_grow_without_end_by_updates(void **state)
{
	struct fixture *f = *state;
	static char value[LABEL_MAX_BYTES - 100];
	struct record before, after;
	const int n_max = LABELS_MAX_BYTES / sizeof(value) + 2;
	char path[64];
	struct info info;
	int i;

	memset(value, 'v', sizeof(value) - 1);
	assert_ok(prepare(f, "a", ""), &f->err);
	for (i = 0; i < n_max; i++) {
		snprintf(path, sizeof(path), "labels.k%d", i);
		before = get(f, "a");
		if (update_path(f, "a", path, labels(f, path + strlen("labels."), value, NULL),
				&info) < 0)
			break;
		arena_done(&f->arena);
	}
	assert_in_range(i, 1, n_max - 1);
	assert_int_equal(f->err.code, ERR_INVALID_ARGUMENT);
	after = get(f, "a");
	assert_same(&after, &before);
}

/* ---- times ---- */

static void times_are_those_of_the_calls(void **state)
{
	struct fixture *f = *state;
	int64_t begin = realtime_ns(), end;
	struct record made, committed;
	struct info info;

	assert_ok(prepare(f, "a", ""), &f->err);
	end = realtime_ns();
	made = get(f, "a");
	assert_int_equal(made.info.created_ns, made.info.updated_ns);
	assert_true(begin <= made.info.created_ns && made.info.created_ns <= end);

	begin = realtime_ns();
	assert_ok(update_path(f, "a", NULL, (struct strmap){0}, &info), &f->err);
	end = realtime_ns();
	assert_int_equal(info.created_ns, made.info.created_ns);
	assert_true(begin <= info.updated_ns && info.updated_ns <= end);

	begin = realtime_ns();
	assert_ok(commit(f, "base", "a"), &f->err);
	end = realtime_ns();
	committed = get(f, "base");
	assert_int_equal(committed.info.created_ns, committed.info.updated_ns);
	assert_true(begin <= committed.info.created_ns && committed.info.created_ns <= end);
}

/* ---- chains ---- */

static void chain_of_128_parents_is_read_nearest_first(void **state)
{
	struct fixture *f = *state;
	uint64_t ids[CHAIN_LEN];
	char name[32], parent[32] = "";
	struct record record;
	struct chain chain;

	for (int i = 0; i < CHAIN_LEN; i++) {
		snprintf(name, sizeof(name), "layer %d", i);
		layer(f, name, parent);
		ids[i] = id_of(f, name);
		strcpy(parent, name);
	}
	assert_ok(view(f, "top", parent), &f->err);
	assert_ok(metastore_get_chain(f->store, &f->ctx, "top", &record, &chain, &f->err), &f->err);
	assert_string_equal(record.info.name, "top");
	assert_int_equal(chain.n, CHAIN_LEN);
	for (int i = 0; i < CHAIN_LEN; i++)
		assert_int_equal(chain.ids[i], ids[CHAIN_LEN - 1 - i]);

	assert_ok(metastore_get_chain(f->store, &f->ctx, "layer 0", &record, &chain, &f->err),
		  &f->err);
	assert_int_equal(chain.n, 0);
}

/* ---- walks and ids ---- */

/** struct seen - what a walk told; @stop_after: ends it there with @result */
struct seen {
	struct fixture *f;
	size_t n;
	size_t stop_after;
	int result;
	uint64_t last_id;
	char names[1024];
};

static int see(void *arg, const struct info *info, struct err *err)
{
	struct seen *seen = arg;

	assert_true(info->id > seen->last_id);
	seen->last_id = info->id;
	if (strlen(seen->names) + strlen(info->name) + 2 < sizeof(seen->names))
		strcat(strcat(seen->names, info->name), ";");
	if (++seen->n == seen->stop_after) {
		if (seen->result < 0)
			err_set(err, ERR_ABORTED, "on purpose");
		return seen->result;
	}
	return 0;
}

static void assert_walk(struct fixture *f, const char *filter, uint64_t after_id, const char *names)
{
	struct filters *filters = NULL;
	struct seen seen = {.f = f};

	if (filter)
		assert_ok(filters_parse(&filter, 1, &filters, &f->err), &f->err);
	assert_ok(metastore_walk(f->store, &f->ctx, filters, after_id, see, &seen, &f->err),
		  &f->err);
	filters_free(filters);
	assert_string_equal(seen.names, names);
}

static void walk_of_an_empty_store_tells_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t *ids = NULL;
	size_t n = 1;

	assert_walk(f, NULL, 0, "");
	assert_ok(metastore_ids(f->store, &ids, &n, &f->err), &f->err);
	assert_int_equal(n, 0);
	free(ids);
}

static void walk_goes_by_id_and_filter(void **state)
{
	struct fixture *f = *state;

	layer(f, "z base", "");
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "m", "z base", labels(f, "a.b", "1", NULL)),
		  &f->err);
	assert_ok(create_with(f, SNAPSHOT_VIEW, "a", "z base",
			      labels(f, "a.b", "2", "c", "1", NULL)),
		  &f->err);
	assert_ok(prepare(f, "b", ""), &f->err);
	assert_walk(f, NULL, 0, "z base;m;a;b;");
	assert_walk(f, NULL, id_of(f, "m"), "a;b;");
	assert_walk(f, NULL, id_of(f, "b"), "");
	assert_walk(f, NULL, UINT64_MAX, "");
	assert_walk(f, "name==m", 0, "m;");
	assert_walk(f, "kind==active", 0, "m;b;");
	assert_walk(f, "kind==view", 0, "a;");
	assert_walk(f, "kind==committed", 0, "z base;");
	assert_walk(f, "parent==\"z base\"", 0, "m;a;");
	assert_walk(f, "parent==\"\"", 0, "z base;b;");
	assert_walk(f, "labels.\"a.b\"", 0, "m;a;");
	assert_walk(f, "labels.\"a.b\"==2,parent==\"z base\"", 0, "a;");
	assert_walk(f, "labels.\"a.b\"", id_of(f, "m"), "a;");
	assert_walk(f, "labels.c==1,kind==active", 0, "");
}

struct compared {
	struct fixture *f;
	size_t n;
};

static int compare_with_get(void *arg, const struct info *info, UNUSED struct err *err)
{
	struct compared *compared = arg;
	struct record record = get(compared->f, info->name);
	struct record walked = record;

	walked.info = *info;
	assert_same(&walked, &record);
	compared->n++;
	return 0;
}

static void walk_tells_what_get_tells(void **state)
{
	struct fixture *f = *state;
	struct compared compared = {.f = f};

	one_of_each(f);
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "l", "committed",
			      labels(f, "x", "1", "y", "2", NULL)),
		  &f->err);
	assert_ok(prepare(f, "without", ""), &f->err);
	assert_ok(create_with(f, SNAPSHOT_VIEW, "l2", "", labels(f, "x", "3", NULL)), &f->err);
	assert_ok(metastore_walk(f->store, &f->ctx, NULL, 0, compare_with_get, &compared, &f->err),
		  &f->err);
	assert_int_equal(compared.n, 6);
}

static void walk_ends_when_it_is_told_to(void **state)
{
	struct fixture *f = *state;
	struct seen seen = {.f = f, .stop_after = 2, .result = 1};
	atomic_bool cancelled = true;

	one_of_each(f);
	assert_int_equal(metastore_walk(f->store, &f->ctx, NULL, 0, see, &seen, &f->err), 1);
	assert_int_equal(seen.n, 2);
	seen = (struct seen){.f = f, .stop_after = 1, .result = -1};
	assert_fails(metastore_walk(f->store, &f->ctx, NULL, 0, see, &seen, &f->err), &f->err,
		     ERR_ABORTED);
	assert_int_equal(seen.n, 1);
	seen = (struct seen){.f = f};
	f->ctx.cancelled = &cancelled;
	assert_fails(metastore_walk(f->store, &f->ctx, NULL, 0, see, &seen, &f->err), &f->err,
		     ERR_CANCELLED);
	assert_int_equal(seen.n, 0);
}

struct adding {
	struct fixture *f;
	struct seen seen;
};

static void *add_one(void *arg)
{
	struct fixture *f = arg;
	struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	const struct snapshot_req req = {.key = "added", .parent = ""};
	const struct metastore_new row = {.id = metastore_reserve_ids(f->store, 1),
					  .kind = SNAPSHOT_ACTIVE,
					  .req = &req};
	struct err err = ERR_INIT;

	arena_init(&arena, ARENA_BYTES);
	assert_ok(metastore_create(f->store, &ctx, &row, &err), &err);
	arena_done(&arena);
	return NULL;
}

static int see_and_add(void *arg, const struct info *info, struct err *err)
{
	struct adding *adding = arg;
	pthread_t thread;

	if (adding->seen.n == 0) {
		assert_int_equal(pthread_create(&thread, NULL, add_one, adding->f), 0);
		pthread_join(thread, NULL);
	}
	return see(&adding->seen, info, err);
}

static void walk_sees_one_moment(void **state)
{
	struct fixture *f = *state;
	struct adding adding = {.f = f, .seen = {.f = f}};

	one_of_each(f);
	assert_ok(metastore_walk(f->store, &f->ctx, NULL, 0, see_and_add, &adding, &f->err),
		  &f->err);
	assert_int_equal(adding.seen.n, 3);
	assert_walk(f, NULL, 0, "committed;active;view;added;");
}

static void ten_thousand_are_listed_in_order(void **state)
{
	struct fixture *f = *state;
	struct seen seen = {.f = f};
	char name[64];
	uint64_t *ids = NULL;
	size_t n = 0;

	for (int i = 0; i < N_LISTED; i++) {
		snprintf(name, sizeof(name), "default/%d/some container's snapshot", i);
		assert_ok(create_with(f, SNAPSHOT_ACTIVE, name, "",
				      labels(f, "containerd.io/snapshot/x", name, NULL)),
			  &f->err);
		arena_done(&f->arena);
	}
	assert_ok(metastore_walk(f->store, &f->ctx, NULL, 0, see, &seen, &f->err), &f->err);
	assert_int_equal(seen.n, N_LISTED);
	/* Nothing of the rows is left in the arena of the call. */
	assert_true(f->arena.used_bytes < 1 << 20);

	reopen_store(f);
	assert_ok(metastore_ids(f->store, &ids, &n, &f->err), &f->err);
	assert_int_equal(n, N_LISTED);
	for (size_t i = 1; i < n; i++)
		assert_true(ids[i] > ids[i - 1]);
	free(ids);
}

static void ids_are_never_given_twice(void **state)
{
	struct fixture *f = *state;
	uint64_t first, id, *ids = NULL;
	size_t n;

	first = metastore_reserve_ids(f->store, 10);
	assert_true(first > 0);
	assert_true(metastore_reserve_ids(f->store, 1) >= first + 10);
	assert_ok(prepare(f, "a", ""), &f->err);
	assert_ok(prepare(f, "b", ""), &f->err);
	assert_ok(metastore_remove(f->store, &f->ctx, "b", &id, &f->err), &f->err);
	assert_ok(metastore_ids(f->store, &ids, &n, &f->err), &f->err);
	assert_int_equal(n, 1);
	assert_int_equal(ids[0], id_of(f, "a"));
	free(ids);

	/* Not even those of snapshots that are gone, nor after a restart. */
	reopen_store(f);
	assert_true(metastore_reserve_ids(f->store, 1) > id);
	metastore_skip_ids(f->store, id + 100000);
	assert_int_equal(metastore_reserve_ids(f->store, 1), id + 100001);
	metastore_skip_ids(f->store, 1);
	assert_true(metastore_reserve_ids(f->store, 1) > id + 100001);
}

/** struct submitted - a change that nobody waits for */
struct submitted {
	struct metastore_change change;
	struct err err;
	unsigned int n_done;
};

static void submitted_done(struct db_job *job)
{
	((struct submitted *)((char *)job - offsetof(struct submitted, change.job)))->n_done++;
}

/* In the row that is written, when it is the last of those that were noted, and the first that was not. */
static void ids_are_never_given_twice_at_the_edges_of_what_is_noted(void **state)
{
	static const uint64_t wanted[] = {1,
					  2,
					  IDS_AT_A_TIME,
					  IDS_AT_A_TIME + 1,
					  IDS_AT_A_TIME + 2,
					  2 * IDS_AT_A_TIME + 2,
					  2 * IDS_AT_A_TIME + 3,
					  10 * IDS_AT_A_TIME};
	struct fixture *f = *state;

	assert_true(metastore_is_virgin(f->store));
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		const struct snapshot_req req = {.key = "a", .parent = ""};
		const struct metastore_new row = {.id = wanted[i],
						  .kind = SNAPSHOT_ACTIVE,
						  .req = &req};

		assert_ok(metastore_create(f->store, &f->ctx, &row, &f->err), &f->err);
		/* Nothing tells of it but what was noted. */
		assert_ok(remove_key(f, "a"), &f->err);
		reopen_store(f);
		assert_false(metastore_is_virgin(f->store));
		assert_true(metastore_reserve_ids(f->store, 1) > wanted[i]);
		reopen_store(f);
	}
}

static void ids_are_never_given_twice_over_many_restarts(void **state)
{
	struct fixture *f = *state;
	uint64_t id, last = 0;

	for (int run = 0; run < 5; run++) {
		for (int i = 0; i < IDS_AT_A_TIME * 2 / 3; i++) {
			assert_ok(prepare(f, "a", ""), &f->err);
			id = 0;
			assert_ok(metastore_remove(f->store, &f->ctx, "a", &id, &f->err), &f->err);
			assert_true(id > last);
			last = id;
		}
		reopen_store(f);
	}
	/* And few are lost, or none would be left one day. */
	assert_true(last < 10 * IDS_AT_A_TIME);
}

/* The refused row is undone with what it noted, which those of the others must not rely on. */
static void ids_of_refused_rows_take_no_others_with_them(void **state)
{
	struct fixture *f = *state;
	const struct snapshot_req first = {.key = "a", .parent = "nobody"};
	const struct snapshot_req second = {.key = "b", .parent = ""};
	const struct metastore_new first_row = {.id = 5000,
						.kind = SNAPSHOT_ACTIVE,
						.req = &first,
						.parent_id = 4711};
	const struct metastore_new second_row = {.id = 5001,
						 .kind = SNAPSHOT_ACTIVE,
						 .req = &second};
	struct submitted refused = {.change.job.done = submitted_done};
	struct submitted taken = {.change.job.done = submitted_done};

	refused.change.job.err = &refused.err;
	taken.change.job.err = &taken.err;
	assert_true(metastore_submit_create(f->store, &f->ctx, &first_row, &refused.change));
	assert_false(metastore_submit_create(f->store, &f->ctx, &second_row, &taken.change));
	metastore_lead(f->store);
	assert_int_equal(refused.n_done + taken.n_done, 2);
	assert_fails(refused.change.job.result, &refused.err, ERR_NOT_FOUND);
	assert_ok(taken.change.job.result, &taken.err);
	assert_ok(remove_key(f, "b"), &f->err);
	reopen_store(f);
	assert_true(metastore_reserve_ids(f->store, 1) > 5001);
}

/* ---- restart, damage ---- */

static void everything_is_there_after_a_restart(void **state)
{
	struct fixture *f = *state;
	const char *keys[] = {"committed", "active", "view", "labelled"};
	struct record before[ARRAY_LEN(keys)];

	one_of_each(f);
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "labelled", "committed",
			      labels(f, "x", "1", "y", "2", NULL)),
		  &f->err);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		before[i] = get(f, keys[i]);
	reopen_store(f);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		struct record after = get(f, keys[i]);

		assert_same(&after, &before[i]);
	}
	assert_fails(prepare(f, "view", ""), &f->err, ERR_ALREADY_EXISTS);
}

static void labels_are_there_after_a_restart(void **state)
{
	struct fixture *f = *state;
	static char value[LABEL_MAX_BYTES - 10];
	struct record record;
	struct info info;

	memset(value, 'v', sizeof(value) - 1);
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "",
			      labels(f, "", "no name", "b", value, "\xc3\xa9", "\xe2\x82\xac",
				     NULL)),
		  &f->err);
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "c", "", labels(f, "old", "1", NULL)), &f->err);
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "u", "", labels(f, "old", "1", NULL)), &f->err);
	assert_ok(commit_with(f, "C", "c", "", labels(f, "new", "2", NULL)), &f->err);
	assert_ok(update_path(f, "u", "labels.more", labels(f, "more", "3", NULL), &info), &f->err);
	reopen_store(f);
	record = get(f, "a");
	assert_labels(&record.info.labels, 3, "", "no name", "b", value, "\xc3\xa9",
		      "\xe2\x82\xac");
	record = get(f, "C");
	assert_labels(&record.info.labels, 1, "new", "2");
	record = get(f, "u");
	assert_labels(&record.info.labels, 2, "more", "3", "old", "1");
}

static void labels_can_all_be_taken_away(void **state)
{
	struct fixture *f = *state;
	const char *keys[] = {"replaced", "unset", "emptied", "never"};
	struct info info;

	for (size_t i = 0; i < 3; i++)
		assert_ok(create_with(f, SNAPSHOT_ACTIVE, keys[i], "", labels(f, "x", "1", NULL)),
			  &f->err);
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "never", "", labels(f, "x", "", NULL)), &f->err);
	assert_ok(update_path(f, "replaced", NULL, (struct strmap){0}, &info), &f->err);
	assert_int_equal(info.labels.n, 0);
	assert_ok(update_path(f, "unset", "labels.x", (struct strmap){0}, &info), &f->err);
	assert_int_equal(info.labels.n, 0);
	assert_ok(update_path(f, "emptied", NULL, labels(f, "x", "", NULL), &info), &f->err);
	assert_int_equal(info.labels.n, 0);
	for (int run = 0; run < 2; run++) {
		for (size_t i = 0; i < ARRAY_LEN(keys); i++)
			assert_int_equal(get(f, keys[i]).info.labels.n, 0);
		reopen_store(f);
	}
	assert_ok(update_path(f, "unset", "labels.y", labels(f, "y", "2", NULL), &info), &f->err);
	assert_labels(&info.labels, 1, "y", "2");
}

/** struct damage - what somebody else has put into the row of @key: SQL for the value */
struct damage {
	const char *key;
	const char *sql;
};

static int damage_row(struct db_conn *conn, void *arg, struct err *err)
{
	const struct damage *damage = arg;
	struct db_stmt *stmt;

	if (db_prepare(conn, damage->sql, &stmt, err) < 0)
		return -1;
	db_bind_text(stmt, 1, damage->key);
	return db_step(stmt, err);
}

/* With the database open beside ours, which is closed meanwhile. */
static void damage_labels(struct fixture *f, const struct damage *damage)
{
	static const char *const none[] = {""};
	const struct db_options options = {.path = f->path,
					   .migrations = none,
					   .n_migrations = 1,
					   .n_readers = 1,
					   .application_id = 0x6c747373};
	struct db *db;

	metastore_close(f->store);
	f->store = NULL;
	assert_ok(db_open(&options, &db, &f->err), &f->err);
	assert_ok(db_write(db, damage_row, (void *)(uintptr_t)damage, NULL, NULL, &f->err),
		  &f->err);
	db_close(db);
	open_store(f);
}

#define DAMAGED(value_)                                                                            \
	{                                                                                          \
		"damaged", "UPDATE snapshots SET labels = " value_ " WHERE key = ?1"               \
	}

static void labels_at_the_caps_are_kept(void **state)
{
	struct fixture *f = *state;
	static char value[LABELS_MAX_BYTES / LABELS_MAX - 6 + 1];
	struct strmap map = {0};
	struct record record;
	size_t total = 0;

	memset(value, 'v', sizeof(value) - 1);
	for (size_t i = 0; i < LABELS_MAX; i++) {
		const char *key = arena_printf(&f->arena, "%06zu", i);

		total += strlen(key) + strlen(value);
		assert_ok(strmap_append(&map, &f->arena, key, value, &f->err), &f->err);
	}
	assert_int_equal(total, LABELS_MAX_BYTES);
	assert_ok(create_with(f, SNAPSHOT_ACTIVE, "a", "", map), &f->err);
	record = get(f, "a");
	assert_int_equal(record.info.labels.n, LABELS_MAX);
	assert_walk(f, NULL, 0, "a;");
}

static void damaged_labels_are_data_loss(void **state)
{
	static const struct damage damages[] = {
		DAMAGED("x'61'"), /* a name without its end */
		DAMAGED("x'6100'"), /* no value */
		DAMAGED("x'610062'"), /* a value without its end */
		DAMAGED("x'6100620063'"), /* the same of a second one */
		DAMAGED("x'61006200630064'"),
		DAMAGED("x'00'"),
		DAMAGED("x'000000'"),
		DAMAGED("'text'"),
		DAMAGED("4711"),
		DAMAGED("randomblob(100) || 'x'"),
		/* more, and larger, than labels may be */
		DAMAGED("zeroblob(2 * 4097)"),
		DAMAGED("zeroblob(1000000)"),
		DAMAGED("x'6100' || zeroblob(9000000)"),
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
		struct strmap some = labels(f, "x", "1", NULL);
		struct record record;
		struct chain chain;
		struct info info;
		struct seen seen = {.f = f};

		assert_ok(create_with(f, SNAPSHOT_ACTIVE, "damaged", "", some), &f->err);
		assert_ok(create_with(f, SNAPSHOT_ACTIVE, "well", "", some), &f->err);
		damage_labels(f, &damages[i]);
		assert_fails(metastore_get(f->store, &f->ctx, "damaged", &record, &f->err), &f->err,
			     ERR_DATA_LOSS);
		assert_contains(f->err.msg, "'damaged'");
		assert_fails(metastore_get_chain(f->store, &f->ctx, "damaged", &record, &chain,
						 &f->err),
			     &f->err, ERR_DATA_LOSS);
		assert_fails(update_path(f, "damaged", "labels.x", some, &info), &f->err,
			     ERR_DATA_LOSS);
		assert_fails(metastore_walk(f->store, &f->ctx, NULL, 0, see, &seen, &f->err),
			     &f->err, ERR_DATA_LOSS);
		/* The others are as they were, and it can be removed. */
		record = get(f, "well");
		assert_labels(&record.info.labels, 1, "x", "1");
		assert_ok(remove_key(f, "damaged"), &f->err);
		assert_walk(f, NULL, 0, "well;");
		assert_ok(remove_key(f, "well"), &f->err);
	}
}

static void damaged_parent_is_no_harm_to_its_children(void **state)
{
	static const struct damage damage = DAMAGED("x'61'");
	struct fixture *f = *state;
	struct record record;
	struct chain chain;

	layer(f, "damaged", "");
	assert_ok(prepare(f, "child", "damaged"), &f->err);
	damage_labels(f, &damage);
	assert_ok(metastore_get_chain(f->store, &f->ctx, "child", &record, &chain, &f->err),
		  &f->err);
	assert_string_equal(record.info.parent, "damaged");
	assert_int_equal(chain.n, 1);
	assert_ok(commit(f, "CHILD", "child"), &f->err);
	assert_ok(remove_key(f, "CHILD"), &f->err);
	assert_ok(remove_key(f, "damaged"), &f->err);
}

static void file_that_is_no_metastore_is_refused_untouched(void **state)
{
	struct fixture *f = *state;
	CLEANUP(free_ptr) char *path = temp_root_path(f->root, "other.db");
	static const char text[] = "something else, longer than the header that sqlite looks at: "
				   "0123456789012345678901234567890123456789012345678901234567890";
	struct metastore *store = NULL;
	char back[sizeof(text)];
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
	assert_fails(metastore_open(path, &store, &f->err), &f->err, ERR_DATA_LOSS);
	assert_null(store);
	assert_int_equal(pread(fd, back, sizeof(back), 0), sizeof(back));
	assert_memory_equal(back, text, sizeof(text));
	close(fd);
}

static void close_accepts_null(UNUSED void **state)
{
	metastore_close(NULL);
}

/* ---- many at once ---- */

typedef void (*work_fn)(struct fixture *f, unsigned int number);

/** struct worker - a thread with an arena of its own; @common: a barrier to start together */
struct worker {
	struct fixture own;
	pthread_t thread;
	pthread_barrier_t *start;
	work_fn work;
	unsigned int number;
};

static void *worker_main(void *arg)
{
	struct worker *worker = arg;

	pthread_barrier_wait(worker->start);
	worker->work(&worker->own, worker->number);
	return NULL;
}

static void run_workers(struct fixture *f, work_fn work)
{
	static struct worker workers[N_THREADS];
	pthread_barrier_t start;

	pthread_barrier_init(&start, NULL, N_THREADS);
	for (unsigned int i = 0; i < N_THREADS; i++) {
		struct worker *worker = &workers[i];

		*worker = (struct worker){.own = *f, .start = &start, .work = work, .number = i};
		arena_init(&worker->own.arena, ARENA_BYTES);
		worker->own.ctx.arena = &worker->own.arena;
		assert_int_equal(pthread_create(&worker->thread, NULL, worker_main, worker), 0);
	}
	for (unsigned int i = 0; i < N_THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		arena_done(&workers[i].own.arena);
	}
	pthread_barrier_destroy(&start);
}

static void build_and_remove_a_chain(struct fixture *f, unsigned int number)
{
	char names[10][32], key[32];

	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 10; i++) {
			snprintf(names[i], sizeof(names[i]), "%u layer %d", number, i);
			snprintf(key, sizeof(key), "%u key %d", number, i);
			assert_ok(prepare(f, key, i ? names[i - 1] : ""), &f->err);
			assert_ok(commit(f, names[i], key), &f->err);
		}
		assert_fails(remove_key(f, names[0]), &f->err, ERR_FAILED_PRECONDITION);
		for (int i = 10; i-- > (round == 4);)
			assert_ok(remove_key(f, names[i]), &f->err);
	}
}

static void threads_do_not_disturb_each_other(void **state)
{
	struct fixture *f = *state;
	uint64_t *ids = NULL;
	size_t n;

	run_workers(f, build_and_remove_a_chain);
	assert_ok(metastore_ids(f->store, &ids, &n, &f->err), &f->err);
	assert_int_equal(n, N_THREADS);
	free(ids);
}

#define N_RACES 50

static atomic_uint n_won;

static void race_for_keys(struct fixture *f, UNUSED unsigned int number)
{
	char key[32];

	for (int i = 0; i < N_RACES; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		if (prepare(f, key, "") == 0)
			atomic_fetch_add(&n_won, 1);
		else
			assert_int_equal(f->err.code, ERR_ALREADY_EXISTS);
	}
}

static void race_for_names(struct fixture *f, unsigned int number)
{
	char key[32], name[32];

	for (int i = 0; i < N_RACES; i++) {
		snprintf(key, sizeof(key), "%u key %d", number, i);
		snprintf(name, sizeof(name), "name %d", i);
		assert_ok(prepare(f, key, ""), &f->err);
		if (commit(f, name, key) == 0)
			atomic_fetch_add(&n_won, 1);
		else
			assert_int_equal(f->err.code, ERR_ALREADY_EXISTS);
	}
}

static void one_of_several_gets_a_key(void **state)
{
	struct fixture *f = *state;

	atomic_store(&n_won, 0);
	run_workers(f, race_for_keys);
	assert_int_equal(n_won, N_RACES);
	atomic_store(&n_won, 0);
	run_workers(f, race_for_names);
	assert_int_equal(n_won, N_RACES);
}

static void stand_on_what_others_remove(struct fixture *f, unsigned int number)
{
	char name[32], child[32];

	for (int i = 0; i < N_RACES; i++) {
		snprintf(name, sizeof(name), "base %d", i);
		snprintf(child, sizeof(child), "child %d %u", i, number);
		if (number % 2) {
			if (remove_key(f, name) < 0)
				assert_true(f->err.code == ERR_NOT_FOUND ||
					    f->err.code == ERR_FAILED_PRECONDITION);
		} else {
			int result = prepare(f, child, name);

			/* Gone before, or between the look and the row: never a row without its parent. */
			assert_true(result == 0 || (result == -1 && f->err.code == ERR_NOT_FOUND));
		}
	}
}

static int check_parent_is_there(void *arg, const struct info *info, UNUSED struct err *err)
{
	struct fixture *f = arg;

	if (strncmp(info->name, "child", 5) == 0)
		assert_int_equal(get(f, info->parent).info.kind, SNAPSHOT_COMMITTED);
	return 0;
}

static void no_child_loses_its_parent(void **state)
{
	struct fixture *f = *state;
	char name[32];

	for (int i = 0; i < N_RACES; i++) {
		snprintf(name, sizeof(name), "base %d", i);
		layer(f, name, "");
	}
	run_workers(f, stand_on_what_others_remove);
	assert_ok(metastore_walk(f->store, &f->ctx, NULL, 0, check_parent_is_there, f, &f->err),
		  &f->err);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(snapshots_go_through_their_states),
		TEST(parents_are_told_by_their_names_now),
		TEST(keys_are_opaque),
		TEST(unknown_key_is_not_found),
		TEST(unknown_parent_is_not_found),
		TEST(parent_must_be_committed),
		TEST(taken_key_already_exists_in_any_kind),
		TEST(commit_under_a_taken_name_leaves_the_active_one),
		TEST(only_an_active_one_is_committed),
		TEST(parent_with_children_stays),
		TEST(commit_may_bring_the_parent),
		TEST(create_on_a_parent_that_was_replaced_says_so),
		TEST(commit_of_a_key_that_was_replaced_says_so),
		TEST(call_without_memory_leaves_no_trace),
		TEST(labels_are_kept_in_order_without_empty_ones),
		TEST(commit_replaces_the_labels),
		TEST(labels_go_with_their_snapshot),
		TEST(update_without_a_mask_replaces_all_labels),
		TEST(update_with_a_mask_changes_that_label_only),
		TEST(update_takes_several_paths),
		TEST(update_that_names_all_labels_often_does_it_once),
		TEST(update_of_anything_else_is_refused),
		TEST(labels_cannot_grow_without_end_by_updates),
		TEST(times_are_those_of_the_calls),
		TEST(chain_of_128_parents_is_read_nearest_first),
		TEST(walk_of_an_empty_store_tells_nothing),
		TEST(walk_goes_by_id_and_filter),
		TEST(walk_tells_what_get_tells),
		TEST(walk_ends_when_it_is_told_to),
		TEST(walk_sees_one_moment),
		TEST(ten_thousand_are_listed_in_order),
		TEST(ids_are_never_given_twice),
		TEST(ids_are_never_given_twice_at_the_edges_of_what_is_noted),
		TEST(ids_are_never_given_twice_over_many_restarts),
		TEST(ids_of_refused_rows_take_no_others_with_them),
		TEST(everything_is_there_after_a_restart),
		TEST(labels_are_there_after_a_restart),
		TEST(labels_can_all_be_taken_away),
		TEST(labels_at_the_caps_are_kept),
		TEST(damaged_labels_are_data_loss),
		TEST(damaged_parent_is_no_harm_to_its_children),
		TEST(file_that_is_no_metastore_is_refused_untouched),
		TEST(threads_do_not_disturb_each_other),
		TEST(one_of_several_gets_a_key),
		TEST(no_child_loses_its_parent),
		cmocka_unit_test(close_accepts_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
