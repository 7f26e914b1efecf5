/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/snapshot_server.h"

#include <stdlib.h>

#include "rpc/server.h"
#include "snapshotters/service.h"
#include "tests/support/listening.h"
#include "tests/support/test.h"

#define GRACE_MS 60000

struct snapshot_server {
	struct rpc_server *rpc;
	struct snapshot_service *service;
};

struct snapshot_server *snapshot_server_start(const char *path, const struct snapshotter_ops *ops,
					      void *self, size_t max_queue_bytes)
{
	struct rpc_server_options options = {.max_queue_bytes = max_queue_bytes, .n_workers = 4};
	struct snapshot_server *server = calloc(1, sizeof(*server));
	struct err err = ERR_INIT;

	assert_non_null(server);
	options.listen_fd = listening_socket(path);
	assert_ok(snapshot_service_new(ops, self, &server->service, &err), &err);
	assert_ok(rpc_server_new(&options, &server->rpc, &err), &err);
	assert_ok(rpc_server_add(server->rpc, snapshot_service_rpc(server->service), &err), &err);
	assert_ok(rpc_server_start(server->rpc, &err), &err);
	return server;
}

void snapshot_server_stop(struct snapshot_server *server)
{
	if (!server)
		return;
	rpc_server_stop(server->rpc, GRACE_MS);
	rpc_server_free(server->rpc);
	snapshot_service_free(server->service);
	free(server);
}
