/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd.services.content.v1 requests to content_store_ops and back, the same for every store.
 */
#ifndef LIGHTER_CONTENT_SERVICE_H
#define LIGHTER_CONTENT_SERVICE_H

#include "base/err.h"
#include "content/content_store.h"
#include "rpc/server.h"

struct content_service;

/** content_service_new() - serve @ops with the @self that its open() gave; both are borrowed */
ERR_CHECKED int content_service_new(const struct content_store_ops *ops, void *self,
				    struct content_service **ret_service, struct err *err);
void content_service_free(struct content_service *service);

/** content_service_rpc() - for rpc_server_add(); lives as long as @service */
const struct rpc_service *content_service_rpc(struct content_service *service);

#endif
