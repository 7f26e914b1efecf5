/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/codec.h"

#include <string.h>

#include "notes.pb-c.h"
#include "tests/support/test.h"

#define TYPE (&lighter__test__note__descriptor)

/* Field numbers of Note shifted into tags of length-delimited fields. */
enum {
	TEXT = 1 << 3 | 2,
	DATA = 2 << 3 | 2,
	TAGS = 3 << 3 | 2,
	LABELS = 4 << 3 | 2,
	INNER = 5 << 3 | 2
};

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

static int unpack(const uint8_t *data, size_t len, struct arena *arena, Lighter__Test__Note **ret,
		  struct err *err)
{
	ProtobufCMessage *msg;

	arena_init(arena, 1 << 20);
	if (codec_unpack(TYPE, data, len, arena, &msg, err) < 0)
		return -1;
	*ret = (Lighter__Test__Note *)msg;
	return 0;
}

static void refuses(const uint8_t *data, size_t len, const char *why)
{
	Lighter__Test__Note *note;
	struct arena arena;
	struct err err;

	assert_fails(unpack(data, len, &arena, &note, &err), &err, ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, why);
	assert_contains(err.msg, "lighter.test.Note");
	arena_done(&arena);
}

static void takes_a_message_of_every_field(void **state)
{
	Lighter__Test__Note *note;
	struct arena arena;
	struct err err;

	(void)state;
	assert_ok(unpack(BYTES(TEXT, 3, 'a', 0xc3, 0xa4, DATA, 2, 0, 0xff, TAGS, 1, 't', TAGS, 0,
			       LABELS, 6, 0x0a, 1, 'k', 0x12, 1, 'v', INNER, 3, TEXT, 1, 'i', 0x30,
			       7),
			 &arena, &note, &err),
		  &err);
	assert_string_equal(note->text, "a\xc3\xa4");
	assert_int_equal(note->data.len, 2);
	assert_int_equal(note->n_tags, 2);
	assert_string_equal(note->labels[0]->value, "v");
	assert_string_equal(note->inner->text, "i");
	assert_int_equal(note->number, 7);
	arena_done(&arena);
}

static void takes_an_empty_message(void **state)
{
	Lighter__Test__Note *note;
	struct arena arena;
	struct err err;

	(void)state;
	assert_ok(unpack((const uint8_t *)"", 0, &arena, &note, &err), &err);
	assert_string_equal(note->text, "");
	arena_done(&arena);
}

static void skips_unknown_fields_of_every_wire_type(void **state)
{
	Lighter__Test__Note *note;
	struct arena arena;
	struct err err;

	(void)state;
	/* 99, as varint, 64 bit, bytes that are no text, 32 bit */
	assert_ok(unpack(BYTES(0x98, 6, 0xff, 1, 0x99, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0x9a, 6, 2, 0,
			       0xff, 0x9d, 6, 1, 2, 3, 4, TEXT, 1, 'x'),
			 &arena, &note, &err),
		  &err);
	assert_string_equal(note->text, "x");
	arena_done(&arena);
}

static void refuses_nul_in_strings_at_every_level(void **state)
{
	(void)state;
	refuses(BYTES(TEXT, 3, 'a', 0, 'b'), "'text'");
	refuses(BYTES(TEXT, 1, 0), "NUL");
	refuses(BYTES(TAGS, 1, 'a', TAGS, 2, 'b', 0), "'tags'");
	refuses(BYTES(LABELS, 4, 0x0a, 2, 'k', 0), "'labels.key'");
	refuses(BYTES(LABELS, 7, 0x0a, 1, 'k', 0x12, 2, 'v', 0), "'labels.value'");
	refuses(BYTES(INNER, 5, INNER, 3, TEXT, 1, 0), "'inner.inner.text'");
	/* the last of two counts, but the first is on the wire too */
	refuses(BYTES(TEXT, 1, 0, TEXT, 1, 'a'), "'text'");
}

static void refuses_strings_that_are_not_utf8(void **state)
{
	(void)state;
	refuses(BYTES(TEXT, 1, 0xff), "'text' of lighter.test.Note is not UTF-8");
	refuses(BYTES(TEXT, 1, 0xc3), "UTF-8");
	refuses(BYTES(TEXT, 3, 0xed, 0xa0, 0x80), "UTF-8");
	refuses(BYTES(TEXT, 2, 0xc0, 0x80), "UTF-8");
	refuses(BYTES(LABELS, 4, 0x12, 2, 'v', 0xff), "'labels.value'");
}

static void refuses_what_is_cut_off_or_no_message(void **state)
{
	(void)state;
	refuses(BYTES(TEXT), "cut off");
	refuses(BYTES(TEXT, 2, 'a'), "cut off");
	refuses(BYTES(TEXT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "cut off");
	refuses(BYTES(0x30, 0x80), "cut off");
	refuses(BYTES(0x30, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0),
		"cut off");
	refuses(BYTES(0x99, 6, 1, 2, 3), "malformed");
	refuses(BYTES(0x9d, 6, 1, 2, 3), "malformed");
	refuses(BYTES(0), "field number");
	refuses(BYTES(0x80), "field number");
	refuses(BYTES(2, 0), "field number");
	refuses(BYTES(0x0b, 0x0c), "wire type"); /* groups */
	refuses(BYTES(0x08, 1), "malformed"); /* a number where text belongs */
	refuses(BYTES(INNER, 2, TEXT, 1), "'inner.text'");
}

static void refuses_messages_nested_too_deeply(void **state)
{
	uint8_t buf[4 * CODEC_MAX_DEPTH];
	size_t at = sizeof(buf);
	struct err err;

	(void)state;
	for (unsigned int depth = 1; depth < CODEC_MAX_DEPTH; depth++) {
		size_t len = sizeof(buf) - at;

		assert_ok(codec_check(TYPE, buf + at, len, &err), &err);
		assert_true(len < 128);
		buf[--at] = (uint8_t)len;
		buf[--at] = INNER;
	}
	assert_ok(codec_check(TYPE, buf + at, sizeof(buf) - at, &err), &err);
	at -= 2;
	buf[at] = INNER;
	buf[at + 1] = (uint8_t)(sizeof(buf) - at - 2);
	assert_fails(codec_check(TYPE, buf + at, sizeof(buf) - at, &err), &err,
		     ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "too deeply");
}

static void stays_within_the_arena(void **state)
{
	static uint8_t data[64 << 10];
	Lighter__Test__Note *note;
	struct arena arena;
	struct err err;

	(void)state;
	/* Each label is two bytes here and some sixty in memory. */
	for (size_t i = 0; i < sizeof(data); i += 2) {
		data[i] = LABELS;
		data[i + 1] = 0;
	}
	assert_fails(unpack(data, sizeof(data), &arena, &note, &err), &err, ERR_RESOURCE_EXHAUSTED);
	assert_true(arena.used_bytes <= arena.cap_bytes);
	arena_done(&arena);
}

/* --- in pieces ---------------------------------------------------------------------------------------- */

static void assert_split(const uint8_t *data, size_t len, const uint8_t *rest, size_t rest_len,
			 const uint8_t *bytes, size_t bytes_len)
{
	/* However it is cut in three, empty pieces among them. */
	for (size_t i = 0; i <= len; i++)
		for (size_t k = i; k <= len; k++) {
			const struct iovec pieces[] = {
				{(void *)data, i},
				{(void *)(data + i), k - i},
				{(void *)(data + k), len - k},
			};
			struct codec_parts parts;
			struct arena arena;
			struct err err;
			size_t at = 0;

			arena_init(&arena, 1 << 20);
			assert_ok(codec_split(pieces, 3, 2, &arena, &parts, &err), &err);
			assert_int_equal(parts.rest_len, rest_len);
			assert_memory_equal(parts.rest, rest, rest_len);
			assert_int_equal(parts.bytes_len, bytes_len);
			for (size_t p = 0; p < parts.n_bytes; p++) {
				assert_true(parts.bytes[p].iov_len > 0);
				assert_memory_equal(parts.bytes[p].iov_base, bytes + at,
						    parts.bytes[p].iov_len);
				at += parts.bytes[p].iov_len;
			}
			assert_int_equal(at, bytes_len);
			arena_done(&arena);
		}
}

static void splits_off_the_bytes_however_they_came(void **state)
{
	(void)state;
	assert_split(BYTES(TEXT, 1, 'a', DATA, 3, 1, 2, 3, 0x30, 7), BYTES(TEXT, 1, 'a', 0x30, 7),
		     BYTES(1, 2, 3));
	assert_split(BYTES(DATA, 3, 1, 2, 3), (const uint8_t *)"", 0, BYTES(1, 2, 3));
	/* Key and length in more bytes than they need. */
	assert_split(BYTES(DATA | 0x80, 0, 0x82, 0, 5, 6, TEXT, 0), BYTES(TEXT, 0), BYTES(5, 6));
	/* Unknown fields of every wire type stay. */
	assert_split(BYTES(0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4, DATA, 1, 9),
		     BYTES(0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4), BYTES(9));
}

static void of_bytes_given_twice_the_last_count(void **state)
{
	(void)state;
	assert_split(BYTES(DATA, 2, 1, 2, TEXT, 0, DATA, 1, 3), BYTES(TEXT, 0), BYTES(3));
	assert_split(BYTES(DATA, 2, 1, 2, DATA, 0), (const uint8_t *)"", 0, (const uint8_t *)"", 0);
}

static void a_message_without_the_bytes_is_left_alone(void **state)
{
	(void)state;
	assert_split(BYTES(TEXT, 1, 'a'), BYTES(TEXT, 1, 'a'), (const uint8_t *)"", 0);
	assert_split((const uint8_t *)"", 0, (const uint8_t *)"", 0, (const uint8_t *)"", 0);
	/* The field's number with a varint is another field to us; decoding refuses it. */
	assert_split(BYTES(0x10, 5), BYTES(0x10, 5), (const uint8_t *)"", 0);
	/* So is that of a message inside. */
	assert_split(BYTES(INNER, 3, DATA, 1, 1), BYTES(INNER, 3, DATA, 1, 1), (const uint8_t *)"",
		     0);
}

static void what_is_malformed_is_all_in_the_rest(void **state)
{
	static const uint8_t cases[][6] = {
		{DATA, 1, 1, DATA, 200, 1},     {DATA, 1, 1, 0x33, 0, 0},
		{DATA, 1, 1, TEXT, 0xff, 0xff}, {DATA, 1, 1, 0x79, 0, 0},
		{DATA, 1, 1, 0x30, 0x80, 0x80},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_split(cases[i], 6, cases[i], 6, (const uint8_t *)"", 0);
}

static void split_reports_a_used_up_arena(void **state)
{
	static uint8_t data[2000] = {TEXT, 0xcd, 0x0f};
	const struct iovec piece = {data, sizeof(data)};
	struct codec_parts parts;
	struct arena arena;
	struct err err;

	(void)state;
	arena_init(&arena, 1000);
	assert_fails(codec_split(&piece, 1, 2, &arena, &parts, &err), &err, ERR_RESOURCE_EXHAUSTED);
	arena_done(&arena);
}

static void heads_read_back_as_they_were_put(void **state)
{
	static const int64_t values[] = {0, 1, 127, 128, 1 << 20, INT64_MAX, -1, INT64_MIN};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		uint8_t data[64];
		size_t len = codec_put_int64(data, 6, values[i]);
		Lighter__Test__Note *note;
		struct arena arena;
		struct err err;

		len += codec_put_bytes_head(data + len, 2, 3);
		memcpy(data + len, "abc", 3);
		assert_ok(unpack(data, len + 3, &arena, &note, &err), &err);
		assert_true(note->number == values[i]);
		assert_int_equal(note->data.len, 3);
		assert_memory_equal(note->data.data, "abc", 3);
		arena_done(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_a_message_of_every_field),
		cmocka_unit_test(takes_an_empty_message),
		cmocka_unit_test(skips_unknown_fields_of_every_wire_type),
		cmocka_unit_test(refuses_nul_in_strings_at_every_level),
		cmocka_unit_test(refuses_strings_that_are_not_utf8),
		cmocka_unit_test(refuses_what_is_cut_off_or_no_message),
		cmocka_unit_test(refuses_messages_nested_too_deeply),
		cmocka_unit_test(stays_within_the_arena),
		cmocka_unit_test(splits_off_the_bytes_however_they_came),
		cmocka_unit_test(of_bytes_given_twice_the_last_count),
		cmocka_unit_test(a_message_without_the_bytes_is_left_alone),
		cmocka_unit_test(what_is_malformed_is_all_in_the_rest),
		cmocka_unit_test(split_reports_a_used_up_arena),
		cmocka_unit_test(heads_read_back_as_they_were_put),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
