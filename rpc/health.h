/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standard gRPC health service (grpc/doc/health-checking.md): Check and Watch. Any thread.
 */
#ifndef LIGHTER_RPC_HEALTH_H
#define LIGHTER_RPC_HEALTH_H

#include <stdbool.h>

#include "base/err.h"
#include "rpc/server.h"

struct health;

/** health_new() - knows the service "" (the whole server), not serving yet */
ERR_CHECKED int health_new(struct health **ret_health, struct err *err);
void health_free(struct health *health);

/** health_set() - add or change a service's state; watchers hear of it */
ERR_CHECKED int health_set(struct health *health, const char *service, bool serving,
			   struct err *err);

/** health_shutdown() - everything is NOT_SERVING from now on, and watchers end */
void health_shutdown(struct health *health);

/** health_service() - for rpc_server_add(); lives as long as @health */
const struct rpc_service *health_service(struct health *health);

#endif
