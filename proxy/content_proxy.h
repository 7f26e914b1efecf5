/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of content_store.h, answered by another server's socket.
 *
 * Two things do not cross a socket. Filters arrive parsed, so they are applied on this side, to the whole list;
 * and an ingest ends with the first call that fails: it has to be opened again. Nothing is done without waiting.
 */
#ifndef LIGHTER_PROXY_CONTENT_PROXY_H
#define LIGHTER_PROXY_CONTENT_PROXY_H

#include "content/content_store.h"

/** struct content_proxy_conf - table [proxy]; @address: path of the other server's socket */
struct content_proxy_conf {
	char *address;
};

/* open() makes no use of its root, and does not fail when nobody listens: calls then give UNAVAILABLE. */
extern const struct content_store_ops content_proxy_ops;

#endif
