/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labels: a small map from string to string, in an arena, kept in byte order of the keys. One thread
 * at a time.
 */
#ifndef LIGHTER_BASE_STRMAP_H
#define LIGHTER_BASE_STRMAP_H

#include <stddef.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"

struct strmap_entry {
	const char *key;
	const char *value;
};

/**
 * struct strmap - sorted entries
 * @entries: @n entries, ascending by strcmp() of their keys, no key twice
 */
struct strmap {
	struct strmap_entry *entries;
	size_t n;
	size_t capacity;
};

/**
 * strmap_append() - add an entry at the end, in any order; strmap_sort() must follow before other use
 * @key, @value: borrowed; they must live as long as the map
 * Return: 0, or -1 with ERR_RESOURCE_EXHAUSTED.
 */
ERR_CHECKED int strmap_append(struct strmap *map, struct arena *arena, const char *key,
			      const char *value, struct err *err);

/** strmap_sort() - put appended entries in order; of several with one key the last stays */
void strmap_sort(struct strmap *map);

/** strmap_set() - add or replace one entry of a sorted map; arguments as in strmap_append() */
ERR_CHECKED int strmap_set(struct strmap *map, struct arena *arena, const char *key,
			   const char *value, struct err *err);

/** strmap_get() - the value of @key in a sorted map, or NULL */
const char *strmap_get(const struct strmap *map, const char *key);

/** strmap_unset() - remove @key from a sorted map, if it is there */
void strmap_unset(struct strmap *map, const char *key);

#endif
