/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/compiler.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/test.h"

#define N_JOBS 1000

/* A gate that holds workers until it is opened. */
struct gate {
	pthread_mutex_t mutex;
	pthread_cond_t opened;
	bool is_open;
	atomic_uint n_inside;
};

#define GATE_INIT                                                                                  \
	{                                                                                          \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER             \
	}

static void gate_pass(struct gate *gate)
{
	atomic_fetch_add(&gate->n_inside, 1);
	pthread_mutex_lock(&gate->mutex);
	while (!gate->is_open)
		pthread_cond_wait(&gate->opened, &gate->mutex);
	pthread_mutex_unlock(&gate->mutex);
}

static void gate_open(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	gate->is_open = true;
	pthread_cond_broadcast(&gate->opened);
	pthread_mutex_unlock(&gate->mutex);
}

struct job {
	struct pool_job base; /* first: a struct pool_job * of ours is a struct job * */
	struct gate *gate;
	struct pool *pool;
	struct job *follower;
	atomic_uint n_runs;
	atomic_uint *clock;
	unsigned int ran_at;
	sigset_t mask;
	char thread_name[16];
};

static void run_job(struct pool_job *base)
{
	struct job *job = (struct job *)base;
	struct err err = ERR_INIT;

	if (job->gate)
		gate_pass(job->gate);
	if (job->clock)
		job->ran_at = atomic_fetch_add(job->clock, 1);
	pthread_sigmask(SIG_SETMASK, NULL, &job->mask);
	pthread_getname_np(pthread_self(), job->thread_name, sizeof(job->thread_name));
	if (job->follower && pool_submit(job->pool, &job->follower->base, &err) < 0)
		return;
	atomic_fetch_add(&job->n_runs, 1);
}

static void each_job_runs_once_and_free_waits_for_all(void **state)
{
	static struct job jobs[N_JOBS];
	struct err err = ERR_INIT;
	struct pool *pool;

	(void)state;
	memset(jobs, 0, sizeof(jobs));
	assert_ok(pool_new("test", 4, N_JOBS, &pool, &err), &err);
	for (size_t i = 0; i < N_JOBS; i++) {
		jobs[i].base.run = run_job;
		assert_ok(pool_submit(pool, &jobs[i].base, &err), &err);
	}
	pool_free(pool);
	for (size_t i = 0; i < N_JOBS; i++)
		assert_int_equal(jobs[i].n_runs, 1);
}

static void one_worker_keeps_the_order(void **state)
{
	static struct job jobs[N_JOBS];
	struct err err = ERR_INIT;
	atomic_uint clock = 0;
	struct pool *pool;

	(void)state;
	memset(jobs, 0, sizeof(jobs));
	assert_ok(pool_new("test", 1, N_JOBS, &pool, &err), &err);
	for (size_t i = 0; i < N_JOBS; i++) {
		jobs[i].base.run = run_job;
		jobs[i].clock = &clock;
		assert_ok(pool_submit(pool, &jobs[i].base, &err), &err);
	}
	pool_free(pool);
	for (size_t i = 0; i < N_JOBS; i++)
		assert_int_equal(jobs[i].ran_at, i);
}

static bool all_four_inside(void *gate)
{
	return atomic_load(&((struct gate *)gate)->n_inside) == 4;
}

static void workers_run_at_the_same_time(void **state)
{
	struct gate gate = GATE_INIT;
	struct job jobs[4] = {0};
	struct err err = ERR_INIT;
	struct pool *pool;

	(void)state;
	assert_ok(pool_new("test", 4, 4, &pool, &err), &err);
	for (size_t i = 0; i < 4; i++) {
		jobs[i].base.run = run_job;
		jobs[i].gate = &gate;
		assert_ok(pool_submit(pool, &jobs[i].base, &err), &err);
	}
	wait_until(all_four_inside, &gate, "four jobs at the same time");
	gate_open(&gate);
	pool_free(pool);
}

static bool one_inside(void *gate)
{
	return atomic_load(&((struct gate *)gate)->n_inside) == 1;
}

static void a_full_queue_refuses_and_takes_again_later(void **state)
{
	struct gate gate = GATE_INIT;
	struct job held = {.base.run = run_job, .gate = &gate};
	struct job waiting[3] = {0}, refused = {.base.run = run_job}, later = {.base.run = run_job};
	struct err err = ERR_INIT;
	struct pool *pool;

	(void)state;
	assert_ok(pool_new("test", 1, 3, &pool, &err), &err);
	assert_ok(pool_submit(pool, &held.base, &err), &err);
	wait_until(one_inside, &gate, "the worker to be busy");
	for (size_t i = 0; i < 3; i++) {
		waiting[i].base.run = run_job;
		waiting[i].gate = &gate;
		assert_ok(pool_submit(pool, &waiting[i].base, &err), &err);
	}
	assert_fails(pool_submit(pool, &refused.base, &err), &err, ERR_RESOURCE_EXHAUSTED);
	gate_open(&gate);
	wait_until(all_four_inside, &gate, "the queue to drain");
	err_clear(&err);
	assert_ok(pool_submit(pool, &later.base, &err), &err);
	pool_free(pool);
	assert_int_equal(refused.n_runs, 0);
	assert_int_equal(later.n_runs, 1);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(waiting[i].n_runs, 1);
}

static void free_runs_what_running_jobs_submit(void **state)
{
	struct gate gate = GATE_INIT;
	struct job last = {.base.run = run_job}, middle = {.base.run = run_job};
	struct job first = {.base.run = run_job, .gate = &gate};
	struct err err = ERR_INIT;
	struct pool *pool;

	(void)state;
	assert_ok(pool_new("test", 2, 8, &pool, &err), &err);
	first.pool = middle.pool = pool;
	first.follower = &middle;
	middle.follower = &last;
	assert_ok(pool_submit(pool, &first.base, &err), &err);
	gate_open(&gate);
	pool_free(pool);
	assert_int_equal(first.n_runs, 1);
	assert_int_equal(middle.n_runs, 1);
	assert_int_equal(last.n_runs, 1);
}

/** struct hand_over - for wait_until(): a job that an idle worker is to take */
struct hand_over {
	struct pool *pool;
	struct job *job;
};

static bool is_taken(void *arg)
{
	struct hand_over *hand_over = arg;

	return pool_hand_over(hand_over->pool, &hand_over->job->base);
}

static void only_an_idle_worker_is_handed_a_job(void **state)
{
	struct gate gate = GATE_INIT;
	struct job held = {.base.run = run_job, .gate = &gate}, refused = {.base.run = run_job};
	struct job waiting = {.base.run = run_job}, later = {.base.run = run_job};
	struct hand_over hand_over = {.job = &held};
	struct err err = ERR_INIT;

	(void)state;
	assert_ok(pool_new("test", 1, 3, &hand_over.pool, &err), &err);
	wait_until(is_taken, &hand_over, "the worker to have started");
	/* Taken from the moment of handing over, not only once it runs. */
	assert_false(pool_hand_over(hand_over.pool, &refused.base));
	assert_ok(pool_submit(hand_over.pool, &waiting.base, &err), &err);
	assert_false(pool_hand_over(hand_over.pool, &refused.base));
	gate_open(&gate);
	hand_over.job = &later;
	wait_until(is_taken, &hand_over, "the worker to be idle again");
	/* It was idle only when nothing waited any more. */
	assert_int_equal(waiting.n_runs, 1);
	pool_free(hand_over.pool);
	assert_int_equal(held.n_runs, 1);
	assert_int_equal(later.n_runs, 1);
	assert_int_equal(refused.n_runs, 0);
}

static void workers_block_all_signals_and_the_caller_does_not(void **state)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGPIPE, SIGALRM};
	struct job job = {.base.run = run_job};
	struct err err = ERR_INIT;
	struct pool *pool;
	sigset_t before, after;

	(void)state;
	sigemptyset(&before);
	sigaddset(&before, SIGUSR2);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	assert_ok(pool_new("test", 1, 1, &pool, &err), &err);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	assert_ok(pool_submit(pool, &job.base, &err), &err);
	pool_free(pool);
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		assert_int_equal(sigismember(&job.mask, signals[i]), 1);
		assert_int_equal(sigismember(&after, signals[i]), 0);
	}
	assert_int_equal(sigismember(&after, SIGUSR2), 1);
}

static void threads_bear_the_name_cut_at_fifteen_bytes(void **state)
{
	struct job job = {.base.run = run_job};
	struct err err = ERR_INIT;
	struct pool *pool;

	(void)state;
	assert_ok(pool_new("a-name-that-is-too-long", 1, 1, &pool, &err), &err);
	assert_ok(pool_submit(pool, &job.base, &err), &err);
	pool_free(pool);
	assert_string_equal(job.thread_name, "a-name-that-is-");
}

static void numbers_of_threads_out_of_range_are_refused(void **state)
{
	struct err err = ERR_INIT;
	struct pool *pool = NULL;

	(void)state;
	assert_fails(pool_new("test", 0, 1, &pool, &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(pool_new("test", 257, 1, &pool, &err), &err, ERR_INVALID_ARGUMENT);
	assert_null(pool);
	pool_free(NULL);
}

static void a_pool_that_cannot_start_leaves_no_threads(void **state)
{
	struct err err = ERR_INIT;
	struct pool *pool = NULL;

	(void)state;
	fault_after(FAULT_PTHREAD_CREATE, 3, EAGAIN);
	assert_fails(pool_new("test", 8, 1, &pool, &err), &err, ERR_UNAVAILABLE);
	assert_int_equal(fault_clear(), 1);
	assert_null(pool);

	fault_after(FAULT_CALLOC, 0, ENOMEM);
	assert_fails(pool_new("test", 8, 1, &pool, &err), &err, ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(fault_clear(), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_job_runs_once_and_free_waits_for_all),
		cmocka_unit_test(one_worker_keeps_the_order),
		cmocka_unit_test(workers_run_at_the_same_time),
		cmocka_unit_test(a_full_queue_refuses_and_takes_again_later),
		cmocka_unit_test(free_runs_what_running_jobs_submit),
		cmocka_unit_test(only_an_idle_worker_is_handed_a_job),
		cmocka_unit_test(workers_block_all_signals_and_the_caller_does_not),
		cmocka_unit_test(threads_bear_the_name_cut_at_fifteen_bytes),
		cmocka_unit_test(numbers_of_threads_out_of_range_are_refused),
		cmocka_unit_test(a_pool_that_cannot_start_leaves_no_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
