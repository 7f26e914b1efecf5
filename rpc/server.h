/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC server on a Unix socket: services are tables of methods, handlers are small functions that
 * know protobuf-c messages and nothing of gRPC. Dispatch, decoding, deadlines, cancellation, flow
 * control, status and logging are here, once.
 *
 * Threads: of a pool, one at a time is the poller and owns the completion queue. It runs handlers that say
 * RPC_INLINE itself, and begins those that are answered later. When the last call that has arrived wants to wait for something, it lets another thread
 * become the poller and runs that handler too, which so never waits for a thread to wake up; earlier ones
 * go to the pool. Call backs of one stream never overlap and keep their order; those of different calls run
 * at the same time.
 *
 * What a client can grow is bounded: message size, memory of one call's arena, calls alive at once,
 * connections, queued answers.
 */
#ifndef LIGHTER_RPC_SERVER_H
#define LIGHTER_RPC_SERVER_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/ctx.h"
#include "base/err.h"
#include "base/pool.h"

struct rpc_server;
struct rpc_call;
struct rpc_buf;

/* containerd's own limit for a message, each way (containerd, defaults.DefaultMaxRecvMsgSize). */
#define RPC_MAX_MESSAGE_BYTES (16u << 20)

enum rpc_kind { RPC_UNARY, RPC_SERVER_STREAM, RPC_BIDI_STREAM };

/*
 * The handler only computes, or reads a few rows that are in memory as a rule: run it on the poller. Of a stream, that
 * goes for open(); see also message_quick and close_is_quick.
 */
#define RPC_INLINE 1u

/* The handler is carried through once begun: that its caller goes meanwhile is not looked for. */
#define RPC_BRIEF 2u

/**
 * rpc_unary_fn - answer one request
 * @self: of the service
 * @ctx: arena, deadline, cancellation and namespace of the call
 * @request: of the method's request type; lives as long as @ctx->arena
 * @ret_response: set to a message of the method's response type, in @ctx->arena or static
 * Return: 0, or -1 with @err, whose code becomes the call's status.
 */
typedef int (*rpc_unary_fn)(void *self, struct ctx *ctx, const ProtobufCMessage *request,
			    ProtobufCMessage **ret_response, struct err *err);

/* What an rpc_later_fn may return beside 0 and -1. */
enum { RPC_LATER = 1, RPC_WOULD_WAIT = 2 };

/**
 * rpc_later_fn - answer one request, maybe later
 * @may_wait: false on the poller, where nothing may wait; true on a worker
 * Return: 0 and -1 as above; RPC_LATER: rpc_call_answer() is called once, on any thread, and may have been already, so
 * that @call is not touched any more; RPC_WOULD_WAIT, unless @may_wait: nothing was done, call again on a worker.
 */
typedef int (*rpc_later_fn)(void *self, struct rpc_call *call, bool may_wait,
			    const ProtobufCMessage *request, ProtobufCMessage **ret_response,
			    struct err *err);

/**
 * struct rpc_stream_ops - a streaming method, as events; any but @open may be NULL
 * @quick: answer a server stream's request, before anything else and on the poller, where nothing may wait.
 *        Return: 0: with @ret_buf and @ret_len as for rpc_call_send_buf(), or without, the call is over and
 *        OK, and all of it leaves at once; 1: not so quickly, go on with open(); -1: the call has failed.
 *        Only after 1 do others follow.
 * @open: the call has begun. Server streams get their one request here, bidirectional ones NULL.
 * @message: the client sent a message; @msg is gone when this returns. The next one is asked for only then.
 * @message_quick: with RPC_INLINE: as message(), on the poller, where nothing may wait. Return: 1: nothing was done that
 *        message() does not do as well, which is called next. Large messages, and all that come after one that
 *        was left to it, go to message() directly.
 * @half_close: the client sends no more
 * @writable: after rpc_call_send() returned 1: the queue has drained below its low water mark
 * @close: the call is over for whatever reason (finished, failed, cancelled, connection lost, server
 *         stopped); exactly once for each @open that was called, also one that failed; last of all.
 *
 * Return values of the int ones: 0, or -1 with @err, which ends the call with that status. A call ends OK
 * by rpc_call_finish().
 */
struct rpc_stream_ops {
	int (*quick)(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		     struct rpc_buf **ret_buf, size_t *ret_len, struct err *err);
	int (*open)(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		    struct err *err);
	int (*message)(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		       struct err *err);
	int (*message_quick)(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
			     struct err *err);
	int (*half_close)(void *self, struct rpc_call *call, struct err *err);
	int (*writable)(void *self, struct rpc_call *call, struct err *err);
	void (*close)(void *self, struct rpc_call *call);
	bool (*close_is_quick)(const struct rpc_call *call);
};

/**
 * struct rpc_method - one row of a service's table
 * @name: without the service, "Prepare"
 * @bytes_field: number of a field of type bytes of the messages of a bidirectional stream that is not decoded
 *        but left as it came, for rpc_call_bytes(); 0: none
 * @queue_bytes: high water mark of a stream's queued answers; 0: the server's
 * @unary, @later: for RPC_UNARY, the one or the other; @later is carried through once begun, like RPC_BRIEF
 * @stream: for the others
 */
struct rpc_method {
	const char *name;
	enum rpc_kind kind;
	unsigned int flags;
	uint32_t bytes_field;
	size_t queue_bytes;
	const ProtobufCMessageDescriptor *request;
	const ProtobufCMessageDescriptor *response;
	rpc_unary_fn unary;
	rpc_later_fn later;
	const struct rpc_stream_ops *stream;
};

/**
 * struct rpc_service - what rpc_server_add() takes; borrowed until the server is freed
 * @name: "containerd.services.snapshots.v1.Snapshots"
 */
struct rpc_service {
	const char *name;
	const struct rpc_method *methods;
	size_t n_methods;
	void *self;
};

/**
 * rpc_call_answer() - end a call that was to be answered later, on any thread
 * @response: as @ret_response of a handler; or NULL, and @err says why there is none
 */
void rpc_call_answer(struct rpc_call *call, const ProtobufCMessage *response, struct err *err);

/**
 * rpc_call_soon() - for a handler of the kind rpc_later_fn: have @job run on a thread that may wait
 *
 * On the poller it runs when what has arrived by now has been begun: work for many calls is done in one go, and no
 * thread has to wake for it. Not to be given again before it runs.
 */
void rpc_call_soon(struct rpc_call *call, bool may_wait, struct pool_job *job);

/*
 * --- what a stream's call backs may do with their call ------------------------------------------
 * Any thread may, too, from the beginning of open() to the end of close().
 */

/** rpc_call_ctx() - the call's context; its arena lives until after close() */
struct ctx *rpc_call_ctx(struct rpc_call *call);

/** rpc_call_data(), rpc_call_set_data() - a pointer for the handler's own state */
void *rpc_call_data(const struct rpc_call *call);
void rpc_call_set_data(struct rpc_call *call, void *data);

/**
 * rpc_call_send() - queue one answer; it is encoded before this returns
 *
 * Small answers made inside a call back leave when it returns. A client that takes nothing of what waits
 * for it has its call cancelled after 5 minutes, or sooner when such clients crowd the server.
 * Return: 0; 1: queued, but the queue is above its high water mark (wait for writable()); -1 when the call
 * is over (ERR_CANCELLED), or the message is larger than RPC_MAX_MESSAGE_BYTES or more than the queue takes
 * at all (ERR_RESOURCE_EXHAUSTED).
 */
ERR_CHECKED int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *msg, struct err *err);

/**
 * rpc_call_bytes() - the value of the method's @bytes_field in the message at hand
 *
 * Inside message() only. Return: @ret_n pieces, which are gone when message() returns.
 */
const struct iovec *rpc_call_bytes(const struct rpc_call *call, size_t *ret_n);

/**
 * rpc_buf_new() - room for an encoded answer of up to @size bytes, for its maker to fill in place
 *
 * Large ones come from a small stock and go back there when they have been sent.
 * Return: NULL when there is no memory.
 */
struct rpc_buf *rpc_buf_new(struct rpc_call *call, size_t size);
uint8_t *rpc_buf_data(struct rpc_buf *buf);
void rpc_buf_free(struct rpc_buf *buf);

/**
 * rpc_call_send_buf() - as rpc_call_send(), of a message that is encoded: the first @len bytes of @buf
 * @buf: taken, also on failure
 */
ERR_CHECKED int rpc_call_send_buf(struct rpc_call *call, struct rpc_buf *buf, size_t len,
				  struct err *err);

/** rpc_call_finish() - end the call with OK once everything queued is sent */
void rpc_call_finish(struct rpc_call *call);

/* --- the server ---------------------------------------------------------------------------------- */

/**
 * struct rpc_call_end - told to the observer when a call has ended
 * @service, @method: as in the tables; "" for unknown ones
 * @bytes_in, @bytes_out: encoded messages
 */
struct rpc_call_end {
	const char *service;
	const char *method;
	enum err_code code;
	const char *message;
	int64_t took_ns;
	uint64_t bytes_in, bytes_out;
};

/**
 * struct rpc_server_options - zero means the default
 * @listen_fd: a listening Unix stream socket; taken over by the server
 * @n_workers: threads that run handlers, beside the poller; 16
 * @max_calls: calls alive at once, beyond which RESOURCE_EXHAUSTED is answered; 4096
 * @max_connections: beyond which new connections are closed at once; 4096
 * @max_queue_bytes: high water mark of one stream's queued answers; 4 MiB
 * @on_end: called once a call, from any thread; may be NULL
 */
struct rpc_server_options {
	int listen_fd;
	unsigned int n_workers;
	unsigned int max_calls;
	unsigned int max_connections;
	size_t max_queue_bytes;
	void (*on_end)(void *arg, const struct rpc_call_end *end);
	void *on_end_arg;
};

/** rpc_server_new() - nothing is served before rpc_server_start() */
ERR_CHECKED int rpc_server_new(const struct rpc_server_options *options,
			       struct rpc_server **ret_server, struct err *err);

/** rpc_server_add() - serve @service too; before the start only */
ERR_CHECKED int rpc_server_add(struct rpc_server *server, const struct rpc_service *service,
			       struct err *err);

/** rpc_server_start() - accept connections; threads start here, with all signals blocked */
ERR_CHECKED int rpc_server_start(struct rpc_server *server, struct err *err);

/**
 * rpc_server_stop() - accept no more, let calls under way end for up to @grace_ms, cancel the rest, and
 *                     return when none is left
 */
void rpc_server_stop(struct rpc_server *server, unsigned int grace_ms);

/** rpc_server_free() - after stop. Accepts NULL, and a server that never started. */
void rpc_server_free(struct rpc_server *server);

/** rpc_library_done() - release what the gRPC library holds, for leak checks at the end of a process */
void rpc_library_done(void);

#endif
