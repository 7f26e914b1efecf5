/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing string with a cap, and what we ask of text. One thread at a time.
 */
#ifndef LIGHTER_BASE_STR_H
#define LIGHTER_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

/**
 * struct str - text being built
 * @text: NUL-terminated once something was added; NULL before
 * @failed: memory or the cap ran out; what was added since is missing, and stays so
 */
struct str {
	char *text;
	size_t len;
	size_t capacity;
	size_t cap_bytes;
	bool failed;
};

void str_init(struct str *str, size_t cap_bytes);
void str_done(struct str *str);
void str_add(struct str *str, const char *text);
void str_add_mem(struct str *str, const char *data, size_t len);
void str_printf(struct str *str, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** str_take() - the text, yours to free(); NULL when building it failed. The string is empty again. */
char *str_take(struct str *str);

/** str_cut() - so many bytes of @text, at most @max_bytes, are shown; a UTF-8 sequence is not cut inside */
size_t str_cut(const char *text, size_t max_bytes);

/** str_is_utf8() - are these @len bytes UTF-8 as protobuf wants it: no surrogates, nothing overlong? */
bool str_is_utf8(const char *data, size_t len);

#endif
