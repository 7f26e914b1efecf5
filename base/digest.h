/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content digests, "sha256:<64 hex>" and "sha512:<128 hex>" (OCI image-spec, descriptor.md, "Digests").
 * A struct digest is a plain value; a struct digest_state belongs to one thread at a time.
 */
#ifndef LIGHTER_BASE_DIGEST_H
#define LIGHTER_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum digest_algorithm { DIGEST_SHA256 = 1, DIGEST_SHA512 = 2 };

#define DIGEST_MAX_BYTES  64
/* "sha512:" + 128 + NUL */
#define DIGEST_TEXT_BYTES 136

/**
 * struct digest - a digest's value
 * @bytes: the first digest_size(algorithm) count, the rest is zero
 */
struct digest {
	enum digest_algorithm algorithm;
	uint8_t bytes[DIGEST_MAX_BYTES];
};

/** digest_size() - 32 or 64 bytes */
size_t digest_size(enum digest_algorithm algorithm);

/** digest_parse() - lower-case hex only. Return: 0, or -1 with ERR_INVALID_ARGUMENT. */
ERR_CHECKED int digest_parse(const char *text, struct digest *ret_digest, struct err *err);

/** digest_format() - write "alg:hex" to @buf of DIGEST_TEXT_BYTES. Return: @buf. */
const char *digest_format(const struct digest *digest, char *buf);

bool digest_equal(const struct digest *a, const struct digest *b);

/** digest_of() - the digest of @size bytes at @data */
ERR_CHECKED int digest_of(enum digest_algorithm algorithm, const void *data, size_t size,
			  struct digest *ret_digest, struct err *err);

/* A running digest. */
struct digest_state;

ERR_CHECKED int digest_state_new(enum digest_algorithm algorithm, struct digest_state **ret_state,
				 struct err *err);
void digest_state_free(struct digest_state *state);
ERR_CHECKED int digest_state_add(struct digest_state *state, const void *data, size_t size,
				 struct err *err);

/** digest_state_peek() - the digest of what was added so far; adding goes on afterwards */
ERR_CHECKED int digest_state_peek(const struct digest_state *state, struct digest *ret_digest,
				  struct err *err);

#endif
