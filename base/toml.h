/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TOML document as a flat list of its keys. The parser behind it is C++; none of its types, and no
 * exception, comes through here. Any thread. For conf.c.
 */
#ifndef LIGHTER_BASE_TOML_H
#define LIGHTER_BASE_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/compiler.h"
#include "base/err.h"

/* Larger documents are refused. */
#define TOML_MAX_BYTES (1024 * 1024)

/*
 * Arrays and inline tables inside one another, and parts of a dotted key. The parser and its
 * destructors recurse once a level, and it bounds the first but not the second.
 */
#define TOML_MAX_DEPTH 16

enum toml_type {
	TOML_TYPE_BOOL,
	TOML_TYPE_INT,
	TOML_TYPE_STRING,
	TOML_TYPE_LIST,
	TOML_TYPE_TABLE,
	TOML_TYPE_OTHER, /* floating point, dates, times */
};

/**
 * struct toml_value - one value; everything is borrowed for the length of the call back
 * @line: where it begins, from 1
 * @boolean, @integer: value of a TOML_TYPE_BOOL, a TOML_TYPE_INT
 * @str: @len bytes of UTF-8 and a NUL, of a TOML_TYPE_STRING; may hold NUL bytes
 * @items: @n_items values of a TOML_TYPE_LIST; what is in lists or tables inside is not shown
 */
struct toml_value {
	enum toml_type type;
	unsigned int line;
	bool boolean;
	int64_t integer;
	const char *str;
	size_t len;
	const struct toml_value *items;
	size_t n_items;
};

/**
 * struct toml_entry - one key
 * @table: dotted path of the table it is in, "" at the top level
 * @name: the key; neither @table nor @name holds a NUL byte
 * @line: where the key was written, from 1
 */
struct toml_entry {
	const char *table;
	const char *name;
	unsigned int line;
	struct toml_value value;
};

/** toml_entry_fn - called for each key; the walk stops at a result other than 0 */
typedef int (*toml_entry_fn)(void *arg, const struct toml_entry *entry, struct err *err);

/**
 * toml_each() - parse @size bytes, then show every key, tables too, in the order of their lines
 * @name: stands for the document in messages, "NAME:LINE: what is wrong"
 * Return: 0, what @fn returned, or -1 with ERR_INVALID_ARGUMENT (ERR_RESOURCE_EXHAUSTED: no memory).
 */
ERR_CHECKED int toml_each(const char *name, const char *text, size_t size, toml_entry_fn fn,
			  void *arg, struct err *err);

#ifdef __cplusplus
}
#endif

#endif
