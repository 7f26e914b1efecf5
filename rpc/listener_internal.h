/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that accepts connections and hands them on. gRPC can listen by itself only on an address that
 * it binds; ours is bound by the caller, or by systemd.
 */
#ifndef LIGHTER_RPC_LISTENER_INTERNAL_H
#define LIGHTER_RPC_LISTENER_INTERNAL_H

#include "base/err.h"

struct listener;

/** listener_fn - a new connection, non-blocking; taken over */
typedef void (*listener_fn)(void *arg, int fd);

/**
 * listener_new() - start accepting on @fd, which is taken over when this succeeds
 * @max_connections: alive at once; further ones are closed as soon as they are accepted
 */
ERR_CHECKED int listener_new(int fd, unsigned int max_connections, listener_fn fn, void *arg,
			     struct listener **ret_listener, struct err *err);

/** listener_free() - stop accepting, close the socket. Connections stay as they are. Accepts NULL. */
void listener_free(struct listener *listener);

#endif
