/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "tests/support/fault.h"
#include "tests/support/test.h"

#define MIB ((size_t)1024 * 1024)

static void pieces_are_aligned_and_do_not_overlap(void **state)
{
	unsigned char *pieces[600];
	struct arena arena;

	(void)state;
	arena_init(&arena, 16 * MIB);
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		pieces[i] = arena_alloc(&arena, i);
		assert_non_null(pieces[i]);
		assert_int_equal((uintptr_t)pieces[i] % _Alignof(max_align_t), 0);
		memset(pieces[i], (int)(i & 0xff), i);
	}
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		for (size_t j = 0; j < i; j++)
			assert_int_equal(pieces[i][j], i & 0xff);
	}
	arena_done(&arena);
}

static void size_zero_gives_pointers_of_their_own(void **state)
{
	struct arena arena;
	void *a, *b;

	(void)state;
	arena_init(&arena, MIB);
	a = arena_alloc(&arena, 0);
	b = arena_alloc(&arena, 0);
	assert_non_null(a);
	assert_non_null(b);
	assert_ptr_not_equal(a, b);
	assert_non_null(arena_array(&arena, 0, 8));
	arena_done(&arena);
}

static void nothing_is_handed_out_beyond_the_cap(void **state)
{
	struct arena arena;
	size_t total = 0;

	(void)state;
	arena_init(&arena, 100000);
	assert_null(arena_alloc(&arena, 100001));
	while (arena_alloc(&arena, 100))
		total += 100;
	assert_true(arena.used_bytes <= 100000);
	/* Doubled blocks must not leave much of the cap unusable. */
	assert_in_range(total, 80000, 100000);
	arena_done(&arena);
}

static void a_cap_smaller_than_a_block_is_usable(void **state)
{
	struct arena arena;

	(void)state;
	arena_init(&arena, 200);
	assert_non_null(arena_alloc(&arena, 100));
	assert_null(arena_alloc(&arena, 100));
	arena_done(&arena);
	arena_init(&arena, 0);
	assert_null(arena_alloc(&arena, 1));
	arena_done(&arena);
}

static void a_large_piece_leaves_the_rest_of_the_block_usable(void **state)
{
	struct arena arena;
	size_t used;

	(void)state;
	arena_init(&arena, 16 * MIB);
	assert_non_null(arena_alloc(&arena, 16));
	assert_non_null(arena_alloc(&arena, 2 * MIB));
	used = arena.used_bytes;
	assert_non_null(arena_alloc(&arena, 1000));
	assert_int_equal(arena.used_bytes, used);
	arena_done(&arena);
}

static void sizes_near_the_top_fail_instead_of_wrapping(void **state)
{
	struct arena arena;

	(void)state;
	arena_init(&arena, MIB);
	for (size_t i = 0; i < 64; i++) {
		assert_null(arena_alloc(&arena, SIZE_MAX - i));
		assert_null(arena_zalloc(&arena, SIZE_MAX - i));
		assert_null(arena_memdup(&arena, "", SIZE_MAX - i));
	}
	assert_null(arena_array(&arena, SIZE_MAX / 2, 3));
	assert_null(arena_array(&arena, (size_t)1 << 32, (size_t)1 << 32));
	arena_done(&arena);
}

static void zalloc_and_array_are_cleared(void **state)
{
	struct arena arena;
	unsigned char *p;

	(void)state;
	arena_init(&arena, MIB);
	for (int round = 0; round < 50; round++) {
		p = round % 2 ? arena_zalloc(&arena, 700) : arena_array(&arena, 7, 100);
		for (size_t i = 0; i < 700; i++)
			assert_int_equal(p[i], 0);
		memset(p, 0xff, 700);
		memset(arena_alloc(&arena, 700), 0xff, 700);
	}
	arena_done(&arena);
}

static void copies_are_terminated(void **state)
{
	struct arena arena;

	(void)state;
	arena_init(&arena, MIB);
	assert_string_equal(arena_strdup(&arena, "text"), "text");
	assert_string_equal(arena_strdup(&arena, ""), "");
	assert_memory_equal(arena_memdup(&arena, "a\0b", 3), "a\0b\0", 4);
	assert_memory_equal(arena_memdup(&arena, NULL, 0), "", 1);
	assert_string_equal(arena_printf(&arena, "%d-%s", 7, "x"), "7-x");
	assert_string_equal(arena_printf(&arena, "%5000d", 7) + 4999, "7");
	arena_done(&arena);
}

static void it_is_usable_again_after_done(void **state)
{
	struct arena arena;

	(void)state;
	arena_init(&arena, 5000);
	assert_non_null(arena_alloc(&arena, 4000));
	assert_null(arena_alloc(&arena, 4000));
	arena_done(&arena);
	assert_int_equal(arena.used_bytes, 0);
	assert_non_null(arena_alloc(&arena, 4000));
	arena_done(&arena);
}

static void without_memory_every_call_gives_null(void **state)
{
	struct arena arena;

	(void)state;
	arena_init(&arena, MIB);
	fault_after(FAULT_MALLOC, 0, ENOMEM);
	assert_null(arena_alloc(&arena, 1));
	assert_null(arena_zalloc(&arena, 1));
	assert_null(arena_array(&arena, 1, 1));
	assert_null(arena_strdup(&arena, "x"));
	assert_null(arena_printf(&arena, "%d", 1));
	assert_int_equal(fault_clear(), 5);
	assert_int_equal(arena.used_bytes, 0);
	assert_non_null(arena_alloc(&arena, 1));
	arena_done(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_are_aligned_and_do_not_overlap),
		cmocka_unit_test(size_zero_gives_pointers_of_their_own),
		cmocka_unit_test(nothing_is_handed_out_beyond_the_cap),
		cmocka_unit_test(a_cap_smaller_than_a_block_is_usable),
		cmocka_unit_test(a_large_piece_leaves_the_rest_of_the_block_usable),
		cmocka_unit_test(sizes_near_the_top_fail_instead_of_wrapping),
		cmocka_unit_test(zalloc_and_array_are_cleared),
		cmocka_unit_test(copies_are_terminated),
		cmocka_unit_test(it_is_usable_again_after_done),
		cmocka_unit_test(without_memory_every_call_gives_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
