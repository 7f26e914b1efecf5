/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/buffer_internal.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <string.h>

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

/* Of a message of 16 MiB as it usually comes (some 20 KiB each), with much to spare. */
#define PIECES_MAX 4096

/* The slices of @buffer; or, when somebody has cut it very small, one piece of it all. */
static int list_slices(grpc_byte_buffer *buffer, struct arena *arena, struct iovec **ret_pieces,
		       size_t *ret_n, struct err *err)
{
	grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
	bool joined = slices->count > PIECES_MAX;
	struct iovec *pieces = arena_array(arena, joined ? 1 : slices->count, sizeof(*pieces));
	uint8_t *to = joined ? arena_alloc(arena, slices->length) : NULL;

	if (!pieces || (joined && !to))
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "a message of %zu bytes: the call's memory is used up",
			       slices->length);
	if (joined)
		pieces[0] = (struct iovec){to, slices->length};
	for (size_t i = 0; i < slices->count; i++) {
		void *data = GRPC_SLICE_START_PTR(slices->slices[i]);
		size_t len = GRPC_SLICE_LENGTH(slices->slices[i]);

		if (joined)
			to = (uint8_t *)mempcpy(to, data, len);
		else
			pieces[i] = (struct iovec){data, len};
	}
	*ret_pieces = pieces;
	*ret_n = joined ? 1 : slices->count;
	return 0;
}

int buffer_split(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type, uint32_t field,
		 struct arena *arena, ProtobufCMessage **ret_msg, const struct iovec **ret_bytes,
		 size_t *ret_n, struct err *err)
{
	struct codec_parts parts;
	struct iovec *pieces;
	size_t n;

	/* The server accepts no compressed messages. */
	if (buffer->data.raw.compression != GRPC_COMPRESS_NONE)
		return err_set(err, ERR_UNIMPLEMENTED, "the message is compressed");
	if (list_slices(buffer, arena, &pieces, &n, err) < 0 ||
	    codec_split(pieces, n, field, arena, &parts, err) < 0 ||
	    codec_unpack(type, parts.rest, parts.rest_len, arena, ret_msg, err) < 0)
		return -1;
	*ret_bytes = parts.bytes;
	*ret_n = parts.n_bytes;
	return 0;
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
