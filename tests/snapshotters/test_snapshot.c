/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/snapshot.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/label_fixture.h"
#include "tests/support/test.h"

static void kinds_have_the_names_that_filters_know(void **state)
{
	(void)state;
	assert_string_equal(snapshot_kind_name(SNAPSHOT_VIEW), "view");
	assert_string_equal(snapshot_kind_name(SNAPSHOT_ACTIVE), "active");
	assert_string_equal(snapshot_kind_name(SNAPSHOT_COMMITTED), "committed");
}

static void keys_have_1_to_4096_bytes(void **state)
{
	struct arena *arena = *state;
	struct err err = ERR_INIT;

	assert_ok(snapshot_key_check("k", "key", &err), &err);
	assert_ok(snapshot_key_check(letters(arena, 4096), "key", &err), &err);
	assert_fails(snapshot_key_check("", "name", &err), &err, ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "name");
	assert_fails(snapshot_key_check(letters(arena, 4097), "parent", &err), &err,
		     ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "parent");
}

static bool matches(const struct info *info, const char *filter)
{
	struct filters *filters = NULL;
	struct err err = ERR_INIT;
	bool result;

	assert_ok(filters_parse(&filter, 1, &filters, &err), &err);
	result = snapshot_matches(filters, info);
	filters_free(filters);
	return result;
}

static void filters_see_the_fields_of_a_snapshot(void **state)
{
	struct arena *arena = *state;
	struct info info = {.name = "n", .parent = "", .kind = SNAPSHOT_ACTIVE};

	assert_false(matches(&info, "labels"));
	add_label(&info.labels, arena, "a.b.c", "1");
	add_label(&info.labels, arena, "plain", "2");
	assert_true(snapshot_matches(NULL, &info));
	assert_true(matches(&info, "name==n,parent,parent==\"\",kind==active"));
	assert_false(matches(&info, "kind==ACTIVE"));
	assert_true(matches(&info, "labels.a.b.c==1"));
	assert_true(matches(&info, "labels.\"a.b.c\"==1"));
	assert_true(matches(&info, "labels.\"a.b\".c==1"));
	assert_false(matches(&info, "labels.a.b"));
	assert_true(matches(&info, "labels.plain==2"));
	assert_false(matches(&info, "id"));
	assert_false(matches(&info, "created_at"));
	assert_false(matches(&info, "labels"));
	add_label(&info.labels, arena, "", "3");
	strmap_sort(&info.labels);
	assert_true(matches(&info, "labels==3"));
}

static void filters_with_endless_paths_match_no_label(void **state)
{
	struct arena *arena = *state;
	struct info info = {.name = "n", .parent = "", .kind = SNAPSHOT_ACTIVE};
	char filter[6000] = "labels";
	char *key = letters(arena, 4095);

	for (size_t i = 1; i < 4095; i += 2)
		key[i] = '.';
	add_label(&info.labels, arena, key, "1");
	for (size_t i = 0; i < 2048; i++)
		strcat(filter, ".x");
	assert_true(matches(&info, filter));
	strcat(filter, ".x");
	assert_false(matches(&info, filter));
}

static void a_copied_info_stands_alone(void **state)
{
	struct arena *arena = *state;
	char name[] = "name", parent[] = "parent", key[] = "key", value[] = "value";
	struct info info = {
		.id = 7,
		.name = name,
		.parent = parent,
		.kind = SNAPSHOT_VIEW,
		.created_ns = 1,
		.updated_ns = 2,
	};
	struct info copy = {0};
	struct err err = ERR_INIT;

	add_label(&info.labels, arena, key, value);
	assert_ok(info_copy(arena, &info, &copy, &err), &err);
	name[0] = parent[0] = key[0] = value[0] = '?';
	assert_int_equal(copy.id, 7);
	assert_string_equal(copy.name, "name");
	assert_string_equal(copy.parent, "parent");
	assert_int_equal(copy.kind, SNAPSHOT_VIEW);
	assert_int_equal(copy.created_ns, 1);
	assert_int_equal(copy.updated_ns, 2);
	assert_int_equal(copy.labels.n, 1);
	assert_string_equal(strmap_get(&copy.labels, "key"), "value");
}

static void mount_options_are_appended_in_order(void **state)
{
	static const char *given[] = {"ro"};
	struct arena *arena = *state;
	struct mount mount = {.options = given, .n_options = 1};
	struct err err = ERR_INIT;
	char option[] = "rbind";

	assert_ok(mount_add_option(&mount, arena, option, &err), &err);
	option[0] = '?';
	assert_ok(mount_add_option(&mount, arena, "last", &err), &err);
	assert_int_equal(mount.n_options, 3);
	assert_string_equal(mount.options[0], "ro");
	assert_string_equal(mount.options[1], "rbind");
	assert_string_equal(mount.options[2], "last");
}

static void copying_reports_a_used_up_arena(void **state)
{
	struct info info = {.name = "n", .parent = "p", .kind = SNAPSHOT_VIEW}, copy;
	struct mount mount = {0};
	struct err err = ERR_INIT;
	struct arena none;

	(void)state;
	arena_init(&none, 0);
	assert_fails(info_copy(&none, &info, &copy, &err), &err, ERR_RESOURCE_EXHAUSTED);
	assert_fails(mount_add_option(&mount, &none, "ro", &err), &err, ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(mount.n_options, 0);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, make_arena, drop_arena)
	const struct CMUnitTest tests[] = {
		TEST(kinds_have_the_names_that_filters_know),
		TEST(keys_have_1_to_4096_bytes),
		TEST(filters_see_the_fields_of_a_snapshot),
		TEST(filters_with_endless_paths_match_no_label),
		TEST(a_copied_info_stands_alone),
		TEST(mount_options_are_appended_in_order),
		TEST(copying_reports_a_used_up_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
