/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named points at which a test may kill the process, as kill -9 would, to show what the next start
 * makes of what is on disk then. They exist in builds with LIGHTER_CRASH_POINTS only.
 *
 *	CRASH_POINT("prepare.row-written");
 *
 * LIGHTER_CRASH_POINT=NAME[:N] in the environment kills at the N-th pass (default 1) of that point;
 * LIGHTER_CRASH_POINT=list prints every name and exits (see crash_point_list()).
 */
#ifndef LIGHTER_BASE_CRASH_POINT_H
#define LIGHTER_BASE_CRASH_POINT_H

#ifdef LIGHTER_CRASH_POINTS

/*
 * Each use leaves its name in a section of its own, so that the list can never miss one. (AddressSanitizer
 * puts no padding into sections that a program names.)
 */
#define CRASH_POINT(name)                                                                          \
	do {                                                                                       \
		static const char *const crash_point_name_                                         \
			__attribute__((section("crash_points"), used)) = (name);                   \
		crash_point_pass(crash_point_name_);                                               \
	} while (0)

void crash_point_pass(const char *name);

/** crash_point_list() - if the environment asks for the list, print it to stdout. Return: 1 if so. */
int crash_point_list(void);

#else
#define CRASH_POINT(name) ((void)0)
static inline int crash_point_list(void)
{
	return 0;
}
#endif

#endif
