/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each call carries down to the code that serves it: its memory, its deadline, whether its caller
 * has gone, and the containerd namespace it was made in.
 */
#ifndef LIGHTER_BASE_CTX_H
#define LIGHTER_BASE_CTX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/arena.h"
#include "base/err.h"

/* The deadline of a call that has none. */
#define CTX_NO_DEADLINE INT64_MAX

/**
 * struct ctx - one call
 * @arena: results live here until the answer has been sent
 * @deadline_ns: CLOCK_MONOTONIC, or CTX_NO_DEADLINE
 * @cancelled: set when nobody waits for the answer any more; NULL: never
 * @ns: containerd's namespace header, "" when there was none (Debian's containerd sends none)
 */
struct ctx {
	struct arena *arena;
	int64_t deadline_ns;
	const atomic_bool *cancelled;
	const char *ns;
};

/**
 * ctx_check() - is it still worth going on?
 *
 * For use between the steps of long work, and before anything is changed; never between two steps that
 * belong together.
 * Return: 0, or -1 with ERR_CANCELLED or ERR_DEADLINE_EXCEEDED.
 */
ERR_CHECKED int ctx_check(const struct ctx *ctx, struct err *err);

/** ctx_no_memory() - report that @ctx's arena is used up. Return: -1 with ERR_RESOURCE_EXHAUSTED. */
static inline int ctx_no_memory(struct err *err)
{
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "out of memory for this call");
}

/** monotonic_ns() - CLOCK_MONOTONIC in nanoseconds */
int64_t monotonic_ns(void);

/** monotonic_in() - the moment @ns (below 1 s) from now, for waits on CLOCK_MONOTONIC */
struct timespec monotonic_in(long ns);

/** realtime_ns() - CLOCK_REALTIME in nanoseconds since 1970, UTC */
int64_t realtime_ns(void);

#endif
