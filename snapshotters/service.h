/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd.services.snapshots.v1 requests to snapshotter_ops and back, the same for every backend.
 */
#ifndef LIGHTER_SNAPSHOTTERS_SERVICE_H
#define LIGHTER_SNAPSHOTTERS_SERVICE_H

#include "base/err.h"
#include "rpc/server.h"
#include "snapshotters/snapshotter.h"

struct snapshot_service;

/** snapshot_service_new() - serve @ops with the @self that its open() gave; both are borrowed */
ERR_CHECKED int snapshot_service_new(const struct snapshotter_ops *ops, void *self,
				     struct snapshot_service **ret_service, struct err *err);
void snapshot_service_free(struct snapshot_service *service);

/** snapshot_service_rpc() - for rpc_server_add(); lives as long as @service */
const struct rpc_service *snapshot_service_rpc(struct snapshot_service *service);

#endif
