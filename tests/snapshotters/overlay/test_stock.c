/* SPDX-License-Identifier: Apache-2.0 */
/* Waiters who are slow to run after they were woken: the stock must not go on making for them. */
#include "tests/snapshotters/overlay/layers_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "snapshotters/overlay/stock.h"

/* Long enough for the maker to fill the stock several times over, were it to take us for unserved. */
#define N_YIELDS 3000

int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until)
{
	int result = __real_pthread_cond_timedwait(cond, mutex, until);

	pthread_mutex_unlock(mutex);
	for (int i = 0; i < N_YIELDS; i++)
		sched_yield();
	pthread_mutex_lock(mutex);
	return result;
}

struct taker {
	struct fixture *f;
	pthread_t thread;
	uint64_t ids[20];
	bool failed;
};

static void *take_some(void *arg)
{
	struct taker *taker = arg;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	struct err err = ERR_INIT;

	for (size_t i = 0; i < ARRAY_LEN(taker->ids); i++)
		if (layers_take(taker->f->layers, &ctx, &taker->ids[i], &err) < 0)
			taker->failed = true;
	return NULL;
}

static void the_stock_makes_no_more_than_it_holds_for_waiters_that_run_late(void **state)
{
	struct fixture *f = *state;
	struct taker takers[16] = {0};

	for (size_t i = 0; i < ARRAY_LEN(takers); i++) {
		takers[i].f = f;
		assert_int_equal(pthread_create(&takers[i].thread, NULL, take_some, &takers[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(takers); i++) {
		pthread_join(takers[i].thread, NULL);
		assert_false(takers[i].failed);
		for (size_t j = 0; j < ARRAY_LEN(takers[i].ids); j++)
			assert_true(id_is_there(f, takers[i].ids[j]));
	}
	/* What was taken, and one stock; refill() itself asserts that it makes something. */
	assert_true(count_snapshot_dirs(f) <=
		    ARRAY_LEN(takers) * ARRAY_LEN(takers[0].ids) + STOCK_SPARES_MAX);
	for (size_t i = 0; i < ARRAY_LEN(takers); i++)
		for (size_t j = 0; j < ARRAY_LEN(takers[i].ids); j++)
			layers_drop(f->layers, takers[i].ids[j], true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			the_stock_makes_no_more_than_it_holds_for_waiters_that_run_late, setup,
			teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
