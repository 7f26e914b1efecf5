/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshotter in memory that keeps the whole contract of snapshotter.h, and fails or waits on request.
 * Nothing lies on disk: its mounts name directories that do not exist. Any thread.
 */
#ifndef LIGHTER_TESTS_SUPPORT_FAKE_SNAPSHOTTER_H
#define LIGHTER_TESTS_SUPPORT_FAKE_SNAPSHOTTER_H

#include "snapshotters/snapshotter.h"

/** struct fake_conf - table [fake]. @fail_open: open() fails. @note: kept in the labels of what is made, if set. */
struct fake_conf {
	bool fail_open;
	char *note;
};

/* The label that @note of the configuration becomes, in what stat, update and walk tell. */
#define FAKE_NOTE_LABEL "lighter.test/note"

extern const struct snapshotter_ops fake_snapshotter_ops;

/* The same without cleanup. */
extern const struct snapshotter_ops fake_snapshotter_ops_without_cleanup;

enum fake_call {
	FAKE_PREPARE,
	FAKE_VIEW,
	FAKE_MOUNTS,
	FAKE_COMMIT,
	FAKE_REMOVE,
	FAKE_STAT,
	FAKE_UPDATE,
	FAKE_WALK,
	FAKE_USAGE,
	FAKE_CLEANUP,
	FAKE_N_CALLS,
};

/** fake_fail() - the next @n calls of @call fail with @code, and change nothing. @self: what open() gave. */
void fake_fail(void *self, enum fake_call call, enum err_code code, unsigned int n);

/** fake_hold() - from now on, calls of @call wait, until they are released, cancelled or past their deadline */
void fake_hold(void *self, enum fake_call call);

/** fake_release() - let those that wait go on, and hold no more */
void fake_release(void *self, enum fake_call call);

/** fake_wait_held() - wait until @n calls of @call are held; the test fails if that takes a minute */
void fake_wait_held(void *self, enum fake_call call, unsigned int n);

/** fake_n_calls() - how often @call was called */
unsigned int fake_n_calls(void *self, enum fake_call call);

/** fake_last_ns() - the namespace of the last call; yours to free() */
char *fake_last_ns(void *self);

#endif
