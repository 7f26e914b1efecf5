/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening Unix socket: one of our own making, or one the service manager hands over. Called before
 * threads start, since making one changes the umask for a moment.
 */
#ifndef LIGHTER_BASE_LISTEN_H
#define LIGHTER_BASE_LISTEN_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/un.h>

#include "base/compiler.h"
#include "base/err.h"

/**
 * struct listen_socket - a socket; starts as LISTEN_SOCKET_INIT
 * @fd: listening, non-blocking; -1: none, or passed on
 * @path: where it can be reached; "" when it has no path (an abstract name, or none)
 * @dev, @ino: of the socket file that we made; 0 for a socket that is not ours to delete
 */
struct listen_socket {
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	dev_t dev;
	ino_t ino;
};

#define LISTEN_SOCKET_INIT                                                                         \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/** listen_check_path() - is @path absolute, and short enough for a socket address? */
ERR_CHECKED int listen_check_path(const char *path, struct err *err);

/**
 * listen_inherited() - take over the socket of socket activation (sd_listen_fds(3)): LISTEN_PID, LISTEN_FDS
 *
 * The variables are removed from the environment, so that nobody we start takes them for his.
 * Return: 0; 1 when there is none; or -1 when what we were given is not one listening Unix stream socket.
 */
ERR_CHECKED int listen_inherited(struct listen_socket *ret_socket, struct err *err);

/**
 * listen_at() - listen at @path, whose directory exists
 * @mode: of the socket file, which is never wider than this, not for an instant
 * @gid: its group, or (gid_t)-1 for ours
 *
 * A socket file that nobody listens on any more is replaced.
 * Return: 0, or -1 with ERR_UNAVAILABLE when somebody listens there, with ERR_FAILED_PRECONDITION when something
 * that is no socket stands there; that stays as it is.
 */
ERR_CHECKED int listen_at(const char *path, mode_t mode, gid_t gid,
			  struct listen_socket *ret_socket, struct err *err);

/** listen_socket_done() - close the socket, delete its file if it is still the one we made */
void listen_socket_done(struct listen_socket *sock);

#endif
