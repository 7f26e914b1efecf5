/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the server share.
 *
 * The life of a call: server.c keeps some calls *requested* of gRPC for each method. When a client's call
 * arrives in one it is *alive*: linked into the server's list, counted, until its last reference goes
 * (call.c). unary.c or stream.c serves it meanwhile. Each batch of operations given to gRPC has a tag
 * inside the call, holds a reference until it comes back on the completion queue, and is handled on the
 * poller.
 *
 * Locks, in the order in which they are taken: the call's, the server's. Neither is held while gRPC or a
 * handler is called, with one exception (server.c, cancelling).
 */
#ifndef LIGHTER_RPC_SERVER_INTERNAL_H
#define LIGHTER_RPC_SERVER_INTERNAL_H

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "rpc/server.h"

/* Memory of one call's requests and results, at most: a message of 16 MiB, decoded, with room to work. */
#define CALL_ARENA_BYTES (64u << 20)

/* Requests above this are decoded on a worker even if their method is inline. */
#define INLINE_MAX_BYTES (64u << 10)

/* A message that gRPC could not send for so long has a client that does not read: the call is cancelled. */
#define STALL_NS (300 * INT64_C(1000000000))

/* The same once answers for clients that do not read fill half of QUEUED_BYTES_MAX. */
#define CROWDED_STALL_NS (30 * INT64_C(1000000000))

/* Encoded answers of all calls together that wait to be sent, beside what SMALL_ANSWER_BYTES lets pass. */
#define QUEUED_BYTES_MAX ((size_t)256 << 20)

/*
 * A call may always have so much waiting, a List's message for one: whoever reads is served, however much
 * others leave unread. All calls alive, each with so much, are the bound above QUEUED_BYTES_MAX.
 */
#define SMALL_ANSWER_BYTES ((size_t)132 << 10)

struct rpc_tag {
	void (*done)(struct rpc_tag *tag, bool ok);
};

#define TAG_CALL(tag_, member_)                                                                    \
	((struct rpc_call *)((char *)(tag_)-offsetof(struct rpc_call, member_)))

/* One row of one service's table, as gRPC knows it. */
struct method {
	const struct rpc_service *service;
	const struct rpc_method *row;
	void *registered;
};

struct out_msg {
	struct out_msg *next;
	grpc_byte_buffer *buffer;
	size_t len;
	size_t cost; /* what it counts for in the queue's bounds */
};

/* What a stream's call backs are to be told. */
enum {
	EVENT_OPEN = 1,
	EVENT_MESSAGE = 2,
	EVENT_HALF_CLOSE = 4,
	EVENT_WRITABLE = 8,
};

struct stream {
	pthread_mutex_t mutex; /* guards what follows */
	unsigned int events;
	bool running; /* a worker is busy with this call, or will be */
	bool in_callback;
	bool slow; /* message_quick() had to leave a message to message() */
	bool opened; /* open() was called: close() must be */
	bool sending;
	bool receiving;
	bool drained; /* no more messages will come */
	bool ending; /* the status is known: when all is sent, it follows */
	bool begun; /* headers were sent */
	bool status_sent;
	bool broken; /* a message could not be sent */
	bool over; /* gRPC is through with the call */
	bool finished;
	bool want_writable;
	struct out_msg *out_head;
	struct out_msg **out_tail;
	size_t out_bytes;
	struct out_msg *in_flight;
	grpc_byte_buffer *received; /* gRPC's while receiving, then the worker's */
	ProtobufCMessage *request; /* of a server stream, when quick() has seen it */
	const struct iovec *bytes; /* of the message at hand */
	size_t n_bytes;
	void *data;
};

struct rpc_call {
	struct rpc_server *server;
	const struct method *method; /* NULL: of no method we know */
	struct rpc_call *prev; /* server->mutex guards these two */
	struct rpc_call *next;
	atomic_uint refs;

	/* Filled by gRPC when a call arrives. */
	grpc_call *core;
	grpc_metadata_array metadata;
	grpc_call_details details; /* for calls of unknown methods only */
	gpr_timespec deadline;
	grpc_byte_buffer *payload;

	struct rpc_tag request_tag;
	struct rpc_tag close_tag; /* RECV_CLOSE_ON_SERVER */
	struct rpc_tag send_tag;
	struct rpc_tag recv_tag;
	struct pool_job job;

	struct arena arena;
	struct ctx ctx;
	atomic_bool cancelled;
	int closed_by_client; /* RECV_CLOSE_ON_SERVER: the status was not delivered */
	int64_t started_ns;
	atomic_llong sending_since_ns; /* 0: nothing is being sent */
	uint64_t bytes_in;
	atomic_ullong bytes_out;
	const ProtobufCMessage *request; /* decoded already */
	size_t answer_bytes; /* of a unary call, part of server->queued_bytes */
	grpc_byte_buffer *answer;

	enum err_code code; /* how it ended */
	char *message; /* NULL: none, or no memory */

	struct stream stream; /* last: unary calls leave it alone */
};

struct rpc_server {
	struct rpc_server_options options;
	grpc_server *core;
	grpc_completion_queue *cq;
	grpc_server_credentials *credentials;
	struct listener *listener;
	struct pool *pool;
	struct pool_job poll_job; /* being the poller */
	struct rpc_call *waiting; /* the poller's alone: arrived, to be served off the queue */
	struct pool_job *soon; /* the poller's alone: of rpc_call_soon() */
	unsigned int n_since_soon; /* events since it was given */
	int64_t swept_ns; /* the poller's alone */
	bool started;
	bool stopped;
	struct method *methods;
	size_t n_methods;
	struct rpc_tag shutdown_tag;
	atomic_size_t queued_bytes;
	struct buf_stock *stock;
	atomic_bool stopping; /* calls under way are cancelled */

	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t changed;
	struct rpc_call live; /* head of the list of calls alive */
	unsigned int n_live;
	bool shut_down; /* gRPC says so */
	int64_t refusal_logged_ns;
	bool polled_out; /* the completion queue is at its end */
	struct rpc_call *cache;
	unsigned int n_cache;
};

/* --- server.c ------------------------------------------------------------------------------------- */

/** server_serve_soon() - for the poller: run call->job when the events at hand have been seen */
void server_serve_soon(struct rpc_call *call);

/** server_run() - run @job on a worker */
void server_run(struct rpc_server *server, struct pool_job *job);

/** server_cancel_stalled() - cancel the calls to whose clients nothing could be sent for STALL_NS, or for
 * CROWDED_STALL_NS when much waits */
void server_cancel_stalled(struct rpc_server *server, int64_t now_ns);

/* --- call.c --------------------------------------------------------------------------------------- */

/** call_new() - a call to be requested. Return: NULL when there is no memory. */
struct rpc_call *call_new(struct rpc_server *server, const struct method *method);

/** call_drop() - of one that was never alive */
void call_drop(struct rpc_call *call);

/** call_cache_done() - free the calls kept for re-use */
void call_cache_done(struct rpc_server *server);

/**
 * call_begin() - a client's call has arrived in @call: it is alive, with one reference
 * Return: how many are alive with it.
 */
unsigned int call_begin(struct rpc_call *call);

void call_ref(struct rpc_call *call);
void call_unref(struct rpc_call *call);

/** call_set_end() - how it ended; the first word counts. Logs it, unless it went well. */
void call_set_end(struct rpc_call *call, enum err_code code, const char *message);

/** call_explain_stop() - say that it was us who cancelled @call, if so: the client may well try again */
void call_explain_stop(const struct rpc_call *call, struct err *err);

/** call_batch() - give gRPC @n operations; @tag comes back with a reference to the call */
void call_batch(struct rpc_call *call, const grpc_op *ops, size_t n, struct rpc_tag *tag);

/** call_run() - run @run on a worker */
void call_run(struct rpc_call *call, void (*run)(struct pool_job *job));

/**
 * call_reserve() - account for @cost bytes of an encoded answer that is to wait for its client
 * @waiting_bytes: what waits of this call already
 */
ERR_CHECKED int call_reserve(struct rpc_call *call, size_t waiting_bytes, size_t cost,
			     struct err *err);

/** call_watch_close() - learn when the call ends or is cancelled; @done runs then, owning a reference */
void call_watch_close(struct rpc_call *call, void (*done)(struct rpc_tag *tag, bool ok));

/** call_answered() - for send_tag: call->answer_bytes have gone out, with a reference */
void call_answered(struct rpc_tag *tag, bool ok);

/** call_refuse() - end @call with @err at once, without a log line, and with the caller's reference still held */
void call_refuse(struct rpc_call *call, const struct err *err);

/** call_answer_error() - end a call, to which nothing has been sent yet, with @err */
void call_answer_error(struct rpc_call *call, const struct err *err, bool watching);

/* --- buf.c -------------------------------------------------------------------------------------- */

/** buf_stock_new() - of buffers for large answers. Return: NULL when there is no memory. */
struct buf_stock *buf_stock_new(void);

/** buf_stock_unref() - no more are asked for; buffers on their way outlive it. Accepts NULL. */
void buf_stock_unref(struct buf_stock *stock);

/** buf_slice() - the first @len bytes of @buf as a slice, which takes @buf */
grpc_slice buf_slice(struct rpc_buf *buf, size_t len);

/* --- unary.c, stream.c ---------------------------------------------------------------------------- */

void unary_begin(struct rpc_call *call);
void stream_begin(struct rpc_call *call);

#endif
