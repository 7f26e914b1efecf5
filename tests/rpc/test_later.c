/* SPDX-License-Identifier: Apache-2.0 */
/* Unary calls that are answered later than their handler returns. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rpc/rig.h"

#define N_CALLERS 24

/** struct asking - one caller of Later, on a thread of its own */
struct asking {
	struct rig *rig;
	const char *how;
	int64_t code;
	size_t size;
	int64_t timeout_ns; /* 0: patience */
	pthread_t thread;
	int result;
	char text[32];
	struct err err;
};

static void *ask(void *arg)
{
	struct asking *asking = arg;
	Note request = LIGHTER__TEST__NOTE__INIT;
	struct caller caller;
	Note *note;

	caller_init(&caller);
	if (asking->timeout_ns)
		caller.ctx.deadline_ns = monotonic_ns() + asking->timeout_ns;
	request.text = (char *)asking->how;
	request.number = asking->code;
	request.data.len = asking->size;
	request.data.data = arena_zalloc(&caller.arena, asking->size + 1);
	asking->err = (struct err)ERR_INIT;
	asking->result =
		rig_call(asking->rig, &caller, "Later", &request.base, &note, &asking->err);
	if (asking->result == 0)
		snprintf(asking->text, sizeof(asking->text), "%s", note->text);
	caller_done(&caller);
	return NULL;
}

static void start(struct asking *asking)
{
	assert_int_equal(pthread_create(&asking->thread, NULL, ask, asking), 0);
}

static void every_way_to_answer_reaches_the_client(void **state)
{
	static const char *const ways[] = {"now", "within", "soon", "worker"};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		/* Larger ones begin on a worker. */
		for (size_t size = 0; size <= 1u << 20; size += 1u << 20) {
			struct asking asking = {.rig = rig, .how = ways[i], .size = size};

			ask(&asking);
			assert_ok(asking.result, &asking.err);
			assert_string_equal(asking.text, ways[i]);
		}
	}
	wait_until(rig_is_quiet, rig, "all calls to end");
	assert_int_equal(rig->n_ended[ERR_OK], 2 * ARRAY_LEN(ways));
}

static void failures_are_told_later_too(void **state)
{
	static const char *const ways[] = {"now", "soon", "worker"};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		struct asking asking = {.rig = rig, .how = ways[i], .code = ERR_DATA_LOSS};

		ask(&asking);
		assert_fails(asking.result, &asking.err, ERR_DATA_LOSS);
		assert_string_equal(asking.err.msg, "later");
	}
}

static void kept_calls_hold_up_nobody_and_end_together(void **state)
{
	struct rig *rig = *state;
	struct asking kept[N_CALLERS], quick = {.rig = rig, .how = "now"};

	/* More than there are workers. */
	for (size_t i = 0; i < N_CALLERS; i++) {
		kept[i] = (struct asking){.rig = rig, .how = "kept"};
		start(&kept[i]);
	}
	rig_wait(&rig->n_kept, N_CALLERS, "calls to be kept");
	ask(&quick);
	assert_ok(quick.result, &quick.err);
	assert_true(rig_is_served(rig));
	rig_answer_kept(rig);
	for (size_t i = 0; i < N_CALLERS; i++) {
		pthread_join(kept[i].thread, NULL);
		assert_ok(kept[i].result, &kept[i].err);
	}
}

static void *ask_without_end(void *arg)
{
	struct rig *rig = arg;

	while (!atomic_load(&rig->released))
		assert_true(rig_is_served(rig));
	return NULL;
}

static void a_job_runs_though_calls_never_stop_arriving(void **state)
{
	struct rig *rig = *state;
	pthread_t threads[4];

	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_without_end, rig), 0);
	for (int i = 0; i < 200; i++) {
		struct asking asking = {.rig = rig, .how = "soon"};

		ask(&asking);
		assert_ok(asking.result, &asking.err);
	}
	assert_int_equal(rig->n_answer_jobs, 200);
	atomic_store(&rig->released, true);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
}

static void a_deadline_ends_the_wait_of_the_client_alone(void **state)
{
	struct rig *rig = *state;
	struct asking asking = {.rig = rig, .how = "kept", .timeout_ns = 20000000};

	ask(&asking);
	assert_fails(asking.result, &asking.err, ERR_DEADLINE_EXCEEDED);
	/* It may not even have arrived; if it has, it is still ours to answer. */
	rig_answer_kept(rig);
	wait_until(rig_is_quiet, rig, "the call to end");
}

static void *answer_when_stopping(void *arg)
{
	struct rig *rig = arg;

	wait_until(rig_is_deaf, rig, "the server to stop listening");
	rig_answer_kept(rig);
	return NULL;
}

static void a_stop_waits_for_calls_that_are_kept(void **state)
{
	struct rig *rig = *state;
	struct asking asking = {.rig = rig, .how = "kept"};
	pthread_t thread;

	start(&asking);
	rig_wait(&rig->n_kept, 1, "the call to be kept");
	assert_int_equal(pthread_create(&thread, NULL, answer_when_stopping, rig), 0);
	rig_stop(rig, 60000);
	pthread_join(thread, NULL);
	pthread_join(asking.thread, NULL);
	assert_ok(asking.result, &asking.err);
}

#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_way_to_answer_reaches_the_client),
		TEST(failures_are_told_later_too),
		TEST(kept_calls_hold_up_nobody_and_end_together),
		TEST(a_job_runs_though_calls_never_stop_arriving),
		TEST(a_deadline_ends_the_wait_of_the_client_alone),
		TEST(a_stop_waits_for_calls_that_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, rig_library_teardown);
}
