/* SPDX-License-Identifier: Apache-2.0 */
#include "base/digest.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct digest_state {
	enum digest_algorithm algorithm;
	EVP_MD_CTX *md;
};

struct algorithm {
	enum digest_algorithm id;
	const char *prefix;
	size_t size;
	const EVP_MD *(*md)(void);
};

static const struct algorithm algorithms[] = {
	{DIGEST_SHA256, "sha256:", 32, EVP_sha256},
	{DIGEST_SHA512, "sha512:", 64, EVP_sha512},
};

/* NULL for a value that is none of the enum. */
static const struct algorithm *find(enum digest_algorithm id)
{
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		if (algorithms[i].id == id)
			return &algorithms[i];
	}
	return NULL;
}

/* libcrypto keeps a queue of errors per thread: what we report must not stay in it. */
static int fail(const char *what, struct err *err)
{
	unsigned long code = ERR_get_error();
	char text[128];

	ERR_error_string_n(code, text, sizeof(text));
	ERR_clear_error();
	return err_set(err, ERR_INTERNAL, "%s: libcrypto: %s", what, text);
}

size_t digest_size(enum digest_algorithm algorithm)
{
	const struct algorithm *a = find(algorithm);

	return a ? a->size : 0;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Return: 0, or -1 when @hex is not @size bytes in hexadecimal. */
static int parse_hex(const char *hex, uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		int high = nibble(hex[2 * i]);
		int low = high < 0 ? -1 : nibble(hex[2 * i + 1]);

		if (low < 0)
			return -1;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return hex[2 * size] == '\0' ? 0 : -1;
}

int digest_parse(const char *text, struct digest *ret_digest, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		const struct algorithm *a = &algorithms[i];
		size_t prefix_len = strlen(a->prefix);
		struct digest digest = {.algorithm = a->id};

		if (strncmp(text, a->prefix, prefix_len) != 0)
			continue;
		if (parse_hex(text + prefix_len, digest.bytes, a->size) < 0)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "digest '%.200s': '%s' wants %zu lower-case hex digits",
				       text, a->prefix, 2 * a->size);
		*ret_digest = digest;
		return 0;
	}
	return err_set(err, ERR_INVALID_ARGUMENT, "digest '%.200s': neither sha256 nor sha512",
		       text);
}

const char *digest_format(const struct digest *digest, char *buf)
{
	static const char digits[] = "0123456789abcdef";
	const struct algorithm *a = find(digest->algorithm);
	char *out = buf;

	if (a) {
		size_t len = strlen(a->prefix);

		memcpy(out, a->prefix, len);
		out += len;
		for (size_t i = 0; i < a->size; i++) {
			*out++ = digits[digest->bytes[i] >> 4];
			*out++ = digits[digest->bytes[i] & 15];
		}
	}
	*out = '\0';
	return buf;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return a->algorithm == b->algorithm &&
	       memcmp(a->bytes, b->bytes, digest_size(a->algorithm)) == 0;
}

int digest_of(enum digest_algorithm algorithm, const void *data, size_t size,
	      struct digest *ret_digest, struct err *err)
{
	const struct algorithm *a = find(algorithm);
	struct digest digest = {.algorithm = algorithm};

	if (!a)
		return err_set(err, ERR_INVALID_ARGUMENT, "no digest algorithm %d", (int)algorithm);
	if (EVP_Digest(data, size, digest.bytes, NULL, a->md(), NULL) != 1)
		return fail("digest", err);
	*ret_digest = digest;
	return 0;
}

int digest_state_new(enum digest_algorithm algorithm, struct digest_state **ret_state,
		     struct err *err)
{
	const struct algorithm *a = find(algorithm);
	struct digest_state *state;

	if (!a)
		return err_set(err, ERR_INVALID_ARGUMENT, "no digest algorithm %d", (int)algorithm);
	state = calloc(1, sizeof(*state));
	if (!state)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "digest: no memory");
	state->algorithm = algorithm;
	state->md = EVP_MD_CTX_new();
	if (!state->md || EVP_DigestInit_ex(state->md, a->md(), NULL) != 1) {
		digest_state_free(state);
		return fail("start digest", err);
	}
	*ret_state = state;
	return 0;
}

void digest_state_free(struct digest_state *state)
{
	if (!state)
		return;
	EVP_MD_CTX_free(state->md);
	free(state);
}

int digest_state_add(struct digest_state *state, const void *data, size_t size, struct err *err)
{
	if (EVP_DigestUpdate(state->md, data, size) != 1)
		return fail("add to digest", err);
	return 0;
}

static void free_md(EVP_MD_CTX **md)
{
	EVP_MD_CTX_free(*md);
}

int digest_state_peek(const struct digest_state *state, struct digest *ret_digest, struct err *err)
{
	struct digest digest = {.algorithm = state->algorithm};
	CLEANUP(free_md) EVP_MD_CTX *copy = EVP_MD_CTX_new();

	if (!copy || EVP_MD_CTX_copy_ex(copy, state->md) != 1 ||
	    EVP_DigestFinal_ex(copy, digest.bytes, NULL) != 1)
		return fail("finish digest", err);
	*ret_digest = digest;
	return 0;
}
