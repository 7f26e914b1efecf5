/* SPDX-License-Identifier: Apache-2.0 */
/* The client against servers that are not there, go away, or misbehave. */
#include "rpc/client.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/rpc/rig.h"

static void unavailable_at_once_without_a_server(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	rig_stop(rig, 0);
	caller_init(&caller);
	caller.ctx.deadline_ns = CTX_NO_DEADLINE;
	for (int i = 0; i < 3; i++)
		assert_fails(rig_call(rig, &caller, "Echo", &request.base, &note, &err), &err,
			     ERR_UNAVAILABLE);
	caller_done(&caller);
}

static void refuses_impossible_paths(void **state)
{
	struct rpc_client *client;
	char path[200];
	struct err err;

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_fails(rpc_client_new(path, &client, &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(rpc_client_new("", &client, &err), &err, ERR_INVALID_ARGUMENT);
}

static void refuses_illegal_headers(void **state)
{
	static const struct rpc_metadata bad[] = {{"Upper-Case", "x"},
						  {"with space", "x"},
						  {"x-bin", "x"},
						  {"x", "new\nline"}};
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;

	caller_init(&caller);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_fails(rpc_client_call(rig->client, &caller.ctx, METHOD("Echo"), &bad[i], 1,
					     &request.base, &lighter__test__note__descriptor, &msg,
					     &err),
			     &err, ERR_INVALID_ARGUMENT);
	caller_done(&caller);
}

static void finds_a_server_that_was_restarted(void **state)
{
	struct rig *rig = *state;

	for (int i = 0; i < 5; i++) {
		assert_true(rig_is_served(rig));
		rig_stop(rig, 0);
		assert_false(rig_is_served(rig));
		rig_start(rig, NULL);
		wait_until(rig_is_served, rig, "the new server");
	}
}

/* A server that takes connections, reads a little, and drops them. */
struct dying {
	int fd;
	atomic_uint n_dropped;
	atomic_bool stop;
};

static void *die(void *arg)
{
	static const uint8_t settings[9] = {0, 0, 0, 4};
	struct dying *dying = arg;

	for (;;) {
		int fd = accept(dying->fd, NULL, NULL);
		char buf[64];
		ssize_t n;

		if (fd < 0)
			return NULL;
		if (!atomic_load(&dying->stop)) {
			n = recv(fd, buf, sizeof(buf), 0);
			if (n > 0 && atomic_load(&dying->n_dropped) % 2)
				n = send(fd, settings, sizeof(settings), MSG_NOSIGNAL);
			if (n > 0)
				n = recv(fd, buf, sizeof(buf), 0);
		}
		close(fd);
		atomic_fetch_add(&dying->n_dropped, 1);
	}
}

struct victim {
	struct rig *rig;
	struct dying *dying;
	unsigned int n_before;
};

/* Between its attempts to connect the client fails calls at once: try until one has got through. */
static bool was_hit(void *arg)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct victim *victim = arg;
	struct rpc_stream *stream;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;
	Note *note;

	caller_init(&caller);
	assert_fails(rig_call(victim->rig, &caller, "Echo", &request.base, &note, &err), &err,
		     ERR_UNAVAILABLE);
	if (rpc_stream_open(victim->rig->client, &caller.ctx, METHOD("Chat"), NULL, 0,
			    &lighter__test__note__descriptor, &stream, &err) < 0) {
		assert_int_equal(err.code, ERR_UNAVAILABLE);
	} else {
		assert_fails(rpc_stream_recv(stream, &caller.arena, &msg, &err), &err,
			     ERR_UNAVAILABLE);
		assert_fails(rpc_stream_send(stream, &request.base, &err), &err, ERR_UNAVAILABLE);
		rpc_stream_free(stream);
	}
	caller_done(&caller);
	return atomic_load(&victim->dying->n_dropped) > victim->n_before;
}

static void survives_a_server_that_dies_under_its_calls(void **state)
{
	struct rig *rig = *state;
	struct dying dying = {0};
	struct victim victim = {.rig = rig, .dying = &dying};
	pthread_t thread;

	rig_stop(rig, 0);
	dying.fd = rig_listen(rig);
	assert_int_equal(pthread_create(&thread, NULL, die, &dying), 0);
	for (int i = 0; i < 4; i++) {
		victim.n_before = atomic_load(&dying.n_dropped);
		wait_until(was_hit, &victim, "a connection to the dying server");
	}
	atomic_store(&dying.stop, true);
	shutdown(dying.fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(dying.fd);
	rig_start(rig, NULL);
	wait_until(rig_is_served, rig, "the good server");
}

static void does_not_begin_what_was_given_up(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	atomic_bool cancelled = true;
	struct rig *rig = *state;
	struct caller caller;
	struct err err;
	Note *note;

	caller_init(&caller);
	caller.ctx.cancelled = &cancelled;
	assert_fails(rig_call(rig, &caller, "Echo", &request.base, &note, &err), &err,
		     ERR_CANCELLED);
	caller.ctx.cancelled = NULL;
	caller.ctx.deadline_ns = monotonic_ns() - 1;
	assert_fails(rig_call(rig, &caller, "Echo", &request.base, &note, &err), &err,
		     ERR_DEADLINE_EXCEEDED);
	caller_done(&caller);
	assert_int_equal(rig_n_ended(rig), 0);
}

static void calls_an_answer_of_another_type_the_servers_mistake(void **state)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = *state;
	struct caller caller;
	ProtobufCMessage *msg;
	struct err err;

	caller_init(&caller);
	request.text = (char *)"text";
	assert_fails(rpc_client_call(rig->client, &caller.ctx, METHOD("Echo"), NULL, 0,
				     &request.base, &lighter__test__wrong_note__descriptor, &msg,
				     &err),
		     &err, ERR_INTERNAL);
	caller_done(&caller);
}

#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(unavailable_at_once_without_a_server),
		TEST(refuses_impossible_paths),
		TEST(refuses_illegal_headers),
		TEST(finds_a_server_that_was_restarted),
		TEST(survives_a_server_that_dies_under_its_calls),
		TEST(does_not_begin_what_was_given_up),
		TEST(calls_an_answer_of_another_type_the_servers_mistake),
	};

	return cmocka_run_group_tests(tests, NULL, rig_library_teardown);
}
