/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any content_store_ops behind a real socket, in the process of the test.
 */
#ifndef LIGHTER_TESTS_SUPPORT_CONTENT_SERVER_H
#define LIGHTER_TESTS_SUPPORT_CONTENT_SERVER_H

#include "content/content_store.h"

struct content_server;

/** content_server_start() - serve @ops, opened as @self, on the socket @path; the test fails if it cannot */
struct content_server *content_server_start(const char *path, const struct content_store_ops *ops,
					    void *self);

/** content_server_stop() - wait for the calls under way, and end; @ops stay open. Accepts NULL. */
void content_server_stop(struct content_server *server);

#endif
