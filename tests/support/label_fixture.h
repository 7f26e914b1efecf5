/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An arena as the state of a test, and labels and long texts in it.
 */
#ifndef LIGHTER_TESTS_SUPPORT_LABEL_FIXTURE_H
#define LIGHTER_TESTS_SUPPORT_LABEL_FIXTURE_H

#include "base/arena.h"
#include "base/strmap.h"

/* For cmocka; *@state is the arena. */
int make_arena(void **state);
int drop_arena(void **state);

void add_label(struct strmap *labels, struct arena *arena, const char *key, const char *value);

/** letters() - a text of @n letters */
char *letters(struct arena *arena, size_t n);

#endif
