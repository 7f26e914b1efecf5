/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service over a real socket: what requests become, what answers look like on the wire. That the
 * operations themselves do right is for tests/conformance.
 */
#include "snapshotters/service.h"

#include <stdlib.h>
#include <string.h>

#include "containerd/services/snapshots/v1/snapshots.pb-c.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "tests/support/fake_snapshotter.h"
#include "tests/support/snapshot_server.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define MSG(name)    Containerd__Services__Snapshots__V1__##name
#define INIT(name)   CONTAINERD__SERVICES__SNAPSHOTS__V1__##name##__INIT
#define TYPE(name)   (&containerd__services__snapshots__v1__##name##__descriptor)
#define EMPTY_TYPE   (&google__protobuf__empty__descriptor)
#define METHOD(name) "/containerd.services.snapshots.v1.Snapshots/" name

/* Go's zero time, as containerd sends it. */
#define YEAR_1_SECONDS INT64_C(-62135596800)

struct fixture {
	struct temp_root *root;
	char *path;
	const struct snapshotter_ops *ops;
	void *backend;
	struct snapshot_server *server;
	struct rpc_client *client;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static struct fixture *fixture_new(const struct snapshotter_ops *ops, size_t max_queue_bytes)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->root = temp_root_new();
	fx->path = temp_root_path(fx->root, "socket");
	fx->ops = ops;
	assert_ok(ops->open("/fake", NULL, &fx->backend, &fx->err), &fx->err);
	fx->server = snapshot_server_start(fx->path, ops, fx->backend, max_queue_bytes);
	assert_ok(rpc_client_new(fx->path, &fx->client, &fx->err), &fx->err);
	arena_init(&fx->arena, 256u << 20);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	return fx;
}

static int setup(void **state)
{
	*state = fixture_new(&fake_snapshotter_ops, 0);
	return 0;
}

/* A queue that is full after each message, so that each page is a walk of its own. */
static int setup_small_queue(void **state)
{
	*state = fixture_new(&fake_snapshotter_ops, 1);
	return 0;
}

static int setup_without_cleanup(void **state)
{
	*state = fixture_new(&fake_snapshotter_ops_without_cleanup, 0);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	rpc_client_free(fx->client);
	snapshot_server_stop(fx->server);
	fx->ops->close(fx->backend);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx->path);
	free(fx);
	return 0;
}

static int call(struct fixture *fx, const char *method, const ProtobufCMessage *request,
		const ProtobufCMessageDescriptor *type, void *ret_response)
{
	ProtobufCMessage *response = NULL;
	int result = rpc_client_call(fx->client, &fx->ctx, method, NULL, 0, request, type,
				     &response, &fx->err);

	if (result == 0 && ret_response)
		memcpy(ret_response, &response, sizeof(response));
	return result;
}

static int prepare(struct fixture *fx, const char *key, const char *parent)
{
	MSG(PrepareSnapshotRequest) request = INIT(PREPARE_SNAPSHOT_REQUEST);

	request.key = (char *)key;
	request.parent = (char *)parent;
	return call(fx, METHOD("Prepare"), &request.base, TYPE(prepare_snapshot_response), NULL);
}

static int commit(struct fixture *fx, const char *name, const char *key)
{
	MSG(CommitSnapshotRequest) request = INIT(COMMIT_SNAPSHOT_REQUEST);

	request.name = (char *)name;
	request.key = (char *)key;
	return call(fx, METHOD("Commit"), &request.base, EMPTY_TYPE, NULL);
}

static int stat_key(struct fixture *fx, const char *key, MSG(Info) * *ret_info)
{
	MSG(StatSnapshotRequest) request = INIT(STAT_SNAPSHOT_REQUEST);
	MSG(StatSnapshotResponse) * response;

	request.key = (char *)key;
	if (call(fx, METHOD("Stat"), &request.base, TYPE(stat_snapshot_response), &response) < 0)
		return -1;
	*ret_info = response->info;
	return 0;
}

static char *letters(struct fixture *fx, size_t n)
{
	char *text = arena_alloc(&fx->arena, n + 1);

	assert_non_null(text);
	memset(text, 'x', n);
	text[n] = '\0';
	return text;
}

/* --- requests ---------------------------------------------------------------------------------------- */

static void empty_labels_are_not_stored(void **state)
{
	struct fixture *fx = *state;
	MSG(PrepareSnapshotRequest__LabelsEntry)
	kept = INIT(PREPARE_SNAPSHOT_REQUEST__LABELS_ENTRY),
	empty = INIT(PREPARE_SNAPSHOT_REQUEST__LABELS_ENTRY);
	MSG(PrepareSnapshotRequest__LabelsEntry) * labels[] = {&empty, &kept};
	MSG(CommitSnapshotRequest__LabelsEntry)
	commit_kept = INIT(COMMIT_SNAPSHOT_REQUEST__LABELS_ENTRY),
	commit_empty = INIT(COMMIT_SNAPSHOT_REQUEST__LABELS_ENTRY);
	MSG(CommitSnapshotRequest__LabelsEntry) * commit_labels[] = {&commit_empty, &commit_kept};
	MSG(PrepareSnapshotRequest) request = INIT(PREPARE_SNAPSHOT_REQUEST);
	MSG(CommitSnapshotRequest) commit_request = INIT(COMMIT_SNAPSHOT_REQUEST);
	MSG(Info) * info;

	empty.key = (char *)"a";
	kept.key = (char *)"b";
	kept.value = (char *)"1";
	request.key = (char *)"k";
	request.labels = labels;
	request.n_labels = 2;
	assert_ok(call(fx, METHOD("Prepare"), &request.base, TYPE(prepare_snapshot_response), NULL),
		  &fx->err);
	assert_ok(stat_key(fx, "k", &info), &fx->err);
	assert_int_equal(info->n_labels, 1);
	assert_string_equal(info->labels[0]->key, "b");
	assert_string_equal(info->labels[0]->value, "1");

	commit_empty.key = (char *)"c";
	commit_kept.key = (char *)"d";
	commit_kept.value = (char *)"2";
	commit_request.key = (char *)"k";
	commit_request.name = (char *)"n";
	commit_request.labels = commit_labels;
	commit_request.n_labels = 2;
	assert_ok(call(fx, METHOD("Commit"), &commit_request.base, EMPTY_TYPE, NULL), &fx->err);
	assert_ok(stat_key(fx, "n", &info), &fx->err);
	assert_int_equal(info->n_labels, 1);
	assert_string_equal(info->labels[0]->key, "d");
}

static void oversized_labels_are_refused(void **state)
{
	struct fixture *fx = *state;
	MSG(PrepareSnapshotRequest__LabelsEntry)
	label = INIT(PREPARE_SNAPSHOT_REQUEST__LABELS_ENTRY);
	MSG(PrepareSnapshotRequest__LabelsEntry) * labels[LABELS_MAX + 1];
	MSG(PrepareSnapshotRequest) request = INIT(PREPARE_SNAPSHOT_REQUEST);

	label.key = (char *)"k";
	label.value = letters(fx, 4096);
	for (size_t i = 0; i < ARRAY_LEN(labels); i++)
		labels[i] = &label;
	request.key = (char *)"k";
	request.labels = labels;
	request.n_labels = 1;
	assert_fails(call(fx, METHOD("Prepare"), &request.base, TYPE(prepare_snapshot_response),
			  NULL),
		     &fx->err, ERR_INVALID_ARGUMENT);
	label.value = (char *)"1";
	request.n_labels = ARRAY_LEN(labels);
	assert_fails(call(fx, METHOD("Prepare"), &request.base, TYPE(prepare_snapshot_response),
			  NULL),
		     &fx->err, ERR_INVALID_ARGUMENT);
	assert_int_equal(fake_n_calls(fx->backend, FAKE_PREPARE), 0);
	/* One key many times is one label. */
	request.n_labels = ARRAY_LEN(labels) - 1;
	assert_ok(call(fx, METHOD("Prepare"), &request.base, TYPE(prepare_snapshot_response), NULL),
		  &fx->err);
}

static void unusable_keys_are_refused_before_the_backend(void **state)
{
	struct fixture *fx = *state;
	const char *const keys[] = {"", letters(fx, SNAPSHOT_KEY_MAX_BYTES + 1), "\xff", "a\xc3"};
	MSG(Info) * info;

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		MSG(MountsRequest) mounts = INIT(MOUNTS_REQUEST);
		MSG(RemoveSnapshotRequest) removal = INIT(REMOVE_SNAPSHOT_REQUEST);
		MSG(UsageRequest) usage = INIT(USAGE_REQUEST);

		assert_fails(prepare(fx, keys[i], ""), &fx->err, ERR_INVALID_ARGUMENT);
		assert_fails(stat_key(fx, keys[i], &info), &fx->err, ERR_INVALID_ARGUMENT);
		assert_fails(commit(fx, keys[i], "k"), &fx->err, ERR_INVALID_ARGUMENT);
		assert_fails(commit(fx, "n", keys[i]), &fx->err, ERR_INVALID_ARGUMENT);
		mounts.key = removal.key = usage.key = (char *)keys[i];
		assert_fails(call(fx, METHOD("Mounts"), &mounts.base, TYPE(mounts_response), NULL),
			     &fx->err, ERR_INVALID_ARGUMENT);
		assert_fails(call(fx, METHOD("Remove"), &removal.base, EMPTY_TYPE, NULL), &fx->err,
			     ERR_INVALID_ARGUMENT);
		assert_fails(call(fx, METHOD("Usage"), &usage.base, TYPE(usage_response), NULL),
			     &fx->err, ERR_INVALID_ARGUMENT);
		if (keys[i][0])
			assert_fails(prepare(fx, "k", keys[i]), &fx->err, ERR_INVALID_ARGUMENT);
	}
	for (int i = 0; i < FAKE_N_CALLS; i++)
		assert_int_equal(fake_n_calls(fx->backend, (enum fake_call)i), 0);
}

static void any_name_of_the_snapshotter_will_do(void **state)
{
	struct fixture *fx = *state;
	MSG(PrepareSnapshotRequest) request = INIT(PREPARE_SNAPSHOT_REQUEST);

	request.snapshotter = (char *)"whatever the operator called it";
	request.key = (char *)"k";
	assert_ok(call(fx, METHOD("Prepare"), &request.base, TYPE(prepare_snapshot_response), NULL),
		  &fx->err);
}

static void the_namespace_reaches_the_backend(void **state)
{
	struct fixture *fx = *state;
	const struct rpc_metadata metadata = {.name = "containerd-namespace", .value = "k8s.io"};
	MSG(PrepareSnapshotRequest) request = INIT(PREPARE_SNAPSHOT_REQUEST);
	ProtobufCMessage *response;
	char *ns;

	request.key = (char *)"k";
	assert_ok(rpc_client_call(fx->client, &fx->ctx, METHOD("Prepare"), &metadata, 1,
				  &request.base, TYPE(prepare_snapshot_response), &response,
				  &fx->err),
		  &fx->err);
	ns = fake_last_ns(fx->backend);
	assert_string_equal(ns, "k8s.io");
	free(ns);
	assert_ok(prepare(fx, "k2", ""), &fx->err);
	ns = fake_last_ns(fx->backend);
	assert_string_equal(ns, "");
	free(ns);
}

static void update_takes_what_containerd_sends(void **state)
{
	struct fixture *fx = *state;
	Google__Protobuf__Timestamp year_1 = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	char *paths[] = {(char *)"labels.foo", (char *)"labels.containerd.io/snapshot/x"};
	MSG(UpdateSnapshotRequest) request = INIT(UPDATE_SNAPSHOT_REQUEST);
	MSG(Info__LabelsEntry) label = INIT(INFO__LABELS_ENTRY);
	MSG(Info__LabelsEntry) * labels[] = {&label};
	MSG(Info) info = INIT(INFO);
	MSG(UpdateSnapshotResponse) * response;

	assert_ok(prepare(fx, "k", ""), &fx->err);
	/* It names a label in the mask that it has filtered out, and the times of nobody. */
	year_1.seconds = YEAR_1_SECONDS;
	label.key = (char *)"containerd.io/snapshot/x";
	label.value = (char *)"y";
	info.name = (char *)"k";
	info.kind = (MSG(Kind))SNAPSHOT_COMMITTED;
	info.created_at = info.updated_at = &year_1;
	info.labels = labels;
	info.n_labels = 1;
	mask.paths = paths;
	mask.n_paths = 2;
	request.info = &info;
	request.update_mask = &mask;
	assert_ok(call(fx, METHOD("Update"), &request.base, TYPE(update_snapshot_response),
		       &response),
		  &fx->err);
	assert_string_equal(response->info->name, "k");
	assert_int_equal(response->info->kind, SNAPSHOT_ACTIVE);
	assert_true(response->info->created_at->seconds > 0);
	assert_int_equal(response->info->n_labels, 1);
	assert_string_equal(response->info->labels[0]->value, "y");
}

static void update_without_info_is_refused(void **state)
{
	struct fixture *fx = *state;
	MSG(UpdateSnapshotRequest) request = INIT(UPDATE_SNAPSHOT_REQUEST);

	assert_fails(call(fx, METHOD("Update"), &request.base, TYPE(update_snapshot_response),
			  NULL),
		     &fx->err, ERR_INVALID_ARGUMENT);
	assert_int_equal(fake_n_calls(fx->backend, FAKE_UPDATE), 0);
}

/* --- answers ----------------------------------------------------------------------------------------- */

static int try_call(struct fixture *fx, enum fake_call which)
{
	MSG(PrepareSnapshotRequest) prepare_it = INIT(PREPARE_SNAPSHOT_REQUEST);
	MSG(ViewSnapshotRequest) view = INIT(VIEW_SNAPSHOT_REQUEST);
	MSG(MountsRequest) mounts = INIT(MOUNTS_REQUEST);
	MSG(RemoveSnapshotRequest) removal = INIT(REMOVE_SNAPSHOT_REQUEST);
	MSG(UpdateSnapshotRequest) update = INIT(UPDATE_SNAPSHOT_REQUEST);
	MSG(UsageRequest) usage = INIT(USAGE_REQUEST);
	MSG(CleanupRequest) cleanup = INIT(CLEANUP_REQUEST);
	MSG(ListSnapshotsRequest) list = INIT(LIST_SNAPSHOTS_REQUEST);
	MSG(Info) info = INIT(INFO), *told;
	struct rpc_stream *stream;
	ProtobufCMessage *msg;
	int result;

	prepare_it.key = view.key = mounts.key = removal.key = usage.key = info.name = (char *)"k";
	update.info = &info;
	switch (which) {
	case FAKE_PREPARE:
		return call(fx, METHOD("Prepare"), &prepare_it.base,
			    TYPE(prepare_snapshot_response), NULL);
	case FAKE_VIEW:
		return call(fx, METHOD("View"), &view.base, TYPE(view_snapshot_response), NULL);
	case FAKE_MOUNTS:
		return call(fx, METHOD("Mounts"), &mounts.base, TYPE(mounts_response), NULL);
	case FAKE_COMMIT:
		return commit(fx, "n", "k");
	case FAKE_REMOVE:
		return call(fx, METHOD("Remove"), &removal.base, EMPTY_TYPE, NULL);
	case FAKE_STAT:
		return stat_key(fx, "k", &told);
	case FAKE_UPDATE:
		return call(fx, METHOD("Update"), &update.base, TYPE(update_snapshot_response),
			    NULL);
	case FAKE_WALK:
		assert_ok(rpc_stream_open(fx->client, &fx->ctx, METHOD("List"), NULL, 0,
					  TYPE(list_snapshots_response), &stream, &fx->err),
			  &fx->err);
		assert_ok(rpc_stream_send(stream, &list.base, &fx->err), &fx->err);
		result = rpc_stream_recv(stream, &fx->arena, &msg, &fx->err);
		rpc_stream_free(stream);
		return result;
	case FAKE_USAGE:
		return call(fx, METHOD("Usage"), &usage.base, TYPE(usage_response), NULL);
	case FAKE_CLEANUP:
	default:
		return call(fx, METHOD("Cleanup"), &cleanup.base, EMPTY_TYPE, NULL);
	}
}

static void the_code_of_every_failure_reaches_the_client(void **state)
{
	static const char *const names[FAKE_N_CALLS] = {
		"prepare 'k': ", "view 'k': ",   "mounts 'k': ", "commit 'k': ", "remove 'k': ",
		"stat 'k': ",    "update 'k': ", "list: ",       "usage 'k': ",  "cleanup: "};
	struct fixture *fx = *state;

	for (int which = 0; which < FAKE_N_CALLS; which++) {
		for (int code = ERR_CANCELLED; code <= ERR_UNAUTHENTICATED; code++) {
			fake_fail(fx->backend, (enum fake_call)which, (enum err_code)code, 1);
			assert_fails(try_call(fx, (enum fake_call)which), &fx->err,
				     (enum err_code)code);
			assert_contains(fx->err.msg, names[which]);
			assert_contains(fx->err.msg, "failing on request");
		}
	}
}

static void a_long_key_does_not_hide_the_cause(void **state)
{
	struct fixture *fx = *state;
	char *key = letters(fx, SNAPSHOT_KEY_MAX_BYTES);
	MSG(Info) * info;

	for (size_t i = 1; i + 1 < SNAPSHOT_KEY_MAX_BYTES; i += 2)
		memcpy(key + i, "\xc3\xa9", 2);
	fake_fail(fx->backend, FAKE_STAT, ERR_INTERNAL, 1);
	assert_fails(stat_key(fx, key, &info), &fx->err, ERR_INTERNAL);
	assert_contains(fx->err.msg, "\xc3\xa9...': failing on request");
}

static void cleanup_that_is_not_offered_is_unimplemented(void **state)
{
	struct fixture *fx = *state;

	assert_fails(try_call(fx, FAKE_CLEANUP), &fx->err, ERR_UNIMPLEMENTED);
}

/* A backend with answers at the edges of their types. */
static int edge_open(const char *root, const void *conf, void **ret_self, struct err *err)
{
	(void)root;
	(void)conf;
	(void)err;
	*ret_self = NULL;
	return 0;
}

static void edge_close(void *self)
{
	(void)self;
}

static int edge_stat(void *self, struct ctx *ctx, const char *key, struct info *ret_info,
		     struct err *err)
{
	(void)self;
	(void)ctx;
	(void)err;
	*ret_info = (struct info){
		.name = key,
		.parent = "",
		.kind = SNAPSHOT_VIEW,
		.created_ns = -1,
		.updated_ns = INT64_C(1700000000123456789),
	};
	return 0;
}

static int edge_usage(void *self, struct ctx *ctx, const char *key, struct usage *ret_usage,
		      struct err *err)
{
	(void)self;
	(void)ctx;
	(void)key;
	(void)err;
	*ret_usage = (struct usage){.size_bytes = UINT64_MAX, .inodes = INT64_MAX};
	return 0;
}

static int edge_mounts(void *self, struct ctx *ctx, const char *key, struct mounts *ret_mounts,
		       struct err *err)
{
	static const char *options[] = {"ro", "loop"};
	static const struct mount mounts[] = {
		{.type = "ext4", .source = "/dev/x", .options = options, .n_options = 2},
		{.type = "bind", .source = "/y", .target = "sub/dir"},
	};

	(void)self;
	(void)key;
	ret_mounts->items = arena_alloc(ctx->arena, sizeof(mounts));
	if (!ret_mounts->items)
		return ctx_no_memory(err);
	memcpy(ret_mounts->items, mounts, sizeof(mounts));
	ret_mounts->n = 2;
	return 0;
}

static const struct snapshotter_ops edge_ops = {
	.name = "edge",
	.open = edge_open,
	.close = edge_close,
	.stat = edge_stat,
	.usage = edge_usage,
	.mounts = edge_mounts,
};

static int setup_edge(void **state)
{
	*state = fixture_new(&edge_ops, 0);
	return 0;
}

static void times_keep_their_nanoseconds(void **state)
{
	struct fixture *fx = *state;
	MSG(Info) * info;

	assert_ok(stat_key(fx, "k", &info), &fx->err);
	assert_int_equal(info->created_at->seconds, -1);
	assert_int_equal(info->created_at->nanos, 999999999);
	assert_int_equal(info->updated_at->seconds, 1700000000);
	assert_int_equal(info->updated_at->nanos, 123456789);
}

static void usage_beyond_the_wire_is_the_largest_there(void **state)
{
	struct fixture *fx = *state;
	MSG(UsageRequest) request = INIT(USAGE_REQUEST);
	MSG(UsageResponse) * response;

	request.key = (char *)"k";
	assert_ok(call(fx, METHOD("Usage"), &request.base, TYPE(usage_response), &response),
		  &fx->err);
	assert_true(response->size == INT64_MAX);
	assert_true(response->inodes == INT64_MAX);
}

static void mounts_carry_all_their_fields(void **state)
{
	struct fixture *fx = *state;
	MSG(MountsRequest) request = INIT(MOUNTS_REQUEST);
	MSG(MountsResponse) * response;

	request.key = (char *)"k";
	assert_ok(call(fx, METHOD("Mounts"), &request.base, TYPE(mounts_response), &response),
		  &fx->err);
	assert_int_equal(response->n_mounts, 2);
	assert_string_equal(response->mounts[0]->type, "ext4");
	assert_string_equal(response->mounts[0]->source, "/dev/x");
	assert_string_equal(response->mounts[0]->target, "");
	assert_int_equal(response->mounts[0]->n_options, 2);
	assert_string_equal(response->mounts[0]->options[0], "ro");
	assert_string_equal(response->mounts[0]->options[1], "loop");
	assert_string_equal(response->mounts[1]->target, "sub/dir");
	assert_int_equal(response->mounts[1]->n_options, 0);
}

/* --- List -------------------------------------------------------------------------------------------- */

struct listing {
	size_t n_messages;
	size_t n_infos;
	size_t max_infos;
	size_t max_bytes;
	char last_name[64];
};

/* Names must ascend, so that none comes twice. */
static int list(struct fixture *fx, const char *const *filters, size_t n_filters,
		struct listing *ret_listing)
{
	MSG(ListSnapshotsRequest) request = INIT(LIST_SNAPSHOTS_REQUEST);
	struct listing listing = {0};
	struct rpc_stream *stream;
	ProtobufCMessage *answer;
	struct arena arena;
	int result;

	arena_init(&arena, 256u << 20);
	request.filters = (char **)filters;
	request.n_filters = n_filters;
	assert_ok(rpc_stream_open(fx->client, &fx->ctx, METHOD("List"), NULL, 0,
				  TYPE(list_snapshots_response), &stream, &fx->err),
		  &fx->err);
	assert_ok(rpc_stream_send(stream, &request.base, &fx->err), &fx->err);
	while ((result = rpc_stream_recv(stream, &arena, &answer, &fx->err)) == 1) {
		const MSG(ListSnapshotsResponse) *msg = (const void *)answer;
		size_t n_bytes = protobuf_c_message_get_packed_size(answer);

		assert_true(msg->n_info > 0);
		listing.n_messages++;
		listing.n_infos += msg->n_info;
		if (msg->n_info > listing.max_infos)
			listing.max_infos = msg->n_info;
		if (n_bytes > listing.max_bytes)
			listing.max_bytes = n_bytes;
		for (size_t i = 0; i < msg->n_info; i++) {
			assert_true(strcmp(msg->info[i]->name, listing.last_name) > 0);
			assert_true(strlen(msg->info[i]->name) < sizeof(listing.last_name));
			strcpy(listing.last_name, msg->info[i]->name);
		}
		arena_done(&arena);
	}
	rpc_stream_free(stream);
	arena_done(&arena);
	*ret_listing = listing;
	return result;
}

/* Straight into the backend: the names "0000" and so on, with @n_labels labels of 4096 bytes each. */
static void fill(struct fixture *fx, size_t n, size_t n_labels)
{
	const char *value = letters(fx, 4090);

	for (size_t i = 0; i < n; i++) {
		struct snapshot_req req = {.parent = ""};
		struct mounts mounts;

		req.key = arena_printf(&fx->arena, "%04zu", i);
		for (size_t j = 0; j < n_labels; j++)
			assert_ok(strmap_append(&req.labels, &fx->arena,
						arena_printf(&fx->arena, "%06zu", j), value,
						&fx->err),
				  &fx->err);
		assert_ok(fx->ops->prepare(fx->backend, &fx->ctx, &req, &mounts, &fx->err),
			  &fx->err);
	}
}

static void list_answers_with_at_most_100_in_a_message(void **state)
{
	struct fixture *fx = *state;
	struct listing listing;

	fill(fx, 250, 0);
	assert_ok(list(fx, NULL, 0, &listing), &fx->err);
	assert_int_equal(listing.n_infos, 250);
	assert_int_equal(listing.n_messages, 3);
	assert_int_equal(listing.max_infos, 100);
	assert_string_equal(listing.last_name, "0249");
}

static void list_bounds_the_bytes_of_a_message(void **state)
{
	struct fixture *fx = *state;
	struct listing listing;

	/* About 32 KiB of labels each: three make a message. */
	fill(fx, 24, 8);
	assert_ok(list(fx, NULL, 0, &listing), &fx->err);
	assert_int_equal(listing.n_infos, 24);
	assert_true(listing.max_bytes > 64u << 10);
	assert_true(listing.max_bytes <= 128u << 10);
}

static void list_with_a_full_queue_goes_on_where_it_was(void **state)
{
	struct fixture *fx = *state;
	struct listing listing;

	fill(fx, 1234, 0);
	assert_ok(list(fx, NULL, 0, &listing), &fx->err);
	assert_int_equal(listing.n_infos, 1234);
	assert_string_equal(listing.last_name, "1233");
	/* It did stop: this is the other path than the one above. */
	assert_true(fake_n_calls(fx->backend, FAKE_WALK) > 1);
}

static void list_without_matches_sends_no_message(void **state)
{
	static const char *const filters[] = {"name==nobody"};
	struct fixture *fx = *state;
	struct listing listing;

	assert_ok(list(fx, NULL, 0, &listing), &fx->err);
	assert_int_equal(listing.n_messages, 0);
	fill(fx, 3, 0);
	assert_ok(list(fx, filters, 1, &listing), &fx->err);
	assert_int_equal(listing.n_messages, 0);
}

static void list_joins_filters_by_or(void **state)
{
	static const char *const filters[] = {"name==0001", "name==0003,kind==active",
					      "name==0004,kind==view"};
	struct fixture *fx = *state;
	struct listing listing;

	fill(fx, 6, 0);
	assert_ok(list(fx, filters, 3, &listing), &fx->err);
	assert_int_equal(listing.n_infos, 2);
	assert_string_equal(listing.last_name, "0003");
}

static void list_with_a_malformed_filter_is_refused(void **state)
{
	static const char *const filters[] = {"name==0001", "name=="};
	struct fixture *fx = *state;
	struct listing listing;

	fill(fx, 2, 0);
	assert_fails(list(fx, filters, 2, &listing), &fx->err, ERR_INVALID_ARGUMENT);
	assert_contains(fx->err.msg, "filter 2, byte 6");
	assert_int_equal(fake_n_calls(fx->backend, FAKE_WALK), 0);
}

static void a_list_that_is_left_is_forgotten(void **state)
{
	struct fixture *fx = *state;
	MSG(ListSnapshotsRequest) request = INIT(LIST_SNAPSHOTS_REQUEST);
	struct rpc_stream *stream;
	ProtobufCMessage *answer;
	struct listing listing;

	fill(fx, 40, 255);
	for (int i = 0; i < 3; i++) {
		assert_ok(rpc_stream_open(fx->client, &fx->ctx, METHOD("List"), NULL, 0,
					  TYPE(list_snapshots_response), &stream, &fx->err),
			  &fx->err);
		assert_ok(rpc_stream_send(stream, &request.base, &fx->err), &fx->err);
		if (i > 0)
			assert_int_equal(rpc_stream_recv(stream, &fx->arena, &answer, &fx->err), 1);
		rpc_stream_free(stream);
	}
	/* Stopping the server waits for all calls; a leak check at the end sees what they held. */
	assert_ok(list(fx, NULL, 0, &listing), &fx->err);
	assert_int_equal(listing.n_infos, 40);
}

int main(void)
{
#define TEST(fn_)              cmocka_unit_test_setup_teardown(fn_, setup, teardown)
#define TEST_WITH(fn_, setup_) cmocka_unit_test_setup_teardown(fn_, setup_, teardown)
	const struct CMUnitTest tests[] = {
		TEST(empty_labels_are_not_stored),
		TEST(oversized_labels_are_refused),
		TEST(unusable_keys_are_refused_before_the_backend),
		TEST(any_name_of_the_snapshotter_will_do),
		TEST(the_namespace_reaches_the_backend),
		TEST(update_takes_what_containerd_sends),
		TEST(update_without_info_is_refused),
		TEST(the_code_of_every_failure_reaches_the_client),
		TEST(a_long_key_does_not_hide_the_cause),
		TEST_WITH(cleanup_that_is_not_offered_is_unimplemented, setup_without_cleanup),
		TEST_WITH(times_keep_their_nanoseconds, setup_edge),
		TEST_WITH(usage_beyond_the_wire_is_the_largest_there, setup_edge),
		TEST_WITH(mounts_carry_all_their_fields, setup_edge),
		TEST(list_answers_with_at_most_100_in_a_message),
		TEST(list_bounds_the_bytes_of_a_message),
		TEST_WITH(list_with_a_full_queue_goes_on_where_it_was, setup_small_queue),
		TEST(list_without_matches_sends_no_message),
		TEST(list_joins_filters_by_or),
		TEST(list_with_a_malformed_filter_is_refused),
		TEST_WITH(a_list_that_is_left_is_forgotten, setup_small_queue),
	};
	int n_failed = cmocka_run_group_tests(tests, NULL, NULL);

	rpc_library_done();
	return n_failed ? 1 : 0;
}
