/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service over a real socket: what requests become, what answers look like on the wire. That the
 * operations themselves do right is for tests/conformance.
 */
#include "content/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/labels.h"
#include "containerd/services/content/v1/content.pb-c.h"
#include "content/config.h"
#include "content/local.h"
#include "rpc/client.h"
#include "rpc/message.h"
#include "rpc/server.h"
#include "tests/support/content_server.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define MSG(name)    Containerd__Services__Content__V1__##name
#define INIT(name)   CONTAINERD__SERVICES__CONTENT__V1__##name##__INIT
#define TYPE(name)   (&containerd__services__content__v1__##name##__descriptor)
#define ACTION(name) CONTAINERD__SERVICES__CONTENT__V1__WRITE_ACTION__##name
#define METHOD(name) "/containerd.services.content.v1.Content/" name

#define EMPTY_SHA256 "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct fixture {
	struct temp_root *root;
	char *path;
	void *store;
	struct content_server *server;
	struct rpc_client *client;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static int setup(void **state)
{
	static const struct content_conf conf = {.adopt = true};
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->root = temp_root_new();
	fx->path = temp_root_path(fx->root, "socket");
	assert_ok(local_content_ops.open(fx->root->path, &conf, &fx->store, &fx->err), &fx->err);
	fx->server = content_server_start(fx->path, &local_content_ops, fx->store);
	assert_ok(rpc_client_new(fx->path, &fx->client, &fx->err), &fx->err);
	arena_init(&fx->arena, 256u << 20);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	rpc_client_free(fx->client);
	content_server_stop(fx->server);
	local_content_ops.close(fx->store);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx->path);
	free(fx);
	return 0;
}

static int library_teardown(void **state)
{
	(void)state;
	rpc_library_done();
	return 0;
}

/* --- calls ----------------------------------------------------------------------------------------------- */

static int call(struct fixture *fx, const char *method, const ProtobufCMessage *request,
		const ProtobufCMessageDescriptor *type, void *ret_response)
{
	ProtobufCMessage *response = NULL;
	int result = rpc_client_call(fx->client, &fx->ctx, method, NULL, 0, request, type,
				     &response, &fx->err);

	if (result == 0 && ret_response)
		memcpy(ret_response, &response, sizeof(response));
	return result;
}

static struct rpc_stream *begin(struct fixture *fx)
{
	struct rpc_stream *stream;

	assert_ok(rpc_stream_open(fx->client, &fx->ctx, METHOD("Write"), NULL, 0,
				  TYPE(write_content_response), &stream, &fx->err),
		  &fx->err);
	return stream;
}

/* Return: as rpc_stream_recv(). */
static int exchange(struct fixture *fx, struct rpc_stream *stream,
		    const MSG(WriteContentRequest) * request,
		    const MSG(WriteContentResponse) * *ret_response)
{
	ProtobufCMessage *msg = NULL;
	struct err ignored;
	int r;

	if (rpc_stream_send(stream, &request->base, &ignored) < 0)
		err_clear(&ignored);
	r = rpc_stream_recv(stream, &fx->arena, &msg, &fx->err);
	if (ret_response)
		*ret_response = (const void *)msg;
	return r;
}

static int ends(struct fixture *fx, struct rpc_stream *stream)
{
	ProtobufCMessage *msg;

	return rpc_stream_recv(stream, &fx->arena, &msg, &fx->err);
}

/* The ingest @ref holds @text afterwards. */
static void write_text(struct fixture *fx, struct rpc_stream *stream, const char *ref,
		       const char *text)
{
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	const MSG(WriteContentResponse) * response;

	request.action = ACTION(WRITE);
	request.ref = (char *)ref;
	request.data.data = (uint8_t *)(uintptr_t)text;
	request.data.len = strlen(text);
	assert_int_equal(exchange(fx, stream, &request, &response), 1);
	assert_int_equal(response->action, ACTION(WRITE));
	assert_int_equal(response->offset, strlen(text));
}

static int commit(struct fixture *fx, struct rpc_stream *stream, int64_t offset,
		  const MSG(WriteContentResponse) * *ret_response)
{
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);

	request.action = ACTION(COMMIT);
	request.offset = offset;
	return exchange(fx, stream, &request, ret_response);
}

static const char *add(struct fixture *fx, const char *text)
{
	struct rpc_stream *stream = begin(fx);
	const MSG(WriteContentResponse) * response;

	write_text(fx, stream, "add", text);
	assert_int_equal(commit(fx, stream, (int64_t)strlen(text), &response), 1);
	assert_int_equal(response->action, ACTION(COMMIT));
	assert_int_equal(response->offset, strlen(text));
	assert_int_equal(ends(fx, stream), 0);
	rpc_stream_free(stream);
	return response->digest;
}

/* --- Write ------------------------------------------------------------------------------------------------- */

static void a_stat_tells_where_an_ingest_stands(void **state)
{
	struct fixture *fx = *state;
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	const MSG(WriteContentResponse) * response;
	struct rpc_stream *stream = begin(fx);

	request.ref = (char *)"r";
	request.total = 77;
	assert_int_equal(exchange(fx, stream, &request, &response), 1);
	assert_int_equal(response->action, ACTION(STAT));
	assert_int_equal(response->offset, 0);
	assert_int_equal(response->total, 77);
	assert_string_equal(response->digest, EMPTY_SHA256);
	assert_true(response->started_at->seconds > 1500000000);
	assert_true(response->updated_at->seconds >= response->started_at->seconds);
	/* A half close ends it well. */
	assert_ok(rpc_stream_half_close(stream, &fx->err), &fx->err);
	assert_int_equal(ends(fx, stream), 0);
	rpc_stream_free(stream);
}

static void the_first_message_must_name_the_ingest(void **state)
{
	struct fixture *fx = *state;
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	struct rpc_stream *stream = begin(fx);

	assert_fails(exchange(fx, stream, &request, NULL), &fx->err, ERR_INVALID_ARGUMENT);
	rpc_stream_free(stream);
	stream = begin(fx);
	assert_ok(rpc_stream_half_close(stream, &fx->err), &fx->err);
	assert_fails(ends(fx, stream), &fx->err, ERR_INVALID_ARGUMENT);
	rpc_stream_free(stream);
}

static void bad_requests_are_told_so(void **state)
{
	struct fixture *fx = *state;
	MSG(WriteContentRequest) cases[5];
	static const enum err_code want[] = {ERR_INVALID_ARGUMENT, ERR_INVALID_ARGUMENT,
					     ERR_OUT_OF_RANGE, ERR_INVALID_ARGUMENT,
					     ERR_INVALID_ARGUMENT};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		containerd__services__content__v1__write_content_request__init(&cases[i]);
		cases[i].ref = (char *)"r";
		cases[i].action = ACTION(WRITE);
	}
	cases[0].total = -1;
	cases[1].expected = (char *)"sha256:1234";
	cases[2].offset = -1;
	cases[3].action = (MSG(WriteAction))7;
	cases[4].expected = (char *)"md5:d41d8cd98f00b204e9800998ecf8427e";
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rpc_stream *stream = begin(fx);

		assert_fails(exchange(fx, stream, &cases[i], NULL), &fx->err, want[i]);
		assert_contains(fx->err.msg, "write 'r': ");
		rpc_stream_free(stream);
	}
}

static void a_commit_may_bring_bytes_and_labels(void **state)
{
	struct fixture *fx = *state;
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	MSG(WriteContentRequest__LabelsEntry)
	kept = INIT(WRITE_CONTENT_REQUEST__LABELS_ENTRY),
	empty = INIT(WRITE_CONTENT_REQUEST__LABELS_ENTRY);
	MSG(WriteContentRequest__LabelsEntry) * labels[] = {&empty, &kept};
	MSG(InfoRequest) info_request = INIT(INFO_REQUEST);
	const MSG(WriteContentResponse) * response;
	const MSG(InfoResponse) * info;
	struct rpc_stream *stream = begin(fx);

	kept.key = (char *)"k";
	kept.value = (char *)"v";
	empty.key = (char *)"e";
	request.action = ACTION(COMMIT);
	request.ref = (char *)"r";
	request.data.data = (uint8_t *)(uintptr_t) "all at once";
	request.data.len = 11;
	request.labels = labels;
	request.n_labels = 2;
	assert_int_equal(exchange(fx, stream, &request, &response), 1);
	assert_int_equal(response->offset, 11);
	assert_int_equal(ends(fx, stream), 0);
	rpc_stream_free(stream);
	info_request.digest = response->digest;
	assert_ok(call(fx, METHOD("Info"), &info_request.base, TYPE(info_response), &info),
		  &fx->err);
	assert_int_equal(info->info->size, 11);
	assert_string_equal(info->info->digest, response->digest);
	assert_int_equal(info->info->n_labels, 1);
	assert_string_equal(info->info->labels[0]->key, "k");
	assert_true(info->info->created_at->seconds > 1500000000);
}

/* Also with a commit: as containerd's own has it, offset 0 drops what is held. */
static void a_commit_at_offset_0_begins_anew(void **state)
{
	struct fixture *fx = *state;
	const MSG(WriteContentResponse) * response;
	struct rpc_stream *stream = begin(fx);

	write_text(fx, stream, "r", "to be dropped");
	assert_int_equal(commit(fx, stream, 0, &response), 1);
	assert_int_equal(response->offset, 0);
	assert_string_equal(response->digest, EMPTY_SHA256);
	rpc_stream_free(stream);
}

static void a_commit_of_what_is_there_says_so_after_telling_its_digest(void **state)
{
	struct fixture *fx = *state;
	const char *digest = add(fx, "twice");
	MSG(WriteContentRequest) request = INIT(WRITE_CONTENT_REQUEST);
	const MSG(WriteContentResponse) * response;
	struct rpc_stream *stream = begin(fx);

	request.action = ACTION(WRITE);
	request.ref = (char *)"r";
	request.data.data = (uint8_t *)(uintptr_t) "twice";
	request.data.len = 5;
	assert_int_equal(exchange(fx, stream, &request, &response), 1);
	assert_string_equal(response->digest, digest);
	assert_fails(commit(fx, stream, 5, NULL), &fx->err, ERR_ALREADY_EXISTS);
	rpc_stream_free(stream);
	/* To say at the start what it is to be ends at once. */
	request.action = ACTION(STAT);
	request.expected = (char *)digest;
	stream = begin(fx);
	assert_fails(exchange(fx, stream, &request, NULL), &fx->err, ERR_ALREADY_EXISTS);
	rpc_stream_free(stream);
}

static bool is_free(void *arg)
{
	struct fixture *fx = arg;
	struct ingest *ingest;

	if (local_content_ops.ingest_open(fx->store, &fx->ctx, "r", 0, NULL, true, &ingest,
					  &fx->err) < 0)
		return false;
	local_content_ops.ingest_close(fx->store, ingest);
	return true;
}

static void a_cancelled_stream_keeps_its_bytes_and_frees_the_reference(void **state)
{
	struct fixture *fx = *state;
	MSG(StatusRequest) request = INIT(STATUS_REQUEST);
	const MSG(StatusResponse) * response;
	struct rpc_stream *stream = begin(fx);

	write_text(fx, stream, "r", "five5");
	rpc_stream_free(stream);
	wait_until(is_free, fx, "the end of the stream");
	request.ref = (char *)"r";
	assert_ok(call(fx, METHOD("Status"), &request.base, TYPE(status_response), &response),
		  &fx->err);
	assert_string_equal(response->status->ref, "r");
	assert_int_equal(response->status->offset, 5);
}

/* --- Read ---------------------------------------------------------------------------------------------------- */

/* Reads as asked. Return: how many bytes came, in @buf; or -1. @ret_n: of messages. */
static int64_t read_all(struct fixture *fx, const char *digest, int64_t offset, int64_t size,
			uint8_t *buf, unsigned int *ret_n)
{
	MSG(ReadContentRequest) request = INIT(READ_CONTENT_REQUEST);
	struct rpc_stream *stream;
	ProtobufCMessage *msg;
	int64_t done = 0;
	int r;

	request.digest = (char *)digest;
	request.offset = offset;
	request.size = size;
	assert_ok(rpc_stream_open(fx->client, &fx->ctx, METHOD("Read"), NULL, 0,
				  TYPE(read_content_response), &stream, &fx->err),
		  &fx->err);
	assert_ok(rpc_stream_send(stream, &request.base, &fx->err), &fx->err);
	*ret_n = 0;
	while ((r = rpc_stream_recv(stream, &fx->arena, &msg, &fx->err)) == 1) {
		const MSG(ReadContentResponse) *response = (const void *)msg;

		/* It counts from where this read began. */
		assert_int_equal(response->offset, done);
		assert_true(response->data.len <= 1u << 20);
		memcpy(buf + done, response->data.data, response->data.len);
		done += (int64_t)response->data.len;
		(*ret_n)++;
	}
	rpc_stream_free(stream);
	return r < 0 ? -1 : done;
}

static void reads_take_offset_and_size_as_containerds_own(void **state)
{
	struct fixture *fx = *state;
	const char *digest = add(fx, "0123456789");
	static const struct {
		int64_t offset, size, from, n;
	} cases[] = {
		{0, 0, 0, 10},
		{0, -1, 0, 10},
		{-7, 3, 0, 3},
		{4, 3, 4, 3},
		{4, 0, 4, 6},
		{4, 99, 4, 6},
		{9, 1, 9, 1},
		{10, 0, 0, 0},
		{10, 5, 0, 0},
		{0, INT64_MAX, 0, 10},
		{INT64_MIN, INT64_MIN, 0, 10},
	};

	/* Twice: what is not open yet takes another way. */
	for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
		size_t c = i % ARRAY_LEN(cases);
		unsigned int n_messages;
		uint8_t buf[16];

		assert_int_equal(read_all(fx, digest, cases[c].offset, cases[c].size, buf,
					  &n_messages),
				 cases[c].n);
		assert_int_equal(n_messages, cases[c].n ? 1 : 0);
		assert_memory_equal(buf, &"0123456789"[cases[c].from], (size_t)cases[c].n);
	}
}

static void reads_that_cannot_be_are_told_why(void **state)
{
	struct fixture *fx = *state;
	const char *digest = add(fx, "0123456789");
	unsigned int n;
	uint8_t buf[16];

	for (int i = 0; i < 2; i++) {
		assert_int_equal(read_all(fx, digest, 11, 0, buf, &n), -1);
		assert_int_equal(fx->err.code, ERR_OUT_OF_RANGE);
		assert_int_equal(read_all(fx, "sha256:../../etc/passwd", 0, 0, buf, &n), -1);
		assert_int_equal(fx->err.code, ERR_INVALID_ARGUMENT);
		assert_int_equal(read_all(fx, "", 0, 0, buf, &n), -1);
		assert_int_equal(fx->err.code, ERR_INVALID_ARGUMENT);
		assert_int_equal(read_all(fx, EMPTY_SHA256, 0, 0, buf, &n), -1);
		assert_int_equal(fx->err.code, ERR_NOT_FOUND);
		assert_int_equal(read_all(fx, digest, 0, 0, buf, &n), 10);
	}
}

static void large_blobs_come_in_many_messages(void **state)
{
	struct fixture *fx = *state;
	const size_t size = 5000001;
	char *text = malloc(size + 1);
	uint8_t *buf = malloc(size);
	char digest[DIGEST_TEXT_BYTES];
	unsigned int n;

	for (size_t i = 0; i < size; i++)
		text[i] = (char)('a' + (i * 7 + i / 1000) % 26);
	text[size] = '\0';
	/* A copy: the arena is emptied below. */
	strcpy(digest, add(fx, text));
	assert_int_equal(read_all(fx, digest, 0, 0, buf, &n), size);
	assert_memory_equal(buf, text, size);
	assert_true(n >= 5);
	/* As the walking differ does. */
	for (size_t at = 0; at < size; at += 32768) {
		int64_t got = read_all(fx, digest, (int64_t)at, 32768, buf, &n);

		assert_int_equal(got, size - at < 32768 ? size - at : 32768);
		assert_memory_equal(buf, text + at, (size_t)got);
		arena_done(&fx->arena);
	}
	free(buf);
	free(text);
}

/* --- the rest ------------------------------------------------------------------------------------------------- */

static void digests_that_are_none_are_refused(void **state)
{
	static const char *const wrong[] = {
		"",
		"sha256",
		"sha256:",
		"sha256:ab",
		"md5:d41d8cd98f00b204e9800998ecf8427e",
		"sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
		"sha256:../../../../../../../../../../../../../../../../../../../etc/passwd.",
	};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		MSG(InfoRequest) info = INIT(INFO_REQUEST);
		MSG(DeleteContentRequest) delete = INIT(DELETE_CONTENT_REQUEST);
		MSG(UpdateRequest) update = INIT(UPDATE_REQUEST);
		MSG(Info) updated = INIT(INFO);

		info.digest = (char *)(uintptr_t)wrong[i];
		delete.digest = (char *)(uintptr_t)wrong[i];
		updated.digest = (char *)(uintptr_t)wrong[i];
		update.info = &updated;
		assert_fails(call(fx, METHOD("Info"), &info.base, TYPE(info_response), NULL),
			     &fx->err, ERR_INVALID_ARGUMENT);
		assert_fails(call(fx, METHOD("Delete"), &delete.base, MESSAGE_EMPTY_TYPE, NULL),
			     &fx->err, ERR_INVALID_ARGUMENT);
		assert_fails(call(fx, METHOD("Update"), &update.base, TYPE(update_response), NULL),
			     &fx->err, ERR_INVALID_ARGUMENT);
	}
}

static void update_without_info_and_bad_filters_are_refused(void **state)
{
	struct fixture *fx = *state;
	MSG(UpdateRequest) update = INIT(UPDATE_REQUEST);
	MSG(ListStatusesRequest) statuses = INIT(LIST_STATUSES_REQUEST);
	char *filters[] = {(char *)"ref=="};

	assert_fails(call(fx, METHOD("Update"), &update.base, TYPE(update_response), NULL),
		     &fx->err, ERR_INVALID_ARGUMENT);
	statuses.filters = filters;
	statuses.n_filters = 1;
	assert_fails(call(fx, METHOD("ListStatuses"), &statuses.base, TYPE(list_statuses_response),
			  NULL),
		     &fx->err, ERR_INVALID_ARGUMENT);
}

static void delete_and_abort_of_the_unknown_are_fine(void **state)
{
	struct fixture *fx = *state;
	MSG(DeleteContentRequest) delete = INIT(DELETE_CONTENT_REQUEST);
	MSG(AbortRequest) abort_request = INIT(ABORT_REQUEST);
	MSG(StatusRequest) status = INIT(STATUS_REQUEST);

	delete.digest = (char *)EMPTY_SHA256;
	assert_ok(call(fx, METHOD("Delete"), &delete.base, MESSAGE_EMPTY_TYPE, NULL), &fx->err);
	abort_request.ref = (char *)"unknown";
	assert_ok(call(fx, METHOD("Abort"), &abort_request.base, MESSAGE_EMPTY_TYPE, NULL),
		  &fx->err);
	status.ref = (char *)"unknown";
	assert_fails(call(fx, METHOD("Status"), &status.base, TYPE(status_response), NULL),
		     &fx->err, ERR_NOT_FOUND);
}

static void lists_come_in_pages(void **state)
{
	struct fixture *fx = *state;
	MSG(ListContentRequest) request = INIT(LIST_CONTENT_REQUEST);
	struct rpc_stream *stream;
	ProtobufCMessage *msg;
	unsigned int n = 0, n_messages = 0;
	char text[16];
	int r;

	for (int i = 0; i < 250; i++) {
		snprintf(text, sizeof(text), "blob %d", i);
		add(fx, text);
	}
	assert_ok(rpc_stream_open(fx->client, &fx->ctx, METHOD("List"), NULL, 0,
				  TYPE(list_content_response), &stream, &fx->err),
		  &fx->err);
	assert_ok(rpc_stream_send(stream, &request.base, &fx->err), &fx->err);
	while ((r = rpc_stream_recv(stream, &fx->arena, &msg, &fx->err)) == 1) {
		n += (unsigned int)((const MSG(ListContentResponse) *)(const void *)msg)->n_info;
		n_messages++;
	}
	assert_int_equal(r, 0);
	assert_int_equal(n, 250);
	assert_int_equal(n_messages, 3);
	rpc_stream_free(stream);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_stat_tells_where_an_ingest_stands),
		TEST(the_first_message_must_name_the_ingest),
		TEST(bad_requests_are_told_so),
		TEST(a_commit_may_bring_bytes_and_labels),
		TEST(a_commit_at_offset_0_begins_anew),
		TEST(a_commit_of_what_is_there_says_so_after_telling_its_digest),
		TEST(a_cancelled_stream_keeps_its_bytes_and_frees_the_reference),
		TEST(reads_take_offset_and_size_as_containerds_own),
		TEST(reads_that_cannot_be_are_told_why),
		TEST(large_blobs_come_in_many_messages),
		TEST(digests_that_are_none_are_refused),
		TEST(update_without_info_and_bad_filters_are_refused),
		TEST(delete_and_abort_of_the_unknown_are_fine),
		TEST(lists_come_in_pages),
	};

	return cmocka_run_group_tests(tests, NULL, library_teardown);
}
