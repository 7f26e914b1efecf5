/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/notify.h"
#include "tests/support/temp_root.h"

static int bound_socket(const char *name, size_t len)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	memcpy(address.sun_path, name, len);
	assert_int_equal(bind(fd, (struct sockaddr *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
			 0);
	return fd;
}

static void assert_received(int fd, const char *want)
{
	char buf[2048];
	/* A datagram is there as soon as send() has returned. */
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);

	assert_true(n >= 0);
	buf[n] = '\0';
	assert_string_equal(buf, want);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), -1);
}

static int setup(void **state)
{
	unsetenv("NOTIFY_SOCKET");
	return temp_root_setup(state);
}

static int teardown(void **state)
{
	unsetenv("NOTIFY_SOCKET");
	return temp_root_teardown(state);
}

static void nobody_asked(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(notify_send(&err, "READY=1"), 1);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(notify_send(&err, "READY=1"), 1);
}

static void message_reaches_a_path(void **state)
{
	char *path = temp_root_path(*state, "notify");
	int fd = bound_socket(path, strlen(path) + 1);
	struct err err = ERR_INIT;

	setenv("NOTIFY_SOCKET", path, 1);
	assert_int_equal(notify_send(&err, "READY=1\nSTATUS=%s", "fine"), 0);
	assert_received(fd, "READY=1\nSTATUS=fine");
	close(fd);
	free(path);
}

static void message_reaches_an_abstract_name(void **state)
{
	struct err err = ERR_INIT;
	char name[64];
	int fd;

	(void)state;
	snprintf(name, sizeof(name), "@lighter-test-notify-%d", getpid());
	name[0] = '\0';
	/* Without a NUL at the end: it would be part of the name. */
	fd = bound_socket(name, 1 + strlen(name + 1));
	name[0] = '@';
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(notify_send(&err, "STOPPING=1"), 0);
	assert_received(fd, "STOPPING=1");
	close(fd);
}

static void message_with_nobody_there_fails(void **state)
{
	char *path = temp_root_path(*state, "notify");
	struct err err = ERR_INIT;

	setenv("NOTIFY_SOCKET", path, 1);
	assert_fails(notify_send(&err, "READY=1"), &err, ERR_INTERNAL);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_contains(err.msg, path);
	free(path);
}

static void odd_addresses_are_refused(void **state)
{
	struct err err = ERR_INIT;
	char path[200];

	(void)state;
	setenv("NOTIFY_SOCKET", "vsock:2:1234", 1);
	assert_fails(notify_send(&err, "READY=1"), &err, ERR_INVALID_ARGUMENT);
	setenv("NOTIFY_SOCKET", "@", 1);
	assert_fails(notify_send(&err, "READY=1"), &err, ERR_INVALID_ARGUMENT);
	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	path[108] = '\0';
	setenv("NOTIFY_SOCKET", path, 1);
	assert_fails(notify_send(&err, "READY=1"), &err, ERR_INVALID_ARGUMENT);
	/* One less fits, so that it is merely not there. */
	path[107] = '\0';
	setenv("NOTIFY_SOCKET", path, 1);
	assert_fails(notify_send(&err, "READY=1"), &err, ERR_INTERNAL);
}

static void message_too_long_is_refused(void **state)
{
	char *path = temp_root_path(*state, "notify");
	int fd = bound_socket(path, strlen(path) + 1);
	struct err err = ERR_INIT;
	char text[1100];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	setenv("NOTIFY_SOCKET", path, 1);
	assert_fails(notify_send(&err, "STATUS=%s", text), &err, ERR_INTERNAL);
	assert_int_equal(recv(fd, text, sizeof(text), 0), -1);
	close(fd);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(nobody_asked),
		T(message_reaches_a_path),
		T(message_reaches_an_abstract_name),
		T(message_with_nobody_there_fails),
		T(odd_addresses_are_refused),
		T(message_too_long_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
