/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/test.h"

#include "snapshotters/overlay/id_set.h"

static void ids_come_and_go_in_any_order(void **state)
{
	static const uint64_t ids[] = {5, 1, UINT64_MAX, 3, 2, 4};
	struct id_set set = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		assert_false(id_set_has(&set, ids[i]));
		assert_true(id_set_add(&set, ids[i]));
		assert_true(id_set_has(&set, ids[i]));
	}
	assert_true(id_set_add(&set, 3));
	assert_int_equal(set.n, ARRAY_LEN(ids));
	for (size_t i = 1; i < set.n; i++)
		assert_true(set.ids[i - 1] < set.ids[i]);
	id_set_remove(&set, 3);
	id_set_remove(&set, 3);
	assert_false(id_set_has(&set, 3));
	assert_true(id_set_has(&set, 2));
	assert_true(id_set_has(&set, 4));
	assert_int_equal(set.n, ARRAY_LEN(ids) - 1);
	id_set_done(&set);
}

static void a_copy_stands_alone(void **state)
{
	struct id_set set = {0}, copy, empty;

	(void)state;
	for (uint64_t id = 200; id > 0; id--)
		assert_true(id_set_add(&set, id));
	assert_true(id_set_copy(&copy, &set));
	id_set_remove(&set, 100);
	assert_true(id_set_has(&copy, 100));
	assert_true(id_set_add(&copy, 1000));
	assert_false(id_set_has(&set, 1000));
	id_set_done(&set);
	assert_true(id_set_copy(&empty, &set));
	assert_int_equal(empty.n, 0);
	id_set_done(&copy);
	id_set_done(&empty);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_come_and_go_in_any_order),
		cmocka_unit_test(a_copy_stands_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
