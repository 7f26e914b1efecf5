/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ctx.h"

/* Foreign text of one line, escaped; beside it the line holds what is ours: names, numbers, punctuation. */
#define TEXT_MAX_BYTES 8192
#define LINE_MAX_BYTES (TEXT_MAX_BYTES + 4096)
#define CUT_MARK       "\xe2\x80\xa6"

/* Written by log_setup(), before threads start. */
static struct {
	enum log_level level;
	enum log_format format;
	const char *service;
	bool to_journal;
} setup = {LOG_INFO, LOG_TEXT, "lighter", false};

/*
 * Keeps lines whole where write() does not: a pipe takes long lines in pieces.
 * @torn: the last line could not be written to its end
 */
static struct {
	pthread_mutex_t mutex;
	bool torn;
} output = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const format_names[] = {"text", "json"};

/* Source: systemd.exec(5), $JOURNAL_STREAM: device and inode of the stream, decimal, colon between. */
static bool is_journal(int fd)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat st;

	if (!stream || fstat(fd, &st) < 0)
		return false;
	snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return strcmp(stream, own) == 0;
}

void log_setup(enum log_level level, enum log_format format, const char *service)
{
	setup.level = level;
	setup.format = format;
	setup.service = service;
	setup.to_journal = is_journal(STDERR_FILENO);
}

int log_level_parse(const char *text, enum log_level *ret_level, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return err_set(err, ERR_INVALID_ARGUMENT,
		       "unknown log level '%s': error, warn, info or debug", text);
}

int log_format_parse(const char *text, enum log_format *ret_format, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(format_names); i++) {
		if (strcmp(text, format_names[i]) == 0) {
			*ret_format = (enum log_format)i;
			return 0;
		}
	}
	return err_set(err, ERR_INVALID_ARGUMENT, "unknown log format '%s': text or json", text);
}

int log_enabled(enum log_level level)
{
	return level <= setup.level;
}

/**
 * struct line - a line being built
 * @text_len: how much of @len is foreign text
 * @full: a field did not fit; the rest is left out
 */
struct line {
	size_t len;
	size_t text_len;
	bool full;
	char buf[LINE_MAX_BYTES];
};

/* Room for the end of the line is always kept. */
static void add_mem(struct line *line, const char *data, size_t len)
{
	if (len > sizeof(line->buf) - 4 - line->len) {
		line->full = true;
		return;
	}
	memcpy(line->buf + line->len, data, len);
	line->len += len;
}

static void add(struct line *line, const char *text)
{
	add_mem(line, text, strlen(text));
}

/* The length of the UTF-8 sequence at @p, which ends with a NUL byte; 0 when it is none. */
static size_t sequence_len(const unsigned char *p, uint32_t *ret_char)
{
	static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len;
	uint32_t c;

	if (p[0] < 0x80) {
		*ret_char = p[0];
		return 1;
	}
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		len = 2;
	else if ((p[0] & 0xf0) == 0xe0)
		len = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		len = 4;
	else
		return 0;
	c = p[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < lowest[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret_char = c;
	return len;
}

/* What a terminal or a reader of lines could take for something else than text. */
static bool is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x2028 || c == 0x2029;
}

/* Adds @text as it stands between double quotes, both in JSON and in logfmt. */
static void add_escaped(struct line *line, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	while (*p) {
		uint32_t c = 0;
		size_t len = sequence_len(p, &c);
		const char *piece = (const char *)p;
		size_t piece_len = len;
		char escape[16];

		if (len == 0) {
			piece = "\xef\xbf\xbd";
			piece_len = 3;
			len = 1;
		} else if (c == '"' || c == '\\' || is_control(c)) {
			static const char named[] = "\"\"\\\\\nn\rr\tt";
			size_t i = 0;

			while (i < sizeof(named) - 1 && (uint32_t)named[i] != c)
				i += 2;
			if (i < sizeof(named) - 1)
				snprintf(escape, sizeof(escape), "\\%c", named[i + 1]);
			else
				snprintf(escape, sizeof(escape), "\\u%04x", (unsigned int)c);
			piece = escape;
			piece_len = strlen(escape);
		}
		if (line->text_len + piece_len > TEXT_MAX_BYTES) {
			add(line, CUT_MARK);
			return;
		}
		add_mem(line, piece, piece_len);
		line->text_len += piece_len;
		p += len;
	}
}

/* logfmt leaves away the quotes of what is one plain word. */
static bool is_plain_word(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	if (!*p)
		return false;
	for (; *p; p++) {
		if (*p <= ' ' || *p >= 0x7f || *p == '"' || *p == '\\' || *p == '=')
			return false;
	}
	return true;
}

static void add_text(struct line *line, const char *text)
{
	bool quoted = setup.format == LOG_JSON || !is_plain_word(text);

	if (quoted)
		add(line, "\"");
	add_escaped(line, text);
	if (quoted)
		add(line, "\"");
}

static void begin_field(struct line *line, const char *name)
{
	bool json = setup.format == LOG_JSON;

	if (line->len > 0)
		add(line, json ? "," : " ");
	if (json)
		add(line, "\"");
	add(line, name);
	add(line, json ? "\":" : "=");
}

/* A field stands there in full or not at all. */
static void add_field(struct line *line, const struct log_field *field)
{
	size_t len = line->len;
	char number[24];

	if (line->full)
		return;
	begin_field(line, field->name);
	if (field->kind == LOG_FIELD_INT) {
		snprintf(number, sizeof(number), "%" PRId64, field->num);
		add(line, number);
	} else if (field->str) {
		add_text(line, field->str);
	} else {
		add(line, "null");
	}
	if (line->full)
		line->len = len;
}

static void format_time(char *buf, size_t size, int64_t now_ns)
{
	time_t seconds = (time_t)(now_ns / 1000000000);
	struct tm tm;
	size_t len;

	gmtime_r(&seconds, &tm);
	len = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + len, size - len, ".%03dZ", (int)(now_ns / 1000000 % 1000));
}

static void write_line(const char *data, size_t len)
{
	size_t done = 0;

	LOCK_GUARD(&output.mutex);
	if (output.torn && write(STDERR_FILENO, "\n", 1) != 1)
		return;
	output.torn = false;
	while (done < len) {
		ssize_t n = write(STDERR_FILENO, data + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		/* There is nowhere to report it; at least the next line must not grow out of this one. */
		if (n <= 0) {
			output.torn = done > 0;
			return;
		}
		done += (size_t)n;
	}
}

void log_fields(enum log_level level, const char *msg, const struct log_field *fields, size_t n)
{
	/* Source of the numbers: sd-daemon(3), SD_ERR, SD_WARNING, SD_INFO, SD_DEBUG. */
	static const char *const priorities[] = {"<3>", "<4>", "<6>", "<7>"};
	bool json = setup.format == LOG_JSON, to_journal = setup.to_journal && !json;
	int saved = errno;
	struct line line;
	char now[48];
	char prefix[4] = "";

	if (!log_enabled(level))
		return;
	line.len = line.text_len = 0;
	line.full = false;

	if (to_journal)
		snprintf(prefix, sizeof(prefix), "%s", priorities[level]);
	add(&line, json ? "{" : prefix);
	if (!to_journal) {
		format_time(now, sizeof(now), realtime_ns());
		add(&line, json ? "\"ts\":\"" : "ts=");
		add(&line, now);
		add(&line, json ? "\"" : "");
		add_field(&line, &LOG_STR("level", level_names[level]));
	} else {
		add(&line, "level=");
		add(&line, level_names[level]);
	}
	add_field(&line, &LOG_STR("service", setup.service));
	add_field(&line, &LOG_STR("msg", msg));
	for (size_t i = 0; i < n; i++)
		add_field(&line, &fields[i]);

	/* add_mem() kept room for this. */
	if (json)
		line.buf[line.len++] = '}';
	line.buf[line.len++] = '\n';
	write_line(line.buf, line.len);
	errno = saved;
}
