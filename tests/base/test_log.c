/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/test.h"

#define TIME "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"

static struct capture capture;

/* From here to end(), stderr is caught; no assertion in between, whose words would be lost. */
static void begin(enum log_level level, enum log_format format)
{
	unsetenv("JOURNAL_STREAM");
	log_setup(level, format, "svc");
	capture_begin(&capture, 2);
}

static char *end(void)
{
	return capture_end(&capture);
}

static void assert_matches(const char *text, const char *pattern)
{
	regex_t regex;
	int rc;

	assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	rc = regexec(&regex, text, 0, NULL, 0);
	regfree(&regex);
	if (rc != 0)
		fail_msg("'%s' does not match '%s'", text, pattern);
}

static void a_text_line_is_logfmt(void **state)
{
	char *text;

	(void)state;
	begin(LOG_INFO, LOG_TEXT);
	log_event(LOG_INFO, "snapshot made", LOG_STR("key", "a/1"), LOG_INT("took_ms", -7),
		  LOG_STR("none", NULL), LOG_STR("empty", ""));
	text = end();
	assert_matches(text, "^ts=" TIME " level=info service=svc msg=\"snapshot made\" key=a/1 "
			     "took_ms=-7 none=null empty=\"\"\n$");
	free(text);
}

static void a_json_line_is_one_object(void **state)
{
	char *text;

	(void)state;
	begin(LOG_INFO, LOG_JSON);
	log_event(LOG_WARN, "made", LOG_STR("key", "a b"), LOG_INT("n", INT64_MIN),
		  LOG_STR("none", NULL));
	text = end();
	assert_matches(text, "^\\{\"ts\":\"" TIME "\",\"level\":\"warn\",\"service\":\"svc\","
			     "\"msg\":\"made\",\"key\":\"a b\",\"n\":-9223372036854775808,"
			     "\"none\":null\\}\n$");
	free(text);
}

static void an_event_may_have_no_fields(void **state)
{
	char *text;

	(void)state;
	begin(LOG_INFO, LOG_TEXT);
	log_event(LOG_ERROR, "x");
	text = end();
	assert_matches(text, "^ts=" TIME " level=error service=svc msg=x\n$");
	free(text);
}

static void an_error_value_is_a_field(void **state)
{
	struct err err = ERR_INIT;
	char *text;

	(void)state;
	err_set(&err, ERR_INTERNAL, "it broke");
	begin(LOG_INFO, LOG_TEXT);
	log_event(LOG_ERROR, "x", LOG_ERR(&err));
	text = end();
	assert_contains(text, " error=\"it broke\"\n");
	free(text);
}

static void lines_below_the_level_are_left_out(void **state)
{
	char *text;

	(void)state;
	begin(LOG_WARN, LOG_TEXT);
	log_event(LOG_ERROR, "one");
	log_event(LOG_WARN, "two");
	log_event(LOG_INFO, "three");
	log_event(LOG_DEBUG, "four");
	text = end();
	assert_contains(text, "msg=one");
	assert_contains(text, "msg=two");
	assert_null(strstr(text, "three"));
	assert_null(strstr(text, "four"));
	free(text);
	assert_true(log_enabled(LOG_WARN));
	assert_false(log_enabled(LOG_INFO));
}

/* What a client names must not be able to forge a line, a field or a terminal's state. */
static void foreign_text_is_escaped(void **state)
{
	static const struct {
		const char *value, *text, *json;
	} rows[] = {
		{"plain/word:1", "plain/word:1", "\"plain/word:1\""},
		{"two words", "\"two words\"", "\"two words\""},
		{"a=b", "\"a=b\"", "\"a=b\""},
		{"say \"x\"", "\"say \\\"x\\\"\"", "\"say \\\"x\\\"\""},
		{"back\\slash", "\"back\\\\slash\"", "\"back\\\\slash\""},
		{"a\nlevel=error", "\"a\\nlevel=error\"", "\"a\\nlevel=error\""},
		{"\r\t\x01\x1b[2J\x7f", "\"\\r\\t\\u0001\\u001b[2J\\u007f\"",
		 "\"\\r\\t\\u0001\\u001b[2J\\u007f\""},
		{"\xc2\x9b"
		 "2J",
		 "\"\\u009b2J\"", "\"\\u009b2J\""},
		{"a\xe2\x80\xa8"
		 "b",
		 "\"a\\u2028b\"", "\"a\\u2028b\""},
		{"caf\xc3\xa9", "\"caf\xc3\xa9\"", "\"caf\xc3\xa9\""},
		{"\xf0\x9f\x9a\xa2", "\"\xf0\x9f\x9a\xa2\"", "\"\xf0\x9f\x9a\xa2\""},
		/* not UTF-8: alone, cut, overlong, surrogate, beyond the last */
		{"\xff", "\"\xef\xbf\xbd\"", "\"\xef\xbf\xbd\""},
		{"\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\"", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\xc0\x8a", "\"\xef\xbf\xbd\xef\xbf\xbd\"", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
		 "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
		 "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char want_text[128], want_json[128];
		char *text, *json;

		begin(LOG_INFO, LOG_TEXT);
		log_event(LOG_INFO, "m", LOG_STR("v", rows[i].value));
		text = end();
		begin(LOG_INFO, LOG_JSON);
		log_event(LOG_INFO, "m", LOG_STR("v", rows[i].value));
		json = end();
		snprintf(want_text, sizeof(want_text), " v=%s\n", rows[i].text);
		snprintf(want_json, sizeof(want_json), ",\"v\":%s}\n", rows[i].json);
		assert_contains(text, want_text);
		assert_contains(json, want_json);
		free(text);
		free(json);
	}
}

static void every_byte_gives_one_line_of_utf8(void **state)
{
	(void)state;
	for (unsigned int first = 1; first < 256; first++) {
		for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
			char value[] = {'a', (char)first, (char)0x80, 'b', '\0'};
			char *text;

			begin(LOG_INFO, (enum log_format)format);
			log_event(LOG_INFO, value, LOG_STR("v", value));
			text = end();
			assert_true(str_is_utf8(text, strlen(text)));
			assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
			free(text);
		}
	}
}

static void long_text_is_cut_and_the_line_stays_whole(void **state)
{
	static const char *const fillers[] = {"x",        "\n",   "\x01",
					      "\xc3\xa9", "\xff", "\xf0\x9f\x9a\xa2"};

	(void)state;
	for (size_t f = 0; f < ARRAY_LEN(fillers); f++) {
		for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
			char *value = calloc(1, 50001);
			char *text;

			while (strlen(value) < 49990)
				memcpy(value + strlen(value), fillers[f], strlen(fillers[f]) + 1);
			begin(LOG_INFO, (enum log_format)format);
			log_event(LOG_INFO, "m", LOG_STR("v", value), LOG_INT("after", 1));
			text = end();
			assert_true(str_is_utf8(text, strlen(text)));
			assert_in_range(strlen(text), 8192, 8192 + 200);
			assert_contains(text, "\xe2\x80\xa6");
			assert_contains(text,
					format == LOG_JSON ? ",\"after\":1}\n" : " after=1\n");
			free(text);
			free(value);
		}
	}
}

static void fields_beyond_all_room_are_left_out_whole(void **state)
{
	struct log_field fields[2000];
	char *text;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(fields); i++)
		fields[i] = LOG_INT("a_field_of_ours", 7);
	begin(LOG_INFO, LOG_JSON);
	log_fields(LOG_INFO, "m", fields, ARRAY_LEN(fields));
	text = end();
	assert_string_equal(text + strlen(text) - 21, "\"a_field_of_ours\":7}\n");
	assert_in_range(strlen(text), 12000, 12288);
	free(text);
}

static void the_journal_gets_priorities_and_no_time(void **state)
{
	struct stat st;
	char stream[64];
	char *text;

	(void)state;
	capture_begin(&capture, 2);
	fstat(2, &st);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_setup(LOG_DEBUG, LOG_TEXT, "svc");
	log_event(LOG_ERROR, "e");
	log_event(LOG_WARN, "w");
	log_event(LOG_INFO, "i");
	log_event(LOG_DEBUG, "d");
	log_setup(LOG_DEBUG, LOG_JSON, "svc");
	log_event(LOG_INFO, "j");
	unsetenv("JOURNAL_STREAM");
	text = end();
	assert_matches(text, "^<3>level=error service=svc msg=e\n<4>level=warn service=svc msg=w\n"
			     "<6>level=info service=svc msg=i\n<7>level=debug service=svc msg=d\n"
			     "\\{\"ts\":\"" TIME "\"");
	free(text);
}

/* The variable is inherited also by what no longer writes to the journal. */
static void another_stream_is_not_the_journal(void **state)
{
	char *text;

	(void)state;
	capture_begin(&capture, 2);
	setenv("JOURNAL_STREAM", "1:2", 1);
	log_setup(LOG_DEBUG, LOG_TEXT, "svc");
	log_event(LOG_INFO, "x");
	unsetenv("JOURNAL_STREAM");
	text = end();
	assert_matches(text, "^ts=" TIME " level=info");
	free(text);
}

static void names_of_levels_and_formats_are_parsed(void **state)
{
	static const char *const bad[] = {"", "INFO", "warning", "info ", "xml", "txt"};
	enum log_format format;
	enum log_level level;
	struct err err = ERR_INIT;

	(void)state;
	assert_ok(log_level_parse("error", &level, &err), &err);
	assert_int_equal(level, LOG_ERROR);
	assert_ok(log_level_parse("warn", &level, &err), &err);
	assert_int_equal(level, LOG_WARN);
	assert_ok(log_level_parse("info", &level, &err), &err);
	assert_int_equal(level, LOG_INFO);
	assert_ok(log_level_parse("debug", &level, &err), &err);
	assert_int_equal(level, LOG_DEBUG);
	assert_ok(log_format_parse("text", &format, &err), &err);
	assert_int_equal(format, LOG_TEXT);
	assert_ok(log_format_parse("json", &format, &err), &err);
	assert_int_equal(format, LOG_JSON);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_fails(log_level_parse(bad[i], &level, &err), &err, ERR_INVALID_ARGUMENT);
		assert_fails(log_format_parse(bad[i], &format, &err), &err, ERR_INVALID_ARGUMENT);
	}
	assert_int_equal(level, LOG_DEBUG);
	assert_int_equal(format, LOG_JSON);
}

static void errno_is_kept(void **state)
{
	int errnum;

	(void)state;
	begin(LOG_INFO, LOG_TEXT);
	fault_after(FAULT_WRITE, 0, EPIPE);
	errno = ENOENT;
	log_event(LOG_INFO, "x");
	errnum = errno;
	free(end());
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(errnum, ENOENT);
}

static void short_writes_are_completed(void **state)
{
	char *text;

	(void)state;
	begin(LOG_INFO, LOG_TEXT);
	fault_short_writes();
	log_event(LOG_INFO, "one");
	log_event(LOG_INFO, "two");
	fault_clear();
	text = end();
	assert_matches(text, "^ts=" TIME " level=info service=svc msg=one\n"
			     "ts=" TIME " level=info service=svc msg=two\n$");
	free(text);
}

static void a_line_that_broke_off_does_not_spoil_the_next(void **state)
{
	char *text;

	(void)state;
	begin(LOG_INFO, LOG_TEXT);
	fault_short_writes();
	fault_after(FAULT_WRITE, 5, EAGAIN);
	log_event(LOG_INFO, "one");
	fault_clear();
	log_event(LOG_INFO, "two");
	text = end();
	assert_matches(text, "^ts=[0-9]{2}\nts=" TIME " level=info service=svc msg=two\n$");
	free(text);
}

static void *log_many(void *arg)
{
	char value[300];

	memset(value, *(char *)arg, sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	for (int i = 0; i < 50; i++)
		log_event(LOG_INFO, "m", LOG_STR("v", value));
	return NULL;
}

static void lines_of_several_threads_do_not_mix(void **state)
{
	static char letters[] = "abcd";
	pthread_t threads[4];
	size_t n_lines = 0;
	char *text, *line;

	(void)state;
	begin(LOG_INFO, LOG_TEXT);
	/* In pieces, between which lines could mix. */
	fault_short_writes();
	for (size_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, log_many, &letters[i]);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	fault_clear();
	text = end();
	for (line = text; *line; line = strchr(line, '\n') + 1) {
		const char *value = strstr(line, " v=") + 3;

		assert_int_equal(strncmp(line, "ts=", 3), 0);
		for (size_t i = 0; i < 299; i++)
			assert_int_equal(value[i], value[0]);
		assert_int_equal(value[299], '\n');
		n_lines++;
	}
	assert_int_equal(n_lines, 200);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_line_is_logfmt),
		cmocka_unit_test(a_json_line_is_one_object),
		cmocka_unit_test(an_event_may_have_no_fields),
		cmocka_unit_test(an_error_value_is_a_field),
		cmocka_unit_test(lines_below_the_level_are_left_out),
		cmocka_unit_test(foreign_text_is_escaped),
		cmocka_unit_test(every_byte_gives_one_line_of_utf8),
		cmocka_unit_test(long_text_is_cut_and_the_line_stays_whole),
		cmocka_unit_test(fields_beyond_all_room_are_left_out_whole),
		cmocka_unit_test(the_journal_gets_priorities_and_no_time),
		cmocka_unit_test(another_stream_is_not_the_journal),
		cmocka_unit_test(names_of_levels_and_formats_are_parsed),
		cmocka_unit_test(errno_is_kept),
		cmocka_unit_test(short_writes_are_completed),
		cmocka_unit_test(a_line_that_broke_off_does_not_spoil_the_next),
		cmocka_unit_test(lines_of_several_threads_do_not_mix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
