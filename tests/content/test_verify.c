/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying: what is found, beside a store that goes on; what is no finding; and going on where it stopped.
 */
#include "content/verify.h"

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
#include "content/blob_files.h"
#include "content/config.h"
#include "content/ingest_bytes.h"
#include "content/local.h"
#include "tests/content/blobs.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

static const struct content_store_ops *const ops = &local_content_ops;

/**
 * struct fixture - a store that is open, as the daemon's; and what verifies it
 * @found: "kind digest why" in lines; @n_found of them
 */
struct fixture {
	struct temp_root *root;
	struct content_conf conf;
	void *store;
	struct arena arena;
	struct ctx ctx;
	struct err err;

	struct blob_rows *rows;
	int dir_fd, lock_fd;
	struct progress progress;
	struct verify_options options;
	struct verify_state state;
	char found[16384];
	unsigned int n_found, n_put_aside;
};

static void note(struct fixture *fx, const char *kind, const char *name, const char *why)
{
	size_t len = strlen(fx->found);

	snprintf(fx->found + len, sizeof(fx->found) - len, "%s %s: %s\n", kind, name, why);
	fx->n_found++;
}

static void note_found(void *arg, enum verify_kind kind, const struct digest *digest,
		       const char *why)
{
	char text[DIGEST_TEXT_BYTES];

	note(arg, verify_kind_name(kind), digest_format(digest, text), why);
}

static void note_stray(void *arg, const char *name, const char *why)
{
	note(arg, "stray", name, why);
}

static int note_put_aside(void *arg, const struct blob_info *info, int fd, struct err *err)
{
	struct fixture *fx = arg;

	(void)info;
	(void)fd;
	(void)err;
	fx->n_put_aside++;
	return 0;
}

static void open_store(struct fixture *fx)
{
	assert_ok(ops->open(fx->root->path, &fx->conf, &fx->store, &fx->err), &fx->err);
}

static void close_store(struct fixture *fx)
{
	ops->close(fx->store);
	fx->store = NULL;
}

static void open_rows(struct fixture *fx)
{
	char *path = temp_root_path(fx->root, "metadata.db");

	assert_ok(blob_rows_open_to_read(path, &fx->rows, &fx->err), &fx->err);
	free(path);
}

static void lock_state(struct fixture *fx)
{
	assert_ok(verify_state_lock(fx->root->fd, &fx->dir_fd, &fx->lock_fd, &fx->err), &fx->err);
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->root = temp_root_new();
	fx->conf.adopt = true;
	arena_init(&fx->arena, 64u << 20);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	fx->dir_fd = fx->lock_fd = -1;
	progress_init(&fx->progress, "verifying", "blobs");
	fx->options = (struct verify_options){
		.progress = &fx->progress,
		.found = note_found,
		.stray = note_stray,
		.arg = fx,
		.settled_ns = 0,
		.save_ns = 0,
	};
	open_store(fx);
	open_rows(fx);
	lock_state(fx);
	*state = fx;
	return 0;
}

static void close_reader(struct fixture *fx)
{
	blob_rows_close(fx->rows);
	fx->rows = NULL;
	close(fx->dir_fd);
	close(fx->lock_fd);
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	fault_clear();
	close_reader(fx);
	close_store(fx);
	arena_done(&fx->arena);
	progress_done(&fx->progress);
	temp_root_free(fx->root);
	free(fx);
	return 0;
}

/* --- a store and its blobs ------------------------------------------------------------------------------- */

static void add_of(struct fixture *fx, const char *text, uint64_t total)
{
	const struct ingest_commit req = {0};
	const struct iovec piece = {(void *)(uintptr_t)text, strlen(text)};
	struct ingest *ingest = NULL;
	struct digest digest;

	assert_ok(ops->ingest_open(fx->store, &fx->ctx, "add", total, NULL, true, &ingest,
				   &fx->err),
		  &fx->err);
	assert_ok(ops->ingest_write(fx->store, &fx->ctx, ingest, 0, &piece, 1, true, &fx->err),
		  &fx->err);
	assert_ok(ops->ingest_commit(fx->store, &fx->ctx, ingest, &req, &digest, &fx->err),
		  &fx->err);
	ops->ingest_close(fx->store, ingest);
}

/* As large ones are added: the database does not have its bytes, not even for a moment. */
static void add(struct fixture *fx, const char *text)
{
	add_of(fx, text, INGEST_MEMORY_BYTES + 1);
}

static void add_many(struct fixture *fx, int n)
{
	char text[32];

	for (int i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "blob %d", i);
		add(fx, text);
	}
}

static void delete_blob(struct fixture *fx, const char *text)
{
	struct digest digest = blobs_digest(text);

	assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
}

/* What somebody's disk, or hand, did to it. */
static void overwrite(struct fixture *fx, const char *text, const char *with)
{
	char path[512];
	int fd = openat(fx->root->fd, blobs_path(".", text, path), O_WRONLY | O_TRUNC | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, with, strlen(with)), strlen(with));
	close(fd);
}

static void delete_file(struct fixture *fx, const char *text)
{
	char path[512];

	assert_int_equal(unlinkat(fx->root->fd, blobs_path(".", text, path), 0), 0);
}

static int verify(struct fixture *fx)
{
	fx->found[0] = '\0';
	fx->n_found = 0;
	fx->progress.done_items = fx->progress.done_bytes = 0;
	return verify_all(fx->root->fd, &fx->rows, &fx->options, fx->dir_fd, &fx->state, &fx->err);
}

static void assert_found(const struct fixture *fx, const char *kind, const char *text,
			 const char *why)
{
	struct digest digest = blobs_digest(text);
	char line[512], name[DIGEST_TEXT_BYTES];

	snprintf(line, sizeof(line), "%s %s: %s", kind, digest_format(&digest, name), why);
	assert_contains(fx->found, line);
}

static void load_state(struct fixture *fx)
{
	assert_int_equal(verify_state_load(fx->dir_fd, &fx->state, &fx->err), 0);
}

/* --- findings -------------------------------------------------------------------------------------------- */

static void good_blobs_are_good(void **state)
{
	struct fixture *fx = *state;

	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->state.last.n_blobs, 0);
	/* More than are looked up at a time. */
	add_many(fx, 300);
	add(fx, "");
	assert_ok(verify(fx), &fx->err);
	assert_string_equal(fx->found, "");
	assert_int_equal(fx->state.last.n_blobs, 301);
	assert_int_equal(fx->state.last.bytes, fx->progress.done_bytes);
	assert_int_equal(fx->progress.done_items, 301);
	assert_int_equal(fx->progress.total_items, 301);
	assert_int_equal(fx->progress.total_bytes, fx->progress.done_bytes);
	assert_int_equal(fx->state.last.n_problems, 0);
	assert_true(fx->state.last.ended_ns >= fx->state.last.begun_ns);
	assert_int_equal(fx->state.now.begun_ns, 0);
}

static void what_is_wrong_is_found(void **state)
{
	struct fixture *fx = *state;
	char path[512];

	add(fx, "good");
	add(fx, "changed");
	add(fx, "too short");
	add(fx, "gone");
	add(fx, "led away");
	add(fx, "made a fifo");
	overwrite(fx, "changed", "CHANGED");
	overwrite(fx, "too short", "too");
	delete_file(fx, "gone");
	delete_file(fx, "led away");
	assert_int_equal(symlinkat("/dev/null", fx->root->fd, blobs_path(".", "led away", path)),
			 0);
	delete_file(fx, "made a fifo");
	assert_int_equal(mkfifoat(fx->root->fd, blobs_path(".", "made a fifo", path), 0600), 0);
	fx->options.put_aside = note_put_aside;
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->n_found, 5);
	assert_found(fx, "damaged", "changed", "its bytes are not what its name says");
	assert_found(fx, "size", "too short", "its file has 3 bytes, of 9 that there should be");
	assert_found(fx, "missing", "gone", "its file is not there");
	assert_found(fx, "damaged", "led away", "is no regular file");
	assert_found(fx, "damaged", "made a fifo", "is no regular file");
	assert_int_equal(fx->state.last.n_blobs, 6);
	assert_int_equal(fx->state.last.n_problems, 5);
	/* Each, but for the link that cannot be opened as a file. */
	assert_int_equal(fx->n_put_aside, 4);
	/* Nothing is changed by looking. */
	{
		struct digest digest = blobs_digest("changed");
		struct blob_info info;

		assert_ok(ops->info(fx->store, &fx->ctx, &digest, &info, &fx->err), &fx->err);
	}
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->n_found, 5);
}

static void unreadable_is_not_damaged(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	fault_after(FAULT_PREAD, 0, EIO);
	assert_ok(verify(fx), &fx->err);
	fault_clear();
	assert_int_equal(fx->n_found, 1);
	assert_found(fx, "unreadable", "one", "read at byte 0: Input/output error");
	assert_int_equal(fx->state.last.n_problems, 1);
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->n_found, 0);
}

static void a_failing_disk_ends_it(void **state)
{
	struct fixture *fx = *state;

	add_many(fx, 20);
	fault_after(FAULT_PREAD, 0, EIO);
	fx->options.put_aside = note_put_aside;
	assert_fails(verify(fx), &fx->err, ERR_INTERNAL);
	fault_clear();
	assert_contains(fx->err.msg, "the disk is failing");
	assert_int_equal(fx->n_found, VERIFY_UNREADABLE_MAX);
	assert_int_equal(fx->state.last.ended_ns, 0);
	/* Now and then one is something else. */
	fx->state = (struct verify_state){0};
	fault_after(FAULT_PREAD, 30, EIO);
	assert_int_equal(verify(fx), 0);
	assert_true(fx->state.last.n_problems < VERIFY_UNREADABLE_MAX);
}

static int replace_rows(void *arg, const struct blob_info *info, int fd, struct err *err)
{
	struct fixture *fx = arg;

	blob_rows_close(fx->rows);
	open_rows(fx);
	return note_put_aside(arg, info, fd, err);
}

static int lose_rows(void *arg, const struct blob_info *info, int fd, struct err *err)
{
	struct fixture *fx = arg;

	(void)info;
	(void)fd;
	blob_rows_close(fx->rows);
	fx->rows = NULL;
	return err_set(err, ERR_UNAVAILABLE, "the database is away");
}

static void putting_aside_may_replace_the_rows(void **state)
{
	struct fixture *fx = *state;

	add_many(fx, 20);
	overwrite(fx, "blob 3", "BLOB 3");
	overwrite(fx, "blob 7", "BLOB 7");
	fx->options.put_aside = replace_rows;
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->n_put_aside, 2);
	assert_int_equal(fx->state.last.n_blobs, 20);
	/* Or lose them: then it goes no further. */
	fx->options.put_aside = lose_rows;
	assert_fails(verify(fx), &fx->err, ERR_UNAVAILABLE);
	assert_int_equal(fx->n_found, 1);
	assert_int_equal(fx->state.now.n_problems, 1);
	open_rows(fx);
}

static void many_missing_in_a_row_end_it(void **state)
{
	struct fixture *fx = *state;
	char text[32];

	add_many(fx, 20);
	for (int i = 0; i < 20; i++) {
		snprintf(text, sizeof(text), "blob %d", i);
		delete_file(fx, text);
	}
	fx->options.put_aside = note_put_aside;
	assert_fails(verify(fx), &fx->err, ERR_INTERNAL);
	assert_contains(fx->err.msg, "not mounted");
	assert_int_equal(fx->n_found, VERIFY_UNREADABLE_MAX);
	assert_int_equal(fx->n_put_aside, VERIFY_UNREADABLE_MAX);
	assert_int_equal(fx->state.last.ended_ns, 0);
}

/* As below a daemon that runs, whose blobs were unmounted. */
static void without_the_blobs_directory_it_does_not_begin(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = blobs_digest("one");
	struct verify_pass pass;

	add(fx, "one");
	fx->options.put_aside = note_put_aside;
	assert_int_equal(renameat(fx->root->fd, "blobs", fx->root->fd, "elsewhere"), 0);
	for (int i = 0; i < 2; i++) {
		assert_fails(verify(fx), &fx->err, ERR_INTERNAL);
		assert_fails(verify_some(fx->root->fd, &fx->rows, &fx->options, &digest, 1, &pass,
					 &fx->err),
			     &fx->err, ERR_INTERNAL);
		assert_contains(fx->err.msg, "blobs");
		/* What it was mounted on. */
		if (i == 0)
			assert_int_equal(mkdirat(fx->root->fd, "blobs", 0700), 0);
	}
	assert_int_equal(fx->n_found, 0);
	assert_int_equal(fx->n_put_aside, 0);
	assert_int_equal(unlinkat(fx->root->fd, "blobs", AT_REMOVEDIR), 0);
	assert_int_equal(renameat(fx->root->fd, "elsewhere", fx->root->fd, "blobs"), 0);
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->state.last.n_blobs, 1);
}

static void without_descriptors_nothing_is_said_of_blobs(void **state)
{
	struct fixture *fx = *state;
	unsigned int n = 0, n_failed;

	add(fx, "one");
	do {
		fx->state = (struct verify_state){0};
		fault_after(FAULT_OPENAT, n++, EMFILE);
		if (verify(fx) < 0)
			assert_int_equal(fx->err.code, ERR_RESOURCE_EXHAUSTED);
		n_failed = fault_clear();
		assert_int_equal(fx->n_found, 0);
	} while (n_failed);
	assert_in_range(n, 4, 30);
}

/* --- what is none ---------------------------------------------------------------------------------------- */

static void delete_one(void *arg)
{
	delete_blob(arg, "one");
}

static void damage_and_delete_one(void *arg)
{
	overwrite(arg, "one", "ONE");
	delete_blob(arg, "one");
}

static void damage_and_make_one_anew(void *arg)
{
	damage_and_delete_one(arg);
	add(arg, "one");
}

static void blob_that_goes_meanwhile_is_no_finding(void **state)
{
	static void (*const changes[])(void *arg) = {delete_one, damage_and_delete_one,
						     damage_and_make_one_anew};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		/* Between its row and its file; and while it is read. */
		for (unsigned int n = 0; n < 3; n++) {
			add(fx, "one");
			fx->state = (struct verify_state){0};
			if (n < 2)
				fault_hook(FAULT_OPENAT, n, changes[i], fx);
			else
				fault_hook(FAULT_PREAD, 0, changes[i], fx);
			assert_ok(verify(fx), &fx->err);
			fault_clear();
			assert_string_equal(fx->found, "");
			delete_blob(fx, "one");
		}
	}
}

static void file_without_a_row_is_told_of_once_it_is_settled(void **state)
{
	struct fixture *fx = *state;
	char path[512];

	add(fx, "one");
	blobs_write(fx->root->fd, blobs_path(".", "left over", path), "left over");
	blobs_write(fx->root->fd, "blobs/sha512/note.txt", "not ours");
	/* It may be a commit, whose row comes next. */
	fx->options.settled_ns = INT64_C(3600) * 1000000000;
	assert_ok(verify(fx), &fx->err);
	assert_string_equal(fx->found, "stray sha512/note.txt: is not named after a digest\n");
	fx->options.settled_ns = 0;
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->n_found, 2);
	assert_contains(fx->found, strstr(path, "sha256/"));
	assert_contains(fx->found, ": is no blob");
	assert_int_equal(fx->state.last.n_problems, 0);
}

/* --- going on -------------------------------------------------------------------------------------------- */

static void cancel(void *arg)
{
	struct fixture *fx = arg;

	fx->progress.cancelled = true;
}

static void goes_on_where_it_was_cancelled(void **state)
{
	struct fixture *fx = *state;
	uint64_t done;

	add_many(fx, 20);
	overwrite(fx, "blob 3", "BLOB 3");
	/* Two reads for each blob: its bytes, and its end. */
	fault_hook(FAULT_PREAD, 2 * 12, cancel, fx);
	assert_fails(verify(fx), &fx->err, ERR_CANCELLED);
	fault_clear();
	done = fx->state.now.n_blobs;
	assert_int_equal(done, 12);
	assert_int_equal(fx->state.last.ended_ns, 0);

	load_state(fx);
	assert_int_equal(fx->state.now.n_blobs, done);
	fx->progress.cancelled = false;
	{
		unsigned int found_before = fx->n_found;

		assert_ok(verify(fx), &fx->err);
		/* Found in the one part or the other; known at the end in any case. */
		assert_int_equal(found_before + fx->n_found, 1);
	}
	assert_int_equal(fx->state.last.n_blobs, 20);
	assert_int_equal(fx->state.last.n_problems, 1);
	assert_int_equal(fx->progress.total_items, 20);
	load_state(fx);
	assert_int_equal(fx->state.last.n_blobs, 20);
	assert_int_equal(fx->state.now.begun_ns, 0);
	assert_false(fx->state.has_after);
}

static int verify_and_die(void *arg)
{
	struct fixture *fx = arg;

	/* While there is no other thread that reads it. */
	setenv("LIGHTER_CRASH_POINT", "verify.saved:7", 1);
	open_store(fx);
	open_rows(fx);
	lock_state(fx);
	return verify(fx) < 0 ? 1 : 0;
}

static int add_small_and_die(void *arg)
{
	struct fixture *fx = arg;

	setenv("LIGHTER_CRASH_POINT", "late-sync.synced", 1);
	open_store(fx);
	add_of(fx, "small", 0);
	close_store(fx);
	return 0;
}

/* A power cut took the file, of which the database has the bytes. */
static void lose_small(struct fixture *fx, const char *what_is_left)
{
	int status;

	require_crash_points();
	close_reader(fx);
	close_store(fx);
	status = run_child(add_small_and_die, fx);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("wait status %#x", status);
	overwrite(fx, "small", what_is_left);
}

static void what_the_next_start_mends_is_not_found(void **state)
{
	struct fixture *fx = *state;

	lose_small(fx, "");
	open_rows(fx);
	lock_state(fx);
	assert_ok(verify(fx), &fx->err);
	assert_string_equal(fx->found, "");
	assert_int_equal(fx->state.last.n_blobs, 0);
	close_reader(fx);
	open_store(fx);
	open_rows(fx);
	lock_state(fx);
	assert_ok(verify(fx), &fx->err);
	assert_string_equal(fx->found, "");
	assert_int_equal(fx->state.last.n_blobs, 1);
}

static void start(void *arg)
{
	open_store(arg);
}

/* The bytes are forgotten by the time they are asked for: what was seen is what there was before. */
static void what_a_start_mends_meanwhile_is_not_found(void **state)
{
	struct fixture *fx = *state;

	lose_small(fx, "SMALL");
	open_rows(fx);
	lock_state(fx);
	fx->options.put_aside = note_put_aside;
	/* When its bytes were read, and it is about to be seen that they end there. */
	fault_hook(FAULT_PREAD, 1, start, fx);
	assert_ok(verify(fx), &fx->err);
	fault_clear();
	assert_non_null(fx->store);
	assert_string_equal(fx->found, "");
	assert_int_equal(fx->n_put_aside, 0);
	assert_int_equal(fx->state.last.n_blobs, 1);
	assert_int_equal(fx->progress.done_bytes, strlen("small"));
}

static void goes_on_where_it_was_killed(void **state)
{
	struct fixture *fx = *state;
	int status;

	require_crash_points();
	add_many(fx, 20);
	close_reader(fx);
	close_store(fx);
	status = run_child(verify_and_die, fx);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("wait status %#x", status);
	open_store(fx);
	open_rows(fx);
	blobs_write(fx->root->fd, "verify/.tmp-0123456789abcdef", "of a kill in the middle");
	lock_state(fx);
	assert_int_equal(faccessat(fx->dir_fd, ".tmp-0123456789abcdef", F_OK, 0), -1);
	load_state(fx);
	assert_int_equal(fx->state.now.n_blobs, 7);
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->state.last.n_blobs, 20);
	assert_int_equal(fx->progress.done_items, 20);
}

static void blobs_that_come_behind_are_for_the_next_time(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	assert_ok(verify(fx), &fx->err);
	/* As if stopped behind the last digest there can be. */
	fx->state.now.begun_ns = 1;
	fx->state.has_after = true;
	fx->state.after.algorithm = DIGEST_SHA512;
	memset(fx->state.after.bytes, 0xff, sizeof(fx->state.after.bytes));
	assert_ok(verify(fx), &fx->err);
	assert_int_equal(fx->state.last.n_blobs, 0);
}

static void one_verification_at_a_time(void **state)
{
	struct fixture *fx = *state;
	int dir_fd, lock_fd;

	assert_fails(verify_state_lock(fx->root->fd, &dir_fd, &lock_fd, &fx->err), &fx->err,
		     ERR_UNAVAILABLE);
	close(fx->lock_fd);
	assert_ok(verify_state_lock(fx->root->fd, &dir_fd, &lock_fd, &fx->err), &fx->err);
	close(dir_fd);
	fx->lock_fd = lock_fd;
}

static void state_that_cannot_be_saved_stops_nothing(void **state)
{
	struct fixture *fx = *state;

	add_many(fx, 5);
	fault_after(FAULT_RENAMEAT, 0, ENOSPC);
	assert_ok(verify(fx), &fx->err);
	assert_true(fault_clear() > 1);
	assert_int_equal(fx->state.last.n_blobs, 5);
	assert_int_equal(verify_state_load(fx->dir_fd, &fx->state, &fx->err), 1);
}

static void state_comes_back_as_it_was_saved(void **state)
{
	struct fixture *fx = *state;
	struct verify_state saved = {
		.last = {1, 2, 3, 4, 5},
		.now = {6, 0, UINT64_MAX, 8, 0},
		.has_after = true,
		.after = blobs_digest("after"),
	};
	struct verify_state loaded;
	struct digest digest = blobs_digest("problem");

	for (int i = 0; i < VERIFY_PROBLEMS_MAX + 10; i++)
		verify_state_add(&saved, (enum verify_kind)(i % VERIFY_N_KINDS), &digest);
	assert_ok(verify_state_save(fx->dir_fd, &saved, &fx->err), &fx->err);
	assert_int_equal(verify_state_load(fx->dir_fd, &loaded, &fx->err), 0);
	assert_int_equal(loaded.now.n_problems, VERIFY_PROBLEMS_MAX + 10);
	assert_int_equal(loaded.now.n_blobs, UINT64_MAX);
	assert_int_equal(loaded.last.n_problems, 5);
	assert_true(loaded.has_after && digest_equal(&loaded.after, &saved.after));
	for (int i = 0; i < VERIFY_PROBLEMS_MAX; i++) {
		assert_int_equal(loaded.problems[i].kind, i % VERIFY_N_KINDS);
		assert_true(digest_equal(&loaded.problems[i].digest, &digest));
	}
}

static void damaged_state_is_told_from_none(void **state)
{
	static const char *const texts[] = {
		"",
		"lighter-content verify 2\n",
		"lighter-content verify 1\nlast 1 2 3 4\n",
		"lighter-content verify 1\nlast 1 2 3 4 5 6\n",
		"lighter-content verify 1\nnow 1 2 3 4 1\n",
		"lighter-content verify 1\nnow 1 2 3 4 0\nproblem damaged sha256:00\n",
		"lighter-content verify 1\nnow 1 2 3 4 0\nafter sha256:00\n",
		"lighter-content verify 1\nwhat is this\n",
		"lighter-content verify 1\nnow 1 2 3 4 0",
	};
	struct fixture *fx = *state;
	struct verify_state loaded;

	assert_int_equal(verify_state_load(fx->dir_fd, &loaded, &fx->err), 1);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		blobs_write(fx->dir_fd, "state", texts[i]);
		assert_fails(verify_state_load(fx->dir_fd, &loaded, &fx->err), &fx->err,
			     ERR_DATA_LOSS);
		assert_int_equal(loaded.now.begun_ns, 0);
	}
	blobs_write(fx->dir_fd, "state", "lighter-content verify 1\nnow 1 2 3 4 0\n");
	assert_int_equal(verify_state_load(fx->dir_fd, &loaded, &fx->err), 0);
	assert_int_equal(loaded.now.n_blobs, 3);
}

/* --- some of them ---------------------------------------------------------------------------------------- */

static void chosen_blobs_alone_are_verified(void **state)
{
	struct fixture *fx = *state;
	struct digest digests[3] = {blobs_digest("one"), blobs_digest("two"),
				    blobs_digest("unknown")};
	struct verify_pass pass;

	add(fx, "one");
	add(fx, "two");
	add(fx, "three");
	overwrite(fx, "two", "TWO");
	overwrite(fx, "three", "THREE");
	assert_ok(verify_some(fx->root->fd, &fx->rows, &fx->options, digests, 2, &pass, &fx->err),
		  &fx->err);
	assert_int_equal(pass.n_blobs, 2);
	assert_int_equal(pass.bytes, 6);
	assert_int_equal(pass.n_problems, 1);
	assert_int_equal(fx->n_found, 1);
	assert_found(fx, "damaged", "two", "");
	assert_fails(verify_some(fx->root->fd, &fx->rows, &fx->options, digests, 3, &pass,
				 &fx->err),
		     &fx->err, ERR_NOT_FOUND);
	/* What was noted of all is as it was. */
	assert_int_equal(verify_state_load(fx->dir_fd, &fx->state, &fx->err), 1);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_the_next_start_mends_is_not_found),
		TEST(what_a_start_mends_meanwhile_is_not_found),
		TEST(goes_on_where_it_was_killed),
		TEST(good_blobs_are_good),
		TEST(what_is_wrong_is_found),
		TEST(unreadable_is_not_damaged),
		TEST(a_failing_disk_ends_it),
		TEST(putting_aside_may_replace_the_rows),
		TEST(many_missing_in_a_row_end_it),
		TEST(without_the_blobs_directory_it_does_not_begin),
		TEST(without_descriptors_nothing_is_said_of_blobs),
		TEST(blob_that_goes_meanwhile_is_no_finding),
		TEST(file_without_a_row_is_told_of_once_it_is_settled),
		TEST(goes_on_where_it_was_cancelled),
		TEST(blobs_that_come_behind_are_for_the_next_time),
		TEST(one_verification_at_a_time),
		TEST(state_that_cannot_be_saved_stops_nothing),
		TEST(state_comes_back_as_it_was_saved),
		TEST(damaged_state_is_told_from_none),
		TEST(chosen_blobs_alone_are_verified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
