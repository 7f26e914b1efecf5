/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ctx.h"

#include <time.h>

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

struct timespec monotonic_in(long ns)
{
	struct timespec moment;

	clock_gettime(CLOCK_MONOTONIC, &moment);
	moment.tv_nsec += ns;
	if (moment.tv_nsec >= 1000000000) {
		moment.tv_nsec -= 1000000000;
		moment.tv_sec++;
	}
	return moment;
}

int64_t realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

int ctx_check(const struct ctx *ctx, struct err *err)
{
	if (ctx->cancelled && atomic_load_explicit(ctx->cancelled, memory_order_relaxed))
		return err_set(err, ERR_CANCELLED, "cancelled by the caller");
	if (ctx->deadline_ns != CTX_NO_DEADLINE && monotonic_ns() >= ctx->deadline_ns)
		return err_set(err, ERR_DEADLINE_EXCEEDED, "deadline exceeded");
	return 0;
}
