/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crash_point.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/support/process.h"
#include "tests/support/test.h"

static void walk(void)
{
	CRASH_POINT("test.first");
	CRASH_POINT("test.first-and-more");
	CRASH_POINT("test.second");
}

#ifdef LIGHTER_CRASH_POINTS

/* Walks twice; ends with the number of walks done. */
static int walk_twice(void *wanted)
{
	if (wanted)
		setenv("LIGHTER_CRASH_POINT", wanted, 1);
	walk();
	walk();
	return 2;
}

static void assert_killed(const char *wanted)
{
	int status = run_child(walk_twice, (void *)(uintptr_t)wanted);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("'%s' did not kill: status %d", wanted, status);
}

static void assert_survives(const char *wanted)
{
	int status = run_child(walk_twice, (void *)(uintptr_t)wanted);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != 2)
		fail_msg("'%s' ended the process: status %d", wanted ? wanted : "(unset)", status);
}

static void the_named_pass_kills(void **state)
{
	(void)state;
	assert_killed("test.first");
	assert_killed("test.first:1");
	assert_killed("test.second:2");
	assert_killed("test.first-and-more:2");
}

static void other_names_and_passes_do_not(void **state)
{
	(void)state;
	assert_survives(NULL);
	assert_survives("");
	assert_survives("test.second:3");
	assert_survives("test.secon");
	assert_survives("test.second2");
	assert_survives("test");
	assert_survives("list");
}

static void list_prints_every_name(void **state)
{
	struct capture capture;
	char *text;
	int listed;

	(void)state;
	assert_int_equal(crash_point_list(), 0);

	setenv("LIGHTER_CRASH_POINT", "list", 1);
	capture_begin(&capture, 1);
	listed = crash_point_list();
	text = capture_end(&capture);
	unsetenv("LIGHTER_CRASH_POINT");
	assert_int_equal(listed, 1);
	assert_contains(text, "test.first\n");
	assert_contains(text, "test.first-and-more\n");
	assert_contains(text, "test.second\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_named_pass_kills),
		cmocka_unit_test(other_names_and_passes_do_not),
		cmocka_unit_test(list_prints_every_name),
	};

	unsetenv("LIGHTER_CRASH_POINT");
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static int walk_once(void *wanted)
{
	setenv("LIGHTER_CRASH_POINT", wanted, 1);
	walk();
	return crash_point_list();
}

/* What is shipped must not die by a variable of its environment. */
static void compiled_out_points_do_nothing(void **state)
{
	(void)state;
	assert_int_equal(run_child(walk_once, (void *)(uintptr_t) "test.first"), 0);
	assert_int_equal(run_child(walk_once, (void *)(uintptr_t) "list"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(compiled_out_points_do_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
