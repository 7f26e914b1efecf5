/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read. An answer is put together in the memory that it is sent from, its bytes read to where they belong. What
 * is in the page cache and small, as the walking differ's 32 KiB, is answered at once.
 */
#include <inttypes.h>

#include "content/service_internal.h"
#include "rpc/codec.h"
#include "rpc/message.h"

/* Of bytes in one answer. containerd's own has 1 MiB; this stays in a processor's cache on its way. */
#define MESSAGE_BYTES ((uint64_t)256 << 10)
/* What is answered at once, on the thread that all calls go through. */
#define QUICK_BYTES   ((uint64_t)64 << 10)
/* In front of the bytes: the offset's field and what CODEC_BYTES_HEAD_MAX stands for. */
#define HEAD_BYTES    32

/** struct range - which bytes of a blob; @done: how many of them are on their way */
struct range {
	uint64_t offset;
	uint64_t len;
	uint64_t done;
};

/** struct read - one under way */
struct read {
	const struct content_service *service;
	struct blob *blob;
	struct range range;
};

/* An offset below 0 is 0; a size of 0 or less, or beyond the end, is all there is. */
static int find_range(const MSG(ReadContentRequest) * msg, uint64_t size_bytes,
		      struct range *ret_range, struct err *err)
{
	struct range range = {.offset = msg->offset > 0 ? (uint64_t)msg->offset : 0};

	if (range.offset > size_bytes)
		return err_set(err, ERR_OUT_OF_RANGE,
			       "offset %" PRIu64 " is behind the end, %" PRIu64, range.offset,
			       size_bytes);
	range.len = size_bytes - range.offset;
	if (msg->size > 0 && (uint64_t)msg->size < range.len)
		range.len = (uint64_t)msg->size;
	*ret_range = range;
	return 0;
}

/* The offset in an answer counts from where this read began, not from the start of the blob. */
static size_t put_head(uint8_t *to, uint64_t offset, size_t len)
{
	size_t n = codec_put_int64(to, READ_RESPONSE_OFFSET, (int64_t)offset);

	return n + codec_put_bytes_head(to + n, READ_RESPONSE_DATA, len);
}

/* The next answer. Return: as read_at(). */
static int fill(const struct content_service *service, struct rpc_call *call, struct blob *blob,
		struct range *range, bool may_wait, struct rpc_buf **ret_buf, size_t *ret_len,
		struct err *err)
{
	uint64_t left = range->len - range->done;
	size_t len = (size_t)(left < MESSAGE_BYTES ? left : MESSAGE_BYTES);
	struct rpc_buf *buf = rpc_buf_new(call, HEAD_BYTES + len);
	size_t head;
	int r;

	if (!buf)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
	head = put_head(rpc_buf_data(buf), range->done, len);
	r = service->ops->read_at(service->self, blob, range->offset + range->done,
				  rpc_buf_data(buf) + head, len, may_wait, err);
	if (r != 0) {
		rpc_buf_free(buf);
		return r;
	}
	range->done += len;
	*ret_buf = buf;
	*ret_len = head + len;
	return 0;
}

static int quick_range(const struct content_service *service, struct rpc_call *call,
		       struct blob *blob, const MSG(ReadContentRequest) * msg, uint64_t size_bytes,
		       struct rpc_buf **ret_buf, size_t *ret_len, struct err *err)
{
	struct range range;

	if (find_range(msg, size_bytes, &range, err) < 0)
		return -1;
	if (range.len > QUICK_BYTES)
		return 1;
	return range.len ? fill(service, call, blob, &range, false, ret_buf, ret_len, err) : 0;
}

static int on_quick(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		    struct rpc_buf **ret_buf, size_t *ret_len, struct err *err)
{
	const struct content_service *service = self;
	const MSG(ReadContentRequest) *msg = (const void *)request;
	struct digest digest;
	uint64_t size_bytes;
	struct blob *blob;
	int r;

	if (digest_parse(msg->digest, &digest, err) < 0)
		return message_failed("read", msg->digest, err);
	r = service->ops->blob_open(service->self, rpc_call_ctx(call), &digest, false, &blob,
				    &size_bytes, err);
	if (r == 0) {
		r = quick_range(service, call, blob, msg, size_bytes, ret_buf, ret_len, err);
		service->ops->blob_close(service->self, blob);
	}
	return r < 0 ? message_failed("read", msg->digest, err) : r;
}

static int go_on(struct read *read, struct rpc_call *call, struct err *err)
{
	struct range *range = &read->range;

	while (range->done < range->len) {
		struct rpc_buf *buf;
		size_t len;
		int r;

		if (ctx_check(rpc_call_ctx(call), err) < 0 ||
		    fill(read->service, call, read->blob, range, true, &buf, &len, err) < 0)
			return err_wrap(err, "read");
		r = rpc_call_send_buf(call, buf, len, err);
		if (r < 0)
			return err_wrap(err, "read");
		/* Nothing comes after the last one: it need not be waited for. */
		if (r > 0 && range->done < range->len)
			return 0;
	}
	rpc_call_finish(call);
	return 0;
}

static int begin(struct read *read, struct rpc_call *call, const MSG(ReadContentRequest) * msg,
		 struct err *err)
{
	const struct content_service *service = read->service;
	struct digest digest;
	uint64_t size_bytes;

	if (digest_parse(msg->digest, &digest, err) < 0 ||
	    service->ops->blob_open(service->self, rpc_call_ctx(call), &digest, true, &read->blob,
				    &size_bytes, err) < 0)
		return -1;
	return find_range(msg, size_bytes, &read->range, err);
}

static int on_open(void *self, struct rpc_call *call, const ProtobufCMessage *request,
		   struct err *err)
{
	const MSG(ReadContentRequest) *msg = (const void *)request;
	struct read *read = arena_zalloc(rpc_call_ctx(call)->arena, sizeof(*read));

	if (!read)
		return ctx_no_memory(err);
	read->service = self;
	rpc_call_set_data(call, read);
	if (begin(read, call, msg, err) < 0)
		return message_failed("read", msg->digest, err);
	return go_on(read, call, err);
}

static int on_writable(void *self, struct rpc_call *call, struct err *err)
{
	struct read *read = rpc_call_data(call);

	(void)self;
	return read->range.done < read->range.len ? go_on(read, call, err) : 0;
}

static void on_close(void *self, struct rpc_call *call)
{
	const struct content_service *service = self;
	struct read *read = rpc_call_data(call);

	if (read && read->blob)
		service->ops->blob_close(service->self, read->blob);
}

const struct rpc_stream_ops content_read_ops = {
	.quick = on_quick,
	.open = on_open,
	.writable = on_writable,
	.close = on_close,
};
