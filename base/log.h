/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line per event on stderr, as text (logfmt) or JSON. Library code returns errors; the edge logs
 * them, once. Any thread; one line is one write().
 *
 *	log_event(LOG_WARN, "spare directories could not be made", LOG_STR("dir", path), LOG_ERR(&err));
 */
#ifndef LIGHTER_BASE_LOG_H
#define LIGHTER_BASE_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/*
 * error: a request failed for our reasons; warn: we went on, and the line says how; info: start, stop,
 * recovery; debug: the rest.
 */
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

enum log_field_kind { LOG_FIELD_STR, LOG_FIELD_INT };

struct log_field {
	const char *name;
	enum log_field_kind kind;
	const char *str;
	int64_t num;
};

#define LOG_STR(name_, value_) ((struct log_field){(name_), LOG_FIELD_STR, (value_), 0})
#define LOG_INT(name_, value_) ((struct log_field){(name_), LOG_FIELD_INT, NULL, (value_)})
#define LOG_ERR(err_)          LOG_STR("error", (err_)->msg)

/**
 * log_setup() - choose what is written and how; before threads start
 * @service: value of the field "service" on every line; borrowed for ever
 *
 * When stderr is a journald stream (JOURNAL_STREAM), text lines carry no time of their own and begin
 * with the priority prefix <N> of sd-daemon(3).
 */
void log_setup(enum log_level level, enum log_format format, const char *service);

/** log_level_parse() - "error", "warn", "info", "debug". Return: 0, or -1 with ERR_INVALID_ARGUMENT. */
ERR_CHECKED int log_level_parse(const char *text, enum log_level *ret_level, struct err *err);

/** log_format_parse() - "text", "json". Return: 0, or -1 with ERR_INVALID_ARGUMENT. */
ERR_CHECKED int log_format_parse(const char *text, enum log_format *ret_format, struct err *err);

/** log_enabled() - would a line of @level be written? */
int log_enabled(enum log_level level);

/** log_fields() - write one line: level, message, @n fields. Foreign text is escaped, and cut at 8 KiB. */
void log_fields(enum log_level level, const char *msg, const struct log_field *fields, size_t n);

/* The message alone, or with fields. */
#define log_event(level, msg, ...)                                                                 \
	do {                                                                                       \
		const struct log_field log_fields_[] = {{NULL, LOG_FIELD_INT, NULL, 0},            \
							##__VA_ARGS__};                            \
		log_fields((level), (msg), log_fields_ + 1, ARRAY_LEN(log_fields_) - 1);           \
	} while (0)

#endif
