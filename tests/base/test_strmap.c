/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strmap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/fault.h"
#include "tests/support/test.h"

#define N_MANY 1000

/* Visits 0 to N_MANY - 1 in an order that is none; 7 has no factor in common with 1000. */
static unsigned int scattered(unsigned int i)
{
	return i * 7 % N_MANY;
}

static int setup(void **state)
{
	static struct arena arena;

	arena_init(&arena, (size_t)1024 * 1024);
	*state = &arena;
	return 0;
}

static int teardown(void **state)
{
	arena_done(*state);
	return 0;
}

static void assert_sorted(const struct strmap *map)
{
	for (size_t i = 1; i < map->n; i++)
		assert_true(strcmp(map->entries[i - 1].key, map->entries[i].key) < 0);
}

static void an_empty_map_has_nothing(void **state)
{
	struct strmap map = {0};

	(void)state;
	assert_null(strmap_get(&map, "a"));
	strmap_unset(&map, "a");
	strmap_sort(&map);
	assert_int_equal(map.n, 0);
}

static void set_keeps_order_and_replaces(void **state)
{
	struct strmap map = {0};
	struct err err = ERR_INIT;

	for (unsigned int i = 0; i < N_MANY; i++)
		assert_ok(strmap_set(&map, *state, arena_printf(*state, "k%u", scattered(i)), "old",
				     &err),
			  &err);
	assert_int_equal(map.n, N_MANY);
	assert_ok(strmap_set(&map, *state, "k500", "new", &err), &err);
	assert_int_equal(map.n, N_MANY);
	assert_sorted(&map);
	assert_string_equal(strmap_get(&map, "k500"), "new");
	assert_string_equal(strmap_get(&map, "k999"), "old");
	assert_null(strmap_get(&map, "k1000"));
	assert_null(strmap_get(&map, ""));
}

static void order_is_that_of_bytes(void **state)
{
	struct strmap map = {0};
	struct err err = ERR_INIT;
	static const char *const keys[] = {"\xc3\xa9", "b", "B", "a.b", "a", ""};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_ok(strmap_set(&map, *state, keys[i], "", &err), &err);
	assert_string_equal(map.entries[0].key, "");
	assert_string_equal(map.entries[1].key, "B");
	assert_string_equal(map.entries[2].key, "a");
	assert_string_equal(map.entries[3].key, "a.b");
	assert_string_equal(map.entries[4].key, "b");
	assert_string_equal(map.entries[5].key, "\xc3\xa9");
}

/* As protobuf wants it of a map field. */
static void sort_lets_the_last_of_equal_keys_stay(void **state)
{
	struct arena *arena = *state;
	struct strmap map = {0};
	struct err err = ERR_INIT;

	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < N_MANY; i++) {
			const char *key = arena_printf(arena, "k%u", scattered(i));

			assert_ok(strmap_append(&map, arena, key, arena_printf(arena, "%u", round),
						&err),
				  &err);
		}
	}
	strmap_sort(&map);
	assert_int_equal(map.n, N_MANY);
	assert_sorted(&map);
	for (size_t i = 0; i < map.n; i++)
		assert_string_equal(map.entries[i].value, "2");
}

static void sort_works_without_memory(void **state)
{
	struct strmap map = {0};
	struct err err = ERR_INIT;
	static const char *const keys[] = {"c", "a", "b", "a", "c", "c", "0"};
	static const char *const values[] = {"1", "2", "3", "4", "5", "6", "7"};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_ok(strmap_append(&map, *state, keys[i], values[i], &err), &err);
	fault_after(FAULT_MALLOC, 0, ENOMEM);
	strmap_sort(&map);
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(map.n, 4);
	assert_sorted(&map);
	assert_string_equal(strmap_get(&map, "a"), "4");
	assert_string_equal(strmap_get(&map, "b"), "3");
	assert_string_equal(strmap_get(&map, "c"), "6");
	assert_string_equal(strmap_get(&map, "0"), "7");
}

static void unset_removes_one(void **state)
{
	struct strmap map = {0};
	struct err err = ERR_INIT;

	assert_ok(strmap_set(&map, *state, "a", "1", &err), &err);
	assert_ok(strmap_set(&map, *state, "b", "2", &err), &err);
	assert_ok(strmap_set(&map, *state, "c", "3", &err), &err);
	strmap_unset(&map, "b");
	strmap_unset(&map, "bb");
	assert_int_equal(map.n, 2);
	assert_string_equal(strmap_get(&map, "a"), "1");
	assert_null(strmap_get(&map, "b"));
	assert_string_equal(strmap_get(&map, "c"), "3");
	strmap_unset(&map, "c");
	strmap_unset(&map, "a");
	assert_int_equal(map.n, 0);
}

static void a_full_arena_is_resource_exhausted_and_keeps_the_map(void **state)
{
	struct strmap map = {0};
	struct arena small;
	struct err err = ERR_INIT;
	char keys[100][8];
	unsigned int i;

	(void)state;
	arena_init(&small, 600);
	for (i = 0; i < 100; i++) {
		snprintf(keys[i], sizeof(keys[i]), "k%02u", i);
		if (strmap_append(&map, &small, keys[i], "v", &err) < 0)
			break;
	}
	assert_in_range(i, 1, 99);
	assert_int_equal(err.code, ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(map.n, i);
	strmap_sort(&map);
	assert_string_equal(strmap_get(&map, "k00"), "v");
	err_clear(&err);
	assert_fails(strmap_set(&map, &small, "new", "v", &err), &err, ERR_RESOURCE_EXHAUSTED);
	assert_ok(strmap_set(&map, &small, "k00", "w", &err), &err);
	assert_string_equal(strmap_get(&map, "k00"), "w");
	arena_done(&small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_map_has_nothing),
		cmocka_unit_test_setup_teardown(set_keeps_order_and_replaces, setup, teardown),
		cmocka_unit_test_setup_teardown(order_is_that_of_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(sort_lets_the_last_of_equal_keys_stay, setup,
						teardown),
		cmocka_unit_test_setup_teardown(sort_works_without_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(unset_removes_one, setup, teardown),
		cmocka_unit_test(a_full_arena_is_resource_exhausted_and_keeps_the_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
