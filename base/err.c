/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * A message travels in a gRPC status, which must be UTF-8: does not leave the start of a sequence whose
 * end was cut off.
 */
static void cut_at_utf8(char *text, size_t len)
{
	size_t start = len, n_more = 0, want = 0;

	while (start > 0 && n_more < 3 && ((unsigned char)text[start - 1] & 0xc0) == 0x80) {
		start--;
		n_more++;
	}
	if (start == 0)
		return;
	if ((unsigned char)text[start - 1] >= 0xf0)
		want = 3;
	else if ((unsigned char)text[start - 1] >= 0xe0)
		want = 2;
	else if ((unsigned char)text[start - 1] >= 0xc0)
		want = 1;
	if (n_more < want)
		text[start - 1] = '\0';
}

PRINTF_LIKE(2, 0)
static void format(char *buf, const char *fmt, va_list args)
{
	int n = vsnprintf(buf, ERR_MSG_MAX_BYTES, fmt, args);

	if (n < 0)
		buf[0] = '\0';
	else if (n >= ERR_MSG_MAX_BYTES)
		cut_at_utf8(buf, ERR_MSG_MAX_BYTES - 1);
}

/* Sets the message to @head and ": " and @tail. */
static void join(struct err *err, const char *head, const char *tail)
{
	int n = snprintf(err->msg, sizeof(err->msg), "%s: %s", head, tail);

	if (n >= ERR_MSG_MAX_BYTES)
		cut_at_utf8(err->msg, ERR_MSG_MAX_BYTES - 1);
}

int(err_set)(struct err *err, enum err_code code, const char *fmt, ...)
{
	/* Beside the old message, which may be among the arguments. */
	char msg[ERR_MSG_MAX_BYTES];
	va_list args;

	va_start(args, fmt);
	format(msg, fmt, args);
	va_end(args);
	err->code = code;
	err->sys_errno = 0;
	memcpy(err->msg, msg, strlen(msg) + 1);
	return -1;
}

static enum err_code code_of_errno(int errnum)
{
	switch (errnum) {
	case ENOSPC:
	case EDQUOT:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
	case EMLINK:
		return ERR_RESOURCE_EXHAUSTED;
	case EBUSY:
	case EAGAIN:
	case ETIMEDOUT:
		return ERR_UNAVAILABLE;
	case EROFS:
		return ERR_FAILED_PRECONDITION;
	case EACCES:
	case EPERM:
		return ERR_PERMISSION_DENIED;
	case ECANCELED:
		return ERR_CANCELLED;
	case EOPNOTSUPP:
		return ERR_UNIMPLEMENTED;
	default:
		return ERR_INTERNAL;
	}
}

PRINTF_LIKE(3, 0)
static int set_errno(struct err *err, int errnum, const char *fmt, va_list args)
{
	char msg[ERR_MSG_MAX_BYTES], text[128];

	format(msg, fmt, args);
	err->code = code_of_errno(errnum);
	err->sys_errno = errnum;
	join(err, msg, strerror_r(errnum, text, sizeof(text)));
	return -1;
}

int(err_sys)(struct err *err, const char *fmt, ...)
{
	int errnum = errno;
	va_list args;

	va_start(args, fmt);
	set_errno(err, errnum, fmt, args);
	va_end(args);
	return -1;
}

int(err_sysno)(struct err *err, int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set_errno(err, errnum, fmt, args);
	va_end(args);
	return -1;
}

int(err_wrap)(struct err *err, const char *fmt, ...)
{
	char context[ERR_MSG_MAX_BYTES], inner[ERR_MSG_MAX_BYTES];
	va_list args;

	va_start(args, fmt);
	format(context, fmt, args);
	va_end(args);
	memcpy(inner, err->msg, strlen(err->msg) + 1);
	join(err, context, inner);
	return -1;
}

const char *err_code_name(enum err_code code)
{
	static const char *const names[] = {
		"OK",
		"CANCELLED",
		"UNKNOWN",
		"INVALID_ARGUMENT",
		"DEADLINE_EXCEEDED",
		"NOT_FOUND",
		"ALREADY_EXISTS",
		"PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION",
		"ABORTED",
		"OUT_OF_RANGE",
		"UNIMPLEMENTED",
		"INTERNAL",
		"UNAVAILABLE",
		"DATA_LOSS",
		"UNAUTHENTICATED",
	};

	if ((unsigned int)code >= ARRAY_LEN(names))
		return "UNKNOWN";
	return names[code];
}

void err_clear(struct err *err)
{
	err->code = ERR_OK;
	err->sys_errno = 0;
	err->msg[0] = '\0';
}
