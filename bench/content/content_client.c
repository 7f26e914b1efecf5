/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content_client sha256 BYTES: what the digest of so many bytes costs alone, on one core
 * content_client fetch SOCKET DIGEST TIMES: read a blob so often, with this project's own client
 * Both print bytes per second.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ctx.h"
#include "base/digest.h"
#include "proxy/content_proxy.h"
#include "rpc/server.h"

#define HASH_BYTES  ((size_t)1 << 20)
#define PIECE_BYTES ((size_t)64 << 20)

static int64_t since_ns(int64_t begin_ns)
{
	int64_t took_ns = monotonic_ns() - begin_ns;

	return took_ns > 0 ? took_ns : 1;
}

static void print_rate(uint64_t bytes, int64_t took_ns)
{
	printf("%.0f\n", (double)bytes * 1e9 / (double)took_ns);
}

static int hash(uint64_t bytes, struct err *err)
{
	CLEANUP(free_ptr) char *buf = malloc(HASH_BYTES);
	struct digest_state *state;
	struct digest digest;
	int64_t begin_ns;
	int r = 0;

	if (!buf)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	memset(buf, 'x', HASH_BYTES);
	if (digest_state_new(DIGEST_SHA256, &state, err) < 0)
		return -1;
	begin_ns = monotonic_ns();
	for (uint64_t done = 0; r == 0 && done < bytes; done += HASH_BYTES)
		r = digest_state_add(state, buf, HASH_BYTES, err);
	if (r == 0)
		r = digest_state_peek(state, &digest, err);
	digest_state_free(state);
	if (r == 0)
		print_rate((bytes + HASH_BYTES - 1) / HASH_BYTES * HASH_BYTES, since_ns(begin_ns));
	return r;
}

static int read_blob(void *store, struct blob *blob, uint64_t size_bytes, char *buf,
		     struct err *err)
{
	for (uint64_t at = 0; at < size_bytes; at += PIECE_BYTES) {
		uint64_t left = size_bytes - at;
		size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;

		if (content_proxy_ops.read_at(store, blob, at, buf, n, true, err) < 0)
			return -1;
	}
	return 0;
}

static int fetch(const char *socket, const char *digest_text, unsigned int times, struct err *err)
{
	const struct content_proxy_conf conf = {.address = (char *)socket};
	CLEANUP(free_ptr) char *buf = malloc(PIECE_BYTES);
	CLEANUP(arena_done) struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	struct digest digest;
	struct blob *blob;
	uint64_t size_bytes;
	int64_t begin_ns;
	void *store;
	int r;

	arena_init(&arena, (size_t)1 << 20);
	if (!buf)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	memset(buf, 0, PIECE_BYTES);
	if (digest_parse(digest_text, &digest, err) < 0 ||
	    content_proxy_ops.open(NULL, &conf, &store, err) < 0)
		return -1;
	r = content_proxy_ops.blob_open(store, &ctx, &digest, true, &blob, &size_bytes, err);
	if (r == 0) {
		begin_ns = monotonic_ns();
		for (unsigned int i = 0; r == 0 && i < times; i++)
			r = read_blob(store, blob, size_bytes, buf, err);
		if (r == 0)
			print_rate(size_bytes * times, since_ns(begin_ns));
		content_proxy_ops.blob_close(store, blob);
	}
	content_proxy_ops.close(store);
	return r;
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	int r;

	if (argc == 3 && strcmp(argv[1], "sha256") == 0) {
		r = hash(strtoull(argv[2], NULL, 10), &err);
	} else if (argc == 5 && strcmp(argv[1], "fetch") == 0) {
		r = fetch(argv[2], argv[3], (unsigned int)strtoul(argv[4], NULL, 10), &err);
		rpc_library_done();
	} else {
		fprintf(stderr, "usage: content_client sha256 BYTES\n"
				"       content_client fetch SOCKET DIGEST TIMES\n");
		return 2;
	}
	if (r < 0) {
		fprintf(stderr, "content_client: %s\n", err.msg);
		return 1;
	}
	return 0;
}
