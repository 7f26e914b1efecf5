/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/service.h"

#include <stdlib.h>
#include <string.h>

#include "base/filter.h"
#include "containerd/services/snapshots/v1/snapshots.pb-c.h"
#include "rpc/message.h"

#define MSG(name)  Containerd__Services__Snapshots__V1__##name
#define TYPE(name) (&containerd__services__snapshots__v1__##name##__descriptor)

/*
 * An answer of List holds at most this many snapshots, as containerd's own do, and so many bytes; one
 * snapshot alone may be larger, its labels being bounded by LABELS_MAX_BYTES, and still below the
 * 4 MiB of clients that leave grpc-go's limit as it is. Small, since a client that does not read has one
 * waiting all the time.
 */
#define LIST_MAX_INFOS 100
#define LIST_MAX_BYTES (128u << 10)

/* LIST_MAX_BYTES of the smallest labels, as the structures that they are encoded from. */
#define LIST_ARENA_BYTES (64u << 20)

struct snapshot_service {
	const struct snapshotter_ops *ops;
	void *self;
	struct rpc_service rpc;
};

/* --- encoding ------------------------------------------------------------------------------------- */

/* Strings are borrowed from @info. */
static MSG(Info) * encode_info(struct arena *arena, const struct info *info)
{
	MSG(Info) *msg = message_new(arena, TYPE(info));

	if (!msg)
		return NULL;
	msg->name = (char *)info->name;
	msg->parent = (char *)info->parent;
	msg->kind = (MSG(Kind))info->kind;
	msg->created_at = message_time(arena, info->created_ns);
	msg->updated_at = message_time(arena, info->updated_ns);
	msg->labels = message_label_entries(arena, &info->labels, TYPE(info__labels_entry));
	msg->n_labels = info->labels.n;
	if (!msg->created_at || !msg->updated_at || !msg->labels)
		return NULL;
	return msg;
}

static int encode_mounts(struct ctx *ctx, const struct mounts *mounts,
			 Containerd__Types__Mount ***ret_mounts, size_t *ret_n, struct err *err)
{
	Containerd__Types__Mount **list = arena_array(ctx->arena, mounts->n, sizeof(*list));

	if (!list)
		return ctx_no_memory(err);
	for (size_t i = 0; i < mounts->n; i++) {
		const struct mount *mount = &mounts->items[i];

		list[i] = message_new(ctx->arena, &containerd__types__mount__descriptor);
		if (!list[i])
			return ctx_no_memory(err);
		list[i]->type = (char *)mount->type;
		list[i]->source = (char *)mount->source;
		/* Most mounts have no target, and backends may leave it out. */
		list[i]->target = (char *)(mount->target ? mount->target : "");
		list[i]->options = (char **)mount->options;
		list[i]->n_options = mount->n_options;
	}
	*ret_mounts = list;
	*ret_n = mounts->n;
	return 0;
}

/* --- the unary methods ---------------------------------------------------------------------------- */

static int check_new(struct ctx *ctx, struct snapshot_req *req, const void *labels, size_t n_labels,
		     struct err *err)
{
	if (snapshot_key_check(req->key, "key", err) < 0)
		return -1;
	if (req->parent[0] && snapshot_key_check(req->parent, "parent", err) < 0)
		return -1;
	if (message_labels(ctx, labels, n_labels, &req->labels, err) < 0)
		return -1;
	labels_drop_empty(&req->labels);
	return 0;
}

static int on_prepare(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		      ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(PrepareSnapshotRequest) *msg = (const void *)request;
	MSG(PrepareSnapshotResponse) *response =
		message_new(ctx->arena, TYPE(prepare_snapshot_response));
	struct snapshot_req req = {.key = msg->key, .parent = msg->parent};
	struct mounts mounts = {0};

	if (!response)
		return ctx_no_memory(err);
	if (check_new(ctx, &req, msg->labels, msg->n_labels, err) < 0 ||
	    service->ops->prepare(service->self, ctx, &req, &mounts, err) < 0)
		return message_failed("prepare", req.key, err);
	if (encode_mounts(ctx, &mounts, &response->mounts, &response->n_mounts, err) < 0)
		return message_failed("prepare", req.key, err);
	*ret_response = &response->base;
	return 0;
}

static int on_view(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		   ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(ViewSnapshotRequest) *msg = (const void *)request;
	MSG(ViewSnapshotResponse) *response = message_new(ctx->arena, TYPE(view_snapshot_response));
	struct snapshot_req req = {.key = msg->key, .parent = msg->parent};
	struct mounts mounts = {0};

	if (!response)
		return ctx_no_memory(err);
	if (check_new(ctx, &req, msg->labels, msg->n_labels, err) < 0 ||
	    service->ops->view(service->self, ctx, &req, &mounts, err) < 0)
		return message_failed("view", req.key, err);
	if (encode_mounts(ctx, &mounts, &response->mounts, &response->n_mounts, err) < 0)
		return message_failed("view", req.key, err);
	*ret_response = &response->base;
	return 0;
}

static int on_mounts(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(MountsRequest) *msg = (const void *)request;
	MSG(MountsResponse) *response = message_new(ctx->arena, TYPE(mounts_response));
	struct mounts mounts = {0};

	if (!response)
		return ctx_no_memory(err);
	if (snapshot_key_check(msg->key, "key", err) < 0 ||
	    service->ops->mounts(service->self, ctx, msg->key, &mounts, err) < 0 ||
	    encode_mounts(ctx, &mounts, &response->mounts, &response->n_mounts, err) < 0)
		return message_failed("mounts", msg->key, err);
	*ret_response = &response->base;
	return 0;
}

static int check_commit(struct ctx *ctx, const MSG(CommitSnapshotRequest) * msg,
			struct commit_req *req, struct err *err)
{
	if (snapshot_key_check(req->name, "name", err) < 0 ||
	    snapshot_key_check(req->key, "key", err) < 0)
		return -1;
	if (req->parent[0] && snapshot_key_check(req->parent, "parent", err) < 0)
		return -1;
	if (message_labels(ctx, msg->labels, msg->n_labels, &req->labels, err) < 0)
		return -1;
	labels_drop_empty(&req->labels);
	return 0;
}

static int on_commit(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(CommitSnapshotRequest) *msg = (const void *)request;
	struct commit_req req = {.name = msg->name, .key = msg->key, .parent = msg->parent};

	if (check_commit(ctx, msg, &req, err) < 0 ||
	    service->ops->commit(service->self, ctx, &req, err) < 0)
		return message_failed("commit", req.key, err);
	return message_answer_empty(ctx, ret_response, err);
}

static int on_remove(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(RemoveSnapshotRequest) *msg = (const void *)request;

	if (snapshot_key_check(msg->key, "key", err) < 0 ||
	    service->ops->remove(service->self, ctx, msg->key, err) < 0)
		return message_failed("remove", msg->key, err);
	return message_answer_empty(ctx, ret_response, err);
}

static int on_stat(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		   ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(StatSnapshotRequest) *msg = (const void *)request;
	MSG(StatSnapshotResponse) *response = message_new(ctx->arena, TYPE(stat_snapshot_response));
	struct info info = {0};

	if (!response)
		return ctx_no_memory(err);
	if (snapshot_key_check(msg->key, "key", err) < 0 ||
	    service->ops->stat(service->self, ctx, msg->key, &info, err) < 0)
		return message_failed("stat", msg->key, err);
	response->info = encode_info(ctx->arena, &info);
	if (!response->info)
		return ctx_no_memory(err);
	*ret_response = &response->base;
	return 0;
}

static int check_update(struct ctx *ctx, const MSG(UpdateSnapshotRequest) * msg,
			struct update_req *req, struct err *err)
{
	if (snapshot_key_check(req->name, "name", err) < 0 ||
	    message_labels(ctx, msg->info->labels, msg->info->n_labels, &req->labels, err) < 0)
		return -1;
	return message_paths(msg->update_mask, &req->paths, &req->n_paths, err);
}

/* Everything else in the request's info is ignored: containerd sends times of the year 1 there. */
static int on_update(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(UpdateSnapshotRequest) *msg = (const void *)request;
	MSG(UpdateSnapshotResponse) *response =
		message_new(ctx->arena, TYPE(update_snapshot_response));
	struct update_req req = {0};
	struct info info = {0};

	if (!response)
		return ctx_no_memory(err);
	if (!msg->info)
		return err_set(err, ERR_INVALID_ARGUMENT, "update: the info is missing");
	req.name = msg->info->name;
	if (check_update(ctx, msg, &req, err) < 0 ||
	    service->ops->update(service->self, ctx, &req, &info, err) < 0)
		return message_failed("update", req.name, err);
	response->info = encode_info(ctx->arena, &info);
	if (!response->info)
		return ctx_no_memory(err);
	*ret_response = &response->base;
	return 0;
}

static int on_usage(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		    ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;
	const MSG(UsageRequest) *msg = (const void *)request;
	MSG(UsageResponse) *response = message_new(ctx->arena, TYPE(usage_response));
	struct usage usage = {0};

	if (!response)
		return ctx_no_memory(err);
	if (snapshot_key_check(msg->key, "key", err) < 0 ||
	    service->ops->usage(service->self, ctx, msg->key, &usage, err) < 0)
		return message_failed("usage", msg->key, err);
	response->size = message_int64(usage.size_bytes);
	response->inodes = message_int64(usage.inodes);
	*ret_response = &response->base;
	return 0;
}

static int on_cleanup(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		      ProtobufCMessage **ret_response, struct err *err)
{
	const struct snapshot_service *service = self;

	(void)request;
	if (!service->ops->cleanup)
		return err_set(err, ERR_UNIMPLEMENTED, "%s has nothing to clean up",
			       service->ops->name);
	if (service->ops->cleanup(service->self, ctx, err) < 0)
		return err_wrap(err, "cleanup");
	return message_answer_empty(ctx, ret_response, err);
}

/* --- List ----------------------------------------------------------------------------------------- */

/*
 * A List under way. Nothing is kept in the backend while the client is slow: the walk is stopped, and
 * begun again behind the last snapshot that was sent.
 */
struct list {
	const struct snapshot_service *service;
	struct rpc_call *call;
	struct filters *filters;
	uint64_t after_id;
	struct arena arena; /* of the message being filled */
	MSG(Info) * infos[LIST_MAX_INFOS];
	size_t n_infos;
	size_t n_bytes;
	bool is_finished;
};

static int list_send(struct list *list, struct err *err)
{
	MSG(ListSnapshotsResponse) response;
	int result;

	containerd__services__snapshots__v1__list_snapshots_response__init(&response);
	response.info = list->infos;
	response.n_info = list->n_infos;
	result = rpc_call_send(list->call, &response.base, err);
	list->n_infos = 0;
	list->n_bytes = 0;
	arena_done(&list->arena);
	return result;
}

/* At least the encoded size: what tags and lengths take is rounded up. */
static size_t info_max_bytes(const struct info *info)
{
	size_t n = 64 + strlen(info->name) + strlen(info->parent);

	for (size_t i = 0; i < info->labels.n; i++)
		n += 16 + strlen(info->labels.entries[i].key) +
		     strlen(info->labels.entries[i].value);
	return n;
}

static int list_add(void *arg, const struct info *info, struct err *err)
{
	struct list *list = arg;
	size_t n_bytes = info_max_bytes(info);
	struct info copy;
	MSG(Info) * msg;
	int result;

	if (list->n_infos && list->n_bytes + n_bytes > LIST_MAX_BYTES) {
		result = list_send(list, err);
		if (result != 0)
			return result;
	}

	/* @info is gone when the walk goes on, the message is not yet. */
	if (info_copy(&list->arena, info, &copy, err) < 0)
		return -1;
	msg = encode_info(&list->arena, &copy);
	if (!msg)
		return ctx_no_memory(err);
	list->infos[list->n_infos++] = msg;
	list->n_bytes += n_bytes;
	list->after_id = info->id;
	return list->n_infos == LIST_MAX_INFOS ? list_send(list, err) : 0;
}

static int list_go_on(struct list *list, struct err *err)
{
	const struct snapshot_service *service = list->service;
	struct ctx ctx = *rpc_call_ctx(list->call);
	struct arena arena;
	int result;

	/* What a walk leaves in its arena would otherwise grow with every time that it is begun again. */
	arena_init(&arena, ctx.arena->cap_bytes);
	ctx.arena = &arena;
	result = service->ops->walk(service->self, &ctx, list->filters, list->after_id, list_add,
				    list, err);
	arena_done(&arena);
	if (result < 0)
		return err_wrap(err, "list");
	if (result > 0)
		return 0; /* list_writable() goes on */
	/* Nothing comes after the last message, so that it need not wait for room. */
	if (list->n_infos && list_send(list, err) < 0)
		return err_wrap(err, "list");
	list->is_finished = true;
	rpc_call_finish(list->call);
	return 0;
}

static int list_open(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		     struct err *err)
{
	const MSG(ListSnapshotsRequest) *msg = (const void *)request;
	struct list *list = arena_zalloc(rpc_call_ctx(call)->arena, sizeof(*list));

	if (!list)
		return ctx_no_memory(err);
	list->service = self;
	list->call = call;
	arena_init(&list->arena, LIST_ARENA_BYTES);
	rpc_call_set_data(call, list);
	if (filters_parse((const char *const *)msg->filters, msg->n_filters, &list->filters, err) <
	    0)
		return err_wrap(err, "list");
	return list_go_on(list, err);
}

static int list_writable(void *self, struct rpc_call *call, struct err *err)
{
	struct list *list = rpc_call_data(call);

	(void)self;
	return list->is_finished ? 0 : list_go_on(list, err);
}

static void list_close(void *self, struct rpc_call *call)
{
	struct list *list = rpc_call_data(call);

	(void)self;
	if (!list)
		return;
	filters_free(list->filters);
	arena_done(&list->arena);
}

static const struct rpc_stream_ops list_ops = {
	.open = list_open,
	.writable = list_writable,
	.close = list_close,
};

/* --- the table ------------------------------------------------------------------------------------ */

#define UNARY(name_, flags_, request_, response_, fn_)                                             \
	{                                                                                          \
		.name = (name_), .kind = RPC_UNARY, .flags = (flags_), .request = (request_),      \
		.response = (response_), .unary = (fn_)                                            \
	}

/* What changes rows is carried through once begun: nobody is served by looking for a caller who goes. */
static const struct rpc_method methods[] = {
	UNARY("Prepare", RPC_BRIEF, TYPE(prepare_snapshot_request), TYPE(prepare_snapshot_response),
	      on_prepare),
	UNARY("View", RPC_BRIEF, TYPE(view_snapshot_request), TYPE(view_snapshot_response),
	      on_view),
	UNARY("Mounts", RPC_INLINE, TYPE(mounts_request), TYPE(mounts_response), on_mounts),
	UNARY("Commit", RPC_BRIEF, TYPE(commit_snapshot_request), MESSAGE_EMPTY_TYPE, on_commit),
	UNARY("Remove", RPC_BRIEF, TYPE(remove_snapshot_request), MESSAGE_EMPTY_TYPE, on_remove),
	UNARY("Stat", RPC_INLINE, TYPE(stat_snapshot_request), TYPE(stat_snapshot_response),
	      on_stat),
	UNARY("Update", RPC_BRIEF, TYPE(update_snapshot_request), TYPE(update_snapshot_response),
	      on_update),
	{.name = "List",
	 .kind = RPC_SERVER_STREAM,
	 .request = TYPE(list_snapshots_request),
	 .response = TYPE(list_snapshots_response),
	 .stream = &list_ops},
	UNARY("Usage", 0, TYPE(usage_request), TYPE(usage_response), on_usage),
	UNARY("Cleanup", 0, TYPE(cleanup_request), MESSAGE_EMPTY_TYPE, on_cleanup),
};

int snapshot_service_new(const struct snapshotter_ops *ops, void *self,
			 struct snapshot_service **ret_service, struct err *err)
{
	struct snapshot_service *service = calloc(1, sizeof(*service));

	if (!service)
		return err_sys(err, "snapshot service");
	service->ops = ops;
	service->self = self;
	service->rpc = (struct rpc_service){
		.name = "containerd.services.snapshots.v1.Snapshots",
		.methods = methods,
		.n_methods = ARRAY_LEN(methods),
		.self = service,
	};
	*ret_service = service;
	return 0;
}

void snapshot_service_free(struct snapshot_service *service)
{
	free(service);
}

const struct rpc_service *snapshot_service_rpc(struct snapshot_service *service)
{
	return &service->rpc;
}
