/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is the proxy's own; that it keeps the contract is shown in tests/conformance.
 */
#include "proxy/snapshotter_proxy.h"

#include <stdlib.h>
#include <unistd.h>

#include "rpc/server.h"
#include "tests/support/fake_snapshotter.h"
#include "tests/support/snapshot_server.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

struct fixture {
	struct temp_root *root;
	char *path;
	void *fake;
	void *proxy;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static int setup(void **state)
{
	struct snapshotter_proxy_conf conf = {.snapshotter = (char *)"x"};
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->root = temp_root_new();
	fx->path = temp_root_path(fx->root, "socket");
	conf.address = fx->path;
	assert_ok(fake_snapshotter_ops.open("/fake", NULL, &fx->fake, &fx->err), &fx->err);
	assert_ok(snapshotter_proxy_ops.open("/none", &conf, &fx->proxy, &fx->err), &fx->err);
	arena_init(&fx->arena, 64u << 20);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	snapshotter_proxy_ops.close(fx->proxy);
	fake_snapshotter_ops.close(fx->fake);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx->path);
	free(fx);
	return 0;
}

static int prepare(struct fixture *fx, const char *key)
{
	const struct snapshot_req req = {.key = key, .parent = ""};
	struct mounts mounts;

	return snapshotter_proxy_ops.prepare(fx->proxy, &fx->ctx, &req, &mounts, &fx->err);
}

static int count_infos(void *arg, const struct info *info, struct err *err)
{
	(void)info;
	(void)err;
	++*(unsigned int *)arg;
	return 0;
}

static int walk(struct fixture *fx, unsigned int *ret_n)
{
	*ret_n = 0;
	return snapshotter_proxy_ops.walk(fx->proxy, &fx->ctx, NULL, 0, count_infos, ret_n,
					  &fx->err);
}

static void a_server_that_is_not_there_is_unavailable(void **state)
{
	struct fixture *fx = *state;
	struct info info;
	unsigned int n;

	assert_fails(prepare(fx, "k"), &fx->err, ERR_UNAVAILABLE);
	assert_fails(snapshotter_proxy_ops.stat(fx->proxy, &fx->ctx, "k", &info, &fx->err),
		     &fx->err, ERR_UNAVAILABLE);
	assert_fails(walk(fx, &n), &fx->err, ERR_UNAVAILABLE);
}

static void the_proxy_comes_back_with_its_server(void **state)
{
	struct fixture *fx = *state;
	struct snapshot_server *server;
	unsigned int n;

	server = snapshot_server_start(fx->path, &fake_snapshotter_ops, fx->fake, 0);
	assert_ok(prepare(fx, "1"), &fx->err);
	snapshot_server_stop(server);
	(void)unlink(fx->path);
	assert_fails(prepare(fx, "2"), &fx->err, ERR_UNAVAILABLE);

	server = snapshot_server_start(fx->path, &fake_snapshotter_ops, fx->fake, 0);
	/* When it tries again is up to gRPC's backoff. */
	fx->ctx.deadline_ns = monotonic_ns() + INT64_C(60000000000);
	while (prepare(fx, "3") < 0) {
		assert_int_equal(fx->err.code, ERR_UNAVAILABLE);
		assert_true(monotonic_ns() < fx->ctx.deadline_ns);
	}
	assert_ok(walk(fx, &n), &fx->err);
	assert_int_equal(n, 2);
	snapshot_server_stop(server);
}

static void the_namespace_is_passed_on(void **state)
{
	struct fixture *fx = *state;
	struct snapshot_server *server;
	unsigned int n;
	char *ns;

	server = snapshot_server_start(fx->path, &fake_snapshotter_ops, fx->fake, 0);
	fx->ctx.ns = "k8s.io";
	assert_ok(prepare(fx, "k"), &fx->err);
	ns = fake_last_ns(fx->fake);
	assert_string_equal(ns, "k8s.io");
	free(ns);
	fx->ctx.ns = "moby";
	assert_ok(walk(fx, &n), &fx->err);
	ns = fake_last_ns(fx->fake);
	assert_string_equal(ns, "moby");
	free(ns);
	snapshot_server_stop(server);
}

static void a_deadline_ends_a_call_that_hangs(void **state)
{
	struct fixture *fx = *state;
	struct snapshot_server *server;

	server = snapshot_server_start(fx->path, &fake_snapshotter_ops, fx->fake, 0);
	assert_ok(prepare(fx, "k"), &fx->err);
	fake_hold(fx->fake, FAKE_PREPARE);
	fx->ctx.deadline_ns = monotonic_ns() + 50000000;
	assert_fails(prepare(fx, "k2"), &fx->err, ERR_DEADLINE_EXCEEDED);
	fake_release(fx->fake, FAKE_PREPARE);
	snapshot_server_stop(server);
}

static void failures_keep_their_code_and_message(void **state)
{
	struct fixture *fx = *state;
	struct snapshot_server *server;
	unsigned int n;

	server = snapshot_server_start(fx->path, &fake_snapshotter_ops, fx->fake, 0);
	fake_fail(fx->fake, FAKE_PREPARE, ERR_FAILED_PRECONDITION, 1);
	assert_fails(prepare(fx, "k"), &fx->err, ERR_FAILED_PRECONDITION);
	assert_contains(fx->err.msg, "failing on request");
	fake_fail(fx->fake, FAKE_WALK, ERR_NOT_FOUND, 1);
	assert_fails(walk(fx, &n), &fx->err, ERR_NOT_FOUND);
	assert_contains(fx->err.msg, "failing on request");
	assert_int_equal(n, 0);
	snapshot_server_stop(server);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_server_that_is_not_there_is_unavailable),
		TEST(the_proxy_comes_back_with_its_server),
		TEST(the_namespace_is_passed_on),
		TEST(a_deadline_ends_a_call_that_hangs),
		TEST(failures_keep_their_code_and_message),
	};
	int n_failed = cmocka_run_group_tests(tests, NULL, NULL);

	rpc_library_done();
	return n_failed ? 1 : 0;
}
