/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a byte that chooses a method other than Write, then its request as it comes from the wire. It is
 * decoded, checked and answered as in the daemon, with a store that holds a blob and an ingest; what the answer is
 * made of must be encodable. The first byte's high bit makes the client of a List or Read slow.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "content/local.h"
#include "rpc/codec.h"
#include "tests/fuzz/content_store.h"

#define ARENA_BYTES (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char bytes[] = "some bytes";

/* Both are there at the start of each run, whatever the one before did. */
static void fill(struct ctx *ctx)
{
	static struct strmap_entry label = {"k", "v"};
	const struct content_store_ops *ops = &local_content_ops;
	const struct ingest_commit req = {.labels = {&label, 1, 1}};
	const struct iovec piece = {(void *)(uintptr_t)bytes, strlen(bytes)};
	struct ingest *ingest;
	struct digest digest;
	struct err err;

	if (ops->ingest_open(fuzz_store(), ctx, "r", 0, NULL, true, &ingest, &err) < 0 ||
	    ops->ingest_write(fuzz_store(), ctx, ingest, 0, &piece, 1, true, &err) < 0)
		abort();
	if (ops->ingest_commit(fuzz_store(), ctx, ingest, &req, &digest, &err) < 0 &&
	    err.code != ERR_ALREADY_EXISTS)
		abort();
	ops->ingest_close(fuzz_store(), ingest);
	if (ops->ingest_open(fuzz_store(), ctx, "ref", 100, NULL, true, &ingest, &err) < 0)
		abort();
	ops->ingest_close(fuzz_store(), ingest);
}

static void is_message(void *arg, const uint8_t *data, size_t size)
{
	const ProtobufCMessageDescriptor *type = arg;
	struct err err;

	if (codec_check(type, data, size, &err) < 0)
		abort();
}

static void stream(const struct rpc_method *method, struct rpc_call *call,
		   const ProtobufCMessage *request)
{
	const struct rpc_stream_ops *ops = method->stream;
	void *self = fuzz_service()->self;
	struct rpc_buf *buf = NULL;
	size_t len = 0;
	struct err err;
	int result = 1;

	if (ops->quick)
		result = ops->quick(self, call, request, &buf, &len, &err);
	if (result == 0 && buf) {
		is_message((void *)(uintptr_t)method->response, rpc_buf_data(buf), len);
		rpc_buf_free(buf);
	}
	if (result <= 0)
		return;
	result = ops->open(self, call, request, &err);
	while (result == 0 && !call->is_finished) {
		/* It waits, so it must have been told to. */
		if (!call->is_slow)
			abort();
		result = ops->writable(self, call, &err);
	}
	ops->close(self, call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct rpc_service *service = fuzz_service();
	const struct rpc_method *method;
	struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	struct rpc_call call = {.ctx = &ctx};
	ProtobufCMessage *request, *response = NULL;
	struct err err;

	if (size == 0)
		return 0;
	method = &service->methods[(data[0] & 0x7f) % service->n_methods];
	if (method->kind == RPC_BIDI_STREAM)
		return 0;
	arena_init(&arena, ARENA_BYTES);
	fill(&ctx);
	call.is_slow = data[0] & 0x80;
	call.sent = is_message;
	call.sent_arg = (void *)(uintptr_t)method->response;
	if (codec_unpack(method->request, data + 1, size - 1, &arena, &request, &err) == 0) {
		if (method->kind != RPC_UNARY)
			stream(method, &call, request);
		else if (method->unary(service->self, &ctx, request, &response, &err) == 0)
			fuzz_encode(&call, response);
	}
	arena_done(&arena);
	return 0;
}
