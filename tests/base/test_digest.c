/* SPDX-License-Identifier: Apache-2.0 */
#include "base/digest.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"

/* Source: FIPS 180-2, appendices B.1, C.1 ("abc"); the empty ones are sha256sum's and sha512sum's. */
#define ABC_256 "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_512                                                                                    \
	"sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                  \
	"2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
#define EMPTY_256 "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define EMPTY_512                                                                                  \
	"sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"                  \
	"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"

static void assert_digest(const struct digest *digest, const char *want)
{
	char text[DIGEST_TEXT_BYTES];

	assert_string_equal(digest_format(digest, text), want);
}

static void known_answers_are_found(void **state)
{
	struct err err = ERR_INIT;
	struct digest digest;

	(void)state;
	assert_ok(digest_of(DIGEST_SHA256, "abc", 3, &digest, &err), &err);
	assert_digest(&digest, ABC_256);
	assert_ok(digest_of(DIGEST_SHA512, "abc", 3, &digest, &err), &err);
	assert_digest(&digest, ABC_512);
	assert_ok(digest_of(DIGEST_SHA256, NULL, 0, &digest, &err), &err);
	assert_digest(&digest, EMPTY_256);
	assert_ok(digest_of(DIGEST_SHA512, NULL, 0, &digest, &err), &err);
	assert_digest(&digest, EMPTY_512);
}

static void parse_and_format_are_inverse(void **state)
{
	static const char *const texts[] = {ABC_256, ABC_512, EMPTY_256, EMPTY_512};
	struct err err = ERR_INIT;
	struct digest digest;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		assert_ok(digest_parse(texts[i], &digest, &err), &err);
		assert_digest(&digest, texts[i]);
	}
	assert_int_equal(digest_size(DIGEST_SHA256), 32);
	assert_int_equal(digest_size(DIGEST_SHA512), 64);
}

static void every_cut_of_a_digest_is_refused(void **state)
{
	static const char *const texts[] = {ABC_256, ABC_512};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		for (size_t len = 0; len < strlen(texts[i]); len++) {
			/* On the heap, where the sanitizer sees a byte read too far. */
			char *cut = strndup(texts[i], len);
			struct digest digest;
			struct err err = ERR_INIT;

			assert_fails(digest_parse(cut, &digest, &err), &err, ERR_INVALID_ARGUMENT);
			free(cut);
		}
	}
}

static void what_is_no_digest_is_refused_and_leaves_the_result(void **state)
{
	static const char *const texts[] = {
		"",
		"sha256",
		"sha256:",
		":",
		"md5:900150983cd24fb0d6963f7d28e17f72",
		ABC_256 "0",
		ABC_256 " ",
		(" " ABC_256),
		"SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
		"sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a/",
		"sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct digest digest, before;
		struct err err = ERR_INIT;

		memset(&digest, 0x55, sizeof(digest));
		memcpy(&before, &digest, sizeof(digest));
		assert_fails(digest_parse(texts[i], &digest, &err), &err, ERR_INVALID_ARGUMENT);
		assert_memory_equal(&digest, &before, sizeof(digest));
	}
}

static void equal_looks_at_algorithm_and_every_byte(void **state)
{
	struct err err = ERR_INIT;
	struct digest a, b;

	(void)state;
	assert_ok(digest_parse(ABC_512, &a, &err), &err);
	b = a;
	assert_true(digest_equal(&a, &b));
	for (size_t i = 0; i < 64; i++) {
		b.bytes[i] ^= 1;
		assert_false(digest_equal(&a, &b));
		b.bytes[i] ^= 1;
	}
	b.algorithm = DIGEST_SHA256;
	assert_false(digest_equal(&a, &b));
}

static void pieces_give_the_digest_of_the_whole(void **state)
{
	static const size_t piece_sizes[] = {1, 3, 63, 64, 65, 4096};
	struct err err = ERR_INIT;
	unsigned char data[10000];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 31);
	for (enum digest_algorithm a = DIGEST_SHA256; a <= DIGEST_SHA512; a++) {
		struct digest whole;

		assert_ok(digest_of(a, data, sizeof(data), &whole, &err), &err);
		for (size_t p = 0; p < ARRAY_LEN(piece_sizes); p++) {
			struct digest_state *running;
			struct digest got;

			assert_ok(digest_state_new(a, &running, &err), &err);
			for (size_t at = 0; at < sizeof(data); at += piece_sizes[p]) {
				size_t n = sizeof(data) - at;

				if (n > piece_sizes[p])
					n = piece_sizes[p];
				assert_ok(digest_state_add(running, data + at, n, &err), &err);
			}
			assert_ok(digest_state_peek(running, &got, &err), &err);
			assert_true(digest_equal(&whole, &got));
			digest_state_free(running);
		}
	}
}

static void peek_does_not_end_the_digest(void **state)
{
	struct err err = ERR_INIT;
	struct digest_state *running;
	struct digest digest;

	(void)state;
	assert_ok(digest_state_new(DIGEST_SHA256, &running, &err), &err);
	assert_ok(digest_state_peek(running, &digest, &err), &err);
	assert_digest(&digest, EMPTY_256);
	assert_ok(digest_state_add(running, "ab", 2, &err), &err);
	assert_ok(digest_state_peek(running, &digest, &err), &err);
	assert_ok(digest_state_add(running, "", 0, &err), &err);
	assert_ok(digest_state_add(running, "c", 1, &err), &err);
	assert_ok(digest_state_peek(running, &digest, &err), &err);
	assert_digest(&digest, ABC_256);
	assert_ok(digest_state_peek(running, &digest, &err), &err);
	assert_digest(&digest, ABC_256);
	digest_state_free(running);
	digest_state_free(NULL);
}

static void an_unknown_algorithm_is_refused(void **state)
{
	struct err err = ERR_INIT;
	struct digest_state *running = NULL;
	struct digest digest;

	(void)state;
	assert_fails(digest_of((enum digest_algorithm)3, "", 0, &digest, &err), &err,
		     ERR_INVALID_ARGUMENT);
	assert_fails(digest_state_new((enum digest_algorithm)0, &running, &err), &err,
		     ERR_INVALID_ARGUMENT);
	assert_null(running);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers_are_found),
		cmocka_unit_test(parse_and_format_are_inverse),
		cmocka_unit_test(every_cut_of_a_digest_is_refused),
		cmocka_unit_test(what_is_no_digest_is_refused_and_leaves_the_result),
		cmocka_unit_test(equal_looks_at_algorithm_and_every_byte),
		cmocka_unit_test(pieces_give_the_digest_of_the_whole),
		cmocka_unit_test(peek_does_not_end_the_digest),
		cmocka_unit_test(an_unknown_algorithm_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
