/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of bytes as people write and read them. Any thread.
 */
#ifndef LIGHTER_BASE_SIZE_H
#define LIGHTER_BASE_SIZE_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* "1023.9 GiB" and NUL, with room to spare */
#define SIZE_TEXT_BYTES 48

/**
 * size_parse() - "100M": a whole number, then nothing, or K, M, G, T for powers of 1024; "iB" may follow those
 * Return: 0, or -1 with ERR_INVALID_ARGUMENT, also for what is larger than INT64_MAX.
 */
ERR_CHECKED int size_parse(const char *text, uint64_t *ret_bytes, struct err *err);

/** size_format() - "517 B", "1.2 GiB" in @buf of SIZE_TEXT_BYTES. Return: @buf. */
const char *size_format(uint64_t bytes, char *buf);

#endif
