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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
