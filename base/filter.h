/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd's filter language (its filters package): several filters are OR-ed; in one, comma-separated
 * selectors are AND-ed; no filter, or an empty one, matches everything.
 *
 *	filter    := "" | selector *( "," selector )
 *	selector  := fieldpath [ ( "==" | "!=" | "~=" ) value ]
 *	fieldpath := field *( "." field )
 *
 * Parsed filters are read-only: any thread may match with them.
 */
#ifndef LIGHTER_BASE_FILTER_H
#define LIGHTER_BASE_FILTER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"

/* Bounds of one request: all of its filters together, and how many there may be. */
#define FILTER_MAX_BYTES (64u << 10)
#define FILTERS_MAX      256

struct filters;

/**
 * filter_field_fn - the value of a field of @object
 * @path: @n elements, @n >= 1
 * Return: the value, or NULL when the object has no such field.
 */
typedef const char *(*filter_field_fn)(const void *object, const char *const *path, size_t n);

/**
 * filters_parse() - parse @n filters
 * @ret_filters: release with filters_free(); NULL when everything matches
 * Return: 0, or -1 with ERR_INVALID_ARGUMENT, the message naming the filter and the place in it.
 */
ERR_CHECKED int filters_parse(const char *const *texts, size_t n, struct filters **ret_filters,
			      struct err *err);
void filters_free(struct filters *filters);

/** filters_match() - does @object, seen through @field, pass? NULL filters pass all. */
bool filters_match(const struct filters *filters, filter_field_fn field, const void *object);

/**
 * filters_required() - the value that @path must have in whatever passes, or NULL if there is no one such value
 *
 * For a store that can look the value up instead of walking everything.
 */
const char *filters_required(const struct filters *filters, const char *const *path, size_t n);

#endif
