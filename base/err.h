/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as values. A fallible function returns int and takes `struct err *err` last: 0 is success, -1
 * is failure with @err filled, a positive value is an expected outcome that the function documents.
 * The value lives on the caller's stack, so that reporting works when memory is gone. Any thread.
 */
#ifndef LIGHTER_BASE_ERR_H
#define LIGHTER_BASE_ERR_H

#include "base/compiler.h"

/* Longer messages are cut; the cut keeps UTF-8 sequences whole. */
#define ERR_MSG_MAX_BYTES 1024

/* Values are those of gRPC status codes (grpc/doc/statuscodes.md); rpc/ passes them on as they are. */
enum err_code {
	ERR_OK = 0,
	ERR_CANCELLED = 1,
	ERR_UNKNOWN = 2,
	ERR_INVALID_ARGUMENT = 3,
	ERR_DEADLINE_EXCEEDED = 4,
	ERR_NOT_FOUND = 5,
	ERR_ALREADY_EXISTS = 6,
	ERR_PERMISSION_DENIED = 7,
	ERR_RESOURCE_EXHAUSTED = 8,
	ERR_FAILED_PRECONDITION = 9,
	ERR_ABORTED = 10,
	ERR_OUT_OF_RANGE = 11,
	ERR_UNIMPLEMENTED = 12,
	ERR_INTERNAL = 13,
	ERR_UNAVAILABLE = 14,
	ERR_DATA_LOSS = 15,
	ERR_UNAUTHENTICATED = 16,
};

/**
 * struct err - why a call failed
 * @code: what the client is told
 * @sys_errno: errno behind it, 0 when there was none
 * @msg: NUL-terminated text, from the operator's request down to the cause
 */
struct err {
	enum err_code code;
	int sys_errno;
	char msg[ERR_MSG_MAX_BYTES];
};

#define ERR_INIT                                                                                   \
	{                                                                                          \
		.code = ERR_OK                                                                     \
	}

/** err_set() - state a contract: @code with a message. Return: -1, always. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/**
 * err_sys() - report errno; the message ends with its text
 *
 * No room (ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE, EMLINK) is RESOURCE_EXHAUSTED; EBUSY, EAGAIN, ETIMEDOUT
 * are UNAVAILABLE; EROFS is FAILED_PRECONDITION; EACCES and EPERM are PERMISSION_DENIED; ECANCELED is
 * CANCELLED; EOPNOTSUPP is UNIMPLEMENTED; all else, ENOENT and EEXIST among it, is INTERNAL: containerd
 * acts on NOT_FOUND and ALREADY_EXISTS, so these are only ever said on purpose.
 * Return: -1, always.
 */
int err_sys(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** err_sysno() - as err_sys(), for an error number in @errnum. Return: -1, always. */
int err_sysno(struct err *err, int errnum, const char *fmt, ...) PRINTF_LIKE(3, 4);

/** err_wrap() - put context and ": " in front of the message, keep the code. Return: -1, always. */
int err_wrap(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/*
 * That these return -1 is told to the compiler too: it then sees that a caller which returns what they
 * return has failed, and does not warn of outputs that are unset on that path.
 */
#define err_set(...)                                                                               \
	({                                                                                         \
		(void)(err_set)(__VA_ARGS__);                                                      \
		-1;                                                                                \
	})
#define err_sys(...)                                                                               \
	({                                                                                         \
		(void)(err_sys)(__VA_ARGS__);                                                      \
		-1;                                                                                \
	})
#define err_sysno(...)                                                                             \
	({                                                                                         \
		(void)(err_sysno)(__VA_ARGS__);                                                    \
		-1;                                                                                \
	})
#define err_wrap(...)                                                                              \
	({                                                                                         \
		(void)(err_wrap)(__VA_ARGS__);                                                     \
		-1;                                                                                \
	})

/** err_code_name() - "NOT_FOUND" and so on; values out of range give "UNKNOWN" */
const char *err_code_name(enum err_code code);

/** err_clear() - back to ERR_INIT */
void err_clear(struct err *err);

#endif
