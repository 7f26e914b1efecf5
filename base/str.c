/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void str_init(struct str *str, size_t cap_bytes)
{
	*str = (struct str){.cap_bytes = cap_bytes};
}

void str_done(struct str *str)
{
	free(str->text);
	*str = (struct str){.cap_bytes = str->cap_bytes};
}

/* Makes room for @more bytes and the NUL. */
static bool reserve(struct str *str, size_t more)
{
	size_t need, capacity;
	char *text;

	if (str->failed)
		return false;
	if (more > str->cap_bytes - str->len) {
		str->failed = true;
		return false;
	}
	need = str->len + more + 1;
	if (need <= str->capacity)
		return true;
	capacity = str->capacity ? str->capacity : 64;
	while (capacity < need)
		capacity *= 2;
	text = realloc(str->text, capacity);
	if (!text) {
		str->failed = true;
		return false;
	}
	str->text = text;
	str->capacity = capacity;
	return true;
}

void str_add_mem(struct str *str, const char *data, size_t len)
{
	if (!reserve(str, len))
		return;
	if (len)
		memcpy(str->text + str->len, data, len);
	str->len += len;
	str->text[str->len] = '\0';
}

void str_add(struct str *str, const char *text)
{
	str_add_mem(str, text, strlen(text));
}

void str_printf(struct str *str, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0) {
		str->failed = true;
		return;
	}
	if (!reserve(str, (size_t)n))
		return;
	va_start(args, fmt);
	vsnprintf(str->text + str->len, (size_t)n + 1, fmt, args);
	va_end(args);
	str->len += (size_t)n;
}

char *str_take(struct str *str)
{
	char *text = NULL;

	if (reserve(str, 0)) {
		text = str->text;
		text[str->len] = '\0';
		str->text = NULL;
	}
	str_done(str);
	return text;
}

size_t str_cut(const char *text, size_t max_bytes)
{
	size_t len = strnlen(text, max_bytes + 1);

	if (len <= max_bytes)
		return len;
	for (len = max_bytes; len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80;)
		len--;
	return len;
}

/* Unicode 15, table 3-7: the well-formed byte sequences. */
bool str_is_utf8(const char *data, size_t len)
{
	/* Empty protobuf fields come as NULL, to which not even 0 may be added. */
	const unsigned char *p = (const unsigned char *)data, *end = len ? p + len : p;

	while (p < end) {
		unsigned char first = *p++, low = 0x80, high = 0xbf;
		int more;

		if (first < 0x80)
			continue;
		if (first >= 0xc2 && first <= 0xdf) {
			more = 1;
		} else if (first >= 0xe0 && first <= 0xef) {
			more = 2;
			if (first == 0xe0)
				low = 0xa0;
			else if (first == 0xed)
				high = 0x9f;
		} else if (first >= 0xf0 && first <= 0xf4) {
			more = 3;
			if (first == 0xf0)
				low = 0x90;
			else if (first == 0xf4)
				high = 0x8f;
		} else {
			return false;
		}
		for (; more > 0; more--, low = 0x80, high = 0xbf) {
			if (p == end || *p < low || *p > high)
				return false;
			p++;
		}
	}
	return true;
}
