/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stddef.h>

#include "snapshotters/snapshotter.h"

/* The change of a caller who waits: a copy of his, since what ends it knows but the change. */
struct waiting_change {
	struct snapshot_change change;
	sem_t ended;
};

static void wake(struct snapshot_change *change)
{
	sem_post(&((struct waiting_change *)((char *)change -
					     offsetof(struct waiting_change, change)))
			  ->ended);
}

int snapshot_change_wait(const struct snapshotter_ops *ops, void *self,
			 struct snapshot_change *change, struct err *err)
{
	struct waiting_change waiting = {.change = *change};
	enum change_begun begun;

	sem_init(&waiting.ended, 0, 0);
	waiting.change.done = wake;
	begun = ops->begin(self, &waiting.change, true);
	assert(begun != CHANGE_WOULD_WAIT);
	if (begun == CHANGE_LEADS)
		ops->lead(self);
	if (begun != CHANGE_ENDED) {
		while (sem_wait(&waiting.ended) < 0 && errno == EINTR) {
		}
	}
	sem_destroy(&waiting.ended);
	change->mounts = waiting.change.mounts;
	change->info = waiting.change.info;
	change->result = waiting.change.result;
	if (change->result < 0)
		*err = waiting.change.err;
	return change->result;
}
