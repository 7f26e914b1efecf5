/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables were run through containerd's own filters package (1.6.20), as were some hundred thousand
 * random variations of them: both agree on what is an error, and on what matches.
 */
#include "base/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct label {
	const char *path; /* elements joined with "." */
	const char *value;
};

struct object {
	const char *name;
	const char *parent;
	const char *kind;
	struct label labels[4];
};

/* Results in the tables are in this order, one letter each: y or n. */
static const struct object objects[] = {
	{"foo", "", "active", {{NULL, NULL}}},
	{"default/1/extract-1 sha256:ab",
	 "p",
	 "committed",
	 {{"containerd.io/snapshot.ref", "sha256:abc"}, {"a.b", "x y"}, {"", "empty"}}},
	{"bar", "foo", "view", {{"a", "1"}, {"b", ""}, {"caf\xc3\xa9", "\xe2\x82\xac"}}},
	{"a\x01"
	 "b\n",
	 "/",
	 "active",
	 {{"1", "="}, {"x", "a,b"}, {"b", "a/b|c"}}},
};

static const char *object_field(const void *object_arg, const char *const *path, size_t n)
{
	const struct object *object = object_arg;
	char joined[256] = "";

	assert_true(n >= 1);
	if (strcmp(path[0], "name") == 0)
		return object->name;
	if (strcmp(path[0], "parent") == 0)
		return object->parent;
	if (strcmp(path[0], "kind") == 0)
		return object->kind;
	if (strcmp(path[0], "labels") != 0)
		return NULL;
	for (size_t i = 1; i < n; i++) {
		size_t len = strlen(joined);

		snprintf(joined + len, sizeof(joined) - len, "%s%s", i > 1 ? "." : "", path[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(object->labels) && object->labels[i].path; i++) {
		if (strcmp(object->labels[i].path, joined) == 0)
			return object->labels[i].value;
	}
	return NULL;
}

static void check_matches(const char *const *texts, size_t n, const char *expected)
{
	char actual[ARRAY_LEN(objects) + 1] = "";
	struct filters *filters = NULL;
	struct err err = ERR_INIT;

	if (filters_parse(texts, n, &filters, &err) < 0)
		fail_msg("'%s' is refused: %s", texts[0], err.msg);
	for (size_t i = 0; i < ARRAY_LEN(objects); i++)
		actual[i] = filters_match(filters, object_field, &objects[i]) ? 'y' : 'n';
	filters_free(filters);
	if (strcmp(actual, expected) != 0)
		fail_msg("'%s' matches %s, not %s", texts[0], actual, expected);
}

struct match_case {
	const char *text;
	const char *expected;
};

static const struct match_case match_cases[] = {
	/* Presence. */
	{"name", "yyyy"},
	{"parent", "yyyy"},
	{"kind", "yyyy"},
	{"nofield", "nnnn"},
	{"labels.a", "nnyn"},
	{"labels.b", "nnyy"},
	{"labels.1", "nnny"},
	{"labels", "nynn"},
	{"labels.\"\"", "nynn"},
	{"123", "nnnn"},
	{"_", "nnnn"},

	/* Equality wants the field there, inequality does not. */
	{"name==foo", "ynnn"},
	{"name!=foo", "nyyy"},
	{"parent==foo", "nnyn"},
	{"parent==\"\"", "ynnn"},
	{"parent!=\"\"", "nyyy"},
	{"nofield==\"\"", "nnnn"},
	{"nofield!=\"\"", "nnnn"},
	{"nofield!=x", "yyyy"},
	{"labels.b==\"\"", "nnyn"},
	{"labels.b!=\"\"", "nnny"},
	{"kind==active", "ynny"},
	{"kind==view", "nnyn"},
	{"kind==committed", "nynn"},
	{"kind==Active", "nnnn"},

	/* And, or. */
	{"kind==active,name==foo", "ynnn"},
	{"kind==active,name==bar", "nnnn"},
	{"kind==active,parent,name!=foo", "nnny"},

	/* Paths join; quotes keep dots together. */
	{"labels.a.b", "nynn"},
	{"labels.\"a.b\"", "nynn"},
	{"labels.\"a\".b", "nynn"},
	{"\"labels\".a.b==\"x y\"", "nynn"},
	{"labels.\"containerd.io/snapshot.ref\"==sha256:abc", "nynn"},
	{"labels.\"containerd.io/snapshot.ref\"==sha256:abc,parent==\"p\"", "nynn"},
	{"labels.\"containerd.io/snapshot.ref\"==sha256:abc,parent==\"\"", "nnnn"},
	{"labels.\"caf\\u00e9\"==\xe2\x82\xac", "nnyn"},
	{"labels.\"caf\xc3\xa9\"", "nnyn"},

	/* White space: before fields, operators and values; all of Unicode's. */
	{" name==foo", "ynnn"},
	{"name ==foo", "ynnn"},
	{"name== foo", "ynnn"},
	{"name \t\v\f\r\n==\xc2\x85\xc2\xa0\xe3\x80\x80\xe2\x80\xa8"
	 "foo",
	 "ynnn"},
	{"kind == active, name == foo", "ynnn"},
	{"labels. a", "nnyn"},
	{"labels. \"a\"", "nnyn"},

	/* What an unquoted value may hold. */
	{"labels.\"containerd.io/snapshot.ref\"==sha256:abc", "nynn"},
	{"name!=a=b;c:d/e.f|g\"h~i!j`k'l", "yyyy"},
	{"name==\\", "nnnn"},
	{"name==;", "nnnn"},
	{"name==\x01"
	 "foo",
	 "nnnn"},
	{"name==\xe2\x80\x8b"
	 "foo",
	 "nnnn"},
	{"labels.b~=b|c", "nnny"},
	{"labels.1==\"=\"", "nnny"},
	{"labels.x==\"a,b\"", "nnny"},
	{"parent==\"/\"", "nnny"},

	/* Go's escapes. */
	{"name==\"\\x66\\157\\u006f\"", "ynnn"},
	{"name==\"a\\001b\\n\"", "nnny"},
	{"name==\"\\a\\b\\f\\n\\r\\t\\v\\\\\\\"\"", "nnnn"},
	{"labels.caf==\"\"", "nnnn"},
	{"labels.\"caf\xc3\xa9\"==\"\\U000020ac\"", "nnyn"},
	{"labels.\"caf\\xc3\\xa9\"==\"\\xe2\\x82\\xac\"", "nnyn"},
	{"name==\"\\ud800\"", "nnnn"},
	{"name==\"\\U80000066\\UFFFFFF6F\\U8000006f\"", "ynnn"},
	/* A NUL does not cut anything short. */
	{"name==\"foo\\x00\"", "nnnn"},
	{"name!=\"foo\\x00\"", "yyyy"},
	{"labels.\"a\\x00\"", "nnnn"},
	{"labels.\"\\000\"", "nnnn"},
	{"\"name\\x00\"", "nnnn"},

	/* Regular expressions: searched, not anchored; RE2. */
	{"name~=o+", "ynnn"},
	{"name~=^fo{2}$", "ynnn"},
	{"name~=/^f.o$/", "ynnn"},
	{"name~=\"^(foo|bar)$\"", "ynyn"},
	{"name~=\"\\\\d\"", "nynn"},
	{"name~=/sha256:[a-f]+$/", "nynn"},
	{"name~=/sha256:[a-f\\\\d]+$/", "nynn"},
	{"labels.b~=/a\\/b/", "nnny"},
	{"labels.b~=|a/b|", "nnny"},
	{"labels.b~=|a.b\\||", "yyyy"}, /* "a.b" or nothing */
	{"labels.b~=//", "yyyy"},
	{"nofield~=/^$/", "yyyy"},
	{"nofield~=/./", "nnnn"},
	{"name~=/(?i)FOO/", "ynnn"},
	{"labels.\"caf\xc3\xa9\"~=/^.$/", "nnyn"},
	{"labels.\"caf\xc3\xa9\"~=/^\\\\p{Sc}$/", "nnyn"},
	/* Not a regular expression: no error, no match. */
	{"name~=\"(\"", "nnnn"},
	{"name~=*", "nnnn"},
	{"name~=/a{1001}/", "nnnn"},
	{"name~=/\\xff/", "nnnn"},
	{"name~=/(?=f)/", "nnnn"},
	{"name~=/(.)\\\\1/", "nnnn"},
	{"name~=/\\\\C/", "nnnn"},
	{"name~=/\\\\Q\\\\C\\\\E|foo/", "ynnn"},
	{"name~=/\\\\Q\\\\C/", "nnnn"},
	{"name~=/\\\\QC\\\\E\\\\C/", "nnnn"},
};

static void matches_what_containerd_matches(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(match_cases); i++)
		check_matches(&match_cases[i].text, 1, match_cases[i].expected);
}

struct error_case {
	const char *text;
	size_t byte;
};

/* What containerd refuses, and where we say the mistake is. */
static const struct error_case error_cases[] = {
	{" ", 1},
	{",", 0},
	{"name,", 5},
	{"name,,kind", 5},
	{"name==foo,", 10},
	{",name", 0},
	{"labels.", 7},
	{"labels..a", 7},
	{".name", 0},
	{"labels.a-b", 8},
	{"==x", 0},
	{"caf\xc3\xa9==x", 3},
	{"name==", 6},
	{"name== ", 7},
	{"name==,kind", 6},
	{"name=x", 4},
	{"name=", 4},
	{"name!x", 4},
	{"name=~x", 4},
	{"name===x", 4},
	{"name==!x", 4},
	{"name==~x", 4},
	{"name== =x", 7},
	{"name==.x", 6},
	{"name foo", 5},
	{"name ", 5},
	{"name .a", 5},
	{"name ,kind", 5},
	{"a==b ,c==d", 4},
	{"name==foo bar", 9},
	{"name==foo ", 9},
	{"name==foo\n", 9},
	{"name==foo\x01", 9},
	{"name==foo\x7f", 9},
	{"name==a\xc3\xa9\xe2\x80\x8b", 9},
	{"name==a\xef\xbb\xbf", 7},
	{"name==a\xc2\xad", 7},
	{"name==a\xee\x80\x80", 7},
	{"name==\"foo\"bar", 11},
	{"name==\"foo\" ", 11},
	{"name==\"foo", 6},
	{"name==\"", 6},
	{"name==\"foo\\\"", 6},
	{"name==\"a\nb\"", 6},
	{"name==\"a\\\nb\"", 6},
	{"name==/foo/", 6},
	{"name!=|foo|", 6},
	{"/name/==foo", 0},
	{"labels.|a|", 7},
	{"'name'==foo", 0},
	{"name==\"\\'\"", 7},
	{"name==\"\\/\"", 7},
	{"name~=/\\\"/", 7},
	{"name~=/\\d/", 7},
	{"name~=/a/b/", 9},
	{"name~=|^(foo|bar)$|", 13},
	{"name==\"\\8\"", 7},
	{"name==\"\\40\"", 10},
	{"name==\"\\400\"", 7},
	{"name==\"\\x4\"", 10},
	{"name==\"\\xg0\"", 9},
	{"name==\"\\u263\"", 12},
	{"name==\"\\U0001F60\"", 16},
	{"name==\"\\U00110000\"", 7},
	{"name==\"\\U7fffffff\"", 7},
	{"name==\"\\", 6},
	{"name==\xef\xbf\xbd", 6},
	{"name==\"\xef\xbf\xbd\"", 7},
	{"name==\xff", 0},
	{"name==\"\xc3\"", 0},
};

static void refuses_what_containerd_refuses_and_says_where(void **state)
{
	char place[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(error_cases); i++) {
		struct filters *filters = (struct filters *)&place;
		struct err err = ERR_INIT;

		if (filters_parse(&error_cases[i].text, 1, &filters, &err) == 0)
			fail_msg("'%s' is accepted", error_cases[i].text);
		assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
		assert_ptr_equal(filters, &place);
		snprintf(place, sizeof(place), "filter 1, byte %zu: ", error_cases[i].byte);
		if (strncmp(err.msg, place, strlen(place)) != 0)
			fail_msg("'%s': expected %s, got %s", error_cases[i].text, place, err.msg);
	}
}

static void several_filters_are_alternatives(void **state)
{
	static const char *const texts[] = {"name==foo", "kind==view,parent==foo"};
	static const char *const with_empty[] = {"name==foo", "", "nofield"};

	(void)state;
	check_matches(texts, 2, "ynyn");
	check_matches(with_empty, 3, "yyyy");
}

static void nothing_and_the_empty_filter_match_all(void **state)
{
	static const char *const empty[] = {""};
	struct filters *filters = (struct filters *)(void *)&filters;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(filters_parse(NULL, 0, &filters, &err), 0);
	assert_null(filters);
	filters = (struct filters *)(void *)&filters;
	assert_int_equal(filters_parse(empty, 1, &filters, &err), 0);
	assert_null(filters);
	assert_true(filters_match(NULL, object_field, &objects[0]));
	filters_free(NULL);
}

static void an_empty_filter_does_not_hide_the_errors_of_others(void **state)
{
	static const char *const texts[] = {"", "name==foo", "name=="};
	struct filters *filters = NULL;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(filters_parse(texts, 3, &filters, &err), -1);
	assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
	assert_non_null(strstr(err.msg, "filter 3, byte 6"));
}

static void check_refused(const char *const *texts, size_t n)
{
	struct filters *filters = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(filters_parse(texts, n, &filters, &err), -1);
	assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
}

static void bounds_what_a_request_may_cost(void **state)
{
	const char *many[FILTERS_MAX + 1];
	const char *pair[2];
	struct filters *filters = NULL;
	struct err err = ERR_INIT;
	char *text = malloc(FILTER_MAX_BYTES + 2);
	size_t len;

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = "name";
	check_matches(many, FILTERS_MAX, "yyyy");
	check_refused(many, FILTERS_MAX + 1);

	memset(text, 'a', FILTER_MAX_BYTES + 1);
	text[FILTER_MAX_BYTES] = '\0';
	pair[0] = text;
	pair[1] = "a";
	assert_int_equal(filters_parse(pair, 1, &filters, &err), 0);
	filters_free(filters);
	check_refused(pair, 2);
	text[FILTER_MAX_BYTES] = 'a';
	text[FILTER_MAX_BYTES + 1] = '\0';
	check_refused(pair, 1);

	text[0] = '\0';
	len = 0;
	for (size_t i = 0; i < 64; i++)
		len += (size_t)sprintf(text + len, "%sa~=x", i ? "," : "");
	pair[0] = text;
	assert_int_equal(filters_parse(pair, 1, &filters, &err), 0);
	filters_free(filters);
	strcpy(text + len, ",a~=x");
	check_refused(pair, 1);
	free(text);
}

struct required_case {
	const char *texts[3];
	const char *expected;
};

/* Asked for labels."containerd.io/snapshot.ref". */
static const struct required_case required_cases[] = {
	{{"labels.\"containerd.io/snapshot.ref\"==sha256:x"}, "sha256:x"},
	{{"labels.\"containerd.io/snapshot.ref\"==sha256:x,parent==\"\""}, "sha256:x"},
	{{"kind==committed,labels.\"containerd.io/snapshot.ref\"==\"\""}, ""},
	{{"labels.\"containerd.io/snapshot.ref\"==x,parent==a",
	  "labels.\"containerd.io/snapshot.ref\"==x,parent==b"},
	 "x"},
	{{"labels.\"containerd.io/snapshot.ref\"==x", "labels.\"containerd.io/snapshot.ref\"==y"},
	 NULL},
	{{"labels.\"containerd.io/snapshot.ref\"==x", "name==foo"}, NULL},
	{{"labels.\"containerd.io/snapshot.ref\"==x", ""}, NULL},
	{{"labels.\"containerd.io/snapshot.ref\"!=x"}, NULL},
	{{"labels.\"containerd.io/snapshot.ref\"~=x"}, NULL},
	{{"labels.\"containerd.io/snapshot.ref\""}, NULL},
	{{"labels.\"containerd.io/snapshot.ref\"==\"x\\x00y\""}, NULL},
	{{"labels.\"containerd.io/snapshot\"==x"}, NULL},
	{{"\"containerd.io/snapshot.ref\"==x"}, NULL},
	{{NULL}, NULL},
};

static void tells_the_value_that_all_matches_have(void **state)
{
	static const char *const path[] = {"labels", "containerd.io/snapshot.ref"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(required_cases); i++) {
		const struct required_case *c = &required_cases[i];
		struct filters *filters = NULL;
		struct err err = ERR_INIT;
		const char *required;
		size_t n = 0;

		while (n < ARRAY_LEN(c->texts) && c->texts[n])
			n++;
		assert_int_equal(filters_parse(c->texts, n, &filters, &err), 0);
		required = filters_required(filters, path, ARRAY_LEN(path));
		if (c->expected) {
			assert_non_null(required);
			assert_string_equal(required, c->expected);
		} else {
			assert_null(required);
		}
		filters_free(filters);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matches_what_containerd_matches),
		cmocka_unit_test(refuses_what_containerd_refuses_and_says_where),
		cmocka_unit_test(several_filters_are_alternatives),
		cmocka_unit_test(nothing_and_the_empty_filter_match_all),
		cmocka_unit_test(an_empty_filter_does_not_hide_the_errors_of_others),
		cmocka_unit_test(bounds_what_a_request_may_cost),
		cmocka_unit_test(tells_the_value_that_all_matches_have),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
