/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC client on a Unix socket, blocking, for tools and for calls that a daemon makes itself. A client
 * may be used by many threads at once; a stream belongs to one thread at a time.
 */
#ifndef LIGHTER_RPC_CLIENT_H
#define LIGHTER_RPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>

#include "base/ctx.h"
#include "base/err.h"

struct rpc_client;
struct rpc_stream;

/** struct rpc_metadata - a header of ours: "containerd-namespace" and so on; ASCII, lower-case name */
struct rpc_metadata {
	const char *name;
	const char *value;
};

/** rpc_client_new() - for the socket at @path; connects when first needed, and again when it broke */
ERR_CHECKED int rpc_client_new(const char *path, struct rpc_client **ret_client, struct err *err);
void rpc_client_free(struct rpc_client *client);

/**
 * rpc_client_call() - one request, one answer
 * @ctx: its deadline goes to the server; cancellation is noticed within 100 ms; the answer is in its arena
 * @method: "/containerd.services.snapshots.v1.Snapshots/Stat"
 * Return: 0, or -1 with the server's status; ERR_UNAVAILABLE when there is no server.
 */
ERR_CHECKED int rpc_client_call(struct rpc_client *client, struct ctx *ctx, const char *method,
				const struct rpc_metadata *metadata, size_t n_metadata,
				const ProtobufCMessage *request,
				const ProtobufCMessageDescriptor *response_type,
				ProtobufCMessage **ret_response, struct err *err);

/** rpc_stream_open() - begin a streaming call of any kind; arguments as above */
ERR_CHECKED int rpc_stream_open(struct rpc_client *client, struct ctx *ctx, const char *method,
				const struct rpc_metadata *metadata, size_t n_metadata,
				const ProtobufCMessageDescriptor *response_type,
				struct rpc_stream **ret_stream, struct err *err);

/** rpc_stream_send() - send one message, waiting for flow control */
ERR_CHECKED int rpc_stream_send(struct rpc_stream *stream, const ProtobufCMessage *msg,
				struct err *err);

/** rpc_stream_half_close() - send no more */
ERR_CHECKED int rpc_stream_half_close(struct rpc_stream *stream, struct err *err);

/**
 * rpc_stream_recv() - the next message, in @arena
 * Return: 1 with a message; 0 at the end, the server's status being OK; -1 with its status.
 */
ERR_CHECKED int rpc_stream_recv(struct rpc_stream *stream, struct arena *arena,
				ProtobufCMessage **ret_msg, struct err *err);

/** rpc_stream_free() - cancels what is still going on. Accepts NULL. */
void rpc_stream_free(struct rpc_stream *stream);

#endif
