/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/rpc/raw.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/test.h"

#define PATIENCE_MS 60000

/* RFC 9113: frame types, flags, and the header of a frame. */
enum {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_RST_STREAM = 3,
	FRAME_SETTINGS = 4,
	FRAME_WINDOW_UPDATE = 8
};
#define FLAG_ACK               1
#define FLAG_END_HEADERS       4
#define SETTING_INITIAL_WINDOW 4
#define FRAME_HEADER_BYTES     9
#define DATA_MAX_BYTES         16384

int raw_connect(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* A server that has closed the connection is no failure of this client. */
static void put(int fd, const void *data, size_t len)
{
	const char *pos = data;

	while (len) {
		ssize_t n = send(fd, pos, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		pos += n;
		len -= (size_t)n;
	}
}

static void put_frame(int fd, uint8_t type, uint8_t flags, uint32_t id, const void *data,
		      size_t len)
{
	const uint8_t header[FRAME_HEADER_BYTES] = {
		(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,       type,       flags,
		(uint8_t)(id >> 24),  (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};

	put(fd, header, sizeof(header));
	put(fd, data, len);
}

void raw_hello(int fd)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

	put(fd, preface, sizeof(preface) - 1);
	put_frame(fd, FRAME_SETTINGS, 0, 0, NULL, 0);
}

/* RFC 7541, 6.2.2: literal header field without indexing, new name, no Huffman code. */
static size_t add_header(uint8_t *buf, const char *name, const char *value)
{
	size_t n = 0;

	buf[n++] = 0;
	buf[n++] = (uint8_t)strlen(name);
	memcpy(buf + n, name, strlen(name));
	n += strlen(name);
	buf[n++] = (uint8_t)strlen(value);
	memcpy(buf + n, value, strlen(value));
	return n + strlen(value);
}

void raw_headers(int fd, uint32_t id, const char *method, const char *encoding, uint8_t flags)
{
	uint8_t buf[512];
	size_t n = 0;

	assert_true(strlen(method) < 127);
	n += add_header(buf + n, ":method", "POST");
	n += add_header(buf + n, ":scheme", "http");
	n += add_header(buf + n, ":path", method);
	n += add_header(buf + n, ":authority", "localhost");
	n += add_header(buf + n, "te", "trailers");
	n += add_header(buf + n, "content-type", "application/grpc");
	if (encoding)
		n += add_header(buf + n, "grpc-encoding", encoding);
	n += add_header(buf + n, "x-of-no-concern", "to anybody");
	put_frame(fd, FRAME_HEADERS, FLAG_END_HEADERS | flags, id, buf, n);
}

void raw_message(int fd, uint32_t id, uint8_t compressed, uint32_t size, const void *data,
		 size_t len, uint8_t flags)
{
	const uint8_t prefix[5] = {compressed, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
				   (uint8_t)(size >> 8), (uint8_t)size};
	const char *pos = data;

	put_frame(fd, FRAME_DATA, len ? 0 : flags, id, prefix, sizeof(prefix));
	while (len) {
		size_t n = len < DATA_MAX_BYTES ? len : DATA_MAX_BYTES;

		put_frame(fd, FRAME_DATA, n == len ? flags : 0, id, pos, n);
		pos += n;
		len -= n;
	}
}

/* Return: bytes read; 0 at the end, also after an error; the test fails when nothing comes. */
static size_t get_some(int fd, uint8_t *buf, size_t size)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (poll(&pollfd, 1, PATIENCE_MS) != 1)
		fail_msg("the server is silent");
	n = recv(fd, buf, size, 0);
	return n < 0 ? 0 : (size_t)n;
}

static void get(int fd, uint8_t *buf, size_t len)
{
	while (len) {
		size_t n = get_some(fd, buf, len);

		if (!n)
			fail_msg("the server closed the connection");
		buf += n;
		len -= n;
	}
}

static uint32_t get32(const uint8_t *data)
{
	return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

/* Read one frame; its content is yours to free(). */
static uint8_t *get_frame(int fd, uint8_t *ret_type, size_t *ret_len, uint32_t *ret_id)
{
	uint8_t header[FRAME_HEADER_BYTES];
	uint8_t *data;

	get(fd, header, sizeof(header));
	*ret_type = header[3];
	if (ret_id)
		*ret_id = get32(header + 5);
	*ret_len = (size_t)header[0] << 16 | (size_t)header[1] << 8 | header[2];
	data = malloc(*ret_len + 1);
	assert_non_null(data);
	get(fd, data, *ret_len);
	return data;
}

void raw_wait_settings(int fd)
{
	uint8_t type;
	size_t len;

	do {
		free(get_frame(fd, &type, &len, NULL));
	} while (type != FRAME_SETTINGS);
}

/* Return: the grpc-status in a frame of headers, or -1. */
static int find_status(const uint8_t *data, size_t len)
{
	/* gRPC core writes names that are not in HPACK's table as they are. */
	static const char name[] = "grpc-status";
	const uint8_t *at = memmem(data, len, name, sizeof(name) - 1);
	int status = 0;

	if (!at)
		return -1;
	at += sizeof(name) - 1;
	for (size_t i = 1; i <= at[0] && i <= 2; i++)
		status = status * 10 + at[i] - '0';
	return status;
}

int raw_wait_status(int fd)
{
	for (;;) {
		uint8_t type;
		size_t len;
		uint8_t *data = get_frame(fd, &type, &len, NULL);
		int status = type == FRAME_RST_STREAM ? RAW_RESET : -1;

		if (type == FRAME_HEADERS)
			status = find_status(data, len);
		free(data);
		if (status >= 0)
			return status;
	}
}

int raw_zeros(int fd, uint32_t id, uint32_t size)
{
	static const uint8_t zeros[DATA_MAX_BYTES];
	const uint8_t prefix[5] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
				   (uint8_t)(size >> 8), (uint8_t)size};
	int64_t connection = 65535, stream = 65535, initial = 65535; /* RFC 9113, 6.9.2 */

	put_frame(fd, FRAME_DATA, 0, id, prefix, sizeof(prefix));
	connection -= (int64_t)sizeof(prefix);
	stream -= (int64_t)sizeof(prefix);
	for (;;) {
		int64_t n = size < sizeof(zeros) ? size : sizeof(zeros);
		uint8_t type;
		size_t len;
		uint8_t *data;
		uint32_t frame_id;
		int status = -1;

		if (n && n <= connection && n <= stream) {
			put_frame(fd, FRAME_DATA, n == size ? RAW_END_STREAM : 0, id, zeros,
				  (size_t)n);
			connection -= n;
			stream -= n;
			size -= (uint32_t)n;
			continue;
		}
		data = get_frame(fd, &type, &len, &frame_id);
		if (type == FRAME_HEADERS)
			status = find_status(data, len);
		if (type == FRAME_WINDOW_UPDATE) /* there is one stream */
			*(frame_id ? &stream : &connection) += get32(data);
		for (size_t i = 0; type == FRAME_SETTINGS && i + 6 <= len; i += 6) {
			if (data[i] != 0 || data[i + 1] != SETTING_INITIAL_WINDOW)
				continue;
			stream += get32(data + i + 2) - initial;
			initial = get32(data + i + 2);
		}
		if (type == FRAME_SETTINGS && len) /* only now does it count for the server */
			put_frame(fd, FRAME_SETTINGS, FLAG_ACK, 0, NULL, 0);
		free(data);
		if (status >= 0)
			return status;
	}
}

bool raw_is_closed(int fd)
{
	uint8_t buf[4096];

	while (get_some(fd, buf, sizeof(buf)))
		;
	return true;
}
