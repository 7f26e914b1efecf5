/* SPDX-License-Identifier: Apache-2.0 */
#include "content/report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

/* No line of ours is longer: names have 255 bytes, messages 1024, each of which escaping may make six of. */
#define LINE_MAX_BYTES ((size_t)64 << 10)

/*
 * As it stands in a JSON string, and, but for the two that JSON alone cares for, on a terminal. Bytes that are no UTF-8
 * become U+FFFD each.
 */
static void add_escaped(struct str *line, const char *text, bool json)
{
	bool utf8 = str_is_utf8(text, strlen(text));

	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (json && (*p == '"' || *p == '\\'))
			str_printf(line, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			str_printf(line, "\\u%04x", *p);
		else if (*p >= 0x80 && !utf8)
			str_add(line, "\xef\xbf\xbd");
		/* C1 controls: U+0080 to U+009F are C2 80 to C2 9F. */
		else if (*p == 0xc2 && p[1] < 0xa0)
			str_printf(line, "\\u00%02x", *++p);
		else
			str_add_mem(line, (const char *)p, 1);
	}
}

static void add_string(struct str *line, const char *text)
{
	str_add(line, "\"");
	add_escaped(line, text, true);
	str_add(line, "\"");
}

static void add_field(struct str *line, const struct log_field *field)
{
	str_add(line, ",");
	add_string(line, field->name);
	str_add(line, ":");
	if (field->kind == LOG_FIELD_INT)
		str_printf(line, "%" PRId64, field->num);
	else if (field->str)
		add_string(line, field->str);
	else
		str_add(line, "null");
}

const char *report_plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

void report_fields(struct report *report, const char *event, const char *human,
		   const struct log_field *fields, size_t n)
{
	CLEANUP(free_ptr) char *text = NULL;
	struct str line;

	if (!report->json && !human)
		return;
	str_init(&line, LINE_MAX_BYTES);
	if (report->json) {
		str_add(&line, "{\"event\":");
		add_string(&line, event);
		for (size_t i = 0; i < n; i++)
			add_field(&line, &fields[i]);
		str_add(&line, "}");
	} else {
		add_escaped(&line, human, false);
	}
	str_add(&line, "\n");
	text = str_take(&line);
	/* Without memory for a line there are worse troubles, which are reported as errors. */
	progress_print(report->progress, stdout, text ? text : "\n");
}
