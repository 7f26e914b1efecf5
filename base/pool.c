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
 * struct pool - workers and their queue
 * @first, @last: waiting jobs, in the order they came
 * @stopping: workers end once nothing waits
 */
struct pool {
	char name[NAME_BYTES];
	size_t queue_max;
	unsigned int n_threads;

	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct pool_job *first;
	struct pool_job *last;
	size_t n_waiting;
	bool stopping;

	pthread_t threads[];
};

/* Return: NULL when the pool stops and nothing waits any more. */
static struct pool_job *take_job(struct pool *pool)
{
	struct pool_job *job;

	LOCK_GUARD(&pool->mutex);
	while (!pool->first && !pool->stopping)
		pthread_cond_wait(&pool->changed, &pool->mutex);
	job = pool->first;
	if (!job)
		return NULL;
	pool->first = job->next;
	if (!pool->first)
		pool->last = NULL;
	pool->n_waiting--;
	return job;
}

static void *work(void *arg)
{
	struct pool *pool = arg;
	struct pool_job *job;

	while ((job = take_job(pool)) != NULL)
		job->run(job);
	return NULL;
}

int pool_new(const char *name, unsigned int n_threads, size_t queue_max, struct pool **ret_pool,
	     struct err *err)
{
	struct pool *pool;

	if (n_threads == 0 || n_threads > THREADS_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "worker pool '%s': %u threads, 1 to %d are possible", name,
			       n_threads, THREADS_MAX);
	pool = calloc(1, sizeof(*pool) + n_threads * sizeof(pool->threads[0]));
	if (!pool)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "worker pool '%s': no memory", name);
	snprintf(pool->name, sizeof(pool->name), "%s", name);
	pool->queue_max = queue_max;
	pthread_mutex_init(&pool->mutex, NULL);
	pthread_cond_init(&pool->changed, NULL);

	while (pool->n_threads < n_threads) {
		if (thread_start(&pool->threads[pool->n_threads], name, work, pool, err) < 0) {
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
	if (pool->n_waiting >= pool->queue_max)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "worker pool '%s': %zu jobs wait already", pool->name,
			       pool->n_waiting);
	job->next = NULL;
	if (pool->last)
		pool->last->next = job;
	else
		pool->first = job;
	pool->last = job;
	pool->n_waiting++;
	pthread_cond_signal(&pool->changed);
	return 0;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->mutex);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->mutex);

	for (unsigned int i = 0; i < pool->n_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->mutex);
	free(pool);
}
