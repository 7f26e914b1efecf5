/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Importing: what is taken and how, from directories of all kinds; when the disk is full, when it fails, and when it is
 * killed.
 */
#include "content/import.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/fs.h"
#include "content/blob_files.h"
#include "content/config.h"
#include "content/local.h"
#include "content/local_internal.h"
#include "tests/content/blobs.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

static const struct content_store_ops *const ops = &local_content_ops;

/**
 * struct fixture - below @dir: the store in root/, and src/ to import from
 * @refused: what was refused, as "name: why" in lines
 */
struct fixture {
	struct temp_root *dir;
	char *root, *source_path;
	struct content_conf conf;
	void *store;
	struct arena arena;
	struct ctx ctx;
	struct err err;
	struct progress progress;
	struct import_options options;
	struct import_counts counts;
	pthread_mutex_t mutex;
	char refused[4096];
};

static void note_refused(void *arg, const char *name, const char *why)
{
	struct fixture *fx = arg;
	size_t len;

	pthread_mutex_lock(&fx->mutex);
	len = strlen(fx->refused);
	snprintf(fx->refused + len, sizeof(fx->refused) - len, "%s: %s\n", name, why);
	pthread_mutex_unlock(&fx->mutex);
}

static void open_store(struct fixture *fx)
{
	assert_ok(ops->open(fx->root, &fx->conf, &fx->store, &fx->err), &fx->err);
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
	fx->dir = temp_root_new();
	fx->root = temp_root_path(fx->dir, "root");
	fx->source_path = temp_root_path(fx->dir, "src");
	assert_int_equal(mkdirat(fx->dir->fd, "root", 0700), 0);
	blobs_make_dir(fx->dir->fd, "src");
	fx->conf.adopt = true;
	arena_init(&fx->arena, 64u << 20);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	progress_init(&fx->progress, "importing", "blobs");
	pthread_mutex_init(&fx->mutex, NULL);
	fx->options = (struct import_options){
		.n_threads = 3,
		.refused = note_refused,
		.refused_arg = fx,
		.progress = &fx->progress,
	};
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
	progress_done(&fx->progress);
	pthread_mutex_destroy(&fx->mutex);
	free(fx->root);
	free(fx->source_path);
	temp_root_free(fx->dir);
	free(fx);
	return 0;
}

static void add(struct fixture *fx, const char *text)
{
	blobs_add(fx->dir->fd, "src", text);
}

static int import(struct fixture *fx)
{
	struct source source = SOURCE_INIT;
	int r;

	fx->refused[0] = '\0';
	assert_ok(source_open(fx->source_path, &source, &fx->err), &fx->err);
	r = import_run(fx->store, &source, &fx->options, &fx->counts, &fx->err);
	source_close(&source);
	return r;
}

static uint64_t n_taken(const struct fixture *fx)
{
	return fx->counts.n_taken[TAKE_REFLINK] + fx->counts.n_taken[TAKE_LINK] +
	       fx->counts.n_taken[TAKE_COPY];
}

static bool is_blob(struct fixture *fx, const char *text)
{
	struct digest digest = blobs_digest(text);
	struct blob_info info;
	struct blob *blob;
	uint64_t size;
	char buf[256];

	if (ops->info(fx->store, &fx->ctx, &digest, &info, &fx->err) < 0) {
		assert_int_equal(fx->err.code, ERR_NOT_FOUND);
		return false;
	}
	assert_int_equal(info.size_bytes, strlen(text));
	assert_int_equal(ops->blob_open(fx->store, &fx->ctx, &digest, true, &blob, &size, &fx->err),
			 0);
	assert_int_equal(size, strlen(text));
	assert_int_equal(ops->read_at(fx->store, blob, 0, buf, size, true, &fx->err), 0);
	assert_memory_equal(buf, text, size);
	ops->blob_close(fx->store, blob);
	return true;
}

static bool exists(const struct fixture *fx, const char *path)
{
	return faccessat(fx->dir->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static struct stat stat_in(const struct fixture *fx, const char *dir, const char *text)
{
	char path[512];
	struct stat st;

	assert_int_equal(fstatat(fx->dir->fd, blobs_path(dir, text, path), &st,
				 AT_SYMLINK_NOFOLLOW),
			 0);
	return st;
}

/* --- how it is taken ------------------------------------------------------------------------------------- */

static void blobs_of_the_same_file_system_take_no_room(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	add(fx, "");
	assert_ok(import(fx), &fx->err);
	assert_int_equal(n_taken(fx), 2);
	assert_int_equal(fx->counts.n_taken[TAKE_COPY], 0);
	assert_int_equal(fx->counts.n_refused, 0);
	assert_true(is_blob(fx, "one"));
	assert_true(is_blob(fx, ""));
	assert_false(exists(fx, "root/" LOCAL_IMPORT_DIR));
	/* And is a blob as any other: it goes here, and stays there. */
	{
		struct digest digest = blobs_digest("one");

		assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
	}
	assert_false(is_blob(fx, "one"));
	assert_int_equal(stat_in(fx, "src", "one").st_size, 3);
	assert_int_equal(stat_in(fx, "src", "one").st_nlink, 1);
}

static void hard_link_is_the_same_file(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	fx->options.mode = TAKE_LINK;
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_taken[TAKE_LINK], 1);
	assert_int_equal(fx->counts.taken_bytes[TAKE_LINK], 3);
	assert_int_equal(stat_in(fx, "src", "one").st_ino, stat_in(fx, "root", "one").st_ino);
	assert_int_equal(stat_in(fx, "src", "one").st_nlink, 2);
	assert_true(is_blob(fx, "one"));
}

static void copy_is_a_file_of_its_own(void **state)
{
	struct fixture *fx = *state;
	char *text = malloc((3u << 20) + 2);
	struct digest digest;
	struct blob_info info;

	/* More than one piece, and no whole number of blocks. */
	memset(text, 'x', (3u << 20) + 1);
	text[(3u << 20) + 1] = '\0';
	add(fx, text);
	add(fx, "one");
	fx->options.mode = TAKE_COPY;
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_taken[TAKE_COPY], 2);
	assert_int_not_equal(stat_in(fx, "src", "one").st_ino, stat_in(fx, "root", "one").st_ino);
	assert_int_equal(stat_in(fx, "root", "one").st_nlink, 1);
	assert_true(is_blob(fx, "one"));
	digest = blobs_digest(text);
	assert_ok(ops->info(fx->store, &fx->ctx, &digest, &info, &fx->err), &fx->err);
	assert_int_equal(info.size_bytes, (3u << 20) + 1);
	assert_int_equal(stat_in(fx, "root", text).st_size, (3u << 20) + 1);
	free(text);
}

static void what_others_can_write_is_not_linked_to(void **state)
{
	struct fixture *fx = *state;
	char path[512];

	add(fx, "open to all");
	add(fx, "fine");
	assert_int_equal(fchmodat(fx->dir->fd, blobs_path("src", "open to all", path), 0666, 0), 0);
	fx->options.mode = TAKE_LINK;
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_refused, 1);
	assert_contains(fx->refused, "others can write to it");
	assert_true(is_blob(fx, "fine"));
	assert_false(is_blob(fx, "open to all"));
	/* It can be copied, though (or a reflink made of it). */
	fx->options.mode = TAKE_AUTO;
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_refused, 0);
	assert_true(is_blob(fx, "open to all"));
	assert_int_not_equal(stat_in(fx, "src", "open to all").st_ino,
			     stat_in(fx, "root", "open to all").st_ino);
}

static void another_users_file_is_not_linked_to(void **state)
{
	struct fixture *fx = *state;
	char path[512];

	require_root();
	add(fx, "theirs");
	assert_int_equal(fchownat(fx->dir->fd, blobs_path("src", "theirs", path), 4321, 4321,
				  AT_SYMLINK_NOFOLLOW),
			 0);
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_taken[TAKE_LINK], 0);
	assert_int_equal(n_taken(fx), 1);
	assert_int_equal(stat_in(fx, "root", "theirs").st_uid, geteuid());
	assert_true(is_blob(fx, "theirs"));
}

static void another_file_system_is_copied_from(void **state)
{
	struct fixture *fx = *state;

	require_private_mounts();
	mount_tmpfs(fx->source_path, 1u << 20);
	blobs_make_dir(fx->dir->fd, "src");
	add(fx, "one");
	add(fx, "two");
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_taken[TAKE_COPY], 2);
	assert_true(is_blob(fx, "one"));
	assert_true(is_blob(fx, "two"));
	/* Forced, it is the end: no other blob would fare better. */
	add(fx, "three");
	fx->options.mode = TAKE_LINK;
	assert_fails(import(fx), &fx->err, ERR_INTERNAL);
	assert_contains(fx->err.msg, "there are no hard links from there to here");
	fx->options.mode = TAKE_REFLINK;
	assert_int_equal(import(fx), -1);
	assert_contains(fx->err.msg, "there are no reflinks from there to here");
	assert_false(is_blob(fx, "three"));
	assert_false(exists(fx, "root/" LOCAL_IMPORT_DIR));
	umount2(fx->source_path, MNT_DETACH);
}

/* An xfs of its own, where there are reflinks. Return: is there one? */
static bool mount_xfs(const struct fixture *fx)
{
	char command[1024];

	snprintf(command, sizeof(command),
		 "export PATH=$PATH:/sbin:/usr/sbin; cd '%s' && truncate -s 320M disk &&"
		 " mkfs.xfs -q -m reflink=1 disk && mkdir xfs && mount -o loop disk xfs",
		 fx->dir->path);
	return system(command) == 0;
}

static void reflink_shares_bytes_and_nothing_else(void **state)
{
	struct fixture *fx = *state;
	char path[512];
	int fd;

	require_root();
	require_private_mounts();
	if (!mount_xfs(fx)) {
		print_message("skipped: no xfs can be made and mounted here\n");
		skip();
	}
	close_store(fx);
	free(fx->root);
	fx->root = temp_root_path(fx->dir, "xfs/root");
	free(fx->source_path);
	fx->source_path = temp_root_path(fx->dir, "xfs/src");
	assert_int_equal(mkdirat(fx->dir->fd, "xfs/root", 0700), 0);
	blobs_make_dir(fx->dir->fd, "xfs/src");
	open_store(fx);

	blobs_add(fx->dir->fd, "xfs/src", "one");
	blobs_add(fx->dir->fd, "xfs/src", "");
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_taken[TAKE_REFLINK], 2);
	assert_true(is_blob(fx, "one"));
	/* Whoever writes to theirs does not write to ours. */
	blobs_path("xfs/src", "one", path);
	assert_int_equal(fchmodat(fx->dir->fd, path, 0600, 0), 0);
	fd = openat(fx->dir->fd, path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, "TWO", 3), 3);
	close(fd);
	assert_true(is_blob(fx, "one"));

	close_store(fx);
	free(fx->root);
	fx->root = temp_root_path(fx->dir, "root");
	open_store(fx);
	{
		char *mount_point = temp_root_path(fx->dir, "xfs");

		assert_int_equal(umount2(mount_point, 0), 0);
		free(mount_point);
	}
}

/* --- where from ------------------------------------------------------------------------------------------- */

static void root_of_containerd_is_found_its_way(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(mkdirat(fx->dir->fd, "containerd", 0711), 0);
	assert_int_equal(renameat(fx->dir->fd, "src", fx->dir->fd,
				  "containerd/" SOURCE_CONTAINERD_DIR),
			 0);
	blobs_add(fx->dir->fd, "containerd/" SOURCE_CONTAINERD_DIR, "one");
	assert_int_equal(mkdirat(fx->dir->fd, "containerd/" SOURCE_CONTAINERD_DIR "/ingest", 0700),
			 0);
	assert_int_equal(mkdirat(fx->dir->fd, "containerd/" SOURCE_CONTAINERD_DIR "/ingest/a1",
				 0700),
			 0);
	free(fx->source_path);
	fx->source_path = temp_root_path(fx->dir, "containerd");
	assert_ok(import(fx), &fx->err);
	assert_true(is_blob(fx, "one"));
	{
		struct source source = SOURCE_INIT;

		assert_ok(source_open(fx->source_path, &source, &fx->err), &fx->err);
		assert_int_equal(source.n_ingests, 1);
		source_close(&source);
	}
}

static void what_is_no_content_directory_is_refused(void **state)
{
	struct fixture *fx = *state;
	struct source source = SOURCE_INIT;
	char *path = temp_root_path(fx->dir, "nowhere");

	assert_fails(source_open(path, &source, &fx->err), &fx->err, ERR_FAILED_PRECONDITION);
	assert_int_equal(mkdirat(fx->dir->fd, "nowhere", 0700), 0);
	assert_fails(source_open(path, &source, &fx->err), &fx->err, ERR_FAILED_PRECONDITION);
	assert_int_equal(symlinkat("../src/blobs", fx->dir->fd, "nowhere/blobs"), 0);
	assert_fails(source_open(path, &source, &fx->err), &fx->err, ERR_FAILED_PRECONDITION);
	assert_contains(fx->err.msg, "symbolic link");
	free(path);
	/* Nor can a store import itself. */
	free(fx->source_path);
	fx->source_path = strdup(fx->root);
	assert_fails(import(fx), &fx->err, ERR_FAILED_PRECONDITION);
}

static void hostile_directory_harms_nobody(void **state)
{
	struct fixture *fx = *state;
	char name[512], path[512];

	add(fx, "good");
	blobs_write(fx->dir->fd, blobs_path("src", "lies", path), "lied");
	blobs_write(fx->dir->fd, "secret", "secret");
	assert_int_equal(symlinkat("../../../secret", fx->dir->fd,
				   blobs_path("src", "secret", path)),
			 0);
	assert_int_equal(mkfifoat(fx->dir->fd, blobs_path("src", "fifo", path), 0600), 0);
	assert_int_equal(mkdirat(fx->dir->fd, blobs_path("src", "directory", path), 0700), 0);
	assert_int_equal(mkdirat(fx->dir->fd, "src/blobs/md5", 0700), 0);
	blobs_write(fx->dir->fd, "src/blobs/md5/d41d8cd98f00b204e9800998ecf8427e", "");
	blobs_write(fx->dir->fd, "src/blobs/sha256/short", "");
	blobs_write(fx->dir->fd, "src/blobs/sha256/\033]0;x\007", "");
	snprintf(name, sizeof(name), "src/blobs/sha256/%0255d", 0);
	blobs_write(fx->dir->fd, name, "");
	/* The digest of "good", in capitals. */
	blobs_path("src", "good", path);
	for (char *c = strrchr(path, '/'); *c; c++)
		if (*c >= 'a' && *c <= 'f')
			*c -= 'a' - 'A';
	blobs_write(fx->dir->fd, path, "good");

	assert_ok(import(fx), &fx->err);
	assert_int_equal(n_taken(fx), 1);
	assert_int_equal(fx->counts.n_refused, 9);
	assert_true(is_blob(fx, "good"));
	assert_false(is_blob(fx, "lies"));
	assert_false(is_blob(fx, "secret"));
	assert_contains(fx->refused, ": is damaged: ");
	assert_contains(fx->refused, ": is no regular file\n");
	assert_contains(fx->refused, "sha256/short: is not named after a digest\n");
	assert_contains(fx->refused, "md5: is no algorithm that is known here\n");
	/* What was refused stays. */
	assert_true(exists(fx, blobs_path("src", "lies", path)));
	assert_false(exists(fx, blobs_path("root", "lies", path)));
	/* Again: what is good is passed over, and the rest is told of again. */
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_present, 1);
	assert_int_equal(fx->counts.n_refused, 9);
}

static void sha512_is_taken_too(void **state)
{
	struct fixture *fx = *state;
	struct digest digest;
	struct blob_info info;
	char path[BLOB_PATH_MAX], name[512];

	assert_ok(digest_of(DIGEST_SHA512, "one", 3, &digest, &fx->err), &fx->err);
	snprintf(name, sizeof(name), "src/blobs/%s", blob_path(&digest, path));
	blobs_write(fx->dir->fd, name, "one");
	assert_ok(import(fx), &fx->err);
	assert_ok(ops->info(fx->store, &fx->ctx, &digest, &info, &fx->err), &fx->err);
}

static void many_blobs_are_all_taken(void **state)
{
	struct fixture *fx = *state;
	char text[32];

	for (int i = 0; i < 500; i++) {
		snprintf(text, sizeof(text), "blob %d", i);
		add(fx, text);
	}
	fx->options.n_threads = 16;
	assert_ok(import(fx), &fx->err);
	assert_int_equal(n_taken(fx), 500);
	assert_int_equal(fx->progress.done_items, 500);
	for (int i = 0; i < 500; i++) {
		snprintf(text, sizeof(text), "blob %d", i);
		assert_true(is_blob(fx, text));
	}
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_present, 500);
	assert_int_equal(n_taken(fx), 0);
}

/* --- failures -------------------------------------------------------------------------------------------- */

static void survey_finds_what_an_import_would(void **state)
{
	struct fixture *fx = *state;
	struct source source = SOURCE_INIT;
	struct import_survey survey;
	struct local *store = fx->store;

	add(fx, "one");
	assert_ok(import(fx), &fx->err);
	add(fx, "three");
	blobs_write(fx->dir->fd, "src/blobs/sha256/short", "");
	assert_ok(source_open(fx->source_path, &source, &fx->err), &fx->err);
	assert_ok(import_survey(store->rows, &source, &fx->options, &survey, &fx->err), &fx->err);
	assert_int_equal(survey.n_new, 1);
	assert_int_equal(survey.new_bytes, 5);
	assert_int_equal(survey.n_present, 1);
	assert_int_equal(survey.present_bytes, 3);
	assert_int_equal(survey.n_refused, 1);
	assert_false(is_blob(fx, "three"));
	source_close(&source);
}

static void full_disk_keeps_what_was_taken(void **state)
{
	struct fixture *fx = *state;
	size_t size = 3u << 20;
	char *text = malloc(size + 1);
	uint64_t before;

	require_private_mounts();
	close_store(fx);
	/* Room for the database, and for some of the eight. */
	mount_tmpfs(fx->root, 20u << 20);
	open_store(fx);
	for (int i = 0; i < 8; i++) {
		memset(text, 'a' + i, size);
		text[size] = '\0';
		add(fx, text);
	}
	assert_fails(import(fx), &fx->err, ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(fx->err.sys_errno, ENOSPC);
	before = n_taken(fx);
	assert_in_range(before, 1, 7);
	assert_false(exists(fx, "root/" LOCAL_IMPORT_DIR));
	/* With room, it goes on. */
	assert_int_equal(mount(NULL, fx->root, NULL, MS_REMOUNT, "size=64m,mode=0700"), 0);
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fx->counts.n_present, before);
	assert_int_equal(n_taken(fx), 8 - before);
	close_store(fx);
	assert_int_equal(umount2(fx->root, 0), 0);
	open_store(fx);
	free(text);
}

static void failing_disk_ends_the_import(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	add(fx, "two");
	fault_after(FAULT_FSYNC, 0, EIO);
	assert_fails(import(fx), &fx->err, ERR_INTERNAL);
	assert_contains(fx->err.msg, "import sha256:");
	fault_clear();
	assert_int_equal(n_taken(fx), 0);
	assert_false(is_blob(fx, "one"));
	assert_ok(import(fx), &fx->err);
	assert_int_equal(n_taken(fx), 2);
	assert_true(is_blob(fx, "one"));
}

static void unreadable_blob_is_left_and_others_go_on(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	add(fx, "two");
	fx->options.n_threads = 1;
	fault_after(FAULT_PREAD, 0, EIO);
	assert_ok(import(fx), &fx->err);
	assert_int_equal(fault_clear(), 2);
	assert_int_equal(fx->counts.n_refused, 2);
	assert_contains(fx->refused, "read at byte 0: Input/output error");
	assert_int_equal(n_taken(fx), 0);
	assert_ok(import(fx), &fx->err);
	assert_int_equal(n_taken(fx), 2);
}

static void without_descriptors_it_ends(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	/* What opens the source, its directories, and import/ come before. */
	for (unsigned int n = 1; n < 12; n++) {
		fault_after(FAULT_OPENAT, n, EMFILE);
		if (import(fx) < 0)
			assert_int_equal(fx->err.code, ERR_RESOURCE_EXHAUSTED);
		if (fault_clear() == 0)
			break;
		assert_int_equal(fx->counts.n_refused, 0);
	}
	assert_true(is_blob(fx, "one"));
}

static void cancelled_import_goes_on_when_made_again(void **state)
{
	struct fixture *fx = *state;

	add(fx, "one");
	fx->progress.cancelled = true;
	assert_fails(import(fx), &fx->err, ERR_CANCELLED);
	assert_false(is_blob(fx, "one"));
	fx->progress.cancelled = false;
	assert_ok(import(fx), &fx->err);
	assert_true(is_blob(fx, "one"));
}

static void delete_source(void *arg)
{
	struct fixture *fx = arg;
	char path[512];

	unlinkat(fx->dir->fd, blobs_path("src", "one", path), 0);
}

static void blob_that_goes_meanwhile_is_no_failure(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = blobs_digest("one");
	unsigned int n = 0;
	char path[512];

	fx->options.n_threads = 1;
	/* Before each file that is opened on the way, the last of which is the blob's. */
	do {
		add(fx, "one");
		fault_hook(FAULT_OPENAT, n, delete_source, fx);
		assert_ok(import(fx), &fx->err);
		fault_clear();
		assert_int_equal(fx->counts.n_refused, 0);
		assert_int_equal(is_blob(fx, "one"), n_taken(fx));
		assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
		n++;
	} while (!exists(fx, blobs_path("src", "one", path)));
	assert_in_range(n, 6, 20);
}

/* --- killed ---------------------------------------------------------------------------------------------- */

struct kill_arg {
	struct fixture *fx;
	const char *point;
};

static int import_and_die(void *arg)
{
	const struct kill_arg *kill = arg;
	struct fixture *fx = kill->fx;

	/* Before there are threads that read it. */
	setenv("LIGHTER_CRASH_POINT", kill->point, 1);
	open_store(fx);
	return import(fx) < 0 ? 1 : 0;
}

static void killed_anywhere_it_is_a_blob_or_nothing(void **state)
{
	static const struct {
		const char *point;
		bool is_there;
		bool leaves_file; /* in import/ */
	} cases[] = {
		{"import.taken", false, true},    {"commit.linked", false, true},
		{"commit.synced", false, true},   {"commit.row-written", true, true},
		{"import.published", true, true},
	};
	static const enum take_mode modes[] = {TAKE_AUTO, TAKE_LINK, TAKE_COPY};
	struct fixture *fx = *state;
	char path[512];

	require_crash_points();
	add(fx, "one");
	for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(modes); i++) {
		struct kill_arg arg = {fx, cases[i / ARRAY_LEN(modes)].point};
		bool is_there = cases[i / ARRAY_LEN(modes)].is_there;
		struct digest digest = blobs_digest("one");
		int status;

		fx->options.mode = modes[i % ARRAY_LEN(modes)];
		close_store(fx);
		status = run_child(import_and_die, &arg);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			fail_msg("%s: wait status %#x", arg.point, status);
		assert_int_equal(exists(fx, "root/" LOCAL_IMPORT_DIR "/1"),
				 cases[i / ARRAY_LEN(modes)].leaves_file);
		open_store(fx);
		assert_false(exists(fx, "root/" LOCAL_IMPORT_DIR));
		assert_int_equal(is_blob(fx, "one"), is_there);
		assert_int_equal(exists(fx, blobs_path("root", "one", path)), is_there);
		/* The next import does what is left to do. */
		assert_ok(import(fx), &fx->err);
		assert_int_equal(n_taken(fx), !is_there);
		assert_int_equal(fx->counts.n_present, is_there);
		assert_true(is_blob(fx, "one"));
		assert_int_equal(stat_in(fx, "src", "one").st_size, 3);
		assert_ok(ops->remove(fx->store, &fx->ctx, &digest, &fx->err), &fx->err);
	}
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(killed_anywhere_it_is_a_blob_or_nothing),
		TEST(blobs_of_the_same_file_system_take_no_room),
		TEST(hard_link_is_the_same_file),
		TEST(copy_is_a_file_of_its_own),
		TEST(what_others_can_write_is_not_linked_to),
		TEST(another_users_file_is_not_linked_to),
		TEST(another_file_system_is_copied_from),
		TEST(reflink_shares_bytes_and_nothing_else),
		TEST(root_of_containerd_is_found_its_way),
		TEST(what_is_no_content_directory_is_refused),
		TEST(hostile_directory_harms_nobody),
		TEST(sha512_is_taken_too),
		TEST(many_blobs_are_all_taken),
		TEST(survey_finds_what_an_import_would),
		TEST(full_disk_keeps_what_was_taken),
		TEST(failing_disk_ends_the_import),
		TEST(unreadable_blob_is_left_and_others_go_on),
		TEST(without_descriptors_it_ends),
		TEST(cancelled_import_goes_on_when_made_again),
		TEST(blob_that_goes_meanwhile_is_no_failure),
	};

	return cmocka_run_group_tests(tests, private_mounts_setup, NULL);
}
