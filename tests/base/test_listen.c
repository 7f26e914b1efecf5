/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/listen.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

struct fixture {
	struct temp_root *root;
	char *path;
	struct listen_socket sock;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->root = temp_root_new();
	f->path = temp_root_path(f->root, "s");
	f->sock = (struct listen_socket)LISTEN_SOCKET_INIT;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	listen_socket_done(&f->sock);
	temp_root_free(f->root);
	free(f->path);
	free(f);
	return 0;
}

static bool can_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	assert_true(fd >= 0);
	strcpy(address.sun_path, path);
	r = connect(fd, (struct sockaddr *)&address, sizeof(address));
	close(fd);
	return r == 0;
}

/* A socket file nobody listens on, as kill -9 leaves it. */
static void leave_stale(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(address.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
}

/* The linker sends listen.c's chmod() here: the last moment before others may come in. */
int __real_chmod(const char *path, mode_t mode);
int __wrap_chmod(const char *path, mode_t mode);

static unsigned int n_chmods;

int __wrap_chmod(const char *path, mode_t mode)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	assert_false(can_connect(path));
	n_chmods++;
	return __real_chmod(path, mode);
}

static ino_t inode_of(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st.st_ino;
}

static void socket_is_closed_until_it_has_its_exact_mode(void **state)
{
	static const mode_t modes[] = {0600, 0660, 0666, 0777};
	struct fixture *f = *state;
	struct stat st;

	n_chmods = 0;
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		mode_t saved = umask(i % 2 ? 0 : 077), now;

		assert_ok(listen_at(f->path, modes[i], (gid_t)-1, &f->sock, &f->err), &f->err);
		assert_int_equal(n_chmods, i + 1);
		now = umask(saved);
		assert_int_equal(now, i % 2 ? 0 : 077);
		assert_int_equal(lstat(f->path, &st), 0);
		assert_int_equal(st.st_mode, S_IFSOCK | modes[i]);
		assert_true(can_connect(f->path));
		listen_socket_done(&f->sock);
	}
}

static void socket_gets_its_group(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	require_root();
	assert_ok(listen_at(f->path, 0660, 4321, &f->sock, &f->err), &f->err);
	assert_int_equal(lstat(f->path, &st), 0);
	assert_int_equal(st.st_gid, 4321);
	assert_int_equal(st.st_mode & 07777, 0660);
}

static void descriptor_is_non_blocking_and_not_inherited(void **state)
{
	struct fixture *f = *state;

	assert_ok(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err);
	assert_true(fcntl(f->sock.fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(f->sock.fd, F_GETFD) & FD_CLOEXEC);
}

static void done_deletes_our_socket_only(void **state)
{
	struct fixture *f = *state;
	char *other = temp_root_path(f->root, "other");

	assert_ok(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err);
	listen_socket_done(&f->sock);
	assert_int_equal(access(f->path, F_OK), -1);
	/* Another process has put its own there. */
	assert_ok(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err);
	leave_stale(other, SOCK_STREAM);
	assert_int_equal(rename(other, f->path), 0);
	listen_socket_done(&f->sock);
	assert_int_equal(access(f->path, F_OK), 0);
	/* And twice is once. */
	listen_socket_done(&f->sock);
	free(other);
}

static void stale_socket_is_replaced(void **state)
{
	struct fixture *f = *state;

	leave_stale(f->path, SOCK_STREAM);
	assert_ok(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err);
	assert_true(can_connect(f->path));
}

static void live_socket_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct listen_socket second = LISTEN_SOCKET_INIT;
	ino_t ino;

	assert_ok(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err);
	ino = inode_of(f->path);
	assert_fails(listen_at(f->path, 0600, (gid_t)-1, &second, &f->err), &f->err,
		     ERR_UNAVAILABLE);
	assert_contains(f->err.msg, "another process listens on");
	assert_int_equal(second.fd, -1);
	assert_int_equal(inode_of(f->path), ino);
	assert_true(can_connect(f->path));
}

static void live_socket_with_a_full_queue_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct listen_socket second = LISTEN_SOCKET_INIT;
	int fds[8], n = 0, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, f->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 0), 0);
	do {
		assert_true(n < 8);
		fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	} while (connect(fds[n++], (struct sockaddr *)&address, sizeof(address)) == 0);
	assert_fails(listen_at(f->path, 0600, (gid_t)-1, &second, &f->err), &f->err,
		     ERR_UNAVAILABLE);
	assert_int_equal(access(f->path, F_OK), 0);
	while (n > 0)
		close(fds[--n]);
	close(fd);
}

static void socket_of_another_type_is_left_alone(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct fixture *f = *state;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, f->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_fails(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err,
		     ERR_UNAVAILABLE);
	assert_int_equal(access(f->path, F_OK), 0);
	close(fd);
}

static void what_is_no_socket_is_left_alone(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	close(fd);
	assert_fails(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err,
		     ERR_FAILED_PRECONDITION);
	assert_contains(f->err.msg, "it is not a socket");
	assert_int_equal(unlink(f->path), 0);
	/* A link would be replaced by bind()'s file elsewhere, or followed. */
	assert_int_equal(symlink("elsewhere", f->path), 0);
	assert_fails(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err,
		     ERR_FAILED_PRECONDITION);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(mkdir(f->path, 0700), 0);
	assert_fails(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err,
		     ERR_FAILED_PRECONDITION);
	assert_int_equal(rmdir(f->path), 0);
}

static void missing_directory_is_reported(void **state)
{
	struct fixture *f = *state;
	char *path = temp_root_path(f->root, "no/s");

	assert_fails(listen_at(path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err, ERR_INTERNAL);
	assert_contains(f->err.msg, "open socket directory");
	free(path);
}

static void wait_for_another_starting_process_ends(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->root->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_fails(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err,
		     ERR_UNAVAILABLE);
	close(fd);
	assert_ok(listen_at(f->path, 0600, (gid_t)-1, &f->sock, &f->err), &f->err);
}

static void paths_are_checked(void **state)
{
	struct err err = ERR_INIT;
	char path[200];

	(void)state;
	assert_ok(listen_check_path("/s", &err), &err);
	assert_fails(listen_check_path("s", &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(listen_check_path("", &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(listen_check_path("/run/", &err), &err, ERR_INVALID_ARGUMENT);
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[107] = '\0';
	assert_ok(listen_check_path(path, &err), &err);
	path[107] = 'x';
	path[108] = '\0';
	assert_fails(listen_check_path(path, &err), &err, ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "longer than 107 bytes");
}

static void nothing_is_inherited_without_its_variables(void **state)
{
	struct fixture *f = *state;
	char text[32];

	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	assert_int_equal(listen_inherited(&f->sock, &f->err), 1);
	/* For another process: the variables stay for whom they concern. */
	setenv("LISTEN_FDS", "1", 1);
	assert_int_equal(listen_inherited(&f->sock, &f->err), 1);
	setenv("LISTEN_PID", "1", 1);
	assert_int_equal(listen_inherited(&f->sock, &f->err), 1);
	snprintf(text, sizeof(text), "%dx", getpid());
	setenv("LISTEN_PID", text, 1);
	assert_int_equal(listen_inherited(&f->sock, &f->err), 1);
	assert_string_equal(getenv("LISTEN_FDS"), "1");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(socket_is_closed_until_it_has_its_exact_mode),
		T(socket_gets_its_group),
		T(descriptor_is_non_blocking_and_not_inherited),
		T(done_deletes_our_socket_only),
		T(stale_socket_is_replaced),
		T(live_socket_is_left_alone),
		T(live_socket_with_a_full_queue_is_left_alone),
		T(socket_of_another_type_is_left_alone),
		T(what_is_no_socket_is_left_alone),
		T(missing_directory_is_reported),
		T(wait_for_another_starting_process_ends),
		T(paths_are_checked),
		T(nothing_is_inherited_without_its_variables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
