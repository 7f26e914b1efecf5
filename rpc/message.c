/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/message.h"

#include <string.h>

#include "base/labels.h"
#include "base/str.h"

#define NS_PER_S 1000000000

/* How much of a key an error message shows. */
#define SHOWN_MAX_BYTES 256

void *message_new(struct arena *arena, const ProtobufCMessageDescriptor *type)
{
	void *msg = arena_alloc(arena, type->sizeof_message);

	if (msg)
		protobuf_c_message_init(type, msg);
	return msg;
}

int message_answer_empty(struct ctx *ctx, ProtobufCMessage **ret_response, struct err *err)
{
	ProtobufCMessage *response = message_new(ctx->arena, MESSAGE_EMPTY_TYPE);

	if (!response)
		return ctx_no_memory(err);
	*ret_response = response;
	return 0;
}

Google__Protobuf__Timestamp *message_time(struct arena *arena, int64_t ns)
{
	Google__Protobuf__Timestamp *time =
		message_new(arena, &google__protobuf__timestamp__descriptor);

	if (!time)
		return NULL;
	time->seconds = ns / NS_PER_S;
	time->nanos = (int32_t)(ns % NS_PER_S);
	if (time->nanos < 0) {
		/* Before 1970: nanos count forward all the same. */
		time->seconds--;
		time->nanos += NS_PER_S;
	}
	return time;
}

int64_t message_time_ns(const Google__Protobuf__Timestamp *time)
{
	int64_t ns;

	if (!time)
		return 0;
	if (__builtin_mul_overflow(time->seconds, (int64_t)NS_PER_S, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)time->nanos, &ns))
		return time->seconds < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

/* protobuf-c makes a type of its own for each map; all have the key as first and the value as second field. */
int message_labels(struct ctx *ctx, const void *entries, size_t n, struct strmap *ret_labels,
		   struct err *err)
{
	struct strmap labels = {0};

	if (n > LABELS_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "%zu labels are more than %d", n,
			       LABELS_MAX);
	for (size_t i = 0; i < n; i++) {
		const ProtobufCMessage *entry;
		const char *key, *value;

		memcpy(&entry, (const char *)entries + i * sizeof(entry), sizeof(entry));
		memcpy(&key, (const char *)entry + entry->descriptor->fields[0].offset,
		       sizeof(key));
		memcpy(&value, (const char *)entry + entry->descriptor->fields[1].offset,
		       sizeof(value));
		if (strmap_append(&labels, ctx->arena, key, value, err) < 0)
			return -1;
	}
	strmap_sort(&labels);
	if (labels_check(&labels, err) < 0)
		return -1;
	*ret_labels = labels;
	return 0;
}

void *message_label_entries(struct arena *arena, const struct strmap *labels,
			    const ProtobufCMessageDescriptor *type)
{
	void **entries = arena_array(arena, labels->n, sizeof(*entries));

	for (size_t i = 0; entries && i < labels->n; i++) {
		char *entry = message_new(arena, type);

		if (!entry)
			return NULL;
		memcpy(entry + type->fields[0].offset, &labels->entries[i].key,
		       sizeof(const char *));
		memcpy(entry + type->fields[1].offset, &labels->entries[i].value,
		       sizeof(const char *));
		entries[i] = entry;
	}
	return entries;
}

int message_paths(const Google__Protobuf__FieldMask *mask, const char ***ret_paths, size_t *ret_n,
		  struct err *err)
{
	if (mask && mask->n_paths > LABELS_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "%zu paths in the mask are more than %d",
			       mask->n_paths, LABELS_MAX);
	*ret_paths = mask ? (const char **)mask->paths : NULL;
	*ret_n = mask ? mask->n_paths : 0;
	return 0;
}

int message_failed(const char *what, const char *key, struct err *err)
{
	size_t len = str_cut(key, SHOWN_MAX_BYTES);

	return err_wrap(err, "%s '%.*s%s'", what, (int)len, key, key[len] ? "..." : "");
}

int64_t message_int64(uint64_t value)
{
	return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}
