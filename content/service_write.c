/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write: each message is answered by one, with where the ingest stands and the digest of the bytes held so far,
 * which containerd takes for the blob's when a COMMIT finds it there already.
 */
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/labels.h"
#include "content/service_internal.h"
#include "rpc/message.h"

#define ACTION(name) CONTAINERD__SERVICES__CONTENT__V1__WRITE_ACTION__##name

/**
 * struct write - one stream
 * @ref: of the first message; NULL before
 * @total_bytes: as told last; 0: not told
 * @expected: valid once @has_expected
 */
struct write {
	const struct content_service *service;
	struct rpc_call *call;
	const char *ref;
	struct ingest *ingest;
	uint64_t total_bytes;
	struct digest expected;
	bool has_expected;
};

/* Return: as ingest_open(). */
static int begin(struct write *write, const MSG(WriteContentRequest) * msg, bool may_wait,
		 struct err *err)
{
	const struct content_service *service = write->service;
	struct ctx *ctx = rpc_call_ctx(write->call);

	if (content_ref_check(msg->ref, err) < 0)
		return -1;
	/* The message is gone when it has been answered; the reference names the stream to its end. */
	if (!write->ref)
		write->ref = arena_strdup(ctx->arena, msg->ref);
	if (!write->ref)
		return ctx_no_memory(err);
	return service->ops->ingest_open(service->self, ctx, write->ref, write->total_bytes,
					 write->has_expected ? &write->expected : NULL, may_wait,
					 &write->ingest, err);
}

/* What any message may carry. Return: 0; 1 when it tells of a digest; or -1. */
static int take_notes(struct write *write, const MSG(WriteContentRequest) * msg, struct err *err)
{
	if (msg->total < 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "a total of %" PRId64, msg->total);
	if (msg->total > 0)
		write->total_bytes = (uint64_t)msg->total;
	if (!msg->expected[0])
		return 0;
	if (digest_parse(msg->expected, &write->expected, err) < 0)
		return -1;
	write->has_expected = true;
	return 1;
}

/* Return: as ingest_write(). */
static int write_bytes(struct write *write, const MSG(WriteContentRequest) * msg, bool may_wait,
		       struct err *err)
{
	const struct content_service *service = write->service;
	const struct iovec *pieces;
	size_t n;

	if (msg->offset < 0)
		return err_set(err, ERR_OUT_OF_RANGE, "an offset of %" PRId64, msg->offset);
	pieces = rpc_call_bytes(write->call, &n);
	return service->ops->ingest_write(service->self, rpc_call_ctx(write->call), write->ingest,
					  (uint64_t)msg->offset, pieces, n, may_wait, err);
}

static int commit(struct write *write, struct ctx *ctx, const MSG(WriteContentRequest) * msg,
		  struct digest *ret_digest, struct err *err)
{
	const struct content_service *service = write->service;
	struct ingest_commit req = {
		.total_bytes = write->total_bytes,
		.expected = write->has_expected ? &write->expected : NULL,
	};

	if (message_labels(ctx, msg->labels, msg->n_labels, &req.labels, err) < 0)
		return -1;
	labels_drop_empty(&req.labels);
	return service->ops->ingest_commit(service->self, ctx, write->ingest, &req, ret_digest,
					   err);
}

/*
 * Does what the message asks for. The ingest's state is that before a commit, which is its last one.
 * Return: 0; 1, unless @may_wait: that has to wait; -1.
 */
static int act(struct write *write, struct ctx *ctx, const MSG(WriteContentRequest) * msg,
	       bool may_wait, struct ingest_info *ret_info, struct digest *ret_digest,
	       struct err *err)
{
	const struct content_service *service = write->service;
	int r = 0;

	if (msg->action == ACTION(COMMIT) && !may_wait)
		return 1;

	if (msg->action != ACTION(STAT) && msg->action != ACTION(WRITE) &&
	    msg->action != ACTION(COMMIT))
		return err_set(err, ERR_INVALID_ARGUMENT, "action %d is unknown", (int)msg->action);
	if (msg->action != ACTION(STAT))
		r = write_bytes(write, msg, may_wait, err);
	if (r != 0)
		return r;
	if (service->ops->ingest_state(service->self, write->ingest, ret_info, ret_digest, err) < 0)
		return -1;
	if (msg->action == ACTION(COMMIT))
		return commit(write, ctx, msg, ret_digest, err);
	return 0;
}

static int answer(struct write *write, MSG(WriteAction) action, struct arena *arena,
		  const struct ingest_info *info, const struct digest *digest, struct err *err)
{
	MSG(WriteContentResponse) response;
	char text[DIGEST_TEXT_BYTES];
	int r;

	containerd__services__content__v1__write_content_response__init(&response);
	response.action = action;
	response.offset = message_int64(info->offset_bytes);
	response.total = message_int64(info->total_bytes);
	response.started_at = message_time(arena, info->started_ns);
	response.updated_at = message_time(arena, info->updated_ns);
	response.digest = (char *)digest_format(digest, text);
	if (!response.started_at || !response.updated_at)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
	r = rpc_call_send(write->call, &response.base, err);
	return r < 0 ? -1 : 0;
}

/* As told by the last message that knew; what an ingest had been told before stands otherwise. */
static uint64_t known_total(const struct write *write, const struct ingest_info *info)
{
	return write->total_bytes ? write->total_bytes : info->total_bytes;
}

/* Return: as act(). What was done then is not done again. */
static int serve(struct write *write, struct ctx *ctx, const MSG(WriteContentRequest) * msg,
		 bool may_wait, struct err *err)
{
	const struct content_service *service = write->service;
	struct ingest_info info;
	struct digest digest;
	int has_digest = take_notes(write, msg, err);
	int r = has_digest < 0 ? -1 : 0;

	/* An ingest that is of no use then may have large files to be deleted; a new one has none. */
	if (has_digest > 0 && write->ingest && !may_wait)
		return 1;
	if (r == 0 && !write->ingest)
		r = begin(write, msg, may_wait, err);
	if (r == 0 && has_digest)
		r = service->ops->ingest_expect(service->self, ctx, write->ingest, &write->expected,
						err);
	if (r == 0)
		r = act(write, ctx, msg, may_wait, &info, &digest, err);
	if (r != 0)
		return r;
	info.total_bytes = known_total(write, &info);
	if (answer(write, msg->action, ctx->arena, &info, &digest, err) < 0)
		return -1;
	if (msg->action == ACTION(COMMIT)) {
		service->ops->ingest_close(service->self, take_ptr(write->ingest));
		rpc_call_finish(write->call);
	}
	return 0;
}

static int on_open(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		   struct err *err)
{
	struct write *write = arena_zalloc(rpc_call_ctx(call)->arena, sizeof(*write));

	(void)request;
	if (!write)
		return ctx_no_memory(err);
	write->service = self;
	write->call = call;
	rpc_call_set_data(call, write);
	return 0;
}

static int take(struct rpc_call *call, const ProtobufCMessage *request, bool may_wait,
		struct err *err)
{
	const MSG(WriteContentRequest) *msg = (const void *)request;
	struct write *write = rpc_call_data(call);
	struct ctx ctx = *rpc_call_ctx(call);
	struct arena arena;
	int r;

	/* A stream may have any number of messages: none of them leaves anything behind. */
	arena_init(&arena, ctx.arena->cap_bytes);
	ctx.arena = &arena;
	r = serve(write, &ctx, msg, may_wait, err);
	arena_done(&arena);
	return r < 0 ? message_failed("write", write->ref ? write->ref : msg->ref, err) : r;
}

static int on_message(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		      struct err *err)
{
	(void)self;
	return take(call, request, true, err);
}

static int on_message_quick(void *self, struct rpc_call *call, const ProtobufCMessage *request,
			    struct err *err)
{
	(void)self;
	return take(call, request, false, err);
}

static int on_half_close(void *self, struct rpc_call *call, struct err *err)
{
	const struct content_service *service = self;
	struct write *write = rpc_call_data(call);

	if (!write->ref)
		return err_set(err, ERR_INVALID_ARGUMENT, "write: there was no message");
	/* Who is told that the stream has ended finds what is held, whatever becomes of this process. */
	if (write->ingest)
		service->ops->ingest_close(service->self, take_ptr(write->ingest));
	rpc_call_finish(call);
	return 0;
}

static void on_close(void *self, struct rpc_call *call)
{
	const struct content_service *service = self;
	struct write *write = rpc_call_data(call);

	if (write && write->ingest)
		service->ops->ingest_close(service->self, write->ingest);
}

/* An ingest that is still there gets its bytes written down. */
static bool close_is_quick(const struct rpc_call *call)
{
	const struct write *write = rpc_call_data(call);

	return !write || !write->ingest;
}

const struct rpc_stream_ops content_write_ops = {
	.open = on_open,
	.message = on_message,
	.message_quick = on_message_quick,
	.half_close = on_half_close,
	.close = on_close,
	.close_is_quick = close_is_quick,
};
