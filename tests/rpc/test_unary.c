/* SPDX-License-Identifier: Apache-2.0 */
/* Unary calls: what is answered, and what is refused. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/rpc/raw.h"
#include "tests/rpc/rig.h"

static void answers_with_what_was_sent(void **state)
{
	static const char *const names[] = {"Echo", "Work"};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		Lighter__Test__Note__LabelsEntry label = LIGHTER__TEST__NOTE__LABELS_ENTRY__INIT;
		Lighter__Test__Note__LabelsEntry *labels[] = {&label};
		Note request = LIGHTER__TEST__NOTE__INIT;
		struct caller caller;
		struct err err;
		Note *note;

		label.key = (char *)"containerd.io/snapshot.ref";
		label.value = (char *)"\xc3\xa4";
		request.text = (char *)"text";
		request.labels = labels;
		request.n_labels = 1;
		request.number = -1;
		caller_init(&caller);
		assert_ok(rig_call(rig, &caller, names[i], &request.base, &note, &err), &err);
		assert_string_equal(note->text, "text");
		assert_string_equal(note->labels[0]->value, "\xc3\xa4");
		assert_int_equal(note->number, -1);
		caller_done(&caller);
	}
}

static void passes_namespace_and_deadline(void **state)
{
	const struct rpc_metadata headers[] = {{"x-unknown", "1"},
					       {"containerd-namespace", "k8s.io"}};
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;
	Note *note;

	caller_init(&caller);
	request.text = (char *)"namespace?";
	assert_ok(rpc_client_call(rig->client, &caller.ctx, METHOD("Echo"), headers, 2,
				  &request.base, &lighter__test__note__descriptor, &msg, &err),
		  &err);
	assert_string_equal(((Note *)msg)->text, "k8s.io");
	assert_ok(rig_call(rig, &caller, "Work", &request.base, &note, &err), &err);
	assert_string_equal(note->text, "");

	request.text = (char *)"deadline?";
	assert_ok(rig_call(rig, &caller, "Work", &request.base, &note, &err), &err);
	/* gRPC rounds a timeout up for the wire. */
	assert_in_range(note->number, 1, PATIENCE_NS + PATIENCE_NS / 10);
	caller.ctx.deadline_ns = CTX_NO_DEADLINE;
	assert_ok(rig_call(rig, &caller, "Work", &request.base, &note, &err), &err);
	assert_int_equal(note->number, 0);
	caller_done(&caller);
}

static void carries_every_status(void **state)
{
	struct rig *rig = *state;
	struct caller caller;

	caller_init(&caller);
	for (int code = ERR_CANCELLED; code <= ERR_UNAUTHENTICATED; code++) {
		Note request = LIGHTER__TEST__NOTE__INIT;
		struct err err;
		Note *note;

		request.number = code;
		request.data.data = (uint8_t *)"layer '\xc3\xa4' 100%";
		request.data.len = strlen((char *)request.data.data);
		assert_fails(rig_call(rig, &caller, "Fail", &request.base, &note, &err), &err,
			     (enum err_code)code);
		assert_string_equal(err.msg, "layer '\xc3\xa4' 100%");
		rig_wait(&rig->n_ended[code], 1, "the observer");
	}
	caller_done(&caller);
}

/* Fail with @code, and a message of @len bytes @fill; what the client gets is in @err. */
static void fail_with(struct rig *rig, int code, char fill, size_t len, struct err *err)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	char *text = malloc(len);
	struct caller caller;
	Note *note;

	assert_non_null(text);
	memset(text, fill, len);
	request.number = code;
	request.data.data = (uint8_t *)text;
	request.data.len = len;
	caller_init(&caller);
	assert_int_equal(rig_call(rig, &caller, "Fail", &request.base, &note, err), -1);
	caller_done(&caller);
	free(text);
}

static void makes_errors_fit_for_the_wire(void **state)
{
	struct rig *rig = *state;
	struct err err;

	fail_with(rig, ERR_NOT_FOUND, '\xff', 3, &err);
	assert_string_equal(err.msg, "???");
	assert_int_equal(err.code, ERR_NOT_FOUND);
	fail_with(rig, ERR_NOT_FOUND, '%', 100000, &err);
	assert_int_equal(strlen(err.msg), ERR_MSG_MAX_BYTES - 1);
	/* no failure, and no code: a mistake of ours */
	fail_with(rig, ERR_OK, 'x', 1, &err);
	assert_int_equal(err.code, ERR_INTERNAL);
	fail_with(rig, 99, 'x', 1, &err);
	assert_int_equal(err.code, ERR_INTERNAL);
}

static void refuses_bad_strings_and_malformed_requests(void **state)
{
	static const char *const names[] = {"Echo", "Work"};
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	caller_init(&caller);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		Lighter__Test__WrongNote wrong = LIGHTER__TEST__WRONG_NOTE__INIT;
		RawNote raw = LIGHTER__TEST__RAW_NOTE__INIT;

		raw.text.data = (uint8_t *)"a\0b";
		raw.text.len = 3;
		assert_fails(rig_call(rig, &caller, names[i], &raw.base, &note, &err), &err,
			     ERR_INVALID_ARGUMENT);
		assert_contains(err.msg, "'text' of lighter.test.Note holds a NUL byte");
		raw.text.data = (uint8_t *)"\xff";
		raw.text.len = 1;
		assert_fails(rig_call(rig, &caller, names[i], &raw.base, &note, &err), &err,
			     ERR_INVALID_ARGUMENT);
		assert_contains(err.msg, "UTF-8");
		wrong.text = 5;
		assert_fails(rig_call(rig, &caller, names[i], &wrong.base, &note, &err), &err,
			     ERR_INVALID_ARGUMENT);
		assert_contains(err.msg, "malformed");
	}
	caller_done(&caller);
}

static void names_the_unknown_method(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;
	Note *note;

	caller_init(&caller);
	assert_fails(rig_call(rig, &caller, "Nope", &request.base, &note, &err), &err,
		     ERR_UNIMPLEMENTED);
	assert_contains(err.msg, "unknown method '" METHOD("Nope") "'");
	assert_fails(rpc_client_call(rig->client, &caller.ctx, "/other.Service/Stat", NULL, 0,
				     &request.base, &lighter__test__note__descriptor, &msg, &err),
		     &err, ERR_UNIMPLEMENTED);
	assert_contains(err.msg, "unknown service in '/other.Service/Stat'");
	caller_done(&caller);
}

static void takes_messages_of_up_to_16_mib(void **state)
{
	static const char *const names[] = {"Echo", "Work"};
	const size_t field_overhead = 5; /* tag, and a length in four bytes */
	size_t len = RPC_MAX_MESSAGE_BYTES - field_overhead;
	uint8_t *data = calloc(1, len + 1);
	struct rig *rig = *state;
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct caller caller;
	struct err err;
	Note *note;

	assert_non_null(data);
	memset(data, 7, len + 1);
	request.data.data = data;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		caller_init(&caller);
		request.data.len = len;
		assert_ok(rig_call(rig, &caller, names[i], &request.base, &note, &err), &err);
		assert_int_equal(note->data.len, len);
		assert_memory_equal(note->data.data, data, len);
		request.data.len = len + 1;
		assert_fails(rig_call(rig, &caller, names[i], &request.base, &note, &err), &err,
			     ERR_RESOURCE_EXHAUSTED);
		caller_done(&caller);
	}
	free(data);
}

static void refuses_to_answer_with_more_than_16_mib(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	caller_init(&caller);
	request.size = RPC_MAX_MESSAGE_BYTES;
	assert_fails(rig_call(rig, &caller, "Big", &request.base, &note, &err), &err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_contains(err.msg, "larger than a message may be");
	caller_done(&caller);
}

static void bounds_what_a_request_unfolds_to(void **state)
{
	const size_t n = 3000000; /* 6 MiB on the wire, far more than 64 MiB in memory */
	Lighter__Test__RawLabel empty = LIGHTER__TEST__RAW_LABEL__INIT;
	RawNote request = LIGHTER__TEST__RAW_NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	request.labels = calloc(n, sizeof(*request.labels));
	assert_non_null(request.labels);
	for (size_t i = 0; i < n; i++)
		request.labels[i] = &empty;
	request.n_labels = n;
	caller_init(&caller);
	assert_fails(rig_call(rig, &caller, "Work", &request.base, &note, &err), &err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_contains(err.msg, "memory is used up");
	caller_done(&caller);
	free(request.labels);
}

static void answers_raw_clients_with_a_status(void **state)
{
	struct rig *rig = *state;
	int fd = raw_connect(rig->path);

	raw_hello(fd);
	raw_headers(fd, 1, METHOD("Echo"), NULL, RAW_END_STREAM); /* no message */
	assert_int_equal(raw_wait_status(fd), ERR_INVALID_ARGUMENT);
	close(fd);

	fd = raw_connect(rig->path);
	raw_hello(fd);
	raw_headers(fd, 1, METHOD("Echo"), NULL, 0);
	assert_int_equal(raw_zeros(fd, 1, RPC_MAX_MESSAGE_BYTES + 1), ERR_RESOURCE_EXHAUSTED);
	close(fd);

	fd = raw_connect(rig->path);
	raw_hello(fd);
	raw_headers(fd, 1, METHOD("Chat"), NULL, 0);
	assert_int_equal(raw_zeros(fd, 1, RPC_MAX_MESSAGE_BYTES + 1), ERR_RESOURCE_EXHAUSTED);
	close(fd);
}

static void refuses_compressed_requests(void **state)
{
	static const uint8_t bytes[100];
	struct rig *rig = *state;
	int fd = raw_connect(rig->path);

	/* A kilobyte could become a megabyte; and nobody who talks to us compresses. */
	raw_hello(fd);
	raw_headers(fd, 1, METHOD("Work"), "gzip", 0);
	raw_message(fd, 1, 1, sizeof(bytes), bytes, sizeof(bytes), RAW_END_STREAM);
	assert_int_equal(raw_wait_status(fd), ERR_UNIMPLEMENTED);
	close(fd);

	/* compressed without saying how */
	fd = raw_connect(rig->path);
	raw_hello(fd);
	raw_headers(fd, 1, METHOD("Work"), NULL, 0);
	raw_message(fd, 1, 1, sizeof(bytes), bytes, sizeof(bytes), RAW_END_STREAM);
	assert_int_not_equal(raw_wait_status(fd), ERR_OK);
	close(fd);
}

static void reports_a_handler_without_answer(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	caller_init(&caller);
	assert_fails(rig_call(rig, &caller, "Silent", &request.base, &note, &err), &err,
		     ERR_INTERNAL);
	caller_done(&caller);
}

static void ends_at_the_deadline(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	/* Again, should a slow machine not have got as far as the server in time. */
	do {
		caller_init(&caller);
		caller.ctx.deadline_ns = monotonic_ns() + 20 * INT64_C(1000000);
		assert_fails(rig_call(rig, &caller, "Wait", &request.base, &note, &err), &err,
			     ERR_DEADLINE_EXCEEDED);
		caller_done(&caller);
		wait_until(rig_is_quiet, rig, "the server's end of the call");
	} while (rig_n_ended(rig) == 0);
	/* Wait ends by the deadline or because the client has gone, whichever the server sees first. */
	assert_int_equal(rig->n_ended[ERR_DEADLINE_EXCEEDED] + rig->n_ended[ERR_CANCELLED],
			 rig_n_ended(rig));
}

struct cancelling {
	struct rig *rig;
	atomic_bool cancelled;
};

static void *call_wait(void *arg)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct cancelling *c = arg;
	struct caller caller;
	struct err err;
	Note *note;

	caller_init(&caller);
	caller.ctx.deadline_ns = CTX_NO_DEADLINE;
	caller.ctx.cancelled = &c->cancelled;
	assert_fails(rig_call(c->rig, &caller, "Wait", &request.base, &note, &err), &err,
		     ERR_CANCELLED);
	caller_done(&caller);
	return NULL;
}

static void tells_the_handler_that_the_client_gave_up(void **state)
{
	struct cancelling c = {.rig = *state};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, call_wait, &c), 0);
	rig_wait(&c.rig->n_waiting, 1, "the handler");
	atomic_store(&c.cancelled, true);
	pthread_join(thread, NULL);
	/* Wait goes on for ever unless it sees the flag. */
	rig_wait(&c.rig->n_ended[ERR_CANCELLED], 1, "the handler's end");
}

#define N_CALLERS 16
#define N_CALLS   100

static void *call_often(void *arg)
{
	struct rig *rig = arg;

	for (int i = 0; i < N_CALLS; i++) {
		Note request = LIGHTER__TEST__NOTE__INIT;
		struct caller caller;
		struct err err;
		Note *note;

		request.number = i;
		caller_init(&caller);
		assert_ok(rig_call(rig, &caller, i % 2 ? "Echo" : "Work", &request.base, &note,
				   &err),
			  &err);
		assert_int_equal(note->number, i);
		caller_done(&caller);
	}
	return NULL;
}

static void serves_many_callers_at_once(void **state)
{
	struct rig *rig = *state;
	pthread_t threads[N_CALLERS];

	for (size_t i = 0; i < N_CALLERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, rig), 0);
	for (size_t i = 0; i < N_CALLERS; i++)
		pthread_join(threads[i], NULL);
	rig_wait(&rig->n_ended[ERR_OK], N_CALLERS * N_CALLS, "the observer");
	assert_int_equal(rig_n_ended(rig), N_CALLERS * N_CALLS);
	assert_true(atomic_load(&rig->bytes_in) > 0);
	assert_int_equal(rig->bytes_in, rig->bytes_out);
}

static void refuses_calls_beyond_the_limit(void **state)
{
	const struct rpc_server_options options = {.max_calls = 2, .n_workers = 4};
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rpc_stream *held[2];
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	rig_stop(rig, 0);
	rig_start(rig, &options);
	caller_init(&caller);
	for (size_t i = 0; i < 2; i++)
		held[i] = rig_open(rig, &caller, "Hold");
	rig_wait(&rig->n_opened, 2, "the streams");
	assert_fails(rig_call(rig, &caller, "Echo", &request.base, &note, &err), &err,
		     ERR_RESOURCE_EXHAUSTED);
	rpc_stream_free(held[0]);
	wait_until(rig_is_served, rig, "a call after the end of a stream");
	rpc_stream_free(held[1]);
	caller_done(&caller);
}

#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(answers_with_what_was_sent),
		TEST(passes_namespace_and_deadline),
		TEST(carries_every_status),
		TEST(makes_errors_fit_for_the_wire),
		TEST(refuses_bad_strings_and_malformed_requests),
		TEST(names_the_unknown_method),
		TEST(takes_messages_of_up_to_16_mib),
		TEST(refuses_to_answer_with_more_than_16_mib),
		TEST(bounds_what_a_request_unfolds_to),
		TEST(answers_raw_clients_with_a_status),
		TEST(refuses_compressed_requests),
		TEST(reports_a_handler_without_answer),
		TEST(ends_at_the_deadline),
		TEST(tells_the_handler_that_the_client_gave_up),
		TEST(serves_many_callers_at_once),
		TEST(refuses_calls_beyond_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, rig_library_teardown);
}
