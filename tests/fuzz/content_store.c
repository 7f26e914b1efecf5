/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/content_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "content/config.h"
#include "content/local.h"
#include "content/service.h"
#include "rpc/codec.h"

static struct {
	char path[64];
	void *store;
	struct content_service *service;
} fuzz;

static void close_store(void)
{
	char *name = strrchr(fuzz.path, '/');
	struct err err;
	int fd;

	content_service_free(fuzz.service);
	local_content_ops.close(fuzz.store);
	*name++ = '\0';
	fd = open(fuzz.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fs_remove_tree(NULL, fd, name, &err) < 0)
		fprintf(stderr, "%s/%s stays\n", fuzz.path, name);
	close(fd);
}

static void open_store(void)
{
	static const struct content_conf conf = {.adopt = true};
	const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	struct err err;

	/* A log line for each failed call would be most of the work. */
	log_setup(LOG_ERROR, LOG_TEXT, "fuzz");
	snprintf(fuzz.path, sizeof(fuzz.path), "%s/lighter-fuzz-XXXXXX", dir);
	if (!mkdtemp(fuzz.path) ||
	    local_content_ops.open(fuzz.path, &conf, &fuzz.store, &err) < 0 ||
	    content_service_new(&local_content_ops, fuzz.store, &fuzz.service, &err) < 0)
		abort();
	atexit(close_store);
}

void *fuzz_store(void)
{
	if (!fuzz.store)
		open_store();
	return fuzz.store;
}

const struct rpc_service *fuzz_service(void)
{
	(void)fuzz_store();
	return content_service_rpc(fuzz.service);
}

const struct rpc_method *fuzz_method(const char *name)
{
	const struct rpc_service *service = fuzz_service();

	for (size_t i = 0; i < service->n_methods; i++)
		if (strcmp(service->methods[i].name, name) == 0)
			return &service->methods[i];
	abort();
}

/* --- the call --------------------------------------------------------------------------------------------- */

struct rpc_buf {
	uint8_t data[1];
};

struct ctx *rpc_call_ctx(struct rpc_call *call)
{
	return call->ctx;
}

void *rpc_call_data(const struct rpc_call *call)
{
	return call->data;
}

void rpc_call_set_data(struct rpc_call *call, void *data)
{
	call->data = data;
}

const struct iovec *rpc_call_bytes(const struct rpc_call *call, size_t *ret_n)
{
	*ret_n = call->n_bytes;
	return call->bytes;
}

static void tell(struct rpc_call *call, const uint8_t *data, size_t size)
{
	if (call->sent)
		call->sent(call->sent_arg, data, size);
}

void fuzz_encode(struct rpc_call *call, const ProtobufCMessage *msg)
{
	size_t size = protobuf_c_message_get_packed_size(msg);
	uint8_t *packed = malloc(size ? size : 1);
	struct err err;

	if (!packed)
		abort();
	if (protobuf_c_message_pack(msg, packed) != size ||
	    codec_check(msg->descriptor, packed, size, &err) < 0)
		abort();
	tell(call, packed, size);
	free(packed);
}

int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *msg, struct err *err)
{
	(void)err;
	fuzz_encode(call, msg);
	return call->is_slow;
}

/* Of exactly that size, so that AddressSanitizer sees the first byte behind it. */
struct rpc_buf *rpc_buf_new(struct rpc_call *call, size_t size)
{
	(void)call;
	return malloc(size ? size : 1);
}

uint8_t *rpc_buf_data(struct rpc_buf *buf)
{
	return buf->data;
}

void rpc_buf_free(struct rpc_buf *buf)
{
	free(buf);
}

int rpc_call_send_buf(struct rpc_call *call, struct rpc_buf *buf, size_t len, struct err *err)
{
	(void)err;
	tell(call, buf->data, len);
	free(buf);
	return call->is_slow;
}

void rpc_call_finish(struct rpc_call *call)
{
	call->is_finished = true;
}
