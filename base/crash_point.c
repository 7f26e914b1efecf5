/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crash_point.h"

#ifdef LIGHTER_CRASH_POINTS

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Made by the linker, since the section's name is an identifier; weak for programs without points. */
extern const char *const __start_crash_points[] __attribute__((weak));
extern const char *const __stop_crash_points[] __attribute__((weak));

static atomic_long n_passes;

void crash_point_pass(const char *name)
{
	/* getenv() is safe here: nothing of ours changes the environment while threads run. */
	const char *wanted = getenv("LIGHTER_CRASH_POINT");
	size_t len = strlen(name);
	long at = 1;

	if (!wanted || strncmp(wanted, name, len) != 0)
		return;
	if (wanted[len] == ':')
		at = strtol(wanted + len + 1, NULL, 10);
	else if (wanted[len] != '\0')
		return;
	if (atomic_fetch_add(&n_passes, 1) + 1 != at)
		return;
	kill(getpid(), SIGKILL);
	pause();
}

__attribute__((no_sanitize("address"))) int crash_point_list(void)
{
	const char *wanted = getenv("LIGHTER_CRASH_POINT");
	const char *const *point;

	if (!wanted || strcmp(wanted, "list") != 0)
		return 0;
	for (point = __start_crash_points; point < __stop_crash_points; point++)
		puts(*point);
	return 1;
}

#else
/* An empty translation unit is not C. */
typedef int crash_points_are_compiled_out;
#endif
