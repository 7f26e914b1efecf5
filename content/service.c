/* SPDX-License-Identifier: Apache-2.0 */
#include "content/service.h"

#include <stdlib.h>
#include <string.h>

#include "base/filter.h"
#include "base/labels.h"
#include "content/service_internal.h"
#include "rpc/message.h"

/* A Read has so much waiting for its client: a few messages, so that the disk is never waited for in between. */
#define READ_QUEUE_BYTES ((size_t)1 << 20)

/* --- encoding ------------------------------------------------------------------------------------- */

MSG(Info) * content_encode_info(struct arena *arena, const struct blob_info *info)
{
	MSG(Info) *msg = message_new(arena, TYPE(info));
	char text[DIGEST_TEXT_BYTES];

	if (!msg)
		return NULL;
	msg->digest = arena_strdup(arena, digest_format(&info->digest, text));
	msg->size = message_int64(info->size_bytes);
	msg->created_at = message_time(arena, info->created_ns);
	msg->updated_at = message_time(arena, info->updated_ns);
	msg->labels = message_label_entries(arena, &info->labels, TYPE(info__labels_entry));
	msg->n_labels = info->labels.n;
	if (!msg->digest || !msg->created_at || !msg->updated_at || !msg->labels)
		return NULL;
	return msg;
}

/* The reference is borrowed. */
static MSG(Status) * encode_status(struct arena *arena, const struct ingest_info *info)
{
	MSG(Status) *msg = message_new(arena, TYPE(status));

	if (!msg)
		return NULL;
	msg->ref = (char *)info->ref;
	msg->offset = message_int64(info->offset_bytes);
	msg->total = message_int64(info->total_bytes);
	msg->started_at = message_time(arena, info->started_ns);
	msg->updated_at = message_time(arena, info->updated_ns);
	if (!msg->started_at || !msg->updated_at)
		return NULL;
	return msg;
}

/* --- the unary methods ---------------------------------------------------------------------------- */

static int on_info(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		   ProtobufCMessage **ret_response, struct err *err)
{
	const struct content_service *service = self;
	const MSG(InfoRequest) *msg = (const void *)request;
	MSG(InfoResponse) *response = message_new(ctx->arena, TYPE(info_response));
	struct blob_info info;
	struct digest digest;

	if (!response)
		return ctx_no_memory(err);
	if (digest_parse(msg->digest, &digest, err) < 0 ||
	    service->ops->info(service->self, ctx, &digest, &info, err) < 0)
		return message_failed("info", msg->digest, err);
	response->info = content_encode_info(ctx->arena, &info);
	if (!response->info)
		return ctx_no_memory(err);
	*ret_response = &response->base;
	return 0;
}

static int check_update(struct ctx *ctx, const MSG(UpdateRequest) * msg, struct blob_update *req,
			struct err *err)
{
	if (digest_parse(msg->info->digest, &req->digest, err) < 0 ||
	    message_labels(ctx, msg->info->labels, msg->info->n_labels, &req->labels, err) < 0)
		return -1;
	return message_paths(msg->update_mask, &req->paths, &req->n_paths, err);
}

/* Everything else in the request's info is ignored. */
static int on_update(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response, struct err *err)
{
	const struct content_service *service = self;
	const MSG(UpdateRequest) *msg = (const void *)request;
	MSG(UpdateResponse) *response = message_new(ctx->arena, TYPE(update_response));
	struct blob_update req = {0};
	struct blob_info info;

	if (!response)
		return ctx_no_memory(err);
	if (!msg->info)
		return err_set(err, ERR_INVALID_ARGUMENT, "update: the info is missing");
	if (check_update(ctx, msg, &req, err) < 0 ||
	    service->ops->update(service->self, ctx, &req, &info, err) < 0)
		return message_failed("update", msg->info->digest, err);
	response->info = content_encode_info(ctx->arena, &info);
	if (!response->info)
		return ctx_no_memory(err);
	*ret_response = &response->base;
	return 0;
}

static int on_delete(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response, struct err *err)
{
	const struct content_service *service = self;
	const MSG(DeleteContentRequest) *msg = (const void *)request;
	struct digest digest;

	if (digest_parse(msg->digest, &digest, err) < 0 ||
	    service->ops->remove(service->self, ctx, &digest, err) < 0)
		return message_failed("delete", msg->digest, err);
	return message_answer_empty(ctx, ret_response, err);
}

static int on_status(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response, struct err *err)
{
	const struct content_service *service = self;
	const MSG(StatusRequest) *msg = (const void *)request;
	MSG(StatusResponse) *response = message_new(ctx->arena, TYPE(status_response));
	struct ingest_info info;

	if (!response)
		return ctx_no_memory(err);
	if (content_ref_check(msg->ref, err) < 0 ||
	    service->ops->status(service->self, ctx, msg->ref, &info, err) < 0)
		return message_failed("status", msg->ref, err);
	response->status = encode_status(ctx->arena, &info);
	if (!response->status)
		return ctx_no_memory(err);
	*ret_response = &response->base;
	return 0;
}

/** struct statuses - a ListStatuses being answered; @capacity: of @items */
struct statuses {
	struct ctx *ctx;
	MSG(Status) * *items;
	size_t n;
	size_t capacity;
};

static int add_status(void *arg, const struct ingest_info *info, struct err *err)
{
	struct statuses *statuses = arg;
	struct arena *arena = statuses->ctx->arena;
	struct ingest_info copy = *info;

	if (statuses->n == statuses->capacity) {
		size_t capacity = statuses->capacity ? statuses->capacity * 2 : 16;
		MSG(Status) **items = arena_array(arena, capacity, sizeof(*items));

		if (!items)
			return ctx_no_memory(err);
		if (statuses->n)
			memcpy(items, statuses->items, statuses->n * sizeof(*items));
		statuses->items = items;
		statuses->capacity = capacity;
	}
	copy.ref = arena_strdup(arena, info->ref);
	statuses->items[statuses->n] = copy.ref ? encode_status(arena, &copy) : NULL;
	return statuses->items[statuses->n++] ? 0 : ctx_no_memory(err);
}

static int on_list_statuses(void *self, struct ctx *ctx, const ProtobufCMessage *request,
			    ProtobufCMessage **ret_response, struct err *err)
{
	const struct content_service *service = self;
	const MSG(ListStatusesRequest) *msg = (const void *)request;
	MSG(ListStatusesResponse) *response = message_new(ctx->arena, TYPE(list_statuses_response));
	struct statuses statuses = {.ctx = ctx};
	struct filters *filters;
	int r;

	if (!response)
		return ctx_no_memory(err);
	if (filters_parse((const char *const *)msg->filters, msg->n_filters, &filters, err) < 0)
		return err_wrap(err, "list statuses");
	r = service->ops->walk_ingests(service->self, ctx, filters, add_status, &statuses, err);
	filters_free(filters);
	if (r < 0)
		return err_wrap(err, "list statuses");
	response->statuses = statuses.items;
	response->n_statuses = statuses.n;
	*ret_response = &response->base;
	return 0;
}

static int on_abort(void *self, struct ctx *ctx, const ProtobufCMessage *request,
		    ProtobufCMessage **ret_response, struct err *err)
{
	const struct content_service *service = self;
	const MSG(AbortRequest) *msg = (const void *)request;

	if (content_ref_check(msg->ref, err) < 0 ||
	    service->ops->abort(service->self, ctx, msg->ref, err) < 0)
		return message_failed("abort", msg->ref, err);
	return message_answer_empty(ctx, ret_response, err);
}

/* --- the table ------------------------------------------------------------------------------------ */

#define UNARY(name_, flags_, request_, response_, fn_)                                             \
	{                                                                                          \
		.name = (name_), .kind = RPC_UNARY, .flags = (flags_), .request = (request_),      \
		.response = (response_), .unary = (fn_)                                            \
	}

static const struct rpc_method methods[] = {
	UNARY("Info", RPC_INLINE, TYPE(info_request), TYPE(info_response), on_info),
	UNARY("Update", RPC_BRIEF, TYPE(update_request), TYPE(update_response), on_update),
	{.name = "List",
	 .kind = RPC_SERVER_STREAM,
	 .request = TYPE(list_content_request),
	 .response = TYPE(list_content_response),
	 .stream = &content_list_ops},
	UNARY("Delete", RPC_BRIEF, TYPE(delete_content_request), MESSAGE_EMPTY_TYPE, on_delete),
	{.name = "Read",
	 .kind = RPC_SERVER_STREAM,
	 .queue_bytes = READ_QUEUE_BYTES,
	 .request = TYPE(read_content_request),
	 .response = TYPE(read_content_response),
	 .stream = &content_read_ops},
	UNARY("Status", RPC_INLINE, TYPE(status_request), TYPE(status_response), on_status),
	UNARY("ListStatuses", 0, TYPE(list_statuses_request), TYPE(list_statuses_response),
	      on_list_statuses),
	{.name = "Write",
	 .kind = RPC_BIDI_STREAM,
	 .flags = RPC_INLINE,
	 .bytes_field = WRITE_REQUEST_DATA,
	 .request = TYPE(write_content_request),
	 .response = TYPE(write_content_response),
	 .stream = &content_write_ops},
	UNARY("Abort", RPC_BRIEF, TYPE(abort_request), MESSAGE_EMPTY_TYPE, on_abort),
};

int content_service_new(const struct content_store_ops *ops, void *self,
			struct content_service **ret_service, struct err *err)
{
	struct content_service *service = calloc(1, sizeof(*service));

	if (!service)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the content service");
	service->ops = ops;
	service->self = self;
	service->rpc = (struct rpc_service){
		.name = "containerd.services.content.v1.Content",
		.methods = methods,
		.n_methods = ARRAY_LEN(methods),
		.self = service,
	};
	*ret_service = service;
	return 0;
}

void content_service_free(struct content_service *service)
{
	free(service);
}

const struct rpc_service *content_service_rpc(struct content_service *service)
{
	return &service->rpc;
}
