/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/message.h"

#include <string.h>

#include "base/labels.h"
#include "containerd/services/content/v1/content.pb-c.h"
#include "tests/support/test.h"

#define ENTRY_TYPE (&containerd__services__content__v1__info__labels_entry__descriptor)

static int make_ctx(void **state)
{
	static struct arena arena;
	static struct ctx ctx;

	arena_init(&arena, 64u << 20);
	ctx = (struct ctx){.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	*state = &ctx;
	return 0;
}

static int drop_ctx(void **state)
{
	struct ctx *ctx = *state;

	arena_done(ctx->arena);
	return 0;
}

static void times_before_1970_count_nanoseconds_forward(void **state)
{
	static const struct {
		int64_t ns;
		int64_t seconds;
		int32_t nanos;
	} cases[] = {
		{0, 0, 0},
		{1, 0, 1},
		{-1, -1, 999999999},
		{-1000000000, -1, 0},
		{1700000000123456789, 1700000000, 123456789},
		{INT64_MIN, -9223372037, 145224192},
	};
	struct ctx *ctx = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		Google__Protobuf__Timestamp *time = message_time(ctx->arena, cases[i].ns);

		assert_non_null(time);
		assert_int_equal(time->seconds, cases[i].seconds);
		assert_int_equal(time->nanos, cases[i].nanos);
		/* The first second that 64 bits hold is not whole: counted from below it is out of them. */
		if (cases[i].ns != INT64_MIN)
			assert_true(message_time_ns(time) == cases[i].ns);
	}
}

static void times_out_of_range_are_the_nearest(void **state)
{
	Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;

	(void)state;
	assert_true(message_time_ns(NULL) == 0);
	time.seconds = -62135596800; /* Go's zero time */
	assert_true(message_time_ns(&time) == INT64_MIN);
	time.seconds = 253402300799;
	assert_true(message_time_ns(&time) == INT64_MAX);
}

static void labels_come_back_as_they_were_sent(void **state)
{
	struct strmap_entry entries[] = {{"a", "1"}, {"b", ""}};
	const struct strmap labels = {entries, 2, 2};
	struct ctx *ctx = *state;
	struct err err = ERR_INIT;
	struct strmap decoded;
	void *encoded;

	encoded = message_label_entries(ctx->arena, &labels, ENTRY_TYPE);
	assert_non_null(encoded);
	assert_ok(message_labels(ctx, encoded, 2, &decoded, &err), &err);
	assert_int_equal(decoded.n, 2);
	assert_string_equal(strmap_get(&decoded, "a"), "1");
	assert_string_equal(strmap_get(&decoded, "b"), "");
}

static void of_labels_given_twice_the_last_counts(void **state)
{
	struct strmap_entry entries[] = {{"b", "1"}, {"a", "2"}, {"b", "3"}};
	const struct strmap labels = {entries, 3, 3};
	struct ctx *ctx = *state;
	struct err err = ERR_INIT;
	struct strmap decoded;
	void *encoded = message_label_entries(ctx->arena, &labels, ENTRY_TYPE);

	assert_ok(message_labels(ctx, encoded, 3, &decoded, &err), &err);
	assert_int_equal(decoded.n, 2);
	assert_string_equal(strmap_get(&decoded, "b"), "3");
}

static void labels_and_paths_beyond_the_caps_are_refused(void **state)
{
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	struct ctx *ctx = *state;
	struct err err = ERR_INIT;
	struct strmap labels;
	const char **paths;
	size_t n;

	/* Refused for their number, before anything is looked at. */
	assert_fails(message_labels(ctx, NULL, LABELS_MAX + 1, &labels, &err), &err,
		     ERR_INVALID_ARGUMENT);
	mask.n_paths = LABELS_MAX + 1;
	assert_fails(message_paths(&mask, &paths, &n, &err), &err, ERR_INVALID_ARGUMENT);
	assert_ok(message_paths(NULL, &paths, &n, &err), &err);
	assert_int_equal(n, 0);
}

static void a_long_key_is_cut_between_characters_and_the_cause_stays(void **state)
{
	struct err err = ERR_INIT;
	char key[5001];

	(void)state;
	memset(key, 'x', sizeof(key));
	for (size_t i = 1; i < 5000; i += 2)
		memcpy(key + i, "\xc3\xa9", 2);
	key[5000] = '\0';
	err_set(&err, ERR_NOT_FOUND, "the cause");
	assert_int_equal(message_failed("stat", key, &err), -1);
	assert_int_equal(err.code, ERR_NOT_FOUND);
	assert_contains(err.msg, "\xc3\xa9...': the cause");
	err_set(&err, ERR_NOT_FOUND, "the cause");
	assert_int_equal(message_failed("stat", "short", &err), -1);
	assert_string_equal(err.msg, "stat 'short': the cause");
}

static void sizes_beyond_the_field_are_its_largest(void **state)
{
	(void)state;
	assert_true(message_int64(7) == 7);
	assert_true(message_int64(UINT64_MAX) == INT64_MAX);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, make_ctx, drop_ctx)
	const struct CMUnitTest tests[] = {
		TEST(times_before_1970_count_nanoseconds_forward),
		TEST(times_out_of_range_are_the_nearest),
		TEST(labels_come_back_as_they_were_sent),
		TEST(of_labels_given_twice_the_last_counts),
		TEST(labels_and_paths_beyond_the_caps_are_refused),
		TEST(a_long_key_is_cut_between_characters_and_the_cause_stays),
		TEST(sizes_beyond_the_field_are_its_largest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
