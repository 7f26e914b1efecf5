/* SPDX-License-Identifier: Apache-2.0 */
#include "content/digest_locks.h"

#include <stddef.h>

#include "base/cleanup.h"

void digest_locks_init(struct digest_locks *locks)
{
	pthread_mutex_init(&locks->mutex, NULL);
	pthread_cond_init(&locks->released, NULL);
	locks->held = NULL;
}

void digest_locks_done(struct digest_locks *locks)
{
	pthread_cond_destroy(&locks->released);
	pthread_mutex_destroy(&locks->mutex);
}

static bool is_held(const struct digest_locks *locks, const struct digest *digest)
{
	for (const struct digest_lock *lock = locks->held; lock; lock = lock->next)
		if (digest_equal(&lock->digest, digest))
			return true;
	return false;
}

void digest_lock(struct digest_locks *locks, const struct digest *digest, struct digest_lock *lock)
{
	LOCK_GUARD(&locks->mutex);
	while (is_held(locks, digest))
		pthread_cond_wait(&locks->released, &locks->mutex);
	lock->digest = *digest;
	lock->next = locks->held;
	locks->held = lock;
}

void digest_unlock(struct digest_locks *locks, struct digest_lock *lock)
{
	struct digest_lock **link = &locks->held;

	LOCK_GUARD(&locks->mutex);
	while (*link != lock)
		link = &(*link)->next;
	*link = lock->next;
	pthread_cond_broadcast(&locks->released);
}
