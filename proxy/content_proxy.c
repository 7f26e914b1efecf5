/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/content_proxy.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "containerd/services/content/v1/content.pb-c.h"
#include "rpc/client.h"
#include "rpc/message.h"

#define MSG(name)    Containerd__Services__Content__V1__##name
#define INIT(name)   CONTAINERD__SERVICES__CONTENT__V1__##name##__INIT
#define TYPE(name)   (&containerd__services__content__v1__##name##__descriptor)
#define ACTION(name) CONTAINERD__SERVICES__CONTENT__V1__WRITE_ACTION__##name
#define METHOD(name) "/containerd.services.content.v1.Content/" name

/* One message as decoded, RPC_MAX_MESSAGE_BYTES of the smallest labels at worst. */
#define MESSAGE_ARENA_BYTES (256u << 20)
/* Of one WRITE; what the message has beside its bytes finds room too. */
#define WRITE_BYTES         ((size_t)4 << 20)

struct proxy {
	struct rpc_client *client;
};

struct blob {
	char digest[DIGEST_TEXT_BYTES];
};

/**
 * struct ingest - an open Write
 * @ctx, @arena: the stream's own, since it outlives the call that opens it
 * @state, @digest: as last answered; @state.ref is owned
 */
struct ingest {
	struct rpc_stream *stream;
	struct ctx ctx;
	struct arena arena;
	struct ingest_info state;
	struct digest digest;
};

/* --- messages -------------------------------------------------------------------------------------- */

static int call(struct proxy *proxy, struct ctx *ctx, const char *method,
		const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response_type,
		ProtobufCMessage **ret_response, struct err *err)
{
	return rpc_client_call(proxy->client, ctx, method, NULL, 0, request, response_type,
			       ret_response, err);
}

static int decode_info(struct arena *arena, const MSG(Info) * msg, struct blob_info *ret_info,
		       struct err *err)
{
	struct blob_info info = {0};

	if (!msg || msg->size < 0)
		return err_set(err, ERR_INTERNAL, "the other server's answer holds no good info");
	if (digest_parse(msg->digest, &info.digest, err) < 0)
		return -1;
	info.size_bytes = (uint64_t)msg->size;
	info.created_ns = message_time_ns(msg->created_at);
	info.updated_ns = message_time_ns(msg->updated_at);
	for (size_t i = 0; i < msg->n_labels; i++) {
		if (strmap_append(&info.labels, arena, msg->labels[i]->key, msg->labels[i]->value,
				  err) < 0)
			return -1;
	}
	strmap_sort(&info.labels);
	*ret_info = info;
	return 0;
}

static uint64_t decode_size(int64_t value)
{
	return value < 0 ? 0 : (uint64_t)value;
}

static struct ingest_info decode_status(const MSG(Status) * msg)
{
	return (struct ingest_info){
		.ref = msg->ref,
		.offset_bytes = decode_size(msg->offset),
		.total_bytes = decode_size(msg->total),
		.started_ns = message_time_ns(msg->started_at),
		.updated_ns = message_time_ns(msg->updated_at),
	};
}

/* A stream of one request. When the server has ended it already, its status comes with the answer. */
static int ask(struct proxy *proxy, struct ctx *ctx, const char *method,
	       const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response_type,
	       struct rpc_stream **ret_stream, struct err *err)
{
	struct err ignored;

	if (rpc_stream_open(proxy->client, ctx, method, NULL, 0, response_type, ret_stream, err) <
	    0)
		return -1;
	if (rpc_stream_send(*ret_stream, request, &ignored) < 0 ||
	    rpc_stream_half_close(*ret_stream, &ignored) < 0)
		err_clear(&ignored);
	return 0;
}

/* --- open, close ----------------------------------------------------------------------------------- */

static void proxy_close(void *self)
{
	struct proxy *proxy = self;

	if (!proxy)
		return;
	rpc_client_free(proxy->client);
	free(proxy);
}

static int proxy_open(const char *root, const void *conf_arg, void **ret_self, struct err *err)
{
	const struct content_proxy_conf *conf = conf_arg;
	struct proxy *proxy = calloc(1, sizeof(*proxy));

	(void)root;
	if (!proxy)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "content proxy: no memory");
	if (rpc_client_new(conf->address, &proxy->client, err) < 0) {
		free(proxy);
		return -1;
	}
	*ret_self = proxy;
	return 0;
}

/* --- blobs ----------------------------------------------------------------------------------------- */

static int proxy_info(void *self, struct ctx *ctx, const struct digest *digest,
		      struct blob_info *ret_info, struct err *err)
{
	MSG(InfoRequest) request = INIT(INFO_REQUEST);
	char text[DIGEST_TEXT_BYTES];
	ProtobufCMessage *answer;

	request.digest = (char *)digest_format(digest, text);
	if (call(self, ctx, METHOD("Info"), &request.base, TYPE(info_response), &answer, err) < 0)
		return -1;
	return decode_info(ctx->arena, ((const MSG(InfoResponse) *)(void *)answer)->info, ret_info,
			   err);
}

static int proxy_update(void *self, struct ctx *ctx, const struct blob_update *req,
			struct blob_info *ret_info, struct err *err)
{
	MSG(UpdateRequest) request = INIT(UPDATE_REQUEST);
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	MSG(Info) info = INIT(INFO);
	char text[DIGEST_TEXT_BYTES];
	ProtobufCMessage *answer;

	info.digest = (char *)digest_format(&req->digest, text);
	info.labels = message_label_entries(ctx->arena, &req->labels, TYPE(info__labels_entry));
	info.n_labels = req->labels.n;
	if (!info.labels)
		return ctx_no_memory(err);
	mask.paths = (char **)req->paths;
	mask.n_paths = req->n_paths;
	request.info = &info;
	request.update_mask = &mask;
	if (call(self, ctx, METHOD("Update"), &request.base, TYPE(update_response), &answer, err) <
	    0)
		return -1;
	return decode_info(ctx->arena, ((const MSG(UpdateResponse) *)(void *)answer)->info,
			   ret_info, err);
}

struct walk {
	const struct filters *filters;
	const struct digest *after;
	blob_walk_fn fn;
	void *arg;
};

/* Is @digest behind @after in the order of a store of ours: by algorithm, then by bytes? */
static bool is_behind(const struct digest *digest, const struct digest *after)
{
	if (!after)
		return true;
	if (digest->algorithm != after->algorithm)
		return digest->algorithm > after->algorithm;
	return memcmp(digest->bytes, after->bytes, sizeof(after->bytes)) > 0;
}

static int walk_message(struct walk *walk, struct arena *arena,
			const MSG(ListContentResponse) * msg, struct err *err)
{
	int result = 0;

	for (size_t i = 0; i < msg->n_info && result == 0; i++) {
		struct blob_info info;

		if (decode_info(arena, msg->info[i], &info, err) < 0)
			return -1;
		if (is_behind(&info.digest, walk->after) && blob_matches(walk->filters, &info))
			result = walk->fn(walk->arg, &info, err);
	}
	return result;
}

static int walk_stream(struct walk *walk, struct rpc_stream *stream, struct err *err)
{
	CLEANUP(arena_done) struct arena arena;
	int result = 0;

	arena_init(&arena, MESSAGE_ARENA_BYTES);
	while (result == 0) {
		ProtobufCMessage *msg;
		int received = rpc_stream_recv(stream, &arena, &msg, err);

		if (received <= 0)
			return received;
		result = walk_message(walk, &arena, (const void *)msg, err);
		arena_done(&arena);
	}
	return result;
}

static int proxy_walk(void *self, struct ctx *ctx, const struct filters *filters,
		      const struct digest *after, blob_walk_fn fn, void *arg, struct err *err)
{
	MSG(ListContentRequest) request = INIT(LIST_CONTENT_REQUEST);
	struct walk walk = {.filters = filters, .after = after, .fn = fn, .arg = arg};
	struct rpc_stream *stream;
	int result;

	if (ask(self, ctx, METHOD("List"), &request.base, TYPE(list_content_response), &stream,
		err) < 0)
		return -1;
	result = walk_stream(&walk, stream, err);
	rpc_stream_free(stream);
	return result;
}

static int proxy_remove(void *self, struct ctx *ctx, const struct digest *digest, struct err *err)
{
	MSG(DeleteContentRequest) request = INIT(DELETE_CONTENT_REQUEST);
	char text[DIGEST_TEXT_BYTES];
	ProtobufCMessage *answer;

	request.digest = (char *)digest_format(digest, text);
	return call(self, ctx, METHOD("Delete"), &request.base, MESSAGE_EMPTY_TYPE, &answer, err);
}

static int proxy_blob_open(void *self, struct ctx *ctx, const struct digest *digest, bool may_wait,
			   struct blob **ret_blob, uint64_t *ret_size_bytes, struct err *err)
{
	struct blob_info info;
	struct blob *blob;

	if (!may_wait)
		return 1;
	if (proxy_info(self, ctx, digest, &info, err) < 0)
		return -1;
	blob = calloc(1, sizeof(*blob));
	if (!blob)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a blob");
	digest_format(digest, blob->digest);
	*ret_blob = blob;
	*ret_size_bytes = info.size_bytes;
	return 0;
}

static int read_stream(struct rpc_stream *stream, uint8_t *to, size_t size, struct err *err)
{
	CLEANUP(arena_done) struct arena arena;

	arena_init(&arena, MESSAGE_ARENA_BYTES);
	while (size > 0) {
		const MSG(ReadContentResponse) * response;
		ProtobufCMessage *msg;
		int r = rpc_stream_recv(stream, &arena, &msg, err);

		if (r < 0)
			return -1;
		if (r == 0)
			return err_set(err, ERR_DATA_LOSS, "%zu bytes are missing", size);
		response = (const void *)msg;
		if (response->data.len > size)
			return err_set(err, ERR_INTERNAL, "the other server sends too much");
		if (response->data.len)
			memcpy(to, response->data.data, response->data.len);
		to += response->data.len;
		size -= response->data.len;
		arena_done(&arena);
	}
	return 0;
}

static int proxy_read_at(void *self, struct blob *blob, uint64_t offset, void *buf, size_t size,
			 bool may_wait, struct err *err)
{
	MSG(ReadContentRequest) request = INIT(READ_CONTENT_REQUEST);
	CLEANUP(arena_done) struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	struct rpc_stream *stream;
	int r;

	if (!may_wait)
		return 1;
	arena_init(&arena, MESSAGE_ARENA_BYTES);
	if (size == 0)
		return 0; /* on the wire a size of 0 is all there is */
	request.digest = blob->digest;
	request.offset = message_int64(offset);
	request.size = message_int64(size);
	if (ask(self, &ctx, METHOD("Read"), &request.base, TYPE(read_content_response), &stream,
		err) < 0)
		return -1;
	r = read_stream(stream, buf, size, err);
	rpc_stream_free(stream);
	return r;
}

static void proxy_blob_close(void *self, struct blob *blob)
{
	(void)self;
	free(blob);
}

/* --- ingests --------------------------------------------------------------------------------------- */

static int proxy_status(void *self, struct ctx *ctx, const char *ref, struct ingest_info *ret_info,
			struct err *err)
{
	MSG(StatusRequest) request = INIT(STATUS_REQUEST);
	const MSG(StatusResponse) * response;
	ProtobufCMessage *answer;

	request.ref = (char *)ref;
	if (call(self, ctx, METHOD("Status"), &request.base, TYPE(status_response), &answer, err) <
	    0)
		return -1;
	response = (const void *)answer;
	if (!response->status)
		return err_set(err, ERR_INTERNAL, "the other server's answer holds no status");
	*ret_info = decode_status(response->status);
	return 0;
}

static int proxy_walk_ingests(void *self, struct ctx *ctx, const struct filters *filters,
			      ingest_walk_fn fn, void *arg, struct err *err)
{
	MSG(ListStatusesRequest) request = INIT(LIST_STATUSES_REQUEST);
	const MSG(ListStatusesResponse) * response;
	ProtobufCMessage *answer;
	int result = 0;

	if (call(self, ctx, METHOD("ListStatuses"), &request.base, TYPE(list_statuses_response),
		 &answer, err) < 0)
		return -1;
	response = (const void *)answer;
	for (size_t i = 0; i < response->n_statuses && result == 0; i++) {
		const struct ingest_info info = decode_status(response->statuses[i]);

		if (ingest_matches(filters, &info))
			result = fn(arg, &info, err);
	}
	return result;
}

static int proxy_abort(void *self, struct ctx *ctx, const char *ref, struct err *err)
{
	MSG(AbortRequest) request = INIT(ABORT_REQUEST);
	ProtobufCMessage *answer;

	request.ref = (char *)ref;
	return call(self, ctx, METHOD("Abort"), &request.base, MESSAGE_EMPTY_TYPE, &answer, err);
}

/* One request and its answer, which becomes the ingest's state. */
static int exchange(struct ingest *ingest, const MSG(WriteContentRequest) * request,
		    struct err *err)
{
	CLEANUP(arena_done) struct arena arena;
	const MSG(WriteContentResponse) * response;
	ProtobufCMessage *msg;
	struct err ignored;
	int r;

	arena_init(&arena, MESSAGE_ARENA_BYTES);
	/* When it cannot be sent the call has ended: why is said by what comes. */
	if (rpc_stream_send(ingest->stream, &request->base, &ignored) < 0)
		err_clear(&ignored);
	r = rpc_stream_recv(ingest->stream, &arena, &msg, err);
	if (r < 0)
		return -1;
	if (r == 0)
		return err_set(err, ERR_ABORTED, "the other server has ended the write");
	response = (const void *)msg;
	ingest->state.offset_bytes = decode_size(response->offset);
	ingest->state.total_bytes = decode_size(response->total);
	ingest->state.started_ns = message_time_ns(response->started_at);
	ingest->state.updated_ns = message_time_ns(response->updated_at);
	return digest_parse(response->digest, &ingest->digest, err);
}

static void free_ingest(struct ingest *ingest)
{
	rpc_stream_free(ingest->stream);
	arena_done(&ingest->arena);
	free(ingest);
}

static int begin(struct proxy *proxy, struct ingest *ingest, const char *ref, uint64_t total_bytes,
		 const struct digest *expected, struct err *err)
{
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	char text[DIGEST_TEXT_BYTES];

	ingest->state.ref = arena_strdup(&ingest->arena, ref);
	if (!ingest->state.ref)
		return ctx_no_memory(err);
	request.action = ACTION(STAT);
	request.ref = (char *)ref;
	request.total = message_int64(total_bytes);
	if (expected)
		request.expected = (char *)digest_format(expected, text);
	if (rpc_stream_open(proxy->client, &ingest->ctx, METHOD("Write"), NULL, 0,
			    TYPE(write_content_response), &ingest->stream, err) < 0)
		return -1;
	return exchange(ingest, &request, err);
}

static int proxy_ingest_open(void *self, struct ctx *ctx, const char *ref, uint64_t total_bytes,
			     const struct digest *expected, bool may_wait,
			     struct ingest **ret_ingest, struct err *err)
{
	struct ingest *ingest;

	(void)ctx;
	if (!may_wait)
		return 1;
	ingest = calloc(1, sizeof(*ingest));
	if (!ingest)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an ingest");
	arena_init(&ingest->arena, MESSAGE_ARENA_BYTES);
	ingest->ctx =
		(struct ctx){.arena = &ingest->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	if (begin(self, ingest, ref, total_bytes, expected, err) < 0) {
		free_ingest(ingest);
		return -1;
	}
	*ret_ingest = ingest;
	return 0;
}

static int proxy_ingest_expect(void *self, struct ctx *ctx, struct ingest *ingest,
			       const struct digest *expected, struct err *err)
{
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	char text[DIGEST_TEXT_BYTES];

	(void)self;
	(void)ctx;
	request.action = ACTION(STAT);
	request.expected = (char *)digest_format(expected, text);
	return exchange(ingest, &request, err);
}

static int proxy_ingest_state(void *self, struct ingest *ingest, struct ingest_info *ret_info,
			      struct digest *ret_digest, struct err *err)
{
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);

	(void)self;
	request.action = ACTION(STAT);
	if (exchange(ingest, &request, err) < 0)
		return -1;
	*ret_info = ingest->state;
	*ret_digest = ingest->digest;
	return 0;
}

/* The next @max bytes of @n pieces at *@i, of which *@off are behind us. Return: how many those are. */
static size_t gather(const struct iovec *pieces, size_t n, size_t *i, size_t *off, uint8_t *to,
		     size_t max)
{
	size_t len = 0;

	while (*i < n && len < max) {
		size_t here = pieces[*i].iov_len - *off;

		if (here > max - len)
			here = max - len;
		if (here)
			memcpy(to + len, (const uint8_t *)pieces[*i].iov_base + *off, here);
		len += here;
		*off += here;
		if (*off == pieces[*i].iov_len) {
			(*i)++;
			*off = 0;
		}
	}
	return len;
}

static int proxy_ingest_write(void *self, struct ctx *ctx, struct ingest *ingest, uint64_t offset,
			      const struct iovec *pieces, size_t n, bool may_wait, struct err *err)
{
	CLEANUP(free_ptr) uint8_t *buf = NULL;
	size_t i = 0, off = 0;

	(void)self;
	(void)ctx;
	if (!may_wait)
		return 1;
	buf = malloc(WRITE_BYTES);
	if (!buf)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to write");
	do {
		MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);

		request.action = ACTION(WRITE);
		request.offset = message_int64(offset);
		request.data.len = gather(pieces, n, &i, &off, buf, WRITE_BYTES);
		request.data.data = buf;
		if (exchange(ingest, &request, err) < 0)
			return -1;
		offset += request.data.len;
	} while (i < n);
	return 0;
}

static int proxy_ingest_commit(void *self, struct ctx *ctx, struct ingest *ingest,
			       const struct ingest_commit *req, struct digest *ret_digest,
			       struct err *err)
{
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	char text[DIGEST_TEXT_BYTES];

	(void)self;
	request.action = ACTION(COMMIT);
	request.offset = message_int64(ingest->state.offset_bytes);
	request.total = message_int64(req->total_bytes);
	if (req->expected)
		request.expected = (char *)digest_format(req->expected, text);
	request.labels = message_label_entries(ctx->arena, &req->labels,
					       TYPE(write_content_request__labels_entry));
	request.n_labels = req->labels.n;
	if (!request.labels)
		return ctx_no_memory(err);
	if (exchange(ingest, &request, err) < 0)
		return -1;
	*ret_digest = ingest->digest;
	return 0;
}

/* Waits for the end, so that the reference is free when this returns. */
static void proxy_ingest_close(void *self, struct ingest *ingest)
{
	CLEANUP(arena_done) struct arena arena;
	ProtobufCMessage *msg;
	struct err ignored;

	(void)self;
	arena_init(&arena, MESSAGE_ARENA_BYTES);
	if (rpc_stream_half_close(ingest->stream, &ignored) == 0)
		while (rpc_stream_recv(ingest->stream, &arena, &msg, &ignored) == 1)
			arena_done(&arena);
	free_ingest(ingest);
}

static const struct conf_option options[] = {
	CONF_STRING(struct content_proxy_conf, address, "\"\"", "PATH",
		    "socket of the server that answers"),
	CONF_END,
};

const struct content_store_ops content_proxy_ops = {
	.name = "proxy",
	.summary = "content that another server keeps",
	.options = options,
	.conf_size = sizeof(struct content_proxy_conf),
	.open = proxy_open,
	.close = proxy_close,
	.info = proxy_info,
	.update = proxy_update,
	.walk = proxy_walk,
	.remove = proxy_remove,
	.blob_open = proxy_blob_open,
	.read_at = proxy_read_at,
	.blob_close = proxy_blob_close,
	.status = proxy_status,
	.walk_ingests = proxy_walk_ingests,
	.abort = proxy_abort,
	.ingest_open = proxy_ingest_open,
	.ingest_expect = proxy_ingest_expect,
	.ingest_state = proxy_ingest_state,
	.ingest_write = proxy_ingest_write,
	.ingest_commit = proxy_ingest_commit,
	.ingest_close = proxy_ingest_close,
};
