/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiters who are slow to run after they were woken: the stock must not go on making for them. Those who drop: they must
 * not do the disk's work.
 */
#include "tests/snapshotters/overlay/layers_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
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

static atomic_bool removals_are_watched;
static pthread_t watched;
static atomic_uint n_removed_by_others;

int __real_unlinkat(int dirfd, const char *name, int flags);
int __wrap_unlinkat(int dirfd, const char *name, int flags);

int __wrap_unlinkat(int dirfd, const char *name, int flags)
{
	if (removals_are_watched) {
		if (pthread_equal(pthread_self(), watched))
			abort();
		n_removed_by_others++;
	}
	return __real_unlinkat(dirfd, name, flags);
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

static bool all_are_removed(void *arg)
{
	return n_removed_by_others >= *(unsigned int *)arg;
}

static void who_drops_does_not_wait_for_the_removal(void **state)
{
	struct fixture *f = *state;
	/* One that is not clean, and 63 at least that do not fit into the stock: of each, two directories. */
	uint64_t ids[2 * STOCK_SPARES_MAX];
	unsigned int n_wanted = 2 * STOCK_SPARES_MAX;

	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		ids[i] = take(f);
	watched = pthread_self();
	removals_are_watched = true;
	layers_drop(f->layers, ids[0], false);
	for (size_t i = 1; i < ARRAY_LEN(ids); i++)
		layers_drop(f->layers, ids[i], true);
	wait_until(all_are_removed, &n_wanted, "the removal of what was dropped");
	removals_are_watched = false;
	assert_false(id_is_there(f, ids[0]));
	/* None of them is left, nor is any of the stock. */
	close_all(f);
	assert_int_equal(count_snapshot_dirs(f), 0);
	open_all(f);
}

/* What is still to be removed at a stop is not left to the next start. */
static void a_stop_removes_what_was_dropped(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < STOCK_SPARES_MAX; i++)
		layers_drop(f->layers, take(f), false);
	close_all(f);
	assert_int_equal(count_snapshot_dirs(f), 0);
	open_all(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			the_stock_makes_no_more_than_it_holds_for_waiters_that_run_late, setup,
			teardown),
		cmocka_unit_test_setup_teardown(who_drops_does_not_wait_for_the_removal, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_stop_removes_what_was_dropped, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
