/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a byte that chooses the method, then its request as it comes from the wire. It is decoded, checked
 * and answered as in the daemon, with a backend in memory that holds a few snapshots; what the answer is
 * made of must be encodable. The first byte's high bit makes the client of a List slow, and the backend one that
 * answers changes later.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/codec.h"
#include "rpc/server.h"
#include "snapshotters/service.h"
#include "tests/support/fake_snapshotter.h"

/* As the server's: what one call may take. */
#define ARENA_BYTES (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- a call without gRPC, in place of rpc/stream.c --------------------------------------------------- */

struct rpc_call {
	struct ctx *ctx;
	void *data;
	bool is_slow;
	bool is_finished;
	bool is_answered;
	struct pool_job *soon;
};

struct ctx *rpc_call_ctx(struct rpc_call *call)
{
	return call->ctx;
}

void *rpc_call_data(const struct rpc_call *call)
{
	return call->data;
}

void rpc_call_set_data(struct rpc_call *call, void *data)
{
	call->data = data;
}

static void encode(const ProtobufCMessage *msg)
{
	size_t size = protobuf_c_message_get_packed_size(msg);
	uint8_t *packed = malloc(size ? size : 1);
	struct err err;

	if (!packed)
		return;
	if (protobuf_c_message_pack(msg, packed) != size ||
	    codec_check(msg->descriptor, packed, size, &err) < 0)
		abort();
	free(packed);
}

int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *msg, struct err *err)
{
	(void)err;
	encode(msg);
	return call->is_slow;
}

void rpc_call_finish(struct rpc_call *call)
{
	call->is_finished = true;
}

void rpc_call_answer(struct rpc_call *call, const ProtobufCMessage *response, struct err *err)
{
	/* Once, and with an answer or a reason. */
	if (call->is_answered || (!response && err->code == ERR_OK))
		abort();
	call->is_answered = true;
	if (response)
		encode(response);
}

void rpc_call_soon(struct rpc_call *call, bool may_wait, struct pool_job *job)
{
	(void)may_wait;
	call->soon = job;
}

/* --- a backend that answers changes later ------------------------------------------------------------ */

struct later {
	void *fake;
	struct snapshot_change *change;
};

static enum change_begun begin(void *self, struct snapshot_change *change, bool may_wait)
{
	struct later *later = self;

	(void)may_wait;
	later->change = change;
	return CHANGE_LEADS;
}

static void lead(void *self)
{
	struct later *later = self;
	struct snapshot_change *change = later->change;
	const struct snapshotter_ops *ops = &fake_snapshotter_ops;
	struct err *err = &change->err;

	switch (change->kind) {
	case CHANGE_PREPARE:
		change->result = ops->prepare(later->fake, change->ctx, change->create,
					      &change->mounts, err);
		break;
	case CHANGE_VIEW:
		change->result =
			ops->view(later->fake, change->ctx, change->create, &change->mounts, err);
		break;
	case CHANGE_COMMIT:
		change->result = ops->commit(later->fake, change->ctx, change->commit, err);
		break;
	case CHANGE_REMOVE:
		change->result = ops->remove(later->fake, change->ctx, change->key, err);
		break;
	case CHANGE_UPDATE:
		change->result =
			ops->update(later->fake, change->ctx, change->update, &change->info, err);
		break;
	}
	change->done(change);
}

/* Only changes reach it. */
static const struct snapshotter_ops later_ops = {.name = "later", .begin = begin, .lead = lead};

/* --- the target -------------------------------------------------------------------------------------- */

static void stream(const struct rpc_service *service, const struct rpc_method *method,
		   struct rpc_call *call, const ProtobufCMessage *request)
{
	const struct rpc_stream_ops *ops = method->stream;
	struct err err;
	int result = ops->open(service->self, call, request, &err);

	while (result == 0 && !call->is_finished) {
		/* It waits, so it must have been told to. */
		if (!call->is_slow)
			abort();
		result = ops->writable(service->self, call, &err);
	}
	ops->close(service->self, call);
}

static void fill(void *fake, struct ctx *ctx)
{
	const struct snapshot_req active = {.key = "a", .parent = ""};
	const struct snapshot_req view = {.key = "v", .parent = "c"};
	const struct commit_req commit = {.name = "c", .key = "a", .parent = ""};
	struct mounts mounts;
	struct err err;

	if (fake_snapshotter_ops.prepare(fake, ctx, &active, &mounts, &err) < 0 ||
	    fake_snapshotter_ops.commit(fake, ctx, &commit, &err) < 0 ||
	    fake_snapshotter_ops.prepare(fake, ctx, &active, &mounts, &err) < 0 ||
	    fake_snapshotter_ops.view(fake, ctx, &view, &mounts, &err) < 0)
		abort();
}

/* The first try may not wait, as on the poller. */
static void later(const struct rpc_service *service, const struct rpc_method *method,
		  struct rpc_call *call, const ProtobufCMessage *request)
{
	ProtobufCMessage *response = NULL;
	struct err err = ERR_INIT;
	int result = method->later(service->self, call, false, request, &response, &err);

	if (result == RPC_WOULD_WAIT)
		result = method->later(service->self, call, true, request, &response, &err);
	if (result == 0)
		encode(response);
	if (result == RPC_LATER) {
		call->soon->run(call->soon);
		if (!call->is_answered)
			abort();
	}
}

static void answer(const struct rpc_service *service, const struct rpc_method *method,
		   struct ctx *ctx, bool is_slow, const uint8_t *data, size_t size)
{
	struct rpc_call call = {.ctx = ctx, .is_slow = is_slow};
	ProtobufCMessage *request, *response = NULL;
	struct err err;

	if (codec_unpack(method->request, data, size, ctx->arena, &request, &err) < 0)
		return;
	if (method->later) {
		later(service, method, &call, request);
	} else if (method->kind == RPC_UNARY) {
		if (method->unary(service->self, ctx, request, &response, &err) == 0)
			encode(response);
	} else {
		stream(service, method, &call, request);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapshot_service *snapshots = NULL;
	const struct rpc_service *service;
	const struct rpc_method *method;
	struct later later = {0};
	bool is_later;
	struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	void *fake = NULL;
	struct err err;

	if (size == 0)
		return 0;
	arena_init(&arena, ARENA_BYTES);
	if (fake_snapshotter_ops.open("/fake", NULL, &fake, &err) < 0 ||
	    snapshot_service_new(&fake_snapshotter_ops, fake, &snapshots, &err) < 0)
		abort();
	service = snapshot_service_rpc(snapshots);
	method = &service->methods[(data[0] & 0x7f) % service->n_methods];
	is_later = method->later && data[0] & 0x80;
	if (is_later) {
		later.fake = fake;
		snapshot_service_free(snapshots);
		if (snapshot_service_new(&later_ops, &later, &snapshots, &err) < 0)
			abort();
		service = snapshot_service_rpc(snapshots);
	}
	fill(fake, &ctx);
	answer(service, method, &ctx, data[0] & 0x80, data + 1, size - 1);
	snapshot_service_free(snapshots);
	fake_snapshotter_ops.close(fake);
	arena_done(&arena);
	return 0;
}
