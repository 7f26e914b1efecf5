/* SPDX-License-Identifier: Apache-2.0 */
#include "base/size.h"

#include <string.h>

#include "base/compiler.h"
#include "tests/support/test.h"

static void sizes_are_read_in_powers_of_1024(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},
		{"517", 517},
		{"1K", 1024},
		{"100M", 100u << 20},
		{"100MiB", 100u << 20},
		{"3G", UINT64_C(3) << 30},
		{"2T", UINT64_C(2) << 40},
		{"9223372036854775807", INT64_MAX},
		{"8388607T", UINT64_C(8388607) << 40},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = ERR_INIT;
		uint64_t bytes = 0;

		assert_ok(size_parse(cases[i].text, &bytes, &err), &err);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void what_is_no_size_is_refused(void **state)
{
	static const char *const texts[] = {"",
					    "-1",
					    "+1",
					    "M",
					    "1.5M",
					    " 1",
					    "1 M",
					    "1m",
					    "1MB",
					    "1Mi",
					    "0x10",
					    "1K1",
					    "1MM",
					    "10KiBx",
					    "9223372036854775808",
					    "8388608T",
					    "99999999999999999999"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct err err = ERR_INIT;
		uint64_t bytes = 7;

		assert_fails(size_parse(texts[i], &bytes, &err), &err, ERR_INVALID_ARGUMENT);
		assert_int_equal(bytes, 7);
	}
}

static void sizes_are_shown_with_one_decimal(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{(1u << 20) - 1, "1023.9 KiB"},
		{1u << 20, "1.0 MiB"},
		{UINT64_C(5) << 40, "5.0 TiB"},
		{UINT64_MAX, "16777215.9 TiB"},
	};
	char buf[SIZE_TEXT_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_string_equal(size_format(cases[i].bytes, buf), cases[i].text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read_in_powers_of_1024),
		cmocka_unit_test(what_is_no_size_is_refused),
		cmocka_unit_test(sizes_are_shown_with_one_decimal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
