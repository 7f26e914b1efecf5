/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Write protocol. Input: messages of one stream after the other, each a byte that says in how many pieces it
 * comes, two bytes of length (little endian), and a WriteContentRequest as it comes from the wire. A length of
 * 0xffff ends the stream and begins another. What is answered is held against a model: the bytes that the ingest
 * must hold; what is committed is read back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "containerd/services/content/v1/content.pb-c.h"
#include "content/local.h"
#include "rpc/codec.h"
#include "tests/fuzz/content_store.h"

#define ARENA_BYTES (64u << 20)
#define HELD_MAX    ((size_t)1 << 20)
#define PIECES_MAX  8
#define NEXT_STREAM 0xffff

#define ACTION(name) CONTAINERD__SERVICES__CONTENT__V1__WRITE_ACTION__##name

typedef Containerd__Services__Content__V1__WriteContentRequest Request;
typedef Containerd__Services__Content__V1__WriteContentResponse Response;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/**
 * struct model - one stream as it must be
 * @ref: of its first message; owned
 * @is_known: the bytes held are: it began with none
 * @n_answers: to the message at hand
 */
struct model {
	char *ref;
	bool is_known;
	uint8_t *held;
	size_t n_held;
	unsigned int n_answers;
	bool is_committed;
	char digest[DIGEST_TEXT_BYTES];
};

static struct ctx make_ctx(struct arena *arena)
{
	return (struct ctx){.arena = arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
}

/* --- what is answered ---------------------------------------------------------------------------------- */

static void check_digest(const struct model *model, const char *text)
{
	struct digest said, is;
	struct err err;

	if (digest_parse(text, &said, &err) < 0 ||
	    digest_of(said.algorithm, model->held, model->n_held, &is, &err) < 0 ||
	    !digest_equal(&said, &is))
		abort();
}

static void answered(void *arg, const uint8_t *data, size_t size)
{
	struct model *model = arg;
	Response *response =
		containerd__services__content__v1__write_content_response__unpack(NULL, size, data);

	if (!response || ++model->n_answers != 1)
		abort();
	if (model->is_known) {
		if (response->offset != (int64_t)model->n_held)
			abort();
		check_digest(model, response->digest);
	}
	model->is_committed = response->action == ACTION(COMMIT);
	snprintf(model->digest, sizeof(model->digest), "%s", response->digest);
	containerd__services__content__v1__write_content_response__free_unpacked(response, NULL);
}

/* --- what is asked ---------------------------------------------------------------------------------------- */

/* What the message does to the bytes held, if it succeeds. */
static void apply(struct model *model, const Request *request, const struct iovec *bytes, size_t n)
{
	if (request->action == ACTION(STAT))
		return;
	if (request->offset == 0) {
		model->n_held = 0;
		model->is_known = true;
	}
	for (size_t i = 0; i < n && model->is_known; i++) {
		if (model->n_held + bytes[i].iov_len > HELD_MAX) {
			model->is_known = false;
			return;
		}
		memcpy(model->held + model->n_held, bytes[i].iov_base, bytes[i].iov_len);
		model->n_held += bytes[i].iov_len;
	}
}

/* Return: how many pieces of about the same size. */
static size_t cut(const uint8_t *data, size_t size, unsigned int n, struct iovec *pieces)
{
	size_t step = size / n + 1, at = 0, i = 0;

	for (; i < n; i++) {
		size_t len = size - at < step ? size - at : step;

		pieces[i] = (struct iovec){(void *)(uintptr_t)(data + at), len};
		at += len;
	}
	return n;
}

/* Return: does the stream go on? */
static bool message(const struct rpc_method *method, struct rpc_call *call, struct model *model,
		    unsigned int n_pieces, const uint8_t *data, size_t size)
{
	struct iovec pieces[PIECES_MAX];
	struct codec_parts parts;
	ProtobufCMessage *msg;
	struct arena arena;
	struct err err;
	size_t n_before = model->n_held;
	bool was_known = model->is_known;
	int r;

	arena_init(&arena, ARENA_BYTES);
	if (codec_split(pieces, cut(data, size, n_pieces, pieces), method->bytes_field, &arena,
			&parts, &err) < 0 ||
	    codec_unpack(method->request, parts.rest, parts.rest_len, &arena, &msg, &err) < 0) {
		arena_done(&arena);
		return false;
	}
	if (!model->ref)
		model->ref = strdup(((const Request *)(const void *)msg)->ref);
	apply(model, (const Request *)(const void *)msg, parts.bytes, parts.n_bytes);
	call->bytes = parts.bytes;
	call->n_bytes = parts.n_bytes;
	model->n_answers = 0;
	r = method->stream->message(fuzz_service()->self, call, msg, &err);
	/* One answer to each message, or an error. */
	if (model->n_answers != (r == 0 ? 1 : 0))
		abort();
	if (r < 0) {
		model->n_held = n_before;
		model->is_known = was_known;
	}
	arena_done(&arena);
	return r == 0 && !call->is_finished;
}

/* What was committed is there, byte for byte; and goes again. */
static void check_blob(const struct model *model)
{
	struct digest digest;
	struct arena arena;
	struct ctx ctx = make_ctx(&arena);
	struct blob *blob;
	uint64_t size;
	uint8_t *buf;
	struct err err;

	arena_init(&arena, ARENA_BYTES);
	if (digest_parse(model->digest, &digest, &err) < 0 ||
	    local_content_ops.blob_open(fuzz_store(), &ctx, &digest, true, &blob, &size, &err) != 0)
		abort();
	buf = malloc(size + 1);
	if (!buf || local_content_ops.read_at(fuzz_store(), blob, 0, buf, size, true, &err) != 0)
		abort();
	if (model->is_known && (size != model->n_held || memcmp(buf, model->held, size) != 0))
		abort();
	free(buf);
	local_content_ops.blob_close(fuzz_store(), blob);
	if (local_content_ops.remove(fuzz_store(), &ctx, &digest, &err) < 0)
		abort();
	arena_done(&arena);
}

/* Runs one stream. Return: how much of the input it took. */
static size_t stream(const uint8_t *data, size_t size, struct model *model)
{
	const struct rpc_method *method = fuzz_method("Write");
	void *self = fuzz_service()->self;
	struct arena arena;
	struct ctx ctx = make_ctx(&arena);
	struct rpc_call call = {.ctx = &ctx, .sent = answered, .sent_arg = model};
	bool goes_on;
	size_t at = 0;
	struct err err;

	arena_init(&arena, ARENA_BYTES);
	goes_on = method->stream->open(self, &call, NULL, &err) == 0;
	while (size - at >= 3) {
		unsigned int n_pieces = data[at] % PIECES_MAX + 1;
		size_t len = data[at + 1] | (size_t)data[at + 2] << 8;

		at += 3;
		if (len == NEXT_STREAM)
			break;
		if (len > size - at)
			len = size - at;
		if (goes_on)
			goes_on = message(method, &call, model, n_pieces, data + at, len);
		at += len;
	}
	if (goes_on && method->stream->half_close(self, &call, &err) == 0 && !call.is_finished)
		abort();
	method->stream->close(self, &call);
	if (model->is_committed)
		check_blob(model);
	arena_done(&arena);
	return size - at < 3 ? size : at;
}

/* Nothing of one input is there for the next. */
static void forget(const char *ref)
{
	struct arena arena;
	struct ctx ctx = make_ctx(&arena);
	struct ingest_info info;
	struct err err;

	arena_init(&arena, ARENA_BYTES);
	if (local_content_ops.abort(fuzz_store(), &ctx, ref, &err) < 0 ||
	    local_content_ops.status(fuzz_store(), &ctx, ref, &info, &err) == 0)
		abort();
	arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* As many references as an input may leave behind. */
	char *refs[16] = {NULL};
	size_t n_refs = 0;

	while (size > 0 && n_refs < ARRAY_LEN(refs)) {
		struct model model = {.held = malloc(HELD_MAX)};
		size_t taken;

		if (!model.held)
			abort();
		taken = stream(data, size, &model);
		refs[n_refs++] = model.ref;
		free(model.held);
		data += taken;
		size -= taken;
	}
	for (size_t i = 0; i < n_refs; i++) {
		if (refs[i])
			forget(refs[i]);
		free(refs[i]);
	}
	return 0;
}
