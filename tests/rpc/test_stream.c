/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming calls of both kinds. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/server_internal.h"
#include "tests/rpc/rig.h"

/* One message of the stream, which must have one. */
static Note *next(struct rpc_stream *stream, struct arena *arena)
{
	ProtobufCMessage *msg;
	struct err err;
	int r = rpc_stream_recv(stream, arena, &msg, &err);

	if (r != 1)
		fail_msg("no message: %s", r < 0 ? err.msg : "end of the stream");
	return (Note *)msg;
}

static void say(struct rpc_stream *stream, const char *text)
{
	Note note = LIGHTER__TEST__NOTE__INIT;
	struct err err;

	note.text = (char *)text;
	assert_ok(rpc_stream_send(stream, &note.base, &err), &err);
}

static void ends_well(struct rpc_stream *stream, struct arena *arena)
{
	ProtobufCMessage *msg;
	struct err err;
	int r = rpc_stream_recv(stream, arena, &msg, &err);

	if (r != 0)
		fail_msg("no end: %s", r < 0 ? err.msg : "a message");
}

static void server_stream_sends_all_and_ends(void **state)
{
	static const int64_t ns[] = {0, 1, 1000};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_LEN(ns); i++) {
		Note request = LIGHTER__TEST__NOTE__INIT;
		struct rpc_stream *stream;
		struct caller caller;

		caller_init(&caller);
		request.number = ns[i];
		request.size = 100;
		stream = rig_ask(rig, &caller, "Count", &request);
		for (int64_t n = 0; n < ns[i]; n++)
			assert_int_equal(next(stream, &caller.arena)->number, n);
		ends_well(stream, &caller.arena);
		ends_well(stream, &caller.arena);
		rpc_stream_free(stream);
		caller_done(&caller);
		rig_wait(&rig->n_closed, (unsigned int)i + 1, "close()");
		rig_wait(&rig->n_ended[ERR_OK], (unsigned int)i + 1, "the observer");
	}
}

static void server_stream_sends_large_messages(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;

	caller_init(&caller);
	request.number = 4;
	request.size = RPC_MAX_MESSAGE_BYTES - 64;
	stream = rig_ask(rig, &caller, "Count", &request);
	for (int64_t n = 0; n < request.number; n++) {
		struct arena arena;
		Note *note;

		arena_init(&arena, 64 << 20);
		note = next(stream, &arena);
		assert_int_equal(note->number, n);
		assert_int_equal(note->data.len, request.size);
		arena_done(&arena);
	}
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	caller_done(&caller);
}

static void stream_fails_with_the_handlers_error(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;

	caller_init(&caller);
	request.text = (char *)"fail";
	stream = rig_ask(rig, &caller, "Count", &request);
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err, ERR_ABORTED);
	assert_string_equal(err.msg, "as you wish");
	rpc_stream_free(stream);

	stream = rig_open(rig, &caller, "Chat");
	say(stream, "fail");
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err, ERR_ABORTED);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 2, "close()");
	assert_int_equal(rig->n_opened, 2);
	assert_int_equal(rig->n_half_closed, 0);
}

static void bad_requests_never_reach_the_handler(void **state)
{
	RawNote raw = LIGHTER__TEST__RAW_NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;

	caller_init(&caller);
	raw.text.data = (uint8_t *)"\xff";
	raw.text.len = 1;
	stream = rig_open(rig, &caller, "Count");
	assert_ok(rpc_stream_send(stream, &raw.base, &err), &err);
	assert_ok(rpc_stream_half_close(stream, &err), &err);
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err,
		     ERR_INVALID_ARGUMENT);
	rpc_stream_free(stream);
	assert_int_equal(rig->n_opened, 0);

	stream = rig_open(rig, &caller, "Chat");
	assert_ok(rpc_stream_send(stream, &raw.base, &err), &err);
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err,
		     ERR_INVALID_ARGUMENT);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
	assert_int_equal(rig->n_messages, 0);
}

static void bidi_stream_talks_both_ways(void **state)
{
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;

	caller_init(&caller);
	stream = rig_open(rig, &caller, "Chat");
	say(stream, "one");
	assert_string_equal(next(stream, &caller.arena)->text, "one");
	say(stream, "twice");
	say(stream, "three");
	assert_string_equal(next(stream, &caller.arena)->text, "twice");
	assert_string_equal(next(stream, &caller.arena)->text, "twice");
	assert_string_equal(next(stream, &caller.arena)->text, "three");
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
	assert_int_equal(rig->n_half_closed, 0);
	rig_wait(&rig->n_ended[ERR_CANCELLED], 1, "the observer");
}

static void half_close_comes_after_the_messages(void **state)
{
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;

	caller_init(&caller);
	stream = rig_open(rig, &caller, "Chat");
	for (int i = 0; i < 100; i++)
		say(stream, "hello");
	assert_ok(rpc_stream_half_close(stream, &err), &err);
	for (int i = 0; i < 100; i++)
		assert_string_equal(next(stream, &caller.arena)->text, "hello");
	assert_string_equal(next(stream, &caller.arena)->text, "bye");
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
	assert_int_equal(rig->n_half_closed, 1);
}

static void server_may_finish_first(void **state)
{
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note note = LIGHTER__TEST__NOTE__INIT;

	caller_init(&caller);
	stream = rig_open(rig, &caller, "Chat");
	say(stream, "finish");
	assert_string_equal(next(stream, &caller.arena)->text, "finish");
	ends_well(stream, &caller.arena);
	assert_fails(rpc_stream_send(stream, &note.base, &err), &err, ERR_CANCELLED);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
	rig_wait(&rig->n_ended[ERR_OK], 1, "the observer");
	assert_int_equal(rig->n_half_closed, 0);
}

static void streams_end_at_their_deadline(void **state)
{
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;

	caller_init(&caller);
	caller.ctx.deadline_ns = monotonic_ns() + 100 * INT64_C(1000000);
	stream = rig_open(rig, &caller, "Hold");
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err,
		     ERR_DEADLINE_EXCEEDED);
	rpc_stream_free(stream);
	caller_done(&caller);
	wait_until(rig_is_quiet, rig, "the server's end of the call");
	assert_int_equal(rig->n_opened, rig->n_closed);
}

static void slow_reader_holds_only_its_queue(void **state)
{
	const struct rpc_server_options options = {.max_queue_bytes = 1 << 20};
	const size_t size = 64 << 10;
	const int64_t n = 512;
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;

	rig_stop(rig, 0);
	rig_start(rig, &options);
	caller_init(&caller);
	request.number = n;
	request.size = (int64_t)size;
	stream = rig_ask(rig, &caller, "Count", &request);
	rig_wait(&rig->n_blocked, 1, "the full queue");
	/* What was taken from the handler is in the queue, or in gRPC's windows and the socket. */
	assert_true(atomic_load(&rig->most_sent) < (uint64_t)n * size / 2);
	for (int64_t i = 0; i < n; i++) {
		struct arena arena;

		arena_init(&arena, 1 << 20);
		assert_int_equal(next(stream, &arena)->number, i);
		arena_done(&arena);
	}
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	caller_done(&caller);
}

static void handler_that_floods_is_stopped(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;

	caller_init(&caller);
	request.size = 1 << 20;
	stream = rig_ask(rig, &caller, "Flood", &request);
	/* Nothing is read: the queue fills, sending fails, and the failure waits behind the queue. */
	rig_wait(&rig->n_flooded, 1, "the end of the flood");
	assert_in_range(rig->most_sent, 60u << 20, 80u << 20);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
	wait_until(rig_is_quiet, rig, "the end of the call");
	assert_int_equal(rig->server->queued_bytes, 0);
}

static void client_that_does_not_read_is_given_up(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;

	caller_init(&caller);
	request.number = 512;
	request.size = 1 << 20;
	stream = rig_ask(rig, &caller, "Count", &request);
	rig_wait(&rig->n_blocked, 1, "the full queue");
	server_cancel_stalled(rig->server, monotonic_ns());
	assert_int_equal(rig->n_closed, 0);
	server_cancel_stalled(rig->server, monotonic_ns() + STALL_NS);
	rig_wait(&rig->n_closed, 1, "close()");
	wait_until(rig_is_quiet, rig, "the end of the call");
	assert_int_equal(rig->server->queued_bytes, 0);
	rpc_stream_free(stream);
	caller_done(&caller);
}

static void reader_is_served_beside_many_who_do_not_read(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;
	Note *note;

	caller_init(&caller);
	/* As if others had left so much unread. */
	atomic_fetch_add(&rig->server->queued_bytes, QUEUED_BYTES_MAX);
	request.text = (char *)"hello";
	assert_ok(rig_call(rig, &caller, "Echo", &request.base, &note, &err), &err);
	request.number = 50;
	request.size = 128 << 10;
	stream = rig_ask(rig, &caller, "Count", &request);
	for (int64_t i = 0; i < request.number; i++) {
		struct arena arena;

		arena_init(&arena, 1 << 20);
		assert_int_equal(next(stream, &arena)->number, i);
		arena_done(&arena);
	}
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);

	/* What is no small answer has to wait for better times. */
	request.size = 1 << 20;
	stream = rig_ask(rig, &caller, "Count", &request);
	assert_int_equal(rpc_stream_recv(stream, &caller.arena, &msg, &err), -1);
	assert_int_equal(err.code, ERR_RESOURCE_EXHAUSTED);
	rpc_stream_free(stream);
	wait_until(rig_is_quiet, rig, "the end of the calls");
	atomic_fetch_sub(&rig->server->queued_bytes, QUEUED_BYTES_MAX);
	assert_int_equal(rig->server->queued_bytes, 0);
	caller_done(&caller);
}

static void client_that_does_not_read_is_given_up_sooner_in_a_crowd(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;

	caller_init(&caller);
	request.number = 512;
	request.size = 1 << 20;
	stream = rig_ask(rig, &caller, "Count", &request);
	rig_wait(&rig->n_blocked, 1, "the full queue");
	server_cancel_stalled(rig->server, monotonic_ns() + CROWDED_STALL_NS);
	assert_int_equal(rig->n_closed, 0);
	atomic_fetch_add(&rig->server->queued_bytes, QUEUED_BYTES_MAX / 2);
	server_cancel_stalled(rig->server, monotonic_ns() + CROWDED_STALL_NS);
	rig_wait(&rig->n_closed, 1, "close()");
	wait_until(rig_is_quiet, rig, "the end of the call");
	assert_int_equal(rig->server->queued_bytes, QUEUED_BYTES_MAX / 2);
	rpc_stream_free(stream);
	caller_done(&caller);
}

#define N_THREADS 8
#define N_CANCELS 125

/* Calls of every kind, left at some point or other. */
static void *cancel_often(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)pthread_self();
	static const char *const methods[] = {NULL, METHOD("Chat"), METHOD("Count"),
					      METHOD("Brisk")};
	struct rig *rig = arg;

	for (int i = 0; i < N_CANCELS; i++) {
		unsigned int dice = (unsigned int)rand_r(&seed);
		Note request = LIGHTER__TEST__NOTE__INIT;
		struct rpc_stream *stream = NULL;
		struct caller caller;
		ProtobufCMessage *msg;
		struct err err;
		Note *note;
		int r;

		caller_init(&caller);
		request.number = 100;
		request.size = 100000;
		if (dice % 3 == 0) {
			caller.ctx.deadline_ns = monotonic_ns() + dice / 3 % 3000 * 1000;
			r = rig_call(rig, &caller, "Wait", &request.base, &note, &err);
			assert_int_equal(r, -1);
			if (err.code != ERR_DEADLINE_EXCEEDED && err.code != ERR_CANCELLED)
				fail_msg("%s: %s", err_code_name(err.code), err.msg);
			caller_done(&caller);
			continue;
		}
		if (dice / 12 % 3 == 0)
			request.text = (char *)"slowly";
		r = rpc_stream_open(rig->client, &caller.ctx, methods[dice % 3 + dice / 36 % 2],
				    NULL, 0, &lighter__test__note__descriptor, &stream, &err);
		assert_int_equal(r, 0);
		if (dice / 3 % 4 > 0)
			r = rpc_stream_send(stream, &request.base, &err);
		if (r == 0 && dice / 3 % 4 > 1)
			r = rpc_stream_half_close(stream, &err);
		if (r == 0 && dice / 3 % 4 > 2)
			r = rpc_stream_recv(stream, &caller.arena, &msg, &err);
		if (r < 0)
			fail_msg("%s: %s", err_code_name(err.code), err.msg);
		rpc_stream_free(stream);
		caller_done(&caller);
	}
	return NULL;
}

static void survives_a_thousand_random_cancels(void **state)
{
	struct rig *rig = *state;
	pthread_t threads[N_THREADS];

	for (size_t i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, cancel_often, rig), 0);
	for (size_t i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	wait_until(rig_is_quiet, rig, "the end of all calls");
	assert_int_equal(rig->n_opened, rig->n_closed);
	assert_int_equal(rig->n_waiting, 0);
	assert_int_equal(rig->server->queued_bytes, 0);
}

#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, rig_setup, rig_teardown)

static Note *ask_in_pieces(struct rpc_stream *stream, struct arena *arena, const char *text,
			   size_t n_bytes)
{
	Note note = LIGHTER__TEST__NOTE__INIT;
	struct err err;

	note.text = (char *)text;
	note.data.len = n_bytes;
	note.data.data = malloc(n_bytes + 1);
	for (size_t i = 0; i < n_bytes; i++)
		note.data.data[i] = (uint8_t)(i * 7 + i / 251);
	assert_ok(rpc_stream_send(stream, &note.base, &err), &err);
	{
		Note *answer = next(stream, arena);

		assert_int_equal(answer->data.len, n_bytes);
		assert_memory_equal(answer->data.data, note.data.data, n_bytes);
		free(note.data.data);
		return answer;
	}
}

static void bytes_field_arrives_undecoded_and_whole(void **state)
{
	struct rig *rig = *state;
	struct rpc_stream *stream;
	struct caller caller;
	struct err err;

	caller_init(&caller);
	stream = rig_open(rig, &caller, "Pieces");
	assert_int_equal(ask_in_pieces(stream, &caller.arena, "none", 0)->number, 0);
	assert_int_equal(ask_in_pieces(stream, &caller.arena, "little", 10)->number, 1);
	/* As much as a message may hold; gRPC gives it out in many. */
	assert_true(ask_in_pieces(stream, &caller.arena, "much", (16u << 20) - 100)->number > 10);
	assert_string_equal(ask_in_pieces(stream, &caller.arena, "again", 100)->text, "again");
	assert_ok(rpc_stream_half_close(stream, &err), &err);
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
}

static void malformed_message_with_a_bytes_field_is_refused(void **state)
{
	Lighter__Test__RawNote raw = LIGHTER__TEST__RAW_NOTE__INIT;
	struct rig *rig = *state;
	struct rpc_stream *stream;
	ProtobufCMessage *msg;
	struct caller caller;
	struct err err;

	caller_init(&caller);
	stream = rig_open(rig, &caller, "Pieces");
	raw.text.data = (uint8_t *)"\xff";
	raw.text.len = 1;
	raw.data.data = (uint8_t *)"bytes";
	raw.data.len = 5;
	assert_ok(rpc_stream_send(stream, &raw.base, &err), &err);
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err,
		     ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "'text'");
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
}

static void quick_answers_come_without_opening_anything(void **state)
{
	static const int64_t sizes[] = {0, 1, 127, 128, 32768, 100000, 262144, 1000000};
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct rpc_stream *stream;
		struct caller caller;

		caller_init(&caller);
		request.text = (char *)"quickly";
		request.size = sizes[i];
		stream = rig_ask(rig, &caller, "Quick", &request);
		assert_int_equal(next(stream, &caller.arena)->data.len, sizes[i]);
		ends_well(stream, &caller.arena);
		rpc_stream_free(stream);
		caller_done(&caller);
	}
	rig_wait(&rig->n_ended[ERR_OK], ARRAY_LEN(sizes), "the observer");
	assert_int_equal(rig->n_opened, 0);
	assert_true(rig->bytes_out > 1000000);
}

static void quick_may_answer_nothing_or_fail(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct rpc_stream *stream;
	ProtobufCMessage *msg;
	struct caller caller;
	struct err err;

	caller_init(&caller);
	request.text = (char *)"none";
	stream = rig_ask(rig, &caller, "Quick", &request);
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	request.text = (char *)"fail";
	stream = rig_ask(rig, &caller, "Quick", &request);
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err, ERR_ABORTED);
	assert_contains(err.msg, "as you wish");
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_ended[ERR_ABORTED], 1, "the observer");
	assert_int_equal(rig->n_opened, 0);
}

static void what_is_not_quick_goes_on_as_a_stream(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct rpc_stream *stream;
	struct caller caller;

	caller_init(&caller);
	request.text = (char *)"slowly";
	request.number = 20;
	request.size = 262144;
	stream = rig_ask(rig, &caller, "Quick", &request);
	for (int i = 0; i < 20; i++)
		assert_int_equal(next(stream, &caller.arena)->data.len, 262144);
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
	/* All that was kept for it is accounted for. */
	wait_until(rig_is_quiet, rig, "the end of the call");
	assert_int_equal(atomic_load(&rig->server->queued_bytes), 0);
}

static void a_method_may_have_a_queue_of_its_own(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct rpc_stream *stream;
	struct caller caller;

	caller_init(&caller);
	request.size = 3000;
	stream = rig_ask(rig, &caller, "Narrow", &request);
	for (int i = 0; i < 4; i++)
		assert_int_equal(next(stream, &caller.arena)->number, i);
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 1, "close()");
}

/* Small messages are answered on the poller, large ones and those that have to wait by a worker, all in their order. */
static void messages_may_be_served_without_a_worker(void **state)
{
	Note large = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;

	caller_init(&caller);
	stream = rig_open(rig, &caller, "Brisk");
	say(stream, "one");
	assert_string_equal(next(stream, &caller.arena)->text, "one");
	assert_int_equal(rig->n_brisk, 1);
	say(stream, "slowly");
	assert_string_equal(next(stream, &caller.arena)->text, "slowly");
	assert_int_equal(rig->n_brisk, 1);
	/* From then on all of them are the workers'. */
	say(stream, "two");
	assert_string_equal(next(stream, &caller.arena)->text, "two");
	assert_int_equal(rig->n_brisk, 1);
	rpc_stream_free(stream);

	stream = rig_open(rig, &caller, "Brisk");
	large.text = (char *)"large";
	large.data.len = INLINE_MAX_BYTES;
	large.data.data = calloc(1, large.data.len);
	assert_non_null(large.data.data);
	assert_ok(rpc_stream_send(stream, &large.base, &err), &err);
	assert_int_equal(next(stream, &caller.arena)->data.len, INLINE_MAX_BYTES);
	free(large.data.data);
	assert_int_equal(rig->n_brisk, 1);
	/* Many without waiting: they come back in their order, whoever serves them. */
	for (int i = 0; i < 100; i++)
		say(stream, i == 50 ? "slowly" : "twice");
	for (int i = 0; i < 100; i++)
		for (int k = 0; k < (i == 50 ? 1 : 2); k++)
			assert_string_equal(next(stream, &caller.arena)->text,
					    i == 50 ? "slowly" : "twice");
	/* What comes while a worker is at it is that one's. */
	assert_in_range(rig->n_brisk, 1, 51);
	assert_ok(rpc_stream_half_close(stream, &err), &err);
	assert_string_equal(next(stream, &caller.arena)->text, "bye");
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);

	stream = rig_open(rig, &caller, "Brisk");
	say(stream, "finish");
	assert_string_equal(next(stream, &caller.arena)->text, "finish");
	ends_well(stream, &caller.arena);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 3, "close()");
	assert_int_equal(rig->n_opened, 3);
}

static void brisk_messages_may_fail(void **state)
{
	RawNote raw = LIGHTER__TEST__RAW_NOTE__INIT;
	struct rpc_stream *stream;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;

	caller_init(&caller);
	stream = rig_open(rig, &caller, "Brisk");
	say(stream, "fail");
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err, ERR_ABORTED);
	rpc_stream_free(stream);
	/* No UTF-8: the handler never sees it. */
	stream = rig_open(rig, &caller, "Brisk");
	raw.text.data = (uint8_t *)"\xff";
	raw.text.len = 1;
	assert_ok(rpc_stream_send(stream, &raw.base, &err), &err);
	assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err,
		     ERR_INVALID_ARGUMENT);
	rpc_stream_free(stream);
	caller_done(&caller);
	rig_wait(&rig->n_closed, 2, "close()");
	assert_int_equal(rig->n_messages, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(server_stream_sends_all_and_ends),
		TEST(server_stream_sends_large_messages),
		TEST(stream_fails_with_the_handlers_error),
		TEST(bad_requests_never_reach_the_handler),
		TEST(bidi_stream_talks_both_ways),
		TEST(half_close_comes_after_the_messages),
		TEST(server_may_finish_first),
		TEST(streams_end_at_their_deadline),
		TEST(slow_reader_holds_only_its_queue),
		TEST(handler_that_floods_is_stopped),
		TEST(client_that_does_not_read_is_given_up),
		TEST(reader_is_served_beside_many_who_do_not_read),
		TEST(client_that_does_not_read_is_given_up_sooner_in_a_crowd),
		TEST(survives_a_thousand_random_cancels),
		TEST(bytes_field_arrives_undecoded_and_whole),
		TEST(malformed_message_with_a_bytes_field_is_refused),
		TEST(quick_answers_come_without_opening_anything),
		TEST(quick_may_answer_nothing_or_fail),
		TEST(what_is_not_quick_goes_on_as_a_stream),
		TEST(messages_may_be_served_without_a_worker),
		TEST(brisk_messages_may_fail),
		TEST(a_method_may_have_a_queue_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, rig_library_teardown);
}
