/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of ids, sorted, for a few dozen to a few hundred thousand. One thread at a time.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_ID_SET_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_ID_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct id_set {
	uint64_t *ids;
	size_t n;
	size_t capacity;
};

void id_set_done(struct id_set *set);

/** id_set_add() - Return: false when memory is gone */
bool id_set_add(struct id_set *set, uint64_t id);

/** id_set_remove() - nothing happens when it is not in */
void id_set_remove(struct id_set *set, uint64_t id);

bool id_set_has(const struct id_set *set, uint64_t id);

/** id_set_copy() - Return: false when memory is gone; @to is then empty */
bool id_set_copy(struct id_set *to, const struct id_set *from);

#endif
