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

#endif
