/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the fuzz targets of the content service: a local store on a memory file system if there is one, opened
 * once; and a call without gRPC, in place of rpc/stream.c and rpc/buf.c.
 */
#ifndef LIGHTER_TESTS_FUZZ_CONTENT_STORE_H
#define LIGHTER_TESTS_FUZZ_CONTENT_STORE_H

#include "content/content_store.h"
#include "rpc/server.h"

/**
 * struct rpc_call - what call backs are given
 * @bytes: see rpc_call_bytes()
 * @is_slow: its client never takes anything at once
 * @sent: told each encoded answer; may be NULL
 */
struct rpc_call {
	struct ctx *ctx;
	void *data;
	const struct iovec *bytes;
	size_t n_bytes;
	bool is_slow;
	bool is_finished;
	void (*sent)(void *arg, const uint8_t *data, size_t size);
	void *sent_arg;
};

/** fuzz_store() - the store, an operand of local_content_ops; deleted when the process exits */
void *fuzz_store(void);

/** fuzz_service() - the Content service around it */
const struct rpc_service *fuzz_service(void);

/** fuzz_method() - one of its methods by name */
const struct rpc_method *fuzz_method(const char *name);

/** fuzz_encode() - encode @msg, which must work, and give a message again */
void fuzz_encode(struct rpc_call *call, const ProtobufCMessage *msg);

#endif
