/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "snapshotters/overlay/idmap.h"

static uint32_t root_of(const char *mapping)
{
	struct err err = ERR_INIT;
	uint32_t id = 0;

	assert_ok(idmap_root(mapping, "uid", &id, &err), &err);
	return id;
}

static void idmap_root_finds_the_extent_of_id_0(void **state)
{
	(void)state;
	assert_int_equal(root_of("0:100000:65536"), 100000);
	assert_int_equal(root_of("0:0:1"), 0);
	assert_int_equal(root_of("1:200000:10,0:300000:1"), 300000);
	assert_int_equal(root_of("0:4294967294:1"), 4294967294u);
}

static void idmap_root_refuses_what_is_malformed(void **state)
{
	static const char *const bad[] = {
		"",
		"0",
		"0:1",
		"0:1:",
		"0:1:1,",
		",0:1:1",
		"0:1:1:1",
		"0:1:1 ",
		" 0:1:1",
		"a:1:1",
		"-1:1:1",
		"0:+1:1",
		"0x0:1:1",
		"0:1:0",
		"0:4294967296:1",
		"0:4294967295:1",
		"4294967295:1:1",
		"0:1:4294967295,",
		"0:4294967290:10",
		"0:1:99999999999999999999",
		"0:100:10,5:200:10",
		"0:100:10,10:105:10",
		"0:1:1;1:2:1",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err err = ERR_INIT;
		uint32_t id = 7;

		if (idmap_root(bad[i], "uid", &id, &err) != -1)
			fail_msg("'%s' was taken", bad[i]);
		assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
		assert_contains(err.msg, "uid mapping");
		assert_int_equal(id, 7);
	}
}

static void idmap_root_refuses_a_mapping_without_root(void **state)
{
	struct err err = ERR_INIT;
	uint32_t id;

	(void)state;
	assert_fails(idmap_root("1:100000:65536", "gid", &id, &err), &err, ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "gid mapping");
	assert_contains(err.msg, "root");
}

/* "1:1:1,2:2:1,..." with @n extents, the last of which maps 0. */
static char *mapping_of(unsigned int n)
{
	char *text = malloc(32 * (size_t)n);
	size_t len = 0;

	assert_non_null(text);
	for (unsigned int i = n - 1; i > 0; i--)
		len += (size_t)sprintf(text + len, "%u:%u:1,", i, i);
	sprintf(text + len, "0:0:1");
	return text;
}

static void idmap_root_takes_as_many_extents_as_the_kernel(void **state)
{
	struct err err = ERR_INIT;
	char *most = mapping_of(IDMAP_EXTENTS_MAX), *more = mapping_of(IDMAP_EXTENTS_MAX + 1);
	uint32_t id;

	(void)state;
	assert_int_equal(root_of(most), 0);
	assert_fails(idmap_root(more, "uid", &id, &err), &err, ERR_INVALID_ARGUMENT);
	free(most);
	free(more);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(idmap_root_finds_the_extent_of_id_0),
		cmocka_unit_test(idmap_root_refuses_what_is_malformed),
		cmocka_unit_test(idmap_root_refuses_a_mapping_without_root),
		cmocka_unit_test(idmap_root_takes_as_many_extents_as_the_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
