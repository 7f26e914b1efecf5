/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not faster than so many bytes a second. One thread.
 */
#ifndef LIGHTER_BASE_PACE_H
#define LIGHTER_BASE_PACE_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/ctx.h"
#include "base/err.h"

/**
 * struct pace - starts with @bytes_per_s alone set
 * @bytes_per_s: 0: no bound
 * @due_ns: CLOCK_MONOTONIC; when what was taken so far is due
 */
struct pace {
	uint64_t bytes_per_s;
	int64_t due_ns;
};

/**
 * pace_due() - note that @bytes are taken at @now_ns. What was not used earlier is lost, but for that of the last tenth of
 * a second: no burst follows a pause.
 * Return: when to go on.
 */
int64_t pace_due(struct pace *pace, uint64_t bytes, int64_t now_ns);

/** pace_take() - pace_due(), and wait for that. Return: 0, or -1 as soon as @ctx is over, see ctx_check(). */
ERR_CHECKED int pace_take(struct pace *pace, uint64_t bytes, const struct ctx *ctx,
			  struct err *err);

#endif
