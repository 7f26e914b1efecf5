/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One at a time for each digest: who makes a blob, or deletes one, changes its file and its row, and nobody may
 * see one of them only. Any thread.
 */
#ifndef LIGHTER_CONTENT_DIGEST_LOCKS_H
#define LIGHTER_CONTENT_DIGEST_LOCKS_H

#include <pthread.h>

#include "base/digest.h"

/** struct digest_lock - held by whoever called digest_lock(), on its stack */
struct digest_lock {
	struct digest digest;
	struct digest_lock *next;
};

/** struct digest_locks - as many are held as there are threads at work, so that a list does */
struct digest_locks {
	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t released;
	struct digest_lock *held;
};

void digest_locks_init(struct digest_locks *locks);
void digest_locks_done(struct digest_locks *locks);

/** digest_lock() - wait until nobody else holds @digest; what the holder waits for is the disk alone */
void digest_lock(struct digest_locks *locks, const struct digest *digest, struct digest_lock *lock);
void digest_unlock(struct digest_locks *locks, struct digest_lock *lock);

#endif
