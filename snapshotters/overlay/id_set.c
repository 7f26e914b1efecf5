/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/id_set.h"

#include <stdlib.h>
#include <string.h>

void id_set_done(struct id_set *set)
{
	free(set->ids);
	*set = (struct id_set){0};
}

/* The index of the first id that is not below @id. */
static size_t lower_bound(const struct id_set *set, uint64_t id)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->ids[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool id_set_has(const struct id_set *set, uint64_t id)
{
	size_t i = lower_bound(set, id);

	return i < set->n && set->ids[i] == id;
}

bool id_set_add(struct id_set *set, uint64_t id)
{
	size_t i = lower_bound(set, id);

	if (i < set->n && set->ids[i] == id)
		return true;
	if (set->n == set->capacity) {
		size_t capacity = set->capacity ? set->capacity * 2 : 64;
		uint64_t *ids = reallocarray(set->ids, capacity, sizeof(*ids));

		if (!ids)
			return false;
		set->ids = ids;
		set->capacity = capacity;
	}
	memmove(set->ids + i + 1, set->ids + i, (set->n - i) * sizeof(*set->ids));
	set->ids[i] = id;
	set->n++;
	return true;
}

void id_set_remove(struct id_set *set, uint64_t id)
{
	size_t i = lower_bound(set, id);

	if (i == set->n || set->ids[i] != id)
		return;
	memmove(set->ids + i, set->ids + i + 1, (set->n - i - 1) * sizeof(*set->ids));
	set->n--;
}

bool id_set_copy(struct id_set *to, const struct id_set *from)
{
	*to = (struct id_set){0};
	if (!from->n)
		return true;
	to->ids = calloc(from->n, sizeof(*to->ids));
	if (!to->ids)
		return false;
	memcpy(to->ids, from->ids, from->n * sizeof(*to->ids));
	to->n = to->capacity = from->n;
	return true;
}
