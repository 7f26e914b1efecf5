/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions as containerd's filters know them: RE2 syntax, linear time (Go's regexp package
 * and the RE2 library share both). A compiled expression may be used by any thread.
 */
#ifndef LIGHTER_BASE_REGEX_H
#define LIGHTER_BASE_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct regex;

/**
 * regex_new() - compile @pattern of @len bytes, UTF-8
 * Return: NULL when it is not an RE2 expression, or needs more than 1 MiB compiled.
 */
struct regex *regex_new(const char *pattern, size_t len);
void regex_free(struct regex *regex);

/** regex_search() - is there a match anywhere in @text of @len bytes? */
bool regex_search(const struct regex *regex, const char *text, size_t len);

#ifdef __cplusplus
}
#endif

#endif
