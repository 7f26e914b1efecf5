/* SPDX-License-Identifier: Apache-2.0 */
/* fs_remove_tree(), fs_disk_usage() and fs_disk_usage_of_few(). */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define DEEP            100000
/* Above what the code under test holds open at a time, and what the test program has open itself. */
#define FEW_DESCRIPTORS 48

static void make_file(int dirfd, const char *name, size_t size)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char *data = calloc(1, size + 1);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	/* Blocks are given out when written back, on some file systems. */
	assert_int_equal(fsync(fd), 0);
	close(fd);
	free(data);
}

/* @depth directories inside each other below @name, with a file in every @file_every-th of them. */
static void make_deep(int dirfd, const char *name, unsigned int depth, unsigned int file_every)
{
	int fd;

	assert_int_equal(mkdirat(dirfd, name, 0700), 0);
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned int i = 1; i < depth; i++) {
		int next;

		if (mkdirat(fd, "d", 0700) < 0)
			fail_msg("make level %u: %s", i, strerror(errno));
		if (file_every && i % file_every == 0 && mknodat(fd, "f", S_IFREG | 0600, 0) < 0)
			fail_msg("make file in level %u: %s", i, strerror(errno));
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	close(fd);
}

static bool exists(int dirfd, const char *name)
{
	return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static uint64_t blocks_of(int dirfd, const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return (uint64_t)st.st_blocks;
}

static unsigned int n_descriptors(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---- removal ---- */

static void remove_of_nothing_is_success(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_ok(fs_remove_tree(NULL, root->fd, "missing", &err), &err);
}

/* From well inside the temporary directory, so that code which gets this wrong deletes nothing but that. */
static void remove_takes_one_name(void **state)
{
	static const char *const names[] = {"", ".", "..", "a/b", "a/", "../x", "./a", "a/.."};
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	int fd;

	assert_int_equal(mkdirat(root->fd, "x", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "x/y", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "x/y/a", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "x/y/a/b", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "x/x", 0700), 0);
	fd = openat(root->fd, "x/y", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		assert_fails(fs_remove_tree(NULL, fd, names[i], &err), &err, ERR_INVALID_ARGUMENT);
		assert_true(exists(root->fd, "x/y/a/b"));
		assert_true(exists(root->fd, "x/x"));
	}
	close(fd);
}

static void remove_deletes_entries_of_every_kind(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	unsigned int n = n_descriptors();

	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "t/empty", 0), 0);
	assert_int_equal(mkdirat(root->fd, "t/full", 0500), 0);
	assert_int_equal(mkfifoat(root->fd, "t/fifo", 0), 0);
	assert_int_equal(symlinkat("missing", root->fd, "t/dangling"), 0);
	make_file(root->fd, "t/full/file", 10);
	assert_int_equal(linkat(root->fd, "t/full/file", root->fd, "t/second", 0), 0);
	assert_int_equal(mkdirat(root->fd, "t/full/\xff\n", 0700), 0);
	if (geteuid() == 0)
		assert_int_equal(mknodat(root->fd, "t/whiteout", S_IFCHR, 0), 0);

	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
	assert_false(exists(root->fd, "t"));

	make_file(root->fd, "file", 10);
	assert_ok(fs_remove_tree(NULL, root->fd, "file", &err), &err);
	assert_false(exists(root->fd, "file"));
	assert_int_equal(n_descriptors(), n);
}

static void remove_does_not_follow_links(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_int_equal(mkdirat(root->fd, "outside", 0700), 0);
	make_file(root->fd, "outside/file", 0);
	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	assert_int_equal(symlinkat("../outside", root->fd, "t/link"), 0);
	assert_int_equal(symlinkat("outside", root->fd, "link"), 0);
	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
	assert_ok(fs_remove_tree(NULL, root->fd, "link", &err), &err);
	assert_false(exists(root->fd, "t"));
	assert_false(exists(root->fd, "link"));
	assert_true(exists(root->fd, "outside/file"));
}

static void remove_deletes_wide_directories(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	for (int i = 0; i < 3000; i++) {
		char name[64];

		snprintf(name, sizeof(name), "t/%d", i);
		if (i % 3 == 0) {
			assert_int_equal(mkdirat(root->fd, name, 0700), 0);
			snprintf(name, sizeof(name), "t/%d/x", i);
		}
		assert_int_equal(mknodat(root->fd, name, S_IFREG, 0), 0);
	}
	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
	assert_false(exists(root->fd, "t"));
}

/*
 * The names that directories moved up get may be taken, by anything. Deep branches are made before and
 * after those names, so that one is met first, oldest or newest first being the directory's order.
 */
static void remove_copes_with_its_own_names_in_the_tree(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	make_deep(root->fd, "t/before", 200, 3);
	for (int i = 0; i < 12; i++) {
		char name[64];

		snprintf(name, sizeof(name), "t/.deep-%d", i);
		if (i % 3 == 0) {
			make_file(root->fd, name, 0);
			continue;
		}
		assert_int_equal(mkdirat(root->fd, name, 0700), 0);
		if (i % 3 == 1) {
			snprintf(name, sizeof(name), "t/.deep-%d/x", i);
			make_file(root->fd, name, 0);
		}
	}
	make_deep(root->fd, "t/after", 200, 3);
	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
	assert_false(exists(root->fd, "t"));
}

/* Two branches that part below the deepest level held open. */
static void remove_deletes_deep_branches(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	char name[256] = "t";

	make_deep(root->fd, "t", 40, 2);
	for (int i = 1; i < 40; i++) {
		strcat(name, "/d");
		if (i % 10 == 5) {
			int fd = openat(root->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			make_deep(fd, "e", 50, 5);
			close(fd);
		}
	}
	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
	assert_false(exists(root->fd, "t"));
}

static void remove_ends_when_cancelled(void **state)
{
	struct temp_root *root = *state;
	atomic_bool cancelled = true;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &cancelled, .ns = ""};
	struct err err = ERR_INIT;

	make_deep(root->fd, "t", 3, 1);
	assert_fails(fs_remove_tree(&ctx, root->fd, "t", &err), &err, ERR_CANCELLED);
	assert_true(exists(root->fd, "t/d/d"));
	atomic_store(&cancelled, false);
	assert_ok(fs_remove_tree(&ctx, root->fd, "t", &err), &err);
	assert_false(exists(root->fd, "t"));
}

static void remove_reports_read_and_memory_errors(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	unsigned int n = n_descriptors();

	make_deep(root->fd, "t", 40, 1);
	fault_after(FAULT_GETDENTS64, 4, EIO);
	assert_fails(fs_remove_tree(NULL, root->fd, "t", &err), &err, ERR_INTERNAL);
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(err.sys_errno, EIO);
	assert_contains(err.msg, "remove 't/d/d");

	fault_after(FAULT_MALLOC, 4, ENOMEM);
	assert_fails(fs_remove_tree(NULL, root->fd, "t", &err), &err, ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(fault_clear(), 1);

	fault_after(FAULT_RENAMEAT, 0, EXDEV);
	assert_int_equal(fs_remove_tree(NULL, root->fd, "t", &err), -1);
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(n_descriptors(), n);

	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
}

static void remove_names_an_immutable_file(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	int flags = FS_IMMUTABLE_FL;
	int fd, rc;

	require_root();
	make_deep(root->fd, "t", 3, 0);
	make_file(root->fd, "t/d/d/fixed", 1);
	fd = openat(root->fd, "t/d/d/fixed", O_RDONLY | O_CLOEXEC);
	if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0) {
		print_message("skipped: %s has no immutable files: %s\n", root->path,
			      strerror(errno));
		close(fd);
		skip();
	}
	rc = fs_remove_tree(NULL, root->fd, "t", &err);
	flags = 0;
	assert_int_equal(ioctl(fd, FS_IOC_SETFLAGS, &flags), 0);
	close(fd);
	assert_int_equal(rc, -1);
	assert_int_equal(err.code, ERR_PERMISSION_DENIED);
	assert_contains(err.msg, "'t/d/d/fixed'");
	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
}

/* A tmpfs, and a bind mount that looks like part of the same file system: neither is entered. */
static void remove_does_not_enter_mounts(void **state)
{
	struct temp_root *root = *state;
	char *on_tmpfs = temp_root_path(root, "t/d/mnt");
	char *on_bind = temp_root_path(root, "t/d/mnt");
	char *outside = temp_root_path(root, "outside");
	char *file = temp_root_path(root, "outside/file");
	struct err err = ERR_INIT;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "outside", 0700), 0);
	make_file(root->fd, "outside/file", 1);
	make_deep(root->fd, "t", 2, 0);
	assert_int_equal(mkdirat(root->fd, "t/d/mnt", 0700), 0);

	mount_tmpfs(on_tmpfs, (size_t)1024 * 1024);
	make_file(root->fd, "t/d/mnt/file", 1);
	assert_fails(fs_remove_tree(NULL, root->fd, "t", &err), &err, ERR_UNAVAILABLE);
	assert_int_equal(err.sys_errno, EBUSY);
	assert_contains(err.msg, "'t/d/mnt'");
	assert_true(exists(root->fd, "t/d/mnt/file"));
	assert_int_equal(umount(on_tmpfs), 0);

	assert_int_equal(mount(outside, on_bind, NULL, MS_BIND, NULL), 0);
	assert_fails(fs_remove_tree(NULL, root->fd, "t", &err), &err, ERR_UNAVAILABLE);
	assert_int_equal(err.sys_errno, EBUSY);
	assert_true(exists(root->fd, "outside/file"));
	assert_int_equal(umount(on_bind), 0);

	/* The top itself, and a file. */
	free(on_bind);
	on_bind = temp_root_path(root, "t");
	assert_int_equal(mount(outside, on_bind, NULL, MS_BIND, NULL), 0);
	assert_fails(fs_remove_tree(NULL, root->fd, "t", &err), &err, ERR_UNAVAILABLE);
	assert_true(exists(root->fd, "outside/file"));
	assert_int_equal(umount(on_bind), 0);

	make_file(root->fd, "t/over", 1);
	free(on_bind);
	on_bind = temp_root_path(root, "t/over");
	assert_int_equal(mount(file, on_bind, NULL, MS_BIND, NULL), 0);
	assert_fails(fs_remove_tree(NULL, root->fd, "t", &err), &err, ERR_UNAVAILABLE);
	assert_contains(err.msg, "'t/over'");
	assert_int_equal(umount(on_bind), 0);

	assert_ok(fs_remove_tree(NULL, root->fd, "t", &err), &err);
	free(on_tmpfs);
	free(on_bind);
	free(outside);
	free(file);
}

/* ---- usage ---- */

static void usage_of_an_empty_directory_is_its_own_inode(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage usage;

	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	assert_ok(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err);
	assert_int_equal(usage.inodes, 1);
	assert_int_equal(usage.size_bytes, 512 * blocks_of(root->fd, "t"));
	assert_ok(fs_disk_usage(NULL, root->fd, ".", &usage, &err), &err);
	assert_int_equal(usage.inodes, 2);
}

static void usage_adds_up_blocks_and_inodes(void **state)
{
	static const char *const names[] = {"t",      "t/sub",  "t/large", "t/sub/small",
					    "t/fifo", "t/link", "t/sparse"};
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage usage;
	uint64_t blocks = 0;
	int fd;

	assert_int_equal(mkdirat(root->fd, "outside", 0700), 0);
	make_file(root->fd, "outside/file", 100000);
	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "t/sub", 0700), 0);
	make_file(root->fd, "t/large", 100000);
	make_file(root->fd, "t/sub/small", 1);
	assert_int_equal(mkfifoat(root->fd, "t/fifo", 0600), 0);
	assert_int_equal(symlinkat("../outside", root->fd, "t/link"), 0);
	fd = openat(root->fd, "t/sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, (off_t)1 << 30), 0);
	close(fd);

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		blocks += blocks_of(root->fd, names[i]);
	assert_ok(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err);
	assert_int_equal(usage.inodes, ARRAY_LEN(names));
	assert_int_equal(usage.size_bytes, 512 * blocks);
	assert_true(usage.size_bytes >= 100000);
	assert_true(usage.size_bytes < 1 << 20);
}

static void usage_counts_a_hard_linked_inode_once(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage usage, single;
	uint64_t sub_before;

	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "t/sub", 0700), 0);
	for (int i = 0; i < 300; i++) {
		char name[64];

		snprintf(name, sizeof(name), "t/%d", i);
		assert_int_equal(mknodat(root->fd, name, S_IFREG | 0600, 0), 0);
	}
	make_file(root->fd, "t/large", 100000);
	assert_ok(fs_disk_usage(NULL, root->fd, "t", &single, &err), &err);
	assert_int_equal(single.inodes, 303);
	sub_before = 512 * blocks_of(root->fd, "t/sub");
	for (int i = 0; i < 300; i++) {
		char name[64], second[64];

		snprintf(name, sizeof(name), "t/%d", i);
		snprintf(second, sizeof(second), "t/sub/%d", i);
		assert_int_equal(linkat(root->fd, name, root->fd, second, 0), 0);
	}
	assert_int_equal(linkat(root->fd, "t/large", root->fd, "t/sub/large", 0), 0);
	/* A second name outside does not matter. */
	make_file(root->fd, "elsewhere", 1);
	assert_int_equal(linkat(root->fd, "elsewhere", root->fd, "t/sub/one", 0), 0);

	assert_ok(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err);
	assert_int_equal(usage.inodes, 304);
	assert_int_equal(usage.size_bytes, single.size_bytes - sub_before +
						   512 * (blocks_of(root->fd, "elsewhere") +
							  blocks_of(root->fd, "t/sub")));
}

static void usage_goes_on_where_it_was_after_deep_branches(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage usage;
	uint64_t want = 0;

	/* Entries before and after each branch, in whatever order the directory gives them. */
	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	want++;
	for (unsigned int i = 0; i < 40; i++) {
		char name[64];

		snprintf(name, sizeof(name), "t/branch-%u", i);
		make_deep(root->fd, name, 10 + i, 1);
		want += 10 + i + 9 + i;
		snprintf(name, sizeof(name), "t/file-%u", i);
		make_file(root->fd, name, 0);
		want++;
	}
	assert_ok(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err);
	assert_int_equal(usage.inodes, want);
}

/* Moves the eleventh level out of the tree, as a container may while its layer is counted. */
static void move_away(void *arg)
{
	struct temp_root *root = arg;

	assert_int_equal(renameat(root->fd, "t/d/d/d/d/d/d/d/d/d/d", root->fd, "outside/moved"), 0);
}

/* The way back from a directory that was moved leads to a foreign one, which must not be counted. */
static void usage_does_not_stray_into_the_new_place_of_a_directory(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage usage;
	unsigned int n = n_descriptors();

	assert_int_equal(mkdirat(root->fd, "outside", 0700), 0);
	make_file(root->fd, "outside/foreign", 1);
	make_deep(root->fd, "t", 40, 0);
	fault_hook(FAULT_GETDENTS64, 38, move_away, root);
	assert_fails(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err, ERR_UNAVAILABLE);
	fault_clear();
	assert_true(exists(root->fd, "outside/moved"));
	assert_int_equal(n_descriptors(), n);
}

static void usage_reports_what_is_no_directory(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage usage = {.inodes = 77};

	make_file(root->fd, "file", 1);
	assert_int_equal(symlinkat(".", root->fd, "link"), 0);
	assert_fails(fs_disk_usage(NULL, root->fd, "missing", &usage, &err), &err, ERR_INTERNAL);
	assert_fails(fs_disk_usage(NULL, root->fd, "file", &usage, &err), &err, ERR_INTERNAL);
	assert_fails(fs_disk_usage(NULL, root->fd, "link", &usage, &err), &err, ERR_INTERNAL);
	assert_int_equal(usage.inodes, 77);
}

static void usage_ends_when_cancelled(void **state)
{
	struct temp_root *root = *state;
	atomic_bool cancelled = true;
	struct ctx ctx = {.deadline_ns = CTX_NO_DEADLINE, .cancelled = &cancelled, .ns = ""};
	struct err err = ERR_INIT;
	struct fs_usage usage;

	assert_fails(fs_disk_usage(&ctx, root->fd, ".", &usage, &err), &err, ERR_CANCELLED);
	atomic_store(&cancelled, false);
	ctx.deadline_ns = 0;
	assert_fails(fs_disk_usage(&ctx, root->fd, ".", &usage, &err), &err, ERR_DEADLINE_EXCEEDED);
}

static void usage_reports_read_and_memory_errors(void **state)
{
	static const enum fault_call allocators[] = {FAULT_MALLOC, FAULT_CALLOC};
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage usage;
	unsigned int n = n_descriptors();

	make_deep(root->fd, "t", 40, 1);
	make_file(root->fd, "t/a", 1);
	assert_int_equal(linkat(root->fd, "t/a", root->fd, "t/b", 0), 0);
	fault_after(FAULT_GETDENTS64, 3, EIO);
	assert_fails(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err, ERR_INTERNAL);
	assert_int_equal(fault_clear(), 1);
	assert_contains(err.msg, "count 't/");

	for (size_t a = 0; a < ARRAY_LEN(allocators); a++) {
		for (unsigned int i = 0; i < 2; i++) {
			fault_after(allocators[a], i, ENOMEM);
			assert_fails(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err,
				     ERR_RESOURCE_EXHAUSTED);
			assert_int_equal(fault_clear(), 1);
		}
	}
	assert_int_equal(n_descriptors(), n);
}

static void usage_does_not_enter_mounts(void **state)
{
	struct temp_root *root = *state;
	char *mnt = temp_root_path(root, "t/mnt");
	char *outside = temp_root_path(root, "outside");
	char *file = temp_root_path(root, "outside/file");
	char *over = temp_root_path(root, "t/over");
	struct err err = ERR_INIT;
	struct fs_usage usage;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "outside", 0700), 0);
	make_file(root->fd, "outside/file", 100000);
	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "t/mnt", 0700), 0);
	make_file(root->fd, "t/over", 0);

	mount_tmpfs(mnt, (size_t)1024 * 1024);
	make_file(root->fd, "t/mnt/file", 100000);
	assert_ok(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err);
	assert_int_equal(usage.inodes, 2);
	assert_int_equal(umount(mnt), 0);

	assert_int_equal(mount(outside, mnt, NULL, MS_BIND, NULL), 0);
	assert_int_equal(mount(file, over, NULL, MS_BIND, NULL), 0);
	assert_ok(fs_disk_usage(NULL, root->fd, "t", &usage, &err), &err);
	assert_int_equal(usage.inodes, 1);
	assert_true(usage.size_bytes < 100000);
	assert_int_equal(umount(mnt), 0);
	assert_int_equal(umount(over), 0);

	/* What is asked for may be one. */
	assert_int_equal(mount(outside, mnt, NULL, MS_BIND, NULL), 0);
	assert_ok(fs_disk_usage(NULL, root->fd, "t/mnt", &usage, &err), &err);
	assert_int_equal(usage.inodes, 2);
	assert_int_equal(umount(mnt), 0);
	free(mnt);
	free(outside);
	free(file);
	free(over);
}

/* ---- usage of few ---- */

static void assert_same_usage(const struct fs_usage *a, const struct fs_usage *b)
{
	assert_int_equal(a->inodes, b->inodes);
	assert_int_equal(a->size_bytes, b->size_bytes);
}

/* With 5 entries, in whatever shape. */
static void assert_counts_five_at_most(int dirfd, const char *name)
{
	struct err err = ERR_INIT;
	struct fs_usage whole, few, untouched = {77, 78};
	unsigned int n = n_descriptors();

	assert_ok(fs_disk_usage(NULL, dirfd, name, &whole, &err), &err);
	for (size_t max = 0; max < 5; max++) {
		few = untouched;
		assert_int_equal(fs_disk_usage_of_few(dirfd, name, max, &few, &err), 1);
		assert_same_usage(&few, &untouched);
	}
	for (size_t max = 5; max < 8; max++) {
		few = untouched;
		assert_int_equal(fs_disk_usage_of_few(dirfd, name, max, &few, &err), 0);
		assert_same_usage(&few, &whole);
	}
	assert_int_equal(n_descriptors(), n);
}

static void usage_of_few_gives_up_above_its_limit(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct fs_usage whole, few;

	assert_int_equal(mkdirat(root->fd, "empty", 0700), 0);
	assert_ok(fs_disk_usage(NULL, root->fd, "empty", &whole, &err), &err);
	assert_int_equal(fs_disk_usage_of_few(root->fd, "empty", 0, &few, &err), 0);
	assert_same_usage(&few, &whole);

	assert_int_equal(mkdirat(root->fd, "flat", 0700), 0);
	for (int i = 0; i < 5; i++) {
		char name[64];

		snprintf(name, sizeof(name), "flat/%d", i);
		make_file(root->fd, name, 10000);
	}
	assert_counts_five_at_most(root->fd, "flat");
}

static void usage_of_few_counts_entries_of_every_kind_and_level(void **state)
{
	struct temp_root *root = *state;

	assert_int_equal(mkdirat(root->fd, "t", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "t/sub", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "t/sub/sub", 0700), 0);
	make_file(root->fd, "t/sub/sub/file", 100000);
	/* One inode, two entries. */
	assert_int_equal(linkat(root->fd, "t/sub/sub/file", root->fd, "t/sub/link", 0), 0);
	assert_int_equal(symlinkat("/", root->fd, "t/symlink"), 0);
	assert_counts_five_at_most(root->fd, "t");

	make_deep(root->fd, "deep", 6, 0);
	assert_counts_five_at_most(root->fd, "deep");
}

static void usage_of_few_reports_what_it_cannot_count(void **state)
{
	struct temp_root *root = *state;
	struct fs_usage usage = {77, 78}, untouched = usage;
	struct err err = ERR_INIT;
	unsigned int n = n_descriptors();

	assert_fails(fs_disk_usage_of_few(root->fd, "missing", 5, &usage, &err), &err,
		     ERR_INTERNAL);
	make_deep(root->fd, "t", 3, 0);
	fault_after(FAULT_GETDENTS64, 1, EIO);
	assert_fails(fs_disk_usage_of_few(root->fd, "t", 5, &usage, &err), &err, ERR_INTERNAL);
	assert_int_equal(fault_clear(), 1);
	assert_same_usage(&usage, &untouched);
	assert_int_equal(n_descriptors(), n);
}

/* ---- both, very deep ---- */

/* In a child, for the limits. Ends with the number of the check that failed. */
static int count_and_remove_in_little_room(void *arg)
{
	struct temp_root *root = arg;
	struct rlimit limit;
	struct err err = ERR_INIT;
	struct fs_usage usage;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = FEW_DESCRIPTORS;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1;
	if (fs_disk_usage(NULL, root->fd, "t", &usage, &err) < 0) {
		print_error("%s\n", err.msg);
		return 2;
	}
	if (usage.inodes != DEEP + (DEEP - 1) / 10)
		return 3;
	if (fs_remove_tree(NULL, root->fd, "t", &err) < 0) {
		print_error("%s\n", err.msg);
		return 4;
	}
	return exists(root->fd, "t") ? 5 : 0;
}

static void a_hundred_thousand_levels_need_few_descriptors(void **state)
{
	struct temp_root *root = *state;
	int status;

	make_deep(root->fd, "t", DEEP, 10);
	status = run_child(count_and_remove_in_little_room, root);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, temp_root_setup, temp_root_teardown)

static void usage_of_few_is_given_up_in_a_directory_that_held_many(void **state)
{
	struct temp_root *root = *state;
	struct fs_usage few = {0};
	struct err err = ERR_INIT;
	char name[256];
	struct stat st;

	assert_int_equal(mkdirat(root->fd, "few", 0755), 0);
	assert_int_equal(mkdirat(root->fd, "few/sub", 0755), 0);
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < 400; i++) {
			snprintf(name, sizeof(name), "few/sub/%0200d", i);
			assert_int_equal(pass == 0 ? mknodat(root->fd, name, S_IFREG | 0600, 0)
						   : unlinkat(root->fd, name, 0),
					 0);
		}
	}
	assert_int_equal(fstatat(root->fd, "few/sub", &st, 0), 0);
	if (st.st_size <= 65536) {
		print_message("directories of this file system shrink\n");
		assert_int_equal(fs_disk_usage_of_few(root->fd, "few", 1, &few, &err), 0);
		return;
	}
	assert_int_equal(fs_disk_usage_of_few(root->fd, "few", 1, &few, &err), 1);
	assert_int_equal(fs_disk_usage_of_few(root->fd, "few/sub", 1, &few, &err), 1);
	assert_ok(fs_disk_usage(NULL, root->fd, "few", &few, &err), &err);
	assert_int_equal(few.inodes, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ROOT(remove_of_nothing_is_success),
		WITH_ROOT(remove_takes_one_name),
		WITH_ROOT(remove_deletes_entries_of_every_kind),
		WITH_ROOT(remove_does_not_follow_links),
		WITH_ROOT(remove_deletes_wide_directories),
		WITH_ROOT(remove_copes_with_its_own_names_in_the_tree),
		WITH_ROOT(remove_deletes_deep_branches),
		WITH_ROOT(remove_ends_when_cancelled),
		WITH_ROOT(remove_reports_read_and_memory_errors),
		WITH_ROOT(remove_names_an_immutable_file),
		WITH_ROOT(remove_does_not_enter_mounts),
		WITH_ROOT(usage_of_an_empty_directory_is_its_own_inode),
		WITH_ROOT(usage_adds_up_blocks_and_inodes),
		WITH_ROOT(usage_counts_a_hard_linked_inode_once),
		WITH_ROOT(usage_goes_on_where_it_was_after_deep_branches),
		WITH_ROOT(usage_does_not_stray_into_the_new_place_of_a_directory),
		WITH_ROOT(usage_reports_what_is_no_directory),
		WITH_ROOT(usage_ends_when_cancelled),
		WITH_ROOT(usage_of_few_is_given_up_in_a_directory_that_held_many),
		WITH_ROOT(usage_reports_read_and_memory_errors),
		WITH_ROOT(usage_does_not_enter_mounts),
		WITH_ROOT(usage_of_few_gives_up_above_its_limit),
		WITH_ROOT(usage_of_few_counts_entries_of_every_kind_and_level),
		WITH_ROOT(usage_of_few_reports_what_it_cannot_count),
		WITH_ROOT(a_hundred_thousand_levels_need_few_descriptors),
	};

	return cmocka_run_group_tests(tests, private_mounts_setup, NULL);
}
