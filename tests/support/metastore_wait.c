/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/metastore_wait.h"

#include <errno.h>
#include <semaphore.h>
#include <stddef.h>

/** struct waiter - a change, on its caller's stack */
struct waiter {
	struct metastore_change change;
	sem_t ended;
};

static void wake(struct db_job *job)
{
	sem_post(&((struct waiter *)((char *)job - offsetof(struct waiter, change.job)))->ended);
}

static void begin(struct waiter *waiter, struct err *err)
{
	*waiter = (struct waiter){.change = {.job = {.done = wake, .err = err}}};
	sem_init(&waiter->ended, 0, 0);
}

/* Return: the result of the change, whose submission has said @leads. */
static int end(struct metastore *store, struct waiter *waiter, bool leads)
{
	if (leads)
		metastore_lead(store);
	while (sem_wait(&waiter->ended) < 0 && errno == EINTR) {
	}
	sem_destroy(&waiter->ended);
	return waiter->change.job.result;
}

int metastore_create(struct metastore *store, struct ctx *ctx,
		     const struct metastore_new *new_snapshot, struct err *err)
{
	struct waiter waiter;

	begin(&waiter, err);
	return end(store, &waiter,
		   metastore_submit_create(store, ctx, new_snapshot, &waiter.change));
}

int metastore_commit(struct metastore *store, struct ctx *ctx, const struct commit_req *req,
		     uint64_t id, const struct usage *usage, struct err *err)
{
	struct waiter waiter;

	begin(&waiter, err);
	return end(store, &waiter,
		   metastore_submit_commit(store, ctx, req, id, usage, &waiter.change));
}

int metastore_update(struct metastore *store, struct ctx *ctx, const struct update_req *req,
		     struct info *ret_info, struct err *err)
{
	struct waiter waiter;
	int leads, result;

	begin(&waiter, err);
	leads = metastore_submit_update(store, ctx, req, &waiter.change, err);
	if (leads < 0) {
		sem_destroy(&waiter.ended);
		return -1;
	}
	result = end(store, &waiter, leads);
	if (result == 0)
		*ret_info = waiter.change.info;
	return result;
}
