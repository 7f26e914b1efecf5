/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/rpc/rig.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "rpc/codec.h"
#include "rpc/server_internal.h"

/* --- the service ----------------------------------------------------------------------------------- */

static int echo(void *self, struct ctx *ctx, const ProtobufCMessage *msg, ProtobufCMessage **ret,
		struct err *err)
{
	const Note *request = (const Note *)msg;
	Note *note = arena_alloc(ctx->arena, sizeof(*note));

	(void)self;
	if (!note)
		return ctx_no_memory(err);
	lighter__test__note__init(note);
	note->text = request->text;
	note->data = request->data;
	note->tags = request->tags;
	note->n_tags = request->n_tags;
	note->labels = request->labels;
	note->n_labels = request->n_labels;
	note->inner = request->inner;
	note->number = request->number;
	if (strcmp(request->text, "namespace?") == 0)
		note->text = (char *)ctx->ns;
	if (strcmp(request->text, "deadline?") == 0)
		note->number =
			ctx->deadline_ns == CTX_NO_DEADLINE ? 0 : ctx->deadline_ns - monotonic_ns();
	*ret = &note->base;
	return 0;
}

static int fail_(void *self, struct ctx *ctx, const ProtobufCMessage *msg, ProtobufCMessage **ret,
		 struct err *err)
{
	const Note *request = (const Note *)msg;

	(void)self;
	(void)ctx;
	(void)ret;
	return err_set(err, (enum err_code)request->number, "%.*s", (int)request->data.len,
		       (const char *)request->data.data);
}

static int silent(void *self, struct ctx *ctx, const ProtobufCMessage *msg, ProtobufCMessage **ret,
		  struct err *err)
{
	(void)self;
	(void)ctx;
	(void)msg;
	(void)ret;
	(void)err;
	return 0;
}

static int big(void *self, struct ctx *ctx, const ProtobufCMessage *msg, ProtobufCMessage **ret,
	       struct err *err)
{
	Note *note;

	if (echo(self, ctx, msg, ret, err) < 0)
		return -1;
	note = (Note *)*ret;
	note->data.len = (size_t)((const Note *)msg)->size;
	note->data.data = arena_zalloc(ctx->arena, note->data.len);
	return note->data.data ? 0 : ctx_no_memory(err);
}

static int wait_(void *self, struct ctx *ctx, const ProtobufCMessage *msg, ProtobufCMessage **ret,
		 struct err *err)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	struct rig *rig = self;
	int r = 0;

	atomic_fetch_add(&rig->n_waiting, 1);
	while (!atomic_load(&rig->released) && r == 0) {
		nanosleep(&pause, NULL);
		r = ctx_check(ctx, err);
	}
	atomic_fetch_sub(&rig->n_waiting, 1);
	return r < 0 ? -1 : echo(self, ctx, msg, ret, err);
}

/* A call of Later that is to be answered. */
struct kept {
	struct kept *next;
	struct rpc_call *call;
	const Note *request;
};

static ProtobufCMessage *later_note(struct rpc_call *call, const Note *request)
{
	Note *note = arena_alloc(rpc_call_ctx(call)->arena, sizeof(*note));

	assert_non_null(note);
	lighter__test__note__init(note);
	note->text = request->text;
	return &note->base;
}

void rig_answer_kept(struct rig *rig)
{
	struct kept *kept;

	pthread_mutex_lock(&rig->kept_lock);
	kept = rig->kept;
	rig->kept = NULL;
	pthread_mutex_unlock(&rig->kept_lock);
	while (kept) {
		struct kept *next = kept->next;
		struct err err = ERR_INIT;

		if (kept->request->number) {
			err_set(&err, (enum err_code)kept->request->number, "later");
			rpc_call_answer(kept->call, NULL, &err);
		} else {
			rpc_call_answer(kept->call, later_note(kept->call, kept->request), &err);
		}
		atomic_fetch_sub(&rig->n_kept, 1);
		kept = next;
	}
}

static void answer_job(struct pool_job *job)
{
	struct rig *rig = (struct rig *)((char *)job - offsetof(struct rig, answer_job));

	atomic_fetch_add(&rig->n_answer_jobs, 1);
	rig_answer_kept(rig);
}

/* Return: was there none before? */
static bool keep(struct rig *rig, struct rpc_call *call, const Note *request)
{
	struct kept *kept = arena_alloc(rpc_call_ctx(call)->arena, sizeof(*kept));
	bool first;

	assert_non_null(kept);
	pthread_mutex_lock(&rig->kept_lock);
	*kept = (struct kept){rig->kept, call, request};
	first = !rig->kept;
	rig->kept = kept;
	pthread_mutex_unlock(&rig->kept_lock);
	atomic_fetch_add(&rig->n_kept, 1);
	return first;
}

/*
 * Later: the text says how: "now" in the handler's result, "within" by rpc_call_answer() within the handler, "soon" by a
 * job for all, "kept" when the test says so, "worker" in the handler, but only where it may wait. @number is
 * the code to fail with, 0 for an answer.
 */
static int later(void *self, struct rpc_call *call, bool may_wait, const ProtobufCMessage *msg,
		 ProtobufCMessage **ret, struct err *err)
{
	const Note *request = (const Note *)msg;
	struct rig *rig = self;

	if (strcmp(request->text, "kept") == 0) {
		(void)keep(rig, call, request);
		return RPC_LATER;
	}
	if (strcmp(request->text, "soon") == 0) {
		if (keep(rig, call, request))
			rpc_call_soon(call, may_wait, &rig->answer_job);
		return RPC_LATER;
	}
	if (strcmp(request->text, "within") == 0) {
		rpc_call_answer(call, later_note(call, request), err);
		return RPC_LATER;
	}
	if (strcmp(request->text, "worker") == 0 && !may_wait)
		return RPC_WOULD_WAIT;
	if (request->number)
		return err_set(err, (enum err_code)request->number, "later");
	*ret = later_note(call, request);
	return 0;
}

/* Count: @number messages of @size bytes, numbered, as fast as the queue takes them. */
struct count {
	int64_t next;
	int64_t n;
	size_t size;
	uint8_t *data;
};

static int count_on(void *self, struct rpc_call *call, struct err *err)
{
	struct count *count = rpc_call_data(call);
	struct rig *rig = self;

	while (count->next < count->n) {
		Note note = LIGHTER__TEST__NOTE__INIT;
		int r;

		note.number = count->next;
		note.data.data = count->data;
		note.data.len = count->size;
		r = rpc_call_send(call, &note.base, err);
		if (r < 0)
			return -1;
		count->next++;
		if (atomic_load(&rig->most_sent) < (uint64_t)count->next * count->size)
			atomic_store(&rig->most_sent, (uint64_t)count->next * count->size);
		if (r > 0) {
			atomic_fetch_add(&rig->n_blocked, 1);
			return 0;
		}
	}
	rpc_call_finish(call);
	return 0;
}

static int count_open(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		      struct err *err)
{
	const Note *request = (const Note *)msg;
	struct arena *arena = rpc_call_ctx(call)->arena;
	struct count *count = arena_zalloc(arena, sizeof(*count));
	struct rig *rig = self;

	atomic_fetch_add(&rig->n_opened, 1);
	if (!count)
		return ctx_no_memory(err);
	count->n = request->number;
	count->size = (size_t)request->size;
	count->data = arena_zalloc(arena, count->size);
	rpc_call_set_data(call, count);
	if (strcmp(request->text, "fail") == 0)
		return err_set(err, ERR_ABORTED, "as you wish");
	return count_on(self, call, err);
}

/* Flood: sends without end, and does not care for the queue. */
static int flood_open(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		      struct err *err)
{
	const Note *request = (const Note *)msg;
	struct rig *rig = self;
	Note note = LIGHTER__TEST__NOTE__INIT;

	atomic_fetch_add(&rig->n_opened, 1);
	note.data.len = (size_t)request->size;
	note.data.data = arena_zalloc(rpc_call_ctx(call)->arena, note.data.len);
	if (!note.data.data)
		return ctx_no_memory(err);
	while (rpc_call_send(call, &note.base, err) >= 0)
		atomic_fetch_add(&rig->most_sent, note.data.len);
	atomic_fetch_add(&rig->n_flooded, 1);
	return -1;
}

static void close_(void *self, struct rpc_call *call)
{
	struct rig *rig = self;

	(void)call;
	atomic_fetch_add(&rig->n_closed, 1);
}

static int chat_open(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		     struct err *err)
{
	struct rig *rig = self;

	(void)err;
	atomic_fetch_add(&rig->n_opened, 1);
	return msg || rpc_call_data(call) ? err_set(err, ERR_INTERNAL, "not as new") : 0;
}

/* Chat: every message comes back; "fail" ends the call, "finish" does so well, "twice" comes back twice. */
static int chat_message(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
			struct err *err)
{
	const Note *note = (const Note *)msg;
	struct rig *rig = self;

	atomic_fetch_add(&rig->n_messages, 1);
	if (strcmp(note->text, "fail") == 0)
		return err_set(err, ERR_ABORTED, "as you wish");
	if (strcmp(note->text, "twice") == 0 && rpc_call_send(call, msg, err) < 0)
		return -1;
	if (rpc_call_send(call, msg, err) < 0)
		return -1;
	if (strcmp(note->text, "finish") == 0)
		rpc_call_finish(call);
	return 0;
}

static int chat_half_close(void *self, struct rpc_call *call, struct err *err)
{
	struct rig *rig = self;
	Note bye = LIGHTER__TEST__NOTE__INIT;

	atomic_fetch_add(&rig->n_half_closed, 1);
	bye.text = (char *)"bye";
	if (rpc_call_send(call, &bye.base, err) < 0)
		return -1;
	rpc_call_finish(call);
	return 0;
}

/* Brisk: as Chat, on the poller; but "slowly" is for a worker, and a call in which it was said is closed by one. */
static int brisk_message(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
			 struct err *err)
{
	struct rig *rig = self;

	if (strcmp(((const Note *)msg)->text, "slowly") == 0) {
		rpc_call_set_data(call, rig);
		return 1;
	}
	atomic_fetch_add(&rig->n_brisk, 1);
	return chat_message(self, call, msg, err);
}

static bool brisk_close_is_quick(const struct rpc_call *call)
{
	return !rpc_call_data(call);
}

/*
 * Pieces: the bytes of a message come back as its sender's would, all in one, with the number of pieces that
 * they came in; what else there was comes back too.
 */
static int pieces_message(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
			  struct err *err)
{
	const Note *note = (const Note *)msg;
	Note answer = LIGHTER__TEST__NOTE__INIT;
	const struct iovec *pieces;
	uint8_t *to;
	size_t n;

	(void)self;
	pieces = rpc_call_bytes(call, &n);
	if (note->data.len)
		return err_set(err, ERR_INTERNAL, "the bytes were decoded");
	for (size_t i = 0; i < n; i++)
		answer.data.len += pieces[i].iov_len;
	answer.data.data = malloc(answer.data.len + 1);
	if (!answer.data.data)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	to = answer.data.data;
	for (size_t i = 0; i < n; i++)
		to = (uint8_t *)mempcpy(to, pieces[i].iov_base, pieces[i].iov_len);
	answer.text = note->text;
	answer.number = (int64_t)n;
	n = (size_t)rpc_call_send(call, &answer.base, err);
	free(answer.data.data);
	return (int)n < 0 ? -1 : 0;
}

static int pieces_half_close(void *self, struct rpc_call *call, struct err *err)
{
	(void)self;
	(void)err;
	rpc_call_finish(call);
	return 0;
}

/* A message of @size zeros, put together by hand. */
static int zeros(struct rpc_call *call, size_t size, struct rpc_buf **ret_buf, size_t *ret_len,
		 struct err *err)
{
	struct rpc_buf *buf = rpc_buf_new(call, size + CODEC_BYTES_HEAD_MAX);
	size_t head;

	if (!buf)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	head = codec_put_bytes_head(rpc_buf_data(buf), 2, size);
	memset(rpc_buf_data(buf) + head, 0, size);
	*ret_buf = buf;
	*ret_len = head + size;
	return 0;
}

/* Quick: "none", "fail", or a message of @size zeros; "slowly" is left to open(), which sends @number of them. */
static int quick(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		 struct rpc_buf **ret_buf, size_t *ret_len, struct err *err)
{
	const Note *request = (const Note *)msg;

	(void)self;
	if (strcmp(request->text, "none") == 0)
		return 0;
	if (strcmp(request->text, "fail") == 0)
		return err_set(err, ERR_ABORTED, "as you wish");
	if (strcmp(request->text, "slowly") == 0)
		return 1;
	return zeros(call, (size_t)request->size, ret_buf, ret_len, err);
}

static int quick_open(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		      struct err *err)
{
	const Note *request = (const Note *)msg;
	struct rig *rig = self;
	struct rpc_buf *buf;
	size_t len;

	atomic_fetch_add(&rig->n_opened, 1);
	for (int64_t i = 0; i < request->number; i++) {
		if (zeros(call, (size_t)request->size, &buf, &len, err) < 0 ||
		    rpc_call_send_buf(call, buf, len, err) < 0)
			return -1;
	}
	rpc_call_finish(call);
	return 0;
}

/* Narrow: sends until it is told to wait, and ends. */
static int narrow_open(void *self, struct rpc_call *call, const ProtobufCMessage *msg,
		       struct err *err)
{
	Note note = LIGHTER__TEST__NOTE__INIT;
	struct rig *rig = self;
	int r = 0;

	atomic_fetch_add(&rig->n_opened, 1);
	note.size = ((const Note *)msg)->size;
	note.data.len = (size_t)note.size;
	note.data.data = arena_zalloc(rpc_call_ctx(call)->arena, note.data.len);
	while (r == 0) {
		r = rpc_call_send(call, &note.base, err);
		note.number++;
	}
	rpc_call_finish(call);
	return r < 0 ? -1 : 0;
}

static const struct rpc_stream_ops count_ops = {.open = count_open,
						.writable = count_on,
						.close = close_};
static const struct rpc_stream_ops flood_ops = {.open = flood_open, .close = close_};
static const struct rpc_stream_ops chat_ops = {.open = chat_open,
					       .message = chat_message,
					       .half_close = chat_half_close,
					       .close = close_};
static const struct rpc_stream_ops brisk_ops = {.open = chat_open,
						.message = chat_message,
						.message_quick = brisk_message,
						.half_close = chat_half_close,
						.close = close_,
						.close_is_quick = brisk_close_is_quick};
static const struct rpc_stream_ops pieces_ops = {.open = chat_open,
						 .message = pieces_message,
						 .half_close = pieces_half_close,
						 .close = close_};
static const struct rpc_stream_ops quick_ops = {.quick = quick,
						.open = quick_open,
						.close = close_};
static const struct rpc_stream_ops narrow_ops = {.open = narrow_open, .close = close_};
static const struct rpc_stream_ops hold_ops = {.open = chat_open, .close = close_};

#define TYPES                                                                                      \
	.request = &lighter__test__note__descriptor, .response = &lighter__test__note__descriptor

static const struct rpc_method methods[] = {
	{.name = "Echo", .kind = RPC_UNARY, .flags = RPC_INLINE, TYPES, .unary = echo},
	{.name = "Work", .kind = RPC_UNARY, TYPES, .unary = echo},
	{.name = "Fail", .kind = RPC_UNARY, .flags = RPC_INLINE, TYPES, .unary = fail_},
	{.name = "Silent", .kind = RPC_UNARY, TYPES, .unary = silent},
	{.name = "Big", .kind = RPC_UNARY, TYPES, .unary = big},
	{.name = "Wait", .kind = RPC_UNARY, TYPES, .unary = wait_},
	{.name = "Later", .kind = RPC_UNARY, TYPES, .later = later},
	{.name = "Count", .kind = RPC_SERVER_STREAM, TYPES, .stream = &count_ops},
	{.name = "Flood", .kind = RPC_SERVER_STREAM, TYPES, .stream = &flood_ops},
	{.name = "Chat", .kind = RPC_BIDI_STREAM, TYPES, .stream = &chat_ops},
	{.name = "Brisk",
	 .kind = RPC_BIDI_STREAM,
	 .flags = RPC_INLINE,
	 TYPES,
	 .stream = &brisk_ops},
	{.name = "Pieces", .kind = RPC_BIDI_STREAM, .bytes_field = 2, TYPES, .stream = &pieces_ops},
	{.name = "Quick", .kind = RPC_SERVER_STREAM, TYPES, .stream = &quick_ops},
	{.name = "Narrow",
	 .kind = RPC_SERVER_STREAM,
	 .queue_bytes = 10000,
	 TYPES,
	 .stream = &narrow_ops},
	{.name = "Hold", .kind = RPC_BIDI_STREAM, TYPES, .stream = &hold_ops},
};

/* --- the rig --------------------------------------------------------------------------------------- */

static void observe(void *arg, const struct rpc_call_end *end)
{
	struct rig *rig = arg;

	atomic_fetch_add(&rig->bytes_in, end->bytes_in);
	atomic_fetch_add(&rig->bytes_out, end->bytes_out);
	atomic_fetch_add(&rig->n_ended[end->code], 1);
}

int rig_listen(const struct rig *rig)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_true(strlen(rig->path) < sizeof(addr.sun_path));
	memcpy(addr.sun_path, rig->path, strlen(rig->path) + 1);
	unlink(rig->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, SOMAXCONN), 0);
	return fd;
}

static struct rpc_service *service_of(struct rig *rig)
{
	struct rpc_service *service = calloc(1, sizeof(*service));

	assert_non_null(service);
	*service = (struct rpc_service){.name = NOTES,
					.methods = methods,
					.n_methods = ARRAY_LEN(methods),
					.self = rig};
	return service;
}

void rig_start(struct rig *rig, const struct rpc_server_options *options)
{
	struct rpc_server_options ours = {0};
	struct err err;

	if (options)
		ours = *options;
	ours.listen_fd = rig_listen(rig);
	ours.on_end = observe;
	ours.on_end_arg = rig;
	assert_ok(rpc_server_new(&ours, &rig->server, &err), &err);
	if (!rig->service)
		rig->service = service_of(rig);
	assert_ok(rpc_server_add(rig->server, rig->service, &err), &err);
	assert_ok(rpc_server_start(rig->server, &err), &err);
}

void rig_stop(struct rig *rig, unsigned int grace_ms)
{
	rpc_server_stop(rig->server, grace_ms);
	rpc_server_free(rig->server);
	rig->server = NULL;
}

int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct err err;

	assert_non_null(rig);
	pthread_mutex_init(&rig->kept_lock, NULL);
	rig->answer_job.run = answer_job;
	rig->root = temp_root_new();
	rig->path = temp_root_path(rig->root, "s %.sock"); /* a path that is no good URI */
	rig_start(rig, NULL);
	assert_ok(rpc_client_new(rig->path, &rig->client, &err), &err);
	*state = rig;
	return 0;
}

int rig_teardown(void **state)
{
	struct rig *rig = *state;

	rpc_client_free(rig->client);
	if (rig->server)
		rig_stop(rig, 0);
	assert_int_equal(rig->n_opened, rig->n_closed);
	free(rig->service);
	free(rig->path);
	temp_root_free(rig->root);
	pthread_mutex_destroy(&rig->kept_lock);
	free(rig);
	return 0;
}

int rig_library_teardown(void **state)
{
	(void)state;
	rpc_library_done();
	return 0;
}

unsigned int rig_n_ended(const struct rig *rig)
{
	unsigned int n = 0;

	for (size_t i = 0; i < ARRAY_LEN(rig->n_ended); i++)
		n += atomic_load(&rig->n_ended[i]);
	return n;
}

struct at_least {
	const atomic_uint *counter;
	unsigned int n;
};

static bool is_at_least(void *arg)
{
	struct at_least *a = arg;

	return atomic_load(a->counter) >= a->n;
}

void rig_wait(const atomic_uint *counter, unsigned int n, const char *what)
{
	struct at_least a = {counter, n};

	wait_until(is_at_least, &a, what);
}

void caller_init(struct caller *caller)
{
	arena_init(&caller->arena, 256u << 20);
	caller->ctx = (struct ctx){.arena = &caller->arena,
				   .deadline_ns = monotonic_ns() + PATIENCE_NS,
				   .ns = ""};
}

void caller_done(struct caller *caller)
{
	arena_done(&caller->arena);
}

int rig_call(struct rig *rig, struct caller *caller, const char *method,
	     const ProtobufCMessage *request, Note **ret_note, struct err *err)
{
	ProtobufCMessage *response;
	char path[128];

	snprintf(path, sizeof(path), "/" NOTES "/%s", method);
	if (rpc_client_call(rig->client, &caller->ctx, path, NULL, 0, request,
			    &lighter__test__note__descriptor, &response, err) < 0)
		return -1;
	*ret_note = (Note *)response;
	return 0;
}

struct rpc_stream *rig_open(struct rig *rig, struct caller *caller, const char *method)
{
	struct rpc_stream *stream;
	char path[128];
	struct err err;

	snprintf(path, sizeof(path), "/" NOTES "/%s", method);
	assert_ok(rpc_stream_open(rig->client, &caller->ctx, path, NULL, 0,
				  &lighter__test__note__descriptor, &stream, &err),
		  &err);
	return stream;
}

struct rpc_stream *rig_ask(struct rig *rig, struct caller *caller, const char *method,
			   const Note *request)
{
	struct rpc_stream *stream = rig_open(rig, caller, method);
	struct err err;

	assert_ok(rpc_stream_send(stream, &request->base, &err), &err);
	assert_ok(rpc_stream_half_close(stream, &err), &err);
	return stream;
}

bool rig_is_quiet(void *arg)
{
	struct rpc_server *server = ((struct rig *)arg)->server;
	bool quiet;

	pthread_mutex_lock(&server->mutex);
	quiet = server->n_live == 0;
	pthread_mutex_unlock(&server->mutex);
	return quiet;
}

bool rig_is_served(void *arg)
{
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct caller caller;
	struct err err;
	Note *note;
	int r;

	caller_init(&caller);
	r = rig_call(arg, &caller, "Echo", &request.base, &note, &err);
	caller_done(&caller);
	return r == 0;
}

bool rig_is_deaf(void *arg)
{
	const struct rig *rig = arg;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	memcpy(addr.sun_path, rig->path, strlen(rig->path) + 1);
	r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return r < 0;
}

unsigned int n_open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}
