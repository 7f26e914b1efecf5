/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/listener_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ctx.h"
#include "base/log.h"
#include "rpc/library_internal.h"

#define NSEC_PER_SEC 1000000000LL

/* Lines about refused connections come no faster than this. */
#define REFUSAL_LOG_NS (10 * NSEC_PER_SEC)

/* How long to leave the socket alone after a failure that trying again at once would only repeat. */
#define BACKOFF_MS 100

/* Sockets have inode numbers of their own, which tell a descriptor from a later one of the same number. */
struct connection {
	int fd;
	ino_t ino;
};

struct listener {
	pthread_t thread;
	int fd;
	int wake_fd;
	int spare_fd; /* given up to accept, and close, a connection when descriptors have run out */
	listener_fn fn;
	void *arg;

	/* What was handed on; gRPC does not say when it closes one. For the thread alone. */
	struct connection *connections;
	unsigned int n_connections;
	unsigned int max_connections;
	int64_t logged_ns;
	uint64_t n_refused;
};

static int open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Forget the connections that have been closed since. */
static void sweep(struct listener *l)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < l->n_connections; i++) {
		struct connection *c = &l->connections[i];
		struct stat st;

		if (fstat(c->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == c->ino)
			l->connections[n++] = *c;
	}
	l->n_connections = n;
}

static void refused(struct listener *l, const char *why)
{
	int64_t now_ns = monotonic_ns();

	l->n_refused++;
	if (l->logged_ns && now_ns - l->logged_ns < REFUSAL_LOG_NS)
		return;
	l->logged_ns = now_ns;
	log_event(LOG_WARN, "connections refused", LOG_STR("why", why),
		  LOG_INT("refused", (int64_t)l->n_refused));
}

static void take(struct listener *l, int fd)
{
	struct stat st;

	if (l->n_connections == l->max_connections)
		sweep(l);
	if (l->n_connections == l->max_connections || fstat(fd, &st) < 0) {
		refused(l, "too many connections");
		close(fd);
		return;
	}
	l->connections[l->n_connections++] = (struct connection){.fd = fd, .ino = st.st_ino};
	l->fn(l->arg, fd);
}

/*
 * Without a descriptor to spare, the connection would stay in the backlog, and the socket readable: its
 * client would wait for ever, and we would spin. Return: false when nothing could be done.
 */
static bool turn_away(struct listener *l)
{
	int fd;

	refused(l, "out of file descriptors or memory");
	if (l->spare_fd < 0)
		return false;
	close(l->spare_fd);
	fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		close(fd);
	l->spare_fd = open_spare();
	return fd >= 0;
}

/* Return: false to leave the socket alone for a while. */
static bool accept_all(struct listener *l)
{
	for (;;) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			take(l, fd);
			continue;
		}
		switch (errno) {
		case EAGAIN:
			return true;
		case EINTR:
		case ECONNABORTED:
			continue;
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			if (turn_away(l))
				continue;
			return false;
		default:
			refused(l, "accept failed");
			return false;
		}
	}
}

static void *run(void *arg)
{
	struct listener *l = arg;
	bool ready = true;

	for (;;) {
		struct pollfd fds[] = {{.fd = l->wake_fd, .events = POLLIN},
				       {.fd = l->fd, .events = POLLIN}};

		/* After a failure only the wake-up is waited for, and not for long. */
		(void)poll(fds, ready ? 2 : 1, ready ? -1 : BACKOFF_MS);
		if (fds[0].revents)
			return NULL;
		if (l->spare_fd < 0)
			l->spare_fd = open_spare();
		ready = accept_all(l);
	}
}

int listener_new(int fd, unsigned int max_connections, listener_fn fn, void *arg,
		 struct listener **ret_listener, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);
	struct listener *l;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_sys(err, "make the listening socket non-blocking");
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a listener");
	l->fd = -1; /* not ours before all has worked */
	l->fn = fn;
	l->arg = arg;
	l->max_connections = max_connections;
	l->connections = calloc(max_connections, sizeof(*l->connections));
	l->spare_fd = open_spare();
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!l->connections || l->spare_fd < 0 || l->wake_fd < 0) {
		err_sys(err, "start listening");
		goto fail;
	}
	l->fd = fd;
	if (thread_start(&l->thread, "rpc-accept", run, l, err) < 0) {
		l->fd = -1;
		goto fail;
	}
	*ret_listener = l;
	return 0;
fail:
	close_fd(&l->spare_fd);
	close_fd(&l->wake_fd);
	free(l->connections);
	free(l);
	return -1;
}

void listener_free(struct listener *l)
{
	if (!l)
		return;
	while (eventfd_write(l->wake_fd, 1) < 0 && errno == EINTR)
		;
	pthread_join(l->thread, NULL);
	close_fd(&l->fd);
	close_fd(&l->spare_fd);
	close_fd(&l->wake_fd);
	free(l->connections);
	free(l);
}
