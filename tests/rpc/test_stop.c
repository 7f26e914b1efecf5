/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a server, with all sorts of things under way. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "rpc/server_internal.h"
#include "tests/rpc/raw.h"
#include "tests/rpc/rig.h"

struct waiter {
	struct rig *rig;
	pthread_t thread;
	int result;
	struct err err;
};

static void *call_wait(void *arg)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct waiter *w = arg;
	struct caller caller;
	Note *note;

	caller_init(&caller);
	w->result = rig_call(w->rig, &caller, "Wait", &request.base, &note, &w->err);
	caller_done(&caller);
	return NULL;
}

static void begin(struct waiter *w, struct rig *rig)
{
	w->rig = rig;
	assert_int_equal(pthread_create(&w->thread, NULL, call_wait, w), 0);
}

static void stops_when_idle(void **state)
{
	struct rig *rig = *state;

	rig_stop(rig, 0);
}

static void frees_a_server_that_never_started(void **state)
{
	const struct rpc_server_options options = {.listen_fd = rig_listen(*state)};
	struct rpc_server *server;
	struct err err;

	assert_ok(rpc_server_new(&options, &server, &err), &err);
	rpc_server_stop(server, 0);
	rpc_server_free(server);
	rpc_server_free(NULL);
}

static void *release_soon(void *arg)
{
	struct rig *rig = arg;

	/* Only after the stop has begun does the socket go away. */
	wait_until(rig_is_deaf, rig, "the end of listening");
	atomic_store(&rig->released, true);
	return NULL;
}

static void lets_calls_end_within_the_grace_time(void **state)
{
	struct rig *rig = *state;
	struct waiter waiters[8];
	pthread_t releaser;

	for (size_t i = 0; i < ARRAY_LEN(waiters); i++)
		begin(&waiters[i], rig);
	rig_wait(&rig->n_waiting, ARRAY_LEN(waiters), "the calls");
	assert_int_equal(pthread_create(&releaser, NULL, release_soon, rig), 0);
	rig_stop(rig, 60000);
	pthread_join(releaser, NULL);
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++)
		pthread_join(waiters[i].thread, NULL);
	/* The server's view: gRPC's client may drop an answer it has not read yet, when a ping of its own
	 * fails because the server has closed the connection after its last answer. */
	assert_int_equal(rig->n_ended[ERR_OK], ARRAY_LEN(waiters));
}

struct arrival {
	struct rig *rig;
	unsigned int n;
};

static bool have_arrived(void *arg)
{
	struct arrival *arrival = arg;
	struct rpc_server *server = arrival->rig->server;
	unsigned int n;

	pthread_mutex_lock(&server->mutex);
	n = server->n_live;
	pthread_mutex_unlock(&server->mutex);
	return n >= arrival->n;
}

/* So many calls are alive in the server. One that comes later may find it shutting down: gRPC answers that itself. */
static void wait_for_arrival(struct rig *rig, unsigned int n)
{
	struct arrival arrival = {rig, n};

	wait_until(have_arrived, &arrival, "the calls to arrive");
}

static void cancels_what_is_left_after_the_grace_time(void **state)
{
	struct rig *rig = *state;
	struct waiter waiters[20]; /* more than there are workers */
	struct rpc_stream *held, *slow;
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct caller caller;
	int raw[3];

	caller_init(&caller);
	held = rig_open(rig, &caller, "Chat");
	request.number = 1000;
	request.size = 1 << 20;
	slow = rig_ask(rig, &caller, "Count", &request);
	rig_wait(&rig->n_blocked, 1, "the stream nobody reads");
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++)
		begin(&waiters[i], rig);
	rig_wait(&rig->n_waiting, 16, "the calls");
	/* the streams too; those that no worker is free for must not be on their way still */
	wait_for_arrival(rig, ARRAY_LEN(waiters) + 2);
	/* connections that say nothing, too little, and half of a call */
	for (size_t i = 0; i < ARRAY_LEN(raw); i++)
		raw[i] = raw_connect(rig->path);
	raw_hello(raw[1]);
	raw_hello(raw[2]);
	raw_headers(raw[2], 1, METHOD("Echo"), NULL, 0);
	raw_wait_settings(raw[2]);

	rig_stop(rig, 10);

	assert_int_equal(rig->n_waiting, 0);
	assert_int_equal(rig->n_opened, 2);
	assert_int_equal(rig->n_closed, 2);
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++) {
		pthread_join(waiters[i].thread, NULL);
		/* not CANCELLED, which containerd takes for its own caller's wish */
		assert_fails(waiters[i].result, &waiters[i].err, ERR_UNAVAILABLE);
	}
	assert_int_equal(rig->n_ended[ERR_UNAVAILABLE], ARRAY_LEN(waiters));
	for (size_t i = 0; i < ARRAY_LEN(raw); i++) {
		assert_true(raw_is_closed(raw[i]));
		close(raw[i]);
	}
	rpc_stream_free(held);
	rpc_stream_free(slow);
	caller_done(&caller);
}

static void *load(void *arg)
{
	struct rig *rig = arg;

	for (unsigned int i = 0;; i++) {
		Note request = LIGHTER__TEST__NOTE__INIT;
		struct rpc_stream *stream;
		struct caller caller;
		ProtobufCMessage *msg;
		struct err err;
		Note *note;
		int r;

		caller_init(&caller);
		request.number = 3;
		if (i % 2) {
			r = rig_call(rig, &caller, i % 4 == 1 ? "Echo" : "Work", &request.base,
				     &note, &err);
		} else {
			r = rpc_stream_open(rig->client, &caller.ctx, METHOD("Chat"), NULL, 0,
					    &lighter__test__note__descriptor, &stream, &err);
			if (r == 0) {
				r = rpc_stream_send(stream, &request.base, &err);
				if (r == 0)
					r = rpc_stream_recv(stream, &caller.arena, &msg, &err);
				rpc_stream_free(stream);
			}
		}
		caller_done(&caller);
		if (r < 0) {
			if (err.code != ERR_UNAVAILABLE && err.code != ERR_CANCELLED)
				fail_msg("%s: %s", err_code_name(err.code), err.msg);
			return NULL;
		}
	}
}

static void stops_again_and_again_under_load(void **state)
{
	struct rig *rig = *state;

	for (int round = 0; round < 10; round++) {
		pthread_t threads[4];

		for (size_t i = 0; i < ARRAY_LEN(threads); i++)
			assert_int_equal(pthread_create(&threads[i], NULL, load, rig), 0);
		rig_wait(&rig->n_messages, rig->n_messages + 10, "the load");
		rig_stop(rig, round % 2 ? 0 : 5);
		for (size_t i = 0; i < ARRAY_LEN(threads); i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(rig->n_opened, rig->n_closed);
		rig_start(rig, NULL);
		wait_until(rig_is_served, rig, "the new server");
	}
}

#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stops_when_idle),
		TEST(frees_a_server_that_never_started),
		TEST(lets_calls_end_within_the_grace_time),
		TEST(cancels_what_is_left_after_the_grace_time),
		TEST(stops_again_and_again_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, rig_library_teardown);
}
