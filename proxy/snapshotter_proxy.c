/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/snapshotter_proxy.h"

#include <stdlib.h>
#include <string.h>

#include "containerd/services/snapshots/v1/snapshots.pb-c.h"
#include "rpc/client.h"
#include "rpc/message.h"

#define MSG(name)    Containerd__Services__Snapshots__V1__##name
#define INIT(name)   CONTAINERD__SERVICES__SNAPSHOTS__V1__##name##__INIT
#define TYPE(name)   (&containerd__services__snapshots__v1__##name##__descriptor)
#define METHOD(name) "/containerd.services.snapshots.v1.Snapshots/" name

/* One message of a List as decoded, RPC_MAX_MESSAGE_BYTES of the smallest labels at worst. */
#define LIST_ARENA_BYTES (256u << 20)

struct proxy {
	struct rpc_client *client;
	char *snapshotter;
};

/* --- messages -------------------------------------------------------------------------------------- */

static size_t fill_metadata(const struct ctx *ctx, struct rpc_metadata *metadata)
{
	if (!ctx->ns || !ctx->ns[0])
		return 0;
	*metadata = (struct rpc_metadata){.name = "containerd-namespace", .value = ctx->ns};
	return 1;
}

static int call(struct proxy *proxy, struct ctx *ctx, const char *method,
		const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response_type,
		ProtobufCMessage **ret_response, struct err *err)
{
	struct rpc_metadata metadata;
	size_t n_metadata = fill_metadata(ctx, &metadata);

	return rpc_client_call(proxy->client, ctx, method, &metadata, n_metadata, request,
			       response_type, ret_response, err);
}

static int encode_labels(struct ctx *ctx, const struct strmap *labels,
			 const ProtobufCMessageDescriptor *type, void *ret_entries, size_t *ret_n,
			 struct err *err)
{
	void *entries = message_label_entries(ctx->arena, labels, type);

	if (!entries)
		return ctx_no_memory(err);
	memcpy(ret_entries, &entries, sizeof(entries));
	*ret_n = labels->n;
	return 0;
}

static int decode_mounts(struct ctx *ctx, Containerd__Types__Mount **list, size_t n,
			 struct mounts *ret_mounts, struct err *err)
{
	struct mount *items = arena_array(ctx->arena, n, sizeof(*items));

	if (!items)
		return ctx_no_memory(err);
	for (size_t i = 0; i < n; i++)
		items[i] = (struct mount){
			.type = list[i]->type,
			.source = list[i]->source,
			.target = list[i]->target,
			.options = (const char **)list[i]->options,
			.n_options = list[i]->n_options,
		};
	*ret_mounts = (struct mounts){.items = items, .n = n};
	return 0;
}

static int decode_info(struct arena *arena, const MSG(Info) * msg, struct info *ret_info,
		       struct err *err)
{
	struct info info = {0};

	if (!msg)
		return err_set(err, ERR_INTERNAL, "the other server's answer holds no info");
	info.name = msg->name;
	info.parent = msg->parent;
	/* As containerd's own client has it: what is neither a view nor active is committed. */
	info.kind = SNAPSHOT_COMMITTED;
	if (msg->kind == (MSG(Kind))SNAPSHOT_VIEW || msg->kind == (MSG(Kind))SNAPSHOT_ACTIVE)
		info.kind = (enum snapshot_kind)msg->kind;
	info.created_ns = message_time_ns(msg->created_at);
	info.updated_ns = message_time_ns(msg->updated_at);
	for (size_t i = 0; i < msg->n_labels; i++) {
		if (strmap_append(&info.labels, arena, msg->labels[i]->key, msg->labels[i]->value,
				  err) < 0)
			return -1;
	}
	strmap_sort(&info.labels);
	*ret_info = info;
	return 0;
}

/* --- the operations -------------------------------------------------------------------------------- */

static void proxy_close(void *self)
{
	struct proxy *proxy = self;

	if (!proxy)
		return;
	if (proxy->client)
		rpc_client_free(proxy->client);
	free(proxy->snapshotter);
	free(proxy);
}

static int proxy_open(const char *root, const void *conf_arg, void **ret_self, struct err *err)
{
	const struct snapshotter_proxy_conf *conf = conf_arg;
	struct proxy *proxy = calloc(1, sizeof(*proxy));

	(void)root;
	if (!proxy)
		return err_sys(err, "snapshotter proxy");
	proxy->snapshotter = strdup(conf->snapshotter);
	if (!proxy->snapshotter) {
		proxy_close(proxy);
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "snapshotter proxy: no memory");
	}
	if (rpc_client_new(conf->address, &proxy->client, err) < 0) {
		proxy_close(proxy);
		return -1;
	}
	*ret_self = proxy;
	return 0;
}

static int proxy_prepare(void *self, struct ctx *ctx, const struct snapshot_req *req,
			 struct mounts *ret_mounts, struct err *err)
{
	struct proxy *proxy = self;
	MSG(PrepareSnapshotRequest) request = INIT(PREPARE_SNAPSHOT_REQUEST);
	const MSG(PrepareSnapshotResponse) * response;
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	request.key = (char *)req->key;
	request.parent = (char *)req->parent;
	if (encode_labels(ctx, &req->labels, TYPE(prepare_snapshot_request__labels_entry),
			  &request.labels, &request.n_labels, err) < 0 ||
	    call(proxy, ctx, METHOD("Prepare"), &request.base, TYPE(prepare_snapshot_response),
		 &answer, err) < 0)
		return -1;
	response = (const void *)answer;
	return decode_mounts(ctx, response->mounts, response->n_mounts, ret_mounts, err);
}

static int proxy_view(void *self, struct ctx *ctx, const struct snapshot_req *req,
		      struct mounts *ret_mounts, struct err *err)
{
	struct proxy *proxy = self;
	MSG(ViewSnapshotRequest) request = INIT(VIEW_SNAPSHOT_REQUEST);
	const MSG(ViewSnapshotResponse) * response;
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	request.key = (char *)req->key;
	request.parent = (char *)req->parent;
	if (encode_labels(ctx, &req->labels, TYPE(view_snapshot_request__labels_entry),
			  &request.labels, &request.n_labels, err) < 0 ||
	    call(proxy, ctx, METHOD("View"), &request.base, TYPE(view_snapshot_response), &answer,
		 err) < 0)
		return -1;
	response = (const void *)answer;
	return decode_mounts(ctx, response->mounts, response->n_mounts, ret_mounts, err);
}

static int proxy_mounts(void *self, struct ctx *ctx, const char *key, struct mounts *ret_mounts,
			struct err *err)
{
	struct proxy *proxy = self;
	MSG(MountsRequest) request = INIT(MOUNTS_REQUEST);
	const MSG(MountsResponse) * response;
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	request.key = (char *)key;
	if (call(proxy, ctx, METHOD("Mounts"), &request.base, TYPE(mounts_response), &answer, err) <
	    0)
		return -1;
	response = (const void *)answer;
	return decode_mounts(ctx, response->mounts, response->n_mounts, ret_mounts, err);
}

static int proxy_commit(void *self, struct ctx *ctx, const struct commit_req *req, struct err *err)
{
	struct proxy *proxy = self;
	MSG(CommitSnapshotRequest) request = INIT(COMMIT_SNAPSHOT_REQUEST);
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	request.name = (char *)req->name;
	request.key = (char *)req->key;
	request.parent = (char *)req->parent;
	if (encode_labels(ctx, &req->labels, TYPE(commit_snapshot_request__labels_entry),
			  &request.labels, &request.n_labels, err) < 0)
		return -1;
	return call(proxy, ctx, METHOD("Commit"), &request.base, MESSAGE_EMPTY_TYPE, &answer, err);
}

static int proxy_remove(void *self, struct ctx *ctx, const char *key, struct err *err)
{
	struct proxy *proxy = self;
	MSG(RemoveSnapshotRequest) request = INIT(REMOVE_SNAPSHOT_REQUEST);
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	request.key = (char *)key;
	return call(proxy, ctx, METHOD("Remove"), &request.base, MESSAGE_EMPTY_TYPE, &answer, err);
}

static int proxy_stat(void *self, struct ctx *ctx, const char *key, struct info *ret_info,
		      struct err *err)
{
	struct proxy *proxy = self;
	MSG(StatSnapshotRequest) request = INIT(STAT_SNAPSHOT_REQUEST);
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	request.key = (char *)key;
	if (call(proxy, ctx, METHOD("Stat"), &request.base, TYPE(stat_snapshot_response), &answer,
		 err) < 0)
		return -1;
	return decode_info(ctx->arena, ((const MSG(StatSnapshotResponse) *)(void *)answer)->info,
			   ret_info, err);
}

static int proxy_update(void *self, struct ctx *ctx, const struct update_req *req,
			struct info *ret_info, struct err *err)
{
	struct proxy *proxy = self;
	MSG(UpdateSnapshotRequest) request = INIT(UPDATE_SNAPSHOT_REQUEST);
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	MSG(Info) info = INIT(INFO);
	ProtobufCMessage *answer;

	info.name = (char *)req->name;
	if (encode_labels(ctx, &req->labels, TYPE(info__labels_entry), &info.labels, &info.n_labels,
			  err) < 0)
		return -1;
	mask.paths = (char **)req->paths;
	mask.n_paths = req->n_paths;
	request.snapshotter = proxy->snapshotter;
	request.info = &info;
	request.update_mask = &mask;
	if (call(proxy, ctx, METHOD("Update"), &request.base, TYPE(update_snapshot_response),
		 &answer, err) < 0)
		return -1;
	return decode_info(ctx->arena, ((const MSG(UpdateSnapshotResponse) *)(void *)answer)->info,
			   ret_info, err);
}

struct walk {
	const struct filters *filters;
	uint64_t after_id;
	uint64_t last_id;
	snapshot_walk_fn fn;
	void *arg;
};

static int walk_message(struct walk *walk, struct arena *arena,
			const MSG(ListSnapshotsResponse) * msg, struct err *err)
{
	int result = 0;

	for (size_t i = 0; i < msg->n_info && result == 0; i++) {
		struct info info;

		if (++walk->last_id <= walk->after_id)
			continue;
		if (decode_info(arena, msg->info[i], &info, err) < 0)
			return -1;
		info.id = walk->last_id;
		if (snapshot_matches(walk->filters, &info))
			result = walk->fn(walk->arg, &info, err);
	}
	return result;
}

static int walk_stream(struct walk *walk, struct rpc_stream *stream, struct err *err)
{
	struct arena arena;
	int result = 0;

	arena_init(&arena, LIST_ARENA_BYTES);
	while (result == 0) {
		ProtobufCMessage *msg;
		int received = rpc_stream_recv(stream, &arena, &msg, err);

		if (received <= 0) {
			result = received;
			break;
		}
		result = walk_message(walk, &arena, (const void *)msg, err);
		arena_done(&arena);
	}
	arena_done(&arena);
	return result;
}

static int proxy_walk(void *self, struct ctx *ctx, const struct filters *filters, uint64_t after_id,
		      snapshot_walk_fn fn, void *arg, struct err *err)
{
	struct proxy *proxy = self;
	MSG(ListSnapshotsRequest) request = INIT(LIST_SNAPSHOTS_REQUEST);
	struct walk walk = {.filters = filters, .after_id = after_id, .fn = fn, .arg = arg};
	struct rpc_metadata metadata;
	size_t n_metadata = fill_metadata(ctx, &metadata);
	struct rpc_stream *stream = NULL;
	int result = -1;

	request.snapshotter = proxy->snapshotter;
	if (rpc_stream_open(proxy->client, ctx, METHOD("List"), &metadata, n_metadata,
			    TYPE(list_snapshots_response), &stream, err) < 0)
		return -1;
	/* When the server has ended the call already, neither works: its status comes with the answer. */
	if (rpc_stream_send(stream, &request.base, err) < 0 ||
	    rpc_stream_half_close(stream, err) < 0)
		err_clear(err);
	result = walk_stream(&walk, stream, err);
	rpc_stream_free(stream);
	return result;
}

static int proxy_usage(void *self, struct ctx *ctx, const char *key, struct usage *ret_usage,
		       struct err *err)
{
	struct proxy *proxy = self;
	MSG(UsageRequest) request = INIT(USAGE_REQUEST);
	const MSG(UsageResponse) * response;
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	request.key = (char *)key;
	if (call(proxy, ctx, METHOD("Usage"), &request.base, TYPE(usage_response), &answer, err) <
	    0)
		return -1;
	response = (const void *)answer;
	*ret_usage = (struct usage){
		.size_bytes = response->size < 0 ? 0 : (uint64_t)response->size,
		.inodes = response->inodes < 0 ? 0 : (uint64_t)response->inodes,
	};
	return 0;
}

static int proxy_cleanup(void *self, struct ctx *ctx, struct err *err)
{
	struct proxy *proxy = self;
	MSG(CleanupRequest) request = INIT(CLEANUP_REQUEST);
	ProtobufCMessage *answer;

	request.snapshotter = proxy->snapshotter;
	return call(proxy, ctx, METHOD("Cleanup"), &request.base, MESSAGE_EMPTY_TYPE, &answer, err);
}

static const struct conf_option options[] = {
	CONF_STRING(struct snapshotter_proxy_conf, address, "\"\"", "PATH",
		    "socket of the server that answers"),
	CONF_STRING(struct snapshotter_proxy_conf, snapshotter, "\"\"", "NAME",
		    "snapshotter that requests name"),
	CONF_END,
};

const struct snapshotter_ops snapshotter_proxy_ops = {
	.name = "proxy",
	.summary = "snapshots that another server keeps",
	.options = options,
	.conf_size = sizeof(struct snapshotter_proxy_conf),
	.open = proxy_open,
	.close = proxy_close,
	.prepare = proxy_prepare,
	.view = proxy_view,
	.mounts = proxy_mounts,
	.commit = proxy_commit,
	.remove = proxy_remove,
	.stat = proxy_stat,
	.update = proxy_update,
	.walk = proxy_walk,
	.usage = proxy_usage,
	.cleanup = proxy_cleanup,
};
