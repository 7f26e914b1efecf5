/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/health.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "grpc/health/v1/health.pb-c.h"

typedef Grpc__Health__V1__HealthCheckRequest CheckRequest;
typedef Grpc__Health__V1__HealthCheckResponse CheckResponse;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus ServingStatus;

#define SERVING         GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct entry {
	struct entry *next;
	bool serving;
	char name[];
};

/* One client's Watch; lies in the arena of its call. */
struct watcher {
	struct watcher *next;
	struct watcher **link;
	struct rpc_call *call;
	const char *service;
	ServingStatus told;
};

struct health {
	struct rpc_service service;

	pthread_mutex_t mutex; /* guards what follows; taken before a call's own lock */
	struct entry *entries;
	struct watcher *watchers;
	bool down;
};

/* The lock is held. */
static struct entry *find(struct health *health, const char *service)
{
	for (struct entry *e = health->entries; e; e = e->next)
		if (strcmp(e->name, service) == 0)
			return e;
	return NULL;
}

/* The lock is held. */
static ServingStatus state_of(struct health *health, const char *service)
{
	const struct entry *e = find(health, service);

	if (!e)
		return SERVICE_UNKNOWN;
	return e->serving ? SERVING : NOT_SERVING;
}

static int check(void *self, struct ctx *ctx, const ProtobufCMessage *msg,
		 ProtobufCMessage **ret_response, struct err *err)
{
	const CheckRequest *request = (const CheckRequest *)msg;
	struct health *health = self;
	CheckResponse *response = arena_alloc(ctx->arena, sizeof(*response));
	ServingStatus state;

	if (!response)
		return ctx_no_memory(err);
	pthread_mutex_lock(&health->mutex);
	state = state_of(health, request->service);
	pthread_mutex_unlock(&health->mutex);
	if (state == SERVICE_UNKNOWN)
		return err_set(err, ERR_NOT_FOUND, "unknown service '%s'", request->service);
	grpc__health__v1__health_check_response__init(response);
	response->status = state;
	*ret_response = &response->base;
	return 0;
}

/* The lock is held. A call that is over already is none of our concern: close() will come. */
static int tell(struct watcher *watcher, ServingStatus state, struct err *err)
{
	CheckResponse response;

	watcher->told = state;
	grpc__health__v1__health_check_response__init(&response);
	response.status = state;
	return rpc_call_send(watcher->call, &response.base, err);
}

static int watch_open(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		      struct err *err)
{
	const CheckRequest *request = (const CheckRequest *)msg;
	struct health *health = self;
	struct ctx *ctx = rpc_call_ctx(call);
	struct watcher *watcher = arena_zalloc(ctx->arena, sizeof(*watcher));

	if (!watcher)
		return ctx_no_memory(err);
	watcher->call = call;
	watcher->service = request->service; /* lives as long as the call */
	rpc_call_set_data(call, watcher);

	LOCK_GUARD(&health->mutex);
	watcher->next = health->watchers;
	watcher->link = &health->watchers;
	if (watcher->next)
		watcher->next->link = &watcher->next;
	health->watchers = watcher;
	if (tell(watcher, state_of(health, watcher->service), err) < 0)
		return -1;
	if (health->down)
		rpc_call_finish(call);
	return 0;
}

static void watch_close(void *self, struct rpc_call *call)
{
	struct health *health = self;
	struct watcher *watcher = rpc_call_data(call);

	if (!watcher)
		return;
	LOCK_GUARD(&health->mutex);
	*watcher->link = watcher->next;
	if (watcher->next)
		watcher->next->link = watcher->link;
}

static const struct rpc_stream_ops watch_ops = {.open = watch_open, .close = watch_close};

static const struct rpc_method methods[] = {
	{
		.name = "Check",
		.kind = RPC_UNARY,
		.flags = RPC_INLINE,
		.request = &grpc__health__v1__health_check_request__descriptor,
		.response = &grpc__health__v1__health_check_response__descriptor,
		.unary = check,
	},
	{
		.name = "Watch",
		.kind = RPC_SERVER_STREAM,
		.request = &grpc__health__v1__health_check_request__descriptor,
		.response = &grpc__health__v1__health_check_response__descriptor,
		.stream = &watch_ops,
	},
};

int health_new(struct health **ret_health, struct err *err)
{
	struct health *health = calloc(1, sizeof(*health));

	if (!health)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the health service");
	pthread_mutex_init(&health->mutex, NULL);
	health->service = (struct rpc_service){
		.name = "grpc.health.v1.Health",
		.methods = methods,
		.n_methods = ARRAY_LEN(methods),
		.self = health,
	};
	if (health_set(health, "", false, err) < 0) {
		health_free(health);
		return -1;
	}
	*ret_health = health;
	return 0;
}

void health_free(struct health *health)
{
	if (!health)
		return;
	while (health->entries) {
		struct entry *e = health->entries;

		health->entries = e->next;
		free(e);
	}
	pthread_mutex_destroy(&health->mutex);
	free(health);
}

/* Tell who watches @service, or everybody. The lock is held. */
static void tell_watchers(struct health *health, const char *service)
{
	struct err err;

	for (struct watcher *w = health->watchers; w; w = w->next) {
		ServingStatus state = state_of(health, w->service);

		if (service && strcmp(w->service, service) != 0)
			continue;
		if (state != w->told && tell(w, state, &err) < 0)
			continue; /* its call is over */
		if (health->down)
			rpc_call_finish(w->call);
	}
}

int health_set(struct health *health, const char *service, bool serving, struct err *err)
{
	size_t size = strlen(service) + 1;
	struct entry *e;

	LOCK_GUARD(&health->mutex);
	e = find(health, service);
	if (!e) {
		e = calloc(1, sizeof(*e) + size);
		if (!e)
			return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for service '%s'",
				       service);
		memcpy(e->name, service, size);
		e->next = health->entries;
		health->entries = e;
	}
	e->serving = serving && !health->down;
	tell_watchers(health, service);
	return 0;
}

void health_shutdown(struct health *health)
{
	LOCK_GUARD(&health->mutex);
	health->down = true;
	for (struct entry *e = health->entries; e; e = e->next)
		e->serving = false;
	tell_watchers(health, NULL);
}

const struct rpc_service *health_service(struct health *health)
{
	return &health->service;
}
