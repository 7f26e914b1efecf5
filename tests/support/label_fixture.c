/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/label_fixture.h"

#include <string.h>

#include "tests/support/test.h"

int make_arena(void **state)
{
	static struct arena arena;

	arena_init(&arena, 64u << 20);
	*state = &arena;
	return 0;
}

int drop_arena(void **state)
{
	arena_done(*state);
	return 0;
}

void add_label(struct strmap *labels, struct arena *arena, const char *key, const char *value)
{
	struct err err = ERR_INIT;

	assert_ok(strmap_append(labels, arena, key, value, &err), &err);
}

char *letters(struct arena *arena, size_t n)
{
	char *text = arena_alloc(arena, n + 1);

	assert_non_null(text);
	memset(text, 'x', n);
	text[n] = '\0';
	return text;
}
