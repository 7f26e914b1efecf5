/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Foreign bytes to protobuf-c messages. protobuf-c takes any bytes for a string and ends it silently at
 * the first NUL, so that two different keys could become one; here such messages are refused. Any thread.
 */
#ifndef LIGHTER_RPC_CODEC_H
#define LIGHTER_RPC_CODEC_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/arena.h"
#include "base/err.h"

/* Messages inside one another; containerd's own need 3. Decoding recurses once a level. */
#define CODEC_MAX_DEPTH 32

/**
 * codec_check() - is this a message of @type whose strings are UTF-8 without NUL, at every level?
 * Return: 0, or -1 with ERR_INVALID_ARGUMENT that names the field.
 */
ERR_CHECKED int codec_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
			    struct err *err);

/**
 * codec_unpack() - check and decode
 * @arena: gets all of the message, which keeps no pointer into @data
 * Return: 0; or -1 with ERR_INVALID_ARGUMENT, or ERR_RESOURCE_EXHAUSTED when @arena is used up.
 */
ERR_CHECKED int codec_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data,
			     size_t len, struct arena *arena, ProtobufCMessage **ret_msg,
			     struct err *err);

/**
 * struct codec_parts - a message taken apart
 * @rest: all of it but one field, contiguous, for codec_unpack()
 * @bytes: that field's value in @n_bytes pieces, @bytes_len together, borrowed from what the message came in
 */
struct codec_parts {
	uint8_t *rest;
	size_t rest_len;
	struct iovec *bytes;
	size_t n_bytes;
	size_t bytes_len;
};

/**
 * codec_split() - leave the value of one large field where it lies
 * @pieces: @n_pieces that make up the message
 * @field: number of a field of type bytes of the message itself
 * @ret_parts: in @arena. Of several such fields the last counts, as in protobuf. What is malformed is all in
 *             @rest, for codec_unpack() to refuse.
 * Return: 0; or -1 with ERR_RESOURCE_EXHAUSTED when @arena is used up.
 */
ERR_CHECKED int codec_split(const struct iovec *pieces, size_t n_pieces, uint32_t field,
			    struct arena *arena, struct codec_parts *ret_parts, struct err *err);

/* What stands in front of a bytes field's value: a tag of at most 5 bytes, a length of at most 5. */
#define CODEC_BYTES_HEAD_MAX 10

/** codec_put_bytes_head() - write it for a value of @len bytes. Return: how many bytes that were. */
size_t codec_put_bytes_head(uint8_t *to, uint32_t field, size_t len);

/** codec_put_int64() - a field of type int64. Return: how many bytes; at most 15, none for 0. */
size_t codec_put_int64(uint8_t *to, uint32_t field, int64_t value);

#endif
