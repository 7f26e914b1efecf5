/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our errors to gRPC's status and back: the one place. Any thread.
 */
#ifndef LIGHTER_RPC_STATUS_INTERNAL_H
#define LIGHTER_RPC_STATUS_INTERNAL_H

#include <grpc/slice.h>
#include <grpc/status.h>
#include <stdbool.h>

#include "base/err.h"

/** status_code() - of @err; what is no failure of ours to name is INTERNAL */
enum err_code status_code(const struct err *err);

/** status_message() - text for the wire: UTF-8, and never longer than a client's header limit allows */
grpc_slice status_message(const char *text);

/** status_is_ours() - do we owe the operator a line about a call that ended so? */
bool status_is_ours(enum err_code code);

/** status_to_err() - a server's status, which is not OK. Return: -1, always. */
int status_to_err(grpc_status_code code, grpc_slice message, struct err *err);

#endif
