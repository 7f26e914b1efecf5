/* SPDX-License-Identifier: Apache-2.0 */
/* Many connections, too many, and none to be had. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/rpc/raw.h"
#include "tests/rpc/rig.h"

#define N_CONNECTIONS 1000

struct files {
	unsigned int at_most;
};

static bool are_closed(void *arg)
{
	struct files *files = arg;

	return n_open_files() <= files->at_most;
}

static void allow_files(rlim_t n)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur >= n)
		return;
	if (limit.rlim_max < n) {
		print_message("needs %lu file descriptors, %lu are allowed\n", (unsigned long)n,
			      (unsigned long)limit.rlim_max);
		skip();
	}
	limit.rlim_cur = n;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void serves_a_thousand_connections_and_forgets_them(void **state)
{
	int *fds = calloc(N_CONNECTIONS, sizeof(*fds));
	struct rig *rig = *state;
	struct files files;

	assert_non_null(fds);
	allow_files(2 * N_CONNECTIONS + 100);
	assert_true(rig_is_served(rig));
	files.at_most = n_open_files();
	for (size_t i = 0; i < N_CONNECTIONS; i++) {
		fds[i] = raw_connect(rig->path);
		if (i % 4 > 0)
			raw_hello(fds[i]);
		if (i % 4 > 1)
			raw_headers(fds[i], 1, METHOD("Echo"), NULL,
				    0); /* and no message follows */
	}
	for (size_t i = 0; i < N_CONNECTIONS; i++)
		if (i % 4 > 0)
			raw_wait_settings(fds[i]);
	assert_true(rig_is_served(rig));
	for (size_t i = 0; i < N_CONNECTIONS; i++)
		close(fds[i]);
	wait_until(are_closed, &files, "the server's ends of the connections");
	assert_true(rig_is_served(rig));
	free(fds);
}

static void closes_connections_beyond_the_limit(void **state)
{
	const struct rpc_server_options options = {.max_connections = 3};
	struct rig *rig = *state;
	struct files files;
	int fds[3];

	rig_stop(rig, 0);
	rig_start(rig, &options);
	files.at_most = n_open_files();
	for (int round = 0; round < 3; round++) {
		int more;

		for (size_t i = 0; i < 3; i++) {
			fds[i] = raw_connect(rig->path);
			raw_hello(fds[i]);
			raw_wait_settings(fds[i]);
		}
		more = raw_connect(rig->path);
		assert_true(raw_is_closed(more));
		close(more);
		/* one goes, another may come */
		close(fds[0]);
		files.at_most += 4; /* two connections, both ends */
		wait_until(are_closed, &files, "the end of a connection");
		fds[0] = raw_connect(rig->path);
		raw_hello(fds[0]);
		raw_wait_settings(fds[0]);
		for (size_t i = 0; i < 3; i++)
			close(fds[i]);
		files.at_most -= 4;
		wait_until(are_closed, &files, "the end of all connections");
	}
}

static void turns_clients_away_when_descriptors_run_out(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct rig *rig = *state;
	int fds[4], held[4096];
	struct rlimit limit, few;
	size_t n_held = 0;

	assert_true(rig_is_served(rig));
	memcpy(addr.sun_path, rig->path, strlen(rig->path) + 1);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	few.rlim_cur = n_open_files() + 16;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (n_held < ARRAY_LEN(held) &&
	       (held[n_held] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n_held++;
	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		assert_int_equal(connect(fds[i], (struct sockaddr *)&addr, sizeof(addr)), 0);
		assert_true(raw_is_closed(fds[i]));
	}
	for (size_t i = 0; i < n_held; i++)
		close(held[i]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);

	fds[0] = raw_connect(rig->path);
	raw_hello(fds[0]);
	raw_wait_settings(fds[0]);
	close(fds[0]);
	assert_true(rig_is_served(rig));
}

#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(serves_a_thousand_connections_and_forgets_them),
		TEST(closes_connections_beyond_the_limit),
		TEST(turns_clients_away_when_descriptors_run_out),
	};

	return cmocka_run_group_tests(tests, NULL, rig_library_teardown);
}
