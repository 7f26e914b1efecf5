/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/content_server.h"

#include <stdlib.h>

#include "content/service.h"
#include "rpc/server.h"
#include "tests/support/listening.h"
#include "tests/support/test.h"

#define GRACE_MS 60000

struct content_server {
	struct rpc_server *rpc;
	struct content_service *service;
};

struct content_server *content_server_start(const char *path, const struct content_store_ops *ops,
					    void *self)
{
	struct rpc_server_options options = {.n_workers = 8};
	struct content_server *server = calloc(1, sizeof(*server));
	struct err err = ERR_INIT;

	assert_non_null(server);
	options.listen_fd = listening_socket(path);
	assert_ok(content_service_new(ops, self, &server->service, &err), &err);
	assert_ok(rpc_server_new(&options, &server->rpc, &err), &err);
	assert_ok(rpc_server_add(server->rpc, content_service_rpc(server->service), &err), &err);
	assert_ok(rpc_server_start(server->rpc, &err), &err);
	return server;
}

void content_server_stop(struct content_server *server)
{
	if (!server)
		return;
	rpc_server_stop(server->rpc, GRACE_MS);
	rpc_server_free(server->rpc);
	content_service_free(server->service);
	free(server);
}
