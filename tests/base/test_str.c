/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fault.h"
#include "tests/support/test.h"

static void text_is_built_from_pieces(void **state)
{
	struct str str;
	char *text;

	(void)state;
	str_init(&str, 1000);
	assert_null(str.text);
	str_add(&str, "lowerdir=");
	str_add_mem(&str, "/a:/b...", 5);
	str_printf(&str, ",n=%d", 7);
	str_add_mem(&str, NULL, 0);
	assert_string_equal(str.text, "lowerdir=/a:/b,n=7");
	assert_int_equal(str.len, strlen(str.text));
	text = str_take(&str);
	assert_string_equal(text, "lowerdir=/a:/b,n=7");
	assert_null(str.text);
	assert_int_equal(str.len, 0);
	free(text);
}

static void nothing_added_is_an_empty_text(void **state)
{
	struct str str;
	char *text;

	(void)state;
	str_init(&str, 0);
	text = str_take(&str);
	assert_string_equal(text, "");
	free(text);
}

static void the_cap_is_reached_but_not_passed(void **state)
{
	struct str str;
	char *text;

	(void)state;
	str_init(&str, 200);
	for (int i = 0; i < 200; i++)
		str_add(&str, "x");
	assert_false(str.failed);
	text = str_take(&str);
	assert_int_equal(strlen(text), 200);
	free(text);

	for (int i = 0; i < 201; i++)
		str_add(&str, "x");
	assert_true(str.failed);
	assert_null(str_take(&str));
	/* Taken is taken: the next text starts afresh, under the same cap. */
	assert_false(str.failed);
	str_printf(&str, "%0200d", 0);
	assert_false(str.failed);
	str_printf(&str, "%d", 0);
	assert_true(str.failed);
	str_done(&str);
}

/* A hole in a mount option list would be worse than none. */
static void what_follows_a_failure_is_not_added(void **state)
{
	struct str str;

	(void)state;
	str_init(&str, 5);
	str_add(&str, "abc");
	str_add(&str, "defg");
	str_add(&str, "h");
	str_printf(&str, "%s", "i");
	assert_true(str.failed);
	assert_string_equal(str.text, "abc");
	assert_null(str_take(&str));
}

static void without_memory_building_fails(void **state)
{
	struct str str;

	(void)state;
	str_init(&str, 1000);
	str_add(&str, "abc");
	fault_after(FAULT_REALLOC, 0, ENOMEM);
	str_printf(&str, "%0100d", 0);
	assert_true(str.failed);
	assert_int_equal(fault_clear(), 1);
	assert_string_equal(str.text, "abc");
	assert_null(str_take(&str));
}

static void utf8_is_told_from_what_is_not(void **state)
{
	static const struct {
		const char *text;
		bool is_utf8;
	} rows[] = {
		{"", true},
		{"plain", true},
		{"\x7f", true},
		{"\xc2\x80", true},
		{"\xdf\xbf", true},
		{"\xe0\xa0\x80", true},
		{"\xed\x9f\xbf", true},
		{"\xee\x80\x80", true},
		{"\xef\xbf\xbf", true},
		{"\xf0\x90\x80\x80", true},
		{"\xf4\x8f\xbf\xbf", true},
		{"a\xe2\x82\xac"
		 "b\xc3\xa9",
		 true},
		/* lone continuation, cut sequences */
		{"\x80", false},
		{"a\xbf", false},
		{"\xc3", false},
		{"\xe2\x82", false},
		{"\xf0\x9f\x9a", false},
		{"\xe2\x82"
		 "a",
		 false},
		/* overlong */
		{"\xc0\xaf", false},
		{"\xc1\xbf", false},
		{"\xe0\x9f\xbf", false},
		{"\xf0\x8f\xbf\xbf", false},
		/* surrogates, beyond U+10FFFF */
		{"\xed\xa0\x80", false},
		{"\xed\xbf\xbf", false},
		{"\xf4\x90\x80\x80", false},
		{"\xf5\x80\x80\x80", false},
		{"\xff", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (str_is_utf8(rows[i].text, strlen(rows[i].text)) != rows[i].is_utf8)
			fail_msg("row %zu", i);
	}
	assert_true(str_is_utf8(NULL, 0));
	assert_true(str_is_utf8("a\0b", 3));
	/* The length counts, not what follows. */
	assert_false(str_is_utf8("\xc3\xa9", 1));
}

static void text_is_cut_between_characters(void **state)
{
	(void)state;
	assert_int_equal(str_cut("", 4), 0);
	assert_int_equal(str_cut("abcd", 4), 4);
	assert_int_equal(str_cut("abcde", 4), 4);
	assert_int_equal(str_cut("abc\xc3\xa9", 4), 3);
	assert_int_equal(str_cut("abc\xc3\xa9", 5), 5);
	assert_int_equal(str_cut("\xf0\x9f\x94\xa5", 3), 0);
	/* What is no UTF-8 ends, too. */
	assert_int_equal(str_cut("\x80\x80\x80\x80\x80", 4), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_is_built_from_pieces),
		cmocka_unit_test(nothing_added_is_an_empty_text),
		cmocka_unit_test(the_cap_is_reached_but_not_passed),
		cmocka_unit_test(what_follows_a_failure_is_not_added),
		cmocka_unit_test(without_memory_building_fails),
		cmocka_unit_test(text_is_cut_between_characters),
		cmocka_unit_test(utf8_is_told_from_what_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
