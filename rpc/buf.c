/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers for answers that their makers fill in place. Large ones are kept for the next: to malloc() they are
 * mappings, and what a fresh mapping costs in page faults is more than what copying its content would.
 *
 * gRPC lets go of a buffer when its bytes are in the socket, on any thread, perhaps after the server has gone.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "rpc/library_internal.h"
#include "rpc/server_internal.h"

/* What is kept has this size, and holds what makers of large answers ask for. */
#define LARGE_BYTES (((size_t)256 << 10) + 64)
#define SMALL_BYTES ((size_t)32 << 10)
#define STOCK_MAX   8

struct rpc_buf {
	struct buf_stock *stock; /* NULL: it is not to be kept */
	struct rpc_buf *next;
	uint8_t data[];
};

/* @mutex guards what follows; @refs: the server's, and one of each buffer on its way. */
struct buf_stock {
	pthread_mutex_t mutex;
	unsigned int refs;
	unsigned int n;
	struct rpc_buf *bufs;
	bool closed;
};

struct buf_stock *buf_stock_new(void)
{
	struct buf_stock *stock = calloc(1, sizeof(*stock));

	if (!stock)
		return NULL;
	pthread_mutex_init(&stock->mutex, NULL);
	stock->refs = 1;
	return stock;
}

/* The lock is held, and released. */
static void drop_ref(struct buf_stock *stock)
{
	bool last = --stock->refs == 0;

	pthread_mutex_unlock(&stock->mutex);
	if (!last)
		return;
	pthread_mutex_destroy(&stock->mutex);
	free(stock);
}

void buf_stock_unref(struct buf_stock *stock)
{
	if (!stock)
		return;
	pthread_mutex_lock(&stock->mutex);
	stock->closed = true;
	while (stock->bufs) {
		struct rpc_buf *buf = stock->bufs;

		stock->bufs = buf->next;
		free(buf);
	}
	drop_ref(stock);
}

static struct rpc_buf *take(struct buf_stock *stock)
{
	struct rpc_buf *buf;

	LOCK_GUARD(&stock->mutex);
	buf = stock->bufs;
	if (buf) {
		stock->bufs = buf->next;
		stock->n--;
		stock->refs++;
	}
	return buf;
}

struct rpc_buf *rpc_buf_new(struct rpc_call *call, size_t size)
{
	struct buf_stock *stock = call->server->stock;
	bool kept = size > SMALL_BYTES && size <= LARGE_BYTES;
	struct rpc_buf *buf = kept ? take(stock) : NULL;

	if (buf)
		return buf;
	buf = malloc(sizeof(*buf) + (kept ? LARGE_BYTES : size));
	if (!buf)
		return NULL;
	buf->stock = NULL;
	if (kept) {
		LOCK_GUARD(&stock->mutex);
		stock->refs++;
		buf->stock = stock;
	}
	return buf;
}

uint8_t *rpc_buf_data(struct rpc_buf *buf)
{
	return buf->data;
}

void rpc_buf_free(struct rpc_buf *buf)
{
	struct buf_stock *stock;

	if (!buf)
		return;
	stock = buf->stock;
	if (!stock) {
		free(buf);
		return;
	}
	pthread_mutex_lock(&stock->mutex);
	if (!stock->closed && stock->n < STOCK_MAX) {
		buf->next = stock->bufs;
		stock->bufs = buf;
		stock->n++;
		buf = NULL;
	}
	drop_ref(stock);
	free(buf);
}

static void let_go(void *buf)
{
	TAKE_TAG(buf);
	rpc_buf_free(buf);
}

grpc_slice buf_slice(struct rpc_buf *buf, size_t len)
{
	GIVE_TAG(buf);
	return grpc_slice_new_with_user_data(buf->data, len, let_go, buf);
}
