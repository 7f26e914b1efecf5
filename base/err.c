/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A message travels in a gRPC status, which must be UTF-8: do not end inside a sequence. */
static void cut_at_utf8(char *text, size_t len)
{
	size_t start = len;

	while (start > 0 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
		start--;
	if (start > 0 && (unsigned char)text[start - 1] >= 0xc0)
		text[start - 1] = '\0';
}

static void format(char *buf, size_t size, const char *fmt, va_list args)
{
	int n = vsnprintf(buf, size, fmt, args);

	if (n < 0)
		buf[0] = '\0';
	else if ((size_t)n >= size)
		cut_at_utf8(buf, size - 1);
}

static void append(char *buf, size_t size, const char *separator, const char *text)
{
	size_t len = strlen(buf);
	int n = snprintf(buf + len, size - len, "%s%s", separator, text);

	if (n >= 0 && (size_t)n >= size - len)
		cut_at_utf8(buf, size - 1);
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
	va_list args;

	err->code = code;
	err->sys_errno = 0;
	va_start(args, fmt);
	format(err->msg, sizeof(err->msg), fmt, args);
	va_end(args);
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

static int set_errno(struct err *err, int errnum, const char *fmt, va_list args)
{
	char text[128];

	err->code = code_of_errno(errnum);
	err->sys_errno = errnum;
	format(err->msg, sizeof(err->msg), fmt, args);
	append(err->msg, sizeof(err->msg), ": ", strerror_r(errnum, text, sizeof(text)));
	return -1;
}

int err_sys(struct err *err, const char *fmt, ...)
{
	int errnum = errno;
	va_list args;

	va_start(args, fmt);
	set_errno(err, errnum, fmt, args);
	va_end(args);
	return -1;
}

int err_sysno(struct err *err, int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set_errno(err, errnum, fmt, args);
	va_end(args);
	return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	char inner[ERR_MSG_MAX_BYTES];
	va_list args;

	memcpy(inner, err->msg, sizeof(inner));
	va_start(args, fmt);
	format(err->msg, sizeof(err->msg), fmt, args);
	va_end(args);
	append(err->msg, sizeof(err->msg), ": ", inner);
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
