/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/buffer_internal.h"
#include "rpc/server_internal.h"

static void closed(struct rpc_tag *tag, bool ok)
{
	struct rpc_call *call = TAG_CALL(tag, close_tag);

	(void)ok;
	if (call->closed_by_client)
		atomic_store_explicit(&call->cancelled, true, memory_order_relaxed);
	call_unref(call);
}

/* Encode, and account for what will lie around until the client has read it. */
static int encode(struct rpc_call *call, const ProtobufCMessage *response, struct err *err)
{
	size_t len;

	if (buffer_pack(response, &call->answer, &len, err) < 0)
		return -1;
	if (call_reserve(call, 0, len, err) < 0)
		return -1;
	call->answer_bytes = len;
	atomic_store_explicit(&call->bytes_out, len, memory_order_relaxed);
	return 0;
}

/* One batch: everything goes out in one write. */
static void answer(struct rpc_call *call, bool watching)
{
	grpc_op ops[4] = {0};
	size_t n = 0;

	ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n++].data.send_message.send_message = call->answer;
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n++].data.send_status_from_server.status = GRPC_STATUS_OK;
	if (!watching) {
		ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
		ops[n++].data.recv_close_on_server.cancelled = &call->closed_by_client;
	}
	call->send_tag.done = call_answered;
	atomic_store_explicit(&call->sending_since_ns, monotonic_ns(), memory_order_relaxed);
	call_batch(call, ops, n, &call->send_tag);
}

/* Takes the caller's reference. @r: of the handler. */
static void end(struct rpc_call *call, int r, const ProtobufCMessage *response, bool watching,
		struct err *err)
{
	if (r == 0 && !response)
		r = err_set(err, ERR_INTERNAL, "the handler gave no answer");
	if (r == 0)
		r = encode(call, response, err);

	/* From here on the client may be slow: it holds nothing but its answer. */
	arena_done(&call->arena);
	if (r == 0) {
		answer(call, watching);
	} else {
		call_explain_stop(call, err);
		call_answer_error(call, err, watching);
	}
	call_unref(call);
}

void rpc_call_answer(struct rpc_call *call, const ProtobufCMessage *response, struct err *err)
{
	end(call, response ? 0 : -1, response, false, err);
}

static int decode(struct rpc_call *call, struct err *err)
{
	ProtobufCMessage *request = NULL;

	/* Who has gone meanwhile, or waits no longer, gets no work done. */
	if (ctx_check(&call->ctx, err) < 0)
		return -1;
	if (call->request)
		return 0;
	if (!call->payload)
		return err_set(err, ERR_INVALID_ARGUMENT, "the call has no request message");
	if (buffer_unpack(call->payload, call->method->row->request, &call->arena, &request, err) <
	    0)
		return -1;
	grpc_byte_buffer_destroy(call->payload);
	call->payload = NULL;
	call->request = request;
	return 0;
}

/* Takes the caller's reference. */
static void serve(struct rpc_call *call, bool watching)
{
	struct err err = ERR_INIT;
	ProtobufCMessage *response = NULL;
	int r = decode(call, &err);

	if (r == 0)
		r = call->method->row->unary(call->method->service->self, &call->ctx, call->request,
					     &response, &err);
	end(call, r, response, watching, &err);
}

static void serve_job(struct pool_job *job)
{
	struct rpc_call *call = TAG_CALL(job, job);

	serve(call, !(call->method->row->flags & RPC_BRIEF));
}

static void begin_job(struct pool_job *job);

/* Takes the caller's reference. */
static void begin(struct rpc_call *call, bool may_wait)
{
	struct err err = ERR_INIT;
	ProtobufCMessage *response = NULL;
	int r = decode(call, &err);

	if (r == 0)
		r = call->method->row->later(call->method->service->self, call, may_wait,
					     call->request, &response, &err);
	if (r == RPC_LATER)
		return;
	if (r == RPC_WOULD_WAIT && !may_wait) {
		call->job.run = begin_job;
		server_serve_soon(call);
		return;
	}
	if (r > 0)
		r = err_set(&err, ERR_INTERNAL, "the handler would not wait");
	end(call, r, response, false, &err);
}

static void begin_job(struct pool_job *job)
{
	begin(TAG_CALL(job, job), true);
}

void unary_begin(struct rpc_call *call)
{
	const struct rpc_method *row = call->method->row;
	bool small = call->bytes_in <= INLINE_MAX_BYTES;

	if (row->later && small) {
		begin(call, false);
		return;
	}
	if (row->flags & RPC_INLINE && small) {
		serve(call, false);
		return;
	}
	/* It may take long: hear of it when the client goes. */
	if (!row->later && !(row->flags & RPC_BRIEF))
		call_watch_close(call, closed);
	call->job.run = row->later ? begin_job : serve_job;
	server_serve_soon(call);
}
