/* SPDX-License-Identifier: Apache-2.0 */
#include "base/regex.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/process.h"
#include "tests/support/test.h"

static bool search(const char *pattern, const char *text)
{
	struct regex *regex = regex_new(pattern, strlen(pattern));
	bool found;

	if (!regex)
		fail_msg("'%s' did not compile", pattern);
	found = regex_search(regex, text, strlen(text));
	regex_free(regex);
	return found;
}

static void search_finds_anywhere_unless_anchored(void **state)
{
	(void)state;
	assert_true(search("b+", "abbc"));
	assert_false(search("^b", "abbc"));
	assert_true(search("^abbc$", "abbc"));
	assert_false(search("d", "abbc"));
	assert_true(search("", "abbc"));
	assert_true(search("", ""));
	assert_true(search("^$", ""));
}

/* The rules in which Go's regexp package, containerd's, differs from POSIX or Perl. */
static void syntax_is_that_of_go(void **state)
{
	(void)state;
	assert_true(search("^\\d{2}\\w\\s\\S$", "12x y"));
	assert_false(search("B", "abc"));
	assert_true(search("(?i)B", "abc"));
	assert_false(search("^b$", "a\nb\nc"));
	assert_true(search("(?m)^b$", "a\nb\nc"));
	assert_false(search("a.b", "a\nb"));
	assert_true(search("(?s)a.b", "a\nb"));
	assert_true(search("\\bsnap\\b", "a snap b"));
	assert_true(search("[[:alpha:]]\\pL\\p{Greek}", "a\xc3\xa9\xce\xb1"));
	assert_true(search("(?P<name>x)|y", "y"));
	assert_true(search("\\Q.*\\E", "a.*b"));
}

static void a_character_is_a_code_point(void **state)
{
	(void)state;
	assert_true(search("^.$", "\xe2\x82\xac"));
	assert_true(search("^[\xc3\xa0-\xc3\xbf]$", "\xc3\xa9"));
	assert_false(search("^..$", "\xc3\xa9"));
}

static void what_re2_does_not_know_is_refused(void **state)
{
	static const char *const patterns[] = {
		"(",      ")",       "[a", "a**",   "*",    "(?=a)", "(?!a)", "(a)\\1", "(?<=a)b",
		"a{2,1}", "a{1001}", "\\", "[b-a]", "\\pX", "(?z)",  "\xff",  "\xc3",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
		struct regex *regex = regex_new(patterns[i], strlen(patterns[i]));

		if (regex)
			fail_msg("'%s' compiled", patterns[i]);
	}
}

static void length_counts_and_not_nul_bytes(void **state)
{
	struct regex *regex = regex_new("a\0b...", 3);

	(void)state;
	assert_non_null(regex);
	assert_true(regex_search(regex, "xa\0bx", 5));
	assert_false(regex_search(regex, "xa\0bx", 3));
	assert_false(regex_search(regex, "ab", 2));
	regex_free(regex);

	regex = regex_new(NULL, 0);
	assert_non_null(regex);
	assert_true(regex_search(regex, NULL, 0));
	regex_free(regex);
	regex_free(NULL);
}

static void an_expression_too_large_is_refused(void **state)
{
	size_t size = (size_t)2 * 1024 * 1024;
	char *pattern = malloc(size);

	(void)state;
	assert_null(regex_new("((a{100}){100}){100}", 20));
	assert_null(regex_new("(\\pL{1000}){10}", 15));

	/* Compiles to next to nothing, had it been read. */
	memset(pattern, 'a', size);
	pattern[0] = '[';
	pattern[size - 1] = ']';
	assert_null(regex_new(pattern, size));
	assert_non_null(pattern);
	free(pattern);
}

/* Exponential for an engine that goes back. The test's own limit of time ends it then. */
static void time_is_linear(void **state)
{
	char text[100001];

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_false(search("(a*)*(a|aa)*b$", text));
	assert_false(search("(x+x+)+y", text));
}

static void nothing_is_written_to_stderr(void **state)
{
	struct capture capture;
	struct regex *regex;
	char *text;

	(void)state;
	capture_begin(&capture, 2);
	regex = regex_new("(", 1);
	text = capture_end(&capture);
	assert_null(regex);
	assert_string_equal(text, "");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(search_finds_anywhere_unless_anchored),
		cmocka_unit_test(syntax_is_that_of_go),
		cmocka_unit_test(a_character_is_a_code_point),
		cmocka_unit_test(what_re2_does_not_know_is_refused),
		cmocka_unit_test(length_counts_and_not_nul_bytes),
		cmocka_unit_test(an_expression_too_large_is_refused),
		cmocka_unit_test(time_is_linear),
		cmocka_unit_test(nothing_is_written_to_stderr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
