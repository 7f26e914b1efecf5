/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the service manager how we are, over the socket named by $NOTIFY_SOCKET (systemd, sd_notify(3),
 * "the protocol"). Any thread, as long as none changes the environment.
 */
#ifndef LIGHTER_BASE_NOTIFY_H
#define LIGHTER_BASE_NOTIFY_H

#include "base/compiler.h"
#include "base/err.h"

/**
 * notify_send() - send one message, lines of NAME=VALUE; a wait for the receiver ends after 5 s
 * Return: 0; 1 when nobody asked for messages; or -1.
 */
ERR_CHECKED int notify_send(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
