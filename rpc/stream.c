/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming calls. gRPC's completions and what handlers ask for only change the state in struct stream;
 * step(), on a worker, tells the handler, one event after another, and pump() gives gRPC what it may have
 * next: at most one message to send and one to receive.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "rpc/buffer_internal.h"
#include "rpc/server_internal.h"
#include "rpc/status_internal.h"

/* Answers made inside a call back wait for its end, so that the last of them and the status share a write;
 * but not when there is so much. */
#define FLUSH_BYTES ((size_t)64 << 10)

/* For a handler that does not heed the high water mark, this many bytes of answers above it. */
#define ABOVE_HIGH_WATER_BYTES ((size_t)64 << 20)

/* What a queued message costs beside its bytes, our part and gRPC's. */
#define MSG_OVERHEAD_BYTES 256

/* Below the high water mark divided by this the handler is told to go on. */
#define LOW_WATER_DIVISOR   4
/* See high_water(). */
#define CROWDED_DIVISOR     8
#define CROWDED_QUEUE_BYTES ((size_t)16 << 10)

static void work(struct pool_job *job);
static bool work_here(struct rpc_call *call);

/* The call is to be looked at: here, on the poller, or off it. The lock is held; it is released for a while. */
static void schedule(struct rpc_call *call)
{
	if (call->stream.running)
		return;
	call->stream.running = true;
	call_ref(call);
	if ((call->method->row->flags & RPC_INLINE) && work_here(call)) {
		call_unref(call);
		return;
	}
	call->job.run = work;
	server_serve_soon(call);
}

/* --- sending --------------------------------------------------------------------------------------- */

static void free_msg(struct rpc_call *call, struct out_msg *msg)
{
	if (!msg)
		return;
	atomic_fetch_sub_explicit(&call->server->queued_bytes, msg->cost, memory_order_relaxed);
	call->stream.out_bytes -= msg->cost;
	grpc_byte_buffer_destroy(msg->buffer);
	free(msg);
}

static struct out_msg *pop_msg(struct stream *s)
{
	struct out_msg *msg = s->out_head;

	if (!msg)
		return NULL;
	s->out_head = msg->next;
	if (!s->out_head)
		s->out_tail = &s->out_head;
	return msg;
}

static void drop_queue(struct rpc_call *call)
{
	struct out_msg *msg;

	while ((msg = pop_msg(&call->stream)) != NULL)
		free_msg(call, msg);
}

static void sent(struct rpc_tag *tag, bool ok);

/* Send what is next, if anything is, and gRPC is free. The lock is held; it is released for a while. */
static void pump(struct rpc_call *call)
{
	struct stream *s = &call->stream;
	grpc_op ops[3] = {0};
	grpc_slice message;
	bool with_status;
	size_t n = 0;

	if (s->sending || s->over || s->status_sent || (!s->out_head && !s->ending))
		return;
	s->sending = true;
	if (!s->begun) {
		s->begun = true;
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	}
	s->in_flight = pop_msg(s);
	if (s->in_flight) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = s->in_flight->buffer;
	}
	with_status = s->ending && !s->out_head;
	if (with_status) {
		s->status_sent = true;
		message = status_message(call->message ? call->message : "");
		ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
		ops[n].data.send_status_from_server.status = (grpc_status_code)call->code;
		ops[n++].data.send_status_from_server.status_details = &message;
	}
	atomic_store_explicit(&call->sending_since_ns, monotonic_ns(), memory_order_relaxed);
	pthread_mutex_unlock(&s->mutex);

	call->send_tag.done = sent;
	call_batch(call, ops, n, &call->send_tag);
	if (with_status)
		grpc_slice_unref(message);

	pthread_mutex_lock(&s->mutex);
}

/*
 * Where a queue is full. Once many clients together have left much unread, each has a small queue only: so
 * those that do read go on being served, and the budget of all is never used up by some.
 */
static size_t high_water(const struct rpc_call *call)
{
	const struct rpc_server *server = call->server;
	size_t queued = atomic_load_explicit(&server->queued_bytes, memory_order_relaxed);
	size_t mark = call->method->row->queue_bytes;

	if (!mark || mark > server->options.max_queue_bytes)
		mark = server->options.max_queue_bytes;
	if (queued > QUEUED_BYTES_MAX / CROWDED_DIVISOR && mark > CROWDED_QUEUE_BYTES)
		return CROWDED_QUEUE_BYTES;
	return mark;
}

static void sent(struct rpc_tag *tag, bool ok)
{
	struct rpc_call *call = TAG_CALL(tag, send_tag);
	struct stream *s = &call->stream;
	size_t low = high_water(call) / LOW_WATER_DIVISOR;

	pthread_mutex_lock(&s->mutex);
	atomic_store_explicit(&call->sending_since_ns, 0, memory_order_relaxed);
	s->sending = false;
	if (s->in_flight && ok)
		atomic_fetch_add_explicit(&call->bytes_out, s->in_flight->len,
					  memory_order_relaxed);
	free_msg(call, s->in_flight);
	s->in_flight = NULL;
	if (!ok) { /* the connection or the call is lost; close_tag will say so too */
		s->broken = true;
		drop_queue(call);
	}
	if (s->want_writable && s->out_bytes <= low && !s->ending && !s->broken) {
		s->want_writable = false;
		s->events |= EVENT_WRITABLE;
		schedule(call);
	}
	if (s->over)
		schedule(call);
	else if (!s->in_callback || s->out_bytes >= FLUSH_BYTES)
		pump(call);
	pthread_mutex_unlock(&s->mutex);
	call_unref(call);
}

/* The call ends with @err once what is queued has been sent. The lock is held. */
static void fail(struct rpc_call *call, const struct err *err)
{
	if (call->stream.ending)
		return;
	call->stream.ending = true;
	if (!call->stream.over)
		call_set_end(call, status_code(err), err->msg);
}

/* --- receiving ------------------------------------------------------------------------------------- */

static void received(struct rpc_tag *tag, bool ok);

/* Ask for the next message. The lock is held; it is released for a while. */
static void receive(struct rpc_call *call)
{
	struct stream *s = &call->stream;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

	if (s->receiving || s->over || s->ending)
		return;
	s->receiving = true;
	pthread_mutex_unlock(&s->mutex);
	op.data.recv_message.recv_message = &s->received;
	call->recv_tag.done = received;
	call_batch(call, &op, 1, &call->recv_tag);
	pthread_mutex_lock(&s->mutex);
}

/*
 * The end of the messages is what gRPC reports for a half close and for a cancelled call alike, the latter
 * just before it reports the call's end. A handler must not take the one for the other: so another message
 * is asked for, which can only come back empty, and behind the call's end if there is one.
 */
static void received(struct rpc_tag *tag, bool ok)
{
	struct rpc_call *call = TAG_CALL(tag, recv_tag);
	struct stream *s = &call->stream;

	pthread_mutex_lock(&s->mutex);
	s->receiving = false;
	if (s->received) {
		call->bytes_in += grpc_byte_buffer_length(s->received);
		s->events |= EVENT_MESSAGE;
	} else if (ok && !s->drained) {
		s->drained = true;
		receive(call);
	} else if (ok) {
		s->events |= EVENT_HALF_CLOSE;
	}
	schedule(call);
	pthread_mutex_unlock(&s->mutex);
	call_unref(call);
}

/* --- telling the handler --------------------------------------------------------------------------- */

static int on_open(struct rpc_call *call, struct err *err)
{
	const struct rpc_method *row = call->method->row;
	void *self = call->method->service->self;
	ProtobufCMessage *request = NULL;

	/* Before open() an error needs no close(). */
	if (ctx_check(&call->ctx, err) < 0)
		return -1;
	if (row->kind == RPC_SERVER_STREAM && !call->stream.request) {
		if (!call->payload)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "the call has no request message");
		if (buffer_unpack(call->payload, row->request, &call->arena, &request, err) < 0)
			return -1;
		grpc_byte_buffer_destroy(call->payload);
		call->payload = NULL;
		call->stream.request = request;
	}
	call->stream.opened = true;
	return row->stream->open(self, call, call->stream.request, err);
}

static int on_message(struct rpc_call *call, bool may_wait, struct err *err)
{
	const struct rpc_method *row = call->method->row;
	int (*fn)(void *self, struct rpc_call *call, const ProtobufCMessage *msg, struct err *err) =
		may_wait ? row->stream->message : row->stream->message_quick;
	grpc_byte_buffer *buffer = take_ptr(call->stream.received);
	CLEANUP(arena_done) struct arena arena;
	ProtobufCMessage *msg;
	int r;

	arena_init(&arena, CALL_ARENA_BYTES);
	if (row->bytes_field) {
		r = buffer_split(buffer, row->request, row->bytes_field, &arena, &msg,
				 &call->stream.bytes, &call->stream.n_bytes, err);
	} else {
		r = buffer_unpack(buffer, row->request, &arena, &msg, err);
	}
	if (r == 0 && fn)
		r = fn(call->method->service->self, call, msg, err);
	call->stream.bytes = NULL;
	call->stream.n_bytes = 0;
	/* What had to wait once will mostly have to again: the next one is not looked at twice. */
	if (r > 0) {
		call->stream.received = buffer;
		call->stream.slow = true;
	} else {
		grpc_byte_buffer_destroy(buffer);
	}
	return r;
}

/* Would close() have to wait, and half_close() with it? */
static bool close_waits(const struct rpc_call *call)
{
	const struct rpc_stream_ops *ops = call->method->row->stream;

	return call->stream.opened && ops->close &&
	       !(ops->close_is_quick && ops->close_is_quick(call));
}

/* May the handler be told of this on the poller? */
static bool is_quick(const struct rpc_call *call, unsigned int event)
{
	if (event == EVENT_MESSAGE)
		return call->method->row->stream->message_quick && !call->stream.slow &&
		       grpc_byte_buffer_length(call->stream.received) <= INLINE_MAX_BYTES;
	return event == EVENT_OPEN || (event == EVENT_HALF_CLOSE && !close_waits(call));
}

/* Return: 0; 1, unless @may_wait: nothing was done; -1. */
static int tell(struct rpc_call *call, unsigned int event, bool may_wait, struct err *err)
{
	const struct rpc_stream_ops *ops = call->method->row->stream;
	void *self = call->method->service->self;

	if (!may_wait && !is_quick(call, event))
		return 1;
	switch (event) {
	case EVENT_OPEN:
		return on_open(call, err);
	case EVENT_MESSAGE:
		return on_message(call, may_wait, err);
	case EVENT_HALF_CLOSE:
		return ops->half_close ? ops->half_close(self, call, err) : 0;
	default:
		return ops->writable ? ops->writable(self, call, err) : 0;
	}
}

/* Nobody waits for an answer any more: forget what has come meanwhile. The lock is held. */
static void forget_events(struct stream *s)
{
	s->events = 0;
	if (s->received && !s->receiving) {
		grpc_byte_buffer_destroy(s->received);
		s->received = NULL;
	}
}

enum step { STEP_NONE, STEP_DONE, STEP_WAITS };

/*
 * The next event in its order; the lock is held.
 * Return: STEP_NONE when there is nothing more to do now; STEP_WAITS, unless @may_wait: the next may have to wait.
 */
static enum step step(struct rpc_call *call, bool may_wait)
{
	const struct rpc_method *row = call->method->row;
	struct stream *s = &call->stream;
	struct err err = ERR_INIT;
	unsigned int event;
	int r;

	if (s->over || s->ending)
		forget_events(s);
	if (!s->events)
		return STEP_NONE;
	event = s->events & -s->events; /* the lowest bit: open before message before half close */
	s->events &= ~event;

	s->in_callback = true;
	pthread_mutex_unlock(&s->mutex);
	r = tell(call, event, may_wait, &err);
	pthread_mutex_lock(&s->mutex);
	s->in_callback = false;

	if (r > 0) {
		s->events |= event;
		return STEP_WAITS;
	}
	if (r < 0) {
		call_explain_stop(call, &err);
		fail(call, &err);
	}
	if (row->kind == RPC_BIDI_STREAM && event == EVENT_MESSAGE)
		receive(call);
	pump(call);
	return STEP_DONE;
}

/* Is it all behind us? The lock is held. */
static bool finished(const struct stream *s)
{
	return s->over && !s->sending && !s->receiving && !s->finished;
}

static void work(struct pool_job *job)
{
	struct rpc_call *call = TAG_CALL(job, job);
	const struct rpc_stream_ops *ops = call->method->row->stream;
	struct stream *s = &call->stream;
	bool last;

	pthread_mutex_lock(&s->mutex);
	while (step(call, true) == STEP_DONE)
		;
	last = finished(s);
	if (last) {
		s->finished = true;
		drop_queue(call);
	} else {
		s->running = false;
	}
	pthread_mutex_unlock(&s->mutex);

	if (last) {
		if (s->opened && ops->close)
			ops->close(call->method->service->self, call);
		call_unref(call); /* the one that the call began with */
	}
	call_unref(call);
}

/* As work(), on the poller. The lock is held; it is released for a while. Return: is it done? Else it is for a worker. */
static bool work_here(struct rpc_call *call)
{
	const struct rpc_stream_ops *ops = call->method->row->stream;
	struct stream *s = &call->stream;
	enum step r;

	while ((r = step(call, false)) == STEP_DONE)
		;
	if (r == STEP_WAITS || (finished(s) && close_waits(call)))
		return false;
	if (!finished(s)) {
		s->running = false;
		return true;
	}
	s->finished = true;
	drop_queue(call);
	pthread_mutex_unlock(&s->mutex);
	if (s->opened && ops->close)
		ops->close(call->method->service->self, call);
	pthread_mutex_lock(&s->mutex);
	call_unref(call); /* the one that the call began with */
	return true;
}

static void closed(struct rpc_tag *tag, bool ok)
{
	struct rpc_call *call = TAG_CALL(tag, close_tag);
	struct stream *s = &call->stream;

	(void)ok;
	if (call->closed_by_client)
		atomic_store_explicit(&call->cancelled, true, memory_order_relaxed);
	pthread_mutex_lock(&s->mutex);
	s->over = true;
	schedule(call);
	pthread_mutex_unlock(&s->mutex);
	call_unref(call);
}

/* One batch: everything goes out in one write. */
static void answer_at_once(struct rpc_call *call)
{
	grpc_op ops[4] = {0};
	size_t n = 0;

	ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (call->answer) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = call->answer;
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n++].data.send_status_from_server.status = GRPC_STATUS_OK;
	ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	ops[n++].data.recv_close_on_server.cancelled = &call->closed_by_client;
	call->send_tag.done = call_answered;
	atomic_store_explicit(&call->sending_since_ns, monotonic_ns(), memory_order_relaxed);
	call_batch(call, ops, n, &call->send_tag);
}

/* Account for an answer of quick(), and make it what is sent. Takes @buf. */
static int keep_answer(struct rpc_call *call, struct rpc_buf *buf, size_t len, struct err *err)
{
	grpc_slice slice;

	if (!buf)
		return 0;
	if (call_reserve(call, 0, len, err) < 0) {
		rpc_buf_free(buf);
		return -1;
	}
	slice = buf_slice(buf, len);
	call->answer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	call->answer_bytes = len;
	atomic_store_explicit(&call->bytes_out, len, memory_order_relaxed);
	return 0;
}

/* Return: is the call over? Then the caller's reference is gone with it. */
static bool serve_quickly(struct rpc_call *call)
{
	const struct rpc_method *row = call->method->row;
	struct rpc_buf *buf = NULL;
	struct err err = ERR_INIT;
	size_t len = 0;
	int r;

	if (!row->stream->quick || !call->payload || call->bytes_in > INLINE_MAX_BYTES)
		return false;
	r = ctx_check(&call->ctx, &err);
	if (r == 0)
		r = buffer_unpack(call->payload, row->request, &call->arena, &call->stream.request,
				  &err);
	if (r == 0)
		r = row->stream->quick(call->method->service->self, call, call->stream.request,
				       &buf, &len, &err);
	if (r > 0)
		return false;
	if (r == 0)
		r = keep_answer(call, buf, len, &err);
	arena_done(&call->arena);
	if (r == 0) {
		answer_at_once(call);
	} else {
		call_explain_stop(call, &err);
		call_answer_error(call, &err, false);
	}
	call_unref(call);
	return true;
}

void stream_begin(struct rpc_call *call)
{
	struct stream *s = &call->stream;

	if (serve_quickly(call))
		return;
	s->out_tail = &s->out_head;
	call_watch_close(call, closed);
	pthread_mutex_lock(&s->mutex);
	s->events |= EVENT_OPEN;
	schedule(call);
	/* The first message is mostly here already: open() and message() then follow one another at once. */
	if (call->method->row->kind == RPC_BIDI_STREAM)
		receive(call);
	pthread_mutex_unlock(&s->mutex);
}

/* --- for handlers ---------------------------------------------------------------------------------- */

struct ctx *rpc_call_ctx(struct rpc_call *call)
{
	return &call->ctx;
}

void *rpc_call_data(const struct rpc_call *call)
{
	return call->stream.data;
}

void rpc_call_set_data(struct rpc_call *call, void *data)
{
	call->stream.data = data;
}

/* Room for a message of @cost? It is accounted for when there is. The lock is held. */
static int reserve(struct rpc_call *call, size_t cost, struct err *err)
{
	struct stream *s = &call->stream;

	if (s->over || s->ending || s->broken)
		return err_set(err, ERR_CANCELLED, "the call is over");
	if (s->out_bytes + cost > call->server->options.max_queue_bytes + ABOVE_HIGH_WATER_BYTES)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "%zu bytes wait for a slow client",
			       s->out_bytes);
	if (call_reserve(call, s->out_bytes, cost, err) < 0)
		return -1;
	s->out_bytes += cost;
	return 0;
}

const struct iovec *rpc_call_bytes(const struct rpc_call *call, size_t *ret_n)
{
	*ret_n = call->stream.n_bytes;
	return call->stream.bytes;
}

/* Queues @buffer of @len encoded bytes, and takes it. */
static int enqueue(struct rpc_call *call, grpc_byte_buffer *buffer, size_t len, struct err *err)
{
	struct stream *s = &call->stream;
	struct out_msg *out = malloc(sizeof(*out));
	int r = 0;

	if (!out) {
		grpc_byte_buffer_destroy(buffer);
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
	}
	*out = (struct out_msg){.buffer = buffer, .len = len, .cost = len + MSG_OVERHEAD_BYTES};

	LOCK_GUARD(&s->mutex);
	if (reserve(call, out->cost, err) < 0) {
		grpc_byte_buffer_destroy(out->buffer);
		free(out);
		return -1;
	}
	*s->out_tail = out;
	s->out_tail = &out->next;
	if (s->out_bytes > high_water(call)) {
		s->want_writable = true;
		r = 1;
	}
	if (!s->in_callback || s->out_bytes >= FLUSH_BYTES)
		pump(call);
	return r;
}

int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *msg, struct err *err)
{
	grpc_byte_buffer *buffer;
	size_t len;

	if (buffer_pack(msg, &buffer, &len, err) < 0)
		return -1;
	return enqueue(call, buffer, len, err);
}

int rpc_call_send_buf(struct rpc_call *call, struct rpc_buf *buf, size_t len, struct err *err)
{
	grpc_slice slice = buf_slice(buf, len);
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

	grpc_slice_unref(slice);
	return enqueue(call, buffer, len, err);
}

void rpc_call_finish(struct rpc_call *call)
{
	struct stream *s = &call->stream;

	LOCK_GUARD(&s->mutex);
	s->ending = true;
	if (!s->in_callback)
		pump(call);
}
