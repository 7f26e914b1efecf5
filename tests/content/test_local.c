/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local store when calls of the system fail, when it is killed, and when it finds what it did not leave.
 * What all stores do is for tests/conformance.
 */
#include "content/ingest_bytes.h"
#include "content/local.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/fs.h"
#include "content/blob_files.h"
#include "content/config.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

static const struct content_store_ops *const ops = &local_content_ops;

struct fixture {
	struct temp_root *root;
	struct content_conf conf;
	void *store;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static void open_store(struct fixture *fx)
{
	assert_ok(ops->open(fx->root->path, &fx->conf, &fx->store, &fx->err), &fx->err);
}

static void close_store(struct fixture *fx)
{
	ops->close(fx->store);
	fx->store = NULL;
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->root = temp_root_new();
	fx->conf.adopt = true;
	arena_init(&fx->arena, 64u << 20);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	open_store(fx);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	fault_clear();
	close_store(fx);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx);
	return 0;
}

static struct digest digest_of_text(const char *text)
{
	struct digest digest;
	struct err err;

	assert_ok(digest_of(DIGEST_SHA256, text, strlen(text), &digest, &err), &err);
	return digest;
}

static struct ingest *begin(struct fixture *fx, const char *ref)
{
	struct ingest *ingest = NULL;

	assert_ok(ops->ingest_open(fx->store, &fx->ctx, ref, 0, NULL, true, &ingest, &fx->err),
		  &fx->err);
	return ingest;
}

/* One whose bytes have a file from the first on. */
static struct ingest *begin_large(struct fixture *fx, const char *ref)
{
	struct ingest *ingest = NULL;

	assert_ok(ops->ingest_open(fx->store, &fx->ctx, ref, INGEST_MEMORY_BYTES + 1, NULL, true,
				   &ingest, &fx->err),
		  &fx->err);
	return ingest;
}

static int put(struct fixture *fx, struct ingest *ingest, const char *text)
{
	const struct iovec piece = {(void *)(uintptr_t)text, strlen(text)};

	return ops->ingest_write(fx->store, &fx->ctx, ingest, 0, &piece, 1, true, &fx->err);
}

static int commit(struct fixture *fx, struct ingest *ingest)
{
	const struct ingest_commit req = {0};
	struct digest digest;

	return ops->ingest_commit(fx->store, &fx->ctx, ingest, &req, &digest, &fx->err);
}

static void add(struct fixture *fx, const char *text)
{
	struct ingest *ingest = begin(fx, "add");

	assert_ok(put(fx, ingest, text), &fx->err);
	assert_ok(commit(fx, ingest), &fx->err);
	ops->ingest_close(fx->store, ingest);
}

static void add_large(struct fixture *fx, const char *text)
{
	struct ingest *ingest = begin_large(fx, "add");

	assert_ok(put(fx, ingest, text), &fx->err);
	assert_ok(commit(fx, ingest), &fx->err);
	ops->ingest_close(fx->store, ingest);
}

static bool is_there(struct fixture *fx, const char *text)
{
	struct digest digest = digest_of_text(text);
	struct blob_info info;

	if (ops->info(fx->store, &fx->ctx, &digest, &info, &fx->err) < 0) {
		assert_int_equal(fx->err.code, ERR_NOT_FOUND);
		return false;
	}
	return true;
}

static void assert_reads(struct fixture *fx, const char *text)
{
	struct digest digest = digest_of_text(text);
	struct blob *blob;
	uint64_t size;
	char buf[256];

	assert_int_equal(ops->blob_open(fx->store, &fx->ctx, &digest, true, &blob, &size, &fx->err),
			 0);
	assert_int_equal(size, strlen(text));
	assert_int_equal(ops->read_at(fx->store, blob, 0, buf, size, true, &fx->err), 0);
	assert_memory_equal(buf, text, size);
	ops->blob_close(fx->store, blob);
}

/* "blobs/sha256/<hex>" of @text. */
static const char *path_of(const char *text, char buf[300])
{
	struct digest digest = digest_of_text(text);
	char path[BLOB_PATH_MAX];

	snprintf(buf, 300, "blobs/%s", blob_path(&digest, path));
	return buf;
}

static void write_file(struct fixture *fx, const char *path, const char *text)
{
	int fd = openat(fx->root->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static bool exists(struct fixture *fx, const char *path)
{
	return faccessat(fx->root->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void remove_blob(struct fixture *fx, const char *text)
{
	struct digest digest = digest_of_text(text);

	assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
}

static void assert_empty(struct fixture *fx, const char *path)
{
	assert_int_equal(fs_is_empty(fx->root->fd, path, &fx->err), 1);
}

/* --- failures ------------------------------------------------------------------------------------------- */

static void a_commit_without_room_can_be_tried_again(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin_large(fx, "r");

	assert_ok(put(fx, ingest, "bytes"), &fx->err);
	fault_after(FAULT_LINKAT, 0, ENOSPC);
	assert_fails(commit(fx, ingest), &fx->err, ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(fault_clear(), 1);
	assert_false(is_there(fx, "bytes"));
	assert_ok(commit(fx, ingest), &fx->err);
	ops->ingest_close(fx->store, ingest);
	assert_reads(fx, "bytes");
}

static void a_small_commit_without_room_can_be_tried_again(void **state)
{
	static const enum fault_call calls[] = {FAULT_OPENAT, FAULT_WRITE};
	struct fixture *fx = *state;
	struct ingest *ingest = begin(fx, "r");
	char path[300];

	assert_ok(put(fx, ingest, "bytes"), &fx->err);
	for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
		fault_after(calls[i], 0, ENOSPC);
		assert_fails(commit(fx, ingest), &fx->err, ERR_RESOURCE_EXHAUSTED);
		assert_int_equal(fault_clear(), 1);
		assert_false(is_there(fx, "bytes"));
		assert_false(exists(fx, path_of("bytes", path)));
	}
	assert_ok(commit(fx, ingest), &fx->err);
	ops->ingest_close(fx->store, ingest);
	assert_reads(fx, "bytes");
	assert_empty(fx, "ingests");
}

static void a_sync_that_fails_ends_the_ingest(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest = begin_large(fx, "r");
	struct ingest_info info;
	char path[300];

	assert_ok(put(fx, ingest, "bytes"), &fx->err);
	fault_after(FAULT_FSYNC, 0, EIO);
	assert_fails(commit(fx, ingest), &fx->err, ERR_INTERNAL);
	fault_clear();
	/* The second try would be told that all is well. */
	assert_fails(commit(fx, ingest), &fx->err, ERR_ABORTED);
	ops->ingest_close(fx->store, ingest);
	assert_false(is_there(fx, "bytes"));
	assert_false(exists(fx, path_of("bytes", path)));
	assert_fails(ops->status(fx->store, &fx->ctx, "r", &info, &fx->err), &fx->err,
		     ERR_NOT_FOUND);
	assert_empty(fx, "ingests");
	add(fx, "bytes");
	assert_reads(fx, "bytes");
}

static void a_reader_without_descriptors_is_told(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = digest_of_text("one");
	struct blob *blob;
	uint64_t size;

	add(fx, "one");
	add(fx, "two");
	assert_reads(fx, "two");
	fault_after(FAULT_OPENAT, 0, EMFILE);
	assert_fails(ops->blob_open(fx->store, &fx->ctx, &digest, true, &blob, &size, &fx->err),
		     &fx->err, ERR_RESOURCE_EXHAUSTED);
	/* What was kept open was let go of for it, and a second try was made. */
	assert_int_equal(fault_clear(), 2);
	assert_reads(fx, "one");
}

static void what_has_to_wait_is_not_done_where_nothing_may(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = digest_of_text("bytes");
	struct blob *blob;
	uint64_t size;
	char buf[5];

	add(fx, "bytes");
	/* Not open yet: its row has to be looked up, its file to be opened. */
	assert_int_equal(ops->blob_open(fx->store, &fx->ctx, &digest, false, &blob, &size,
					&fx->err),
			 1);
	assert_reads(fx, "bytes");
	assert_int_equal(ops->blob_open(fx->store, &fx->ctx, &digest, false, &blob, &size,
					&fx->err),
			 0);
	assert_int_equal(size, 5);
	/* Just written, it is in the page cache; a file system that cannot tell makes us wait. */
	assert_true(ops->read_at(fx->store, blob, 0, buf, 5, false, &fx->err) >= 0);
	ops->blob_close(fx->store, blob);
	/* A removed one is not open any more. */
	assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
	assert_int_equal(ops->blob_open(fx->store, &fx->ctx, &digest, false, &blob, &size,
					&fx->err),
			 1);
}

static void files_that_were_tampered_with_are_data_loss(void **state)
{
	struct fixture *fx = *state;
	struct digest gone = digest_of_text("gone"), cut = digest_of_text("cut off");
	struct blob *blob;
	uint64_t size;
	char path[300];

	add(fx, "gone");
	add(fx, "cut off");
	assert_int_equal(unlinkat(fx->root->fd, path_of("gone", path), 0), 0);
	write_file(fx, path_of("cut off", path), "cut");
	assert_fails(ops->blob_open(fx->store, &fx->ctx, &gone, true, &blob, &size, &fx->err),
		     &fx->err, ERR_DATA_LOSS);
	assert_fails(ops->blob_open(fx->store, &fx->ctx, &cut, true, &blob, &size, &fx->err),
		     &fx->err, ERR_DATA_LOSS);
	/* The next start forgets them, so that they can be had again. */
	close_store(fx);
	open_store(fx);
	assert_false(is_there(fx, "gone"));
	assert_false(is_there(fx, "cut off"));
	add(fx, "cut off");
	assert_reads(fx, "cut off");
}

static void more_blobs_than_are_kept_open_can_be_read(void **state)
{
	struct fixture *fx = *state;
	char text[16];

	for (int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "blob %d", i);
		add(fx, text);
	}
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 100; i++) {
			snprintf(text, sizeof(text), "blob %d", i);
			assert_reads(fx, text);
		}
}

/* --- killed ------------------------------------------------------------------------------------------------ */

struct kill_arg {
	struct fixture *fx;
	const char *point;
	void (*add)(struct fixture *fx, const char *text);
};

static int commit_and_die(void *arg)
{
	const struct kill_arg *kill = arg;
	struct fixture *fx = kill->fx;

	/* Before there are threads that read it. */
	setenv("LIGHTER_CRASH_POINT", kill->point, 1);
	open_store(fx);
	kill->add(fx, "bytes");
	{
		struct digest digest = digest_of_text("bytes");

		assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
	}
	return 0;
}

/* Either the blob is there, or its bytes are, to go on with. */
static void assert_sound(struct fixture *fx, bool must_be_there, bool must_be_gone)
{
	struct ingest *ingest;
	bool there = is_there(fx, "bytes");

	assert_true(there || !must_be_there);
	assert_true(!there || !must_be_gone);
	if (there) {
		assert_reads(fx, "bytes");
		assert_empty(fx, "ingests");
		return;
	}
	assert_empty(fx, "blobs/sha256");
	ingest = begin(fx, "add");
	assert_ok(put(fx, ingest, "bytes"), &fx->err);
	assert_ok(commit(fx, ingest), &fx->err);
	ops->ingest_close(fx->store, ingest);
	assert_reads(fx, "bytes");
	assert_empty(fx, "ingests");
}

static void killed_anywhere_it_is_a_blob_or_an_ingest(void **state)
{
	static const struct {
		void (*add)(struct fixture *fx, const char *text);
		const char *point;
		bool holds_bytes; /* of the ingest */
		bool is_there;
		bool is_gone;
	} cases[] = {
		{add_large, "ingest.head-written", false, false, true},
		{add_large, "ingest.written", true, false, true},
		{add_large, "commit.linked", true, false, true},
		{add_large, "commit.synced", true, false, true},
		{add_large, "commit.row-written", false, true, false},
		{add_large, "ingest.head-deleted", false, true, false},
		{add_large, "remove.row-deleted", false, false, true},
		{add, "ingest.written", false, false, true},
		{add, "commit.file-written", false, false, true},
		{add, "commit.row-written", false, true, false},
		{add, "remove.row-deleted", false, false, true},
	};
	struct fixture *fx = *state;

	require_crash_points();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct kill_arg arg = {fx, cases[i].point, cases[i].add};
		struct digest digest = digest_of_text("bytes");
		struct ingest_info info;
		int status;

		close_store(fx);
		status = run_child(commit_and_die, &arg);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			fail_msg("%s: wait status %#x", cases[i].point, status);
		open_store(fx);
		if (cases[i].holds_bytes) {
			assert_ok(ops->status(fx->store, &fx->ctx, "add", &info, &fx->err),
				  &fx->err);
			assert_int_equal(info.offset_bytes, 5);
		}
		assert_sound(fx, cases[i].is_there, cases[i].is_gone);
		assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
	}
}

static int add_small_and_die(void *arg)
{
	const struct kill_arg *kill = arg;

	/* Before there are threads that read it. */
	setenv("LIGHTER_CRASH_POINT", kill->point, 1);
	open_store(kill->fx);
	add(kill->fx, "bytes");
	add(kill->fx, "other bytes");
	/* Where it did not die so, it syncs them now. */
	close_store(kill->fx);
	return 0;
}

/* A power cut that took @text's file, or what was in it. */
static void lose_file(struct fixture *fx, const char *text, bool wholly)
{
	char path[300];

	path_of(text, path);
	assert_true(exists(fx, path));
	if (wholly)
		assert_int_equal(unlinkat(fx->root->fd, path, 0), 0);
	else
		write_file(fx, path, "");
}

static void assert_empty_of_new(struct fixture *fx)
{
	assert_false(exists(fx, "blobs/new"));
}

static void small_files_that_were_not_synced_are_written_anew(void **state)
{
	struct fixture *fx = *state;
	struct kill_arg arg = {fx, "late-sync.synced", NULL};
	int status;

	require_crash_points();
	for (int wholly = 0; wholly < 2; wholly++) {
		close_store(fx);
		status = run_child(add_small_and_die, &arg);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		lose_file(fx, "bytes", wholly);
		lose_file(fx, "other bytes", wholly);
		open_store(fx);
		assert_reads(fx, "bytes");
		assert_reads(fx, "other bytes");
		remove_blob(fx, "bytes");
		remove_blob(fx, "other bytes");
	}
}

/* Killed, the machine running on: the files are as they were, and stay so on a full disk. */
static void small_files_that_are_there_need_no_room_at_the_start(void **state)
{
	struct fixture *fx = *state;
	struct kill_arg arg = {fx, "late-sync.synced", NULL};
	int status;

	require_crash_points();
	close_store(fx);
	status = run_child(add_small_and_die, &arg);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (int i = 0; i < 2; i++) {
		fault_after(FAULT_WRITE, 0, ENOSPC);
		open_store(fx);
		assert_true(fault_clear() > 0);
		assert_reads(fx, "bytes");
		assert_reads(fx, "other bytes");
		assert_empty_of_new(fx);
		close_store(fx);
	}
	/* The database has had them all the time, and they are read from there. */
	lose_file(fx, "bytes", true);
	lose_file(fx, "other bytes", false);
	fault_after(FAULT_WRITE, 0, EIO);
	open_store(fx);
	fault_clear();
	assert_reads(fx, "bytes");
	assert_reads(fx, "other bytes");
	close_store(fx);
	open_store(fx);
	assert_reads(fx, "bytes");
	assert_reads(fx, "other bytes");
}

/* What the kernel could not write it takes for written afterwards: the next start must not believe it. */
static bool has_failed_to_sync(void *arg)
{
	(void)arg;
	return fault_n_failed() > 0;
}

static bool reads_bytes(void *arg)
{
	struct fixture *fx = arg;
	struct digest digest = digest_of_text("bytes");
	struct blob *blob;
	uint64_t size;
	char buf[5];
	bool right;

	if (ops->blob_open(fx->store, &fx->ctx, &digest, true, &blob, &size, &fx->err) < 0)
		return false;
	right = size == 5 && ops->read_at(fx->store, blob, 0, buf, 5, true, &fx->err) == 0 &&
		memcmp(buf, "bytes", 5) == 0;
	ops->blob_close(fx->store, blob);
	return right;
}

/* While it runs, what the database holds is read from there; and who commits is told of the disk. */
static void small_files_whose_sync_failed_are_not_read(void **state)
{
	struct fixture *fx = *state;
	struct ingest *ingest;

	add(fx, "bytes");
	fault_after(FAULT_FSYNC, 0, EIO);
	wait_until(has_failed_to_sync, NULL, "a sync that fails");
	/* What a page that was dropped is read as. */
	lose_file(fx, "bytes", false);
	wait_until(reads_bytes, fx, "the bytes of the database");
	ingest = begin(fx, "r");
	assert_ok(put(fx, ingest, "more"), &fx->err);
	assert_fails(commit(fx, ingest), &fx->err, ERR_INTERNAL);
	ops->ingest_close(fx->store, ingest);
	fault_clear();
	close_store(fx);
	open_store(fx);
	assert_reads(fx, "bytes");
}

static void small_files_whose_sync_failed_are_written_anew(void **state)
{
	struct fixture *fx = *state;
	struct stat before, after;
	char path[300];

	add(fx, "bytes");
	fault_after(FAULT_FSYNC, 0, EIO);
	close_store(fx); /* which syncs what has not been */
	assert_true(fault_clear() > 0);
	assert_int_equal(fstatat(fx->root->fd, path_of("bytes", path), &before, 0), 0);
	open_store(fx);
	assert_int_equal(fstatat(fx->root->fd, path, &after, 0), 0);
	assert_int_not_equal(before.st_ino, after.st_ino);
	assert_reads(fx, "bytes");
}

/* One that was removed before its file was synced does not come back. */
static void removed_before_it_is_synced_it_stays_removed(void **state)
{
	struct fixture *fx = *state;
	struct kill_arg arg = {fx, "remove.row-deleted", add};
	char path[300];
	int status;

	require_crash_points();
	close_store(fx);
	status = run_child(commit_and_die, &arg);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	open_store(fx);
	assert_false(is_there(fx, "bytes"));
	assert_false(exists(fx, path_of("bytes", path)));
}

/* Once they are synced, the database has forgotten them: what is lost then is lost, and said so. */
static void synced_files_are_not_held_twice(void **state)
{
	struct fixture *fx = *state;
	struct kill_arg arg = {fx, "late-sync.forgotten", NULL};
	int status;

	require_crash_points();
	close_store(fx);
	status = run_child(add_small_and_die, &arg);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	open_store(fx);
	assert_reads(fx, "bytes");
	close_store(fx);
	lose_file(fx, "bytes", true);
	open_store(fx);
	assert_false(is_there(fx, "bytes"));
}

/* Many more than wait to be synced at a time. */
static void very_many_small_ones(void **state)
{
	struct fixture *fx = *state;
	char text[32];

	for (int i = 0; i < 1500; i++) {
		snprintf(text, sizeof(text), "small blob %d", i);
		add(fx, text);
	}
	close_store(fx);
	open_store(fx);
	for (int i = 0; i < 1500; i++) {
		snprintf(text, sizeof(text), "small blob %d", i);
		assert_reads(fx, text);
	}
}

/* --- what the start finds ------------------------------------------------------------------------------------ */

static void files_without_a_row_are_removed(void **state)
{
	struct fixture *fx = *state;
	char path[300];

	add(fx, "one");
	close_store(fx);
	write_file(fx, path_of("another", path), "another");
	write_file(fx, "blobs/sha256/note.txt", "not ours");
	open_store(fx);
	assert_false(exists(fx, path));
	assert_false(is_there(fx, "another"));
	assert_true(exists(fx, "blobs/sha256/note.txt"));
	assert_reads(fx, "one");
}

static void a_directory_in_place_of_a_file_is_left_alone(void **state)
{
	struct fixture *fx = *state;
	char path[300];

	add(fx, "one");
	add(fx, "two");
	close_store(fx);
	assert_int_equal(unlinkat(fx->root->fd, path_of("one", path), 0), 0);
	assert_int_equal(mkdirat(fx->root->fd, path, 0700), 0);
	/* The blob is forgotten; then the directory is one without a row. */
	for (int i = 0; i < 2; i++) {
		open_store(fx);
		assert_false(is_there(fx, "one"));
		assert_reads(fx, "two");
		close_store(fx);
		assert_true(exists(fx, path));
	}
	open_store(fx);
}

static void a_store_that_is_not_mounted_is_not_taken_for_lost(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	close_store(fx);
	assert_int_equal(renameat(fx->root->fd, "blobs", fx->root->fd, "elsewhere"), 0);
	assert_fails(ops->open(fx->root->path, &fx->conf, &fx->store, &fx->err), &fx->err,
		     ERR_INTERNAL);
	assert_int_equal(renameat(fx->root->fd, "elsewhere", fx->root->fd, "blobs"), 0);
	open_store(fx);
	assert_reads(fx, "one");
}

static void lose_database(struct fixture *fx)
{
	close_store(fx);
	assert_int_equal(unlinkat(fx->root->fd, "metadata.db", 0), 0);
	(void)unlinkat(fx->root->fd, "metadata.db-wal", 0);
	(void)unlinkat(fx->root->fd, "metadata.db-shm", 0);
}

static bool has_adopted(void *arg)
{
	return !exists(arg, "adopt");
}

static void without_a_database_good_blobs_are_adopted(void **state)
{
	struct fixture *fx = *state;
	char path[300];

	add(fx, "one");
	add(fx, "two");
	add(fx, "three");
	lose_database(fx);
	write_file(fx, path_of("three", path), "thrEE");
	write_file(fx, "blobs/sha256/note.txt", "not ours");
	open_store(fx);
	wait_until(has_adopted, fx, "the end of adopting");
	assert_reads(fx, "one");
	assert_reads(fx, "two");
	assert_false(is_there(fx, "three"));
	assert_false(exists(fx, path));
	close_store(fx);
	open_store(fx);
	assert_reads(fx, "one");
}

static void adopting_goes_on_after_a_restart(void **state)
{
	struct fixture *fx = *state;
	char path[300];

	add(fx, "one");
	close_store(fx);
	/* As if stopped half way: the database is there, and something is left. */
	assert_int_equal(mkdirat(fx->root->fd, "adopt", 0700), 0);
	assert_int_equal(mkdirat(fx->root->fd, "adopt/sha256", 0700), 0);
	write_file(fx, path_of("two", path), "two");
	{
		char to[320];

		snprintf(to, sizeof(to), "adopt%s", path + strlen("blobs"));
		assert_int_equal(renameat(fx->root->fd, path, fx->root->fd, to), 0);
	}
	open_store(fx);
	wait_until(has_adopted, fx, "the end of adopting");
	assert_reads(fx, "one");
	assert_reads(fx, "two");
}

static void without_leave_nothing_is_adopted_or_touched(void **state)
{
	struct fixture *fx = *state;
	char path[300];

	add(fx, "one");
	lose_database(fx);
	fx->conf.adopt = false;
	assert_fails(ops->open(fx->root->path, &fx->conf, &fx->store, &fx->err), &fx->err,
		     ERR_FAILED_PRECONDITION);
	assert_true(exists(fx, path_of("one", path)));
	assert_false(exists(fx, "metadata.db"));
	fx->conf.adopt = true;
	open_store(fx);
	wait_until(has_adopted, fx, "the end of adopting");
	assert_reads(fx, "one");
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_commit_without_room_can_be_tried_again),
		TEST(a_small_commit_without_room_can_be_tried_again),
		TEST(a_sync_that_fails_ends_the_ingest),
		TEST(a_reader_without_descriptors_is_told),
		TEST(what_has_to_wait_is_not_done_where_nothing_may),
		TEST(files_that_were_tampered_with_are_data_loss),
		TEST(more_blobs_than_are_kept_open_can_be_read),
		TEST(killed_anywhere_it_is_a_blob_or_an_ingest),
		TEST(small_files_that_were_not_synced_are_written_anew),
		TEST(small_files_that_are_there_need_no_room_at_the_start),
		TEST(small_files_whose_sync_failed_are_not_read),
		TEST(small_files_whose_sync_failed_are_written_anew),
		TEST(removed_before_it_is_synced_it_stays_removed),
		TEST(synced_files_are_not_held_twice),
		TEST(very_many_small_ones),
		TEST(files_without_a_row_are_removed),
		TEST(a_directory_in_place_of_a_file_is_left_alone),
		TEST(a_store_that_is_not_mounted_is_not_taken_for_lost),
		TEST(without_a_database_good_blobs_are_adopted),
		TEST(adopting_goes_on_after_a_restart),
		TEST(without_leave_nothing_is_adopted_or_touched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
