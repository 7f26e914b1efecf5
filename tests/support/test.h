/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every cmocka test here includes: cmocka with the headers it wants, and our error values in its words.
 */
#ifndef LIGHTER_TESTS_SUPPORT_TEST_H
#define LIGHTER_TESTS_SUPPORT_TEST_H

/* cmocka.h needs these four before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "base/err.h"

/* The call worked; if not, the test fails and shows the error. */
#define assert_ok(call, err)                                                                       \
	do {                                                                                       \
		if ((call) < 0)                                                                    \
			fail_msg("%s: %s: %s", #call, err_code_name((err)->code), (err)->msg);     \
	} while (0)

/* The call failed with @want, and says so in words. */
#define assert_fails(call, err, want)                                                              \
	do {                                                                                       \
		if ((call) != -1)                                                                  \
			fail_msg("%s worked, %s was expected", #call, err_code_name(want));        \
		if ((err)->code != (want) || (err)->msg[0] == '\0')                                \
			fail_msg("%s: %s: '%s', %s was expected", #call,                           \
				 err_code_name((err)->code), (err)->msg, err_code_name(want));     \
	} while (0)

/* @text contains @part. */
#define assert_contains(text, part) test_assert_contains((text), (part), __FILE__, __LINE__)
void test_assert_contains(const char *text, const char *part, const char *file, int line);

/* A release build dies nowhere by itself: there a test of what a kill leaves is skipped, and says so. */
static inline void require_crash_points(void)
{
#ifndef LIGHTER_CRASH_POINTS
	print_message("this build has no crash points\n");
	skip();
#endif
}

#endif
