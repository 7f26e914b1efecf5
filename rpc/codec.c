/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/codec.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

/* Wire types, as in the protobuf encoding's documentation. Groups (3, 4) are not in proto3. */
enum { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_BYTES = 2, WIRE_32BIT = 5 };

#define VARINT_MAX_BYTES 10
#define MAX_FIELD_NUMBER ((1u << 29) - 1)

struct reader {
	const uint8_t *pos;
	const uint8_t *end;
};

/* Where in the message we are; the path to it is only spelt out when there is something to complain of. */
struct level {
	const struct level *up;
	const ProtobufCMessageDescriptor *type;
	const ProtobufCFieldDescriptor *field;
	unsigned int depth;
};

static bool read_varint(struct reader *in, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < VARINT_MAX_BYTES && in->pos < in->end; i++) {
		uint8_t byte = *in->pos++;

		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (!(byte & 0x80)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

static bool skip(struct reader *in, uint64_t n)
{
	if (n > (uint64_t)(in->end - in->pos))
		return false;
	in->pos += n;
	return true;
}

static size_t spell_path(const struct level *level, char *buf, size_t size)
{
	size_t len = level->up ? spell_path(level->up, buf, size) : 0;
	int n;

	if (!level->field || len >= size)
		return len;
	n = snprintf(buf + len, size - len, "%s%s", len ? "." : "", level->field->name);
	return n < 0 ? len : len + (size_t)n;
}

static int refuse(const struct level *level, const char *what, struct err *err)
{
	const struct level *top = level;
	char path[256] = "";

	while (top->up)
		top = top->up;
	spell_path(level, path, sizeof(path));
	if (!path[0])
		return err_set(err, ERR_INVALID_ARGUMENT, "malformed %s: %s", top->type->name,
			       what);
	return err_set(err, ERR_INVALID_ARGUMENT, "field '%s' of %s %s", path, top->type->name,
		       what);
}

static int check_message(const struct level *up, const ProtobufCMessageDescriptor *type,
			 const uint8_t *data, size_t len, struct err *err);

/* A field's value of @len bytes: a string, a message, or something whose content does not matter here. */
static int check_bytes(const struct level *level, const uint8_t *data, size_t len, struct err *err)
{
	const ProtobufCFieldDescriptor *field = level->field;

	if (!field)
		return 0;
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		return check_message(level, field->descriptor, data, len, err);
	if (field->type != PROTOBUF_C_TYPE_STRING)
		return 0;
	if (memchr(data, '\0', len))
		return refuse(level, "holds a NUL byte", err);
	if (!str_is_utf8((const char *)data, len))
		return refuse(level, "is not UTF-8", err);
	return 0;
}

static int check_message(const struct level *up, const ProtobufCMessageDescriptor *type,
			 const uint8_t *data, size_t len, struct err *err)
{
	struct reader in = {.pos = data, .end = data + len};
	struct level level = {.up = up, .type = type, .depth = up ? up->depth + 1 : 1};

	if (level.depth > CODEC_MAX_DEPTH)
		return refuse(&level, "is nested too deeply", err);

	while (in.pos < in.end) {
		uint64_t key, value;
		bool good;

		level.field = NULL;
		if (!read_varint(&in, &key) || key >> 3 == 0 || key >> 3 > MAX_FIELD_NUMBER)
			return refuse(&level, "bad field number", err);
		level.field =
			protobuf_c_message_descriptor_get_field(type, (unsigned int)(key >> 3));
		switch (key & 7) {
		case WIRE_VARINT:
			good = read_varint(&in, &value);
			break;
		case WIRE_64BIT:
			good = skip(&in, 8);
			break;
		case WIRE_32BIT:
			good = skip(&in, 4);
			break;
		case WIRE_BYTES:
			data = NULL;
			good = read_varint(&in, &value);
			if (good) {
				data = in.pos;
				good = skip(&in, value);
			}
			if (good && check_bytes(&level, data, (size_t)value, err) < 0)
				return -1;
			break;
		default:
			good = false;
		}
		if (!good)
			return refuse(&level, "is cut off or of an unknown wire type", err);
	}
	return 0;
}

int codec_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
		struct err *err)
{
	return check_message(NULL, type, data, len, err);
}

struct allocator {
	ProtobufCAllocator protobuf;
	struct arena *arena;
	bool failed;
};

static void *allocate(void *data, size_t size)
{
	struct allocator *allocator = data;
	void *p = arena_alloc(allocator->arena, size);

	if (!p)
		allocator->failed = true;
	return p;
}

static void release(void *data, void *p)
{
	(void)data;
	(void)p;
}

int codec_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
		 struct arena *arena, ProtobufCMessage **ret_msg, struct err *err)
{
	struct allocator allocator = {
		.protobuf = {.alloc = allocate, .free = release, .allocator_data = &allocator},
		.arena = arena,
	};
	ProtobufCMessage *msg;

	if (codec_check(type, data, len, err) < 0)
		return -1;
	msg = protobuf_c_message_unpack(type, &allocator.protobuf, len, data);
	if (!msg && allocator.failed)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "decode %s of %zu bytes: the call's memory is used up", type->name,
			       len);
	if (!msg)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "malformed %s: a field is of another type", type->name);
	*ret_msg = msg;
	return 0;
}
