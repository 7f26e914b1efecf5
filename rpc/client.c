/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/client.h"

#include <ctype.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "rpc/buffer_internal.h"
#include "rpc/library_internal.h"
#include "rpc/server.h"
#include "rpc/status_internal.h"

/* A server that was restarted is found again within the longer of these; calls fail at once meanwhile. */
#define RECONNECT_INITIAL_MS 100
#define RECONNECT_MAX_MS     1000

/* What gRPC calls the minimum is the time that one attempt may take: a busy server must not run out of it. */
#define CONNECT_TIMEOUT_MS 5000

/* How long a caller's change of mind may go unnoticed; part of the contract in client.h. */
#define CANCEL_POLL_NS (100 * INT64_C(1000000))

#define NSEC_PER_SEC 1000000000LL

/* Headers of a call; ours has two at most. */
#define METADATA_MAX 16

/* Completion queues kept for the next calls. */
#define QUEUES_KEPT 4

struct rpc_client {
	grpc_channel *channel;

	pthread_mutex_t mutex; /* guards what follows */
	grpc_completion_queue *queues[QUEUES_KEPT];
	size_t n_queues;
};

/* What a call's status comes in. */
struct status {
	grpc_metadata_array trailers;
	grpc_status_code code;
	grpc_slice message;
};

struct rpc_stream {
	struct rpc_client *client;
	struct ctx *ctx;
	const ProtobufCMessageDescriptor *type;
	grpc_call *call;
	grpc_completion_queue *cq;
	grpc_metadata_array headers;
	struct status status;
	bool headers_asked;
	bool ended; /* @status is filled */
};

/* --- the client ------------------------------------------------------------------------------------ */

/* The target is a URI, and a path may hold anything. */
static bool make_target(const char *path, char *buf, size_t size)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t len = strlen("unix:");

	memcpy(buf, "unix:", len);
	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;

		if (len + 4 > size)
			return false;
		if (isascii(c) && (isalnum(c) || strchr("/._-~", c))) {
			buf[len++] = (char)c;
			continue;
		}
		buf[len++] = '%';
		buf[len++] = hex[c >> 4];
		buf[len++] = hex[c & 15];
	}
	buf[len] = '\0';
	return true;
}

static grpc_arg int_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_channel *make_channel(const char *target)
{
	grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
	grpc_channel *channel;
	grpc_arg args[] = {
		int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MAX_MESSAGE_BYTES),
		int_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_INITIAL_MS),
		int_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_TIMEOUT_MS),
		int_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS),
		int_arg(GRPC_ARG_ENABLE_RETRIES, 0),
		int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
		int_arg(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
		int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
		int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
		int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
		/* Connections of one client are not another's. */
		int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
	};
	const grpc_channel_args channel_args = {.num_args = ARRAY_LEN(args), .args = args};

	channel = grpc_channel_create(target, credentials, &channel_args);
	grpc_channel_credentials_release(credentials);
	return channel;
}

int rpc_client_new(const char *path, struct rpc_client **ret_client, struct err *err)
{
	char target[3 * sizeof(((struct sockaddr_un *)NULL)->sun_path) + sizeof("unix:")];
	struct rpc_client *client;

	if (!path[0] || strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path) ||
	    !make_target(path, target, sizeof(target)))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "socket path '%s' is empty or longer than %zu bytes", path,
			       sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
	client = calloc(1, sizeof(*client));
	if (!client)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a client");
	pthread_mutex_init(&client->mutex, NULL);
	library_use();
	client->channel = make_channel(target);
	*ret_client = client;
	return 0;
}

static void free_queue(grpc_completion_queue *cq)
{
	grpc_completion_queue_shutdown(cq);
	grpc_completion_queue_destroy(cq);
}

void rpc_client_free(struct rpc_client *client)
{
	if (!client)
		return;
	for (size_t i = 0; i < client->n_queues; i++)
		free_queue(client->queues[i]);
	grpc_channel_destroy(client->channel);
	pthread_mutex_destroy(&client->mutex);
	free(client);
}

static grpc_completion_queue *take_queue(struct rpc_client *client)
{
	grpc_completion_queue *cq = NULL;

	pthread_mutex_lock(&client->mutex);
	if (client->n_queues)
		cq = client->queues[--client->n_queues];
	pthread_mutex_unlock(&client->mutex);
	return cq ? cq : grpc_completion_queue_create_for_pluck(NULL);
}

static void give_queue(struct rpc_client *client, grpc_completion_queue *cq)
{
	pthread_mutex_lock(&client->mutex);
	if (client->n_queues < QUEUES_KEPT) {
		client->queues[client->n_queues++] = cq;
		cq = NULL;
	}
	pthread_mutex_unlock(&client->mutex);
	if (cq)
		free_queue(cq);
}

/* --- what every call needs ------------------------------------------------------------------------- */

static gpr_timespec from_ns(int64_t ns)
{
	if (ns == CTX_NO_DEADLINE)
		return gpr_inf_future(GPR_CLOCK_MONOTONIC);
	return (gpr_timespec){.tv_sec = ns / NSEC_PER_SEC,
			      .tv_nsec = (int32_t)(ns % NSEC_PER_SEC),
			      .clock_type = GPR_CLOCK_MONOTONIC};
}

static grpc_call *make_call(struct rpc_client *client, const struct ctx *ctx, const char *method,
			    grpc_completion_queue *cq)
{
	grpc_slice name = grpc_slice_from_copied_string(method);
	grpc_call *call;

	call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, cq, name,
					NULL, from_ns(ctx->deadline_ns), NULL);
	grpc_slice_unref(name);
	return call;
}

/* Give gRPC a batch and wait until it is done. Whoever gave the call up hears of that soon. */
static bool run_batch(const struct ctx *ctx, grpc_call *call, grpc_completion_queue *cq,
		      const grpc_op *ops, size_t n, void *tag)
{
	bool watch = ctx->cancelled != NULL;

	if (ops && grpc_call_start_batch(call, ops, n, tag, NULL) != GRPC_CALL_OK)
		abort(); /* only a batch that we put together wrongly is refused */
	for (;;) {
		int64_t until_ns = watch ? monotonic_ns() + CANCEL_POLL_NS : CTX_NO_DEADLINE;
		grpc_event event = grpc_completion_queue_pluck(cq, tag, from_ns(until_ns), NULL);

		if (event.type == GRPC_OP_COMPLETE)
			return event.success != 0;
		if (watch && atomic_load_explicit(ctx->cancelled, memory_order_relaxed)) {
			grpc_call_cancel(call, NULL);
			watch = false;
		}
	}
}

static int check_metadata(const struct rpc_metadata *metadata, size_t n, struct err *err)
{
	if (n > METADATA_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "%zu headers, %d are possible", n,
			       METADATA_MAX);
	for (size_t i = 0; i < n; i++) {
		grpc_slice name = grpc_slice_from_static_string(metadata[i].name);
		grpc_slice value = grpc_slice_from_static_string(metadata[i].value);

		if (!grpc_header_key_is_legal(name) || grpc_is_binary_header(name) ||
		    !grpc_header_nonbin_value_is_legal(value))
			return err_set(err, ERR_INVALID_ARGUMENT, "header '%s' is not legal",
				       metadata[i].name);
	}
	return 0;
}

/* Borrowed: the strings must live until the batch with them is done. */
static void set_metadata(const struct rpc_metadata *metadata, size_t n, grpc_metadata *out)
{
	memset(out, 0, n * sizeof(*out));
	for (size_t i = 0; i < n; i++) {
		out[i].key = grpc_slice_from_static_string(metadata[i].name);
		out[i].value = grpc_slice_from_static_string(metadata[i].value);
	}
}

static void status_init(struct status *status)
{
	*status = (struct status){.code = GRPC_STATUS_UNKNOWN, .message = grpc_empty_slice()};
	grpc_metadata_array_init(&status->trailers);
}

static void status_done(struct status *status)
{
	grpc_metadata_array_destroy(&status->trailers);
	grpc_slice_unref(status->message);
}

static void set_status_op(struct status *status, grpc_op *op)
{
	op->op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	op->data.recv_status_on_client.trailing_metadata = &status->trailers;
	op->data.recv_status_on_client.status = &status->code;
	op->data.recv_status_on_client.status_details = &status->message;
}

/* An answer that cannot be decoded is the server's mistake, not an argument of ours. */
static int unpack_answer(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type,
			 struct arena *arena, ProtobufCMessage **ret_msg, struct err *err)
{
	if (buffer_unpack(buffer, type, arena, ret_msg, err) == 0)
		return 0;
	if (err->code == ERR_INVALID_ARGUMENT)
		err->code = ERR_INTERNAL;
	return err_wrap(err, "answer");
}

/* --- unary ----------------------------------------------------------------------------------------- */

int rpc_client_call(struct rpc_client *client, struct ctx *ctx, const char *method,
		    const struct rpc_metadata *metadata, size_t n_metadata,
		    const ProtobufCMessage *request,
		    const ProtobufCMessageDescriptor *response_type,
		    ProtobufCMessage **ret_response, struct err *err)
{
	grpc_metadata headers_out[METADATA_MAX];
	grpc_metadata_array headers;
	grpc_byte_buffer *out;
	grpc_byte_buffer *in = NULL;
	grpc_completion_queue *cq;
	struct status status;
	grpc_op ops[6] = {0};
	grpc_call *call;
	size_t len;
	int r;

	if (ctx_check(ctx, err) < 0 || check_metadata(metadata, n_metadata, err) < 0 ||
	    buffer_pack(request, &out, &len, err) < 0)
		return -1;
	cq = take_queue(client);
	call = make_call(client, ctx, method, cq);
	set_metadata(metadata, n_metadata, headers_out);
	grpc_metadata_array_init(&headers);
	status_init(&status);

	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[0].data.send_initial_metadata.count = n_metadata;
	ops[0].data.send_initial_metadata.metadata = headers_out;
	ops[1].op = GRPC_OP_SEND_MESSAGE;
	ops[1].data.send_message.send_message = out;
	ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &headers;
	ops[4].op = GRPC_OP_RECV_MESSAGE;
	ops[4].data.recv_message.recv_message = &in;
	set_status_op(&status, &ops[5]);
	(void)run_batch(ctx, call, cq, ops, ARRAY_LEN(ops), client); /* the status says it all */

	if (status.code != GRPC_STATUS_OK)
		r = status_to_err(status.code, status.message, err);
	else if (!in)
		r = err_set(err, ERR_INTERNAL, "the server sent no answer");
	else
		r = unpack_answer(in, response_type, ctx->arena, ret_response, err);

	grpc_call_unref(call);
	give_queue(client, cq);
	grpc_byte_buffer_destroy(out);
	if (in)
		grpc_byte_buffer_destroy(in);
	grpc_metadata_array_destroy(&headers);
	status_done(&status);
	return r;
}

/* --- streams --------------------------------------------------------------------------------------- */

/* Tags: the status is waited for by the address of its place, all else by that of the stream. */

/* Wait for the status; it is there for good afterwards. */
static void wait_status(struct rpc_stream *stream)
{
	if (stream->ended)
		return;
	(void)run_batch(stream->ctx, stream->call, stream->cq, NULL, 0, &stream->status);
	stream->ended = true;
}

static int run_stream_batch(struct rpc_stream *stream, const grpc_op *ops, size_t n)
{
	return run_batch(stream->ctx, stream->call, stream->cq, ops, n, stream);
}

int rpc_stream_open(struct rpc_client *client, struct ctx *ctx, const char *method,
		    const struct rpc_metadata *metadata, size_t n_metadata,
		    const ProtobufCMessageDescriptor *response_type, struct rpc_stream **ret_stream,
		    struct err *err)
{
	grpc_metadata headers_out[METADATA_MAX];
	struct rpc_stream *stream;
	grpc_op op = {0};

	if (ctx_check(ctx, err) < 0 || check_metadata(metadata, n_metadata, err) < 0)
		return -1;
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a stream");
	stream->client = client;
	stream->ctx = ctx;
	stream->type = response_type;
	stream->cq = take_queue(client);
	stream->call = make_call(client, ctx, method, stream->cq);
	grpc_metadata_array_init(&stream->headers);
	status_init(&stream->status);

	/* The status may come at any time: it is asked for once, and picked up when it is wanted. */
	set_status_op(&stream->status, &op);
	if (grpc_call_start_batch(stream->call, &op, 1, &stream->status, NULL) != GRPC_CALL_OK)
		abort();
	set_metadata(metadata, n_metadata, headers_out);
	op = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
	op.data.send_initial_metadata.count = n_metadata;
	op.data.send_initial_metadata.metadata = headers_out;
	if (!run_stream_batch(stream, &op, 1)) {
		wait_status(stream);
		(void)status_to_err(stream->status.code, stream->status.message, err);
		rpc_stream_free(stream);
		return -1;
	}
	*ret_stream = stream;
	return 0;
}

/* Return: the next message, for grpc_byte_buffer_destroy(), or NULL at the end of the call. */
static grpc_byte_buffer *receive(struct rpc_stream *stream)
{
	grpc_byte_buffer *in = NULL;
	grpc_op ops[2] = {0};
	size_t n = 0;

	if (stream->ended)
		return NULL;
	if (!stream->headers_asked) {
		stream->headers_asked = true;
		ops[n].op = GRPC_OP_RECV_INITIAL_METADATA;
		ops[n++].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
	}
	ops[n].op = GRPC_OP_RECV_MESSAGE;
	ops[n++].data.recv_message.recv_message = &in;
	(void)run_stream_batch(stream, ops, n); /* no message then, and the status says why */
	return in;
}

/* A send failed, which only happens when the call has ended. */
static int ended_early(struct rpc_stream *stream, struct err *err)
{
	grpc_byte_buffer *unread;

	/* gRPC keeps the status back while there are messages before it. */
	while ((unread = receive(stream)) != NULL)
		grpc_byte_buffer_destroy(unread);
	wait_status(stream);
	if (stream->status.code != GRPC_STATUS_OK)
		return status_to_err(stream->status.code, stream->status.message, err);
	return err_set(err, ERR_CANCELLED, "the server has ended the call");
}

int rpc_stream_send(struct rpc_stream *stream, const ProtobufCMessage *msg, struct err *err)
{
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	grpc_byte_buffer *out;
	size_t len;
	bool ok;

	if (stream->ended)
		return ended_early(stream, err);
	if (buffer_pack(msg, &out, &len, err) < 0)
		return -1;
	op.data.send_message.send_message = out;
	ok = run_stream_batch(stream, &op, 1);
	grpc_byte_buffer_destroy(out);
	return ok ? 0 : ended_early(stream, err);
}

int rpc_stream_half_close(struct rpc_stream *stream, struct err *err)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

	if (stream->ended || !run_stream_batch(stream, &op, 1))
		return ended_early(stream, err);
	return 0;
}

int rpc_stream_recv(struct rpc_stream *stream, struct arena *arena, ProtobufCMessage **ret_msg,
		    struct err *err)
{
	grpc_byte_buffer *in = receive(stream);
	int r;

	if (!in) {
		wait_status(stream);
		if (stream->status.code == GRPC_STATUS_OK)
			return 0;
		return status_to_err(stream->status.code, stream->status.message, err);
	}
	r = unpack_answer(in, stream->type, arena, ret_msg, err);
	grpc_byte_buffer_destroy(in);
	return r < 0 ? -1 : 1;
}

void rpc_stream_free(struct rpc_stream *stream)
{
	if (!stream)
		return;
	if (!stream->ended) {
		grpc_call_cancel(stream->call, NULL);
		wait_status(stream);
	}
	grpc_call_unref(stream->call);
	give_queue(stream->client, stream->cq);
	grpc_metadata_array_destroy(&stream->headers);
	status_done(&stream->status);
	free(stream);
}
