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

/* --- messages in pieces ------------------------------------------------------------------------------ */

/* A position in @n pieces: @off bytes into the first of them, @pos into the message. */
struct cursor {
	const struct iovec *piece;
	size_t n;
	size_t off;
	size_t pos;
};

static void skip_empty(struct cursor *at)
{
	while (at->n && at->off == at->piece->iov_len) {
		at->piece++;
		at->n--;
		at->off = 0;
	}
}

/* Passes @len bytes, copying them to @to unless that is NULL. Return: false when there are not so many. */
static bool pass(struct cursor *at, uint8_t *to, uint64_t len)
{
	for (;;) {
		size_t here;

		skip_empty(at);
		if (!len)
			return true;
		if (!at->n)
			return false;
		here = at->piece->iov_len - at->off;
		if (here > len)
			here = (size_t)len;
		if (to) {
			memcpy(to, (const uint8_t *)at->piece->iov_base + at->off, here);
			to += here;
		}
		at->off += here;
		at->pos += here;
		len -= here;
	}
}

static bool pass_varint(struct cursor *at, uint64_t *ret_value)
{
	uint64_t value = 0;
	uint8_t byte;

	for (unsigned int i = 0; i < VARINT_MAX_BYTES; i++) {
		if (!pass(at, &byte, 1))
			return false;
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (!(byte & 0x80)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

/**
 * struct found - one field of a message in pieces
 * @value: where the value of a field of bytes begins
 */
struct found {
	uint64_t key;
	struct cursor value;
	uint64_t value_len;
};

/* Passes one field. Return: false when it is cut off or of an unknown wire type. */
static bool pass_field(struct cursor *at, struct found *ret_field)
{
	struct found field = {0};
	uint64_t ignored;

	if (!pass_varint(at, &field.key))
		return false;
	switch (field.key & 7) {
	case WIRE_VARINT:
		if (!pass_varint(at, &ignored))
			return false;
		break;
	case WIRE_64BIT:
		if (!pass(at, NULL, 8))
			return false;
		break;
	case WIRE_32BIT:
		if (!pass(at, NULL, 4))
			return false;
		break;
	case WIRE_BYTES:
		if (!pass_varint(at, &field.value_len))
			return false;
		field.value = *at;
		if (!pass(at, NULL, field.value_len))
			return false;
		break;
	default:
		return false;
	}
	*ret_field = field;
	return true;
}

/* The pieces of @len bytes at @at. */
static int list_pieces(struct cursor at, uint64_t len, struct arena *arena,
		       struct codec_parts *parts, struct err *err)
{
	size_t n = 0;

	parts->bytes = arena_array(arena, at.n, sizeof(*parts->bytes));
	if (!parts->bytes)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "a message in too many pieces");
	parts->bytes_len = (size_t)len;
	while (len) {
		size_t here = at.piece->iov_len - at.off;

		if (here > len)
			here = (size_t)len;
		if (here)
			parts->bytes[n++] = (struct iovec){
				.iov_base = (uint8_t *)at.piece->iov_base + at.off,
				.iov_len = here,
			};
		len -= here;
		at.piece++;
		at.off = 0;
	}
	parts->n_bytes = n;
	return 0;
}

/* Copies what lies from @from to @to, which is behind it. Return: where the next bytes go. */
static uint8_t *copy_between(struct cursor from, const struct cursor *to, uint8_t *out)
{
	size_t len = to->pos - from.pos;

	(void)pass(&from, out, len);
	return out + len;
}

int codec_split(const struct iovec *pieces, size_t n_pieces, uint32_t field, struct arena *arena,
		struct codec_parts *ret_parts, struct err *err)
{
	const uint64_t key = (uint64_t)field << 3 | WIRE_BYTES;
	const struct cursor start = {.piece = pieces, .n = n_pieces};
	struct codec_parts parts = {0};
	struct found found, wanted = {0};
	struct cursor at = start, from;
	size_t len = 0, left_out = 0;
	uint8_t *out;

	for (size_t i = 0; i < n_pieces; i++)
		len += pieces[i].iov_len;
	while (at.pos < len) {
		from = at;
		if (!pass_field(&at, &found)) {
			left_out = 0;
			wanted.key = 0;
			break;
		}
		if (found.key == key) {
			wanted = found;
			left_out += at.pos - from.pos;
		}
	}

	parts.rest_len = len - left_out;
	parts.rest = arena_alloc(arena, parts.rest_len);
	if (!parts.rest)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "a message of %zu bytes: the call's memory is used up", len);
	out = parts.rest;
	at = start;
	if (!wanted.key)
		(void)pass(&at, out, len);
	while (at.pos < len) {
		from = at;
		(void)pass_field(&at, &found);
		if (found.key != key)
			out = copy_between(from, &at, out);
	}
	if (wanted.key && list_pieces(wanted.value, wanted.value_len, arena, &parts, err) < 0)
		return -1;
	*ret_parts = parts;
	return 0;
}

static size_t put_varint(uint8_t *to, uint64_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		to[n++] = (uint8_t)(value | 0x80);
	to[n++] = (uint8_t)value;
	return n;
}

size_t codec_put_bytes_head(uint8_t *to, uint32_t field, size_t len)
{
	size_t n = put_varint(to, (uint64_t)field << 3 | WIRE_BYTES);

	return n + put_varint(to + n, len);
}

size_t codec_put_int64(uint8_t *to, uint32_t field, int64_t value)
{
	size_t n;

	if (!value)
		return 0;
	n = put_varint(to, (uint64_t)field << 3 | WIRE_VARINT);
	return n + put_varint(to + n, (uint64_t)value);
}
