/* SPDX-License-Identifier: Apache-2.0 */
/*
 * List, in pages: nothing is kept in the store while the client is slow. The walk is stopped, and begun again
 * behind the last blob that was sent.
 */
#include <string.h>

#include "content/service_internal.h"
#include "rpc/message.h"

/*
 * An answer holds at most this many blobs, as containerd's own do, and so many bytes; one blob alone may be
 * larger, its labels being bounded by LABELS_MAX_BYTES. Small, since a client that does not read has one waiting
 * all the time.
 */
#define LIST_MAX_INFOS   100
#define LIST_MAX_BYTES   (128u << 10)
/* LIST_MAX_BYTES of the smallest labels, as the structures that they are encoded from. */
#define LIST_ARENA_BYTES (64u << 20)

/** struct list - one under way; @arena: of the message being filled; @after: valid once @is_begun */
struct list {
	const struct content_service *service;
	struct rpc_call *call;
	struct filters *filters;
	struct digest after;
	bool is_begun;
	struct arena arena;
	MSG(Info) * infos[LIST_MAX_INFOS];
	size_t n_infos;
	size_t n_bytes;
	bool is_finished;
};

static int send_page(struct list *list, struct err *err)
{
	MSG(ListContentResponse) response;
	int result;

	containerd__services__content__v1__list_content_response__init(&response);
	response.info = list->infos;
	response.n_info = list->n_infos;
	result = rpc_call_send(list->call, &response.base, err);
	list->n_infos = 0;
	list->n_bytes = 0;
	arena_done(&list->arena);
	return result;
}

/* At least the encoded size: what tags and lengths take is rounded up. */
static size_t info_max_bytes(const struct blob_info *info)
{
	size_t n = 64 + DIGEST_TEXT_BYTES;

	for (size_t i = 0; i < info->labels.n; i++)
		n += 16 + strlen(info->labels.entries[i].key) +
		     strlen(info->labels.entries[i].value);
	return n;
}

/* @info is gone when the walk goes on, the message is not yet. */
static int copy_labels(struct arena *arena, const struct strmap *labels, struct strmap *ret_copy,
		       struct err *err)
{
	struct strmap copy = {0};

	for (size_t i = 0; i < labels->n; i++) {
		const char *key = arena_strdup(arena, labels->entries[i].key);
		const char *value = arena_strdup(arena, labels->entries[i].value);

		if (!key || !value)
			return ctx_no_memory(err);
		if (strmap_append(&copy, arena, key, value, err) < 0)
			return -1;
	}
	*ret_copy = copy;
	return 0;
}

static int add_info(void *arg, const struct blob_info *info, struct err *err)
{
	struct list *list = arg;
	size_t n_bytes = info_max_bytes(info);
	struct blob_info copy = *info;
	MSG(Info) * msg;

	if (list->n_infos && list->n_bytes + n_bytes > LIST_MAX_BYTES) {
		int result = send_page(list, err);

		if (result != 0)
			return result;
	}
	if (copy_labels(&list->arena, &info->labels, &copy.labels, err) < 0)
		return -1;
	msg = content_encode_info(&list->arena, &copy);
	if (!msg)
		return ctx_no_memory(err);
	list->infos[list->n_infos++] = msg;
	list->n_bytes += n_bytes;
	list->after = info->digest;
	list->is_begun = true;
	return list->n_infos == LIST_MAX_INFOS ? send_page(list, err) : 0;
}

static int go_on(struct list *list, struct err *err)
{
	const struct content_service *service = list->service;
	int result = service->ops->walk(service->self, rpc_call_ctx(list->call), list->filters,
					list->is_begun ? &list->after : NULL, add_info, list, err);

	if (result < 0)
		return err_wrap(err, "list");
	if (result > 0)
		return 0; /* on_writable() goes on */
	/* Nothing comes after the last message, so that it need not wait for room. */
	if (list->n_infos && send_page(list, err) < 0)
		return err_wrap(err, "list");
	list->is_finished = true;
	rpc_call_finish(list->call);
	return 0;
}

static int on_open(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		   struct err *err)
{
	const MSG(ListContentRequest) *msg = (const void *)request;
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
	return go_on(list, err);
}

static int on_writable(void *self, struct rpc_call *call, struct err *err)
{
	struct list *list = rpc_call_data(call);

	(void)self;
	return list->is_finished ? 0 : go_on(list, err);
}

static void on_close(void *self, struct rpc_call *call)
{
	struct list *list = rpc_call_data(call);

	(void)self;
	if (!list)
		return;
	filters_free(list->filters);
	arena_done(&list->arena);
}

const struct rpc_stream_ops content_list_ops = {
	.open = on_open,
	.writable = on_writable,
	.close = on_close,
};
