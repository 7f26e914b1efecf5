/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/2 client without manners, on a bare socket: for what a proper gRPC client would never send.
 */
#ifndef LIGHTER_TESTS_RPC_RAW_H
#define LIGHTER_TESTS_RPC_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAW_END_STREAM 1

/* Instead of a status: the server has reset the stream. */
#define RAW_RESET 1000

/** raw_connect() - a connected socket; the test fails if that does not work */
int raw_connect(const char *path);

/** raw_hello() - the preface and empty settings */
void raw_hello(int fd);

/** raw_headers() - open stream @id with a call of @method. @encoding: of the messages, or NULL. */
void raw_headers(int fd, uint32_t id, const char *method, const char *encoding, uint8_t flags);

/** raw_message() - a message of @size bytes: its gRPC prefix with @compressed, and @len bytes of content */
void raw_message(int fd, uint32_t id, uint8_t compressed, uint32_t size, const void *data,
		 size_t len, uint8_t flags);

/** raw_zeros() - a message of @size zeros, as fast as the server opens its window. Return: the grpc-status. */
int raw_zeros(int fd, uint32_t id, uint32_t size);

/** raw_wait_settings() - read until the server has sent its settings */
void raw_wait_settings(int fd);

/** raw_wait_status() - read until the server has sent a grpc-status. Return: that, or RAW_RESET. */
int raw_wait_status(int fd);

/** raw_is_closed() - read until the end, for a minute at most. Return: whether it came. */
bool raw_is_closed(int fd);

#endif
