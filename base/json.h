/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading JSON (RFC 8259) that somebody else wrote. A document is one thread's at a time; different ones are any
 * thread's.
 *
 * What cannot be read in one way only is refused, since whoever reads it beside us might read it in the other:
 * a member named twice in one object (parsers take the first, the last, or both), U+0000 in a text (C ends there),
 * bytes that are not UTF-8, anything behind the document, and what is no JSON but often taken: NaN, comments,
 * quotes that are not double ones. Before memory is spent on it, a document is known to keep its limits.
 */
#ifndef LIGHTER_BASE_JSON_H
#define LIGHTER_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"

/* Deeper documents are refused. */
#define JSON_DEPTH_MAX 64

/**
 * struct json_limits - what a document may cost
 * @size_bytes: its length; at most INT_MAX
 * @n_containers: objects and arrays, of which each takes up to 1 KiB of memory
 * @n_values: values of all kinds, of which each takes up to 200 bytes and its text
 */
struct json_limits {
	size_t size_bytes;
	size_t n_containers;
	size_t n_values;
};

enum json_kind {
	JSON_NULL,
	JSON_BOOL,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT,
};

/* A value, borrowed from its document. NULL is JSON_NULL to all functions that take one. */
struct json;

/**
 * json_parse() - read @size bytes at @text
 * @ret_document: to be freed
 * Return: 0, or -1: ERR_INVALID_ARGUMENT for what is no JSON, or refused; ERR_OUT_OF_RANGE beyond a limit;
 * ERR_RESOURCE_EXHAUSTED without memory.
 */
ERR_CHECKED int json_parse(const char *text, size_t size, const struct json_limits *limits,
			   struct json **ret_document, struct err *err);
void json_free(struct json *document);

enum json_kind json_kind(const struct json *value);

/** json_member() - the member @name of an object; NULL when it is null, absent, or @value no object */
const struct json *json_member(const struct json *value, const char *name);

/* Return: 0 to go on; anything else ends the walk. @value may be NULL. */
typedef int (*json_member_fn)(void *arg, const char *name, const struct json *value,
			      struct err *err);

/** json_each_member() - call @fn for each member of an object, in the document's order. Return: what @fn did last. */
ERR_CHECKED int json_each_member(const struct json *value, json_member_fn fn, void *arg,
				 struct err *err);

/** json_n_elements() - of an array; 0 of anything else */
size_t json_n_elements(const struct json *value);

/** json_element() - element @i, which is below json_n_elements() */
const struct json *json_element(const struct json *value, size_t i);

/** json_string() - the text of a string, valid as long as the document; NULL of anything else */
const char *json_string(const struct json *value);

/** json_int() - an integer of 0 to INT64_MAX, written as one (not 1e3, not 1.0). Return: is it one? */
bool json_int(const struct json *value, int64_t *ret_number);

/** json_text() - @value written again, on one line, in @arena; NULL without memory */
char *json_text(const struct json *value, struct arena *arena);

#endif
