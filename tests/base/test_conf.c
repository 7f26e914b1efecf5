/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/toml.h"

struct top {
	char *root;
	char *log_level;
	int64_t workers;
};

struct overlay {
	bool sync_remove;
	struct conf_list mount_options;
	char *tag;
	int64_t offset;
};

static const struct conf_option top_options[] = {
	CONF_STRING(struct top, root, "\"/var/lib/x\"", "DIR",
		    "directory that everything is kept in"),
	CONF_CHOICE(struct top, log_level, "\"info\"", "error|warn|info|debug", "what is logged"),
	CONF_INT(struct top, workers, "8", 1, 64, "threads that serve calls"),
	CONF_END,
};

static const struct conf_option overlay_options[] = {
	CONF_BOOL(struct overlay, sync_remove, "false",
		  "delete directories before Remove returns, which makes removing an image take as "
		  "long as deleting all of its files does"),
	CONF_LIST(struct overlay, mount_options, "[\"index=off\"]",
		  "options added to every overlay mount"),
	CONF_STRING(struct overlay, tag, "\"\"", NULL, "free text"),
	CONF_INT(struct overlay, offset, "-1", INT64_MIN, INT64_MAX, "any number"),
	CONF_END,
};

/** struct fixture - a set of tables at their defaults, and a directory of their own */
struct fixture {
	struct top top;
	struct overlay overlay;
	struct conf_table tables[2];
	struct err err;
	char dir[64];
	char path[128];
};

static struct fixture *fixture_new(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->tables[0] = (struct conf_table){"", top_options, &f->top};
	f->tables[1] = (struct conf_table){"overlay", overlay_options, &f->overlay};
	assert_int_equal(conf_init(f->tables, 2, &f->err), 0);
	strcpy(f->dir, "/tmp/lighter-conf-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/x.toml", f->dir);
	return f;
}

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	conf_done(f->tables, 2);
	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static int load(struct fixture *f, const char *text)
{
	return conf_load_text("x.toml", text, strlen(text), f->tables, 2, &f->err);
}

static void assert_defaults(const struct fixture *f)
{
	assert_string_equal(f->top.root, "/var/lib/x");
	assert_string_equal(f->top.log_level, "info");
	assert_int_equal(f->top.workers, 8);
	assert_false(f->overlay.sync_remove);
	assert_int_equal(f->overlay.mount_options.n, 1);
	assert_string_equal(f->overlay.mount_options.items[0], "index=off");
	assert_string_equal(f->overlay.tag, "");
	assert_int_equal(f->overlay.offset, -1);
}

/* The document is refused with this message, and nothing of it is taken. */
static void assert_refused(struct fixture *f, const char *text, const char *msg)
{
	assert_int_equal(load(f, text), -1);
	assert_string_equal(f->err.msg, msg);
	assert_int_equal(f->err.code, ERR_INVALID_ARGUMENT);
	assert_defaults(f);
}

/* As assert_refused(), for messages the parser words; all of them name file and line. */
static void assert_refused_at(struct fixture *f, const char *text, size_t size, const char *where)
{
	assert_int_equal(conf_load_text("x.toml", text, size, f->tables, 2, &f->err), -1);
	assert_int_equal(strncmp(f->err.msg, where, strlen(where)), 0);
	assert_true(strlen(f->err.msg) > strlen(where));
	assert_int_equal(f->err.code, ERR_INVALID_ARGUMENT);
	assert_defaults(f);
}

static void defaults_are_set(void **state)
{
	assert_defaults(*state);
}

static void done_leaves_targets_that_can_be_initialised_again(void **state)
{
	struct fixture *f = *state;

	conf_done(f->tables, 2);
	conf_done(f->tables, 2);
	assert_int_equal(conf_init(f->tables, 2, &f->err), 0);
	assert_defaults(f);
}

static void every_type_is_read(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "root = '/a b'\n"
				 "workers = 0x10\n"
				 "log_level = \"debug\"\n"
				 "[overlay]\n"
				 "sync_remove = true\n"
				 "mount_options = [\n\t\"one\", # first\n\t'two',\n]\n"
				 "tag = \"\"\"\nmore\u00e9\"\"\"\n"
				 "offset = -9223372036854775808\n"),
			 0);
	assert_string_equal(f->top.root, "/a b");
	assert_string_equal(f->top.log_level, "debug");
	assert_int_equal(f->top.workers, 16);
	assert_true(f->overlay.sync_remove);
	assert_int_equal(f->overlay.mount_options.n, 2);
	assert_string_equal(f->overlay.mount_options.items[0], "one");
	assert_string_equal(f->overlay.mount_options.items[1], "two");
	assert_string_equal(f->overlay.tag, "more\u00e9");
	assert_true(f->overlay.offset == INT64_MIN);
}

static void keys_may_be_dotted_or_in_inline_tables(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "overlay.sync_remove = true\noverlay.tag = 'x'\n"), 0);
	assert_true(f->overlay.sync_remove);
	assert_int_equal(load(f, "overlay = {sync_remove = false, tag = 'y'}\n"), 0);
	assert_false(f->overlay.sync_remove);
	assert_string_equal(f->overlay.tag, "y");
}

static void list_may_be_empty(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "overlay.mount_options = []\n"), 0);
	assert_int_equal(f->overlay.mount_options.n, 0);
}

static void keys_not_named_keep_their_value(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "root = '/one'\n"), 0);
	assert_int_equal(load(f, "workers = 2\n"), 0);
	assert_string_equal(f->top.root, "/one");
	assert_int_equal(f->top.workers, 2);
}

static void empty_document_changes_nothing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, ""), 0);
	assert_int_equal(conf_load_text("x.toml", NULL, 0, f->tables, 2, &f->err), 0);
	assert_int_equal(load(f, "\xef\xbb\xbf# only a comment"), 0);
	assert_int_equal(load(f, "[overlay]\n"), 0);
	assert_defaults(f);
}

static void unknown_key_is_refused_with_line_and_suggestion(void **state)
{
	assert_refused(*state, "\nworker = 3\n",
		       "x.toml:2: unknown key 'worker', did you mean 'workers'?");
	assert_refused(*state, "[overlay]\nsyncremove = true\n",
		       "x.toml:2: unknown key 'overlay.syncremove', did you mean "
		       "'overlay.sync_remove'?");
	assert_refused(*state, "zebra = 1\n", "x.toml:1: unknown key 'zebra'");
	assert_refused(*state, "foo = 1\n", "x.toml:1: unknown key 'foo'");
}

static void key_in_wrong_table_is_refused_with_its_place(void **state)
{
	assert_refused(*state, "sync_remove = true\n",
		       "x.toml:1: unknown key 'sync_remove', did you mean 'overlay.sync_remove'?");
	assert_refused(*state, "[overlay]\nworkers = 1\n",
		       "x.toml:2: unknown key 'overlay.workers', did you mean 'workers'?");
	assert_refused(*state, "\"overlay.tag\" = 'x'\n", "x.toml:1: unknown key 'overlay.tag'");
}

static void unknown_table_is_refused_with_line_and_suggestion(void **state)
{
	assert_refused(*state, "# c\n[overly]\ntag = 'x'\n",
		       "x.toml:2: unknown table 'overly', did you mean 'overlay'?");
	assert_refused(*state, "[devmapper]\n", "x.toml:1: unknown table 'devmapper'");
	assert_refused(*state, "[overlay.inner]\n", "x.toml:1: unknown table 'overlay.inner'");
	assert_refused(*state, "[overlay]\ninner.tag = 'x'\n",
		       "x.toml:2: unknown table 'overlay.inner'");
}

static void first_mistake_by_line_is_reported(void **state)
{
	assert_refused(*state, "zz = 1\naa = 1\n", "x.toml:1: unknown key 'zz'");
}

static void long_and_odd_keys_are_shown_safely(void **state)
{
	struct fixture *f = *state;
	char text[300];

	assert_refused(f, "\"a\\nb\\u001bc\" = 1\n", "x.toml:1: unknown key 'a?b?c'");
	memset(text, 'k', sizeof(text));
	strcpy(text + 200, " = 1\n");
	assert_int_equal(load(f, text), -1);
	assert_true(strlen(f->err.msg) < 120);
	assert_non_null(strstr(f->err.msg, "kkk...'"));
}

static void wrong_type_is_refused(void **state)
{
	assert_refused(*state, "workers = '8'\n", "x.toml:1: 'workers': must be a whole number");
	assert_refused(*state, "workers = 8.0\n", "x.toml:1: 'workers': must be a whole number");
	assert_refused(*state, "\n\nroot = 8\n", "x.toml:3: 'root': must be a string");
	assert_refused(*state, "root = 1979-05-27\n", "x.toml:1: 'root': must be a string");
	assert_refused(*state, "[root]\n", "x.toml:1: 'root': must be a string");
	assert_refused(*state, "overlay = 1\n", "x.toml:1: 'overlay' must be a table");
	assert_refused(*state, "[[overlay]]\ntag = 'x'\n", "x.toml:1: 'overlay' must be a table");
	assert_refused(*state, "[overlay]\nsync_remove = 1\n",
		       "x.toml:2: 'overlay.sync_remove': must be true or false");
	assert_refused(*state, "[overlay]\nmount_options = 'x'\n",
		       "x.toml:2: 'overlay.mount_options': must be a list of strings");
	assert_refused(*state, "[overlay]\nmount_options = ['x', 3]\n",
		       "x.toml:2: 'overlay.mount_options': must be a list of strings, and its item "
		       "2 is not one");
	assert_refused(*state, "overlay.mount_options = [['x']]\n",
		       "x.toml:1: 'overlay.mount_options': must be a list of strings, and its item "
		       "1 is not one");
}

static void number_out_of_range_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_refused(f, "workers = 0\n", "x.toml:1: 'workers': must be between 1 and 64, not 0");
	assert_refused(f, "workers = 65\n",
		       "x.toml:1: 'workers': must be between 1 and 64, not 65");
	assert_refused_at(f, "\nworkers = 9223372036854775808\n", 31, "x.toml:2: ");
	assert_int_equal(load(f, "workers = 64\n"), 0);
	assert_int_equal(f->top.workers, 64);
}

static void value_out_of_choices_is_refused(void **state)
{
	assert_refused(*state, "log_level = 'loud'\n",
		       "x.toml:1: 'log_level': must be one of error|warn|info|debug, not 'loud'");
	assert_refused(*state, "log_level = 'warn|info'\n",
		       "x.toml:1: 'log_level': must be one of error|warn|info|debug, not "
		       "'warn|info'");
	assert_refused(*state, "log_level = 'inf'\n",
		       "x.toml:1: 'log_level': must be one of error|warn|info|debug, not 'inf'");
	assert_refused(*state, "log_level = ''\n",
		       "x.toml:1: 'log_level': must be one of error|warn|info|debug, not ''");
}

static void key_given_twice_is_refused(void **state)
{
	static const char twice[] = "root = '/a'\nworkers = 1\nroot = '/b'\n";
	static const char tables[] = "[overlay]\ntag = 'a'\n[overlay]\ntag = 'b'\n";

	assert_refused_at(*state, twice, strlen(twice), "x.toml:3: ");
	assert_refused_at(*state, tables, strlen(tables), "x.toml:3: ");
}

static void bad_syntax_is_refused_with_line(void **state)
{
	static const char *const texts[] = {
		"\nroot\n", "\nroot = \n",      "\nroot = 'a\n", "\n[overlay\n",
		"\n= 1\n",  "\nroot = 'a' b\n", "\nroot = /a\n", "\nworkers = 1__0\n",
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		assert_refused_at(*state, texts[i], strlen(texts[i]), "x.toml:2: ");
}

static void nothing_is_taken_of_a_document_with_a_mistake(void **state)
{
	assert_refused(*state, "root = '/good'\nworkers = 2\n[overlay]\ntag = 'x'\noffset = 'y'\n",
		       "x.toml:5: 'overlay.offset': must be a whole number");
}

static void text_that_is_not_utf8_is_refused_with_line(void **state)
{
	static const char latin1[] = "# fine\nroot = '/caf\xe9'\n";
	static const char surrogate[] = "# \xed\xa0\x80\n";

	assert_refused(*state, latin1, "x.toml:2: this line is not UTF-8");
	assert_refused(*state, surrogate, "x.toml:1: this line is not UTF-8");
}

static void text_outside_of_ascii_is_kept(void **state)
{
	struct fixture *f = *state;

	/* After a line continuation the parser takes letters for possible white space. */
	assert_int_equal(load(f, "overlay.tag = \"\"\"\\\n \u00e9\ufef7\"\"\"\n"), 0);
	assert_string_equal(f->overlay.tag, "\u00e9\ufef7");
	assert_int_equal(load(f, "root = '/caf\u00e9'\n"), 0);
	assert_string_equal(f->top.root, "/caf\u00e9");
	assert_int_equal(load(f, "r\u00e9 = 1\n"), -1);
	assert_int_equal(load(f, "wor\ufef7ers = 1\n"), -1);
	assert_int_equal(load(f, "\"r\u00e9\" = 1\n"), -1);
	assert_string_equal(f->err.msg, "x.toml:1: unknown key 'r\u00e9'");
}

static void nul_bytes_are_refused(void **state)
{
	static const char raw[] = "root = '/a'\n# \0\nroot = 1\n";

	assert_refused_at(*state, raw, sizeof(raw) - 1, "x.toml:2: this line holds a NUL");
	assert_refused(*state, "root = \"/a\\u0000/b\"\n",
		       "x.toml:1: 'root': must not hold a NUL byte");
	assert_refused(*state, "\n\"root\\u0000\" = '/a'\n", "x.toml:2: a key holds a NUL byte");
	assert_refused(*state, "overlay.mount_options = [\"a\\u0000\"]\n",
		       "x.toml:1: 'overlay.mount_options': must not hold a NUL byte");
}

/* @n times @open, then @close; from malloc(). */
static char *repeated(const char *before, const char *open, size_t n, const char *close)
{
	char *text = malloc(strlen(before) + strlen(open) * n + strlen(close) + 1);

	assert_non_null(text);
	strcpy(text, before);
	for (size_t i = 0, at = strlen(text); i < n; i++, at += strlen(open))
		strcpy(text + at, open);
	strcat(text, close);
	return text;
}

static void deep_nesting_is_refused(void **state)
{
	static const char *const opens[] = {"[", "{a=", "[{a="};
	struct fixture *f = *state;
	char *text;

	for (size_t i = 0; i < ARRAY_LEN(opens); i++) {
		text = repeated("\nroot = ", opens[i], 100000, "");
		assert_refused(f, text, "x.toml:2: nested too deeply");
		free(text);
	}
	/* Dotted keys make a table a dot. */
	text = repeated("", "a.", 400000, "a = 1\n");
	assert_refused(f, text, "x.toml:1: nested too deeply");
	free(text);
	text = repeated("[", "a.", 400000, "a]\n");
	assert_refused(f, text, "x.toml:1: nested too deeply");
	free(text);
}

static void brackets_and_dots_in_strings_and_comments_do_not_nest(void **state)
{
	struct fixture *f = *state;
	static const char *const quotes[][2] = {
		{"'", "'\n"},
		{"\"\\\"", "\"\n"},
		{"'''\n''", "'''''\n"},
		{"\"\"\"\n\\\"", "\"\"\"\n"},
	};
	char *text, before[64];

	for (size_t i = 0; i < ARRAY_LEN(quotes); i++) {
		snprintf(before, sizeof(before), "overlay.tag = %s", quotes[i][0]);
		text = repeated(before, "[{.", 100, quotes[i][1]);
		assert_int_equal(load(f, text), 0);
		free(text);
	}
	text = repeated("# it's ", "[{.", 100, "\nworkers = 5");
	assert_int_equal(load(f, text), 0);
	assert_int_equal(f->top.workers, 5);
	free(text);
	text = repeated("overlay.mount_options = [", "'lowerdir.x',", 100, "]");
	assert_int_equal(load(f, text), 0);
	assert_int_equal(f->overlay.mount_options.n, 100);
	free(text);
}

static void write_file(const struct fixture *f, const char *text, size_t size)
{
	int fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, size), (ssize_t)size);
	close(fd);
}

static void file_is_read(void **state)
{
	static const char text[] = "workers = 3\n";
	struct fixture *f = *state;

	write_file(f, text, strlen(text));
	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), 0);
	assert_int_equal(f->top.workers, 3);
	write_file(f, "", 0);
	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), 0);
	assert_int_equal(conf_load("/dev/null", f->tables, 2, &f->err), 0);
}

static void mistake_in_file_names_the_path(void **state)
{
	static const char text[] = "\n\nzebra = 3\n";
	struct fixture *f = *state;
	char msg[256];

	write_file(f, text, strlen(text));
	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), -1);
	snprintf(msg, sizeof(msg), "%s:3: unknown key 'zebra'", f->path);
	assert_string_equal(f->err.msg, msg);
}

static void missing_file_is_told_apart(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), 1);
	assert_defaults(f);
}

static void what_is_no_regular_file_is_refused_at_once(void **state)
{
	struct fixture *f = *state;
	char msg[256];

	snprintf(msg, sizeof(msg), "%s: not a regular file", f->dir);
	assert_int_equal(conf_load(f->dir, f->tables, 2, &f->err), -1);
	assert_string_equal(f->err.msg, msg);
	assert_int_equal(mkfifo(f->path, 0600), 0);
	snprintf(msg, sizeof(msg), "%s: not a regular file", f->path);
	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), -1);
	assert_string_equal(f->err.msg, msg);
	assert_int_equal(conf_load("/dev/zero", f->tables, 2, &f->err), -1);
	assert_string_equal(f->err.msg, "/dev/zero: not a regular file");
	assert_int_equal(conf_load("/dev/null/x", f->tables, 2, &f->err), -1);
	assert_string_equal(f->err.msg, "/dev/null/x: Not a directory");
}

static void file_larger_than_a_mebibyte_is_refused(void **state)
{
	struct fixture *f = *state;
	char *text = malloc(TOML_MAX_BYTES + 1);
	char msg[256];

	assert_non_null(text);
	memset(text, '#', TOML_MAX_BYTES + 1);
	write_file(f, text, TOML_MAX_BYTES);
	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), 0);
	write_file(f, text, TOML_MAX_BYTES + 1);
	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), -1);
	snprintf(msg, sizeof(msg), "%s: larger than 1048576 bytes", f->path);
	assert_string_equal(f->err.msg, msg);
	/* A file that grows to no end is read no further than that. */
	assert_int_equal(truncate(f->path, (off_t)1 << 40), 0);
	assert_int_equal(conf_load(f->path, f->tables, 2, &f->err), -1);
	assert_string_equal(f->err.msg, msg);
	free(text);
}

static void assignment_sets_every_type(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(conf_set("workers=12", f->tables, 2, &f->err), 0);
	assert_int_equal(f->top.workers, 12);
	assert_int_equal(conf_set("overlay.sync_remove=true", f->tables, 2, &f->err), 0);
	assert_true(f->overlay.sync_remove);
	assert_int_equal(conf_set("overlay.mount_options=[\"a\", 'b']", f->tables, 2, &f->err), 0);
	assert_int_equal(f->overlay.mount_options.n, 2);
	assert_string_equal(f->overlay.mount_options.items[1], "b");
	assert_int_equal(conf_set("log_level=warn", f->tables, 2, &f->err), 0);
	assert_string_equal(f->top.log_level, "warn");
}

static void assignment_of_a_string_needs_no_quotes(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(conf_set("root=/a=b #c", f->tables, 2, &f->err), 0);
	assert_string_equal(f->top.root, "/a=b #c");
	assert_int_equal(conf_set("overlay.tag=0660", f->tables, 2, &f->err), 0);
	assert_string_equal(f->overlay.tag, "0660");
	assert_int_equal(conf_set("overlay.tag=\"a\\tb\"", f->tables, 2, &f->err), 0);
	assert_string_equal(f->overlay.tag, "a\tb");
	assert_int_equal(conf_set("overlay.tag=", f->tables, 2, &f->err), 0);
	assert_string_equal(f->overlay.tag, "");
}

static void assert_not_set(struct fixture *f, const char *assignment, const char *msg)
{
	assert_int_equal(conf_set(assignment, f->tables, 2, &f->err), -1);
	assert_int_equal(f->err.code, ERR_INVALID_ARGUMENT);
	if (msg)
		assert_string_equal(f->err.msg, msg);
	assert_defaults(f);
}

static void bad_assignment_is_refused(void **state)
{
	assert_not_set(*state, "workers", "'workers' does not read KEY=VALUE");
	assert_not_set(*state, "=3", "'=3' does not read KEY=VALUE");
	assert_not_set(*state, "worker=3", "unknown key 'worker', did you mean 'workers'?");
	assert_not_set(*state, "overly.tag=3",
		       "unknown key 'overly.tag', did you mean "
		       "'overlay.tag'?");
	assert_not_set(*state, "overlay.=3", "unknown key 'overlay.'");
	assert_not_set(*state, "overlay=3", "unknown key 'overlay'");
	assert_not_set(*state, "overlay={tag='x'}", "unknown key 'overlay'");
	assert_not_set(*state, "workers=99", "'workers': must be between 1 and 64, not 99");
	assert_not_set(*state, "log_level=loud",
		       "'log_level': must be one of error|warn|info|debug, not 'loud'");
	assert_not_set(*state, "overlay.sync_remove='true'",
		       "'overlay.sync_remove': must be true or false");
	assert_not_set(*state, "overlay.sync_remove=true\nother=1", NULL);
	assert_not_set(*state, "overlay.sync_remove=yes", NULL);
	assert_not_set(*state, "overlay.sync_remove=", NULL);
	assert_not_set(*state, "root=\"open", NULL);
	assert_not_set(*state, "root=/caf\xe9", "'root': must be UTF-8");
}

static void bad_rows_are_refused_at_init(void **state)
{
	static const struct conf_option bad_range[] = {
		CONF_STRING(struct overlay, tag, "\"x\"", NULL, "h"),
		CONF_INT(struct overlay, offset, "3", 4, 5, "h"),
		CONF_END,
	};
	static const struct conf_option bad_choice[] = {
		CONF_CHOICE(struct overlay, tag, "\"c\"", "a|b", "h"),
		CONF_END,
	};
	static const struct conf_option bad_notation[] = {
		CONF_STRING(struct overlay, tag, "c", NULL, "h"),
		CONF_END,
	};
	const struct conf_option *const rows[] = {bad_range, bad_choice, bad_notation};
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct overlay target = {0};
		struct conf_table table = {"t", rows[i], &target};

		assert_int_equal(conf_init(&table, 1, &err), -1);
		assert_non_null(strstr(err.msg, "default of '"));
		/* What was set before the bad row is freed again. */
		assert_null(target.tag);
	}
}

static char *printed(const struct fixture *f,
		     void (*print)(FILE *, const struct conf_table *, size_t))
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	print(out, f->tables, 2);
	assert_int_equal(fclose(out), 0);
	return text;
}

static void help_shows_every_option_within_80_columns(void **state)
{
	char *text = printed(*state, conf_help);
	size_t column = 0;

	assert_non_null(strstr(text, "  root=DIR\n        directory that everything is kept in "
				     "(default \"/var/lib/x\")\n"));
	assert_non_null(strstr(text, "  log_level=error|warn|info|debug\n"));
	assert_non_null(strstr(text, "(default 8, 1 to 64)\n"));
	assert_non_null(strstr(text, "  overlay.sync_remove=true|false\n"));
	assert_non_null(strstr(text, "  overlay.mount_options=[\"TEXT\", ...]\n"));
	assert_non_null(strstr(text, "  overlay.tag=TEXT\n"));
	for (const char *c = text; *c; c++) {
		column = *c == '\n' ? 0 : column + 1;
		assert_true(column <= 80);
	}
	free(text);
}

/* The example with the mark of every "#key = value" taken away. */
static void uncomment(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (*from == '#' && (from == text || from[-1] == '\n') && from[1] != ' ')
			continue;
		*to++ = *from;
	}
	*to = '\0';
}

static void example_loads_to_the_defaults(void **state)
{
	struct fixture *f = *state;
	char *text = printed(f, conf_example);

	assert_int_equal(load(f, text), 0);
	assert_defaults(f);
	/* Other values first, so that each default must come from the text. */
	assert_int_equal(load(f, "root = '/r'\nlog_level = 'debug'\nworkers = 1\n[overlay]\n"
				 "sync_remove = true\nmount_options = []\ntag = 'x'\noffset = 0\n"),
			 0);
	uncomment(text);
	assert_int_equal(load(f, text), 0);
	assert_defaults(f);
	free(text);
}

static void example_puts_the_top_level_first_and_each_table_once(void **state)
{
	struct fixture *f = *state;
	struct overlay overlay = {0};
	struct top top = {0};
	static const struct conf_option more[] = {
		CONF_STRING(struct top, root, "\"more\"", NULL, "h"),
		CONF_END,
	};
	struct conf_table tables[] = {
		{"overlay", overlay_options, &overlay},
		{"", top_options, &top},
		{"overlay", more, &f->top},
	};
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	const char *header;

	assert_non_null(out);
	conf_example(out, tables, ARRAY_LEN(tables));
	assert_int_equal(fclose(out), 0);
	header = strstr(text, "[overlay]\n");
	assert_non_null(header);
	assert_true(strstr(text, "#workers = ") < header);
	assert_true(strstr(text, "#root = \"more\"") > header);
	assert_null(strstr(header + 1, "[overlay]\n"));
	free(text);
}

static void tables_may_share_a_name(void **state)
{
	static const struct conf_option more[] = {
		CONF_INT(struct overlay, offset, "5", 0, 9, "h"),
		CONF_END,
	};
	struct overlay overlay = {0};
	struct top top = {0};
	struct conf_table tables[] = {{"", top_options, &top}, {"", more, &overlay}};
	struct err err = ERR_INIT;
	static const char text[] = "offset = 6\nworkers = 7\n";

	(void)state;
	assert_int_equal(conf_init(tables, 2, &err), 0);
	assert_int_equal(conf_load_text("t", text, strlen(text), tables, 2, &err), 0);
	assert_int_equal(overlay.offset, 6);
	assert_int_equal(top.workers, 7);
	conf_done(tables, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(defaults_are_set),
		T(done_leaves_targets_that_can_be_initialised_again),
		T(every_type_is_read),
		T(keys_may_be_dotted_or_in_inline_tables),
		T(list_may_be_empty),
		T(keys_not_named_keep_their_value),
		T(empty_document_changes_nothing),
		T(unknown_key_is_refused_with_line_and_suggestion),
		T(key_in_wrong_table_is_refused_with_its_place),
		T(unknown_table_is_refused_with_line_and_suggestion),
		T(first_mistake_by_line_is_reported),
		T(long_and_odd_keys_are_shown_safely),
		T(wrong_type_is_refused),
		T(number_out_of_range_is_refused),
		T(value_out_of_choices_is_refused),
		T(key_given_twice_is_refused),
		T(bad_syntax_is_refused_with_line),
		T(nothing_is_taken_of_a_document_with_a_mistake),
		T(text_that_is_not_utf8_is_refused_with_line),
		T(text_outside_of_ascii_is_kept),
		T(nul_bytes_are_refused),
		T(deep_nesting_is_refused),
		T(brackets_and_dots_in_strings_and_comments_do_not_nest),
		T(file_is_read),
		T(mistake_in_file_names_the_path),
		T(missing_file_is_told_apart),
		T(what_is_no_regular_file_is_refused_at_once),
		T(file_larger_than_a_mebibyte_is_refused),
		T(assignment_sets_every_type),
		T(assignment_of_a_string_needs_no_quotes),
		T(bad_assignment_is_refused),
		T(bad_rows_are_refused_at_init),
		T(help_shows_every_option_within_80_columns),
		T(example_loads_to_the_defaults),
		T(example_puts_the_top_level_first_and_each_table_once),
		T(tables_may_share_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
