/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/thread.h"

#define THREADS_MAX 256
/* Of the name, for messages. */
#define NAME_BYTES  32

/**
 * struct worker - one thread
 * @wake: @job was set, or the pool stops
 * @next_idle: below it on the stack of idle workers
 */
struct worker {
	struct pool *pool;
	pthread_t thread;
	pthread_cond_t wake;
	struct pool_job *job;
	struct worker *next_idle;
};

/**
 * struct pool - workers and their queue
 * @idle: stack of the workers that wait; empty while jobs wait
 * @first, @last: waiting jobs, in the order they came
 * @stopping: workers end once nothing waits
 */
struct pool {
	char name[NAME_BYTES];
	size_t queue_max;
	unsigned int n_threads;

	pthread_mutex_t mutex;
	struct worker *idle;
	struct pool_job *first;
	struct pool_job *last;
	size_t n_waiting;
	bool stopping;

	struct worker workers[];
};

/* Return: NULL when the pool stops and nothing waits any more. */
static struct pool_job *take_job(struct worker *worker)
{
	struct pool *pool = worker->pool;
	struct pool_job *job;

	LOCK_GUARD(&pool->mutex);
	job = pool->first;
	if (job) {
		pool->first = job->next;
		if (!pool->first)
			pool->last = NULL;
		pool->n_waiting--;
		return job;
	}
	if (!pool->stopping) {
		worker->next_idle = pool->idle;
		pool->idle = worker;
	}
	while (!worker->job && !pool->stopping)
		pthread_cond_wait(&worker->wake, &pool->mutex);
	job = worker->job;
	worker->job = NULL;
	return job;
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct pool_job *job;

	while ((job = take_job(worker)) != NULL)
		job->run(job);
	return NULL;
}

/* Gives @job to an idle worker, if there is one. The lock is held. */
static bool give(struct pool *pool, struct pool_job *job)
{
	struct worker *worker = pool->idle;

	if (!worker)
		return false;
	pool->idle = worker->next_idle;
	worker->job = job;
	pthread_cond_signal(&worker->wake);
	return true;
}

static void append(struct pool *pool, struct pool_job *job)
{
	job->next = NULL;
	if (pool->last)
		pool->last->next = job;
	else
		pool->first = job;
	pool->last = job;
	pool->n_waiting++;
}

int pool_new(const char *name, unsigned int n_threads, size_t queue_max, struct pool **ret_pool,
	     struct err *err)
{
	struct pool *pool;

	if (n_threads == 0 || n_threads > THREADS_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "worker pool '%s': %u threads, 1 to %d are possible", name,
			       n_threads, THREADS_MAX);
	pool = calloc(1, sizeof(*pool) + n_threads * sizeof(pool->workers[0]));
	if (!pool)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "worker pool '%s': no memory", name);
	snprintf(pool->name, sizeof(pool->name), "%s", name);
	pool->queue_max = queue_max;
	pthread_mutex_init(&pool->mutex, NULL);

	while (pool->n_threads < n_threads) {
		struct worker *worker = &pool->workers[pool->n_threads];

		worker->pool = pool;
		pthread_cond_init(&worker->wake, NULL);
		if (thread_start(&worker->thread, name, work, worker, err) < 0) {
			pthread_cond_destroy(&worker->wake);
			pool_free(pool);
			return -1;
		}
		pool->n_threads++;
	}
	*ret_pool = pool;
	return 0;
}

int pool_submit(struct pool *pool, struct pool_job *job, struct err *err)
{
	LOCK_GUARD(&pool->mutex);
	if (give(pool, job))
		return 0;
	if (pool->n_waiting >= pool->queue_max)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "worker pool '%s': %zu jobs wait already", pool->name,
			       pool->n_waiting);
	append(pool, job);
	return 0;
}

bool pool_hand_over(struct pool *pool, struct pool_job *job)
{
	LOCK_GUARD(&pool->mutex);

	return give(pool, job);
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->mutex);
	pool->stopping = true;
	/* Those who wait end now; what running jobs submit yet is theirs. */
	pool->idle = NULL;
	for (unsigned int i = 0; i < pool->n_threads; i++)
		pthread_cond_signal(&pool->workers[i].wake);
	pthread_mutex_unlock(&pool->mutex);

	for (unsigned int i = 0; i < pool->n_threads; i++) {
		pthread_join(pool->workers[i].thread, NULL);
		pthread_cond_destroy(&pool->workers[i].wake);
	}
	pthread_mutex_destroy(&pool->mutex);
	free(pool);
}
