/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pace.h"

#include <time.h>

#define NS_PER_S 1000000000
/* How long it may take until a wait that nobody wants any more ends. */
#define SLICE_NS 100000000
/* What taking itself takes, and sleeping too long, is made up for, within this. */
#define SAVED_NS 100000000

int64_t pace_due(struct pace *pace, uint64_t bytes, int64_t now_ns)
{
	if (pace->bytes_per_s == 0)
		return now_ns;
	if (pace->due_ns < now_ns - SAVED_NS)
		pace->due_ns = now_ns - SAVED_NS;
	pace->due_ns += (int64_t)((double)bytes * NS_PER_S / (double)pace->bytes_per_s);
	return pace->due_ns;
}

int pace_take(struct pace *pace, uint64_t bytes, const struct ctx *ctx, struct err *err)
{
	int64_t due_ns = pace_due(pace, bytes, monotonic_ns());

	for (;;) {
		int64_t left_ns = due_ns - monotonic_ns();

		if (ctx_check(ctx, err) < 0)
			return -1;
		if (left_ns <= 0)
			return 0;
		if (left_ns > SLICE_NS)
			left_ns = SLICE_NS;
		nanosleep(&(struct timespec){.tv_nsec = left_ns}, NULL);
	}
}
