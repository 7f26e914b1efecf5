/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC's byte buffers to protobuf-c messages and back. Any thread.
 */
#ifndef LIGHTER_RPC_BUFFER_INTERNAL_H
#define LIGHTER_RPC_BUFFER_INTERNAL_H

#include <grpc/byte_buffer.h>
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/arena.h"
#include "base/err.h"

/** buffer_unpack() - decode @buffer, as codec_unpack() does */
ERR_CHECKED int buffer_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type,
			      struct arena *arena, ProtobufCMessage **ret_msg, struct err *err);

/**
 * buffer_split() - as buffer_unpack(), but for the value of one field of type bytes
 * @field: its number
 * @ret_bytes: that value, where it lies in @buffer, in @ret_n pieces in @arena
 */
ERR_CHECKED int buffer_split(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type,
			     uint32_t field, struct arena *arena, ProtobufCMessage **ret_msg,
			     const struct iovec **ret_bytes, size_t *ret_n, struct err *err);

/**
 * buffer_pack() - encode @msg, at most RPC_MAX_MESSAGE_BYTES
 * Return: 0 with a buffer for grpc_byte_buffer_destroy(), or -1 with ERR_RESOURCE_EXHAUSTED.
 */
ERR_CHECKED int buffer_pack(const ProtobufCMessage *msg, grpc_byte_buffer **ret_buffer,
			    size_t *ret_bytes, struct err *err);

#endif
