/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/server.h"

#include <errno.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/thread.h"
#include "rpc/library_internal.h"
#include "rpc/listener_internal.h"
#include "rpc/server_internal.h"

#define DEFAULT_WORKERS         16
#define DEFAULT_MAX_CALLS       4096
#define DEFAULT_MAX_CONNECTIONS 4096
#define DEFAULT_MAX_QUEUE_BYTES ((size_t)4 << 20)

/* Calls requested of gRPC at any time, of each method and of unknown methods: so many may arrive at once
 * before the poller must ask for more. */
#define REQUESTED_PER_METHOD 4

/* Of one connection. containerd keeps a stream open for each blob being written or read. */
#define MAX_STREAMS_PER_CONNECTION 1024

/* gRPC's default of 8 KiB is near what tracing headers may take. */
#define MAX_METADATA_BYTES (64 << 10)

/* What gRPC may hold in received bytes, all connections together. */
#define RESOURCE_QUOTA_BYTES ((size_t)512 << 20)

/* So many events may arrive before a job of rpc_call_soon() goes to a worker. */
#define SOON_EVENTS_MAX 64

#define SWEEP_NS              (15 * INT64_C(1000000000))
#define METHOD_PATH_MAX_BYTES 256
#define NSEC_PER_SEC          1000000000LL
#define NSEC_PER_MSEC         1000000LL

/* --- new, add -------------------------------------------------------------------------------------- */

static grpc_arg int_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_server *core_server(void)
{
	grpc_resource_quota *quota = grpc_resource_quota_create("rpc-server");
	grpc_server *core;
	grpc_arg args[] = {
		int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MAX_MESSAGE_BYTES),
		int_arg(GRPC_ARG_MAX_METADATA_SIZE, MAX_METADATA_BYTES),
		int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, MAX_STREAMS_PER_CONNECTION),
		/* gRPC inflates a message before it looks at its limit: 1 MiB may become 1 GiB.
		 * containerd never compresses; who does is told UNIMPLEMENTED. */
		int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
			1 << GRPC_COMPRESS_NONE),
		int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
		/* Parts that would only cost time and memory here. */
		int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
		int_arg(GRPC_ARG_ENABLE_CENSUS, 0),
		int_arg(GRPC_ARG_ENABLE_LOAD_REPORTING, 0),
		int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
		int_arg(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
		int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
		/* Only gRPC's own clients are polite about pings; Go's ping with every answer. */
		int_arg(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0),
		{.type = GRPC_ARG_POINTER,
		 .key = (char *)GRPC_ARG_RESOURCE_QUOTA,
		 .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
	};
	const grpc_channel_args channel_args = {.num_args = ARRAY_LEN(args), .args = args};

	grpc_resource_quota_resize(quota, RESOURCE_QUOTA_BYTES);
	core = grpc_server_create(&channel_args, NULL);
	grpc_resource_quota_unref(quota);
	return core;
}

static void set_defaults(struct rpc_server_options *options)
{
	if (!options->n_workers)
		options->n_workers = DEFAULT_WORKERS;
	if (!options->max_calls)
		options->max_calls = DEFAULT_MAX_CALLS;
	if (!options->max_connections)
		options->max_connections = DEFAULT_MAX_CONNECTIONS;
	if (!options->max_queue_bytes)
		options->max_queue_bytes = DEFAULT_MAX_QUEUE_BYTES;
}

int rpc_server_new(const struct rpc_server_options *options, struct rpc_server **ret_server,
		   struct err *err)
{
	struct rpc_server *server = calloc(1, sizeof(*server));

	if (server)
		server->stock = buf_stock_new();
	if (!server || !server->stock) {
		free(server);
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a server");
	}
	server->options = *options;
	set_defaults(&server->options);
	server->live.prev = &server->live;
	server->live.next = &server->live;
	pthread_mutex_init(&server->mutex, NULL);
	thread_cond_init(&server->changed);

	library_use();
	server->core = core_server();
	server->credentials = grpc_insecure_server_credentials_create();
	server->cq = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(server->core, server->cq, NULL);
	*ret_server = server;
	return 0;
}

int rpc_server_add(struct rpc_server *server, const struct rpc_service *service, struct err *err)
{
	struct method *methods;

	methods = realloc(server->methods,
			  (server->n_methods + service->n_methods) * sizeof(*methods));
	if (!methods && service->n_methods)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for service %s",
			       service->name);
	server->methods = methods;
	for (size_t i = 0; i < service->n_methods; i++) {
		const struct rpc_method *row = &service->methods[i];
		struct method *method = &server->methods[server->n_methods];
		char path[METHOD_PATH_MAX_BYTES];
		int n = snprintf(path, sizeof(path), "/%s/%s", service->name, row->name);

		if (n < 0 || (size_t)n >= sizeof(path))
			return err_set(err, ERR_INTERNAL, "service %s has a name that is too long",
				       service->name);
		/* A stream that sends more than one message is read by stream.c. */
		method->service = service;
		method->row = row;
		method->registered = grpc_server_register_method(
			server->core, path, NULL,
			row->kind == RPC_BIDI_STREAM ? GRPC_SRM_PAYLOAD_NONE
						     : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
			0);
		if (!method->registered)
			return err_set(err, ERR_INTERNAL, "method %s was added twice", path);
		server->n_methods++;
	}
	return 0;
}

/* --- calls as they arrive -------------------------------------------------------------------------- */

static void arrived(struct rpc_tag *tag, bool ok);

/* Ask gRPC for one more call of @method. Without memory for it there is one less waiting from now on. */
static void request(struct rpc_server *server, const struct method *method)
{
	struct rpc_call *call = call_new(server, method);
	grpc_call_error r;

	if (!call) {
		log_event(LOG_ERROR, "no memory to take up calls");
		return;
	}
	call->request_tag.done = arrived;
	GIVE_TAG(&call->request_tag);
	if (!method)
		r = grpc_server_request_call(server->core, &call->core, &call->details,
					     &call->metadata, server->cq, server->cq,
					     &call->request_tag);
	else if (method->row->kind == RPC_BIDI_STREAM)
		r = grpc_server_request_registered_call(server->core, method->registered,
							&call->core, &call->deadline,
							&call->metadata, NULL, server->cq,
							server->cq, &call->request_tag);
	else
		r = grpc_server_request_registered_call(server->core, method->registered,
							&call->core, &call->deadline,
							&call->metadata, &call->payload, server->cq,
							server->cq, &call->request_tag);
	if (r == GRPC_CALL_OK)
		return;
	log_event(LOG_ERROR, "request of calls refused",
		  LOG_STR("error", grpc_call_error_to_string(r)));
	call_drop(call);
}

static bool service_known(const struct rpc_server *server, const char *name, size_t len)
{
	for (size_t i = 0; i < server->n_methods; i++) {
		const char *known = server->methods[i].service->name;

		if (strlen(known) == len && memcmp(known, name, len) == 0)
			return true;
	}
	return false;
}

/* "/service/method", or whatever the client made of it. */
static void explain_unknown(const struct rpc_call *call, struct err *err)
{
	const char *path = (const char *)GRPC_SLICE_START_PTR(call->details.method);
	size_t len = GRPC_SLICE_LENGTH(call->details.method);
	const char *slash = len > 0 && path[0] == '/' ? memchr(path + 1, '/', len - 1) : NULL;
	int shown = (int)(len < METHOD_PATH_MAX_BYTES ? len : METHOD_PATH_MAX_BYTES);

	if (!slash)
		err_set(err, ERR_UNIMPLEMENTED, "malformed method name: '%.*s'", shown, path);
	else if (!service_known(call->server, path + 1, (size_t)(slash - path) - 1))
		err_set(err, ERR_UNIMPLEMENTED, "unknown service in '%.*s'", shown, path);
	else
		err_set(err, ERR_UNIMPLEMENTED, "unknown method '%.*s'", shown, path);
}

/* One line a second says it for all of them. */
static void log_refusal(struct rpc_server *server, const struct err *err)
{
	int64_t now_ns = monotonic_ns();

	LOCK_GUARD(&server->mutex);
	if (now_ns - server->refusal_logged_ns < NSEC_PER_SEC)
		return;
	server->refusal_logged_ns = now_ns;
	log_event(LOG_WARN, "calls refused", LOG_ERR(err));
}

/* Takes the caller's reference. */
static void dispatch(struct rpc_call *call, unsigned int n_live)
{
	struct rpc_server *server = call->server;
	struct err err;

	if (n_live > server->options.max_calls) {
		err_set(&err, ERR_RESOURCE_EXHAUSTED, "more than %u calls at once",
			server->options.max_calls);
		log_refusal(server, &err);
		call_refuse(call, &err);
		call_unref(call);
	} else if (!call->method) {
		explain_unknown(call, &err);
		call_answer_error(call, &err, false);
		call_unref(call);
	} else if (call->method->row->kind == RPC_UNARY) {
		unary_begin(call);
	} else {
		stream_begin(call);
	}
}

static void arrived(struct rpc_tag *tag, bool ok)
{
	struct rpc_call *call = TAG_CALL(tag, request_tag);
	const struct method *method = call->method;
	struct rpc_server *server = call->server;

	if (!ok || !call->core) { /* the server is being shut down */
		call_drop(call);
		return;
	}
	if (!method)
		call->deadline = call->details.deadline;
	/* Asking for the next call afterwards keeps that out of this call's latency; there are others
	 * waiting meanwhile. */
	dispatch(call, call_begin(call));
	request(server, method);
}

/* --- the poller ------------------------------------------------------------------------------------ */

static gpr_timespec from_ns(int64_t ns)
{
	return (gpr_timespec){.tv_sec = ns / NSEC_PER_SEC,
			      .tv_nsec = (int32_t)(ns % NSEC_PER_SEC),
			      .clock_type = GPR_CLOCK_MONOTONIC};
}

static bool any_live(struct rpc_server *server)
{
	LOCK_GUARD(&server->mutex);
	return server->n_live > 0;
}

/*
 * Cancelling under the lock: it keeps the call on the list, and so from being given back to gRPC. gRPC runs
 * none of our code in there, and the lock is not held over any other of its functions.
 */
void server_cancel_stalled(struct rpc_server *server, int64_t now_ns)
{
	size_t queued = atomic_load_explicit(&server->queued_bytes, memory_order_relaxed);
	int64_t stall_ns = queued > QUEUED_BYTES_MAX / 2 ? CROWDED_STALL_NS : STALL_NS;

	LOCK_GUARD(&server->mutex);
	for (struct rpc_call *call = server->live.next; call != &server->live; call = call->next) {
		int64_t since_ns =
			atomic_load_explicit(&call->sending_since_ns, memory_order_relaxed);

		if (!since_ns || now_ns - since_ns < stall_ns)
			continue;
		log_event(LOG_WARN, "call cancelled: its client does not read",
			  LOG_STR("method", call->method ? call->method->row->name : ""));
		grpc_call_cancel_with_status(call->core, GRPC_STATUS_RESOURCE_EXHAUSTED,
					     "the client does not read", NULL);
	}
}

/* Hands what had to wait for the events at hand to the pool. */
static void flush_waiting(struct rpc_server *server)
{
	struct rpc_call *call = server->waiting;

	if (!call)
		return;
	server->waiting = NULL;
	call_run(call, call->job.run);
}

void server_serve_soon(struct rpc_call *call)
{
	flush_waiting(call->server);
	call->server->waiting = call;
}

void server_run(struct rpc_server *server, struct pool_job *job)
{
	struct err err;

	if (pool_submit(server->pool, job, &err) == 0)
		return;
	/* The queue has no limit of its own: that of calls alive is one. */
	log_event(LOG_ERROR, "job refused", LOG_ERR(&err));
	abort();
}

/*
 * Runs work for many calls on a worker that is idle, or else here: in the pool's queue it could stand behind calls that
 * take minutes, or wait for it.
 */
static void run_soon(struct rpc_server *server, struct pool_job *job)
{
	if (!pool_hand_over(server->pool, job))
		job->run(job);
}

/* Work for many calls waits until all that has arrived has been begun, but not for arrivals without end. */
static void flush_soon(struct rpc_server *server)
{
	struct pool_job *job = server->soon;

	if (!job || server->n_since_soon++ < SOON_EVENTS_MAX)
		return;
	server->soon = NULL;
	run_soon(server, job);
}

void rpc_call_soon(struct rpc_call *call, bool may_wait, struct pool_job *job)
{
	struct rpc_server *server = call->server;

	if (may_wait) {
		job->run(job);
		return;
	}
	if (server->soon)
		run_soon(server, server->soon);
	server->soon = job;
	server->n_since_soon = 0;
}

/* The next event; while something waits to be served, only one that is there already. */
static grpc_event next_event(struct rpc_server *server)
{
	gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);

	if (server->waiting || server->soon)
		deadline = gpr_inf_past(GPR_CLOCK_MONOTONIC);
	else if (any_live(server)) /* an idle server does not wake up */
		deadline = from_ns(server->swept_ns + SWEEP_NS);
	return grpc_completion_queue_next(server->cq, deadline, NULL);
}

static void sweep(struct rpc_server *server)
{
	int64_t now_ns = monotonic_ns();

	if (now_ns - server->swept_ns < SWEEP_NS)
		return;
	server_cancel_stalled(server, now_ns);
	server->swept_ns = now_ns;
}

static void end_polling(struct rpc_server *server)
{
	LOCK_GUARD(&server->mutex);

	server->polled_out = true;
	pthread_cond_broadcast(&server->changed);
}

/* What this thread does itself when another polls: of two things the one that more calls wait for. */
static struct pool_job *take_own_work(struct rpc_server *server)
{
	struct pool_job *job = server->soon;

	if (job) {
		server->soon = NULL;
		flush_waiting(server);
		return job;
	}
	job = &server->waiting->job;
	server->waiting = NULL;
	return job;
}

/* Be the poller, until another worker is or the queue is at its end. */
static void poll_events(struct pool_job *job)
{
	struct rpc_server *server =
		(struct rpc_server *)((char *)job - offsetof(struct rpc_server, poll_job));

	for (;;) {
		grpc_event event = next_event(server);

		if (event.type == GRPC_QUEUE_TIMEOUT && (server->waiting || server->soon)) {
			bool for_many = server->soon;
			struct pool_job *own = take_own_work(server);

			/* From the moment of handing over the server's fields are another's. */
			if (pool_hand_over(server->pool, &server->poll_job)) {
				own->run(own);
				return;
			}
			if (for_many)
				run_soon(server, own);
			else
				server_run(server, own);
		}
		flush_waiting(server);
		flush_soon(server);
		if (event.type == GRPC_QUEUE_SHUTDOWN) {
			end_polling(server);
			return;
		}
		if (event.type == GRPC_OP_COMPLETE) {
			struct rpc_tag *tag = event.tag;

			TAKE_TAG(tag);
			tag->done(tag, event.success != 0);
		}
		sweep(server);
	}
}

/* --- start, stop ----------------------------------------------------------------------------------- */

static void connected(void *arg, int fd)
{
	struct rpc_server *server = arg;

	grpc_server_add_channel_from_fd(server->core, fd, server->credentials);
}

/* Stop the poller, when nothing is left that could use the completion queue. */
static void stop_poller(struct rpc_server *server)
{
	grpc_completion_queue_shutdown(server->cq);
	LOCK_GUARD(&server->mutex);
	while (!server->polled_out)
		pthread_cond_wait(&server->changed, &server->mutex);
}

static void shut_down(struct rpc_tag *tag, bool ok)
{
	struct rpc_server *server =
		(struct rpc_server *)((char *)tag - offsetof(struct rpc_server, shutdown_tag));

	(void)ok;
	LOCK_GUARD(&server->mutex);
	server->shut_down = true;
	pthread_cond_broadcast(&server->changed);
}

/* Return: true when no call is left and gRPC has let go of all connections. */
static bool wait_for_end(struct rpc_server *server, const struct timespec *until)
{
	int r = 0;

	LOCK_GUARD(&server->mutex);
	while (r == 0 && (server->n_live || !server->shut_down))
		r = until ? pthread_cond_timedwait(&server->changed, &server->mutex, until)
			  : pthread_cond_wait(&server->changed, &server->mutex);
	return !server->n_live && server->shut_down;
}

/* gRPC turns new calls away, and tells us when the last connection is gone. */
static void begin_shutdown(struct rpc_server *server)
{
	server->shutdown_tag.done = shut_down;
	GIVE_TAG(&server->shutdown_tag);
	grpc_server_shutdown_and_notify(server->core, server->cq, &server->shutdown_tag);
}

static void cancel_all(struct rpc_server *server)
{
	atomic_store(&server->stopping, true);
	pthread_mutex_lock(&server->mutex);
	for (struct rpc_call *call = server->live.next; call != &server->live; call = call->next)
		atomic_store_explicit(&call->cancelled, true, memory_order_relaxed);
	pthread_mutex_unlock(&server->mutex);
	grpc_server_cancel_all_calls(server->core);
}

int rpc_server_start(struct rpc_server *server, struct err *err)
{
	/* One more, which polls. */
	if (pool_new("rpc", server->options.n_workers + 1, SIZE_MAX, &server->pool, err) < 0)
		return -1;
	grpc_server_start(server->core);
	server->swept_ns = monotonic_ns();
	server->poll_job.run = poll_events;
	if (pool_submit(server->pool, &server->poll_job, err) < 0)
		return -1;
	server->started = true;
	for (size_t i = 0; i < REQUESTED_PER_METHOD; i++) {
		request(server, NULL);
		for (size_t m = 0; m < server->n_methods; m++)
			request(server, &server->methods[m]);
	}
	if (listener_new(server->options.listen_fd, server->options.max_connections, connected,
			 server, &server->listener, err) < 0)
		return -1;
	server->options.listen_fd = -1;
	return 0;
}

void rpc_server_stop(struct rpc_server *server, unsigned int grace_ms)
{
	int64_t until_ns = monotonic_ns() + grace_ms * NSEC_PER_MSEC;
	const struct timespec until = {.tv_sec = until_ns / NSEC_PER_SEC,
				       .tv_nsec = until_ns % NSEC_PER_SEC};

	if (!server->started || server->stopped)
		return;
	server->stopped = true;
	listener_free(server->listener);
	server->listener = NULL;
	begin_shutdown(server);
	if (!wait_for_end(server, &until)) {
		cancel_all(server);
		(void)wait_for_end(server, NULL);
	}
	stop_poller(server);
}

/* gRPC wants a queue to be empty at its end, and nobody has polled this one. */
static void drain(grpc_completion_queue *cq)
{
	grpc_completion_queue_shutdown(cq);
	while (grpc_completion_queue_next(cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
	       GRPC_QUEUE_SHUTDOWN)
		;
}

void rpc_server_free(struct rpc_server *server)
{
	if (!server)
		return;
	rpc_server_stop(server, 0);
	pool_free(server->pool);
	if (!server->started)
		drain(server->cq);
	grpc_server_destroy(server->core);
	grpc_completion_queue_destroy(server->cq);
	grpc_server_credentials_release(server->credentials);
	call_cache_done(server);
	close_fd(&server->options.listen_fd);
	pthread_cond_destroy(&server->changed);
	pthread_mutex_destroy(&server->mutex);
	buf_stock_unref(server->stock);
	free(server->methods);
	free(server);
}
