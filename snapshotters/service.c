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

/**
 * struct snapshot_service - see service.h
 * @lead_job: calls ops->lead(); given to the server each time that begin() wants it
 */
struct snapshot_service {
	const struct snapshotter_ops *ops;
	void *self;
	struct rpc_service rpc;
	struct pool_job lead_job;
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

/* --- the methods that change something ------------------------------------------------------------ */

/**
 * struct request - one of these, under way, in the arena of its call
 * @create, @commit, @update: what the change refers to
 */
struct request {
	struct snapshot_change change;
	const struct snapshot_service *service;
	struct rpc_call *call;
	struct snapshot_req create;
	struct commit_req commit;
	struct update_req update;
};

static const char *verb_of(const struct snapshot_change *change)
{
	static const char *const verbs[] = {
		[CHANGE_PREPARE] = "prepare", [CHANGE_VIEW] = "view",
		[CHANGE_COMMIT] = "commit",   [CHANGE_REMOVE] = "remove",
		[CHANGE_UPDATE] = "update",
	};

	return verbs[change->kind];
}

/* What the request names. */
static const char *key_of(const struct snapshot_change *change)
{
	switch (change->kind) {
	case CHANGE_PREPARE:
	case CHANGE_VIEW:
		return change->create->key;
	case CHANGE_COMMIT:
		return change->commit->key;
	case CHANGE_REMOVE:
		return change->key;
	case CHANGE_UPDATE:
		break;
	}
	return change->update->name;
}

/* View's answer is the same message under another name. */
static int answer_mounts(struct snapshot_change *change, ProtobufCMessage **ret_response,
			 struct err *err)
{
	struct ctx *ctx = change->ctx;

	if (change->kind == CHANGE_PREPARE) {
		MSG(PrepareSnapshotResponse) *response =
			message_new(ctx->arena, TYPE(prepare_snapshot_response));

		if (!response)
			return ctx_no_memory(err);
		*ret_response = &response->base;
		return encode_mounts(ctx, &change->mounts, &response->mounts, &response->n_mounts,
				     err);
	} else {
		MSG(ViewSnapshotResponse) *response =
			message_new(ctx->arena, TYPE(view_snapshot_response));

		if (!response)
			return ctx_no_memory(err);
		*ret_response = &response->base;
		return encode_mounts(ctx, &change->mounts, &response->mounts, &response->n_mounts,
				     err);
	}
}

static int answer_info(struct snapshot_change *change, ProtobufCMessage **ret_response,
		       struct err *err)
{
	struct arena *arena = change->ctx->arena;
	MSG(UpdateSnapshotResponse) *response = message_new(arena, TYPE(update_snapshot_response));

	if (!response)
		return ctx_no_memory(err);
	response->info = encode_info(arena, &change->info);
	if (!response->info)
		return ctx_no_memory(err);
	*ret_response = &response->base;
	return 0;
}

/* The answer to a change that has ended; one that failed gets its error put into words. */
static int answer_change(struct snapshot_change *change, ProtobufCMessage **ret_response,
			 struct err *err)
{
	int result = change->result;

	if (result < 0)
		*err = change->err;
	else if (change->kind == CHANGE_PREPARE || change->kind == CHANGE_VIEW)
		result = answer_mounts(change, ret_response, err);
	else if (change->kind == CHANGE_UPDATE)
		result = answer_info(change, ret_response, err);
	else
		result = message_answer_empty(change->ctx, ret_response, err);
	return result < 0 ? message_failed(verb_of(change), key_of(change), err) : 0;
}

static void change_done(struct snapshot_change *change)
{
	struct request *request =
		(struct request *)((char *)change - offsetof(struct request, change));
	ProtobufCMessage *response = NULL;
	struct err err = ERR_INIT;

	if (answer_change(change, &response, &err) < 0)
		response = NULL;
	rpc_call_answer(request->call, response, &err);
}

static void lead(struct pool_job *job)
{
	struct snapshot_service *service =
		(struct snapshot_service *)((char *)job -
					    offsetof(struct snapshot_service, lead_job));

	service->ops->lead(service->self);
}

/* For a backend whose changes wait for their end. */
static void change_waiting(const struct snapshot_service *service, struct snapshot_change *change)
{
	const struct snapshotter_ops *ops = service->ops;
	void *self = service->self;
	struct ctx *ctx = change->ctx;

	switch (change->kind) {
	case CHANGE_PREPARE:
		change->result =
			ops->prepare(self, ctx, change->create, &change->mounts, &change->err);
		break;
	case CHANGE_VIEW:
		change->result =
			ops->view(self, ctx, change->create, &change->mounts, &change->err);
		break;
	case CHANGE_COMMIT:
		change->result = ops->commit(self, ctx, change->commit, &change->err);
		break;
	case CHANGE_REMOVE:
		change->result = ops->remove(self, ctx, change->key, &change->err);
		break;
	case CHANGE_UPDATE:
		change->result =
			ops->update(self, ctx, change->update, &change->info, &change->err);
		break;
	}
}

static enum change_begun begin(struct snapshot_service *service, struct snapshot_change *change,
			       bool may_wait)
{
	if (service->ops->begin)
		return service->ops->begin(service->self, change, may_wait);
	if (!may_wait)
		return CHANGE_WOULD_WAIT;
	change_waiting(service, change);
	return CHANGE_ENDED;
}

/* @checked: is the request in order? If not, @request->change.err says why. */
static int carry_out(struct snapshot_service *service, struct request *request, bool may_wait,
		     int checked, ProtobufCMessage **ret_response, struct err *err)
{
	struct rpc_call *call = request->call;
	enum change_begun begun = CHANGE_ENDED;

	request->change.result = checked;
	if (checked == 0)
		begun = begin(service, &request->change, may_wait);
	switch (begun) {
	case CHANGE_WOULD_WAIT:
		return RPC_WOULD_WAIT;
	case CHANGE_LEADS:
		rpc_call_soon(call, may_wait, &service->lead_job);
		return RPC_LATER;
	case CHANGE_PENDING: /* @request may be gone by now */
		return RPC_LATER;
	case CHANGE_ENDED:
		break;
	}
	return answer_change(&request->change, ret_response, err);
}

static struct request *new_request(struct snapshot_service *service, struct rpc_call *call,
				   enum snapshot_change_kind kind, struct err *err)
{
	struct ctx *ctx = rpc_call_ctx(call);
	struct request *request = arena_zalloc(ctx->arena, sizeof(*request));

	if (!request) {
		ctx_no_memory(err);
		return NULL;
	}
	request->service = service;
	request->call = call;
	request->change.kind = kind;
	request->change.ctx = ctx;
	request->change.create = &request->create;
	request->change.commit = &request->commit;
	request->change.update = &request->update;
	request->change.done = change_done;
	return request;
}

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

static int create(struct snapshot_service *service, struct rpc_call *call,
		  enum snapshot_change_kind kind, bool may_wait, const struct snapshot_req *req,
		  const void *labels, size_t n_labels, ProtobufCMessage **ret_response,
		  struct err *err)
{
	struct request *request = new_request(service, call, kind, err);
	int checked;

	if (!request)
		return -1;
	request->create = *req;
	checked = check_new(request->change.ctx, &request->create, labels, n_labels,
			    &request->change.err);
	return carry_out(service, request, may_wait, checked, ret_response, err);
}

static int on_prepare(void *self, struct rpc_call *call, bool may_wait,
		      const ProtobufCMessage *msg_base, ProtobufCMessage **ret_response,
		      struct err *err)
{
	const MSG(PrepareSnapshotRequest) *msg = (const void *)msg_base;
	const struct snapshot_req req = {.key = msg->key, .parent = msg->parent};

	return create(self, call, CHANGE_PREPARE, may_wait, &req, msg->labels, msg->n_labels,
		      ret_response, err);
}

static int on_view(void *self, struct rpc_call *call, bool may_wait,
		   const ProtobufCMessage *msg_base, ProtobufCMessage **ret_response,
		   struct err *err)
{
	const MSG(ViewSnapshotRequest) *msg = (const void *)msg_base;
	const struct snapshot_req req = {.key = msg->key, .parent = msg->parent};

	return create(self, call, CHANGE_VIEW, may_wait, &req, msg->labels, msg->n_labels,
		      ret_response, err);
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

static int on_commit(void *self, struct rpc_call *call, bool may_wait,
		     const ProtobufCMessage *msg_base, ProtobufCMessage **ret_response,
		     struct err *err)
{
	const MSG(CommitSnapshotRequest) *msg = (const void *)msg_base;
	struct request *request = new_request(self, call, CHANGE_COMMIT, err);

	if (!request)
		return -1;
	request->commit =
		(struct commit_req){.name = msg->name, .key = msg->key, .parent = msg->parent};
	return carry_out(self, request, may_wait,
			 check_commit(request->change.ctx, msg, &request->commit,
				      &request->change.err),
			 ret_response, err);
}

static int on_remove(void *self, struct rpc_call *call, bool may_wait,
		     const ProtobufCMessage *msg_base, ProtobufCMessage **ret_response,
		     struct err *err)
{
	const MSG(RemoveSnapshotRequest) *msg = (const void *)msg_base;
	struct request *request = new_request(self, call, CHANGE_REMOVE, err);

	if (!request)
		return -1;
	request->change.key = msg->key;
	return carry_out(self, request, may_wait,
			 snapshot_key_check(msg->key, "key", &request->change.err), ret_response,
			 err);
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
static int on_update(void *self, struct rpc_call *call, bool may_wait,
		     const ProtobufCMessage *msg_base, ProtobufCMessage **ret_response,
		     struct err *err)
{
	const MSG(UpdateSnapshotRequest) *msg = (const void *)msg_base;
	struct request *request = new_request(self, call, CHANGE_UPDATE, err);

	if (!request)
		return -1;
	if (!msg->info)
		return err_set(err, ERR_INVALID_ARGUMENT, "update: the info is missing");
	request->update.name = msg->info->name;
	return carry_out(self, request, may_wait,
			 check_update(request->change.ctx, msg, &request->update,
				      &request->change.err),
			 ret_response, err);
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

#define LATER(name_, request_, response_, fn_)                                                     \
	{                                                                                          \
		.name = (name_), .kind = RPC_UNARY, .request = (request_),                         \
		.response = (response_), .later = (fn_)                                            \
	}

#define UNARY(name_, flags_, request_, response_, fn_)                                             \
	{                                                                                          \
		.name = (name_), .kind = RPC_UNARY, .flags = (flags_), .request = (request_),      \
		.response = (response_), .unary = (fn_)                                            \
	}

static const struct rpc_method methods[] = {
	LATER("Prepare", TYPE(prepare_snapshot_request), TYPE(prepare_snapshot_response),
	      on_prepare),
	LATER("View", TYPE(view_snapshot_request), TYPE(view_snapshot_response), on_view),
	UNARY("Mounts", RPC_INLINE, TYPE(mounts_request), TYPE(mounts_response), on_mounts),
	LATER("Commit", TYPE(commit_snapshot_request), MESSAGE_EMPTY_TYPE, on_commit),
	LATER("Remove", TYPE(remove_snapshot_request), MESSAGE_EMPTY_TYPE, on_remove),
	UNARY("Stat", RPC_INLINE, TYPE(stat_snapshot_request), TYPE(stat_snapshot_response),
	      on_stat),
	LATER("Update", TYPE(update_snapshot_request), TYPE(update_snapshot_response), on_update),
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
	service->lead_job.run = lead;
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
