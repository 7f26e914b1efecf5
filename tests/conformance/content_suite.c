/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/content_suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/labels.h"
#include "proxy/content_proxy.h"
#include "rpc/server.h"
#include "tests/support/content_server.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define CASE_ARENA_BYTES (256u << 20)
#define N_THREADS        8

/* --- one case's surroundings ----------------------------------------------------------------------- */

/*
 * @self is what the case talks to: the store itself, or the proxy in front of the server in front of it.
 */
struct fixture {
	const struct content_suite *suite;
	struct temp_root *root;
	char *state_path;
	char *socket_path;
	const struct content_store_ops *ops;
	void *self;
	void *store;
	struct content_server *server;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static void open_store(struct fixture *fx)
{
	const struct content_suite *suite = fx->suite;

	assert_ok(suite->ops->open(fx->state_path, suite->conf, &fx->store, &fx->err), &fx->err);
	fx->ops = suite->ops;
	fx->self = fx->store;
	if (suite->through_socket) {
		const struct content_proxy_conf conf = {.address = fx->socket_path};

		fx->server = content_server_start(fx->socket_path, suite->ops, fx->store);
		fx->ops = &content_proxy_ops;
		assert_ok(fx->ops->open(fx->state_path, &conf, &fx->self, &fx->err), &fx->err);
	}
}

static void close_store(struct fixture *fx)
{
	if (fx->suite->through_socket) {
		fx->ops->close(fx->self);
		content_server_stop(fx->server);
		(void)unlink(fx->socket_path);
	}
	fx->suite->ops->close(fx->store);
	fx->store = NULL;
	fx->self = NULL;
	fx->server = NULL;
}

static void restart(struct fixture *fx)
{
	close_store(fx);
	open_store(fx);
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->suite = *state;
	fx->root = temp_root_new();
	fx->state_path = temp_root_path(fx->root, "state");
	fx->socket_path = temp_root_path(fx->root, "socket");
	assert_int_equal(mkdir(fx->state_path, 0700), 0);
	arena_init(&fx->arena, CASE_ARENA_BYTES);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	open_store(fx);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	close_store(fx);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx->state_path);
	free(fx->socket_path);
	free(fx);
	return 0;
}

/* --- bytes and calls ---------------------------------------------------------------------------------- */

/* @n bytes that belong to @seed alone. */
static uint8_t *bytes_of(struct fixture *fx, size_t n, unsigned int seed)
{
	uint8_t *bytes = arena_alloc(&fx->arena, n + 1);
	uint32_t x = seed * 2654435761u + 1;

	assert_non_null(bytes);
	for (size_t i = 0; i < n; i++) {
		x = x * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(x >> 24);
	}
	return bytes;
}

static struct digest digest_as(enum digest_algorithm algorithm, const void *bytes, size_t n)
{
	struct digest digest;
	struct err err;

	assert_ok(digest_of(algorithm, bytes, n, &digest, &err), &err);
	return digest;
}

static struct digest sha256(const void *bytes, size_t n)
{
	return digest_as(DIGEST_SHA256, bytes, n);
}

static struct ingest *begin_as(struct fixture *fx, const char *ref, uint64_t total,
			       const struct digest *expected)
{
	struct ingest *ingest = NULL;

	assert_ok(fx->ops->ingest_open(fx->self, &fx->ctx, ref, total, expected, true, &ingest,
				       &fx->err),
		  &fx->err);
	return ingest;
}

static struct ingest *begin(struct fixture *fx, const char *ref, uint64_t total)
{
	return begin_as(fx, ref, total, NULL);
}

static void end(struct fixture *fx, struct ingest *ingest)
{
	fx->ops->ingest_close(fx->self, ingest);
}

static int try_write(struct fixture *fx, struct ingest *ingest, uint64_t offset, const void *bytes,
		     size_t n)
{
	const struct iovec piece = {(void *)(uintptr_t)bytes, n};

	return fx->ops->ingest_write(fx->self, &fx->ctx, ingest, offset, &piece, 1, true, &fx->err);
}

static void put(struct fixture *fx, struct ingest *ingest, uint64_t offset, const void *bytes,
		size_t n)
{
	assert_ok(try_write(fx, ingest, offset, bytes, n), &fx->err);
}

/* It holds the first @n of @bytes, and says so. */
static void assert_holds(struct fixture *fx, struct ingest *ingest, const void *bytes, size_t n)
{
	struct digest digest, want = sha256(bytes, n);
	struct ingest_info info;

	assert_ok(fx->ops->ingest_state(fx->self, ingest, &info, &digest, &fx->err), &fx->err);
	assert_int_equal(info.offset_bytes, n);
	assert_true(digest_equal(&digest, &want));
	assert_true(info.started_ns > 0);
	assert_true(info.updated_ns >= info.started_ns);
}

static int try_commit(struct fixture *fx, struct ingest *ingest, uint64_t total,
		      const struct digest *expected, struct digest *ret_digest)
{
	const struct ingest_commit req = {.total_bytes = total, .expected = expected};
	struct digest digest;
	int r = fx->ops->ingest_commit(fx->self, &fx->ctx, ingest, &req, &digest, &fx->err);

	if (r == 0 && ret_digest)
		*ret_digest = digest;
	return r;
}

static struct digest add_labelled(struct fixture *fx, const void *bytes, size_t n,
				  const struct strmap *labels)
{
	const struct digest digest = sha256(bytes, n);
	struct ingest_commit req = {.total_bytes = n, .expected = &digest};
	struct ingest *ingest = begin(fx, "add", n);
	struct digest made;

	if (labels)
		req.labels = *labels;
	put(fx, ingest, 0, bytes, n);
	assert_ok(fx->ops->ingest_commit(fx->self, &fx->ctx, ingest, &req, &made, &fx->err),
		  &fx->err);
	assert_true(digest_equal(&made, &digest));
	end(fx, ingest);
	return digest;
}

static struct digest add(struct fixture *fx, const void *bytes, size_t n)
{
	return add_labelled(fx, bytes, n, NULL);
}

static int try_info(struct fixture *fx, const struct digest *digest, struct blob_info *ret_info)
{
	return fx->ops->info(fx->self, &fx->ctx, digest, ret_info, &fx->err);
}

static void assert_absent(struct fixture *fx, const struct digest *digest)
{
	struct blob_info info;

	assert_fails(try_info(fx, digest, &info), &fx->err, ERR_NOT_FOUND);
}

static void assert_blob(struct fixture *fx, const struct digest *digest, const void *bytes,
			size_t n)
{
	uint8_t *buf = malloc(n + 1);
	struct blob_info info;
	struct blob *blob;
	uint64_t size;

	assert_non_null(buf);
	assert_ok(try_info(fx, digest, &info), &fx->err);
	assert_int_equal(info.size_bytes, n);
	assert_true(digest_equal(&info.digest, digest));
	assert_int_equal(fx->ops->blob_open(fx->self, &fx->ctx, digest, true, &blob, &size,
					    &fx->err),
			 0);
	assert_int_equal(size, n);
	assert_int_equal(fx->ops->read_at(fx->self, blob, 0, buf, n, true, &fx->err), 0);
	assert_memory_equal(buf, bytes, n);
	fx->ops->blob_close(fx->self, blob);
	free(buf);
}

static bool has_ingest(struct fixture *fx, const char *ref)
{
	struct ingest_info info;
	int r = fx->ops->status(fx->self, &fx->ctx, ref, &info, &fx->err);

	if (r < 0)
		assert_int_equal(fx->err.code, ERR_NOT_FOUND);
	return r == 0;
}

/* --- writing --------------------------------------------------------------------------------------------- */

static void a_new_ingest_holds_nothing(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r", 0);

	assert_holds(fx, ingest, "", 0);
	end(fx, ingest);
}

static void each_write_tells_offset_and_digest_so_far(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r", 1000);
	uint8_t *bytes = bytes_of(fx, 1000, 1);

	for (size_t at = 0; at < 1000; at += 100) {
		put(fx, ingest, at, bytes + at, 100);
		assert_holds(fx, ingest, bytes, at + 100);
	}
	end(fx, ingest);
}

static void large_writes_in_many_pieces_are_held(void **state)
{
	struct fixture *fx = *state;
	const size_t n = 9u << 20;
	uint8_t *bytes = bytes_of(fx, n, 2);
	struct ingest *ingest = begin(fx, "r", n);
	static struct iovec pieces[3000];
	size_t at = 0, i = 0;
	struct digest made;

	/* Of odd lengths, empty ones among them, and more than one call takes. */
	for (; i < ARRAY_LEN(pieces) - 1; i++) {
		size_t len = i % 7 == 0 ? 0 : 3001 + i % 13;

		pieces[i] = (struct iovec){bytes + at, len};
		at += len;
	}
	assert_true(at < n);
	pieces[i] = (struct iovec){bytes + at, n - at};
	assert_ok(fx->ops->ingest_write(fx->self, &fx->ctx, ingest, 0, pieces, ARRAY_LEN(pieces),
					true, &fx->err),
		  &fx->err);
	assert_holds(fx, ingest, bytes, n);
	assert_ok(try_commit(fx, ingest, n, NULL, &made), &fx->err);
	end(fx, ingest);
	assert_blob(fx, &made, bytes, n);
}

static void a_write_elsewhere_is_out_of_range_and_changes_nothing(void **state)
{
	struct fixture *fx = *state;
	static const uint64_t wrong[] = {1, 99, 101, 1000000, INT64_MAX};
	uint8_t *bytes = bytes_of(fx, 100, 3);

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct ingest *ingest = begin(fx, "r", 0);

		put(fx, ingest, 0, bytes, 100);
		assert_fails(try_write(fx, ingest, wrong[i], "x", 1), &fx->err, ERR_OUT_OF_RANGE);
		end(fx, ingest);
		ingest = begin(fx, "r", 0);
		assert_holds(fx, ingest, bytes, 100);
		end(fx, ingest);
	}
}

static void offset_0_begins_anew(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r", 0);

	put(fx, ingest, 0, "first try", 9);
	put(fx, ingest, 0, "second", 6);
	assert_holds(fx, ingest, "second", 6);
	/* Even with nothing to write. */
	put(fx, ingest, 0, "", 0);
	assert_holds(fx, ingest, "", 0);
	put(fx, ingest, 0, "third", 5);
	assert_holds(fx, ingest, "third", 5);
	put(fx, ingest, 5, "", 0);
	assert_holds(fx, ingest, "third", 5);
	end(fx, ingest);
}

static void references_are_opaque_and_tell_apart(void **state)
{
	struct fixture *fx = *state;
	char *longest = arena_alloc(&fx->arena, CONTENT_REF_MAX_BYTES + 2);
	const char *refs[] = {
		"default/1/layer-sha256:ab",
		"../../etc/passwd",
		"/",
		".",
		"..",
		"a\nb",
		" ",
		"%s%n",
		"\xf0\x9f\x9a\xa2 \xc3\xa4",
		"1",
		"1.ref",
		longest,
	};

	memset(longest, 'x', CONTENT_REF_MAX_BYTES);
	longest[CONTENT_REF_MAX_BYTES] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
		struct ingest *ingest = begin(fx, refs[i], 0);

		put(fx, ingest, 0, &i, sizeof(i));
		end(fx, ingest);
	}
	restart(fx);
	for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
		struct ingest *ingest;

		assert_true(has_ingest(fx, refs[i]));
		ingest = begin(fx, refs[i], 0);
		assert_holds(fx, ingest, &i, sizeof(i));
		end(fx, ingest);
	}
}

static void references_that_are_empty_or_too_long_are_refused(void **state)
{
	struct fixture *fx = *state;
	char *too_long = arena_alloc(&fx->arena, CONTENT_REF_MAX_BYTES + 2);
	struct ingest *ingest;

	memset(too_long, 'x', CONTENT_REF_MAX_BYTES + 1);
	too_long[CONTENT_REF_MAX_BYTES + 1] = '\0';
	assert_fails(fx->ops->ingest_open(fx->self, &fx->ctx, "", 0, NULL, true, &ingest, &fx->err),
		     &fx->err, ERR_INVALID_ARGUMENT);
	assert_fails(fx->ops->ingest_open(fx->self, &fx->ctx, too_long, 0, NULL, true, &ingest,
					  &fx->err),
		     &fx->err, ERR_INVALID_ARGUMENT);
}

/* --- taking up ---------------------------------------------------------------------------------------------- */

static void an_ingest_is_taken_up_where_it_stands(void **state)
{
	struct fixture *fx = *state;
	const size_t n = 100000;
	uint8_t *bytes = bytes_of(fx, n, 4);
	struct ingest_info before, after;
	struct digest digest;
	struct ingest *ingest = begin(fx, "r", n);

	put(fx, ingest, 0, bytes, 33333);
	end(fx, ingest);
	ingest = begin(fx, "r", n);
	assert_holds(fx, ingest, bytes, 33333);
	put(fx, ingest, 33333, bytes + 33333, 33333);
	assert_ok(fx->ops->ingest_state(fx->self, ingest, &before, &digest, &fx->err), &fx->err);
	end(fx, ingest);

	restart(fx);
	assert_true(has_ingest(fx, "r"));
	/* The total is known still. */
	ingest = begin(fx, "r", 0);
	assert_holds(fx, ingest, bytes, 66666);
	assert_ok(fx->ops->ingest_state(fx->self, ingest, &after, &digest, &fx->err), &fx->err);
	assert_int_equal(after.total_bytes, n);
	assert_true(after.started_ns == before.started_ns);
	put(fx, ingest, 66666, bytes + 66666, n - 66666);
	assert_ok(try_commit(fx, ingest, n, NULL, &digest), &fx->err);
	end(fx, ingest);
	assert_blob(fx, &digest, bytes, n);
	assert_false(has_ingest(fx, "r"));
}

static void an_ingest_without_bytes_is_kept_too(void **state)
{
	struct fixture *fx = *state;
	struct ingest_info info;

	end(fx, begin(fx, "r", 1234));
	restart(fx);
	assert_ok(fx->ops->status(fx->self, &fx->ctx, "r", &info, &fx->err), &fx->err);
	assert_int_equal(info.offset_bytes, 0);
	assert_int_equal(info.total_bytes, 1234);
}

static void another_total_begins_anew(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r", 100);

	put(fx, ingest, 0, "some bytes", 10);
	end(fx, ingest);
	/* Not known is not another. */
	ingest = begin(fx, "r", 0);
	assert_holds(fx, ingest, "some bytes", 10);
	end(fx, ingest);
	ingest = begin(fx, "r", 101);
	assert_holds(fx, ingest, "", 0);
	put(fx, ingest, 0, "others", 6);
	end(fx, ingest);
	ingest = begin(fx, "r", 101);
	assert_holds(fx, ingest, "others", 6);
	end(fx, ingest);
}

static void a_total_told_later_is_kept(void **state)
{
	struct fixture *fx = *state;
	struct ingest_info info;
	struct ingest *ingest = begin(fx, "r", 0);

	put(fx, ingest, 0, "some bytes", 10);
	end(fx, ingest);
	ingest = begin(fx, "r", 20);
	assert_holds(fx, ingest, "some bytes", 10);
	end(fx, ingest);
	restart(fx);
	assert_ok(fx->ops->status(fx->self, &fx->ctx, "r", &info, &fx->err), &fx->err);
	assert_int_equal(info.total_bytes, 20);
	/* What is longer than it will be cannot become it. */
	ingest = begin(fx, "s", 0);
	put(fx, ingest, 0, "some bytes", 10);
	end(fx, ingest);
	ingest = begin(fx, "s", 9);
	assert_holds(fx, ingest, "", 0);
	end(fx, ingest);
}

static void a_reference_has_one_writer_at_a_time(void **state)
{
	struct fixture *fx = *state;
	struct ingest *first = begin(fx, "r", 0), *second;

	assert_fails(fx->ops->ingest_open(fx->self, &fx->ctx, "r", 0, NULL, true, &second,
					  &fx->err),
		     &fx->err, ERR_UNAVAILABLE);
	/* Other references are free. */
	second = begin(fx, "s", 0);
	end(fx, second);
	end(fx, first);
	second = begin(fx, "r", 0);
	end(fx, second);
}

struct later {
	struct fixture *fx;
	struct ingest *ingest;
};

static void *end_soon(void *arg)
{
	struct later *later = arg;

	end(later->fx, later->ingest);
	return NULL;
}

static void a_writer_waits_a_little_for_the_one_before_it(void **state)
{
	struct fixture *fx = *state;

	for (int i = 0; i < 20; i++) {
		struct later later = {fx, begin(fx, "r", 0)};
		struct ingest *next;
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, end_soon, &later), 0);
		next = begin(fx, "r", 0);
		pthread_join(thread, NULL);
		end(fx, next);
	}
}

/* --- commit ------------------------------------------------------------------------------------------------- */

static void a_commit_makes_a_blob_that_stays(void **state)
{
	struct fixture *fx = *state;
	uint8_t *bytes = bytes_of(fx, 12345, 5);
	struct digest digest = sha256(bytes, 12345);
	struct blob_info info;

	assert_absent(fx, &digest);
	add(fx, bytes, 12345);
	assert_blob(fx, &digest, bytes, 12345);
	assert_false(has_ingest(fx, "add"));
	assert_ok(try_info(fx, &digest, &info), &fx->err);
	assert_true(info.created_ns > 0);
	assert_true(info.created_ns == info.updated_ns);
	restart(fx);
	assert_blob(fx, &digest, bytes, 12345);
}

static void nothing_is_a_blob_too(void **state)
{
	struct fixture *fx = *state;
	struct digest made, want = sha256("", 0);
	struct ingest *ingest = begin(fx, "r", 0);

	assert_ok(try_commit(fx, ingest, 0, &want, &made), &fx->err);
	end(fx, ingest);
	assert_true(digest_equal(&made, &want));
	assert_blob(fx, &want, "", 0);
	restart(fx);
	assert_blob(fx, &want, "", 0);
}

static void a_commit_of_other_bytes_keeps_them(void **state)
{
	struct fixture *fx = *state;
	struct digest wrong = sha256("other", 5), right = sha256("bytes", 5), made;
	struct ingest *ingest = begin(fx, "r", 0);

	put(fx, ingest, 0, "bytes", 5);
	assert_fails(try_commit(fx, ingest, 5, &wrong, NULL), &fx->err, ERR_FAILED_PRECONDITION);
	end(fx, ingest);
	assert_absent(fx, &wrong);
	assert_absent(fx, &right);
	ingest = begin(fx, "r", 0);
	assert_holds(fx, ingest, "bytes", 5);
	assert_fails(try_commit(fx, ingest, 6, &right, NULL), &fx->err, ERR_FAILED_PRECONDITION);
	end(fx, ingest);
	assert_absent(fx, &right);
	ingest = begin(fx, "r", 0);
	assert_ok(try_commit(fx, ingest, 5, &right, &made), &fx->err);
	end(fx, ingest);
	assert_blob(fx, &right, "bytes", 5);
}

static void a_commit_of_what_is_there_ends_the_ingest(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = add(fx, "twice", 5);
	struct ingest *ingest;

	for (int given = 0; given < 2; given++) {
		ingest = begin(fx, "again", 0);
		put(fx, ingest, 0, "twice", 5);
		assert_fails(try_commit(fx, ingest, 0, given ? &digest : NULL, NULL), &fx->err,
			     ERR_ALREADY_EXISTS);
		end(fx, ingest);
		assert_false(has_ingest(fx, "again"));
	}
	assert_blob(fx, &digest, "twice", 5);
}

static void to_expect_what_is_there_ends_the_ingest(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = add(fx, "there", 5), other = sha256("not there", 9);
	struct ingest *ingest = begin(fx, "r", 0);

	assert_ok(fx->ops->ingest_expect(fx->self, &fx->ctx, ingest, &other, &fx->err), &fx->err);
	put(fx, ingest, 0, "the", 3);
	assert_fails(fx->ops->ingest_expect(fx->self, &fx->ctx, ingest, &digest, &fx->err),
		     &fx->err, ERR_ALREADY_EXISTS);
	end(fx, ingest);
	assert_false(has_ingest(fx, "r"));
}

static void sha512_may_come_as_a_surprise(void **state)
{
	struct fixture *fx = *state;
	uint8_t *bytes = bytes_of(fx, 700000, 6);
	struct digest digest = digest_as(DIGEST_SHA512, bytes, 700000), made;
	struct digest other = sha256(bytes, 700000);
	struct ingest *ingest = begin(fx, "r", 0);

	put(fx, ingest, 0, bytes, 700000);
	assert_holds(fx, ingest, bytes, 700000);
	assert_ok(try_commit(fx, ingest, 700000, &digest, &made), &fx->err);
	end(fx, ingest);
	assert_true(digest_equal(&made, &digest));
	assert_blob(fx, &digest, bytes, 700000);
	assert_absent(fx, &other);
	restart(fx);
	assert_blob(fx, &digest, bytes, 700000);
}

static void sha512_may_be_known_from_the_start(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = digest_as(DIGEST_SHA512, "bytes", 5), half, made;
	struct ingest *ingest = begin_as(fx, "r", 5, &digest);
	struct ingest_info info;

	put(fx, ingest, 0, "by", 2);
	assert_ok(fx->ops->ingest_state(fx->self, ingest, &info, &half, &fx->err), &fx->err);
	assert_int_equal(half.algorithm, DIGEST_SHA512);
	put(fx, ingest, 2, "tes", 3);
	assert_ok(try_commit(fx, ingest, 5, &digest, &made), &fx->err);
	end(fx, ingest);
	assert_blob(fx, &digest, "bytes", 5);
}

/* --- blobs ---------------------------------------------------------------------------------------------------- */

static void any_part_of_a_blob_can_be_read(void **state)
{
	struct fixture *fx = *state;
	const size_t n = 3u << 20;
	uint8_t *bytes = bytes_of(fx, n, 7), *buf = arena_alloc(&fx->arena, n);
	struct digest digest = add(fx, bytes, n);
	static const size_t parts[][2] = {
		{0, 0},         {0, 1},
		{1, 32768},     {1u << 20, 1u << 20},
		{999, 2000000}, {(3u << 20) - 1, 1},
		{3u << 20, 0},
	};
	struct blob *blob;
	uint64_t size;

	assert_int_equal(fx->ops->blob_open(fx->self, &fx->ctx, &digest, true, &blob, &size,
					    &fx->err),
			 0);
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		assert_int_equal(fx->ops->read_at(fx->self, blob, parts[i][0], buf, parts[i][1],
						  true, &fx->err),
				 0);
		assert_memory_equal(buf, bytes + parts[i][0], parts[i][1]);
	}
	fx->ops->blob_close(fx->self, blob);
}

static void a_reader_keeps_a_blob_that_is_removed(void **state)
{
	struct fixture *fx = *state;
	uint8_t *bytes = bytes_of(fx, 100000, 8), buf[100];
	struct digest digest = add(fx, bytes, 100000);
	struct blob *blob;
	uint64_t size;

	assert_int_equal(fx->ops->blob_open(fx->self, &fx->ctx, &digest, true, &blob, &size,
					    &fx->err),
			 0);
	assert_ok(fx->ops->remove(fx->self, &fx->ctx, &digest, &fx->err), &fx->err);
	assert_absent(fx, &digest);
	/* Over a socket each read opens the blob anew. */
	if (!fx->suite->through_socket) {
		assert_int_equal(fx->ops->read_at(fx->self, blob, 50000, buf, 100, true, &fx->err),
				 0);
		assert_memory_equal(buf, bytes + 50000, 100);
	} else {
		assert_fails(fx->ops->read_at(fx->self, blob, 50000, buf, 100, true, &fx->err),
			     &fx->err, ERR_NOT_FOUND);
	}
	fx->ops->blob_close(fx->self, blob);
	assert_fails(fx->ops->blob_open(fx->self, &fx->ctx, &digest, true, &blob, &size, &fx->err),
		     &fx->err, ERR_NOT_FOUND);
	/* And it can be had again. */
	add(fx, bytes, 100000);
	assert_blob(fx, &digest, bytes, 100000);
}

static void unknown_digests_are_not_found(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = sha256("unknown", 7);
	const struct blob_update req = {.digest = digest};
	struct blob_info info;
	struct blob *blob;
	uint64_t size;

	assert_absent(fx, &digest);
	assert_fails(fx->ops->update(fx->self, &fx->ctx, &req, &info, &fx->err), &fx->err,
		     ERR_NOT_FOUND);
	assert_fails(fx->ops->blob_open(fx->self, &fx->ctx, &digest, true, &blob, &size, &fx->err),
		     &fx->err, ERR_NOT_FOUND);
	/* To remove it is no error. */
	assert_ok(fx->ops->remove(fx->self, &fx->ctx, &digest, &fx->err), &fx->err);
}

static void a_removed_blob_stays_away(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = add(fx, "gone", 4);

	assert_ok(fx->ops->remove(fx->self, &fx->ctx, &digest, &fx->err), &fx->err);
	assert_absent(fx, &digest);
	restart(fx);
	assert_absent(fx, &digest);
}

/* --- labels, lists ----------------------------------------------------------------------------------------------- */

static void set(struct fixture *fx, struct strmap *labels, const char *key, const char *value)
{
	assert_ok(strmap_set(labels, &fx->arena, key, value, &fx->err), &fx->err);
}

static void assert_labels(struct fixture *fx, const struct digest *digest, const char *want)
{
	struct blob_info info;
	char text[256] = "";

	assert_ok(try_info(fx, digest, &info), &fx->err);
	for (size_t i = 0; i < info.labels.n; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s=%s;",
			 info.labels.entries[i].key, info.labels.entries[i].value);
	assert_string_equal(text, want);
}

static void labels_of_a_commit_are_kept_and_go_with_the_blob(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = {0};
	struct digest digest;

	set(fx, &labels, "k1", "v1");
	set(fx, &labels, "containerd.io/x", "v2");
	digest = add_labelled(fx, "labelled", 8, &labels);
	assert_labels(fx, &digest, "containerd.io/x=v2;k1=v1;");
	restart(fx);
	assert_labels(fx, &digest, "containerd.io/x=v2;k1=v1;");
	assert_ok(fx->ops->remove(fx->self, &fx->ctx, &digest, &fx->err), &fx->err);
	add(fx, "labelled", 8);
	assert_labels(fx, &digest, "");
}

static void update_changes_what_the_mask_names(void **state)
{
	static const char *const one[] = {"labels.k1", "labels.k3"}, *const all[] = {"labels"};
	struct fixture *fx = *state;
	struct strmap labels = {0};
	struct blob_update req = {0};
	struct blob_info info;

	set(fx, &labels, "k1", "v1");
	set(fx, &labels, "k2", "v2");
	req.digest = add_labelled(fx, "labelled", 8, &labels);
	labels.n = 0;
	set(fx, &labels, "k3", "v3");
	set(fx, &labels, "k4", "v4");
	req.labels = labels;
	req.paths = (const char **)(uintptr_t)one;
	req.n_paths = 2;
	assert_ok(fx->ops->update(fx->self, &fx->ctx, &req, &info, &fx->err), &fx->err);
	assert_int_equal(info.labels.n, 2);
	assert_true(info.updated_ns >= info.created_ns);
	assert_labels(fx, &req.digest, "k2=v2;k3=v3;");
	req.paths = (const char **)(uintptr_t)all;
	req.n_paths = 1;
	assert_ok(fx->ops->update(fx->self, &fx->ctx, &req, &info, &fx->err), &fx->err);
	assert_labels(fx, &req.digest, "k3=v3;k4=v4;");
	labels.n = 0;
	set(fx, &labels, "k5", "v5");
	set(fx, &labels, "k6", "");
	req.labels = labels;
	req.n_paths = 0;
	assert_ok(fx->ops->update(fx->self, &fx->ctx, &req, &info, &fx->err), &fx->err);
	assert_labels(fx, &req.digest, "k5=v5;");
	restart(fx);
	assert_labels(fx, &req.digest, "k5=v5;");
}

static void update_refuses_other_fields_and_changes_nothing(void **state)
{
	static const char *const wrong[] = {"size", "labels.", "digest", "", "label", "labelsx"};
	struct fixture *fx = *state;
	struct strmap labels = {0};
	struct blob_update req = {0};
	struct blob_info info;

	set(fx, &labels, "k", "v");
	req.digest = add_labelled(fx, "labelled", 8, &labels);
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		const char *paths[] = {"labels", wrong[i]};

		req.paths = paths;
		req.n_paths = 2;
		assert_fails(fx->ops->update(fx->self, &fx->ctx, &req, &info, &fx->err), &fx->err,
			     ERR_INVALID_ARGUMENT);
	}
	assert_labels(fx, &req.digest, "k=v;");
}

static void labels_stay_bounded_over_many_updates(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = add(fx, "labelled", 8);
	char *value = arena_alloc(&fx->arena, 4001);
	struct blob_info info;
	int i, r = 0;

	memset(value, 'x', 4000);
	value[4000] = '\0';
	for (i = 0; r == 0 && i < 400; i++) {
		char key[16], path[32];
		const char *paths[] = {path};
		struct strmap labels = {0};
		struct blob_update req = {.digest = digest, .paths = paths, .n_paths = 1};

		snprintf(key, sizeof(key), "k%d", i);
		snprintf(path, sizeof(path), "labels.%s", key);
		set(fx, &labels, key, value);
		req.labels = labels;
		r = fx->ops->update(fx->self, &fx->ctx, &req, &info, &fx->err);
	}
	assert_int_equal(r, -1);
	assert_int_equal(fx->err.code, ERR_INVALID_ARGUMENT);
	assert_true(i > 200);
}

struct seen {
	unsigned int n;
	unsigned int stop_at;
	struct digest last;
	struct digest digests[300];
};

static int see(void *arg, const struct blob_info *info, struct err *err)
{
	struct seen *seen = arg;

	(void)err;
	seen->last = info->digest;
	seen->digests[seen->n++] = info->digest;
	return seen->n == seen->stop_at;
}

static unsigned int count(struct fixture *fx, const char *filter)
{
	struct seen seen = {0};
	struct filters *filters;

	assert_ok(filters_parse(&filter, 1, &filters, &fx->err), &fx->err);
	assert_int_equal(fx->ops->walk(fx->self, &fx->ctx, filters, NULL, see, &seen, &fx->err), 0);
	filters_free(filters);
	return seen.n;
}

static void walk_shows_what_passes_the_filters(void **state)
{
	struct fixture *fx = *state;
	struct strmap labels = {0};
	char filter[200], text[DIGEST_TEXT_BYTES];
	struct digest digest;

	assert_int_equal(count(fx, ""), 0);
	set(fx, &labels, "k", "v");
	digest = add_labelled(fx, "one", 3, &labels);
	add(fx, "two", 3);
	assert_int_equal(count(fx, ""), 2);
	assert_int_equal(count(fx, "labels.k"), 1);
	assert_int_equal(count(fx, "labels.k==v"), 1);
	assert_int_equal(count(fx, "labels.k!=v"), 1);
	snprintf(filter, sizeof(filter), "digest==%s", digest_format(&digest, text));
	assert_int_equal(count(fx, filter), 1);
	assert_int_equal(count(fx, "digest~=/^sha256:/"), 2);
	assert_int_equal(count(fx, "size==3"), 0);
	assert_int_equal(count(fx, "size"), 0);
}

static void walk_goes_on_behind_a_digest(void **state)
{
	struct fixture *fx = *state;
	struct seen all = {0}, part = {0};

	for (unsigned int i = 0; i < 250; i++)
		add(fx, &i, sizeof(i));
	assert_int_equal(fx->ops->walk(fx->self, &fx->ctx, NULL, NULL, see, &all, &fx->err), 0);
	assert_int_equal(all.n, 250);
	part.stop_at = 100;
	assert_int_equal(fx->ops->walk(fx->self, &fx->ctx, NULL, NULL, see, &part, &fx->err), 1);
	part.stop_at = 0;
	{
		struct digest after = part.last;

		assert_int_equal(fx->ops->walk(fx->self, &fx->ctx, NULL, &after, see, &part,
					       &fx->err),
				 0);
	}
	assert_int_equal(part.n, 250);
	for (unsigned int i = 0; i < 250; i++)
		assert_true(digest_equal(&all.digests[i], &part.digests[i]));
}

static int fail_at_once(void *arg, const struct blob_info *info, struct err *err)
{
	(void)arg;
	(void)info;
	return err_set(err, ERR_ABORTED, "as you wish");
}

static void walk_passes_on_the_failure_of_its_call_back(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one", 3);
	assert_fails(fx->ops->walk(fx->self, &fx->ctx, NULL, NULL, fail_at_once, NULL, &fx->err),
		     &fx->err, ERR_ABORTED);
}

/* --- ingests, by reference -------------------------------------------------------------------------------------- */

static int see_ingest(void *arg, const struct ingest_info *info, struct err *err)
{
	unsigned int *n = arg;

	(void)err;
	assert_true(info->ref[0] != '\0');
	(*n)++;
	return 0;
}

static unsigned int count_ingests(struct fixture *fx, const char *filter)
{
	struct filters *filters;
	unsigned int n = 0;

	assert_ok(filters_parse(&filter, 1, &filters, &fx->err), &fx->err);
	assert_int_equal(fx->ops->walk_ingests(fx->self, &fx->ctx, filters, see_ingest, &n,
					       &fx->err),
			 0);
	filters_free(filters);
	return n;
}

static void ingests_are_listed_open_or_not(void **state)
{
	struct fixture *fx = *state;
	struct ingest *open_one = begin(fx, "open", 0);
	struct ingest_info info;

	put(fx, open_one, 0, "12345", 5);
	end(fx, begin(fx, "closed", 77));
	assert_int_equal(count_ingests(fx, ""), 2);
	assert_int_equal(count_ingests(fx, "ref==open"), 1);
	assert_int_equal(count_ingests(fx, "ref~=/^(open|closed)$/"), 2);
	assert_int_equal(count_ingests(fx, "offset==5"), 0);
	assert_ok(fx->ops->status(fx->self, &fx->ctx, "open", &info, &fx->err), &fx->err);
	assert_int_equal(info.offset_bytes, 5);
	assert_string_equal(info.ref, "open");
	assert_false(has_ingest(fx, "unknown"));
	end(fx, open_one);
}

static void an_aborted_ingest_is_forgotten(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r", 0);

	put(fx, ingest, 0, "bytes", 5);
	end(fx, ingest);
	assert_ok(fx->ops->abort(fx->self, &fx->ctx, "r", &fx->err), &fx->err);
	assert_false(has_ingest(fx, "r"));
	/* To abort what is unknown is no error. */
	assert_ok(fx->ops->abort(fx->self, &fx->ctx, "r", &fx->err), &fx->err);
	restart(fx);
	assert_false(has_ingest(fx, "r"));
	ingest = begin(fx, "r", 0);
	assert_holds(fx, ingest, "", 0);
	end(fx, ingest);
}

static void a_writer_is_told_of_an_abort(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r", 0), *next;

	put(fx, ingest, 0, "bytes", 5);
	assert_ok(fx->ops->abort(fx->self, &fx->ctx, "r", &fx->err), &fx->err);
	assert_false(has_ingest(fx, "r"));
	/* The reference is free at once. */
	next = begin(fx, "r", 0);
	put(fx, next, 0, "others", 6);
	assert_fails(try_write(fx, ingest, 5, "more", 4), &fx->err, ERR_ABORTED);
	end(fx, ingest);
	assert_holds(fx, next, "others", 6);
	end(fx, next);
	assert_true(has_ingest(fx, "r"));
}

/* --- many at once ------------------------------------------------------------------------------------------------- */

/**
 * struct worker - one of N_THREADS
 * @n_made, @n_there: commits that made the blob, or found it there
 */
struct worker {
	struct fixture *fx;
	unsigned int i;
	unsigned int n_made;
	unsigned int n_there;
	unsigned int n_wrong;
};

static void run_workers(struct fixture *fx, struct worker workers[N_THREADS],
			void *(*fn)(void *arg))
{
	pthread_t threads[N_THREADS];

	for (unsigned int i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){.fx = fx, .i = i};
		assert_int_equal(pthread_create(&threads[i], NULL, fn, &workers[i]), 0);
	}
	for (unsigned int i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
}

#define ROUNDS 20

/* Writes the same bytes as all others, under a reference of its own. */
static void *commit_the_same(void *arg)
{
	struct worker *w = arg;
	struct fixture *fx = w->fx;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct ingest_commit req = {0};
		const struct iovec piece = {&round, sizeof(round)};
		struct ingest *ingest = NULL;
		struct digest digest;
		struct arena arena;
		struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
		struct err err = ERR_INIT;
		char ref[32];
		int r;

		arena_init(&arena, 1u << 20);
		snprintf(ref, sizeof(ref), "w%u", w->i);
		r = fx->ops->ingest_open(fx->self, &ctx, ref, 0, NULL, true, &ingest, &err);
		if (r == 0)
			r = fx->ops->ingest_write(fx->self, &ctx, ingest, 0, &piece, 1, true, &err);
		if (r == 0)
			r = fx->ops->ingest_commit(fx->self, &ctx, ingest, &req, &digest, &err);
		if (r == 0)
			w->n_made++;
		else if (err.code == ERR_ALREADY_EXISTS)
			w->n_there++;
		else
			w->n_wrong++;
		if (ingest)
			fx->ops->ingest_close(fx->self, ingest);
		arena_done(&arena);
	}
	return NULL;
}

static void of_many_who_commit_the_same_one_makes_the_blob(void **state)
{
	struct fixture *fx = *state;
	struct worker workers[N_THREADS];
	unsigned int n_made = 0;

	run_workers(fx, workers, commit_the_same);
	for (unsigned int i = 0; i < N_THREADS; i++) {
		assert_int_equal(workers[i].n_wrong, 0);
		assert_int_equal(workers[i].n_made + workers[i].n_there, ROUNDS);
		n_made += workers[i].n_made;
	}
	assert_int_equal(n_made, ROUNDS);
	assert_int_equal(count(fx, ""), ROUNDS);
	assert_int_equal(count_ingests(fx, ""), 0);
}

/* Even ones make a blob, odd ones remove it: whoever reads it meanwhile finds all of it or nothing. */
static void *make_and_remove(void *arg)
{
	static const char bytes[] = "here today, gone tomorrow";
	struct worker *w = arg;
	struct fixture *fx = w->fx;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct ingest_commit req = {0};
		const struct iovec piece = {(void *)(uintptr_t)bytes, sizeof(bytes)};
		struct digest digest = sha256(bytes, sizeof(bytes));
		struct ingest *ingest = NULL;
		struct arena arena;
		struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
		struct err err = ERR_INIT;
		char buf[sizeof(bytes)], ref[32];
		struct blob *blob;
		uint64_t size;
		int r;

		arena_init(&arena, 1u << 20);
		snprintf(ref, sizeof(ref), "w%u", w->i);
		if (w->i % 2) {
			r = fx->ops->remove(fx->self, &ctx, &digest, &err);
		} else {
			r = fx->ops->ingest_open(fx->self, &ctx, ref, 0, NULL, true, &ingest, &err);
			if (r == 0)
				r = fx->ops->ingest_write(fx->self, &ctx, ingest, 0, &piece, 1,
							  true, &err);
			if (r == 0)
				r = fx->ops->ingest_commit(fx->self, &ctx, ingest, &req, &digest,
							   &err);
			if (ingest)
				fx->ops->ingest_close(fx->self, ingest);
		}
		if (r < 0 && err.code != ERR_ALREADY_EXISTS)
			w->n_wrong++;
		r = fx->ops->blob_open(fx->self, &ctx, &digest, true, &blob, &size, &err);
		if (r == 0) {
			r = fx->ops->read_at(fx->self, blob, 0, buf, sizeof(buf), true, &err);
			if (r == 0 && memcmp(buf, bytes, sizeof(bytes)) != 0)
				w->n_wrong++;
			fx->ops->blob_close(fx->self, blob);
		}
		if (r < 0 && err.code != ERR_NOT_FOUND)
			w->n_wrong++;
		arena_done(&arena);
	}
	return NULL;
}

static void makers_and_removers_of_one_blob_agree(void **state)
{
	struct fixture *fx = *state;
	struct worker workers[N_THREADS];

	run_workers(fx, workers, make_and_remove);
	for (unsigned int i = 0; i < N_THREADS; i++)
		assert_int_equal(workers[i].n_wrong, 0);
	assert_int_equal(count_ingests(fx, ""), 0);
}

/* Writers and aborters of one reference: somebody may lose, nothing may break. */
static void *write_and_abort(void *arg)
{
	struct worker *w = arg;
	struct fixture *fx = w->fx;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		const struct iovec piece = {&round, sizeof(round)};
		struct ingest *ingest = NULL;
		struct arena arena;
		struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
		struct err err = ERR_INIT;
		int r;

		arena_init(&arena, 1u << 20);
		if (w->i % 2) {
			r = fx->ops->abort(fx->self, &ctx, "r", &err);
		} else {
			r = fx->ops->ingest_open(fx->self, &ctx, "r", 0, NULL, true, &ingest, &err);
			if (r == 0)
				r = fx->ops->ingest_write(fx->self, &ctx, ingest, 0, &piece, 1,
							  true, &err);
			if (ingest)
				fx->ops->ingest_close(fx->self, ingest);
		}
		if (r < 0 && err.code != ERR_ABORTED && err.code != ERR_UNAVAILABLE)
			w->n_wrong++;
		arena_done(&arena);
	}
	return NULL;
}

static void writers_and_aborters_of_one_reference_agree(void **state)
{
	struct fixture *fx = *state;
	struct worker workers[N_THREADS];

	run_workers(fx, workers, write_and_abort);
	for (unsigned int i = 0; i < N_THREADS; i++)
		assert_int_equal(workers[i].n_wrong, 0);
	assert_ok(fx->ops->abort(fx->self, &fx->ctx, "r", &fx->err), &fx->err);
	assert_int_equal(count_ingests(fx, ""), 0);
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */

int content_suite_run(const char *name, const struct content_suite *suite)
{
#define CASE(fn_)                                                                                  \
	{                                                                                          \
		.name = #fn_, .test_func = fn_, .setup_func = setup, .teardown_func = teardown,    \
		.initial_state = (void *)(uintptr_t)suite                                          \
	}
	const struct CMUnitTest cases[] = {
		CASE(a_new_ingest_holds_nothing),
		CASE(each_write_tells_offset_and_digest_so_far),
		CASE(large_writes_in_many_pieces_are_held),
		CASE(a_write_elsewhere_is_out_of_range_and_changes_nothing),
		CASE(offset_0_begins_anew),
		CASE(references_are_opaque_and_tell_apart),
		CASE(references_that_are_empty_or_too_long_are_refused),
		CASE(an_ingest_is_taken_up_where_it_stands),
		CASE(an_ingest_without_bytes_is_kept_too),
		CASE(another_total_begins_anew),
		CASE(a_total_told_later_is_kept),
		CASE(a_reference_has_one_writer_at_a_time),
		CASE(a_writer_waits_a_little_for_the_one_before_it),
		CASE(a_commit_makes_a_blob_that_stays),
		CASE(nothing_is_a_blob_too),
		CASE(a_commit_of_other_bytes_keeps_them),
		CASE(a_commit_of_what_is_there_ends_the_ingest),
		CASE(to_expect_what_is_there_ends_the_ingest),
		CASE(sha512_may_come_as_a_surprise),
		CASE(sha512_may_be_known_from_the_start),
		CASE(any_part_of_a_blob_can_be_read),
		CASE(a_reader_keeps_a_blob_that_is_removed),
		CASE(unknown_digests_are_not_found),
		CASE(a_removed_blob_stays_away),
		CASE(labels_of_a_commit_are_kept_and_go_with_the_blob),
		CASE(update_changes_what_the_mask_names),
		CASE(update_refuses_other_fields_and_changes_nothing),
		CASE(labels_stay_bounded_over_many_updates),
		CASE(walk_shows_what_passes_the_filters),
		CASE(walk_goes_on_behind_a_digest),
		CASE(walk_passes_on_the_failure_of_its_call_back),
		CASE(ingests_are_listed_open_or_not),
		CASE(an_aborted_ingest_is_forgotten),
		CASE(a_writer_is_told_of_an_abort),
		CASE(of_many_who_commit_the_same_one_makes_the_blob),
		CASE(makers_and_removers_of_one_blob_agree),
		CASE(writers_and_aborters_of_one_reference_agree),
	};

	return _cmocka_run_group_tests(name, cases, ARRAY_LEN(cases), NULL, NULL);
}
