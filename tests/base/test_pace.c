/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pace.h"

#include <pthread.h>
#include <stdatomic.h>

#include "tests/support/test.h"

#define S INT64_C(1000000000)

static void bytes_are_spread_over_time(void **state)
{
	struct pace pace = {.bytes_per_s = 100};
	int64_t now = 1000 * S;

	(void)state;
	/* Little is saved up. */
	assert_int_equal(pace_due(&pace, 50, now), now + S / 2 - S / 10);
	/* Who comes early waits for what was taken before, too. */
	assert_int_equal(pace_due(&pace, 100, now), now + S + S / 2 - S / 10);
	assert_int_equal(pace_due(&pace, 0, now), now + S + S / 2 - S / 10);
	/* Who comes a bit late has that made up for, and who comes very late has not. */
	assert_int_equal(pace_due(&pace, 50, now + S + S / 2), now + 2 * S - S / 10);
	assert_int_equal(pace_due(&pace, 50, now + 100 * S), now + 100 * S + S / 2 - S / 10);
}

static void without_a_bound_nobody_waits(void **state)
{
	struct pace pace = {0};
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE};
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(pace_due(&pace, UINT64_MAX, 5), 5);
	assert_ok(pace_take(&pace, UINT64_MAX, &ctx, &err), &err);
}

static void wait_lasts_as_long_as_it_takes(void **state)
{
	struct pace pace = {.bytes_per_s = 1000};
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE};
	struct err err = ERR_INIT;
	int64_t begun = monotonic_ns();

	(void)state;
	assert_ok(pace_take(&pace, 250, &ctx, &err), &err);
	assert_true(monotonic_ns() - begun >= S * 150 / 1000);
}

static void *cancel(void *arg)
{
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

static void wait_ends_when_nobody_wants_it_any_more(void **state)
{
	struct pace pace = {.bytes_per_s = 1};
	atomic_bool cancelled = false;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &cancelled};
	struct err err = ERR_INIT;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, cancel, &cancelled), 0);
	/* It would take 30 years. */
	assert_fails(pace_take(&pace, 1000000000, &ctx, &err), &err, ERR_CANCELLED);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_spread_over_time),
		cmocka_unit_test(without_a_bound_nobody_waits),
		cmocka_unit_test(wait_lasts_as_long_as_it_takes),
		cmocka_unit_test(wait_ends_when_nobody_wants_it_any_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
