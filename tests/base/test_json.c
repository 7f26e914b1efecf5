/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "tests/support/test.h"

static const struct json_limits limits = {
	.size_bytes = 1u << 20,
	.n_containers = 1000,
	.n_values = 1000,
};

/* An exact allocation, so that AddressSanitizer sees the first byte read past the end. */
static int parse_mem(const char *text, size_t size, struct json **ret_document, struct err *err)
{
	char *copy = malloc(size ? size : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, text, size);
	r = json_parse(copy, size, &limits, ret_document, err);
	free(copy);
	return r;
}

static struct json *parse(const char *text)
{
	struct json *document = NULL;
	struct err err = ERR_INIT;

	if (parse_mem(text, strlen(text), &document, &err) < 0)
		fail_msg("%s: %s", text, err.msg);
	return document;
}

static void values_are_read_as_they_are_written(void **state)
{
	struct json *document = parse(" {\"text\":\"a\\u00e4\\n\\\"\",\"n\":42,\"list\":[1,[],{}],"
				      "\"yes\":true,\"none\":null}\n");
	const struct json *list = json_member(document, "list");
	int64_t n = 0;

	(void)state;
	assert_int_equal(json_kind(document), JSON_OBJECT);
	assert_string_equal(json_string(json_member(document, "text")), "a\xc3\xa4\n\"");
	assert_true(json_int(json_member(document, "n"), &n));
	assert_int_equal(n, 42);
	assert_int_equal(json_kind(json_member(document, "n")), JSON_NUMBER);
	assert_int_equal(json_kind(json_member(document, "yes")), JSON_BOOL);
	assert_int_equal(json_n_elements(list), 3);
	assert_int_equal(json_kind(json_element(list, 1)), JSON_ARRAY);
	assert_int_equal(json_kind(json_element(list, 2)), JSON_OBJECT);
	/* Absent, null, and of another kind are one to who asks for a value. */
	assert_null(json_member(document, "none"));
	assert_null(json_member(document, "absent"));
	assert_null(json_member(list, "text"));
	assert_null(json_string(json_member(document, "n")));
	assert_null(json_string(NULL));
	assert_int_equal(json_n_elements(document), 0);
	assert_int_equal(json_n_elements(NULL), 0);
	assert_int_equal(json_kind(NULL), JSON_NULL);
	json_free(document);
}

static void any_value_is_a_document(void **state)
{
	static const struct {
		const char *text;
		enum json_kind kind;
	} cases[] = {
		{"null", JSON_NULL},   {"7", JSON_NUMBER}, {"-0.5e+3", JSON_NUMBER},
		{"\"\"", JSON_STRING}, {"[]", JSON_ARRAY}, {" \t\r\n{}\n ", JSON_OBJECT},
		{"false", JSON_BOOL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json *document = parse(cases[i].text);

		assert_int_equal(json_kind(document), cases[i].kind);
		json_free(document);
	}
	json_free(NULL);
}

static void what_is_no_json_is_refused(void **state)
{
	static const char *const texts[] = {
		"",           " ",          "{",       "}",           "{]",
		"[1",         "[1,]",       "[,1]",    "{\"a\":1,}",  "{\"a\"}",
		"{a:1}",      "{1:1}",      "{'a':1}", "{\"a\":'b'}", "{\"a\" 1}",
		"{\"a\"::1}", "{\"a\":1:}", "tru",     "True",        "NULL",
		"NaN",        "-Infinity",  "[1 2]",   "[1]]",        "{} {}",
		"{}x",        "1 2",        "/* */ 1", "1 // x",      "[01]",
		"[1.]",       "[.5]",       "[+1]",    "[0x1]",       "[1e]",
		"[--1]",      "\"",         "\"\\",    "\"\\\"",      "\"a",
		"\"\\x\"",    "\"\\u12\"",  "\"\t\"",  "\"\n\"",      "\xef\xbb\xbf{}",
	};
	struct json *document = NULL;
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (parse_mem(texts[i], strlen(texts[i]), &document, &err) == 0)
			fail_msg("'%s' was taken", texts[i]);
		assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
	}
	assert_null(document);
}

static void a_name_stands_once_in_an_object(void **state)
{
	static const char *const refused[] = {
		"{\"a\":1,\"a\":2}",
		"{\"a\":1,\"\\u0061\":2}",
		"[[{\"x\":[{\"a\":null,\"b\":0,\"a\":null}]}]]",
		"{\"\":1,\"\":2}",
	};
	struct json *document = NULL;
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		assert_fails(parse_mem(refused[i], strlen(refused[i]), &document, &err), &err,
			     ERR_INVALID_ARGUMENT);
		assert_contains(err.msg, "twice");
	}
	json_free(parse("{\"a\":{\"a\":1},\"A\":[{\"a\":1},{\"a\":\"a:b\"}],\"\\\":\":\":\"}"));
}

static void texts_without_their_end_in_c_are_refused(void **state)
{
	static const char raw[] = "{\"a\0b\":1}";
	static const char outside[] = "{}\0";
	struct json *document = NULL;
	struct err err = ERR_INIT;

	(void)state;
	assert_fails(parse_mem(raw, sizeof(raw) - 1, &document, &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(parse_mem(outside, sizeof(outside) - 1, &document, &err), &err,
		     ERR_INVALID_ARGUMENT);
	assert_fails(parse_mem("[\"a\\u0000b\"]", 12, &document, &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(parse_mem("{\"\\u0000\":1}", 12, &document, &err), &err, ERR_INVALID_ARGUMENT);
	/* This one is a backslash, and digits. */
	document = parse("[\"\\\\u0000\"]");
	assert_string_equal(json_string(json_element(document, 0)), "\\u0000");
	json_free(document);
}

static void texts_are_utf8(void **state)
{
	static const char *const refused[] = {"[\"\xff\"]", "[\"\xc3\"]", "[\"\xc0\xaf\"]",
					      "[\"\xed\xa0\x80\"]", "{\"\xf5\x80\x80\x80\":1}"};
	struct json *document = NULL;
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		assert_fails(parse_mem(refused[i], strlen(refused[i]), &document, &err), &err,
			     ERR_INVALID_ARGUMENT);
	document = parse("[\"\\ud83d\\ude00\"]");
	assert_string_equal(json_string(json_element(document, 0)), "\xf0\x9f\x98\x80");
	json_free(document);
	/* Half a pair is no character. Others read it as U+FFFD, too. */
	document = parse("[\"\\ud83d\"]");
	assert_true(str_is_utf8(json_string(json_element(document, 0)), 3));
	json_free(document);
}

static void numbers_are_whole_and_in_range(void **state)
{
	struct json *document = parse(
		"[0,9223372036854775807,9223372036854775808,18446744073709551615,"
		"18446744073709551616,"
		"-1,1.0,1e3,99999999999999999999999999,-9223372036854775809,\"1\",null,true,-0]");
	int64_t n;

	(void)state;
	for (size_t i = 0; i < json_n_elements(document); i++) {
		bool taken = i < 2 || i == 13;

		n = -7;
		assert_int_equal(json_int(json_element(document, i), &n), taken);
		assert_true(n == (i == 1 ? INT64_MAX : taken ? 0 : -7));
	}
	assert_false(json_int(NULL, &n));
	json_free(document);
}

static void add_n(struct str *str, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		str_add(str, text);
}

/* @n times @open, then @middle, then @n times @close. */
static int parse_nested(const char *open, const char *middle, const char *close, size_t n,
			struct err *err)
{
	struct json *document = NULL;
	struct str text;
	int r;

	str_init(&text, 16u << 20);
	add_n(&text, open, n);
	str_add(&text, middle);
	add_n(&text, close, n);
	assert_false(text.failed);
	r = parse_mem(text.text, text.len, &document, err);
	json_free(document);
	str_done(&text);
	return r;
}

static void limits_are_kept(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	/* json-c counts the value inside, too. */
	assert_ok(parse_nested("[", "1", "]", JSON_DEPTH_MAX - 1, &err), &err);
	assert_fails(parse_nested("[", "1", "]", JSON_DEPTH_MAX, &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(parse_nested("[", "", "]", 100000, &err), &err, ERR_OUT_OF_RANGE);
	assert_ok(parse_nested("", "[", "1,", 998, &err) < 0 ? 0 : -1, &err);
	/* An array and 998 commas: that it does not end is seen behind the limit of values, */
	assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
	/* which one more is beyond. */
	assert_fails(parse_nested("", "[", "1,", 999, &err), &err, ERR_OUT_OF_RANGE);
	assert_fails(parse_nested("{\"a\":", "1", "}", 1001, &err), &err, ERR_OUT_OF_RANGE);
	assert_ok(parse_nested(" ", "1", " ", 1u << 18, &err), &err);
	assert_fails(parse_nested(" ", "1", " ", 1u << 20, &err), &err, ERR_OUT_OF_RANGE);
}

static int note_name(void *arg, const char *name, const struct json *value, struct err *err)
{
	struct str *names = arg;

	(void)err;
	str_printf(names, "%s=%d ", name, (int)json_kind(value));
	return strcmp(name, "stop") == 0 ? 3 : 0;
}

static void members_are_walked_in_order(void **state)
{
	struct json *document =
		parse("{\"z\":1,\"a\":null,\"m\":{\"inner\":1},\"stop\":0,\"never\":0}");
	struct err err = ERR_INIT;
	struct str names;

	(void)state;
	str_init(&names, 1000);
	assert_int_equal(json_each_member(document, note_name, &names, &err), 3);
	assert_string_equal(names.text, "z=2 a=0 m=5 stop=2 ");
	assert_int_equal(json_each_member(NULL, note_name, &names, &err), 0);
	str_done(&names);
	json_free(document);
}

static void a_part_can_be_written_again(void **state)
{
	struct json *document =
		parse("{ \"a\" : { \"x/y\" : \"\\u00e4\\n\" , \"n\" : [ 1 , true ] } }");
	struct arena arena;
	char *text;

	(void)state;
	arena_init(&arena, 1000);
	text = json_text(json_member(document, "a"), &arena);
	assert_string_equal(text, "{\"x/y\":\"\xc3\xa4\\n\",\"n\":[1,true]}");
	json_free(document);
	arena_done(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_read_as_they_are_written),
		cmocka_unit_test(any_value_is_a_document),
		cmocka_unit_test(what_is_no_json_is_refused),
		cmocka_unit_test(a_name_stands_once_in_an_object),
		cmocka_unit_test(texts_without_their_end_in_c_are_refused),
		cmocka_unit_test(texts_are_utf8),
		cmocka_unit_test(numbers_are_whole_and_in_range),
		cmocka_unit_test(limits_are_kept),
		cmocka_unit_test(members_are_walked_in_order),
		cmocka_unit_test(a_part_can_be_written_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
