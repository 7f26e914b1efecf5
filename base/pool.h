/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads behind a bounded queue. Any thread may submit. Of idle workers the one that was busy last
 * gets the next job: its stack and its caches are warm, and what the others touched once can be swapped out.
 */
#ifndef LIGHTER_BASE_POOL_H
#define LIGHTER_BASE_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"

struct pool;

/**
 * struct pool_job - embedded in what is to be done; nothing is allocated to submit it
 * @run: called once, on a worker
 */
struct pool_job {
	struct pool_job *next;
	void (*run)(struct pool_job *job);
};

/**
 * pool_new() - start @n_threads workers (1 to 256), all signals blocked in them
 * @name: their thread name, at most 15 bytes are shown
 * @queue_max: waiting jobs beyond which pool_submit() refuses
 */
ERR_CHECKED int pool_new(const char *name, unsigned int n_threads, size_t queue_max,
			 struct pool **ret_pool, struct err *err);

/**
 * pool_submit() - run @job on a worker
 * Return: 0, or -1 with ERR_RESOURCE_EXHAUSTED when the queue is full; the job is then not taken.
 */
ERR_CHECKED int pool_submit(struct pool *pool, struct pool_job *job, struct err *err);

/**
 * pool_hand_over() - run @job on a worker that is idle now
 * Return: false when there is none; the job is then not taken.
 */
bool pool_hand_over(struct pool *pool, struct pool_job *job);

/** pool_free() - run what is queued, stop the workers, join them. Accepts NULL. */
void pool_free(struct pool *pool);

#endif
