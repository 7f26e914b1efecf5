/* SPDX-License-Identifier: Apache-2.0 */
#include "content/ingest_head.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "content/content_store.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

static void write_head(struct temp_root *root, const char *ref, uint64_t total, int64_t started)
{
	const struct ingest_head head = {(char *)(uintptr_t)ref, total, started};
	struct err err = ERR_INIT;

	(void)unlinkat(root->fd, "1.ref", 0);
	assert_ok(ingest_head_write(root->fd, "1.ref", &head, &err), &err);
}

static char *read_head(struct temp_root *root, size_t *ret_size)
{
	struct err err = ERR_INIT;
	char *text;

	assert_ok(fs_read_file(root->fd, "1.ref", 1 << 20, &text, ret_size, &err), &err);
	return text;
}

static void assert_reads(struct temp_root *root, const char *ref, uint64_t total, int64_t started)
{
	struct ingest_head head;
	struct err err = ERR_INIT;
	size_t size;
	char *text = read_head(root, &size);

	assert_int_equal(ingest_head_parse(text, size, &head, &err), 0);
	assert_string_equal(head.ref, ref);
	assert_true(head.total_bytes == total);
	assert_true(head.started_ns == started);
	free(head.ref);
	free(text);
}

static void what_is_written_is_read_back(void **state)
{
	struct temp_root *root = *state;
	char *longest = malloc(CONTENT_REF_MAX_BYTES + 1);

	memset(longest, 'x', CONTENT_REF_MAX_BYTES);
	longest[CONTENT_REF_MAX_BYTES] = '\0';
	write_head(root, "default/1/layer-sha256:ab", 12345, 1700000000123456789);
	assert_reads(root, "default/1/layer-sha256:ab", 12345, 1700000000123456789);
	write_head(root, "a\nb\n", 0, 0);
	assert_reads(root, "a\nb\n", 0, 0);
	write_head(root, longest, UINT64_MAX, INT64_MAX);
	assert_reads(root, longest, UINT64_MAX, INT64_MAX);
	free(longest);
	/* A clock that stands before 1970 is one, too. */
	write_head(root, "r", 1, -5);
	assert_reads(root, "r", 1, -5);
}

static void the_total_can_be_changed_later(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	write_head(root, "ref", 0, 77);
	assert_ok(ingest_head_set_total(root->fd, "1.ref", UINT64_MAX, &err), &err);
	assert_reads(root, "ref", UINT64_MAX, 77);
}

static void whatever_is_cut_off_or_changed_is_none(void **state)
{
	struct temp_root *root = *state;
	struct ingest_head head;
	struct err err = ERR_INIT;
	char *text, *copy;
	size_t size;

	write_head(root, "some reference", 42, 4711);
	text = read_head(root, &size);
	for (size_t len = 0; len < size; len++) {
		/* An allocation of its own, so that a read past the end is seen. */
		copy = calloc(1, len + 1);
		memcpy(copy, text, len);
		assert_int_equal(ingest_head_parse(copy, len, &head, &err), 1);
		free(copy);
	}
	/* One byte more, and every byte of the line changed. */
	copy = calloc(1, size + 2);
	memcpy(copy, text, size);
	copy[size] = 'x';
	assert_int_equal(ingest_head_parse(copy, size + 1, &head, &err), 1);
	copy[size] = '\0';
	for (size_t i = 0; copy[i] != '\n'; i++) {
		char was = copy[i];

		copy[i] = was == ' ' ? '\t' : ' ';
		assert_int_equal(ingest_head_parse(copy, size, &head, &err), 1);
		copy[i] = '\0';
		assert_int_equal(ingest_head_parse(copy, size, &head, &err), 1);
		copy[i] = was;
	}
	assert_int_equal(ingest_head_parse(copy, size, &head, &err), 0);
	free(head.ref);
	free(copy);
	free(text);
}

static void a_file_that_is_there_is_not_written_over(void **state)
{
	struct temp_root *root = *state;
	const struct ingest_head head = {(char *)(uintptr_t) "ref", 0, 0};
	struct err err = ERR_INIT;

	/* The file is there already: it is somebody else's, and stays. */
	write_head(root, "first", 1, 1);
	assert_fails(ingest_head_write(root->fd, "1.ref", &head, &err), &err, ERR_INTERNAL);
	assert_reads(root, "first", 1, 1);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, temp_root_setup, temp_root_teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_read_back),
		TEST(the_total_can_be_changed_later),
		TEST(whatever_is_cut_off_or_changed_is_none),
		TEST(a_file_that_is_there_is_not_written_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
