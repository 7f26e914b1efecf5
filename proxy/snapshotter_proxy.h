/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of snapshotter.h, answered by another server's socket.
 *
 * Two things do not cross a socket. Filters arrive parsed, so they are applied on this side, to the whole
 * list. And snapshots have no id there: what walk() tells as id is the place in the other server's list, so
 * that a walk that goes on behind an id may miss a snapshot when an earlier one was removed meanwhile.
 */
#ifndef LIGHTER_PROXY_SNAPSHOTTER_PROXY_H
#define LIGHTER_PROXY_SNAPSHOTTER_PROXY_H

#include "snapshotters/snapshotter.h"

/**
 * struct snapshotter_proxy_conf - table [proxy]
 * @address: path of the other server's socket
 * @snapshotter: what requests name as their snapshotter; "" is fine for servers that have only one
 */
struct snapshotter_proxy_conf {
	char *address;
	char *snapshotter;
};

/* open() makes no use of its root, and does not fail when nobody listens: calls then give UNAVAILABLE. */
extern const struct snapshotter_ops snapshotter_proxy_ops;

#endif
