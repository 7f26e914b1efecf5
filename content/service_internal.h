/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the service's files share: service.c has the unary methods and the table, service_list.c,
 * service_read.c and service_write.c a stream each.
 */
#ifndef LIGHTER_CONTENT_SERVICE_INTERNAL_H
#define LIGHTER_CONTENT_SERVICE_INTERNAL_H

#include "containerd/services/content/v1/content.pb-c.h"
#include "content/service.h"

#define MSG(name)  Containerd__Services__Content__V1__##name
#define TYPE(name) (&containerd__services__content__v1__##name##__descriptor)

/* Field numbers of content.proto, for messages that are not decoded or encoded as a whole. */
#define WRITE_REQUEST_DATA   6
#define READ_RESPONSE_DATA   2
#define READ_RESPONSE_OFFSET 1

struct content_service {
	const struct content_store_ops *ops;
	void *self;
	struct rpc_service rpc;
};

extern const struct rpc_stream_ops content_list_ops;
extern const struct rpc_stream_ops content_read_ops;
extern const struct rpc_stream_ops content_write_ops;

/** content_encode_info() - in @arena, labels borrowed; NULL: no memory */
MSG(Info) * content_encode_info(struct arena *arena, const struct blob_info *info);

#endif
