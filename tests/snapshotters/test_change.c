/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/test.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "snapshotters/snapshotter.h"

/**
 * struct backend - whose begin() does as it is told
 * @answer: of begin()
 * @ends_before: done() is called before begin() returns; else by lead(), or by @thread
 * @result: of the change
 * @thread_runs: that there is something to join
 */
struct backend {
	enum change_begun answer;
	bool ends_before;
	int result;
	struct snapshot_change *change;
	unsigned int n_begun;
	unsigned int n_led;
	pthread_t thread;
	bool thread_runs;
};

static void finish(struct backend *backend)
{
	struct snapshot_change *change = backend->change;

	change->result = backend->result;
	change->mounts.n = 7;
	change->info.id = 8;
	if (backend->result < 0)
		err_set(&change->err, ERR_ABORTED, "on purpose");
	if (backend->answer != CHANGE_ENDED)
		change->done(change);
}

static void *finish_later(void *arg)
{
	/* Time for the other thread to begin to wait. */
	for (int i = 0; i < 100; i++)
		sched_yield();
	finish(arg);
	return NULL;
}

static enum change_begun begin(void *self, struct snapshot_change *change, bool may_wait)
{
	struct backend *backend = self;

	assert_true(may_wait);
	assert_int_equal(change->kind, CHANGE_REMOVE);
	assert_string_equal(change->key, "key");
	change->err = (struct err)ERR_INIT;
	backend->n_begun++;
	backend->change = change;
	if (backend->ends_before || backend->answer == CHANGE_ENDED) {
		finish(backend);
	} else if (backend->answer == CHANGE_PENDING) {
		assert_int_equal(pthread_create(&backend->thread, NULL, finish_later, backend), 0);
		backend->thread_runs = true;
	}
	return backend->answer;
}

static void lead(void *self)
{
	struct backend *backend = self;

	backend->n_led++;
	if (!backend->ends_before)
		finish(backend);
}

static const struct snapshotter_ops ops = {.name = "fake", .begin = begin, .lead = lead};

static void wait_gives_what_the_change_ended_with(void **state)
{
	static const struct {
		enum change_begun answer;
		bool ends_before;
		unsigned int n_led;
	} cases[] = {
		{CHANGE_ENDED, false, 0}, {CHANGE_PENDING, false, 0}, {CHANGE_PENDING, true, 0},
		{CHANGE_LEADS, false, 1}, {CHANGE_LEADS, true, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (int result = -1; result <= 0; result++) {
			struct backend backend = {.answer = cases[i].answer,
						  .ends_before = cases[i].ends_before,
						  .result = result};
			struct snapshot_change change = {.kind = CHANGE_REMOVE, .key = "key"};
			struct err err = ERR_INIT;
			int r = snapshot_change_wait(&ops, &backend, &change, &err);

			if (backend.thread_runs)
				pthread_join(backend.thread, NULL);
			assert_int_equal(r, result);
			assert_int_equal(backend.n_begun, 1);
			assert_int_equal(backend.n_led, cases[i].n_led);
			assert_int_equal(change.mounts.n, 7);
			assert_int_equal(change.info.id, 8);
			if (result < 0) {
				assert_fails(r, &err, ERR_ABORTED);
				assert_string_equal(err.msg, "on purpose");
			} else {
				assert_int_equal(err.code, ERR_OK);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wait_gives_what_the_change_ended_with),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
