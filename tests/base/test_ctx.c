/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ctx.h"

#include <time.h>

#include "tests/support/test.h"

static void a_call_without_deadline_goes_on(void **state)
{
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	struct err err = ERR_INIT;

	(void)state;
	assert_ok(ctx_check(&ctx, &err), &err);
}

static void a_cancelled_call_ends(void **state)
{
	atomic_bool cancelled = false;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &cancelled, .ns = ""};
	struct err err = ERR_INIT;

	(void)state;
	assert_ok(ctx_check(&ctx, &err), &err);
	atomic_store(&cancelled, true);
	assert_fails(ctx_check(&ctx, &err), &err, ERR_CANCELLED);
}

static void a_call_ends_at_its_deadline(void **state)
{
	struct ctx ctx = {.deadline_ns = monotonic_ns() + 3600 * INT64_C(1000000000), .ns = ""};
	struct err err = ERR_INIT;

	(void)state;
	assert_ok(ctx_check(&ctx, &err), &err);
	ctx.deadline_ns = monotonic_ns();
	assert_fails(ctx_check(&ctx, &err), &err, ERR_DEADLINE_EXCEEDED);
	/* Deadlines of hostile peers may lie before the clock's start. */
	ctx.deadline_ns = INT64_MIN;
	assert_fails(ctx_check(&ctx, &err), &err, ERR_DEADLINE_EXCEEDED);
}

static void a_full_arena_is_resource_exhausted(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_fails(ctx_no_memory(&err), &err, ERR_RESOURCE_EXHAUSTED);
}

static void clocks_are_those_they_are_named_after(void **state)
{
	struct timespec before, after;
	int64_t now;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &before);
	now = monotonic_ns();
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_true(now >= before.tv_sec * INT64_C(1000000000) + before.tv_nsec);
	assert_true(now <= after.tv_sec * INT64_C(1000000000) + after.tv_nsec);

	/* This one may be set back meanwhile, but hardly to before 2020. */
	assert_true(realtime_ns() > INT64_C(1577836800) * 1000000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_without_deadline_goes_on),
		cmocka_unit_test(a_cancelled_call_ends),
		cmocka_unit_test(a_call_ends_at_its_deadline),
		cmocka_unit_test(a_full_arena_is_resource_exhausted),
		cmocka_unit_test(clocks_are_those_they_are_named_after),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
