/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/health.h"

#include <stdlib.h>
#include <unistd.h>

#include "grpc/health/v1/health.pb-c.h"
#include "tests/rpc/rig.h"

typedef Grpc__Health__V1__HealthCheckRequest Request;
typedef Grpc__Health__V1__HealthCheckResponse Response;

#define SERVING         GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN
#define TYPE            (&grpc__health__v1__health_check_response__descriptor)

struct fixture {
	struct rig rig; /* its path, root and client; the server has the health service alone */
	struct health *health;
	struct caller caller;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct rpc_server_options options = {0};
	struct err err;

	assert_non_null(f);
	f->rig.root = temp_root_new();
	f->rig.path = temp_root_path(f->rig.root, "s.sock");
	options.listen_fd = rig_listen(&f->rig);
	assert_ok(rpc_server_new(&options, &f->rig.server, &err), &err);
	assert_ok(health_new(&f->health, &err), &err);
	assert_ok(rpc_server_add(f->rig.server, health_service(f->health), &err), &err);
	assert_ok(rpc_server_start(f->rig.server, &err), &err);
	assert_ok(rpc_client_new(f->rig.path, &f->rig.client, &err), &err);
	caller_init(&f->caller);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	caller_done(&f->caller);
	rpc_client_free(f->rig.client);
	rpc_server_stop(f->rig.server, 0);
	rpc_server_free(f->rig.server);
	health_free(f->health);
	health_free(NULL);
	free(f->rig.path);
	temp_root_free(f->rig.root);
	free(f);
	return 0;
}

static int check(struct fixture *f, const char *service, struct err *err)
{
	Request request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	ProtobufCMessage *msg;

	request.service = (char *)service;
	if (rpc_client_call(f->rig.client, &f->caller.ctx, "/grpc.health.v1.Health/Check", NULL, 0,
			    &request.base, TYPE, &msg, err) < 0)
		return -1;
	return (int)((Response *)msg)->status;
}

static void set(struct fixture *f, const char *service, bool serving)
{
	struct err err;

	assert_ok(health_set(f->health, service, serving, &err), &err);
}

static struct rpc_stream *watch(struct fixture *f, const char *service)
{
	Request request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	struct rpc_stream *stream;
	struct err err;

	request.service = (char *)service;
	assert_ok(rpc_stream_open(f->rig.client, &f->caller.ctx, "/grpc.health.v1.Health/Watch",
				  NULL, 0, TYPE, &stream, &err),
		  &err);
	assert_ok(rpc_stream_send(stream, &request.base, &err), &err);
	assert_ok(rpc_stream_half_close(stream, &err), &err);
	return stream;
}

/* Return: the state, or -1 at the end of the stream. */
static int heard(struct fixture *f, struct rpc_stream *stream)
{
	ProtobufCMessage *msg;
	struct err err;
	int r = rpc_stream_recv(stream, &f->caller.arena, &msg, &err);

	if (r < 0)
		fail_msg("%s", err.msg);
	return r ? (int)((Response *)msg)->status : -1;
}

static void check_tells_the_state(void **state)
{
	struct fixture *f = *state;
	struct err err;

	assert_int_equal(check(f, "", &err), NOT_SERVING);
	set(f, "", true);
	set(f, "a.B", true);
	assert_int_equal(check(f, "", &err), SERVING);
	assert_int_equal(check(f, "a.B", &err), SERVING);
	set(f, "a.B", false);
	assert_int_equal(check(f, "a.B", &err), NOT_SERVING);
	assert_int_equal(check(f, "", &err), SERVING);
	assert_fails(check(f, "a.C", &err), &err, ERR_NOT_FOUND);
	assert_contains(err.msg, "a.C");
}

static void watch_tells_every_change(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *whole = watch(f, ""), *later = watch(f, "a.B");

	assert_int_equal(heard(f, whole), NOT_SERVING);
	assert_int_equal(heard(f, later), SERVICE_UNKNOWN);
	set(f, "a.B", false);
	assert_int_equal(heard(f, later), NOT_SERVING);
	set(f, "a.B", false); /* no change, no word */
	set(f, "a.B", true);
	assert_int_equal(heard(f, later), SERVING);
	set(f, "", true);
	assert_int_equal(heard(f, whole), SERVING);
	rpc_stream_free(whole);
	set(f, "", false);
	set(f, "a.B", false);
	assert_int_equal(heard(f, later), NOT_SERVING);
	rpc_stream_free(later);
}

static void shutdown_ends_watches_and_stays(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *serving, *unknown, *late;
	struct err err;

	set(f, "", true);
	serving = watch(f, "");
	unknown = watch(f, "a.B");
	assert_int_equal(heard(f, serving), SERVING);
	assert_int_equal(heard(f, unknown), SERVICE_UNKNOWN);
	health_shutdown(f->health);
	assert_int_equal(heard(f, serving), NOT_SERVING);
	assert_int_equal(heard(f, serving), -1);
	assert_int_equal(heard(f, unknown), -1);
	set(f, "", true);
	assert_int_equal(check(f, "", &err), NOT_SERVING);
	late = watch(f, "");
	assert_int_equal(heard(f, late), NOT_SERVING);
	assert_int_equal(heard(f, late), -1);
	rpc_stream_free(serving);
	rpc_stream_free(unknown);
	rpc_stream_free(late);
}

#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(check_tells_the_state),
		TEST(watch_tells_every_change),
		TEST(shutdown_ends_watches_and_stays),
	};

	return cmocka_run_group_tests(tests, NULL, rig_library_teardown);
}
