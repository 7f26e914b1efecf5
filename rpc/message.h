/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the services of containerd's APIs have in common: labels and times of messages, answers in a call's
 * arena, errors that say which request failed. Any thread.
 */
#ifndef LIGHTER_RPC_MESSAGE_H
#define LIGHTER_RPC_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ctx.h"
#include "base/err.h"
#include "base/strmap.h"
#include "google/protobuf/empty.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

/* The type of an answer that says nothing. */
#define MESSAGE_EMPTY_TYPE (&google__protobuf__empty__descriptor)

/** message_new() - an initialised message of @type in @arena, or NULL */
void *message_new(struct arena *arena, const ProtobufCMessageDescriptor *type);

/** message_answer_empty() - answer with google.protobuf.Empty */
ERR_CHECKED int message_answer_empty(struct ctx *ctx, ProtobufCMessage **ret_response,
				     struct err *err);

/** message_time() - a Timestamp of nanoseconds since 1970 (may be before), or NULL */
Google__Protobuf__Timestamp *message_time(struct arena *arena, int64_t ns);

/** message_time_ns() - the other way round; what 64 bits do not hold, the year 1 for one, is the nearest; NULL: 0 */
int64_t message_time_ns(const Google__Protobuf__Timestamp *time);

/**
 * message_labels() - the entries of a map<string, string>, sorted and within our caps (base/labels.h)
 * @entries: the message's array of pointers to entries of whatever type protobuf-c made for this map
 * @ret_labels: in @ctx->arena, strings borrowed from the message; may hold empty values
 * Return: 0, or -1 with ERR_INVALID_ARGUMENT.
 */
ERR_CHECKED int message_labels(struct ctx *ctx, const void *entries, size_t n,
			       struct strmap *ret_labels, struct err *err);

/**
 * message_label_entries() - the other way round
 * @type: of the map's entries
 * Return: what the message's field takes, of @labels->n entries, in @arena; strings are borrowed. Or NULL.
 */
void *message_label_entries(struct arena *arena, const struct strmap *labels,
			    const ProtobufCMessageDescriptor *type);

/** message_paths() - check how many paths @mask (NULL: none) has, which is one a label at most */
ERR_CHECKED int message_paths(const Google__Protobuf__FieldMask *mask, const char ***ret_paths,
			      size_t *ret_n, struct err *err);

/**
 * message_failed() - say which request failed: "@what '@key': ..."
 *
 * The key is cut, so that the cause is not; never inside a UTF-8 sequence. Return: -1, always.
 */
int message_failed(const char *what, const char *key, struct err *err);

/** message_int64() - a size or offset for a field that is signed */
int64_t message_int64(uint64_t value);

#endif
