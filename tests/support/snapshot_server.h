/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any snapshotter_ops behind a real socket, in the process of the test.
 */
#ifndef LIGHTER_TESTS_SUPPORT_SNAPSHOT_SERVER_H
#define LIGHTER_TESTS_SUPPORT_SNAPSHOT_SERVER_H

#include "snapshotters/snapshotter.h"

struct snapshot_server;

/**
 * snapshot_server_start() - serve @ops, opened as @self, on the socket @path; the test fails if it cannot
 * @max_queue_bytes: as for struct rpc_server_options; 0: the default
 */
struct snapshot_server *snapshot_server_start(const char *path, const struct snapshotter_ops *ops,
					      void *self, size_t max_queue_bytes);

/** snapshot_server_stop() - wait for the calls under way, and end; @ops stay open. Accepts NULL. */
void snapshot_server_stop(struct snapshot_server *server);

#endif
