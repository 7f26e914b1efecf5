/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strmap.h"

#include <stdlib.h>
#include <string.h>

static int grow(struct strmap *map, struct arena *arena, struct err *err)
{
	size_t capacity = map->capacity ? map->capacity * 2 : 8;
	struct strmap_entry *entries = arena_array(arena, capacity, sizeof(*entries));

	if (!entries)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "too many labels: no memory");
	if (map->n)
		memcpy(entries, map->entries, map->n * sizeof(*entries));
	map->entries = entries;
	map->capacity = capacity;
	return 0;
}

int strmap_append(struct strmap *map, struct arena *arena, const char *key, const char *value,
		  struct err *err)
{
	if (map->n == map->capacity && grow(map, arena, err) < 0)
		return -1;
	map->entries[map->n++] = (struct strmap_entry){.key = key, .value = value};
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	const struct strmap_entry *left = a, *right = b;

	return strcmp(left->key, right->key);
}

/* Merge sort, since the order of equal keys matters and qsort() promises none. */
static void merge_sort(struct strmap_entry *entries, struct strmap_entry *scratch, size_t n)
{
	size_t half = n / 2, i = 0, j = half, k = 0;

	if (n < 2)
		return;
	merge_sort(entries, scratch, half);
	merge_sort(entries + half, scratch, n - half);
	while (i < half && j < n) {
		if (compare_entries(&entries[i], &entries[j]) <= 0)
			scratch[k++] = entries[i++];
		else
			scratch[k++] = entries[j++];
	}
	while (i < half)
		scratch[k++] = entries[i++];
	while (j < n)
		scratch[k++] = entries[j++];
	memcpy(entries, scratch, n * sizeof(*entries));
}

void strmap_sort(struct strmap *map)
{
	size_t kept = 0;

	if (map->n < 2)
		return;
	struct strmap_entry *scratch = malloc(map->n * sizeof(*scratch));

	if (scratch) {
		merge_sort(map->entries, scratch, map->n);
		free(scratch);
	} else {
		/* No memory: insertion sort is stable too, only slow. */
		for (size_t i = 1; i < map->n; i++) {
			struct strmap_entry moving = map->entries[i];
			size_t j = i;

			for (; j > 0 && strcmp(map->entries[j - 1].key, moving.key) > 0; j--)
				map->entries[j] = map->entries[j - 1];
			map->entries[j] = moving;
		}
	}

	for (size_t i = 0; i < map->n; i++) {
		if (kept && strcmp(map->entries[kept - 1].key, map->entries[i].key) == 0)
			map->entries[kept - 1] = map->entries[i];
		else
			map->entries[kept++] = map->entries[i];
	}
	map->n = kept;
}

/* The index of the first entry whose key is not below @key. */
static size_t lower_bound(const struct strmap *map, const char *key)
{
	size_t low = 0, high = map->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(map->entries[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int is_at(const struct strmap *map, size_t i, const char *key)
{
	return i < map->n && strcmp(map->entries[i].key, key) == 0;
}

int strmap_set(struct strmap *map, struct arena *arena, const char *key, const char *value,
	       struct err *err)
{
	size_t i = lower_bound(map, key);

	if (is_at(map, i, key)) {
		map->entries[i].value = value;
		return 0;
	}
	if (map->n == map->capacity && grow(map, arena, err) < 0)
		return -1;
	memmove(&map->entries[i + 1], &map->entries[i], (map->n - i) * sizeof(*map->entries));
	map->entries[i] = (struct strmap_entry){.key = key, .value = value};
	map->n++;
	return 0;
}

const char *strmap_get(const struct strmap *map, const char *key)
{
	size_t i = lower_bound(map, key);

	return is_at(map, i, key) ? map->entries[i].value : NULL;
}

void strmap_unset(struct strmap *map, const char *key)
{
	size_t i = lower_bound(map, key);

	if (!is_at(map, i, key))
		return;
	memmove(&map->entries[i], &map->entries[i + 1], (map->n - i - 1) * sizeof(*map->entries));
	map->n--;
}
