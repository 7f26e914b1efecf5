/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ingests when calls of the system fail, and what the start makes of files it finds. What all stores do is for
 * tests/conformance.
 */
#include "content/ingest_bytes.h"
#include "content/ingests.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/fs.h"
#include "tests/support/fault.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

struct fixture {
	struct temp_root *root;
	struct ingests *ingests;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->root = temp_root_new();
	arena_init(&fx->arena, 64u << 20);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	assert_ok(ingests_open(fx->root->fd, &fx->ingests, &fx->err), &fx->err);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	fault_clear();
	ingests_close(fx->ingests);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx);
	return 0;
}

static void restart(struct fixture *fx)
{
	ingests_close(fx->ingests);
	fx->ingests = NULL;
	assert_ok(ingests_open(fx->root->fd, &fx->ingests, &fx->err), &fx->err);
}

static struct ingest *begin(struct fixture *fx, const char *ref)
{
	struct ingest *ingest = NULL;

	assert_ok(ingest_open(fx->ingests, &fx->ctx, ref, 0, 0, true, &ingest, &fx->err), &fx->err);
	return ingest;
}

/* One whose bytes have a file from the first on. */
static struct ingest *begin_large(struct fixture *fx, const char *ref)
{
	struct ingest *ingest = NULL;

	assert_ok(ingest_open(fx->ingests, &fx->ctx, ref, INGEST_MEMORY_BYTES + 1, 0, true, &ingest,
			      &fx->err),
		  &fx->err);
	return ingest;
}

static int put(struct fixture *fx, struct ingest *ingest, uint64_t offset, const void *bytes,
	       size_t n)
{
	const struct iovec piece = {(void *)(uintptr_t)bytes, n};

	return ingest_write(ingest, offset, &piece, 1, true, &fx->err);
}

/* It holds some of @bytes, and knows how many. Return: how many. */
static uint64_t held(struct fixture *fx, struct ingest *ingest, const uint8_t *bytes)
{
	struct ingest_info info;
	struct digest digest, want;

	assert_ok(ingest_state(ingest, &info, &digest, &fx->err), &fx->err);
	assert_ok(digest_of(DIGEST_SHA256, bytes, info.offset_bytes, &want, &fx->err), &fx->err);
	assert_true(digest_equal(&digest, &want));
	return info.offset_bytes;
}

static void write_file(struct fixture *fx, const char *name, const char *text)
{
	int dirfd = openat(fx->root->fd, "ingests", O_DIRECTORY | O_CLOEXEC);
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	close(dirfd);
}

static bool exists(struct fixture *fx, const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "ingests/%s", name);
	return faccessat(fx->root->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool knows(struct fixture *fx, const char *ref)
{
	struct ingest_info info;

	return ingests_status(fx->ingests, &fx->ctx, ref, &info, &fx->err) == 0;
}

/* --- writes that fail --------------------------------------------------------------------------------- */

static void a_full_disk_keeps_what_was_written(void **state)
{
	static uint8_t bytes[200 * 1000];
	static struct iovec pieces[200];
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");
	uint64_t n;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 1000);
	for (size_t i = 0; i < 200; i++)
		pieces[i] = (struct iovec){bytes + i * 1000, 1000};
	fault_after(FAULT_PWRITEV, 2, ENOSPC);
	assert_fails(ingest_write(ingest, 0, pieces, 200, true, &fx->err), &fx->err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(fault_clear(), 1);
	n = held(fx, ingest, bytes);
	assert_true(n > 0 && n < sizeof(bytes));
	ingest_close(ingest);
	/* There is room again. */
	restart(fx);
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, bytes), n);
	assert_ok(put(fx, ingest, n, bytes + n, sizeof(bytes) - n), &fx->err);
	assert_int_equal(held(fx, ingest, bytes), sizeof(bytes));
	ingest_close(ingest);
}

static void short_writes_are_completed(void **state)
{
	static const uint8_t bytes[] = "not very many bytes";
	const struct iovec pieces[] = {
		{(void *)(uintptr_t)bytes, 0},
		{(void *)(uintptr_t)bytes, 7},
		{(void *)(uintptr_t)(bytes + 7), 0},
		{(void *)(uintptr_t)(bytes + 7), sizeof(bytes) - 7},
	};
	struct fixture *fx = *state;
	struct ingest *ingest = begin_large(fx, "r");

	fault_short_writes();
	assert_ok(ingest_write(ingest, 0, pieces, 4, true, &fx->err), &fx->err);
	fault_clear();
	assert_int_equal(held(fx, ingest, bytes), sizeof(bytes));
	ingest_close(ingest);
}

static void a_broken_disk_is_our_fault_and_a_busy_process_has_no_room(void **state)
{
	static const struct {
		enum fault_call call;
		int errnum;
		enum err_code want;
	} cases[] = {
		{FAULT_PWRITEV, EIO, ERR_INTERNAL},
		{FAULT_PWRITEV, EDQUOT, ERR_RESOURCE_EXHAUSTED},
		{FAULT_OPENAT, EMFILE, ERR_RESOURCE_EXHAUSTED},
		{FAULT_OPENAT, EIO, ERR_INTERNAL},
	};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct ingest *ingest = begin_large(fx, "r");

		fault_after(cases[i].call, 0, cases[i].errnum);
		assert_fails(put(fx, ingest, 0, "bytes", 5), &fx->err, cases[i].want);
		fault_clear();
		assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 0);
		ingest_close(ingest);
		ingest = begin(fx, "r");
		assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
		ingest_close(ingest);
		ingests_abort(fx->ingests, "r");
	}
}

/* --- small ones ---------------------------------------------------------------------------------------- */

static void a_small_one_gets_its_file_when_its_writer_goes(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");

	assert_ok(put(fx, ingest, 0, "byt", 3), &fx->err);
	assert_ok(put(fx, ingest, 3, "es", 2), &fx->err);
	assert_false(exists(fx, "1"));
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 5);
	ingest_close(ingest);
	assert_true(exists(fx, "1"));
	restart(fx);
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 5);
	assert_ok(put(fx, ingest, 5, "!", 1), &fx->err);
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes!"), 6);
	ingest_close(ingest);
}

static void one_that_grows_gets_its_file(void **state)
{
	static uint8_t bytes[INGEST_MEMORY_BYTES + 10];
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 1000);
	assert_ok(put(fx, ingest, 0, bytes, INGEST_MEMORY_BYTES), &fx->err);
	assert_false(exists(fx, "1"));
	assert_ok(put(fx, ingest, INGEST_MEMORY_BYTES, bytes + INGEST_MEMORY_BYTES, 10), &fx->err);
	assert_true(exists(fx, "1"));
	assert_int_equal(held(fx, ingest, bytes), sizeof(bytes));
	/* Anew: it has a file, and keeps it. */
	assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 5);
	ingest_close(ingest);
	restart(fx);
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 5);
	ingest_close(ingest);
}

/* Without room for its file it stays in memory, for who goes on with it. */
static void one_that_cannot_be_kept_stays_in_memory(void **state)
{
	static const struct {
		enum fault_call call;
		unsigned int after;
	} cases[] = {
		{FAULT_OPENAT, 0}, /* the reference */
		{FAULT_OPENAT, 1}, /* the bytes */
		{FAULT_PWRITEV, 0},
	};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct ingest *ingest = begin(fx, "r");
		struct ingest_info info;

		assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
		fault_after(cases[i].call, cases[i].after, ENOSPC);
		ingest_close(ingest);
		assert_true(fault_clear() > 0);
		assert_ok(ingests_status(fx->ingests, &fx->ctx, "r", &info, &fx->err), &fx->err);
		assert_int_equal(info.offset_bytes, 5);
		/* Of another digest, too. */
		assert_ok(ingest_open(fx->ingests, &fx->ctx, "r", 0, DIGEST_SHA512, true, &ingest,
				      &fx->err),
			  &fx->err);
		ingest_close(ingest);
		ingest = begin(fx, "r");
		assert_ok(put(fx, ingest, 5, "!", 1), &fx->err);
		ingest_close(ingest);
		restart(fx);
		ingest = begin(fx, "r");
		assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes!"), 6);
		ingest_close(ingest);
		ingests_abort(fx->ingests, "r");
	}
}

/* One that outgrows memory on a full disk is held as it was, and goes on when there is room. */
static void one_that_cannot_grow_is_held_as_it_was(void **state)
{
	static uint8_t bytes[INGEST_MEMORY_BYTES + 10];
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");
	struct ingest_info info;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 1000);
	assert_ok(put(fx, ingest, 0, bytes, 60000), &fx->err);
	for (unsigned int n = 0; n < 2; n++) {
		fault_after(FAULT_PWRITEV, 0, ENOSPC);
		assert_fails(put(fx, ingest, 60000, bytes + 60000, sizeof(bytes) - 60000), &fx->err,
			     ERR_RESOURCE_EXHAUSTED);
		fault_clear();
		assert_int_equal(held(fx, ingest, bytes), 60000);
		assert_ok(ingests_status(fx->ingests, &fx->ctx, "r", &info, &fx->err), &fx->err);
		assert_int_equal(info.offset_bytes, 60000);
	}
	assert_ok(put(fx, ingest, 60000, bytes + 60000, sizeof(bytes) - 60000), &fx->err);
	assert_int_equal(held(fx, ingest, bytes), sizeof(bytes));
	ingest_close(ingest);
	restart(fx);
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, bytes), sizeof(bytes));
	ingest_close(ingest);
}

static void beyond_so_many_in_memory_the_next_gets_its_file_at_once(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingests[200];
	char ref[16], name[16];
	unsigned int n_files = 0;

	for (unsigned int i = 0; i < ARRAY_LEN(ingests); i++) {
		snprintf(ref, sizeof(ref), "r%u", i);
		ingests[i] = begin(fx, ref);
		assert_ok(put(fx, ingests[i], 0, "bytes", 5), &fx->err);
		snprintf(name, sizeof(name), "%u", i + 1);
		n_files += exists(fx, name);
	}
	assert_true(n_files > 0 && n_files < ARRAY_LEN(ingests));
	/* Those that were aborted make room. */
	for (unsigned int i = 0; i < ARRAY_LEN(ingests); i++) {
		snprintf(ref, sizeof(ref), "r%u", i);
		ingests_abort(fx->ingests, ref);
		ingest_close(ingests[i]);
	}
	ingests[0] = begin(fx, "r");
	assert_ok(put(fx, ingests[0], 0, "bytes", 5), &fx->err);
	assert_false(exists(fx, "201"));
	ingest_close(ingests[0]);
}

static void what_has_to_wait_is_not_done_where_nothing_may(void **state)
{
	static const uint8_t bytes[INGEST_MEMORY_BYTES + 1];
	const struct iovec small = {(void *)(uintptr_t)bytes, 5};
	const struct iovec large = {(void *)(uintptr_t)bytes, sizeof(bytes)};
	struct fixture *fx = *state;
	struct ingest *ingest, *second;

	assert_int_equal(ingest_open(fx->ingests, &fx->ctx, "r", 0, 0, false, &ingest, &fx->err),
			 0);
	assert_int_equal(ingest_write(ingest, 0, &small, 1, false, &fx->err), 0);
	assert_int_equal(ingest_write(ingest, 5, &large, 1, false, &fx->err), 1);
	assert_int_equal(held(fx, ingest, bytes), 5);
	assert_fails(ingest_write(ingest, 7, &small, 1, false, &fx->err), &fx->err,
		     ERR_OUT_OF_RANGE);
	/* It has a writer, and later a file. */
	assert_int_equal(ingest_open(fx->ingests, &fx->ctx, "r", 0, 0, false, &second, &fx->err),
			 1);
	ingest_close(ingest);
	assert_int_equal(ingest_open(fx->ingests, &fx->ctx, "r", 0, 0, false, &second, &fx->err),
			 1);
}

static void one_that_cannot_be_opened_stays(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");

	assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
	ingest_close(ingest);
	fault_after(FAULT_OPENAT, 0, EMFILE);
	assert_fails(ingest_open(fx->ingests, &fx->ctx, "r", 0, 0, true, &ingest, &fx->err),
		     &fx->err, ERR_RESOURCE_EXHAUSTED);
	fault_clear();
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 5);
	ingest_close(ingest);
}

static void memory_that_runs_out_fails_calls_and_nothing_else(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest;

	/* However far each attempt gets. */
	for (unsigned int n = 0; n < 6; n++) {
		fault_after(FAULT_CALLOC, n, ENOMEM);
		if (ingest_open(fx->ingests, &fx->ctx, "r", 0, 0, true, &ingest, &fx->err) == 0)
			ingest_close(ingest);
		else
			assert_int_equal(fx->err.code, ERR_RESOURCE_EXHAUSTED);
		fault_clear();
	}
	ingest = begin(fx, "r");
	assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
	ingest_close(ingest);
}

static void bytes_that_somebody_took_away_are_missed(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");

	assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
	ingest_close(ingest);
	restart(fx);
	write_file(fx, "1", "byt");
	assert_fails(ingest_open(fx->ingests, &fx->ctx, "r", 0, 0, true, &ingest, &fx->err),
		     &fx->err, ERR_DATA_LOSS);
	/* The next start believes the file. */
	restart(fx);
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, (const uint8_t *)"byt"), 3);
	ingest_close(ingest);
}

/* The first letters of @ref tell it from others. */
static void number(char *ref, unsigned int i)
{
	for (int k = 0; k < 4; k++, i /= 16)
		ref[k] = (char)('a' + i % 16);
}

static void references_together_are_bounded(void **state)
{
	struct fixture *fx = *state;
	char *ref = malloc(CONTENT_REF_MAX_BYTES + 1);
	const unsigned int n_max = INGESTS_REF_MAX_BYTES / CONTENT_REF_MAX_BYTES;
	struct ingest **ingests = calloc(n_max, sizeof(*ingests));
	struct ingest *one_more;

	memset(ref, 'x', CONTENT_REF_MAX_BYTES);
	ref[CONTENT_REF_MAX_BYTES] = '\0';
	for (unsigned int i = 0; i < n_max; i++) {
		number(ref, i);
		ingests[i] = begin(fx, ref);
	}
	assert_fails(ingest_open(fx->ingests, &fx->ctx, "r", 0, 0, true, &one_more, &fx->err),
		     &fx->err, ERR_RESOURCE_EXHAUSTED);
	for (unsigned int i = 0; i < n_max; i++) {
		number(ref, i);
		ingests_abort(fx->ingests, ref);
		ingest_close(ingests[i]);
	}
	ingest_close(begin(fx, "r"));
	free(ingests);
	free(ref);
}

/* --- what the start finds ------------------------------------------------------------------------------- */

static void halves_are_removed_and_the_rest_is_taken_up(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");

	assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
	ingest_close(ingest);
	write_file(fx, "7", "bytes of nobody");
	write_file(fx, "8.ref", "lighter-ingest 1 000");
	write_file(fx, "8", "bytes of whom?");
	write_file(fx, "9.ref", "");
	write_file(fx, "08", "no name of ours");
	write_file(fx, "8.refx", "nor this");
	restart(fx);
	assert_false(exists(fx, "7"));
	assert_false(exists(fx, "8.ref"));
	assert_false(exists(fx, "8"));
	assert_false(exists(fx, "9.ref"));
	/* What is not ours is left alone. */
	assert_true(exists(fx, "08"));
	assert_true(exists(fx, "8.refx"));
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 5);
	ingest_close(ingest);
	/* Numbers that were seen are not used again. */
	ingest_close(begin(fx, "s"));
	assert_true(exists(fx, "10.ref"));
}

static void of_two_with_one_reference_the_later_stays(void **state)
{
	static const char head[] = "lighter-ingest 1 00000000000000000000 00000000000000000001 "
				   "00001\nr";
	struct fixture *fx = *state;

	write_file(fx, "3.ref", head);
	write_file(fx, "3", "old");
	write_file(fx, "12.ref", head);
	write_file(fx, "12", "later");
	write_file(fx, "5.ref", head);
	write_file(fx, "5", "older");
	restart(fx);
	assert_true(exists(fx, "12"));
	assert_false(exists(fx, "3"));
	assert_false(exists(fx, "3.ref"));
	assert_false(exists(fx, "5"));
	assert_false(exists(fx, "5.ref"));
	{
		struct ingest *ingest = begin(fx, "r");

		assert_int_equal(held(fx, ingest, (const uint8_t *)"later"), 5);
		ingest_close(ingest);
	}
}

static void what_a_commit_left_behind_is_removed(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");

	assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
	ingest_close(ingest);
	/* As a blob with a row would have it. */
	assert_int_equal(linkat(fx->root->fd, "ingests/1", fx->root->fd, "blob", 0), 0);
	restart(fx);
	assert_false(knows(fx, "r"));
	assert_false(exists(fx, "1"));
	assert_false(exists(fx, "1.ref"));
	assert_int_equal(faccessat(fx->root->fd, "blob", F_OK, 0), 0);
}

/* Of the file @name in ingests/. */
static uint64_t room_of(struct fixture *fx, const char *name)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "ingests/%s", name);
	assert_int_equal(fstatat(fx->root->fd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void room_is_reserved_for_those_who_write_alone(void **state)
{
	struct fixture *fx = *state;
	const uint64_t total = 32u << 20;
	struct ingest *ingest;
	char path[300];
	int fd;

	assert_ok(ingest_open(fx->ingests, &fx->ctx, "r", total, 0, true, &ingest, &fx->err),
		  &fx->err);
	assert_ok(put(fx, ingest, 0, "bytes", 5), &fx->err);
	if (room_of(fx, "1") < total)
		print_message("this file system reserves nothing\n");
	ingest_close(ingest);
	assert_true(room_of(fx, "1") < 1u << 20);

	/* Who goes on has room reserved again; as it is left by a kill, the next start gives it back. */
	snprintf(path, sizeof(path), "ingests/1");
	fd = openat(fx->root->fd, path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	(void)fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)total);
	close(fd);
	restart(fx);
	assert_true(room_of(fx, "1") < 1u << 20);
	ingest = begin(fx, "r");
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytes"), 5);
	assert_ok(put(fx, ingest, 5, "more", 4), &fx->err);
	assert_int_equal(held(fx, ingest, (const uint8_t *)"bytesmore"), 9);
	ingest_close(ingest);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_full_disk_keeps_what_was_written),
		TEST(short_writes_are_completed),
		TEST(room_is_reserved_for_those_who_write_alone),
		TEST(a_broken_disk_is_our_fault_and_a_busy_process_has_no_room),
		TEST(a_small_one_gets_its_file_when_its_writer_goes),
		TEST(one_that_grows_gets_its_file),
		TEST(one_that_cannot_be_kept_stays_in_memory),
		TEST(one_that_cannot_grow_is_held_as_it_was),
		TEST(beyond_so_many_in_memory_the_next_gets_its_file_at_once),
		TEST(what_has_to_wait_is_not_done_where_nothing_may),
		TEST(one_that_cannot_be_opened_stays),
		TEST(memory_that_runs_out_fails_calls_and_nothing_else),
		TEST(bytes_that_somebody_took_away_are_missed),
		TEST(references_together_are_bounded),
		TEST(halves_are_removed_and_the_rest_is_taken_up),
		TEST(of_two_with_one_reference_the_later_stays),
		TEST(what_a_commit_left_behind_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
