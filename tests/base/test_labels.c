/* SPDX-License-Identifier: Apache-2.0 */
#include "base/labels.h"

#include <string.h>

#include "tests/support/label_fixture.h"
#include "tests/support/test.h"

static void a_label_may_have_4096_bytes_and_no_more(void **state)
{
	struct arena *arena = *state;
	struct strmap labels = {0};
	struct err err = ERR_INIT;

	add_label(&labels, arena, "key", letters(arena, 4093));
	assert_ok(labels_check(&labels, &err), &err);
	labels.entries[0].value = letters(arena, 4094);
	assert_fails(labels_check(&labels, &err), &err, ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "label 'key'");
}

static void an_oversized_key_is_shown_cut_between_characters(void **state)
{
	struct arena *arena = *state;
	struct strmap labels = {0};
	struct err err = ERR_INIT;
	char *key = letters(arena, 5001);

	/* The 128th byte falls into the middle of each. */
	for (size_t i = 1; i < 5001; i += 2)
		memcpy(key + i, "\xc3\xa9", 2);
	add_label(&labels, arena, key, "");
	assert_fails(labels_check(&labels, &err), &err, ERR_INVALID_ARGUMENT);
	assert_true(strlen(err.msg) < 256);
	assert_contains(err.msg, "\xc3\xa9'");
}

static void labels_are_bounded_in_number(void **state)
{
	struct arena *arena = *state;
	struct strmap labels = {0};
	struct err err = ERR_INIT;

	for (int i = 0; i < LABELS_MAX; i++)
		add_label(&labels, arena, arena_printf(arena, "%d", i), "x");
	strmap_sort(&labels);
	assert_ok(labels_check(&labels, &err), &err);
	add_label(&labels, arena, "one more", "x");
	assert_fails(labels_check(&labels, &err), &err, ERR_INVALID_ARGUMENT);
}

static void labels_are_bounded_in_bytes_together(void **state)
{
	struct arena *arena = *state;
	const char *value = letters(arena, 4092);
	struct strmap labels = {0};
	struct err err = ERR_INIT;

	for (int i = 0; i < 256; i++)
		add_label(&labels, arena, arena_printf(arena, "%04d", i), value);
	assert_ok(labels_check(&labels, &err), &err);
	add_label(&labels, arena, "z", "");
	assert_fails(labels_check(&labels, &err), &err, ERR_INVALID_ARGUMENT);
}

static void empty_labels_are_dropped(void **state)
{
	struct arena *arena = *state;
	struct strmap labels = {0};

	labels_drop_empty(&labels);
	assert_int_equal(labels.n, 0);
	add_label(&labels, arena, "a", "");
	add_label(&labels, arena, "b", "1");
	add_label(&labels, arena, "c", "");
	add_label(&labels, arena, "d", "2");
	labels_drop_empty(&labels);
	assert_int_equal(labels.n, 2);
	assert_string_equal(strmap_get(&labels, "b"), "1");
	assert_string_equal(strmap_get(&labels, "d"), "2");
}

static void a_field_path_is_joined_to_a_key(void **state)
{
	static const char *const path[] = {"a", "b"};
	struct strmap labels = {0};

	add_label(&labels, *state, "a.b", "1");
	assert_string_equal(labels_field(&labels, path, 2), "1");
	assert_null(labels_field(&labels, path, 1));
	assert_null(labels_field(&labels, path, 0));
	add_label(&labels, *state, "", "2");
	strmap_sort(&labels);
	assert_string_equal(labels_field(&labels, path, 0), "2");
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, make_arena, drop_arena)
	const struct CMUnitTest tests[] = {
		TEST(a_label_may_have_4096_bytes_and_no_more),
		TEST(an_oversized_key_is_shown_cut_between_characters),
		TEST(labels_are_bounded_in_number),
		TEST(labels_are_bounded_in_bytes_together),
		TEST(empty_labels_are_dropped),
		TEST(a_field_path_is_joined_to_a_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
