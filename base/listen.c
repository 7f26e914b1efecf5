/* SPDX-License-Identifier: Apache-2.0 */
#include "base/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

/* First descriptor of socket activation: SD_LISTEN_FDS_START of sd-daemon(3). */
#define FIRST_INHERITED_FD 3
#define DIR_LOCK_TRIES     500
#define DIR_LOCK_PAUSE_NS  (10 * 1000 * 1000)

int listen_check_path(const char *path, struct err *err)
{
	struct sockaddr_un address;
	const char *name = strrchr(path, '/');

	if (*path != '/')
		return err_set(err, ERR_INVALID_ARGUMENT, "socket path '%s' is not absolute", path);
	if (!name || !name[1])
		return err_set(err, ERR_INVALID_ARGUMENT, "socket path '%s' names no file", path);
	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "socket path '%s' is longer than %zu bytes", path,
			       sizeof(address.sun_path) - 1);
	return 0;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memcpy(address.sun_path, path, strlen(path) + 1);
	return address;
}

/* Parses a whole decimal number, -1 for anything else. */
static long parse_number(const char *text)
{
	char *end;
	long n;

	if (!text || *text < '0' || *text > '9')
		return -1;
	errno = 0;
	n = strtol(text, &end, 10);
	return errno || *end ? -1 : n;
}

static int get_option(int fd, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) < 0 ? -1 : value;
}

static int check_inherited(int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(err, "descriptor %d of LISTEN_FDS", fd);
	if (!S_ISSOCK(st.st_mode) || get_option(fd, SO_DOMAIN) != AF_UNIX ||
	    get_option(fd, SO_TYPE) != SOCK_STREAM || get_option(fd, SO_ACCEPTCONN) != 1)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "descriptor %d of LISTEN_FDS is not a listening Unix stream socket",
			       fd);
	return 0;
}

static int set_flags(int fd, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return err_sys(err, "prepare descriptor %d", fd);
	return 0;
}

int listen_inherited(struct listen_socket *ret_socket, struct err *err)
{
	long pid = parse_number(getenv("LISTEN_PID"));
	const char *text = getenv("LISTEN_FDS");
	long n = text ? parse_number(text) : 0;
	struct listen_socket sock = {.fd = FIRST_INHERITED_FD};
	struct sockaddr_un address = {0};
	socklen_t len = sizeof(address) - 1;

	/* Meant for a process that started us, not for us. */
	if (!text || pid != getpid())
		return 1;
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	if (n == 0)
		return 1;
	if (n != 1)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "LISTEN_FDS is '%s', where one socket is "
			       "wanted",
			       text);
	if (check_inherited(sock.fd, err) < 0 || set_flags(sock.fd, err) < 0)
		return -1;
	if (getsockname(sock.fd, (struct sockaddr *)&address, &len) == 0)
		snprintf(sock.path, sizeof(sock.path), "%s", address.sun_path);
	*ret_socket = sock;
	return 0;
}

/* Return: 1 somebody listens there, 0 nobody does, -1 that cannot be told. */
static int is_alive(const char *path, struct err *err)
{
	struct sockaddr_un address = address_of(path);
	CLEANUP(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(err, "make a socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return 1;
	/* EAGAIN: its queue is full. EPROTOTYPE: it is a socket of another type. */
	if (errno == EAGAIN || errno == EINPROGRESS || errno == EPROTOTYPE)
		return 1;
	if (errno == ECONNREFUSED || errno == ENOENT)
		return 0;
	return err_sys(err, "connect to '%s'", path);
}

static int remove_stale(const char *path, struct err *err)
{
	struct stat st;
	int alive;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(err, "look at '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "'%s' is in the way: it is not a socket", path);
	alive = is_alive(path, err);
	if (alive < 0)
		return -1;
	if (alive)
		return err_set(err, ERR_UNAVAILABLE, "another process listens on '%s' already",
			       path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(err, "delete stale socket '%s'", path);
	return 0;
}

/* Two processes that find the same stale socket must not delete each other's new one. */
static int lock_dir(const char *path, int *ret_fd, struct err *err)
{
	const struct timespec pause = {.tv_nsec = DIR_LOCK_PAUSE_NS};
	CLEANUP(free_ptr) char *dir = strdup(path);
	CLEANUP(close_fd) int fd = -1;

	if (!dir)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	/* The first slash is the root's own. */
	dir[strrchr(dir, '/') == dir ? 1 : strrchr(dir, '/') - dir] = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, "open socket directory '%s'", dir);
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_sys(err, "lock socket directory '%s'", dir);
		if (i == DIR_LOCK_TRIES)
			return err_set(err, ERR_UNAVAILABLE,
				       "socket directory '%s' is locked by another process", dir);
		nanosleep(&pause, NULL);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Nobody but us may connect before chown and chmod are done, nor is there anyone before listen(). */
static int bind_closed(int fd, const char *path, struct err *err)
{
	struct sockaddr_un address = address_of(path);
	mode_t saved = umask(0177);
	int r = bind(fd, (struct sockaddr *)&address, sizeof(address));

	umask(saved);
	return r < 0 ? err_sys(err, "bind to '%s'", path) : 0;
}

static int open_up(const struct listen_socket *sock, mode_t mode, gid_t gid, struct err *err)
{
	if (gid != (gid_t)-1 && lchown(sock->path, (uid_t)-1, gid) < 0)
		return err_sys(err, "set the group of '%s'", sock->path);
	if (chmod(sock->path, mode) < 0)
		return err_sys(err, "set the mode of '%s'", sock->path);
	if (listen(sock->fd, SOMAXCONN) < 0)
		return err_sys(err, "listen on '%s'", sock->path);
	return 0;
}

int listen_at(const char *path, mode_t mode, gid_t gid, struct listen_socket *ret_socket,
	      struct err *err)
{
	CLEANUP(listen_socket_done) struct listen_socket sock = LISTEN_SOCKET_INIT;
	CLEANUP(close_fd) int dir_fd = -1;
	struct stat st;

	if (listen_check_path(path, err) < 0 || lock_dir(path, &dir_fd, err) < 0 ||
	    remove_stale(path, err) < 0)
		return -1;
	sock.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock.fd < 0)
		return err_sys(err, "make a socket");
	if (bind_closed(sock.fd, path, err) < 0)
		return -1;
	snprintf(sock.path, sizeof(sock.path), "%s", path);
	if (lstat(path, &st) < 0)
		return err_sys(err, "look at '%s'", path);
	sock.dev = st.st_dev;
	sock.ino = st.st_ino;
	if (open_up(&sock, mode, gid, err) < 0)
		return -1;
	*ret_socket = sock;
	sock = (struct listen_socket)LISTEN_SOCKET_INIT;
	return 0;
}

void listen_socket_done(struct listen_socket *sock)
{
	struct stat st;

	if (sock->ino && lstat(sock->path, &st) == 0 && st.st_dev == sock->dev &&
	    st.st_ino == sock->ino)
		unlink(sock->path);
	close_fd(&sock->fd);
	*sock = (struct listen_socket)LISTEN_SOCKET_INIT;
}
