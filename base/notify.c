/* SPDX-License-Identifier: Apache-2.0 */
#include "base/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/cleanup.h"

#define SEND_TIMEOUT_S 5

/* "/path", or "@name" for a socket in the abstract name space. */
static int parse_address(const char *text, struct sockaddr_un *ret_address, socklen_t *ret_len,
			 struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t len = strlen(text);

	if ((*text != '/' && *text != '@') || len < 2)
		return err_set(err, ERR_INVALID_ARGUMENT, "NOTIFY_SOCKET '%s' is no Unix socket",
			       text);
	if (len >= sizeof(address.sun_path))
		return err_set(err, ERR_INVALID_ARGUMENT, "NOTIFY_SOCKET '%s' is too long", text);
	memcpy(address.sun_path, text, len);
	if (*text == '@')
		address.sun_path[0] = '\0';
	*ret_address = address;
	/* An abstract name has no end but its length; that of a path may include its NUL. */
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*text == '/'));
	return 0;
}

int notify_send(struct err *err, const char *fmt, ...)
{
	const struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
	const char *where = getenv("NOTIFY_SOCKET");
	CLEANUP(close_fd) int fd = -1;
	struct sockaddr_un address;
	socklen_t address_len;
	char text[1024];
	va_list args;
	int n;

	if (!where || !*where)
		return 1;
	if (parse_address(where, &address, &address_len, err) < 0)
		return -1;
	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof(text))
		return err_set(err, ERR_INTERNAL, "message to the service manager is too long");
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return err_sys(err, "make a socket for NOTIFY_SOCKET");
	if (sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&address, address_len) < 0)
		return err_sys(err, "send to NOTIFY_SOCKET '%s'", where);
	return 0;
}
