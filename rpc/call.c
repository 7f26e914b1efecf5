/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "rpc/library_internal.h"
#include "rpc/server_internal.h"
#include "rpc/status_internal.h"

/* Enough for a steady load; what a burst needed beyond is given back. */
#define CACHE_MAX 32

#define NSEC_PER_SEC  1000000000LL
#define NSEC_PER_MSEC 1000000

static const char namespace_header[] = "containerd-namespace";

struct rpc_call *call_new(struct rpc_server *server, const struct method *method)
{
	struct rpc_call *call;

	pthread_mutex_lock(&server->mutex);
	call = server->cache;
	if (call) {
		server->cache = call->next;
		server->n_cache--;
	}
	pthread_mutex_unlock(&server->mutex);

	if (!call) {
		call = calloc(1, sizeof(*call));
		if (!call)
			return NULL;
		call->server = server;
		pthread_mutex_init(&call->stream.mutex, NULL);
		grpc_metadata_array_init(&call->metadata);
	}
	call->method = method;
	if (!method)
		grpc_call_details_init(&call->details);
	return call;
}

static void free_call(struct rpc_call *call)
{
	grpc_metadata_array_destroy(&call->metadata);
	pthread_mutex_destroy(&call->stream.mutex);
	free(call);
}

void call_drop(struct rpc_call *call)
{
	if (!call->method)
		grpc_call_details_destroy(&call->details);
	free_call(call);
}

void call_cache_done(struct rpc_server *server)
{
	while (server->cache) {
		struct rpc_call *call = server->cache;

		server->cache = call->next;
		free_call(call);
	}
	server->n_cache = 0;
}

static int64_t deadline_ns(gpr_timespec deadline)
{
	if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) >= 0)
		return CTX_NO_DEADLINE;
	/* gRPC's monotonic clock is CLOCK_MONOTONIC; should it ever hand out another, this converts. */
	deadline = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
	if (deadline.tv_sec >= INT64_MAX / NSEC_PER_SEC)
		return CTX_NO_DEADLINE;
	return deadline.tv_sec * NSEC_PER_SEC + deadline.tv_nsec;
}

/* Headers we do not know are none of our business. */
static const char *find_namespace(struct rpc_call *call)
{
	for (size_t i = 0; i < call->metadata.count; i++) {
		const grpc_metadata *md = &call->metadata.metadata[i];
		const char *value;

		if (grpc_slice_str_cmp(md->key, namespace_header) != 0)
			continue;
		value = arena_memdup(&call->arena, GRPC_SLICE_START_PTR(md->value),
				     GRPC_SLICE_LENGTH(md->value));
		return value ? value : "";
	}
	return "";
}

unsigned int call_begin(struct rpc_call *call)
{
	struct rpc_server *server = call->server;
	unsigned int n_live;

	arena_init(&call->arena, CALL_ARENA_BYTES);
	atomic_store_explicit(&call->refs, 1, memory_order_relaxed);
	call->started_ns = monotonic_ns();
	if (call->payload)
		call->bytes_in = grpc_byte_buffer_length(call->payload);
	call->ctx = (struct ctx){
		.arena = &call->arena,
		.deadline_ns = deadline_ns(call->deadline),
		.cancelled = &call->cancelled,
		.ns = find_namespace(call),
	};

	pthread_mutex_lock(&server->mutex);
	call->prev = &server->live;
	call->next = server->live.next;
	call->next->prev = call;
	server->live.next = call;
	n_live = ++server->n_live;
	pthread_mutex_unlock(&server->mutex);
	return n_live;
}

void call_ref(struct rpc_call *call)
{
	atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
}

static void forget_metadata(struct rpc_call *call)
{
	/* gRPC owns the elements, and counts from 0 when the array is used again. */
	call->metadata.count = 0;
}

/* Make @call as call_new() gives it; the array of metadata and the mutex stay. */
static void reset(struct rpc_call *call)
{
	struct rpc_server *server = call->server;
	grpc_metadata_array metadata = call->metadata;

	memset(call, 0, offsetof(struct rpc_call, stream));
	call->server = server;
	call->metadata = metadata;
	memset((char *)&call->stream + sizeof(call->stream.mutex), 0,
	       sizeof(call->stream) - sizeof(call->stream.mutex));
}

static void tell_observer(const struct rpc_call *call)
{
	const struct rpc_server *server = call->server;
	const struct method *method = call->method;
	struct rpc_call_end end;

	if (!server->options.on_end)
		return;
	end = (struct rpc_call_end){
		.service = method ? method->service->name : "",
		.method = method ? method->row->name : "",
		.code = call->code,
		.message = call->message ? call->message : "",
		.took_ns = monotonic_ns() - call->started_ns,
		.bytes_in = call->bytes_in,
		.bytes_out = atomic_load_explicit(&call->bytes_out, memory_order_relaxed),
	};
	server->options.on_end(server->options.on_end_arg, &end);
}

static void call_end(struct rpc_call *call)
{
	struct rpc_server *server = call->server;
	bool kept = false;

	if (call->closed_by_client)
		call_set_end(call,
			     monotonic_ns() >= call->ctx.deadline_ns ? ERR_DEADLINE_EXCEEDED
								     : ERR_CANCELLED,
			     "cancelled, or the connection was lost");
	tell_observer(call);
	arena_done(&call->arena);
	if (call->payload)
		grpc_byte_buffer_destroy(call->payload);
	if (call->answer)
		grpc_byte_buffer_destroy(call->answer);
	free(call->message);
	if (!call->method)
		grpc_call_details_destroy(&call->details);
	forget_metadata(call);

	/* Before gRPC forgets it: until it is off the list, it may be cancelled by others. */
	pthread_mutex_lock(&server->mutex);
	call->prev->next = call->next;
	call->next->prev = call->prev;
	pthread_mutex_unlock(&server->mutex);

	grpc_call_unref(call->core);
	reset(call);

	pthread_mutex_lock(&server->mutex);
	if (server->n_cache < CACHE_MAX) {
		call->next = server->cache;
		server->cache = call;
		server->n_cache++;
		kept = true;
	}
	/* The last touch of the server: when none is left, it may be freed. */
	server->n_live--;
	if (!server->n_live)
		pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->mutex);
	if (!kept)
		free_call(call);
}

void call_unref(struct rpc_call *call)
{
	if (atomic_fetch_sub_explicit(&call->refs, 1, memory_order_acq_rel) == 1)
		call_end(call);
}

static void log_end(const struct rpc_call *call, enum err_code code, const char *message)
{
	const struct method *method = call->method;
	enum log_level level = status_is_ours(code) ? LOG_ERROR : LOG_DEBUG;

	if (code == ERR_OK || !log_enabled(level))
		return;
	log_event(level, "call failed", LOG_STR("method", method ? method->row->name : ""),
		  LOG_STR("api", method ? method->service->name : ""),
		  LOG_STR("code", err_code_name(code)),
		  LOG_INT("took_ms", (monotonic_ns() - call->started_ns) / NSEC_PER_MSEC),
		  LOG_STR("error", message));
}

void call_set_end(struct rpc_call *call, enum err_code code, const char *message)
{
	if (call->code != ERR_OK || code == ERR_OK)
		return;
	log_end(call, code, message);
	call->code = code;
	call->message = strdup(message);
}

void call_explain_stop(const struct rpc_call *call, struct err *err)
{
	if (err->code == ERR_CANCELLED && atomic_load(&call->server->stopping))
		err_set(err, ERR_UNAVAILABLE, "the server is stopping");
}

int call_reserve(struct rpc_call *call, size_t waiting_bytes, size_t cost, struct err *err)
{
	atomic_size_t *queued = &call->server->queued_bytes;
	size_t before = atomic_fetch_add_explicit(queued, cost, memory_order_relaxed);

	if (waiting_bytes + cost <= SMALL_ANSWER_BYTES || before + cost <= QUEUED_BYTES_MAX)
		return 0;
	atomic_fetch_sub_explicit(queued, cost, memory_order_relaxed);
	return err_set(err, ERR_RESOURCE_EXHAUSTED,
		       "too many bytes of answers wait for slow clients");
}

void call_batch(struct rpc_call *call, const grpc_op *ops, size_t n, struct rpc_tag *tag)
{
	grpc_call_error r;

	call_ref(call);
	GIVE_TAG(tag);
	r = grpc_call_start_batch(call->core, ops, n, tag, NULL);
	if (r == GRPC_CALL_OK)
		return;
	/* Only a batch that we put together wrongly is refused. */
	log_event(LOG_ERROR, "batch refused", LOG_STR("error", grpc_call_error_to_string(r)));
	abort();
}

void call_run(struct rpc_call *call, void (*run)(struct pool_job *job))
{
	call->job.run = run;
	server_run(call->server, &call->job);
}

void call_watch_close(struct rpc_call *call, void (*done)(struct rpc_tag *tag, bool ok))
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};

	call->close_tag.done = done;
	op.data.recv_close_on_server.cancelled = &call->closed_by_client;
	call_batch(call, &op, 1, &call->close_tag);
}

void call_answered(struct rpc_tag *tag, bool ok)
{
	struct rpc_call *call = TAG_CALL(tag, send_tag);

	(void)ok;
	atomic_store_explicit(&call->sending_since_ns, 0, memory_order_relaxed);
	atomic_fetch_sub_explicit(&call->server->queued_bytes, call->answer_bytes,
				  memory_order_relaxed);
	call_unref(call);
}

static void error_sent(struct rpc_tag *tag, bool ok)
{
	struct rpc_call *call = TAG_CALL(tag, send_tag);

	(void)ok;
	atomic_store_explicit(&call->sending_since_ns, 0, memory_order_relaxed);
	call_unref(call);
}

void call_answer_error(struct rpc_call *call, const struct err *err, bool watching)
{
	grpc_slice message = status_message(err->msg);
	grpc_op ops[3] = {0};
	size_t n = 0;

	call_set_end(call, status_code(err), err->msg);
	ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)call->code;
	ops[n++].data.send_status_from_server.status_details = &message;
	if (!watching) {
		ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
		ops[n++].data.recv_close_on_server.cancelled = &call->closed_by_client;
	}
	call->send_tag.done = error_sent;
	atomic_store_explicit(&call->sending_since_ns, monotonic_ns(), memory_order_relaxed);
	call_batch(call, ops, n, &call->send_tag);
	grpc_slice_unref(message);
}

static void refused(struct rpc_tag *tag, bool ok)
{
	(void)ok;
	call_unref(TAG_CALL(tag, close_tag));
}

/*
 * Cancelled, a call is over at once, its status on the way or not; an answer would keep it alive until a
 * client that may never read has read it.
 */
void call_refuse(struct rpc_call *call, const struct err *err)
{
	call->code = err->code;
	call->message = strdup(err->msg);
	grpc_call_cancel_with_status(call->core, (grpc_status_code)status_code(err), err->msg,
				     NULL);
	call_watch_close(call, refused);
}
