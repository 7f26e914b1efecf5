/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/status_internal.h"

#include <string.h>

#include "base/str.h"

/* The values are passed on as they are. */
_Static_assert((int)ERR_CANCELLED == (int)GRPC_STATUS_CANCELLED, "status codes differ");
_Static_assert((int)ERR_UNAUTHENTICATED == (int)GRPC_STATUS_UNAUTHENTICATED, "status codes differ");

/* A message is percent-encoded on the wire, three bytes for one at worst, in the 8 KiB of headers that
 * gRPC's implementations accept by default. */
_Static_assert(3 * ERR_MSG_MAX_BYTES <= 4096,
	       "messages would not fit into a client's header limit");

enum err_code status_code(const struct err *err)
{
	if (err->code <= ERR_OK || err->code > ERR_UNAUTHENTICATED)
		return ERR_INTERNAL;
	return err->code;
}

/* Length of the UTF-8 sequence that @text begins with, 0 when it does not begin with one. */
static size_t sequence(const char *text, size_t len)
{
	for (size_t n = 1; n <= 4 && n <= len; n++)
		if (str_is_utf8(text, n))
			return n;
	return 0;
}

grpc_slice status_message(const char *text)
{
	size_t len = strnlen(text, ERR_MSG_MAX_BYTES);
	char copy[ERR_MSG_MAX_BYTES];

	if (str_is_utf8(text, len))
		return grpc_slice_from_copied_buffer(text, len);

	/* Paths may be any bytes, but a client fails to decode a status that is not UTF-8. */
	memcpy(copy, text, len);
	for (size_t i = 0; i < len;) {
		size_t n = sequence(copy + i, len - i);

		if (!n)
			copy[i] = '?';
		i += n ? n : 1;
	}
	return grpc_slice_from_copied_buffer(copy, len);
}

bool status_is_ours(enum err_code code)
{
	return code == ERR_INTERNAL || code == ERR_UNKNOWN || code == ERR_DATA_LOSS ||
	       code == ERR_RESOURCE_EXHAUSTED;
}

int status_to_err(grpc_status_code code, grpc_slice message, struct err *err)
{
	enum err_code known = ERR_UNKNOWN;
	size_t len = GRPC_SLICE_LENGTH(message);

	if ((int)code > ERR_OK && (int)code <= ERR_UNAUTHENTICATED)
		known = (enum err_code)code;
	if (len > ERR_MSG_MAX_BYTES)
		len = ERR_MSG_MAX_BYTES;
	return err_set(err, known, "%.*s", (int)len, (const char *)GRPC_SLICE_START_PTR(message));
}
