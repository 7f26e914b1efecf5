/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "tests/support/test.h"

static void set_gives_code_and_message(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(err_set(&err, ERR_NOT_FOUND, "snapshot '%s' does not exist", "x"), -1);
	assert_int_equal(err.code, ERR_NOT_FOUND);
	assert_int_equal(err.sys_errno, 0);
	assert_string_equal(err.msg, "snapshot 'x' does not exist");
}

static void sys_never_says_not_found_or_already_exists(void **state)
{
	(void)state;
	for (int errnum = 1; errnum < 134; errnum++) {
		struct err err = ERR_INIT;

		assert_int_equal(err_sysno(&err, errnum, "x"), -1);
		assert_int_not_equal(err.code, ERR_OK);
		assert_int_not_equal(err.code, ERR_NOT_FOUND);
		assert_int_not_equal(err.code, ERR_ALREADY_EXISTS);
		assert_int_equal(err.sys_errno, errnum);
	}
}

static void sys_maps_each_errno_to_its_code(void **state)
{
	static const struct {
		int errnum;
		enum err_code code;
	} rows[] = {
		{ENOSPC, ERR_RESOURCE_EXHAUSTED},
		{EDQUOT, ERR_RESOURCE_EXHAUSTED},
		{ENOMEM, ERR_RESOURCE_EXHAUSTED},
		{EMFILE, ERR_RESOURCE_EXHAUSTED},
		{ENFILE, ERR_RESOURCE_EXHAUSTED},
		{EMLINK, ERR_RESOURCE_EXHAUSTED},
		{EBUSY, ERR_UNAVAILABLE},
		{EAGAIN, ERR_UNAVAILABLE},
		{ETIMEDOUT, ERR_UNAVAILABLE},
		{EROFS, ERR_FAILED_PRECONDITION},
		{EACCES, ERR_PERMISSION_DENIED},
		{EPERM, ERR_PERMISSION_DENIED},
		{ECANCELED, ERR_CANCELLED},
		{EOPNOTSUPP, ERR_UNIMPLEMENTED},
		{ENOENT, ERR_INTERNAL},
		{EEXIST, ERR_INTERNAL},
		{EIO, ERR_INTERNAL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = ERR_INIT;

		errno = rows[i].errnum;
		assert_int_equal(err_sys(&err, "open '%s'", "f"), -1);
		assert_int_equal(err.code, rows[i].code);
		assert_int_equal(err.sys_errno, rows[i].errnum);
	}
}

static void sys_ends_the_message_with_the_errno_text(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	errno = ENOSPC;
	err_sys(&err, "write '%s'", "f");
	assert_string_equal(err.msg, "write 'f': No space left on device");
}

static void wrap_puts_context_in_front_and_keeps_code_and_errno(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	err_sysno(&err, EROFS, "open '7'");
	assert_int_equal(err_wrap(&err, "prepare '%s'", "x"), -1);
	assert_string_equal(err.msg, "prepare 'x': open '7': Read-only file system");
	assert_int_equal(err.code, ERR_FAILED_PRECONDITION);
	assert_int_equal(err.sys_errno, EROFS);
}

static void the_old_message_may_be_an_argument(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	err_set(&err, ERR_INTERNAL, "inner");
	err_set(&err, ERR_ABORTED, "before %s after", err.msg);
	assert_string_equal(err.msg, "before inner after");
	err_sysno(&err, EIO, "[%s]", err.msg);
	assert_string_equal(err.msg, "[before inner after]: Input/output error");
	err_wrap(&err, "<%.3s>", err.msg);
	assert_string_equal(err.msg, "<[be>: [before inner after]: Input/output error");
}

/* All alignments of the cut within a sequence, for each length of sequence. */
static void a_long_message_is_cut_between_characters(void **state)
{
	static const char *const sequences[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x9a\xa2"};

	(void)state;
	for (size_t s = 0; s < ARRAY_LEN(sequences); s++) {
		size_t sequence_len = strlen(sequences[s]);

		for (size_t shift = 0; shift < 8; shift++) {
			char text[2 * ERR_MSG_MAX_BYTES] = "";
			struct err set = ERR_INIT, sys = ERR_INIT, wrapped = ERR_INIT;
			size_t room = ERR_MSG_MAX_BYTES - 1 - shift;

			memset(text, 'x', shift);
			while (strlen(text) < ERR_MSG_MAX_BYTES + 8)
				strcat(text, sequences[s]);

			err_set(&set, ERR_INTERNAL, "%s", text);
			assert_int_equal(strlen(set.msg),
					 shift + room / sequence_len * sequence_len);
			assert_memory_equal(set.msg, text, strlen(set.msg));

			err_sysno(&sys, EIO, "%s", text);
			assert_true(str_is_utf8(sys.msg, strlen(sys.msg)));

			err_set(&wrapped, ERR_INTERNAL, "%s", text);
			err_wrap(&wrapped, "w");
			assert_true(str_is_utf8(wrapped.msg, strlen(wrapped.msg)));
			assert_in_range(strlen(wrapped.msg), ERR_MSG_MAX_BYTES - 4,
					ERR_MSG_MAX_BYTES - 1);
		}
	}
}

static void names_are_those_of_grpc(void **state)
{
	(void)state;
	assert_string_equal(err_code_name(ERR_OK), "OK");
	assert_string_equal(err_code_name(ERR_ALREADY_EXISTS), "ALREADY_EXISTS");
	assert_string_equal(err_code_name(ERR_UNAUTHENTICATED), "UNAUTHENTICATED");
	assert_string_equal(err_code_name((enum err_code)17), "UNKNOWN");
	assert_string_equal(err_code_name((enum err_code) - 1), "UNKNOWN");
}

static void clear_forgets_everything(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	err_sysno(&err, EIO, "x");
	err_clear(&err);
	assert_int_equal(err.code, ERR_OK);
	assert_int_equal(err.sys_errno, 0);
	assert_string_equal(err.msg, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_gives_code_and_message),
		cmocka_unit_test(sys_never_says_not_found_or_already_exists),
		cmocka_unit_test(sys_maps_each_errno_to_its_code),
		cmocka_unit_test(sys_ends_the_message_with_the_errno_text),
		cmocka_unit_test(wrap_puts_context_in_front_and_keeps_code_and_errno),
		cmocka_unit_test(the_old_message_may_be_an_argument),
		cmocka_unit_test(a_long_message_is_cut_between_characters),
		cmocka_unit_test(names_are_those_of_grpc),
		cmocka_unit_test(clear_forgets_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
