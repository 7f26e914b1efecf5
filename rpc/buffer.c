/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/buffer_internal.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>

#include "rpc/codec.h"
#include "rpc/server.h"

int buffer_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type,
		  struct arena *arena, ProtobufCMessage **ret_msg, struct err *err)
{
	grpc_byte_buffer_reader reader;
	grpc_slice slice;
	int r;

	if (!grpc_byte_buffer_reader_init(&reader, buffer))
		return err_set(err, ERR_INVALID_ARGUMENT, "message cannot be decompressed");
	/* Small messages arrive in one piece, which is read where it lies. */
	if (buffer->data.raw.slice_buffer.count == 1)
		slice = grpc_slice_ref(buffer->data.raw.slice_buffer.slices[0]);
	else
		slice = grpc_byte_buffer_reader_readall(&reader);
	r = codec_unpack(type, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice), arena,
			 ret_msg, err);
	grpc_slice_unref(slice);
	grpc_byte_buffer_reader_destroy(&reader);
	return r;
}

int buffer_pack(const ProtobufCMessage *msg, grpc_byte_buffer **ret_buffer, size_t *ret_bytes,
		struct err *err)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	grpc_slice slice;

	if (len > RPC_MAX_MESSAGE_BYTES)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "%s of %zu bytes is larger than a message may be (%u)",
			       msg->descriptor->name, len, RPC_MAX_MESSAGE_BYTES);
	slice = grpc_slice_malloc(len);
	protobuf_c_message_pack(msg, GRPC_SLICE_START_PTR(slice));
	*ret_buffer = grpc_raw_byte_buffer_create(&slice, 1);
	*ret_bytes = len;
	grpc_slice_unref(slice);
	return 0;
}
